//! The bounded queue between a producer and a consumer that live in different tasks, and the rule
//! by which its capacity adapts.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop::poll_proceed;

use crate::sync::{Mutex, lock, park, wake};

/// A queue with one producer, one consumer and a bound; either side may leave at any time.
///
/// Items are dropped and wakers woken outside the lock.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    capacity: Capacity,
    ended: bool,
    abandoned: bool,
    producer: Option<Waker>,
    consumer: Option<Waker>,
}

/// Why an item was not taken; it comes back.
#[derive(Debug)]
pub(crate) enum Refused<T> {
    Full(T),
    Abandoned(T),
}

/// The consumer has left; the item comes back.
#[derive(Debug)]
pub(crate) struct Abandoned<T>(pub(crate) T);

impl<T> Queue<T> {
    pub(crate) fn new(capacity: Capacity) -> Self {
        let state = State {
            items: VecDeque::new(),
            capacity,
            ended: false,
            abandoned: false,
            producer: None,
            consumer: None,
        };
        Self { state: Mutex::new(state) }
    }

    /// Puts an item at the end, if there is room and somebody to take it.
    pub(crate) fn try_push(&self, item: T) -> Result<(), Refused<T>> {
        let mut state = lock(&self.state);
        if state.abandoned {
            return Err(Refused::Abandoned(item));
        }
        if state.items.len() >= state.capacity.current {
            return Err(Refused::Full(item));
        }
        state.items.push_back(item);
        let consumer = state.consumer.take();
        drop(state);
        wake(consumer);
        Ok(())
    }

    /// Puts an item at the end and gives back the oldest one, if there was no room.
    pub(crate) fn push_over(&self, item: T) -> Result<Option<T>, Abandoned<T>> {
        let mut state = lock(&self.state);
        if state.abandoned {
            return Err(Abandoned(item));
        }
        let full = state.items.len() >= state.capacity.current;
        let oldest = if full { state.items.pop_front() } else { None };
        state.items.push_back(item);
        let consumer = state.consumer.take();
        drop(state);
        wake(consumer);
        Ok(oldest)
    }

    /// For a producer that holds an item: ready when there is room, or nobody left to want it.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.abandoned || state.items.len() < state.capacity.current {
            return Poll::Ready(());
        }
        state.capacity.was_full();
        park(state, |state| &mut state.producer, cx);
        Poll::Pending
    }

    /// The producer has left: after the items comes the end.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        let producer = state.producer.take();
        let consumer = state.consumer.take();
        drop(state);
        wake(consumer);
        drop(producer);
    }

    /// Takes the oldest item; `None` once the producer has left and all is taken.
    ///
    /// Spends the tokio task's budget: a producer on another thread may never let it run dry, and
    /// the consumer's task must yield all the same.
    pub(crate) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let proceed = ready!(poll_proceed(cx));
        let mut state = lock(&self.state);
        let fill = state.items.len();
        let Some(item) = state.items.pop_front() else {
            if state.ended {
                return Poll::Ready(None);
            }
            state.capacity.ran_dry();
            park(state, |state| &mut state.consumer, cx);
            return Poll::Pending;
        };
        state.capacity.taken_at(fill);
        let room = state.items.len() < state.capacity.current;
        let producer = if room { state.producer.take() } else { None };
        drop(state);
        wake(producer);
        proceed.made_progress();
        Poll::Ready(Some(item))
    }

    /// The consumer has left: what is queued is dropped, and nothing more is taken.
    pub(crate) fn abandon(&self) {
        let mut state = lock(&self.state);
        state.abandoned = true;
        let consumer = state.consumer.take();
        let items = std::mem::take(&mut state.items);
        let producer = state.producer.take();
        drop(state);
        wake(producer);
        drop((items, consumer));
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        lock(&self.state).abandoned
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.state).items.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        lock(&self.state).capacity.current
    }
}

/// How many items a queue may hold: fixed, or grown and shrunk by what happens at its two ends.
///
/// It doubles when the queue was full while the producer had an item to add, and the consumer ran
/// it dry later: a bigger queue would have spared both a wait. It halves when, over a while, the
/// fill never passed a quarter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    min: usize,
    max: usize,
    current: usize,
    full_since_dry: bool,
    highest_fill: usize,
    taken: usize,
}

