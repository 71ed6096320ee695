//! One message to many, of whom some are slow.

use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use tidegate_net::websocket::{
    Broadcast, BroadcastOptions, CloseCode, Frames, Message, MessageStream, Options, Role, Slow,
};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::soon;

/// A server's end and a client's, of ours both.
fn ends(buffer: usize) -> (MessageStream<DuplexStream>, MessageStream<DuplexStream>) {
    let (near, far) = duplex(buffer);
    let options = Options::default();
    let near = MessageStream::new(near, Role::Server, options, &[]);
    (near, MessageStream::new(far, Role::Client, options, &[]))
}

fn numbered(n: usize) -> Message {
    Message::text(format!("message {n:04}"))
}

async fn text(far: &mut MessageStream<DuplexStream>) -> String {
    let message = soon(far.next()).await.unwrap().unwrap();
    message.as_text().unwrap().to_owned()
}

#[tokio::test]
async fn all_get_the_same_in_order_and_a_close_at_the_end() {
    let broadcast = Broadcast::new(BroadcastOptions::default());
    let (mut serving, mut reading) = (JoinSet::new(), JoinSet::new());
    for n in 0..50 {
        let (near, mut far) = ends(if n % 2 == 0 { 100 } else { 10_000 });
        let slow = if n % 3 == 0 { Slow::skip() } else { Slow::Block };
        serving.spawn(broadcast.subscribe(near, slow).run());
        reading.spawn(async move {
            let mut found = 0;
            while let Some(message) = far.next().await {
                assert_eq!(message.unwrap(), numbered(found));
                found += 1;
            }
            assert_eq!(far.ended().unwrap().code, Some(CloseCode::Away));
            found
        });
    }
    assert_eq!(broadcast.clients(), 50);
    for n in 0..500 {
        soon(broadcast.publish(&numbered(n))).await;
    }
    let rest: Vec<_> = (500..1_000).map(numbered).collect();
    soon(broadcast.publish_all(&rest)).await;
    let handle = broadcast.clone();
    drop(broadcast);
    assert!(timeout(Duration::from_millis(50), serving.join_next()).await.is_err());
    drop(handle);
    assert_eq!(soon(reading.join_all()).await, [1_000; 50]);
    for left in soon(serving.join_all()).await {
        assert!(left.failure.is_none() && left.missed == 0, "{left:?}");
    }
}

#[tokio::test]
async fn a_slow_client_is_told_how_many_it_missed_and_holds_nobody_up() {
    let options = BroadcastOptions { messages_max: 10, bytes_max: 1 << 20 };
    let broadcast = Broadcast::new(options);
    let (slow, mut far) = ends(64);
    let (quick, mut other) = ends(1 << 20);
    let serving = tokio::spawn(broadcast.subscribe(slow, Slow::skip()).run());
    tokio::spawn(broadcast.subscribe(quick, Slow::skip()).run());
    for n in 0..1_000 {
        assert!(broadcast.publish(&numbered(n)).now_or_never().is_some(), "it waits for nobody");
        assert_eq!(text(&mut other).await, format!("message {n:04}"));
    }
    let (mut next, mut missed) = (0, 0);
    while next < 1_000 {
        let said = text(&mut far).await;
        match said.strip_prefix("{\"missed\":").and_then(|rest| rest.strip_suffix('}')) {
            Some(count) => {
                let count: usize = count.parse().unwrap();
                missed += count;
                next += count;
            }
            None => {
                assert_eq!(said, format!("message {next:04}"));
                next += 1;
            }
        }
    }
    assert!(missed > 900, "{missed}");
    drop(broadcast);
    assert!(soon(far.next()).await.is_none());
    drop(far);
    assert_eq!(soon(serving).await.unwrap().missed, missed as u64);
}

