//! Any bytes are taken as tungstenite takes them: the same messages, and the same kind of end.

use std::io::{self, Cursor, Read, Write};

use futures::StreamExt;
use proptest::prelude::*;
use tidegate_net::websocket::{Failure, Message, Options};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, WebSocket, protocol::Role};

use crate::support::{frame, raw, soon};

const MESSAGE_MAX: usize = 40_000;
const FRAME_MAX: usize = 30_000;

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    Cut,
    Protocol,
    NotText,
    TooBig,
}

struct Bytes(Cursor<Vec<u8>>);

impl Read for Bytes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(bytes: &[u8]) -> (Vec<Message>, End) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(FRAME_MAX));
    let bytes = Bytes(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(bytes, Role::Server, Some(config));
    let mut messages = Vec::new();
    let end = loop {
        match socket.read() {
            Ok(tungstenite::Message::Text(text)) => messages.push(Message::Text(text)),
            Ok(tungstenite::Message::Binary(bytes)) => messages.push(Message::Binary(bytes)),
            // What it makes of a code that is none.
            Ok(tungstenite::Message::Close(Some(close)))
                if close.reason == "Protocol violation" =>
            {
                break End::Protocol;
            }
            Ok(tungstenite::Message::Close(_)) => break End::Closed,
            Ok(_) => {}
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => break End::Cut,
            Err(tungstenite::Error::Protocol(_)) => break End::Protocol,
            Err(tungstenite::Error::Utf8(_)) => break End::NotText,
            Err(tungstenite::Error::Capacity(_)) => break End::TooBig,
            Err(error) => panic!("{error}"),
        }
    };
    (messages, end)
}

async fn ours(bytes: &[u8], chunk: usize) -> (Vec<Message>, End) {
    let options = Options {
        message_bytes_max: MESSAGE_MAX,
        frame_bytes_max: FRAME_MAX,
        ..Options::default()
    };
    let (mut near, mut far) = raw(options, chunk);
    let bytes = bytes.to_vec();
    let writing = tokio::spawn(async move {
        // Whoever found an error reads no further.
        let _ = far.write_all(&bytes).await;
        let _ = far.shutdown().await;
        far
    });
    let mut messages = Vec::new();
    let end = loop {
        match soon(near.next()).await {
            Some(Ok(message)) => messages.push(message),
            None => break End::Closed,
            Some(Err(Failure::Cut)) => break End::Cut,
            Some(Err(Failure::Protocol(_))) => break End::Protocol,
            Some(Err(Failure::NotText)) => break End::NotText,
            Some(Err(Failure::TooBig { .. } | Failure::FrameTooBig { .. })) => break End::TooBig,
            Some(Err(error)) => panic!("{error}"),
        }
    };
    drop(near);
    soon(writing).await.unwrap();
    (messages, end)
}

/// A frame as it may come: mostly a proper one.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => Just(0x81_u8),
        8 => Just(0x82),
        4 => Just(0x01),
        4 => Just(0x02),
        6 => Just(0x00),
        6 => Just(0x80),
        2 => Just(0x89),
        2 => Just(0x8a),
        1 => Just(0x88),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        10 => proptest::collection::vec(b'a'..=b'z', 0..130),
        3 => "\\PC{0,40}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
        2 => (0_usize..35_000).prop_map(|size| vec![b'x'; size]),
        1 => prop_oneof![Just(1000_u16), Just(1005), Just(3000), Just(99)]
            .prop_map(|code| [&code.to_be_bytes()[..], b"why"].concat()),
    ];
    (first, payload, 0_u8..40).prop_map(|(first, payload, odd)| {
        let mut bytes = frame(first, &payload);
        if odd == 0 {
            bytes[1] &= 0x7f;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_taken_as_tungstenite_takes_them(
        frames in proptest::collection::vec(frames(), 0..30),
        cut in any::<proptest::sample::Index>(),
        whole: bool,
        chunk in prop_oneof![1_usize..20, Just(1_000), Just(100_000)],
    ) {
        let mut bytes = frames.concat();
        if !whole {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ours = runtime.block_on(ours(&bytes, chunk));
        let theirs = theirs(&bytes);
        prop_assert_eq!(ours.0.len(), theirs.0.len());
        prop_assert!(ours.0 == theirs.0);
        // A head is enough to see what is wrong with a frame; it waits for all of the frame.
        if theirs.1 != End::Cut || ours.1 == End::Closed {
            prop_assert_eq!(ours.1, theirs.1);
        }
    }
}
