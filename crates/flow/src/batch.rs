//! `batch`: items gathered by number, bytes and age.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::timer::{after, arm};

/// While a source is always ready, its timer is never asked. The clock is read instead, after a
/// stride of rows that doubles while it takes little time, up to so many rows at the beginning of a
/// batch, then to as many as the batch has, in the end to [`STRIDE_MAX`].
const STRIDE_MAX_AT_FIRST: usize = 64;

/// So many rows that a look at the clock is nothing beside them.
const STRIDE_MAX: usize = 1024;

/// What is little time: this part of the age, so that a batch of a source whose speed is constant is
/// late by twice that at most; or what a timer would be late by.
const STRIDE_PART_OF_AGE: u32 = 16;
const STRIDE_TIME_MIN: Duration = Duration::from_millis(1);

/// When a batch is full, for [`batch`](crate::FlowExt::batch): whichever limit is reached first.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits<W = Unweighed> {
    rows: NonZeroUsize,
    bytes: usize,
    age: Option<Duration>,
    weigh: W,
}

impl BatchLimits {
    /// At most so many items.
    pub fn rows(rows: NonZeroUsize) -> Self {
        Self { rows, bytes: usize::MAX, age: None, weigh: Unweighed }
    }
}

impl<W> BatchLimits<W> {
    /// At most so many bytes, as `weigh` counts them. An item that would go beyond begins the next
    /// batch; one that is heavier than the limit is a batch of its own.
    pub fn bytes<T, F>(self, bytes: usize, weigh: F) -> BatchLimits<F>
    where
        F: FnMut(&T) -> usize,
    {
        BatchLimits { rows: self.rows, bytes, age: self.age, weigh }
    }

    /// A batch leaves at the latest this long after its first item came.
    #[must_use]
    pub fn age(self, age: Duration) -> Self {
        Self { age: Some(age), ..self }
    }
}

/// What an item weighs against [`BatchLimits::bytes`]: a closure, or nothing.
pub trait Weigh<T> {
    /// Whether there is a weight at all: where there is none, nothing is added up.
    #[doc(hidden)]
    const WEIGHS: bool = true;

    /// The weight of one item, in bytes.
    fn weigh(&mut self, item: &T) -> usize;
}

/// Items have no weight: no limit in bytes was set.
#[derive(Clone, Copy, Debug)]
pub struct Unweighed;

impl<T> Weigh<T> for Unweighed {
    const WEIGHS: bool = false;

    fn weigh(&mut self, _: &T) -> usize {
        0
    }
}

impl<T, F: FnMut(&T) -> usize> Weigh<T> for F {
    fn weigh(&mut self, item: &T) -> usize {
        self(item)
    }
}

pin_project! {
    /// Stream for the [`batch`](crate::FlowExt::batch) method.
    ///
    /// - **Ordering**: kept, within and between batches; no batch is empty.
    /// - **Buffering**: one batch. While the consumer stays away nothing is pulled.
    /// - **Cancellation**: dropping it loses the batch being gathered; dropping a future that waits
    ///   for the next batch loses nothing.
    /// - **End, error**: the rest leaves as the last batch, then the end follows. An error is an
    ///   item like others, inside its batch.
    /// - **Time**: age counts from a batch's first item and is looked at when the stream is polled.
    ///   With a source that is always ready a batch is late by an eighth of the age, 2 ms or an
    ///   item, whichever is most; where the source suddenly becomes slow, once by up to 64 items,
    ///   or by as many as the batch had, 1,024 at most. With an age, it must be polled inside a
    ///   tokio runtime.
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures::{StreamExt, stream};
    /// use tidegate_flow::{BatchLimits, FlowExt, nz};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let lines = stream::iter(["a", "b", "cccc", "dd", "e"]).chain(stream::pending());
    /// let limits = BatchLimits::rows(nz!(3))
    ///     .bytes(4, |line: &&str| line.len())
    ///     .age(Duration::from_millis(100));
    /// let batches: Vec<_> = lines.batch(limits).take(3).collect().await;
    /// assert_eq!(batches, [vec!["a", "b"], vec!["cccc"], vec!["dd", "e"]]);
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Batch<S: Stream, W> {
        #[pin]
        source: S,
        #[pin]
        timer: Option<Sleep>,
        limits: BatchLimits<W>,
        items: Vec<S::Item>,
        bytes: usize,
        // At how many rows to look whether that is enough; 1, to set the deadline, in a new batch.
        next_look: usize,
        // How many rows from one look to the next, and when the last one was; kept over batches.
        stride: usize,
        looked: Option<Instant>,
        deadline: Option<Instant>,
        armed: bool,
        ended: bool,
    }
}

