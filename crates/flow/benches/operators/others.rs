//! The other operators against the nearest thing there is, or what one would write by hand.

use std::collections::VecDeque;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use tidegate_flow::{Backoff, ByteBudget, FlowExt, WhenFull, nz};
use tidegate_testkit::bench::{Bench, Target};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};

use crate::support::{Outcome, current_thread, drain, lines, multi_thread, numbers};

pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let here = current_thread()?;
    let threads = multi_thread(1)?;
    bench.section("adaptive_buffer vs a spawned task and tokio's mpsc");
    for (capacity, items) in [(nz!(16), 200_000), (nz!(1024), 200_000)] {
        let name = format!("capacity {capacity}, one thread, u64");
        buffers(bench, &here, &name, (capacity, items), numbers);
        let name = format!("capacity {capacity}, one thread, Arc&lt;str>");
        buffers(bench, &here, &name, (capacity, items), lines);
    }
    // With little room the two threads wait for each other all the time, and an item takes long.
    for (capacity, items) in [(nz!(16), 5_000), (nz!(1024), 100_000)] {
        let name = format!("capacity {capacity}, two threads, u64");
        buffers(bench, &threads, &name, (capacity, items), numbers);
    }
    bench.section("fan_out to blocking consumers vs a loop over tokio's mpsc");
    for (consumers, capacity) in [(2, 64), (2, 1024), (10, 64)] {
        let name = format!("{consumers} consumers, capacity {capacity}");
        fan_outs(bench, &here, &format!("{name}, u64"), (consumers, capacity), numbers);
        fan_outs(bench, &here, &format!("{name}, Arc&lt;str>"), (consumers, capacity), lines);
    }
    bench.section("in_flight_limit vs tokio's Semaphore");
    in_flight(bench, &here, 0);
    in_flight(bench, &here, 15);
    bench.section("budgeted vs tokio's Semaphore, reserve 4096, keep 100");
    budgeted(bench, &here)?;
    bench.section("retry, pace vs what doesn't retry or pace");
    retry(bench, &here);
    pace(bench, &here);
    Ok(())
}

fn buffers<S, T>(
    bench: &mut Bench,
    runtime: &Runtime,
    name: &str,
    (capacity, items): (NonZeroUsize, u64),
    source: impl Fn(u64) -> S,
) where
    S: Stream<Item = T> + Send + Unpin + 'static,
    T: Send + 'static,
{
    bench.pair(
        name,
        items,
        Target::None,
        |items| {
            let ahead = source(items).adaptive_buffer(capacity..=capacity);
            runtime.block_on(drain(ahead))
        },
        |items| {
            let mut source = source(items);
            let (sender, mut receiver) = mpsc::channel(capacity.get());
            runtime.spawn(async move {
                while let Some(item) = source.next().await {
                    if sender.send(item).await.is_err() {
                        break;
                    }
                }
            });
            runtime.block_on(async {
                let mut count = 0;
                while let Some(item) = receiver.recv().await {
                    black_box(item);
                    count += 1;
                }
                count
            })
        },
    );
}

fn fan_outs<S, T>(
    bench: &mut Bench,
    runtime: &Runtime,
    name: &str,
    (consumers, capacity): (usize, usize),
    source: impl Fn(u64) -> S,
) where
    S: Stream<Item = T> + Send + Unpin + 'static,
    T: Clone + Send + 'static,
{
    let ours = |items| {
        let fan_out = source(items).fan_out();
        let room = capacity.try_into().unwrap_or(nz!(1));
        let handle = fan_out.handle();
        let tasks: Vec<_> = (0..consumers)
            .map(|_| runtime.spawn(drain(handle.subscribe(room, WhenFull::Block))))
            .collect();
        drop(handle);
        runtime.block_on(async {
            fan_out.await;
            futures::future::join_all(tasks).await.len()
        })
    };
    let theirs = |items| {
        let mut source = source(items);
        let (senders, tasks): (Vec<_>, Vec<_>) = (0..consumers)
            .map(|_| {
                let (sender, mut receiver) = mpsc::channel::<T>(capacity);
                let task = async move {
                    while let Some(item) = receiver.recv().await {
                        black_box(item);
                    }
                };
                (sender, runtime.spawn(task))
            })
            .unzip();
        runtime.block_on(async {
            while let Some(item) = source.next().await {
                if let Some((last, others)) = senders.split_last() {
                    for sender in others {
                        sender.send(item.clone()).await.ok();
                    }
                    last.send(item).await.ok();
                }
            }
            drop(senders);
            futures::future::join_all(tasks).await.len()
        })
    };
    bench.pair(name, 400_000 / consumers as u64, Target::None, ours, theirs);
}

