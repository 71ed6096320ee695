//! `in_flight_limit`: no more than so many items that are still being worked on.

use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;

use crate::sync::{Mutex, lock, park, wake};

pin_project! {
    /// Stream for the [`in_flight_limit`](crate::FlowExt::in_flight_limit) method.
    ///
    /// Each item comes inside an [`InFlight`] guard and counts until the guard is dropped, wherever
    /// it has gone by then: to another task, into a queue, into a request.
    ///
    /// - **Ordering**: kept.
    /// - **Buffering**: none; the source is polled only while fewer than `n` guards are alive.
    /// - **Cancellation**: dropping it loses nothing; guards outlive it.
    /// - **End, error**: the end passes when the source is next polled, that is once fewer than `n`
    ///   guards are alive; an error is an item like others.
    ///
    /// ```
    /// use futures::{FutureExt, StreamExt, stream};
    /// use tidegate_flow::{FlowExt, nz};
    ///
    /// let mut jobs = stream::iter(1..=3).in_flight_limit(nz!(2));
    /// let first = jobs.next().now_or_never().flatten().expect("nothing is in flight yet");
    /// let _second = jobs.next().now_or_never().flatten().expect("one is in flight");
    /// assert!(jobs.next().now_or_never().is_none(), "two are in flight");
    /// drop(first);
    /// assert_eq!(*jobs.next().now_or_never().flatten().expect("one was dropped"), 3);
    /// ```
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct InFlightLimit<S> {
        #[pin]
        source: S,
        slots: Arc<Slots>,
        ended: bool,
    }
}

impl<S: Stream> InFlightLimit<S> {
    pub(crate) fn new(source: S, max: NonZeroUsize) -> Self {
        Self { source, slots: Arc::new(Slots::new(max)), ended: false }
    }

    /// How many guards are alive.
    pub fn in_flight(&self) -> usize {
        lock(&self.slots.state).taken
    }
}

impl<S: Stream> Stream for InFlightLimit<S> {
    type Item = InFlight<S::Item>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<InFlight<S::Item>>> {
        let this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        ready!(this.slots.poll_free(cx));
        let Some(item) = ready!(this.source.poll_next(cx)) else {
            *this.ended = true;
            return Poll::Ready(None);
        };
        Poll::Ready(Some(InFlight { item, slot: Slots::take(this.slots) }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.ended { (0, Some(0)) } else { self.source.size_hint() }
    }
}

impl<S: Stream> FusedStream for InFlightLimit<S> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

/// An item that counts as in flight until this is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard makes room for the next item"]
pub struct InFlight<T> {
    item: T,
    slot: InFlightSlot,
}

impl<T> InFlight<T> {
    /// The item, and what keeps counting for it.
    pub fn into_parts(self) -> (T, InFlightSlot) {
        (self.item, self.slot)
    }
}

impl<T> Deref for InFlight<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T> DerefMut for InFlight<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.item
    }
}

/// One place of an [`InFlightLimit`], without its item; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping the slot makes room for the next item"]
pub struct InFlightSlot {
    slots: Arc<Slots>,
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        let mut state = lock(&self.slots.state);
        state.taken -= 1;
        let waiting = state.waiting.take();
        drop(state);
        wake(waiting);
    }
}

#[derive(Debug)]
struct Slots {
    max: usize,
    state: Mutex<SlotState>,
}

#[derive(Debug, Default)]
struct SlotState {
    taken: usize,
    waiting: Option<Waker>,
}

impl Slots {
    fn new(max: NonZeroUsize) -> Self {
        Self { max: max.get(), state: Mutex::new(SlotState::default()) }
    }

    fn poll_free(&self, cx: &Context<'_>) -> Poll<()> {
        let state = lock(&self.state);
        if state.taken < self.max {
            return Poll::Ready(());
        }
        park(state, |state| &mut state.waiting, cx);
        Poll::Pending
    }

    fn take(this: &Arc<Self>) -> InFlightSlot {
        lock(&this.state).taken += 1;
        InFlightSlot { slots: Arc::clone(this) }
    }
}

#[cfg(all(test, flow_loom))]
mod loom_tests {
    use loom::future::block_on;
    use loom::thread;

    use super::*;

    /// A guard dropped at any moment wakes the stream that waits for it.
    #[test]
    fn loom_in_flight_drop_wakes() {
        loom::model(|| {
            let slots = Arc::new(Slots::new(crate::nz!(1)));
            let slot = Slots::take(&slots);
            let worker = thread::spawn(move || drop(slot));
            block_on(std::future::poll_fn(|cx| slots.poll_free(cx)));
            assert_eq!(lock(&slots.state).taken, 0);
            worker.join().unwrap();
        });
    }
}
