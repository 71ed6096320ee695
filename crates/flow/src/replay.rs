//! `Replay`: a broadcast that remembers its last items.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures_core::{FusedStream, Stream};
use slab::Slab;
use tokio::task::coop::poll_proceed;

use crate::sync::{Mutex, lock, park};

/// How many items a subscriber takes from the ring at a time, so that not each one costs a lock.
const READ_AHEAD: usize = 32;

/// … and so much of their weight, where they [have one](Replay::weighing): what is read ahead is not
/// free when the ring has forgotten it.
const READ_AHEAD_WEIGHT: usize = 64 << 10;

/// A broadcast: a ring of the last `n` items, numbered from 0 (or a number of your choice) up.
///
/// Publishing never waits: the newest item takes the place of the oldest. Subscribers read the ring
/// at their own speed, from now on or from after an id; one that is overtaken is told how many it
/// missed and goes on with the oldest item there is. Clones publish to the same ring; when the last
/// one is dropped, subscribers get what is left and the end.
///
/// - **Ordering**: every subscriber sees ids grow, by one unless it is told otherwise.
/// - **Buffering**: `n` items, and up to 32 that a subscriber has read ahead of its consumer.
/// - **Cancellation**: dropping a future that waits for the next item loses nothing; a
///   [`Subscription`] that is dropped is forgotten.
/// - **End, error**: see above; there are no errors but [`Lagged`], after which the stream goes on.
///
/// ```
/// use futures::StreamExt;
/// use tidegate_flow::{Lagged, Replay, nz};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tidegate_flow::UnknownId> {
/// let news = Replay::new(nz!(3));
/// let slow = news.subscribe();
/// for item in ["a", "b", "c", "d"] {
///     news.publish(item);
/// }
/// let back_again = news.subscribe_after(2)?; // has seen ids up to 2
/// drop(news);
/// let expected = [Err(Lagged { missed: 1 }), Ok((1, "b")), Ok((2, "c")), Ok((3, "d"))];
/// assert_eq!(slow.collect::<Vec<_>>().await, expected);
/// assert_eq!(back_again.collect::<Vec<_>>().await, [Ok((3, "d"))]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Replay<T> {
    ring: Arc<Mutex<Ring<T>>>,
    // What an item weighs; asked before the lock is taken.
    weigh: Option<fn(&T) -> usize>,
}

#[derive(Debug)]
struct Ring<T> {
    items: VecDeque<T>,
    capacity: usize,
    // What each of the items weighs, where they have a weight; what they weigh together, and may.
    weights: VecDeque<usize>,
    weight: usize,
    weight_max: usize,
    next_id: u64,
    publishers: usize,
    // The wakers of subscribers that have read all there is, and a list to wake them from without
    // holding the lock, kept for its room.
    waiting: Slab<Option<Waker>>,
    asleep: Vec<usize>,
}

impl<T> Replay<T> {
    /// The last id that a ring may begin with. It leaves 2^63 ids, so that none ever runs out of
    /// them: at a billion items a second they last for 292 years.
    pub const FIRST_ID_MAX: u64 = u64::MAX / 2;

