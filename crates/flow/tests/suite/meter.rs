//! Where the time goes, with a queue downstream and without.

use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use tidegate_flow::{FlowExt, Reading, WhenFull, nz};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

fn seconds(reading: Reading) -> (u64, u64, u64) {
    (reading.idle.as_secs(), reading.busy.as_secs(), reading.blocked.as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_shows_as_blocked_not_busy() {
    let metered = stream::iter(0..10).meter();
    let meter = metered.handle();
    let buffered = metered.adaptive_buffer(nz!(1)..=nz!(1)).report_to(meter.clone());
    buffered.for_each(|_| sleep(SECOND)).await;
    let reading = meter.read();
    assert_eq!(reading.items, 10);
    // Eight times the reader waits a second with an item in hand; then all is read.
    assert_eq!(seconds(reading), (0, 0, 8));
}

#[tokio::test(start_paused = true)]
async fn a_full_consumer_shows_as_blocked() {
    let metered = stream::iter(0..10).meter_by(|_| 7);
    let meter = metered.handle();
    let fan_out = metered.fan_out().report_to(meter.clone());
    let slow = fan_out.handle().subscribe(nz!(1), WhenFull::Block);
    tokio::join!(fan_out, slow.for_each(|_| sleep(SECOND)));
    let reading = meter.read();
    assert_eq!((reading.items, reading.bytes), (10, 70));
    assert_eq!(seconds(reading), (0, 0, 8));
}

#[tokio::test(start_paused = true)]
async fn handing_on_to_a_full_channel_counts_as_blocked_when_told() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let metered = stream::iter(0..5).meter();
    let meter = metered.handle();
    let forwarding = metered.for_each(|item| {
        let (sender, meter) = (sender.clone(), meter.clone());
        async move {
            sleep(SECOND).await; // work
            meter.blocked(sender.send(item)).await.unwrap();
        }
    });
    let receiving = async {
        for _ in 0..5 {
            sleep(SECOND * 3).await;
            receiver.recv().await.unwrap();
        }
    };
    tokio::join!(forwarding, receiving);
    // Each takes a second of work; they are sent at 1, 3, 6, 9 and 12 s.
    assert_eq!(seconds(meter.read()), (0, 5, 7));
}

#[tokio::test(start_paused = true)]
async fn it_is_blocked_until_the_last_of_several_has_handed_on() {
    let mut metered = Box::pin(stream::iter(0..2).meter());
    let meter = metered.handle();
    assert_eq!((metered.next().await, metered.next().await), (Some(0), Some(1)));
    tokio::join!(meter.blocked(sleep(SECOND)), meter.blocked(sleep(SECOND * 5)));
    sleep(SECOND * 2).await;
    assert_eq!(seconds(meter.read()), (0, 2, 5));
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_the_time_again_after_the_end() {
    let mut metered = Box::pin(stream::iter(0..1).meter());
    let meter = metered.handle();
    assert_eq!(metered.next().await, Some(0));
    let handing_on = meter.blocked(sleep(SECOND * 5));
    tokio::join!(handing_on, async {
        sleep(SECOND).await;
        assert_eq!(metered.next().await, None);
    });
    meter.blocked(sleep(SECOND)).await;
    sleep(SECOND * 5).await;
    assert_eq!(seconds(meter.read()), (0, 0, 1));

    let mut empty = Box::pin(stream::empty::<()>().meter());
    let meter = empty.handle();
    assert_eq!(empty.next().await, None);
    meter.blocked(sleep(SECOND)).await;
    sleep(SECOND).await;
    assert_eq!(seconds(meter.read()), (0, 0, 0));
}

#[test]
fn more_bytes_than_can_be_counted_do_no_harm() {
    let metered = stream::iter(0..3).meter_by(|_| u64::MAX);
    let meter = metered.handle();
    assert_eq!(metered.count().now_or_never(), Some(3));
    assert_eq!((meter.read().items, meter.read().bytes), (3, u64::MAX));
}

#[tokio::test(start_paused = true)]
async fn an_open_spell_counts_up_to_the_moment_of_reading() {
    let mut metered = Box::pin(stream::pending::<()>().meter());
    let meter = metered.handle();
    sleep(SECOND).await;
    assert_eq!(seconds(meter.read()), (0, 0, 0), "time begins at the first poll");
    assert!(futures::poll!(metered.next()).is_pending());
    sleep(SECOND * 5).await;
    assert_eq!(seconds(meter.read()), (5, 0, 0));
    sleep(SECOND * 5).await;
    assert_eq!(seconds(meter.read()), (10, 0, 0));
}
