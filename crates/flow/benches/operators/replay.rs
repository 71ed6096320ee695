//! `Replay` against `tokio::sync::broadcast`: one publisher, subscribers in tasks of their own.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use futures::StreamExt;
use tidegate_flow::{Replay, nz};
use tidegate_testkit::bench::{Bench, Target};
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use tokio::task::yield_now;
use tokio_stream::wrappers::BroadcastStream;

use crate::support::{Outcome, current_thread, multi_thread, some_lines};

const RING: NonZeroUsize = nz!(1024);
const TARGET: Target = Target::Ratio(1.1);

/// How many items have come to any subscriber. Each has one writer at a time, so a load and a store
/// do, and the counting costs next to nothing.
#[derive(Clone, Default)]
struct Delivered(Arc<Alone>);

/// A number with cache lines of its own, so that only those who ask for it share it.
#[derive(Default)]
#[repr(align(128))]
struct Alone(AtomicU64);

impl Delivered {
    fn add(&self, items: u64) {
        let sum = self.get() + items;
        self.0.0.store(sum, Ordering::Release);
    }

    fn get(&self) -> u64 {
        self.0.0.load(Ordering::Acquire)
    }
}

/// One side of a pair: subscribers that run, and how to publish to them.
struct Side<P> {
    publish: P,
    delivered: Delivered,
}

fn ours<T>(runtime: &Runtime, subscribers: u64) -> Side<impl Fn(T) + use<T>>
where
    T: Clone + Send + Sync + 'static,
{
    let (replay, delivered) = (Replay::new(RING), Delivered::default());
    for _ in 0..subscribers {
        let (mut subscription, delivered) = (replay.subscribe(), delivered.clone());
        runtime.spawn(async move {
            while let Some(item) = subscription.next().await {
                delivered.add(match black_box(item) {
                    Ok(_) => 1,
                    Err(lagged) => lagged.missed,
                });
            }
        });
    }
    Side {
        publish: move |item| {
            black_box(replay.publish(item));
        },
        delivered,
    }
}

fn theirs<T>(runtime: &Runtime, subscribers: u64) -> Side<impl Fn(T) + use<T>>
where
    T: Clone + Send + Sync + 'static,
{
    let (sender, delivered) = (broadcast::Sender::new(RING.get()), Delivered::default());
    for _ in 0..subscribers {
        let (mut receiver, delivered) = (sender.subscribe(), delivered.clone());
        runtime.spawn(async move {
            loop {
                delivered.add(match black_box(receiver.recv().await) {
                    Ok(_) => 1,
                    Err(broadcast::error::RecvError::Lagged(missed)) => missed,
                    Err(broadcast::error::RecvError::Closed) => break,
                });
            }
        });
    }
    Side {
        publish: move |item| {
            black_box(sender.send(item).ok());
        },
        delivered,
    }
}

/// As [`theirs`], with tokio-stream's wrapper: a stream, as ours is.
fn theirs_as_stream<T>(runtime: &Runtime, subscribers: u64) -> Side<impl Fn(T) + use<T>>
where
    T: Clone + Send + Sync + 'static,
{
    let (sender, delivered) = (broadcast::Sender::new(RING.get()), Delivered::default());
    for _ in 0..subscribers {
        let mut stream = BroadcastStream::new(sender.subscribe());
        let delivered = delivered.clone();
        runtime.spawn(async move {
            while let Some(item) = stream.next().await {
                black_box(item).ok();
                delivered.add(1);
            }
        });
    }
    Side {
        publish: move |item| {
            black_box(sender.send(item).ok());
        },
        delivered,
    }
}

/// Publishes bursts until so many items are delivered; after each it waits for all to have it.
async fn feed<T>(
    side: &Side<impl Fn(T)>,
    mut item: impl FnMut() -> T,
    deliveries: u64,
    (burst, subscribers): (u64, u64),
) {
    let mut due = side.delivered.get();
    for _ in 0..deliveries.div_ceil(burst * subscribers) {
        for _ in 0..burst {
            (side.publish)(item());
        }
        due += burst * subscribers;
        while side.delivered.get() < due {
            yield_now().await;
        }
    }
}

/// Publishes from this thread to subscribers on another, at most half a ring ahead of their mean.
fn feed_across<T>(
    side: &Side<impl Fn(T)>,
    mut item: impl FnMut() -> T,
    deliveries: u64,
    subscribers: u64,
) {
    let items = deliveries.div_ceil(subscribers);
    let ahead = RING.get() as u64 / 2;
    for published in 0..items {
        // Asked now and then: the other thread writes it for each item.
        while published % 64 == 0
            && (published.saturating_sub(ahead)) * subscribers > side.delivered.get()
        {
            thread::yield_now();
        }
        (side.publish)(item());
    }
    while side.delivered.get() < items * subscribers {
        thread::yield_now();
    }
}

