//! `fan_out`: one source, many consumers, each with its own answer to being full.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;

use crate::meter::Meter;
use crate::queue::{Abandoned, Capacity, Queue, Refused};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock, park, wake};

/// After so many items in one poll the driver lets others run, and looks for new consumers.
const ITEMS_PER_POLL: usize = 64;

/// What happens when a [`Consumer`] of a [`FanOut`] is full and the next item comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The source waits. Every other consumer has this item by then, and gets no further one.
    Block,
    /// The new item is not queued for this consumer; it is counted.
    DropNewest,
    /// The oldest item queued for this consumer makes room; it is counted.
    DropOldest,
    /// The consumer gets what is queued, then [`Ended::TooSlow`].
    Disconnect,
}

/// Why a [`Consumer`] got its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The source ended: the consumer has all that its policy allowed.
    Finished,
    /// The consumer was full and its policy was [`WhenFull::Disconnect`].
    TooSlow,
    /// The [`FanOut`] was dropped, or panicked, before its source ended.
    Aborted,
}

pin_project! {
    /// Future for the [`fan_out`](crate::FlowExt::fan_out) method: the one that moves the items.
    ///
    /// Await it, or give it to a task; consumers are added with
    /// [`subscribe`](FanOutHandle::subscribe), before and while it runs, and leave by being
    /// dropped. It is done when the source has ended, or when the last consumer and the last handle
    /// are gone. With handles but no consumer it waits and pulls nothing.
    ///
    /// - **Ordering**: each consumer sees the order of the source.
    /// - **Buffering**: each consumer's capacity, and one item while a blocking consumer is full.
    ///   An item is pulled only when every [`WhenFull::Block`] consumer has taken the one before;
    ///   the item goes to whoever has room at once, whoever else is full.
    /// - **Cancellation**: dropping it ends all consumers as [`Ended::Aborted`], after what they
    ///   have queued; an item that waits for a full consumer is lost to that one. Dropping a future
    ///   that waits for a consumer's next item loses nothing.
    /// - **End, error**: consumers get what is queued, then the end. An error is an item like
    ///   others, so it must be `Clone`: wrap it in an `Arc`.
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use tidegate_flow::{FlowExt, WhenFull, nz};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let fan_out = stream::iter(1..=100).fan_out();
    /// let archive = fan_out.handle().subscribe(nz!(8), WhenFull::Block);
    /// let mut screen = fan_out.handle().subscribe(nz!(3), WhenFull::DropOldest);
    /// let (_, archived) = tokio::join!(fan_out, archive.count());
    /// assert_eq!(archived, 100);
    /// assert_eq!(screen.by_ref().collect::<Vec<_>>().await, [98, 99, 100]);
    /// assert_eq!(screen.dropped(), 97);
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct FanOut<S: Stream> {
        #[pin]
        source: S,
        shared: Arc<Shared<S::Item>>,
        outlets: Vec<Arc<Outlet<S::Item>>>,
        // The item that full consumers are still owed, and who they are.
        held: Option<S::Item>,
        owed: Vec<Arc<Outlet<S::Item>>>,
        meter: Option<Meter>,
        done: bool,
    }

    impl<S: Stream> PinnedDrop for FanOut<S> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            end_all(this.shared, this.outlets, if *this.done { Ended::Finished } else { Ended::Aborted });
        }
    }
}

impl<S: Stream> FanOut<S> {
    pub(crate) fn new(source: S) -> Self {
        Self {
            source,
            shared: Arc::new(Shared::new()),
            outlets: Vec::new(),
            held: None,
            owed: Vec::new(),
            meter: None,
            done: false,
        }
    }

    /// Adds consumers from anywhere, while this runs; alive, it keeps this from ending for lack of
    /// consumers.
    pub fn handle(&self) -> FanOutHandle<S::Item> {
        FanOutHandle::new(Arc::clone(&self.shared))
    }

    /// Tells this meter when the source is blocked: a [`WhenFull::Block`] consumer is full.
    pub fn report_to(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
    }
}