impl<S: Stream, W: Weigh<S::Item>> Batch<S, W> {
    pub(crate) fn new(source: S, limits: BatchLimits<W>) -> Self {
        Self {
            source,
            timer: None,
            limits,
            items: Vec::new(),
            bytes: 0,
            next_look: 1,
            stride: 1,
            looked: None,
            deadline: None,
            armed: false,
            ended: false,
        }
    }

    /// Whether the batch has all its rows, or its age; if not, when to look again.
    fn look(self: Pin<&mut Self>) -> bool {
        let this = self.project();
        let (rows, rows_max) = (this.items.len(), this.limits.rows.get());
        *this.next_look = rows_max;
        let Some(age) = this.limits.age.filter(|_| rows < rows_max) else {
            return rows >= rows_max;
        };
        let now = Instant::now();
        let deadline = *this.deadline.get_or_insert_with(|| after(now, age));
        // A consumer that was away counts as well: a few looks more are nothing beside that.
        let last = this.looked.replace(now).unwrap_or(now);
        let little = (age / STRIDE_PART_OF_AGE).max(STRIDE_TIME_MIN);
        let most = rows.clamp(STRIDE_MAX_AT_FIRST, STRIDE_MAX);
        let quick = now.saturating_duration_since(last) <= little;
        *this.stride = if quick { (*this.stride * 2).min(most) } else { 1 };
        *this.next_look = rows_max.min(rows.saturating_add(*this.stride));
        rows > 1 && now >= deadline
    }

    /// Takes the batch; the next one has room for as many, and begins with `first`.
    fn take(mut self: Pin<&mut Self>, first: Option<(S::Item, usize)>) -> Vec<S::Item> {
        let this = self.as_mut().project();
        let room = if *this.ended { 0 } else { this.items.len() };
        let batch = std::mem::replace(this.items, Vec::with_capacity(room));
        *this.bytes = 0;
        *this.next_look = 1;
        *this.deadline = None;
        *this.armed = false;
        if let Some((item, weight)) = first {
            this.items.push(item);
            *this.bytes = weight;
            self.look();
        }
        batch
    }

    fn is_full(&self) -> bool {
        let rows = self.items.len();
        rows >= self.limits.rows.get() || (rows > 0 && self.bytes >= self.limits.bytes)
    }
}

