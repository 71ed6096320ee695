//! `batch` against `chunks_timeout` of tokio-stream (with an age) and `chunks` of futures (without
//! one).

use std::num::NonZeroUsize;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tidegate_flow::{BatchLimits, FlowExt};
use tidegate_testkit::bench::{Bench, Target};
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;

use crate::support::{Hiccups, Outcome, current_thread, drain_batches, lines, numbers};

/// Long enough never to be reached: the pairs are about what watching the age costs.
const AGE: Duration = Duration::from_secs(10);

const ITEMS: u64 = 1_000_000;

pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let runtime = current_thread()?;
    bench.section("batch vs chunks_timeout");
    for rows in [16, 1_000] {
        let Some(size) = NonZeroUsize::new(rows) else {
            continue;
        };
        let name = |shape: &str| format!("{size} rows, {shape}");
        timed(bench, &runtime, &name("always ready, u64"), size, numbers);
        timed(bench, &runtime, &name("always ready, Arc&lt;str>"), size, lines);
        for every in [7, 100] {
            let shape = format!("pending after every {every}");
            let source = move |items| Hiccups::new(items, every);
            timed(bench, &runtime, &name(&shape), size, source);
        }
    }
    bench.section("batch without an age vs chunks");
    for rows in [16, 1_000] {
        let Some(size) = NonZeroUsize::new(rows) else {
            continue;
        };
        bench.pair(
            &format!("{size} rows, always ready, u64"),
            ITEMS,
            Target::Ratio(1.1),
            |items| {
                let batches = numbers(items).batch(BatchLimits::rows(size));
                runtime.block_on(drain_batches(batches))
            },
            |items| runtime.block_on(drain_batches(numbers(items).chunks(size.get()))),
        );
    }
    Ok(())
}

fn timed<S: Stream>(
    bench: &mut Bench,
    runtime: &Runtime,
    name: &str,
    size: NonZeroUsize,
    source: impl Fn(u64) -> S,
) {
    let limits = BatchLimits::rows(size).age(AGE);
    bench.pair(
        name,
        ITEMS,
        Target::Ratio(1.1),
        |items| runtime.block_on(drain_batches(source(items).batch(limits))),
        |items| {
            let chunks = source(items).chunks_timeout(size.get(), AGE);
            runtime.block_on(drain_batches(chunks))
        },
    );
}
