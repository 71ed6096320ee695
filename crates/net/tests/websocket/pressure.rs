//! Memory, and peers that wait.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use tidegate_flow::{ByteBudget, FairMerge, Merged};
use tidegate_net::websocket::{Address, Utf8Bytes};
use tidegate_net::websocket::{Message, Options, Rules, connect};
use tokio::io::AsyncWriteExt;

use crate::support::{frame, raw, server, soon, target};

#[tokio::test]
async fn memory_is_asked_for_before_a_body_is_read_and_an_idle_stream_holds_none() {
    let budget = ByteBudget::new(100_000);
    let holder = Arc::new(budget.holder(0).unwrap());
    let other = budget.holder(0).unwrap();
    let (near, mut far) = raw(Options::default(), 1 << 20);
    let mut near = near.budgeted(Arc::clone(&holder));
    assert!(near.next().now_or_never().is_none());
    assert_eq!(holder.held(), 0);
    far.write_all(&frame(0x81, b"short")).await.unwrap();
    let message = soon(near.next()).await.unwrap().unwrap();
    assert_eq!(holder.held(), 5, "exactly as much as it has");
    drop(message);
    assert_eq!(holder.held(), 0);

    let taken = other.charge(70_000);
    far.write_all(&frame(0x82, &[7; 40_000])).await.unwrap();
    assert!(near.next().now_or_never().is_none());
    assert_eq!(holder.held(), 0, "who waits holds nothing");
    drop(taken);
    let message = soon(near.next()).await.unwrap().unwrap();
    assert_eq!((message.as_bytes().len(), holder.held()), (40_000, 40_000));
    assert!(near.next().now_or_never().is_none());
    assert_eq!(holder.held(), 40_000);
    drop(message);
    assert_eq!(budget.usage().used, 0);
}

#[tokio::test]
async fn messages_in_several_frames_reserve_what_they_may_have_and_keep_what_they_have() {
    let budget = ByteBudget::new(1 << 20);
    let holder = Arc::new(budget.holder(0).unwrap());
    let options = Options { message_bytes_max: 100_000, ..Options::default() };
    let (near, mut far) = raw(options, 1 << 20);
    let mut near = near.budgeted(Arc::clone(&holder));
    far.write_all(&frame(0x01, b"begun")).await.unwrap();
    assert!(near.next().now_or_never().is_none());
    assert_eq!(holder.held(), 100_000);
    far.write_all(&frame(0x80, b" and done")).await.unwrap();
    let message = soon(near.next()).await.unwrap().unwrap();
    assert_eq!((message.as_text(), holder.held()), (Some("begun and done"), 14));
    far.write_all(&frame(0x01, b"begun")).await.unwrap();
    assert!(near.next().now_or_never().is_none());
    drop((near, message));
    assert_eq!(budget.usage().used, 0);
}

#[tokio::test]
async fn many_that_all_need_much_share_a_budget_for_one() {
    let budget = ByteBudget::new(70_000);
    let holder = Arc::new(budget.holder(0).unwrap());
    let mut merge = FairMerge::new();
    let mut writing = tokio::task::JoinSet::new();
    for n in 0..20_u8 {
        let (near, mut far) = raw(Options::default(), 5_000);
        merge.insert(n, near.budgeted(Arc::clone(&holder)));
        writing.spawn(async move {
            for size in [100, 60_000, 10, 20_000, 65_000] {
                far.write_all(&frame(0x82, &vec![n; size])).await.unwrap();
            }
            far.write_all(&frame(0x88, b"")).await.unwrap();
        });
    }
    let (mut messages, mut bytes) = (0, 0);
    while let Some(merged) = soon(merge.next()).await {
        if let Merged::Item(n, message) = merged {
            let message = message.unwrap();
            assert!(message.as_bytes().iter().all(|byte| *byte == n));
            (messages, bytes) = (messages + 1, bytes + message.as_bytes().len());
        }
    }
    assert_eq!((messages, bytes), (100, 20 * 145_110));
    let peak = budget.usage().peak;
    assert!(peak <= 70_000, "{peak} bytes were held");
    assert!(writing.join_all().await.len() == 20);
}

#[tokio::test]
async fn a_peer_whose_messages_nobody_takes_waits_and_nothing_is_lost() {
    let mut server = server(Rules::default(), 10, Options::default());
    let address = server.local_addr().unwrap();
    let (_, _, _, url) = Address::parse(&format!("ws://{address}/")).unwrap();
    let target = target(address);
    let (near, far) =
        soon(async { tokio::join!(server.accept(), connect(&target, &url, Options::default())) })
            .await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    let mut sent = 0_u32;
    let text = |n: u32| Utf8Bytes::from(format!("{n:01000}"));
    // So long as the kernel takes them; then sending waits.
    loop {
        let sending =
            tokio::time::timeout(Duration::from_millis(200), far.send(Message::Text(text(sent))));
        if sending.await.is_err() {
            break;
        }
        sent += 1;
        assert!(sent < 100_000, "100 MB were sent to nobody");
    }
    assert!(sent > 10);
    let finishing = tokio::spawn(async move {
        far.flush().await.unwrap();
        far.send(Message::text("end")).await.unwrap();
        far
    });
    let mut found = 0;
    loop {
        let message = soon(near.stream.next()).await.unwrap().unwrap();
        if message.as_text() == Some("end") {
            break;
        }
        assert_eq!(message.as_text(), Some(&*text(found)));
        found += 1;
    }
    // The one that waited was in the stream's own buffer.
    assert!(found == sent || found == sent + 1, "{found} of {sent}");
    drop(soon(finishing).await.unwrap());
}
