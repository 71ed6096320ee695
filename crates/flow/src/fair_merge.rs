//! `FairMerge`: many keyed sources into one stream, each getting its turn.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::{FusedStream, Stream};
use slab::Slab;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, lock, park, wake};

/// What is told to a merge from elsewhere.
mod handle;

pub use handle::MergeHandle;
use handle::Requests;

/// How often in one poll an input may be asked that wakes itself while it is asked.
const ROUNDS_PER_POLL: usize = 2;

/// Many sources as one stream, with keys; sources come and go while it runs.
///
/// Sources that have something take turns, one item each, so `k` sources that are always ready get
/// `1/k` each. A source is polled only after it woke, so an item costs the same with ten idle
/// sources as with ten thousand.
///
/// - **Ordering**: kept within a source; between sources, by turns.
/// - **Buffering**: no items; a source is polled only for an item that leaves at once. Its line
///   holds up to two places for each source, and a handle's requests wait, the latest of each key.
/// - **Cancellation**: dropping it loses nothing of what its sources still hold.
/// - **End, error**: the end of a source is told as [`Merged::Ended`] and the source is dropped;
///   an error is an item like others, with its key. The merge ends when no source is left and no
///   [`handle`](FairMerge::handle) is alive to add one; a source inserted later starts it again.
///
/// ```
/// use futures::{StreamExt, stream};
/// use tidegate_flow::{FairMerge, Merged};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut merge = FairMerge::new();
/// merge.insert("app", stream::iter(vec![1, 2, 3]));
/// merge.insert("web", stream::iter(vec![10]));
/// let all: Vec<_> = merge.collect().await;
/// assert_eq!(
///     all,
///     [
///         Merged::Item("app", 1),
///         Merged::Item("web", 10),
///         Merged::Item("app", 2),
///         Merged::Ended("web"),
///         Merged::Item("app", 3),
///         Merged::Ended("app"),
///     ]
/// );
/// # }
/// ```
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct FairMerge<K, S> {
    inputs: Slab<Input<K, S>>,
    keys: HashMap<K, usize>,
    // Inputs that may have something, each at most once; here or in `woken`, never in both.
    ready: VecDeque<Arc<Turn>>,
    // How many turns in these two are of inputs that are gone; kept to as many as there are inputs.
    stale: usize,
    woken: Arc<Woken>,
    requests: Arc<Requests<K, S>>,
}

/// What a [`FairMerge`] yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged<K, T> {
    /// An item of the source with this key.
    Item(K, T),
    /// The source with this key has ended, and its key is free again.
    Ended(K),
}

#[derive(Debug)]
struct Input<K, S> {
    key: K,
    // Each source has a place of its own, so that it never moves once polled.
    source: Pin<Box<S>>,
    turn: Arc<Turn>,
    waker: Waker,
}

impl<K, S> Input<K, S> {
    /// Whether a turn is this input's; its place may have had another owner.
    fn has(&self, turn: &Arc<Turn>) -> bool {
        Arc::ptr_eq(&self.turn, turn)
    }
}

impl<K, S> Default for FairMerge<K, S> {
    fn default() -> Self {
        Self {
            inputs: Slab::new(),
            keys: HashMap::new(),
            ready: VecDeque::new(),
            stale: 0,
            woken: Arc::new(Woken::default()),
            requests: Arc::new(Requests::default()),
        }
    }
}

impl<K: Clone + Eq + Hash, S: Stream> FairMerge<K, S> {
    /// A merge of nothing, yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source; it gets the next turn after those that are waiting for theirs. A source that
    /// already has this key is replaced and given back.
    pub fn insert(&mut self, key: K, source: S) -> Option<Pin<Box<S>>> {
        let replaced = self.remove(&key);
        let entry = self.inputs.vacant_entry();
        let index = entry.key();
        let turn = Arc::new(Turn {
            index,
            queued: AtomicBool::new(true),
            woken: Arc::downgrade(&self.woken),
        });
        let waker = Waker::from(Arc::clone(&turn));
        self.ready.push_back(Arc::clone(&turn));
        entry.insert(Input { key: key.clone(), source: Box::pin(source), turn, waker });
        self.keys.insert(key, index);
        // A task that waits for the merge must hear of it; a poll will find the source ready.
        let parent = lock(&self.woken.state).parent.take();
        wake(parent);
        replaced
    }

    /// Takes a source out, with all that it still has to give.
    pub fn remove(&mut self, key: &K) -> Option<Pin<Box<S>>> {
        let index = self.keys.remove(key)?;
        Some(self.retire(index).source)
    }

    /// Whether there is a source with this key.
    pub fn contains(&self, key: &K) -> bool {
        self.keys.contains_key(key)
    }