impl<S: Stream, W: Weigh<S::Item>> Stream for Batch<S, W> {
    type Item = Vec<S::Item>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Vec<S::Item>>> {
        if self.is_full() {
            return Poll::Ready(Some(self.take(None))); // the item that did not fit, and is enough
        }
        let mut this = self.as_mut().project();
        loop {
            if *this.ended {
                let left = !this.items.is_empty();
                return Poll::Ready(left.then(|| self.take(None)));
            }
            match this.source.as_mut().poll_next(cx) {
                Poll::Ready(Some(item)) => {
                    let mut heavy = false;
                    if W::WEIGHS {
                        let weight = this.limits.weigh.weigh(&item);
                        let room = this.limits.bytes.saturating_sub(*this.bytes);
                        if weight > room && !this.items.is_empty() {
                            return Poll::Ready(Some(self.take(Some((item, weight)))));
                        }
                        *this.bytes = this.bytes.saturating_add(weight);
                        heavy = weight >= room;
                    }
                    this.items.push(item);
                    if heavy || (this.items.len() >= *this.next_look && self.as_mut().look()) {
                        return Poll::Ready(Some(self.take(None)));
                    }
                    this = self.as_mut().project();
                }
                Poll::Ready(None) => *this.ended = true,
                Poll::Pending => {
                    let Some(deadline) = *this.deadline else { return Poll::Pending };
                    if !std::mem::replace(this.armed, true) {
                        // A timer set for now still takes up to its grain.
                        if deadline <= Instant::now() {
                            return Poll::Ready(Some(self.take(None)));
                        }
                        arm(this.timer.as_mut(), deadline);
                    }
                    if let Some(timer) = this.timer.as_pin_mut() {
                        ready!(timer.poll(cx));
                    }
                    return Poll::Ready(Some(self.take(None)));
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let held = self.items.len();
        let (lower, upper) = if self.ended { (0, Some(0)) } else { self.source.size_hint() };
        let lower = lower.saturating_add(held).div_ceil(self.limits.rows.get());
        (lower, upper.and_then(|upper| upper.checked_add(held)))
    }
}

impl<S: Stream, W: Weigh<S::Item>> FusedStream for Batch<S, W> {
    fn is_terminated(&self) -> bool {
        self.ended && self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream};
    use proptest::prelude::*;

    use super::*;
    use crate::{FlowExt, nz};

    proptest! {
        /// Against a model that cuts a list of weights into batches.
        #[test]
        fn cuts_as_the_model_does(
            weights in prop::collection::vec(0_usize..12, 0..200),
            rows in 1_usize..10,
            bytes in 0_usize..30,
        ) {
            let limits = BatchLimits::rows(NonZeroUsize::new(rows).unwrap());
            let limits = limits.bytes(bytes, |weight: &usize| *weight);
            let batches = stream::iter(weights.clone()).batch(limits).collect::<Vec<_>>();
            let mut model: Vec<Vec<usize>> = Vec::new();
            let mut open = false;
            for weight in weights {
                match model.last_mut() {
                    Some(last) if open && last.iter().sum::<usize>() + weight <= bytes => {
                        last.push(weight);
                    }
                    _ => model.push(vec![weight]),
                }
                open = model.last().is_some_and(|last| {
                    last.len() < rows && last.iter().sum::<usize>() < bytes
                });
            }
            prop_assert_eq!(batches.now_or_never(), Some(model));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn age_counts_from_the_first_item() {
        let start = Instant::now();
        let gaps = stream::iter([500_u64, 30, 30, 30, 30, 500]).then(|gap| async move {
            tokio::time::sleep(Duration::from_millis(gap)).await;
            gap
        });
        let limits = BatchLimits::rows(nz!(100)).age(Duration::from_millis(100));
        let seen: Vec<_> = gaps
            .batch(limits)
            .map(|batch| (batch.len(), start.elapsed().as_millis()))
            .collect()
            .await;
        assert_eq!(seen, [(4, 600), (1, 720), (1, 1120)]);
    }

    /// How old, in ms, the batches of a source that is always ready are when they leave; each of
    /// its items takes the thread so many µs.
    async fn ages(items: impl IntoIterator<Item = u64>, limits: BatchLimits) -> Vec<u128> {
        let source = stream::iter(items).map(|busy_us| {
            tokio::time::advance(Duration::from_micros(busy_us)).now_or_never();
            Instant::now()
        });
        let batches = source.batch(limits).map(|batch| batch[0].elapsed().as_millis());
        batches.collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn an_always_ready_source_cannot_outrun_the_age() {
        for busy_us in [0, 1, 10, 100, 1_000, 10_000, 40_000] {
            for rows in [64, 1_000_000] {
                let limits = BatchLimits::rows(NonZeroUsize::new(rows).unwrap())
                    .age(Duration::from_millis(100));
                let ages = ages(std::iter::repeat_n(busy_us, 20_000), limits).await;
                let most = (100 + 100 / 8).max(100 + u128::from(busy_us) / 1_000);
                assert!(ages.iter().all(|age| *age <= most), "{busy_us} µs an item: {ages:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_becomes_slow_is_looked_at_more_often() {
        let limits = BatchLimits::rows(nz!(64)).age(Duration::from_millis(100));
        let items = std::iter::repeat_n(1, 64 * 100 + 1).chain(std::iter::repeat_n(10_000, 640));
        let ages = ages(items, limits).await;
        assert!(ages[..100].iter().all(|age| *age == 0), "{ages:?}");
        assert_eq!(ages[100], 630, "it can't be known yet");
        assert!(ages[101..].iter().all(|age| *age <= 100), "{ages:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_source_costs_few_looks() {
        for (rows, most) in [(16, 1), (1_000, 10), (100_000, 120)] {
            let limits = BatchLimits::rows(NonZeroUsize::new(rows).unwrap()).age(Duration::MAX);
            let mut batches = Box::pin(stream::repeat(()).batch(limits));
            for _ in 0..20 {
                batches.next().await; // gets going
            }
            let (mut at, mut looks) = (1, 0);
            while at < rows {
                batches.as_mut().project().items.resize(at, ());
                assert!(!batches.as_mut().look());
                at = batches.next_look;
                looks += 1;
            }
            assert!(looks <= most, "{looks} looks for {rows} rows");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_leaves_without_a_timer() {
        tokio::time::advance(Duration::from_micros(500)).await; // between two ticks
        let now = BatchLimits::rows(nz!(10)).age(Duration::ZERO);
        let mut batches = Box::pin(stream::iter(0..3).chain(stream::pending()).batch(now));
        assert_eq!(batches.next().now_or_never(), Some(Some(vec![0, 1, 2])));
        assert_eq!(batches.next().now_or_never(), None);
    }

    #[test]
    fn no_age_needs_no_runtime() {
        let batches = stream::iter(0..5).batch(BatchLimits::rows(nz!(2))).collect::<Vec<_>>();
        assert_eq!(batches.now_or_never(), Some(vec![vec![0, 1], vec![2, 3], vec![4]]));
    }
}
