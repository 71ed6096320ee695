//! `FlowExt` beside the extension traits of futures and tokio-stream: no name is ambiguous.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tidegate_flow::{Backoff, BatchLimits, ByteBudget, FlowExt as _, Rate, nz};
use tokio_stream::StreamExt as _;

#[tokio::test(start_paused = true)]
async fn all_methods_can_be_called_with_all_traits_in_scope() {
    let holder = ByteBudget::new(10).holder(10).unwrap();
    let rate = Rate::per_second(nz!(1_000));
    let numbers = stream::iter((0_u32..20).map(Ok::<_, String>))
        .pace(Duration::from_millis(1))
        .rate_limit(rate, nz!(5))
        .rate_limit_by(rate, nz!(5), |_| 1)
        .meter()
        .meter_by(|_| 4)
        .concurrent_map(nz!(2), |number| async move { number })
        .concurrent_map_unordered(nz!(1), |number| async move { number })
        .adaptive_buffer(nz!(1)..=nz!(2))
        .retry(Backoff::default(), |number| std::future::ready(Ok(*number)))
        .inspect_err(|error| assert_eq!(error, ""))
        .in_flight_limit(nz!(20))
        .budgeted(holder, 10, |_| 4);
    let fan_out = numbers.map_while(|(guard, _permit)| guard.into_parts().0.ok()).fan_out();
    let consumer = fan_out.handle().subscribe(nz!(20), tidegate_flow::WhenFull::Block);
    fan_out.await;
    let batches = consumer.batch(BatchLimits::rows(nz!(7)));
    let batches: Vec<_> = batches.ready_chunks(9).concat().await;
    assert_eq!(batches.into_iter().map(|batch| batch.len()).collect::<Vec<_>>(), [7, 7, 6]);
}
