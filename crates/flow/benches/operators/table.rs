//! What each operator adds to a plain stream: the table in README.

use std::error::Error;
use std::hint::black_box;
use std::num::NonZeroU64;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tidegate_flow::{
    Backoff, BatchLimits, ByteBudget, FairMerge, FlowExt, Rate, Replay, WhenFull, nz, reconnect,
};
use tidegate_testkit::bench::{Bench, Target};
use tokio::runtime::Runtime;

use crate::support::{Outcome, current_thread, drain, drain_batches, numbers};

const CHEAP: u64 = 2_000_000;
const DEAR: u64 = 200_000;

/// Never reached: what asking costs.
const RATE: NonZeroU64 = nz!(1_000_000_000_000);

pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let table = Table(current_thread()?);
    bench.section("each operator vs the bare stream (one thread, u64, nothing waits)");
    bench.pair(
        "stream::iter vs the plain iterator",
        CHEAP,
        Target::None,
        |items| table.0.block_on(drain(numbers(items))),
        |items| (0..items).map(black_box).fold(0, |count: u64, _| black_box(count + 1)),
    );
    table.row(bench, "stream::iter (itself)", CHEAP, numbers);
    table.row(bench, "map of futures", CHEAP, |n| numbers(n).map(|item| item ^ 1));
    table.row(bench, "meter", CHEAP, |n| numbers(n).meter());
    table.row(bench, "pace, no interval", CHEAP, |n| numbers(n).pace(Duration::ZERO));
    table.row(bench, "rate_limit", CHEAP, |n| numbers(n).rate_limit(Rate::per_second(RATE), RATE));
    table.row(bench, "in_flight_limit", CHEAP, |n| numbers(n).in_flight_limit(nz!(16)));
    table.batches(bench);
    table.row(bench, "retry, nothing fails", CHEAP, |n| {
        let work = |item: &u64| std::future::ready(Ok::<u64, u64>(*item));
        numbers(n).map(Ok).retry(Backoff::default(), work)
    });
    table.row(bench, "reconnect, nothing is lost", CHEAP, |n| {
        let connect = move |_: Option<u64>| async move { Ok::<_, ()>(numbers(n).map(Ok)) };
        let messages = reconnect(connect, Backoff::default());
        messages.resume_from(|item| Some(*item)).take(n as usize)
    });
    table.budgeted(bench)?;
    table.row(bench, "FairMerge of 10", CHEAP, |n| {
        let mut merge = FairMerge::new();
        for key in 0..10 {
            merge.insert(key, numbers(n / 10));
        }
        merge
    });
    table.row(bench, "adaptive_buffer, 64..=1024", DEAR, |n| {
        numbers(n).adaptive_buffer(nz!(64)..=nz!(1024))
    });
    table.row(bench, "concurrent_map, n = 64", DEAR, |n| {
        numbers(n).concurrent_map(nz!(64), std::future::ready)
    });
    table.row(bench, "concurrent_map_unordered, n = 64", DEAR, |n| {
        numbers(n).concurrent_map_unordered(nz!(64), std::future::ready)
    });
    table.broadcasts(bench);
    Ok(())
}

struct Table(Runtime);

impl Table {
    fn row<S: Stream>(
        &self,
        bench: &mut Bench,
        name: &str,
        items: u64,
        operator: impl Fn(u64) -> S,
    ) {
        bench.pair(
            name,
            items,
            Target::None,
            |items| self.0.block_on(drain(operator(items))),
            |items| self.0.block_on(drain(numbers(items))),
        );
    }

    fn batches(&self, bench: &mut Bench) {
        let rows = BatchLimits::rows(nz!(100));
        let limits = rows.age(Duration::from_secs(10));
        let weighed = limits.bytes(1_000, |item: &u64| size_of_val(item));
        bench.pair(
            "batch by rows, 100",
            CHEAP,
            Target::None,
            |items| self.0.block_on(drain_batches(numbers(items).batch(rows))),
            |items| self.0.block_on(drain(numbers(items))),
        );
        bench.pair(
            "batch by rows and age, 100",
            CHEAP,
            Target::None,
            |items| self.0.block_on(drain_batches(numbers(items).batch(limits))),
            |items| self.0.block_on(drain(numbers(items))),
        );
        bench.pair(
            "batch by rows, bytes and age, 100",
            CHEAP,
            Target::None,
            |items| self.0.block_on(drain_batches(numbers(items).batch(weighed))),
            |items| self.0.block_on(drain(numbers(items))),
        );
    }

    fn budgeted(&self, bench: &mut Bench) -> Result<(), Box<dyn Error>> {
        let budget = ByteBudget::new(1 << 20);
        let _other = budget.holder(8192)?;
        bench.pair(
            "budgeted",
            CHEAP,
            Target::None,
            |items| {
                let holder = budget.holder(8192).ok()?;
                let permitted = numbers(items).budgeted(holder, 4096, |_| 100);
                Some(self.0.block_on(drain(permitted)))
            },
            |items| Some(self.0.block_on(drain(numbers(items)))),
        );
        Ok(())
    }

    fn broadcasts(&self, bench: &mut Bench) {
        bench.pair(
            "fan_out to one, capacity 64",
            DEAR,
            Target::None,
            |items| {
                let fan_out = numbers(items).fan_out();
                let consumer = fan_out.handle().subscribe(nz!(64), WhenFull::Block);
                self.0.block_on(async { tokio::join!(fan_out, drain(consumer)).1 })
            },
            |items| self.0.block_on(drain(numbers(items))),
        );
        bench.pair(
            "Replay, publish and read",
            DEAR,
            Target::None,
            |items| {
                let replay = Replay::new(nz!(1024));
                let mut subscription = replay.subscribe();
                self.0.block_on(async {
                    for item in 0..items {
                        replay.publish(item);
                        black_box(subscription.next().await.transpose().ok());
                    }
                })
            },
            |items| {
                self.0.block_on(drain(numbers(items)));
            },
        );
    }
}