#[tokio::test]
async fn a_slow_client_is_told_to_go_where_that_is_the_rule() {
    let options = BroadcastOptions { messages_max: 10, bytes_max: 1 << 20 };
    let broadcast = Broadcast::new(options);
    let (near, mut far) = ends(64);
    let serving = tokio::spawn(broadcast.subscribe(near, Slow::disconnect()).run());
    for n in 0..100 {
        soon(broadcast.publish(&numbered(n))).await;
        tokio::task::yield_now().await;
    }
    let mut found = 0;
    while let Some(message) = soon(far.next()).await {
        assert_eq!(message.unwrap(), numbered(found));
        found += 1;
    }
    assert!(found < 50, "{found}");
    assert_eq!(far.ended().unwrap().code, Some(CloseCode::Again));
    drop(far);
    let left = soon(serving).await.unwrap();
    assert_eq!((left.failure.is_none(), broadcast.clients()), (true, 0));
}

#[tokio::test]
async fn one_that_is_to_be_waited_for_is() {
    let options = BroadcastOptions { messages_max: 10, bytes_max: 1 << 20 };
    let broadcast = Broadcast::new(options);
    let (near, mut far) = ends(64);
    let serving = tokio::spawn(broadcast.subscribe(near, Slow::Block).run());
    let mut published = 0;
    loop {
        let message = numbered(published);
        let publishing = broadcast.publish(&message);
        if timeout(Duration::from_millis(100), publishing).await.is_err() {
            break;
        }
        published += 1;
        assert!(published < 100, "nobody is waited for");
    }
    for n in 0..published {
        assert_eq!(text(&mut far).await, format!("message {n:04}"));
    }
    soon(broadcast.publish(&numbered(published))).await;
    assert_eq!(text(&mut far).await, format!("message {published:04}"));
    // Whoever is gone is waited for no more.
    let mut frames = Frames::default();
    (0..100).for_each(|_| frames.push(b"more"));
    assert!(
        timeout(Duration::from_millis(50), broadcast.publish_frames(&mut frames)).await.is_err()
    );
    drop(far);
    soon(broadcast.publish_frames(&mut frames)).await;
    assert!(soon(serving).await.unwrap().failure.is_some());
}

#[tokio::test]
async fn what_clients_say_is_heard_and_pings_are_answered_between_messages() {
    let broadcast = Broadcast::new(BroadcastOptions::default());
    let (near, mut far) = ends(200);
    let mut subscriber = broadcast.subscribe(near, Slow::Block);
    let hearing = tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Some(said) = subscriber.next().await {
            heard.push(said.unwrap());
        }
        heard
    });
    let publishing = broadcast.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..300 {
            publishing.publish(&numbered(n)).await;
        }
    });
    for n in 0..300 {
        if n % 10 == 0 {
            far.send(numbered(n)).await.unwrap();
        }
        assert_eq!(text(&mut far).await, format!("message {n:04}"));
    }
    soon(publishing).await.unwrap();
    soon(far.close(CloseCode::Normal, "")).await;
    drop(far);
    let heard = soon(hearing).await.unwrap();
    assert_eq!(heard, (0..30).map(|n| numbered(n * 10)).collect::<Vec<_>>());
}

#[tokio::test]
async fn long_messages_and_short_ones_come_whole_however_small_the_steps() {
    let broadcast = Broadcast::new(BroadcastOptions { messages_max: 50, bytes_max: 300_000 });
    let sizes = [0, 1, 125, 126, 5_000, 70_000, 10, 200_000, 400_000, 3];
    let mut reading = JoinSet::new();
    for buffer in [7, 1_000, 100_000] {
        let (near, mut far) = ends(buffer);
        let serving = broadcast.subscribe(near, Slow::Block).run();
        reading.spawn(async move {
            let serving = tokio::spawn(serving);
            for size in sizes.iter().cycle().take(30) {
                let message = far.next().await.unwrap().unwrap();
                assert_eq!(message.as_bytes().len(), *size);
            }
            drop(far);
            serving.await.unwrap();
        });
    }
    for size in sizes.iter().cycle().take(30) {
        soon(broadcast.publish(&Message::Binary(vec![3; *size].into()))).await;
    }
    soon(reading.join_all()).await;
}