/// Endless numbers.
fn numbers() -> impl FnMut() -> u64 {
    let mut next = 0;
    move || {
        next += 1;
        next
    }
}

/// Endless new strings.
fn new_lines() -> impl FnMut() -> Arc<str> {
    let (lines, mut next) = (some_lines(), 0);
    move || {
        next = (next + 1) % lines.len();
        Arc::from(&*lines[next])
    }
}

/// Endless shared strings: their counts are what the threads wait for each other for.
fn lines() -> impl FnMut() -> Arc<str> {
    let (lines, mut next) = (some_lines(), 0);
    move || {
        next = (next + 1) % lines.len();
        Arc::clone(&lines[next])
    }
}

pub(crate) fn run(bench: &mut Bench) -> Outcome {
    bench.section("Replay vs tokio::sync::broadcast, one thread (items are deliveries)");
    for (subscribers, burst) in [(1, 1), (1, 64), (10, 1), (10, 64), (1000, 1), (1000, 64)] {
        here(bench, "u64", numbers, (burst, subscribers))?;
        here(bench, "Arc&lt;str>", lines, (burst, subscribers))?;
    }
    bench.section("Replay vs BroadcastStream, one thread (items are deliveries)");
    for shape @ (burst, subscribers) in [(1, 10), (64, 10)] {
        let runtime = current_thread()?;
        let (ours, theirs) = (ours(&runtime, subscribers), theirs_as_stream(&runtime, subscribers));
        bench.pair(
            &format!("{subscribers} subscribers, bursts of {burst}, u64"),
            128_000,
            Target::None,
            |items| runtime.block_on(feed(&ours, numbers(), items, shape)),
            |items| runtime.block_on(feed(&theirs, numbers(), items, shape)),
        );
    }
    bench.section(
        "Replay vs tokio::sync::broadcast, publisher on one thread, subscribers on another",
    );
    across(bench, "u64", numbers)?;
    across(bench, "Arc&lt;str>, each new", new_lines)?;
    across(bench, "Arc&lt;str>, 64 shared", lines)?;
    bench.section("Replay vs tokio::sync::broadcast, publishing alone");
    alone(bench)
}

fn here<T, I>(
    bench: &mut Bench,
    of: &str,
    items_of: impl Fn() -> I,
    (burst, subscribers): (u64, u64),
) -> Outcome
where
    T: Clone + Send + Sync + 'static,
    I: FnMut() -> T,
{
    let name = format!("{subscribers} subscribers, bursts of {burst}, {of}");
    if bench.wants(&name) {
        let runtime = current_thread()?;
        let (ours, theirs) = (ours(&runtime, subscribers), theirs(&runtime, subscribers));
        bench.pair(
            &name,
            128_000,
            TARGET,
            |items| runtime.block_on(feed(&ours, items_of(), items, (burst, subscribers))),
            |items| runtime.block_on(feed(&theirs, items_of(), items, (burst, subscribers))),
        );
    }
    Ok(())
}

fn across<T, I>(bench: &mut Bench, of: &str, items_of: impl Fn() -> I) -> Outcome
where
    T: Clone + Send + Sync + 'static,
    I: FnMut() -> T,
{
    let runtime = multi_thread(1)?;
    for subscribers in [1, 10] {
        // A ring and subscribers for each measurement: how fast two threads are depends on where in
        // memory things happen to lie, more than on anything else.
        bench.pair(
            &format!("{subscribers} subscribers, {of}"),
            100_000,
            TARGET,
            |items| feed_across(&ours(&runtime, subscribers), items_of(), items, subscribers),
            |items| feed_across(&theirs(&runtime, subscribers), items_of(), items, subscribers),
        );
    }
    Ok(())
}

/// No subscriber, and one that never reads.
fn alone(bench: &mut Bench) -> Outcome {
    let (replay, sender) = (Replay::new(RING), broadcast::Sender::new(RING.get()));
    let (_away, _away_too) = (replay.subscribe(), sender.subscribe());
    bench.pair(
        "one subscriber that is away, u64",
        1_000_000,
        TARGET,
        |items| {
            for item in 0..items {
                black_box(replay.publish(item));
            }
        },
        |items| {
            for item in 0..items {
                black_box(sender.send(item).ok());
            }
        },
    );
    Ok(())
}