impl<S> Future for FanOut<S>
where
    S: Stream<Item: Clone>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if *this.done {
            return Poll::Ready(());
        }
        let more_may_come = this.shared.adopt(this.outlets, cx);
        this.outlets.retain(|outlet| outlet.is_open());
        for _ in 0..ITEMS_PER_POLL {
            if let Some(item) = this.held.take() {
                // Room is asked for first: it leaves the waker with those that have none.
                this.owed.retain(|outlet| {
                    outlet.queue.poll_room(cx).is_pending() || outlet.offer(&item) == Offer::Full
                });
                if !this.owed.is_empty() {
                    *this.held = Some(item);
                    Meter::note_blocked(this.meter);
                    return Poll::Pending;
                }
            }
            if this.outlets.is_empty() {
                *this.done = !more_may_come;
                return if more_may_come { Poll::Pending } else { Poll::Ready(()) };
            }
            let Some(item) = ready!(this.source.as_mut().poll_next(cx)) else {
                *this.done = true;
                end_all(this.shared, this.outlets, Ended::Finished);
                return Poll::Ready(());
            };
            *this.held = give(item, this.outlets, this.owed);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Gives an item to all who have room, forgets who has left, and notes who is owed the item; it
/// comes back for these.
fn give<T: Clone>(
    item: T,
    outlets: &mut Vec<Arc<Outlet<T>>>,
    owed: &mut Vec<Arc<Outlet<T>>>,
) -> Option<T> {
    let last = outlets.len().saturating_sub(1);
    let mut item = Some(item);
    let mut turn = 0;
    outlets.retain(|outlet| {
        // The last one gets the item itself, unless a copy must stay for those who are full.
        let offer = match &item {
            Some(kept) if turn < last || !owed.is_empty() => outlet.offer(kept),
            _ => item.take().map_or(Offer::Settled, |only| {
                let (back, offer) = outlet.offer_owned(only);
                item = back;
                offer
            }),
        };
        turn += 1;
        if offer == Offer::Full {
            owed.push(Arc::clone(outlet));
        }
        offer != Offer::Gone
    });
    item.filter(|_| !owed.is_empty())
}

fn end_all<T>(shared: &Shared<T>, outlets: &mut Vec<Arc<Outlet<T>>>, ended: Ended) {
    let added = shared.close(ended);
    for outlet in outlets.drain(..).chain(added) {
        outlet.end(ended);
    }
}

/// Adds consumers to a [`FanOut`] while it runs, from any task or thread.
#[derive(Debug)]
pub struct FanOutHandle<T> {
    shared: Arc<Shared<T>>,
}

impl<T> FanOutHandle<T> {
    fn new(shared: Arc<Shared<T>>) -> Self {
        lock(&shared.state).handles += 1;
        Self { shared }
    }

    /// Adds a consumer with room for `capacity` items; it gets what the source gives from now on.
    /// Where the fan-out is over, the consumer is at its end from the start.
    pub fn subscribe(&self, capacity: NonZeroUsize, when_full: WhenFull) -> Consumer<T> {
        let outlet = Arc::new(Outlet {
            queue: Queue::new(Capacity::fixed(capacity)),
            when_full,
            dropped: AtomicU64::new(0),
            ended: Mutex::new(None),
        });
        let mut state = lock(&self.shared.state);
        let closed = state.closed;
        if closed.is_none() {
            state.added.push(Arc::clone(&outlet));
        }
        let driver = state.driver.take();
        drop(state);
        if let Some(ended) = closed {
            outlet.end(ended);
        }
        wake(driver);
        Consumer { outlet, shared: Arc::clone(&self.shared), finished: false }
    }
}

impl<T> Clone for FanOutHandle<T> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl<T> Drop for FanOutHandle<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.handles -= 1;
        let driver = if state.handles == 0 { state.driver.take() } else { None };
        drop(state);
        wake(driver);
    }
}

/// One of the consumers of a [`FanOut`]: the stream of the items it gets. Dropping it leaves.
#[derive(Debug)]
#[must_use = "a consumer that is not polled fills up"]
pub struct Consumer<T> {
    outlet: Arc<Outlet<T>>,
    shared: Arc<Shared<T>>,
    finished: bool,
}

impl<T> Consumer<T> {
    /// How many items this consumer has lost to its policy so far.
    pub fn dropped(&self) -> u64 {
        self.outlet.dropped.load(Ordering::Relaxed)
    }

    /// How many items are queued.
    pub fn queued(&self) -> usize {
        self.outlet.queue.len()
    }

    /// Why no further item will be queued; `None` while the fan-out goes on.
    pub fn ended(&self) -> Option<Ended> {
        *lock(&self.outlet.ended)
    }

    /// Reads the same from elsewhere, once the consumer has gone into other adapters.
    pub fn gauge(&self) -> ConsumerGauge<T> {
        ConsumerGauge { outlet: Arc::clone(&self.outlet) }
    }
}

impl<T> Stream for Consumer<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let item = ready!(self.outlet.queue.poll_pop(cx));
        self.finished = item.is_none();
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let ended = self.ended().is_some();
        let queued = self.queued();
        (queued, ended.then_some(queued))
    }
}

impl<T> FusedStream for Consumer<T> {
    fn is_terminated(&self) -> bool {
        self.finished
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.outlet.queue.abandon();
        let driver = lock(&self.shared.state).driver.take();
        wake(driver);
    }
}

/// The drops, fill and end of a [`Consumer`], readable at any moment and from any thread.
#[derive(Debug)]
pub struct ConsumerGauge<T> {
    outlet: Arc<Outlet<T>>,
}

impl<T> ConsumerGauge<T> {
    /// As [`Consumer::dropped`].
    pub fn dropped(&self) -> u64 {
        self.outlet.dropped.load(Ordering::Relaxed)
    }

    /// As [`Consumer::queued`].
    pub fn queued(&self) -> usize {
        self.outlet.queue.len()
    }

    /// As [`Consumer::ended`].
    pub fn ended(&self) -> Option<Ended> {
        *lock(&self.outlet.ended)
    }
}

impl<T> Clone for ConsumerGauge<T> {
    fn clone(&self) -> Self {
        Self { outlet: Arc::clone(&self.outlet) }
    }
}