/// Guards that are kept for `held` more items before they are dropped.
fn in_flight(bench: &mut Bench, runtime: &Runtime, held: usize) {
    async fn keep<G>(guards: impl Stream<Item = G>, held: usize) -> usize {
        let mut guards = pin!(guards);
        let mut kept = VecDeque::with_capacity(held + 1);
        while let Some(guard) = guards.next().await {
            kept.push_back(black_box(guard));
            if kept.len() > held {
                kept.pop_front();
            }
        }
        kept.len()
    }
    bench.pair(
        &format!("{held} guards kept alive of 16"),
        500_000,
        Target::None,
        |items| runtime.block_on(keep(numbers(items).in_flight_limit(nz!(16)), held)),
        |items| {
            let places = Arc::new(Semaphore::new(16));
            let guarded = numbers(items).then(|item| {
                let places = Arc::clone(&places);
                async move { (item, places.acquire_owned().await) }
            });
            runtime.block_on(keep(guarded, held))
        },
    );
}

fn budgeted(bench: &mut Bench, runtime: &Runtime) -> Outcome {
    let budget = ByteBudget::new(1 << 20);
    // Others hold some, as in a pipeline.
    let _others = [budget.holder(8192)?, budget.holder(8192)?];
    let shared = Arc::new(Semaphore::new(1 << 20));
    for minimum in [8192, 0] {
        bench.pair(
            &format!("minimum {minimum}"),
            500_000,
            Target::None,
            |items| {
                let holder = budget.holder(minimum).ok()?;
                let permitted = numbers(items).budgeted(holder, 4096, |_| 100);
                Some(runtime.block_on(drain(permitted)))
            },
            |items| {
                let permitted = numbers(items).then(|item| {
                    let shared = Arc::clone(&shared);
                    async move {
                        let mut permit = shared.acquire_many_owned(4096).await.ok()?;
                        drop(permit.split(4096 - 100));
                        Some((item, permit))
                    }
                });
                Some(runtime.block_on(drain(permitted)))
            },
        );
    }
    Ok(())
}

fn retry(bench: &mut Bench, runtime: &Runtime) {
    bench.pair(
        "retry, nothing fails vs and_then",
        2_000_000,
        Target::None,
        |items| {
            let source = numbers(items).map(Ok::<u64, u64>);
            let tried = source.retry(Backoff::default(), |item| {
                let item = *item;
                async move { Ok(black_box(item)) }
            });
            runtime.block_on(drain(tried))
        },
        |items| {
            let source = numbers(items).map(Ok::<u64, u64>);
            let done = source.and_then(|item| async move { Ok(black_box(item)) });
            runtime.block_on(drain(done))
        },
    );
}

fn pace(bench: &mut Bench, runtime: &Runtime) {
    bench.pair(
        "pace, no interval vs throttle of tokio-stream, no interval",
        2_000_000,
        Target::None,
        |items| runtime.block_on(drain(numbers(items).pace(Duration::ZERO))),
        |items| {
            // Made inside the runtime, which it asks for a timer at once.
            runtime.block_on(async {
                drain(tokio_stream::StreamExt::throttle(numbers(items), Duration::ZERO)).await
            })
        },
    );
}
