//! Polls stay in proportion to items: nested, in great numbers, and under tokio's task budget.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::stream::LocalBoxStream;
use futures::{Stream, StreamExt, stream};
use tidegate_flow::{FairMerge, FlowExt, Merged, Replay, WhenFull, nz};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Counts the polls of the stream inside.
struct Counted<S>(S, Rc<Cell<usize>>);

impl<S: Stream + Unpin> Stream for Counted<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.1.set(self.1.get() + 1);
        self.0.poll_next_unpin(cx)
    }
}

/// Channels that are full of items; receiving from one spends the task's budget.
fn channels(count: usize, items: usize) -> Vec<ReceiverStream<usize>> {
    let channel = |_| {
        let (sender, receiver) = mpsc::channel(items);
        (0..items).for_each(|item| sender.try_send(item).unwrap());
        ReceiverStream::new(receiver)
    };
    (0..count).map(channel).collect()
}

fn merged(sources: Vec<LocalBoxStream<'static, usize>>) -> LocalBoxStream<'static, usize> {
    let mut merge = FairMerge::new();
    for (key, source) in sources.into_iter().enumerate() {
        merge.insert(key, source);
    }
    let item = |merged| match merged {
        Merged::Item(_, item) => Some(item),
        Merged::Ended(_) => None,
    };
    merge.filter_map(move |merged| std::future::ready(item(merged))).boxed_local()
}

/// Drains a tree of merges, `width` inputs at each of `depth` levels; gives polls of its leaves.
async fn polls(width: usize, depth: u32, items: usize) -> usize {
    let polls = Rc::new(Cell::new(0));
    let leaves = channels(width.pow(depth), items).into_iter();
    let mut level: Vec<LocalBoxStream<'static, usize>> =
        leaves.map(|leaf| Counted(leaf, Rc::clone(&polls)).boxed_local()).collect();
    while level.len() > 1 {
        let mut rest = level.into_iter();
        level = std::iter::from_fn(|| {
            let inputs: Vec<_> = rest.by_ref().take(width).collect();
            (!inputs.is_empty()).then(|| merged(inputs))
        })
        .collect();
    }
    let all = level.remove(0).count().await;
    assert_eq!(all, width.pow(depth) * items);
    polls.get()
}

#[tokio::test]
async fn nesting_five_deep_costs_at_most_twice_the_polls() {
    let flat = polls(243, 1, 100).await;
    let nested = polls(3, 5, 100).await;
    assert!(nested <= 2 * flat, "{nested} polls nested, {flat} flat");
}

#[tokio::test]
async fn many_inputs_that_spend_the_task_budget_stay_linear() {
    for count in [100, 1_000, 20_000] {
        let polls = polls(count, 1, 10).await;
        // Each item, each end, and one vain poll of each input when the budget is spent.
        assert!(polls <= 4 * count * 10, "{polls} polls for {} items", count * 10);
    }
}

/// With 129 inputs and a budget of 128 it would always be the same one that finds nothing left.
#[tokio::test]
async fn the_task_budget_takes_no_input_its_turn() {
    for count in [3, 43, 129] {
        let mut merge = FairMerge::new();
        for (key, channel) in channels(count, 400).into_iter().enumerate() {
            merge.insert(key, channel);
        }
        let mut shares = vec![0_usize; count];
        for _ in 0..count * 200 {
            if let Some(Merged::Item(key, _)) = merge.next().await {
                shares[key] += 1;
            }
        }
        assert!(shares.iter().all(|share| share.abs_diff(200) <= 1), "{shares:?}");
    }
}

/// How many turns others get while a stream is read whose items are all there.
async fn turns_of_others(items: impl Stream + Send + 'static) -> usize {
    let reading = tokio::spawn(items.count());
    let mut turns = 0;
    while !reading.is_finished() {
        turns += 1;
        tokio::task::yield_now().await;
    }
    turns
}

#[tokio::test]
async fn whoever_reads_a_full_queue_lets_others_run() {
    let fan_out = stream::iter(0..20_000).fan_out();
    let consumer = fan_out.handle().subscribe(nz!(20_000), WhenFull::Block);
    fan_out.await;
    assert!(turns_of_others(consumer).await > 100);

    let mut buffer = stream::iter(0..20_000).adaptive_buffer(nz!(20_000)..=nz!(20_000));
    assert_eq!(buffer.next().await, Some(0));
    while buffer.gauge().fill() < 19_999 {
        tokio::task::yield_now().await;
    }
    assert!(turns_of_others(buffer).await > 100);

    let replay = Replay::new(nz!(20_000));
    let reader = replay.subscribe();
    for item in 0..20_000 {
        replay.publish(item);
    }
    drop(replay);
    assert!(turns_of_others(reader).await >= 4); // it takes 32 at a time
}
