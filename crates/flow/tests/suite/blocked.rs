//! Wakers of what waits for something other than its source: the latest one is woken, and it alone
//! is enough.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, stream};
use tidegate_flow::{Backoff, BatchLimits, ByteBudget, FlowExt, Rate, WhenFull, nz, reconnect};
use tidegate_testkit::wakes::Wakes;

/// Polls with one waker, then with another; lets it go on; polls when the second is woken.
async fn polled_by_two<T>(
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    unblock: impl AsyncFnOnce(),
) -> T {
    let (first, second) = (Wakes::new(), Wakes::new());
    assert!(poll(&mut Context::from_waker(&first.waker())).is_pending());
    assert!(poll(&mut Context::from_waker(&second.waker())).is_pending());
    second.take();
    unblock().await;
    for _ in 0..5 {
        assert!(second.take() > 0, "the latest waker was not woken");
        if let Poll::Ready(output) = poll(&mut Context::from_waker(&second.waker())) {
            return output;
        }
    }
    panic!("woken in vain, again and again");
}

fn next<S: Stream>(
    stream: &mut Pin<Box<S>>,
) -> impl FnMut(&mut Context<'_>) -> Poll<Option<S::Item>> {
    |cx| stream.as_mut().poll_next(cx)
}

async fn an_hour() {
    tokio::time::sleep(Duration::from_secs(3600)).await;
}

#[tokio::test(start_paused = true)]
async fn on_a_timer() {
    let mut paced = Box::pin(stream::iter(0..2).pace(Duration::from_secs(1)));
    assert_eq!(paced.next().await, Some(0));
    assert_eq!(polled_by_two(next(&mut paced), an_hour).await, Some(1));

    let mut limited = Box::pin(stream::iter(0..2).rate_limit(Rate::per_second(nz!(1)), nz!(1)));
    assert_eq!(limited.next().await, Some(0));
    assert_eq!(polled_by_two(next(&mut limited), an_hour).await, Some(1));

    let limits = BatchLimits::rows(nz!(9)).age(Duration::from_secs(1));
    let mut batches = Box::pin(stream::iter(0..2).chain(stream::pending()).batch(limits));
    assert_eq!(polled_by_two(next(&mut batches), an_hour).await, Some(vec![0, 1]));

    let mut failed = false;
    let mut retried = Box::pin(stream::iter([Ok(7)]).retry(Backoff::default(), move |item| {
        let result = if failed { Ok(*item) } else { Err(()) };
        failed = true;
        async move { result }
    }));
    assert_eq!(polled_by_two(next(&mut retried), an_hour).await, Some(Ok(7)));

    let mut refused = false;
    let connect = move |_: Option<()>| {
        let connection = if refused { Ok(stream::iter([Ok(7)])) } else { Err(()) };
        refused = true;
        async move { connection }
    };
    let mut connected = Box::pin(reconnect(connect, Backoff::default()));
    assert_eq!(polled_by_two(next(&mut connected), an_hour).await, Some(Ok(7)));
}

#[tokio::test(start_paused = true)]
async fn on_a_guard_or_a_permit() {
    let mut limited = Box::pin(stream::iter(0..2).in_flight_limit(nz!(1)));
    let guard = limited.next().await;
    let second = polled_by_two(next(&mut limited), async || drop(guard)).await;
    assert_eq!(second.map(|guard| guard.into_parts().0), Some(1));

    let budget = ByteBudget::new(100);
    let holder = budget.holder(0).unwrap();
    let mut budgeted =
        Box::pin(stream::iter(0..2).budgeted(budget.holder(0).unwrap(), 100, |_| 60));
    let permit = holder.try_acquire(100);
    let item = polled_by_two(next(&mut budgeted), async || drop(permit)).await;
    assert_eq!(item.map(|(item, _permit)| item), Some(0));

    let permit = holder.try_acquire(100);
    let mut acquiring = Box::pin(holder.acquire(50));
    let granted = polled_by_two(|cx| acquiring.poll_unpin(cx), async || drop(permit)).await;
    assert_eq!(granted.unwrap().bytes(), 50);
}

#[tokio::test(start_paused = true)]
async fn on_a_consumer() {
    let mut fan_out = stream::iter(0..2).fan_out();
    let mut consumer = fan_out.handle().subscribe(nz!(1), WhenFull::Block);
    let taken = async || assert_eq!(consumer.next().await, Some(0));
    polled_by_two(|cx| fan_out.poll_unpin(cx), taken).await;
    assert_eq!(consumer.next().await, Some(1));

    let mut nobody = stream::iter(0..2).fan_out();
    let handle = nobody.handle();
    polled_by_two(|cx| nobody.poll_unpin(cx), async || drop(handle)).await;
}

#[tokio::test(start_paused = true)]
async fn on_a_task() {
    let slow = |item: u32| tokio::time::sleep(Duration::from_secs(1)).map(move |()| item);
    let mut ordered = Box::pin(stream::iter(0..1).concurrent_map(nz!(2), slow));
    assert_eq!(polled_by_two(next(&mut ordered), an_hour).await, Some(0));

    let mut unordered = Box::pin(stream::iter(0..1).concurrent_map_unordered(nz!(2), slow));
    assert_eq!(polled_by_two(next(&mut unordered), an_hour).await, Some(0));

    let source = stream::once(tokio::time::sleep(Duration::from_secs(1)));
    let mut buffered = Box::pin(source.adaptive_buffer(nz!(1)..=nz!(1)));
    assert_eq!(polled_by_two(next(&mut buffered), an_hour).await, Some(()));
}