/// A queue that stays low for this many times its capacity of items shrinks.
const SHRINK_AFTER_TURNS: usize = 8;

impl Capacity {
    pub(crate) fn fixed(capacity: NonZeroUsize) -> Self {
        Self::adaptive(capacity..=capacity)
    }

    /// Begins at the lower end; an upper end below that counts as the lower end.
    pub(crate) fn adaptive(range: RangeInclusive<NonZeroUsize>) -> Self {
        let (min, max) = (range.start().get(), range.end().get());
        let max = max.max(min);
        Self { min, max, current: min, full_since_dry: false, highest_fill: 0, taken: 0 }
    }

    fn was_full(&mut self) {
        self.full_since_dry = true;
    }

    fn ran_dry(&mut self) {
        if std::mem::take(&mut self.full_since_dry) {
            self.resize(self.current.saturating_mul(2).min(self.max));
        }
    }

    fn taken_at(&mut self, fill: usize) {
        self.highest_fill = self.highest_fill.max(fill);
        self.taken += 1;
        if self.taken >= self.current.saturating_mul(SHRINK_AFTER_TURNS) {
            let low = self.highest_fill <= self.current / 4;
            self.resize(if low { (self.current / 2).max(self.min) } else { self.current });
        }
    }

    fn resize(&mut self, capacity: usize) {
        self.current = capacity;
        self.highest_fill = 0;
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nz;

    #[test]
    fn capacity_grows_only_when_it_would_have_helped() {
        let mut capacity = Capacity::adaptive(nz!(2)..=nz!(10));
        capacity.ran_dry();
        assert_eq!(capacity.current, 2, "dry, but never full");
        for expected in [4, 8, 10, 10] {
            capacity.was_full();
            capacity.ran_dry();
            assert_eq!(capacity.current, expected);
        }
    }

    #[test]
    fn capacity_shrinks_when_it_stays_low_and_never_below_its_minimum() {
        let mut capacity = Capacity::adaptive(nz!(2)..=nz!(64));
        capacity.resize(64);
        let mut sizes = vec![64];
        for _ in 0..5_000 {
            capacity.taken_at(1);
            if sizes.last() != Some(&capacity.current) {
                sizes.push(capacity.current);
            }
        }
        assert_eq!(sizes, [64, 32, 16, 8, 4, 2]);
        capacity.resize(64);
        for _ in 0..5_000 {
            capacity.taken_at(17);
        }
        assert_eq!(capacity.current, 64, "more than a quarter is in use");
    }
}

#[cfg(all(test, flow_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::future::block_on;
    use loom::thread;

    use super::*;
    use crate::nz;

    /// No wake-up is lost between a full queue and an empty one.
    #[test]
    fn loom_queue_hands_over_everything_in_order() {
        loom::model(|| {
            let queue = Arc::new(Queue::new(Capacity::fixed(nz!(1))));
            let producer = Arc::clone(&queue);
            let producing = thread::spawn(move || {
                block_on(async {
                    for item in 0..2 {
                        std::future::poll_fn(|cx| producer.poll_room(cx)).await;
                        assert!(producer.try_push(item).is_ok());
                    }
                    producer.end();
                });
            });
            let mut taken = Vec::new();
            block_on(async {
                while let Some(item) = std::future::poll_fn(|cx| queue.poll_pop(cx)).await {
                    taken.push(item);
                }
            });
            assert_eq!(taken, [0, 1]);
            producing.join().unwrap();
        });
    }

    /// A producer that waits for room hears that the consumer has left.
    #[test]
    fn loom_queue_abandoned_wakes_the_producer() {
        loom::model(|| {
            let queue = Arc::new(Queue::new(Capacity::fixed(nz!(1))));
            assert!(queue.try_push(0).is_ok());
            let consumer = Arc::clone(&queue);
            let leaving = thread::spawn(move || consumer.abandon());
            block_on(std::future::poll_fn(|cx| queue.poll_room(cx)));
            assert!(matches!(queue.try_push(1), Err(Refused::Abandoned(1))));
            leaving.join().unwrap();
        });
    }
}