    /// How many sources there are, idle ones too.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there is no source.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Adds and removes sources from elsewhere while the merge runs; alive, it keeps the merge from
    /// ending when the last source has.
    pub fn handle(&self) -> MergeHandle<K, S> {
        MergeHandle::new(Arc::clone(&self.requests), Arc::clone(&self.woken))
    }

    /// Does what the handles asked for, and says whether they may ask for more.
    fn serve(&mut self) -> bool {
        // Read before the requests: without handles, those are the last ones.
        let open = self.requests.may_come();
        if self.requests.are_waiting() {
            self.serve_requests();
        }
        open
    }

    #[cold]
    fn serve_requests(&mut self) {
        for (key, source) in self.requests.take() {
            drop(match source {
                Some(source) => self.insert(key, source),
                None => self.remove(&key),
            });
        }
    }

    /// Takes an input out, whose turn counts for nothing from here on.
    #[cold]
    fn retire(&mut self, index: usize) -> Input<K, S> {
        let input = self.inputs.remove(index);
        // Said to be in line for ever, it is never put there again, whoever still wakes it.
        self.stale += usize::from(input.turn.queued.swap(true, Ordering::AcqRel));
        if self.stale > self.inputs.len() {
            self.woken.drain_into(&mut self.ready);
            let inputs = &self.inputs;
            self.ready.retain(|turn| inputs.get(turn.index).is_some_and(|input| input.has(turn)));
            self.stale = 0;
        }
        input
    }

    /// Lets one input have its turn. `None`: it has nothing now, or is gone.
    fn take_turn(&mut self, turn: &Arc<Turn>) -> Option<Merged<K, S::Item>> {
        let Some(input) = self.inputs.get_mut(turn.index).filter(|input| input.has(turn)) else {
            // Those who were about to get in line when their input went were never counted.
            self.stale = self.stale.saturating_sub(1);
            return None;
        };
        // From here on a wake-up queues the input anew, also one that comes while it is polled.
        turn.queued.swap(false, Ordering::AcqRel);
        match input.source.as_mut().poll_next(&mut Context::from_waker(&input.waker)) {
            Poll::Pending => None,
            Poll::Ready(Some(item)) => {
                if !turn.queued.swap(true, Ordering::AcqRel) {
                    self.ready.push_back(Arc::clone(turn));
                }
                Some(Merged::Item(input.key.clone(), item))
            }
            Poll::Ready(None) => {
                let Input { key, .. } = self.retire(turn.index);
                self.keys.remove(&key);
                Some(Merged::Ended(key))
            }
        }
    }
}

// The sources are boxed; nothing is pinned in place.
impl<K, S> Unpin for FairMerge<K, S> {}

impl<K, S> Drop for FairMerge<K, S> {
    fn drop(&mut self) {
        drop(self.requests.close());
    }
}

impl<K: Clone + Eq + Hash, S: Stream> Stream for FairMerge<K, S> {
    type Item = Merged<K, S::Item>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let open = this.serve();
        // Each input is asked once, and once more if it woke meanwhile; one that keeps waking itself
        // must let this task yield. When the task's budget is spent, every tokio input says
        // `Pending`: asking one would cost it its turn, always the same one where the number of
        // inputs fits the budget, and asking the rest a poll each for nothing.
        for _ in 0..ROUNDS_PER_POLL {
            this.woken.drain_into(&mut this.ready);
            for _ in 0..this.ready.len() {
                if !tokio::task::coop::has_budget_remaining() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let Some(turn) = this.ready.pop_front() else { break };
                if let Some(merged) = this.take_turn(&turn) {
                    return Poll::Ready(Some(merged));
                }
            }
        }
        if this.inputs.is_empty() && !open {
            return Poll::Ready(None);
        }
        this.woken.wait(cx);
        Poll::Pending
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.requests.may_change() {
            return (0, None);
        }
        let mut lower = self.inputs.len(); // each has its `Ended` to come
        let mut upper = Some(lower);
        for (_, input) in &self.inputs {
            let (at_least, at_most) = input.source.size_hint();
            lower = lower.saturating_add(at_least);
            upper = upper.zip(at_most).and_then(|(sum, most)| sum.checked_add(most));
        }
        (lower, upper)
    }
}

impl<K: Clone + Eq + Hash, S: Stream> FusedStream for FairMerge<K, S> {
    fn is_terminated(&self) -> bool {
        self.inputs.is_empty() && !self.requests.may_change()
    }
}

/// An input's place in line, and its waker.
#[derive(Debug)]
struct Turn {
    index: usize,
    queued: AtomicBool,
    // Weak: what wakes after the merge is gone must not keep both alive in a cycle.
    woken: Weak<Woken>,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel)
            && let Some(woken) = self.woken.upgrade()
        {
            woken.push(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Arc::clone(self).wake();
    }
}

