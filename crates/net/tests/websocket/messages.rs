//! Messages and their frames, with tungstenite at the other end.

use futures::{SinkExt, StreamExt};
use tidegate_net::websocket::{CloseCode, Message, Options, Role};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::{self, protocol::CloseFrame};

use crate::support::{frame, pair, raw, read_frame, soon};

const SIZES: [usize; 12] =
    [0, 1, 125, 126, 127, 1_000, 16_383, 16_384, 16_400, 65_535, 65_536, 300_000];

fn text(size: usize) -> String {
    "añ€".chars().cycle().take(size / 2).collect()
}

#[tokio::test]
async fn messages_of_all_sizes_go_both_ways_in_both_roles() {
    for role in [Role::Client, Role::Server] {
        let (mut near, mut far) = pair(role, Options::default()).await;
        let echo = tokio::spawn(async move {
            while let Some(Ok(message)) = far.next().await {
                if message.is_text() || message.is_binary() {
                    far.send(message).await.unwrap();
                }
            }
        });
        for size in SIZES {
            for message in [Message::text(text(size)), Message::Binary(vec![7; size].into())] {
                near.send(message.clone()).await.unwrap();
                let back = soon(near.next()).await.unwrap().unwrap();
                assert!(back == message, "{size} as {role:?}");
            }
        }
        near.close(CloseCode::Normal, "").await;
        soon(echo).await.unwrap();
        assert!(near.next().await.is_none());
    }
}

#[tokio::test]
async fn many_small_messages_are_read_at_once_and_kept_in_order() {
    let (mut near, mut far) = raw(Options::default(), 1 << 20);
    let all: Vec<_> = (0..5_000).map(|n| format!("message {n}")).collect();
    for (n, message) in all.iter().enumerate() {
        // Pings in between change nothing.
        if n % 100 == 7 {
            far.write_all(&frame(0x89, b"?")).await.unwrap();
        }
        far.write_all(&frame(0x81, message.as_bytes())).await.unwrap();
    }
    let (mut found, mut reads) = (Vec::new(), 0);
    while found.len() < all.len() {
        let messages = soon(std::future::poll_fn(|cx| near.poll_messages(cx))).await;
        let messages = messages.unwrap().unwrap();
        let (bytes, count) = (messages.bytes().clone(), messages.count_all());
        for (range, text) in messages.ranges() {
            assert!(text);
            found.push(String::from_utf8(bytes[range].to_vec()).unwrap());
        }
        assert_eq!(messages.count(), count);
        reads += 1;
    }
    assert!(found == all);
    assert!(reads <= 20, "{reads} reads");
}

#[tokio::test]
async fn fragments_are_one_message_whatever_comes_between_them() {
    let parts: [&[&[u8]]; 5] = [
        &[b"one"],
        &[b"a", b"b", b"c"],
        &[b"", b"", b""],
        &[&[b'x'; 20_000], b"y", &[b'z'; 40_000]],
        &[b"\xe2", b"\x82\xac"],
    ];
    for buffer in [1, 3, 100, 1 << 20] {
        let (mut near, mut far) = raw(Options::default(), buffer);
        let writing = tokio::spawn(async move {
            for message in parts {
                for (at, part) in message.iter().enumerate() {
                    let last = if at + 1 == message.len() { 0x80 } else { 0 };
                    let kind = if at == 0 { 1 } else { 0 };
                    far.write_all(&frame(0x8a, b"nobody asked")).await.unwrap();
                    far.write_all(&frame(last | kind, part)).await.unwrap();
                }
            }
            far
        });
        for message in parts {
            let found = soon(near.next()).await.unwrap().unwrap();
            assert!(found.as_bytes() == message.concat(), "with {buffer}");
        }
        soon(writing).await.unwrap();
    }
}

#[tokio::test]
async fn a_ping_is_answered_while_messages_are_waited_for() {
    let (mut near, mut far) = raw(Options::default(), 1 << 16);
    let reading = tokio::spawn(async move { near.next().await });
    for word in [&b""[..], b"once", &[9; 125]] {
        far.write_all(&frame(0x89, word)).await.unwrap();
        assert_eq!(soon(read_frame(&mut far)).await, (0x8a, word.to_vec()));
    }
    far.write_all(&frame(0x82, b"done")).await.unwrap();
    let message = soon(reading).await.unwrap().unwrap().unwrap();
    assert_eq!(message.as_bytes(), b"done");
}

#[tokio::test]
async fn a_flood_of_pings_from_one_who_reads_no_answers_stays_small() {
    let (mut near, mut far) = raw(Options::default(), 4 << 10);
    let reading = tokio::spawn(async move {
        let message = near.next().await;
        (near, message)
    });
    for _ in 0..10_000 {
        soon(far.write_all(&frame(0x89, &[1; 125]))).await.unwrap();
    }
    soon(far.write_all(&frame(0x82, b"done"))).await.unwrap();
    let (_near, message) = soon(reading).await.unwrap();
    assert_eq!(message.unwrap().unwrap().as_bytes(), b"done");
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_what_came_before_is_given() {
    let (mut near, mut far) = pair(Role::Server, Options::default()).await;
    far.send("last words".into()).await.unwrap();
    let reason = CloseFrame { code: CloseCode::Away, reason: "off".into() };
    far.close(Some(reason.clone())).await.unwrap();
    let said = soon(near.next()).await.unwrap().unwrap();
    assert_eq!(said.as_text(), Some("last words"));
    let ending = tokio::spawn(async move { (near.next().await.is_none(), near) });
    let answer = soon(far.next()).await.unwrap().unwrap();
    let tungstenite::Message::Close(Some(answer)) = answer else { panic!("{answer:?}") };
    assert_eq!(answer.code, reason.code);
    assert!(soon(far.next()).await.is_none());
    drop(far);
    let (none, near) = soon(ending).await.unwrap();
    assert!(none);
    let ended = near.ended().unwrap();
    let told = (ended.code, &*ended.reason, ended.by_peer);
    assert_eq!(told, (Some(CloseCode::Away), "off", true));
}

#[tokio::test]
async fn a_close_from_here_is_a_proper_one_in_both_roles() {
    for role in [Role::Client, Role::Server] {
        let (mut near, mut far) = pair(role, Options::default()).await;
        let closing = tokio::spawn(async move {
            near.close(CloseCode::Away, "going").await;
            near
        });
        let said = soon(far.next()).await.unwrap().unwrap();
        let tungstenite::Message::Close(Some(said)) = said else { panic!("{said:?}") };
        assert_eq!((said.code, &*said.reason), (CloseCode::Away, "going"));
        assert!(soon(far.next()).await.is_none(), "closed, and not reset");
        drop(far);
        let mut near = soon(closing).await.unwrap();
        assert!(near.next().await.is_none());
        assert!(near.send(Message::text("late")).await.is_err());
    }
}
