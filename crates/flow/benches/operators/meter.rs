//! `meter` against the bare stream: what counting costs.

use std::sync::Arc;

use tidegate_flow::FlowExt;
use tidegate_testkit::bench::{Bench, Target};

use crate::support::{Hiccups, Outcome, current_thread, drain, lines, numbers};

const ITEMS: u64 = 5_000_000;
const TARGET: Target = Target::More(3.0);

pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let runtime = current_thread()?;
    bench.section("meter vs the bare stream");
    bench.pair(
        "items, always ready, u64",
        ITEMS,
        TARGET,
        |items| runtime.block_on(drain(numbers(items).meter())),
        |items| runtime.block_on(drain(numbers(items))),
    );
    bench.pair(
        "items and bytes, always ready, Arc&lt;str>",
        ITEMS / 2,
        TARGET,
        |items| {
            let metered = lines(items).meter_by(|line: &Arc<str>| line.len() as u64);
            runtime.block_on(drain(metered))
        },
        |items| runtime.block_on(drain(lines(items))),
    );
    for (every, target) in [(100, TARGET), (1, Target::None)] {
        bench.pair(
            &format!("items, pending after every {every}, u64"),
            if every == 1 { ITEMS / 25 } else { ITEMS / 5 },
            target,
            |items| runtime.block_on(drain(Hiccups::new(items, every).meter())),
            |items| runtime.block_on(drain(Hiccups::new(items, every))),
        );
    }
    Ok(())
}
