//! The server's process: broadcasts what it is told to.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use futures::{SinkExt, StreamExt};
use tidegate_net::listen::{Limits, Listener};
use tidegate_net::websocket::{
    Broadcast, BroadcastOptions, Message, Options, Rules, Server, Slow, Utf8Bytes,
};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::{MESSAGE_BYTES, Side};

/// So many messages are kept for those who are behind, on all sides.
const KEPT: usize = 1_024;

pub(crate) fn main(arguments: &[String]) {
    let side = Side::ALL.into_iter().find(|side| side.name() == arguments[0]).unwrap();
    let (tell, told) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            tell.send(line.unwrap()).unwrap();
        }
        std::process::exit(0);
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async move {
        match side {
            Side::Ours => ours(told).await,
            _ => theirs(told, side).await,
        }
    });
}

fn listening(address: SocketAddr) {
    println!("{}", address.port());
    std::io::stdout().flush().unwrap();
}

/// A message that says when it was made.
fn text() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{:020}{:.>width$}", now.as_nanos(), "", width = MESSAGE_BYTES - 20)
}

/// Does as it is told, message by message.
async fn obey(
    mut told: UnboundedReceiver<String>,
    clients: impl Fn() -> usize,
    publish: impl AsyncFn(String),
) {
    while let Some(line) = told.recv().await {
        let mut words = line.split_whitespace();
        let what = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        match what {
            "publish" => {
                for _ in 0..number() {
                    publish(text()).await;
                }
            }
            "await" => {
                let expected = number() as usize;
                while clients() < expected {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                println!("there");
                std::io::stdout().flush().unwrap();
            }
            "pace" => {
                let (burst, bursts, pause) = (number(), number(), number());
                let mut ticks = tokio::time::interval(Duration::from_nanos(pause));
                for _ in 0..bursts {
                    ticks.tick().await;
                    for _ in 0..burst {
                        publish(text()).await;
                    }
                }
            }
            other => panic!("{other:?} is nothing to do"),
        }
    }
}

async fn ours(told: UnboundedReceiver<String>) {
    let limits = Limits { connections_max: 100_000, ..Limits::default() };
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), limits).unwrap();
    let patience = Duration::from_secs(60);
    let mut server = Server::new(listener, Rules::default(), Options::default(), patience);
    listening(server.local_addr().unwrap());
    let keep = BroadcastOptions { messages_max: KEPT, ..BroadcastOptions::default() };
    let broadcast = Broadcast::new(keep);
    let publishing = broadcast.clone();
    tokio::spawn(async move {
        loop {
            let Ok(client) = server.accept().await else { continue };
            let subscriber = broadcast.subscribe(client.stream, Slow::skip());
            tokio::spawn(async move {
                let _slot = client.slot;
                subscriber.run().await
            });
        }
    });
    let clients = || publishing.clients();
    obey(told, clients, async |text| publishing.publish(&Message::text(text)).await).await;
}

async fn theirs(told: UnboundedReceiver<String>, side: Side) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listening(listener.local_addr().unwrap());
    let (sender, _) = broadcast::channel::<Utf8Bytes>(KEPT);
    let publishing = sender.clone();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            stream.set_nodelay(true).unwrap();
            let messages = sender.subscribe();
            tokio::spawn(async move { client(stream, messages, side).await });
        }
    });
    let clients = || publishing.receiver_count();
    obey(told, clients, async |text| drop(publishing.send(text.into()))).await;
}

async fn client(
    stream: tokio::net::TcpStream,
    mut messages: broadcast::Receiver<Utf8Bytes>,
    side: Side,
) -> Result<(), tungstenite::Error> {
    let config = match side {
        Side::Plain => None,
        _ => Some(WebSocketConfig::default().read_buffer_size(4 << 10).write_buffer_size(4 << 10)),
    };
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, config).await?;
    loop {
        tokio::select! {
            message = messages.recv() => {
                let Ok(message) = message else { return Ok(()) };
                if side != Side::Fed {
                    socket.send(tungstenite::Message::Text(message)).await?;
                    continue;
                }
                socket.feed(tungstenite::Message::Text(message)).await?;
                while let Ok(message) = messages.try_recv() {
                    socket.feed(tungstenite::Message::Text(message)).await?;
                }
                socket.flush().await?;
            }
            said = socket.next() => {
                let Some(said) = said else { return Ok(()) };
                said?;
            }
        }
    }
}