    /// A ring of `capacity` items, whose first id is 0.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self::beginning(0, capacity)
    }

    /// As [`new`](Self::new), and its items together weigh at most `weight_max`, but for one that
    /// weighs more alone: a ring of texts is bounded by their bytes.
    pub fn weighing(capacity: NonZeroUsize, weight_max: usize, weigh: fn(&T) -> usize) -> Self {
        let mut replay = Self::new(capacity);
        replay.weigh = Some(weigh);
        lock(&replay.ring).weight_max = weight_max;
        replay
    }

    /// A ring whose first id is `first_id`: for ids that go on after a restart.
    ///
    /// # Errors
    ///
    /// [`FirstIdTooLarge`] where it is above [`FIRST_ID_MAX`](Self::FIRST_ID_MAX): no ring got so
    /// far, so it is not an id that was kept from one.
    pub fn starting_at(first_id: u64, capacity: NonZeroUsize) -> Result<Self, FirstIdTooLarge> {
        if first_id > Self::FIRST_ID_MAX {
            return Err(FirstIdTooLarge { id: first_id, largest: Self::FIRST_ID_MAX });
        }
        Ok(Self::beginning(first_id, capacity))
    }

    fn beginning(first_id: u64, capacity: NonZeroUsize) -> Self {
        let ring = Ring {
            items: VecDeque::new(),
            capacity: capacity.get(),
            weights: VecDeque::new(),
            weight: 0,
            weight_max: usize::MAX,
            next_id: first_id,
            publishers: 1,
            waiting: Slab::new(),
            asleep: Vec::new(),
        };
        Self { ring: Arc::new(Mutex::new(ring)), weigh: None }
    }

    /// Adds an item and returns its id; never waits.
    pub fn publish(&self, item: T) -> u64 {
        let weight = self.weigh.map(|weigh| weigh(&item));
        let mut ring = lock(&self.ring);
        let oldest = ring.make_room(weight.unwrap_or_default());
        if let Some(weight) = weight {
            ring.weights.push_back(weight);
            ring.weight += weight;
        }
        ring.items.push_back(item);
        let id = ring.next_id;
        ring.next_id += 1;
        let wakers = ring.take_wakers();
        drop(ring);
        wakers.into_iter().for_each(Waker::wake);
        drop(oldest);
        id
    }

    /// What is published from now on.
    pub fn subscribe(&self) -> Subscription<T> {
        let mut ring = lock(&self.ring);
        let next = ring.next_id;
        self.subscription(&mut ring, next)
    }

    /// What was published after the item with id `seen`, then what comes. Where the ring no longer
    /// holds all of that, the subscription begins with [`Lagged`].
    ///
    /// # Errors
    ///
    /// [`UnknownId`] where no item has that id yet: it is from another ring, perhaps from before a
    /// restart. Subscribing from the oldest item or from now on is the caller's choice.
    pub fn subscribe_after(&self, seen: u64) -> Result<Subscription<T>, UnknownId> {
        let mut ring = lock(&self.ring);
        match seen.checked_add(1) {
            Some(next) if next <= ring.next_id => Ok(self.subscription(&mut ring, next)),
            _ => Err(UnknownId { id: seen, next_id: ring.next_id }),
        }
    }

    /// All that the ring holds, then what comes.
    pub fn subscribe_from_oldest(&self) -> Subscription<T> {
        let mut ring = lock(&self.ring);
        let oldest = ring.oldest_id();
        self.subscription(&mut ring, oldest)
    }

    /// How many subscriptions there are.
    pub fn subscribers(&self) -> usize {
        lock(&self.ring).waiting.len()
    }

    /// The id that the next item will get.
    pub fn next_id(&self) -> u64 {
        lock(&self.ring).next_id
    }

    fn subscription(&self, ring: &mut Ring<T>, next_id: u64) -> Subscription<T> {
        let place = ring.waiting.insert(None);
        let ahead = VecDeque::new();
        Subscription { ring: Arc::clone(&self.ring), place, next_id, ahead, ended: false }
    }
}

impl<T> Ring<T> {
    /// Takes out what has to go for an item of that weight: seldom more than one.
    fn make_room(&mut self, weight: usize) -> (Option<T>, Vec<T>) {
        let (mut oldest, mut more) = (None, Vec::new());
        while self.items.len() >= self.capacity
            || self.weight.saturating_add(weight) > self.weight_max
        {
            let Some(item) = self.items.pop_front() else { break };
            self.weight -= self.weights.pop_front().unwrap_or_default();
            more.extend(oldest.replace(item));
        }
        (oldest, more)
    }

    /// How many items from this place on are read at a time.
    fn ahead(&self, from: usize) -> usize {
        if self.weights.is_empty() {
            return READ_AHEAD;
        }
        let mut weight = 0;
        let light = self.weights.range(from..).take(READ_AHEAD).take_while(|item| {
            weight += **item;
            weight <= READ_AHEAD_WEIGHT
        });
        light.count().max(1)
    }

