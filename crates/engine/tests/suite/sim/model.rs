//! What should arrive, by following each row through the graph by hand.

use std::collections::{BTreeMap, HashMap};

use tidegate_engine::{Snapshot, WhenFull};

use super::components::{World, number, row};
use super::graph::{Kind, Plan, Port, SinkPlan};

/// Compares every sink with what should be in it.
pub(crate) fn check(plan: &Plan, world: &World, snapshot: &Snapshot) {
    assert_eq!(snapshot.budget.used, 0, "memory is held at the end: {plan:#?}");
    for (index, sink) in plan.sinks.iter().enumerate() {
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        for (source, partitions) in plan.sources.iter().enumerate() {
            for (partition, rows) in partitions.partitions.iter().enumerate() {
                for number in 0..*rows {
                    let count = copies(plan, Port::Source(source), index, Some(number));
                    let kept = sink.rejects.is_none_or(|by| !number.is_multiple_of(by));
                    if count > 0 && kept {
                        expected.insert(row(source, partition, number), count);
                    }
                }
            }
        }
        let arrived = world.sinks[index].lock().unwrap();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for text in arrived.iter() {
            *counts.entry(text.clone()).or_default() += 1;
        }
        let wrong = |what: &str| panic!("sink{index}: {what}\n{plan:#?}\n{expected:?}\n{counts:?}");
        if counts.keys().any(|text| !expected.contains_key(text)) {
            wrong("a row that should not be there");
        }
        let lossless = all_upstream(plan, index, &|sink| sink.when_full == WhenFull::Block);
        let exact =
            sink.exact && feeding(sink).all(|from| all_upstream(plan, from, &|s| s.same_rejects));
        for (text, times) in &expected {
            let arrived = counts.get(text).copied().unwrap_or(0);
            if lossless && arrived < *times {
                wrong(&format!("{text} is missing"));
            }
            if exact && arrived > *times {
                wrong(&format!("{text} is there {arrived} times"));
            }
        }
        if exact && !sink.picky && lossless {
            let ways = |source| copies(plan, Port::Source(source), index, None);
            let ways: Vec<usize> = (0..plan.sources.len()).map(ways).collect();
            let source = |text: &str| text.split('/').next().unwrap().parse::<usize>().unwrap();
            let single = |text: &&String| ways[source(text)] == 1;
            in_order(arrived.iter().filter(single), &wrong);
        }
    }
}

/// The sinks whose rejects a sink takes.
fn feeding(sink: &SinkPlan) -> impl Iterator<Item = usize> {
    sink.inputs.iter().filter_map(|port| match port {
        Port::SinkRejects(from) => Some(*from),
        _ => None,
    })
}

/// Whether something holds of a sink, of those whose rejects it takes, and so on.
fn all_upstream(plan: &Plan, sink: usize, holds: &dyn Fn(&SinkPlan) -> bool) -> bool {
    let sink = &plan.sinks[sink];
    holds(sink) && feeding(sink).all(|from| all_upstream(plan, from, holds))
}

/// By how many ways a row of this number gets from an output to a sink; without one, how many ways
/// there are.
fn copies(plan: &Plan, port: Port, sink: usize, number: Option<u64>) -> usize {
    let divided = |by: u64| number.is_none_or(|number| number.is_multiple_of(by));
    let whole = |by: u64| number.is_none_or(|number| !number.is_multiple_of(by));
    let direct = usize::from(plan.sinks[sink].inputs.contains(&port));
    let through = plan.transforms.iter().enumerate().filter(|(_, t)| t.inputs.contains(&port));
    let through = through.map(|(index, transform)| {
        let (kept, rejected) = match transform.kind {
            Kind::Filter(by) => (whole(by), false),
            Kind::Reject(by) => (whole(by), divided(by)),
            Kind::Slice(_) | Kind::Limit(..) => (true, false),
        };
        let onward = |goes: bool, port: Port| {
            if goes { copies(plan, port, sink, number) } else { 0 }
        };
        onward(kept, Port::Transform(index)) + onward(rejected, Port::Rejects(index))
    });
    let sinks = plan.sinks.iter().enumerate().filter(|(_, sink)| sink.inputs.contains(&port));
    let refusing = sinks.filter(|(_, sink)| sink.rejects.is_some_and(divided));
    let refused = refusing.map(|(index, _)| copies(plan, Port::SinkRejects(index), sink, number));
    direct + through.sum::<usize>() + refused.sum::<usize>()
}

/// Rows of one partition arrive in the order they were read.
fn in_order<'a>(rows: impl Iterator<Item = &'a String>, wrong: &impl Fn(&str)) {
    let mut last: HashMap<(&str, &str), u64> = HashMap::new();
    for text in rows {
        let mut parts = text.split('/');
        let key = (parts.next().unwrap(), parts.next().unwrap());
        let number = number(text);
        if last.insert(key, number).is_some_and(|before| before >= number) {
            wrong(&format!("{text} is out of order"));
        }
    }
}