/// What driver, handles and consumers share.
#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    added: Vec<Arc<Outlet<T>>>,
    handles: usize,
    closed: Option<Ended>,
    driver: Option<Waker>,
}

impl<T> Shared<T> {
    fn new() -> Self {
        let state = State { added: Vec::new(), handles: 0, closed: None, driver: None };
        Self { state: Mutex::new(state) }
    }

    /// Takes over the consumers that were added, and says whether more may come.
    fn adopt(&self, outlets: &mut Vec<Arc<Outlet<T>>>, cx: &Context<'_>) -> bool {
        let mut state = lock(&self.state);
        outlets.append(&mut state.added);
        let open = state.handles > 0;
        park(state, |state| &mut state.driver, cx);
        open
    }

    fn close(&self, ended: Ended) -> Vec<Arc<Outlet<T>>> {
        let mut state = lock(&self.state);
        state.closed.get_or_insert(ended);
        let driver = state.driver.take();
        let added = std::mem::take(&mut state.added);
        drop(state);
        drop(driver);
        added
    }
}

/// The driver's side of a consumer.
#[derive(Debug)]
struct Outlet<T> {
    queue: Queue<T>,
    when_full: WhenFull,
    dropped: AtomicU64,
    ended: Mutex<Option<Ended>>,
}

/// What became of an item at one consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// Queued, or dropped by policy.
    Settled,
    /// The consumer blocks: offer it again.
    Full,
    /// The consumer has left, or was disconnected.
    Gone,
}

impl<T> Outlet<T> {
    fn offer(&self, item: &T) -> Offer
    where
        T: Clone,
    {
        self.offer_owned(item.clone()).1
    }

    /// Offers the item; it comes back where it was not queued.
    fn offer_owned(&self, item: T) -> (Option<T>, Offer) {
        if self.when_full == WhenFull::DropOldest {
            return match self.queue.push_over(item) {
                Ok(oldest) => {
                    self.dropped.fetch_add(oldest.is_some().into(), Ordering::Relaxed);
                    (None, Offer::Settled)
                }
                Err(Abandoned(item)) => (Some(item), Offer::Gone),
            };
        }
        match self.queue.try_push(item) {
            Ok(()) => (None, Offer::Settled),
            Err(Refused::Abandoned(item)) => (Some(item), Offer::Gone),
            Err(Refused::Full(item)) => (Some(item), self.when_refused()),
        }
    }

    fn when_refused(&self) -> Offer {
        if self.when_full == WhenFull::Block {
            return Offer::Full;
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if self.when_full == WhenFull::Disconnect {
            self.end(Ended::TooSlow);
            return Offer::Gone;
        }
        Offer::Settled
    }

    fn is_open(&self) -> bool {
        !self.queue.is_abandoned() && lock(&self.ended).is_none()
    }

    fn end(&self, ended: Ended) {
        lock(&self.ended).get_or_insert(ended);
        self.queue.end();
    }
}

#[cfg(all(test, flow_loom))]
mod loom_tests {
    use loom::future::block_on;
    use loom::thread;

    use super::*;
    use crate::nz;

    /// A source of `0, 1, …` up to its length, always ready.
    struct Numbers(std::ops::Range<u32>);

    impl Stream for Numbers {
        type Item = u32;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u32>> {
            Poll::Ready(self.0.next())
        }
    }

    fn model(check: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(check);
    }

    /// A blocking consumer gets everything, however it and the driver take turns.
    #[test]
    fn loom_fan_out_delivers_everything() {
        model(|| {
            let fan_out = FanOut::new(Numbers(0..3));
            let mut consumer = fan_out.handle().subscribe(nz!(1), WhenFull::Block);
            let driving = thread::spawn(move || block_on(fan_out));
            let mut seen = Vec::new();
            block_on(async {
                while let Some(item) =
                    std::future::poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)).await
                {
                    seen.push(item);
                }
            });
            assert_eq!((seen, consumer.ended()), (vec![0, 1, 2], Some(Ended::Finished)));
            driving.join().unwrap();
        });
    }

    /// A driver that waits for a full consumer ends when that one leaves.
    #[test]
    fn loom_fan_out_hears_that_a_consumer_left() {
        model(|| {
            let fan_out = FanOut::new(Numbers(0..9));
            let consumer = fan_out.handle().subscribe(nz!(1), WhenFull::Block);
            let leaving = thread::spawn(move || drop(consumer));
            block_on(fan_out);
            leaving.join().unwrap();
        });
    }

    /// A consumer that comes while the fan-out runs gets what comes after it, or the end.
    #[test]
    fn loom_fan_out_takes_a_consumer_on_the_way() {
        model(|| {
            let fan_out = FanOut::new(Numbers(0..2));
            let handle = fan_out.handle();
            let joining = thread::spawn(move || {
                let mut consumer = handle.subscribe(nz!(4), WhenFull::DropNewest);
                drop(handle);
                block_on(async {
                    while std::future::poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx))
                        .await
                        .is_some()
                    {}
                });
                assert_eq!(consumer.ended(), Some(Ended::Finished));
            });
            block_on(fan_out);
            joining.join().unwrap();
        });
    }
}
