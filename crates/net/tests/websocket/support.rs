//! What tests share.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_net::connect::Target;
use tidegate_net::listen::{Keepalive, Limits, Listener};
use tidegate_net::websocket::{MessageStream, Options, Role, Rules, Server};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What is waited for comes, or the test fails.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

/// A server's stream, and raw bytes to it.
pub(crate) fn raw(options: Options, buffer: usize) -> (MessageStream<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(buffer);
    (MessageStream::new(near, Role::Server, options, &[]), far)
}

/// A stream of ours, and tungstenite at the other end.
pub(crate) async fn pair(
    role: Role,
    options: Options,
) -> (MessageStream<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (near, far) = duplex(64 << 10);
    let theirs = match role {
        Role::Client => tungstenite::protocol::Role::Server,
        Role::Server => tungstenite::protocol::Role::Client,
    };
    let far = WebSocketStream::from_raw_socket(far, theirs, None).await;
    (MessageStream::new(near, role, options, &[]), far)
}

/// A frame as a client sends it, its payload masked.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ ..=125 => bytes.push(0x80 | short as u8),
        medium @ ..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A server's frame: what kind, and its payload.
pub(crate) async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    let length = match stream.read_u8().await.unwrap() {
        126 => usize::from(stream.read_u16().await.unwrap()),
        127 => stream.read_u64().await.unwrap() as usize,
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

pub(crate) fn server(rules: Rules, connections_max: usize, options: Options) -> Server {
    let limits = Limits { connections_max, ..Limits::default() };
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), limits).unwrap();
    Server::new(listener, rules, options, DEADLINE)
}

pub(crate) fn target(address: SocketAddr) -> Target {
    let host = address.ip().to_string().into();
    let (port, keepalive) = (address.port(), Keepalive::default());
    Target { host, port, tls: None, timeout: DEADLINE, keepalive }
}