    fn oldest_id(&self) -> u64 {
        self.next_id - self.items.len() as u64
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        let Self { waiting, asleep, .. } = self;
        asleep.drain(..).filter_map(|place| waiting[place].take()).collect()
    }
}

impl<T> Clone for Replay<T> {
    fn clone(&self) -> Self {
        lock(&self.ring).publishers += 1;
        Self { ring: Arc::clone(&self.ring), weigh: self.weigh }
    }
}

impl<T> Drop for Replay<T> {
    fn drop(&mut self) {
        let mut ring = lock(&self.ring);
        ring.publishers -= 1;
        let wakers = if ring.publishers == 0 { ring.take_wakers() } else { Vec::new() };
        drop(ring);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A reader of a [`Replay`]: the stream of ids and items, with gaps told as [`Lagged`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Subscription<T> {
    ring: Arc<Mutex<Ring<T>>>,
    place: usize,
    // The id of the next item to yield; those that were read ahead begin with it.
    next_id: u64,
    ahead: VecDeque<T>,
    ended: bool,
}

impl<T> Subscription<T> {
    /// How many items are published and not yet read here, those that were overtaken too.
    pub fn behind(&self) -> u64 {
        lock(&self.ring).next_id - self.next_id
    }
}

// Nothing in it is pinned.
impl<T> Unpin for Subscription<T> {}

impl<T: Clone> Stream for Subscription<T> {
    type Item = Result<(u64, T), Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(item) = this.ahead.pop_front() {
            this.next_id += 1;
            return Poll::Ready(Some(Ok((this.next_id - 1, item))));
        }
        // A publisher on another thread may never let it run dry; this task must yield all the same.
        let proceed = ready!(poll_proceed(cx));
        let mut ring = lock(&this.ring);
        let id = this.next_id;
        let oldest = ring.oldest_id();
        if id < oldest {
            this.next_id = oldest;
            proceed.made_progress();
            return Poll::Ready(Some(Err(Lagged { missed: oldest - id })));
        }
        let ahead = ring.ahead((id - oldest) as usize);
        let mut unread = ring.items.range((id - oldest) as usize..).take(ahead).cloned();
        let item = if unread.len() > 1 {
            // In order and from the next id on: should a clone panic, those before it are kept.
            this.ahead.extend(unread);
            this.ahead.pop_front()
        } else {
            unread.next()
        };
        if let Some(item) = item {
            this.next_id = id + 1;
            proceed.made_progress();
            return Poll::Ready(Some(Ok((id, item))));
        }
        if ring.publishers == 0 {
            this.ended = true;
            return Poll::Ready(None);
        }
        let place = this.place;
        if ring.waiting[place].is_none() {
            ring.asleep.push(place);
        }
        park(ring, |ring| &mut ring.waiting[place], cx);
        Poll::Pending
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let ring = lock(&self.ring);
        let ahead = self.ahead.len();
        let read = self.next_id + ahead as u64;
        let unread = ring.next_id - read;
        if ring.publishers > 0 {
            return (ahead.saturating_add((unread > 0).into()), None);
        }
        let lagged = read < ring.oldest_id();
        let left = ahead + unread.min(ring.items.len() as u64) as usize + usize::from(lagged);
        (left, Some(left))
    }
}

impl<T: Clone> FusedStream for Subscription<T> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let mut ring = lock(&self.ring);
        let waker = ring.waiting.try_remove(self.place).flatten();
        if waker.is_some() {
            let place = self.place;
            ring.asleep.retain(|asleep| *asleep != place);
        }
        drop(ring);
        drop(waker);
    }
}

/// A subscriber was overtaken: it will never see this many items, and goes on after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged {
    /// How many items were overwritten before they were read.
    pub missed: u64,
}

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the subscriber was too slow and missed {} items", self.missed)
    }
}

impl Error for Lagged {}

/// No item of this [`Replay`] has the id that a subscriber says to have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownId {
    /// The id that was asked for.
    pub id: u64,
    /// The id that the next item will get.
    pub next_id: u64,
}

