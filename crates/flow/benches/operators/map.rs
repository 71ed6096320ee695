//! `concurrent_map` against `buffered`, `concurrent_map_unordered` against `buffer_unordered`.
//!
//! Ours gives each future a task, so that work goes on while the consumer is busy elsewhere; theirs
//! doesn't, and needs none. The difference is the price of the promise.

use std::future::Future;
use std::hint::black_box;
use std::num::NonZeroUsize;

use futures::StreamExt;
use tidegate_flow::{FlowExt, nz};
use tidegate_testkit::bench::{Bench, Target};
use tokio::runtime::Runtime;

use crate::support::{Outcome, current_thread, drain, multi_thread, numbers, yield_once};

const ITEMS: u64 = 20_000;

/// What a task may cost.
const TARGET: Target = Target::More(300.0);

pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let here = current_thread()?;
    bench.section("concurrent_map vs buffered and buffer_unordered");
    for max in [nz!(4), nz!(64)] {
        let shape = Shape::new(&here, max, TARGET);
        shape.pairs(bench, "trivial futures", |item| async move { item });
        shape.pairs(bench, "futures that yield once", |item| async move {
            yield_once().await;
            item
        });
        shape.pairs(bench, "futures of 512 bytes", |item| async move {
            let room = black_box([item; 64]);
            yield_once().await;
            room[0]
        });
    }
    let threads = multi_thread(2)?;
    bench.section("concurrent_map on two workers vs buffered and buffer_unordered on the same");
    let shape = Shape::new(&threads, nz!(64), Target::None);
    shape.pairs(bench, "trivial futures", |item| async move { item });
    shape.pairs(bench, "futures of 3 µs of work", |item| async move { work(item) });
    Ok(())
}

/// Some microseconds of arithmetic.
fn work(item: u64) -> u64 {
    (0..5_000).fold(item, |hash, step| black_box(hash.rotate_left(5) ^ step))
}

struct Shape<'a> {
    runtime: &'a Runtime,
    max: NonZeroUsize,
    target: Target,
}

impl<'a> Shape<'a> {
    fn new(runtime: &'a Runtime, max: NonZeroUsize, target: Target) -> Self {
        Self { runtime, max, target }
    }

    fn pairs<F, Fut>(&self, bench: &mut Bench, name: &str, map: F)
    where
        F: Fn(u64) -> Fut + Copy + Send + 'static,
        Fut: Future<Output = u64> + Send + 'static,
    {
        let Self { runtime, max, target } = *self;
        let ordered = |items| numbers(items).concurrent_map(max, map);
        let unordered = |items| numbers(items).concurrent_map_unordered(max, map);
        let their_ordered = |items| numbers(items).map(map).buffered(max.get());
        let their_unordered = |items| numbers(items).map(map).buffer_unordered(max.get());
        bench.pair(
            &format!("ordered vs buffered, n = {max}, {name}"),
            ITEMS,
            target,
            |items| runtime.block_on(async { tokio::spawn(drain(ordered(items))).await.ok() }),
            |items| {
                runtime.block_on(async { tokio::spawn(drain(their_ordered(items))).await.ok() })
            },
        );
        bench.pair(
            &format!("ordered vs buffer_unordered, n = {max}, {name}"),
            ITEMS,
            target,
            |items| runtime.block_on(async { tokio::spawn(drain(ordered(items))).await.ok() }),
            |items| {
                runtime.block_on(async { tokio::spawn(drain(their_unordered(items))).await.ok() })
            },
        );
        bench.pair(
            &format!("unordered vs buffer_unordered, n = {max}, {name}"),
            ITEMS,
            target,
            |items| runtime.block_on(async { tokio::spawn(drain(unordered(items))).await.ok() }),
            |items| {
                runtime.block_on(async { tokio::spawn(drain(their_unordered(items))).await.ok() })
            },
        );
    }
}