/// The inputs that woke since the last poll, and the task to wake for them.
#[derive(Debug, Default)]
struct Woken {
    any: AtomicBool,
    state: Mutex<WokenState>,
}

#[derive(Debug, Default)]
struct WokenState {
    turns: Vec<Arc<Turn>>,
    parent: Option<Waker>,
    // A request came, or the last handle went, since the last poll.
    poked: bool,
}

impl Woken {
    fn push(&self, turn: Arc<Turn>) {
        let mut state = lock(&self.state);
        state.turns.push(turn);
        self.any.store(true, Ordering::Release);
        let parent = state.parent.take();
        drop(state);
        wake(parent);
    }

    fn poke(&self) {
        let mut state = lock(&self.state);
        state.poked = true;
        let parent = state.parent.take();
        drop(state);
        wake(parent);
    }

    fn drain_into(&self, ready: &mut VecDeque<Arc<Turn>>) {
        if self.any.load(Ordering::Acquire) {
            let mut state = lock(&self.state);
            self.any.store(false, Ordering::Relaxed);
            ready.extend(state.turns.drain(..));
        }
    }

    /// Leaves the task's waker; what came since the last look wakes it at once.
    fn wait(&self, cx: &Context<'_>) {
        let mut state = lock(&self.state);
        if state.turns.is_empty() && !std::mem::take(&mut state.poked) {
            park(state, |state| &mut state.parent, cx);
        } else {
            drop(state);
            cx.waker().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use futures::{FutureExt, StreamExt, stream};

    use super::*;

    #[test]
    fn always_ready_inputs_get_equal_shares() {
        let mut merge = FairMerge::new();
        for key in 0..7 {
            merge.insert(key, stream::repeat(key));
        }
        let mut shares = HashMap::new();
        for _ in 0..7_000 {
            if let Some(Some(Merged::Item(key, _))) = merge.next().now_or_never() {
                *shares.entry(key).or_insert(0_u32) += 1;
            }
        }
        assert!((0..7).all(|key| shares[&key] == 1_000), "{shares:?}");
    }

    #[test]
    fn a_key_is_replaced_removed_and_used_again() {
        let mut merge = FairMerge::new();
        assert!(merge.insert("a", stream::repeat(1).take(2)).is_none());
        assert_eq!(merge.next().now_or_never(), Some(Some(Merged::Item("a", 1))));
        let old = merge.insert("a", stream::repeat(2).take(1)).unwrap();
        assert_eq!(old.collect::<Vec<_>>().now_or_never(), Some(vec![1]));
        assert!(merge.remove(&"b").is_none());
        assert_eq!((merge.len(), merge.contains(&"a")), (1, true));
        assert!(merge.remove(&"a").is_some());
        assert_eq!(merge.next().now_or_never(), Some(None));
        merge.insert("a", stream::repeat(3).take(1));
        let rest = merge.collect::<Vec<_>>().now_or_never();
        assert_eq!(rest, Some(vec![Merged::Item("a", 3), Merged::Ended("a")]));
    }

    #[tokio::test]
    async fn a_handle_keeps_it_open_and_adds_from_elsewhere() {
        let merge = FairMerge::new();
        let handle = merge.handle();
        let collecting = tokio::spawn(merge.collect::<Vec<_>>());
        tokio::task::yield_now().await;
        assert!(!collecting.is_finished());
        handle.insert(1, stream::iter([5]).boxed());
        handle.insert(2, stream::pending().boxed());
        tokio::task::yield_now().await;
        handle.remove(2);
        drop(handle);
        assert_eq!(collecting.await.unwrap(), [Merged::Item(1, 5), Merged::Ended(1)]);
    }

    /// The places in line, wherever they are.
    fn places<K, S>(merge: &FairMerge<K, S>) -> usize {
        merge.ready.len() + lock(&merge.woken.state).turns.len()
    }

    #[test]
    fn sources_that_are_replaced_unpolled_leave_no_places_in_line() {
        let mut merge = FairMerge::new();
        for round in 0..1_000 {
            for key in 0..10 {
                merge.insert(key, stream::iter([round]));
                assert!(places(&merge) <= 2 * 10, "{} places", places(&merge));
            }
        }
        for key in 0..9 {
            merge.remove(&key);
            assert!(places(&merge) <= 2 * merge.len().max(1), "{} places", places(&merge));
        }
        let all = merge.collect::<Vec<_>>().now_or_never().unwrap();
        assert_eq!(all, [Merged::Item(9, 999), Merged::Ended(9)]);
    }

    #[test]
    fn a_source_that_is_gone_gets_in_line_no_more() {
        let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
        let told = Arc::clone(&wakers);
        let source = move |left: u32| {
            let (told, mut left) = (Arc::clone(&told), left);
            stream::poll_fn(move |cx| {
                lock(&told).push(cx.waker().clone());
                left -= 1;
                if left == 0 { Poll::Ready(None) } else { Poll::<Option<()>>::Pending }
            })
        };
        let mut merge = FairMerge::new();
        merge.insert("ends", source(1));
        merge.insert("stays", source(100));
        for _ in 0..100 {
            merge.insert("leaves", source(100));
            merge.next().now_or_never();
        }
        for _ in 0..3 {
            lock(&wakers).iter().for_each(Waker::wake_by_ref);
            assert_eq!(places(&merge), merge.len());
            assert!(merge.next().now_or_never().is_none());
        }
    }

    #[test]
    fn a_handle_keeps_the_latest_request_of_each_key() {
        let alive = Arc::new(());
        let source = || stream::iter([Arc::clone(&alive)]);
        let mut merge = FairMerge::new();
        let handle = merge.handle();
        for _ in 0..100 {
            handle.insert(1, source());
            handle.remove(2);
            handle.insert(2, source());
            handle.insert(3, source());
            handle.remove(3);
            assert!(Arc::strong_count(&alive) <= 1 + 3);
        }
        handle.insert(1, source());
        assert_eq!(Arc::strong_count(&alive), 1 + 2);
        drop(handle);
        let keys: Vec<_> = std::iter::from_fn(|| merge.next().now_or_never().flatten())
            .map(|merged| match merged {
                Merged::Item(key, _) => (key, true),
                Merged::Ended(key) => (key, false),
            })
            .collect();
        assert_eq!(keys, [(2, true), (1, true), (2, false), (1, false)]);
    }

    #[test]
    fn a_wake_after_the_end_is_harmless() {
        let mut wakers = Vec::new();
        let mut merge = FairMerge::new();
        let source = stream::poll_fn(|cx| {
            wakers.push(cx.waker().clone());
            Poll::<Option<()>>::Pending
        });
        merge.insert((), source);
        assert!(merge.next().now_or_never().is_none());
        drop(merge);
        let turn = wakers.pop().unwrap();
        turn.wake_by_ref();
        turn.wake();
    }
}

#[cfg(all(test, flow_loom))]
mod loom_tests {
    use loom::future::block_on;
    use loom::thread;

    use super::*;
    use crate::queue::{Capacity, Queue};

    struct Pops(Arc<Queue<u32>>);

    impl Stream for Pops {
        type Item = u32;

        fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u32>> {
            self.0.poll_pop(cx)
        }
    }

    async fn next(merge: &mut FairMerge<u32, Pops>) -> Option<Merged<u32, u32>> {
        std::future::poll_fn(|cx| Pin::new(&mut *merge).poll_next(cx)).await
    }

    /// A wake-up from another thread, before, during or after a poll, is never lost.
    #[test]
    fn loom_merge_loses_no_wake_up() {
        loom::model(|| {
            let queues: Vec<_> =
                (0..2).map(|_| Arc::new(Queue::new(Capacity::fixed(crate::nz!(4))))).collect();
            let mut merge = FairMerge::new();
            for (key, queue) in (0..).zip(&queues) {
                merge.insert(key, Pops(Arc::clone(queue)));
            }
            let producer = thread::spawn(move || {
                for (item, queue) in (10..).zip(queues) {
                    assert!(queue.try_push(item).is_ok());
                }
            });
            let mut seen = Vec::new();
            block_on(async {
                while seen.len() < 2 {
                    if let Some(Merged::Item(key, item)) = next(&mut merge).await {
                        seen.push((key, item));
                    }
                }
            });
            seen.sort_unstable();
            assert_eq!(seen, [(0, 10), (1, 11)]);
            producer.join().unwrap();
        });
    }

    /// A source added by a handle that is dropped at once still runs before the end.
    #[test]
    fn loom_merge_serves_the_last_request() {
        loom::model(|| {
            let mut merge = FairMerge::new();
            let handle = merge.handle();
            let adding = thread::spawn(move || {
                let queue = Arc::new(Queue::new(Capacity::fixed(crate::nz!(1))));
                assert!(queue.try_push(7).is_ok());
                queue.end();
                handle.insert(1, Pops(queue));
            });
            block_on(async {
                assert_eq!(next(&mut merge).await, Some(Merged::Item(1, 7)));
                assert_eq!(next(&mut merge).await, Some(Merged::Ended(1)));
                assert_eq!(next(&mut merge).await, None);
            });
            adding.join().unwrap();
        });
    }
}
