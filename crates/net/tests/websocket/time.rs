//! Silence, pauses, the end: on a clock that is moved by hand.

use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use tidegate_net::websocket::{CloseCode, Failure, Message, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, advance, sleep};

use crate::support::{frame, raw, read_frame};

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_is_found_out_after_two_intervals() {
    let (mut near, mut far) = raw(Options::default(), 1 << 16);
    let began = Instant::now();
    let error = near.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Failure::Silent(_)), "{error}");
    assert_eq!(began.elapsed().as_secs(), 40);
    assert_eq!(read_frame(&mut far).await, (0x89, vec![]));
    assert!(near.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn whatever_a_peer_says_shows_that_it_is_there() {
    let (mut near, mut far) = raw(Options::default(), 1 << 16);
    let reading = tokio::spawn(async move { near.next().await });
    for word in [frame(0x8a, b""), frame(0x89, b"?"), frame(0x01, b"one")] {
        sleep(Duration::from_secs(35)).await;
        far.write_all(&word).await.unwrap();
    }
    // The rest of a message is waited for no longer than a message may take.
    let error = reading.await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, Failure::Slow(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_pings_silence_is_nothing() {
    let (mut near, _far) = raw(Options { ping_interval: None, ..Options::default() }, 1 << 16);
    tokio::select! {
        message = near.next() => panic!("{message:?}"),
        () = sleep(Duration::from_secs(100_000)) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn silence_counts_only_while_we_read() {
    let (mut near, mut far) = raw(Options::default(), 1 << 16);
    far.write_all(&frame(0x81, b"one")).await.unwrap();
    assert_eq!(near.next().await.unwrap().unwrap().as_text(), Some("one"));
    // It was asked whether it is there, and answered while nobody read.
    sleep(Duration::from_secs(19)).await;
    assert!(near.next().now_or_never().is_none());
    sleep(Duration::from_secs(2)).await;
    assert!(near.next().now_or_never().is_none());
    assert_eq!(read_frame(&mut far).await, (0x89, vec![]));
    far.write_all(&frame(0x8a, b"")).await.unwrap();
    assert_eq!(near.pauses(), 0);
    sleep(Duration::from_secs(3_600)).await;
    assert!(near.next().now_or_never().is_none(), "the answer counts, however late it is read");
    assert_eq!(near.pauses(), 1);
    far.write_all(&frame(0x81, b"two")).await.unwrap();
    assert_eq!(near.next().await.unwrap().unwrap().as_text(), Some("two"));
    // A message that nobody asks for is a pause, too; half of one is not late by it.
    far.write_all(&frame(0x81, &[b'x'; 20_000])[..17_000]).await.unwrap();
    far.write_all(&[]).await.unwrap();
    assert!(near.next().now_or_never().is_none());
    sleep(Duration::from_secs(3_600)).await;
    assert!(near.next().now_or_never().is_none());
    far.write_all(&frame(0x81, &[b'x'; 20_000])[17_000..]).await.unwrap();
    assert_eq!(near.next().await.unwrap().unwrap().as_bytes().len(), 20_000);
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_message_may_not_take_for_ever() {
    for begun in [
        frame(0x81, &[b'x'; 200])[..100].to_vec(),
        frame(0x81, &[b'x'; 50_000])[..20_000].to_vec(),
        vec![0x81],
    ] {
        let (mut near, mut far) = raw(Options::default(), 1 << 20);
        let began = Instant::now();
        let reading = tokio::spawn(async move { near.next().await });
        far.write_all(&begun).await.unwrap();
        // Answers do not make it any faster.
        for _ in 0..10 {
            tokio::select! {
                (kind, _) = read_frame(&mut far) => if kind == 0x88 { break },
                () = sleep(Duration::from_secs(100)) => break,
            }
        }
        let error = reading.await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, Failure::Slow(_)), "{error}");
        assert_eq!(began.elapsed().as_secs(), 30);
    }
}

#[tokio::test(start_paused = true)]
async fn a_steady_stream_of_messages_cut_anywhere_is_never_late() {
    let (mut near, mut far) = raw(Options::default(), 1 << 16);
    let word = frame(0x81, b"a word of some length");
    let mut bytes = std::iter::repeat_n(word, 200).flatten();
    let writing = tokio::spawn(async move {
        while let Some(byte) = bytes.next() {
            let piece: Vec<u8> = [byte].into_iter().chain(bytes.by_ref().take(30)).collect();
            far.write_all(&piece).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
        far
    });
    for _ in 0..200 {
        near.next().await.unwrap().unwrap();
    }
    writing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_closes_is_waited_for_only_so_long() {
    let (mut near, _far) = raw(Options::default(), 1 << 16);
    let began = Instant::now();
    near.close(CloseCode::Away, "").await;
    assert_eq!(began.elapsed().as_secs(), 5);
    assert!(near.next().now_or_never().unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_talks_on_after_our_close_is_waited_for_only_so_long() {
    let (mut near, mut far) = raw(Options::default(), 1 << 10);
    let talking = tokio::spawn(async move {
        while far.write_all(&frame(0x81, b"and")).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    let began = Instant::now();
    near.close(CloseCode::Away, "").await;
    assert_eq!(began.elapsed().as_secs(), 5);
    drop(near);
    talking.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_not_taken_for_gone() {
    let (mut near, mut far) = raw(Options::default(), 64);
    near.feed(Message::text("x".repeat(1_000))).await.unwrap();
    let reading = tokio::spawn(async move {
        let message = near.next().await;
        (near, message)
    });
    advance(Duration::from_secs(600)).await;
    sleep(Duration::from_secs(600)).await;
    far.write_all(&frame(0x81, b"busy")).await.unwrap();
    let (_near, message) = reading.await.unwrap();
    assert_eq!(message.unwrap().unwrap().as_text(), Some("busy"));
    let mut bytes = [0; 64];
    far.read_exact(&mut bytes).await.unwrap();
}
