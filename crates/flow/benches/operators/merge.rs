//! `FairMerge` against `select_all` of futures, `StreamMap` of tokio-stream, `merge` of
//! futures-concurrency, and itself with few inputs.

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{SelectAll, select_all};
use futures::{Stream, StreamExt};
use futures_concurrency::stream::Merge;
use tidegate_flow::FairMerge;
use tidegate_testkit::bench::{Bench, Target};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_stream::StreamMap;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::support::{Outcome, current_thread, take};

/// An endless input; many of them are merged before the measurement and live through all rounds.
#[derive(Clone, Copy, Debug)]
enum Input {
    Ready(u64),
    /// `Pending` and awake again before every item.
    Waking(u64, bool),
    Idle,
}

impl Stream for Input {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        match &mut *self {
            Self::Idle => Poll::Pending,
            Self::Waking(next, rested) => {
                *rested = !*rested;
                if *rested {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                *next += 1;
                Poll::Ready(Some(*next))
            }
            Self::Ready(next) => {
                *next += 1;
                Poll::Ready(Some(*next))
            }
        }
    }
}

/// How many inputs, and what they do.
struct Shape {
    name: &'static str,
    inputs: usize,
    hot: Input,
    others: Input,
}

const IDLE: Input = Input::Idle;
const READY: Input = Input::Ready(0);
const WAKING: Input = Input::Waking(0, false);

const SHAPES: [Shape; 10] = [
    Shape::new("2 inputs, one hot", 2, READY, IDLE),
    Shape::new("100 inputs, one hot", 100, READY, IDLE),
    Shape::new("10,000 inputs, one hot", 10_000, READY, IDLE),
    Shape::new("2 inputs, one waking for each item", 2, WAKING, IDLE),
    Shape::new("100 inputs, one waking for each item", 100, WAKING, IDLE),
    Shape::new("10,000 inputs, one waking for each item", 10_000, WAKING, IDLE),
    Shape::new("2 inputs, all ready", 2, READY, READY),
    Shape::new("100 inputs, all ready", 100, READY, READY),
    Shape::new("2 inputs, all waking for each item", 2, WAKING, WAKING),
    Shape::new("100 inputs, all waking for each item", 100, WAKING, WAKING),
];

impl Shape {
    const fn new(name: &'static str, inputs: usize, hot: Input, others: Input) -> Self {
        Self { name, inputs, hot, others }
    }

    /// The inputs; the hot one is in the middle.
    fn inputs(&self) -> impl Iterator<Item = Input> {
        (0..self.inputs).map(|place| if place == self.inputs / 2 { self.hot } else { self.others })
    }

    fn fair_merge(&self) -> FairMerge<usize, Input> {
        let mut merge = FairMerge::new();
        for (key, input) in self.inputs().enumerate() {
            merge.insert(key, input);
        }
        merge
    }

    fn select_all(&self) -> SelectAll<Input> {
        select_all(self.inputs())
    }

    /// For merges that look at every input again and again.
    fn items_of_linear(&self) -> u64 {
        if self.inputs >= 10_000 { 2_000 } else { 200_000 }
    }
}

pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let runtime = current_thread()?;
    bench.section("FairMerge vs select_all");
    for shape in &SHAPES {
        if bench.wants(shape.name) {
            let (mut ours, mut theirs) = (shape.fair_merge(), shape.select_all());
            bench.pair(
                shape.name,
                400_000,
                Target::Ratio(1.1),
                |items| runtime.block_on(take(&mut ours, items)),
                |items| runtime.block_on(take(&mut theirs, items)),
            );
        }
    }
    bench.section("FairMerge vs StreamMap");
    for shape in &SHAPES {
        if bench.wants(shape.name) {
            let mut theirs: StreamMap<_, _> = shape.inputs().enumerate().collect();
            versus_linear(bench, &runtime, shape, &mut theirs);
        }
    }
    bench.section("FairMerge vs merge of futures-concurrency");
    for shape in &SHAPES {
        if bench.wants(shape.name) {
            let mut theirs = Box::pin(shape.inputs().collect::<Vec<_>>().merge());
            versus_linear(bench, &runtime, shape, &mut theirs);
        }
    }
    bench.section("FairMerge vs select_all, woken by another task's send for each item");
    for inputs in [2, 100, 10_000] {
        channels(bench, &runtime, inputs);
    }
    bench.section("FairMerge with 10,000 idle inputs vs with ten");
    for (name, hot) in [("one hot", READY), ("one waking for each item", WAKING)] {
        if !bench.wants(name) {
            continue;
        }
        let mut many = Shape::new(name, 10_001, hot, IDLE).fair_merge();
        let mut few = Shape::new(name, 11, hot, IDLE).fair_merge();
        bench.pair(
            name,
            400_000,
            Target::Ratio(1.5),
            |items| runtime.block_on(take(&mut many, items)),
            |items| runtime.block_on(take(&mut few, items)),
        );
    }
    Ok(())
}

fn versus_linear<S: Stream + Unpin>(
    bench: &mut Bench,
    runtime: &Runtime,
    shape: &Shape,
    theirs: &mut S,
) {
    let mut ours = shape.fair_merge();
    bench.pair(
        shape.name,
        shape.items_of_linear(),
        Target::None,
        |items| runtime.block_on(take(&mut ours, items)),
        |items| runtime.block_on(take(theirs, items)),
    );
}

/// Channels that are asked until they have nothing, then one is sent to, which wakes the merge.
fn channels(bench: &mut Bench, runtime: &Runtime, inputs: usize) {
    async fn round_robin<S: Stream + Unpin>(
        senders: &[UnboundedSender<u64>],
        merge: &mut S,
        items: u64,
    ) {
        for (item, sender) in (0..items).zip(senders.iter().cycle()) {
            assert!(futures::poll!(merge.next()).is_pending());
            sender.send(item).ok();
            black_box(merge.next().await);
        }
    }
    let name = format!("{inputs} channels in turn");
    if !bench.wants(&name) {
        return;
    }
    let make = || (0..inputs).map(|_| mpsc::unbounded_channel()).unzip();
    let (our_senders, our_receivers): (Vec<_>, Vec<_>) = make();
    let (their_senders, their_receivers): (Vec<_>, Vec<_>) = make();
    let mut ours = FairMerge::new();
    for (key, receiver) in our_receivers.into_iter().enumerate() {
        ours.insert(key, UnboundedReceiverStream::new(receiver));
    }
    let mut theirs = select_all(their_receivers.into_iter().map(UnboundedReceiverStream::new));
    bench.pair(
        &name,
        200_000,
        Target::Ratio(1.1),
        |items| runtime.block_on(round_robin(&our_senders, &mut ours, items)),
        |items| runtime.block_on(round_robin(&their_senders, &mut theirs, items)),
    );
}