impl fmt::Display for UnknownId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, next_id } = self;
        write!(f, "no item has the id {id} yet, the next one gets {next_id}")
    }
}

impl Error for UnknownId {}

/// A [`Replay`] can't begin with this id: see [`Replay::starting_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstIdTooLarge {
    /// The id that was asked for.
    pub id: u64,
    /// The largest that there may be.
    pub largest: u64,
}

impl fmt::Display for FirstIdTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, largest } = self;
        write!(f, "a ring can't begin with the id {id}: ids up to {largest} leave room to count on")
    }
}

impl Error for FirstIdTooLarge {}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{FutureExt, StreamExt};
    use proptest::prelude::*;

    use super::*;
    use crate::nz;

    #[test]
    fn an_id_from_the_future_is_refused() {
        let replay = Replay::starting_at(100, nz!(2)).unwrap();
        assert!(replay.subscribe_after(99).is_ok());
        for id in [100, u64::MAX] {
            assert_eq!(replay.subscribe_after(id).unwrap_err(), UnknownId { id, next_id: 100 });
        }
        assert_eq!(replay.publish(()), 100);
        assert!(replay.subscribe_after(100).is_ok());
        assert_eq!(replay.subscribers(), 0, "those above were dropped");
    }

    #[test]
    fn ids_from_before_the_ring_began_are_told_as_lost() {
        let replay = Replay::starting_at(100, nz!(2)).unwrap();
        replay.publish('x');
        let mut subscription = replay.subscribe_after(40).unwrap();
        assert_eq!(subscription.next().now_or_never(), Some(Some(Err(Lagged { missed: 59 }))));
        assert_eq!(subscription.next().now_or_never(), Some(Some(Ok((100, 'x')))));
    }

    #[test]
    fn items_that_have_a_weight_are_bounded_by_it() {
        let replay = Replay::weighing(nz!(4), 10, String::len);
        let mut late = replay.subscribe();
        for (item, kept) in [
            ("aaaa", 1),
            ("bbbb", 2),
            ("cc", 3),
            ("d", 3),
            ("a heavy one", 1),
            ("", 1),
            ("e", 2),
            ("", 3),
            ("", 4),
            ("", 4),
        ] {
            replay.publish(item.to_owned());
            let ring = lock(&replay.ring);
            assert_eq!(ring.items.len(), kept, "{item}");
            assert_eq!(ring.weight, ring.items.iter().map(String::len).sum::<usize>());
        }
        assert_eq!(late.next().now_or_never(), Some(Some(Err(Lagged { missed: 6 }))));
        drop(replay);
        assert_eq!(late.collect::<Vec<_>>().now_or_never().unwrap().len(), 4);
    }

    #[test]
    fn no_more_weight_is_read_ahead_than_is_said() {
        let replay = Replay::weighing(nz!(100), usize::MAX - 1, |_| READ_AHEAD_WEIGHT / 4);
        let mut late = replay.subscribe();
        let item = Arc::new(());
        for _ in 0..20 {
            replay.publish(Arc::clone(&item));
        }
        late.next().now_or_never().unwrap();
        assert_eq!(late.ahead.len(), 3);
    }

    #[test]
    fn ids_never_run_out() {
        for id in [Replay::<()>::FIRST_ID_MAX + 1, u64::MAX] {
            let refused = Replay::<()>::starting_at(id, nz!(1)).unwrap_err();
            assert_eq!(refused, FirstIdTooLarge { id, largest: u64::MAX / 2 });
        }
        let last = Replay::<()>::FIRST_ID_MAX;
        let replay = Replay::starting_at(last, nz!(2)).unwrap();
        let reader = replay.subscribe();
        let early = replay.subscribe_after(0).unwrap();
        assert_eq!((replay.publish('a'), replay.publish('b')), (last, last + 1));
        drop(replay);
        let all = reader.collect::<Vec<_>>().now_or_never();
        assert_eq!(all, Some(vec![Ok((last, 'a')), Ok((last + 1, 'b'))]));
        let lagged = early.collect::<Vec<_>>().now_or_never().unwrap();
        assert_eq!(lagged[0], Err(Lagged { missed: last - 1 }));
    }

    /// Panics when it is cloned for the third time, counted over all.
    struct Fragile(u64, Arc<AtomicUsize>);

    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert_ne!(self.1.fetch_add(1, Ordering::SeqCst), 2, "the third clone");
            Self(self.0, Arc::clone(&self.1))
        }
    }

    #[test]
    fn a_clone_that_panics_moves_no_ids() {
        let clones = Arc::new(AtomicUsize::new(0));
        let replay = Replay::new(nz!(8));
        let mut reader = replay.subscribe();
        for number in 0..5 {
            replay.publish(Fragile(number, Arc::clone(&clones)));
        }
        let first = AssertUnwindSafe(async { reader.next().await.is_some() });
        assert!(first.catch_unwind().now_or_never().unwrap().is_err());
        for expected in 0..5 {
            let (id, item) = reader.next().now_or_never().unwrap().unwrap().unwrap();
            assert_eq!((id, item.0), (expected, expected));
        }
    }

    proptest! {
        /// Against a list of all that was ever published: a reader sees each id once and in order,
        /// or is told exactly how many are gone.
        #[test]
        fn agrees_with_a_list(
            capacity in 1_usize..8,
            steps in prop::collection::vec((0_u8..6, 0_usize..4), 0..200),
        ) {
            let replay = Replay::new(NonZeroUsize::new(capacity).unwrap());
            let mut published = 0_u64;
            // Each with the id it reads next, and the id up to which it has read ahead.
            let mut readers: Vec<(Subscription<u64>, u64, u64)> = Vec::new();
            for (action, which) in steps {
                match (action, readers.get_mut(which)) {
                    (0, _) => readers.push((replay.subscribe(), published, published)),
                    (1, _) if published > which as u64 => {
                        let seen = published - 1 - which as u64;
                        let reader = replay.subscribe_after(seen).unwrap();
                        readers.push((reader, seen + 1, seen + 1));
                    }
                    (2 | 3, _) => {
                        prop_assert_eq!(replay.publish(published * 10), published);
                        published += 1;
                    }
                    (4, Some((reader, at, ahead))) => {
                        let oldest = published.saturating_sub(capacity as u64);
                        let expected = if *at == *ahead && *at < oldest {
                            *ahead = oldest;
                            Some(Err(Lagged { missed: oldest - std::mem::replace(at, oldest) }))
                        } else if *at < published {
                            if *at == *ahead {
                                *ahead = published.min(*at + READ_AHEAD as u64);
                            }
                            *at += 1;
                            Some(Ok((*at - 1, (*at - 1) * 10)))
                        } else {
                            None
                        };
                        prop_assert_eq!(reader.next().now_or_never().flatten(), expected);
                    }
                    (5, Some(_)) => drop(readers.swap_remove(which)),
                    _ => {}
                }
                prop_assert_eq!(replay.subscribers(), readers.len());
            }
        }
    }
}

#[cfg(all(test, flow_loom))]
mod loom_tests {
    use loom::future::block_on;
    use loom::thread;

    use super::*;
    use crate::nz;

    /// A reader that waits hears of every item and of the end, whenever they come.
    #[test]
    fn loom_replay_wakes_its_readers() {
        loom::model(|| {
            let replay = Replay::new(nz!(2));
            let mut reader = replay.subscribe();
            let publishing = thread::spawn(move || {
                replay.publish('a');
                replay.publish('b');
            });
            let mut seen = Vec::new();
            block_on(async {
                while let Some(item) =
                    std::future::poll_fn(|cx| Pin::new(&mut reader).poll_next(cx)).await
                {
                    seen.push(item);
                }
            });
            assert_eq!(seen, [Ok((0, 'a')), Ok((1, 'b'))]);
            publishing.join().unwrap();
        });
    }
}
