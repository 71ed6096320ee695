//! `adaptive_buffer`: reads ahead in its own task, as far as that helps.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;

use crate::meter::Meter;
use crate::queue::{Capacity, Queue, Refused};
use crate::task::Task;

/// Stream for the [`adaptive_buffer`](crate::FlowExt::adaptive_buffer) method.
///
/// The first poll moves the source to a task of its own, which reads ahead up to the capacity. The
/// capacity begins at the lower end and doubles when a bigger buffer would have helped: the reader
/// had an item and no room, and later the consumer found nothing. It halves when, over eight
/// capacities' worth of items, the fill never passed a quarter.
///
/// - **Ordering**: kept.
/// - **Buffering**: at most the capacity, never above the upper end, and one item in the reader's
///   hand.
/// - **Cancellation**: dropping it aborts the task and drops what is buffered; dropping a future
///   that waits for the next item loses nothing.
/// - **End, error**: all that was read comes first, then the end; an error is an item like others.
///
/// # Panics
///
/// Polling panics outside a tokio runtime, with the source's own panic once what it gave before is
/// taken, and where the runtime was shut down under the task, rather than pass that off as the end.
/// Polled again after such a panic, it gives the end.
///
/// ```
/// use futures::{StreamExt, stream};
/// use tidegate_flow::{FlowExt, nz};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut ahead = stream::iter(0..100).adaptive_buffer(nz!(4)..=nz!(64));
/// let gauge = ahead.gauge();
/// assert_eq!(ahead.next().await, Some(0));
/// tokio::task::yield_now().await;
/// assert_eq!((gauge.fill(), gauge.capacity()), (4, 4)); // read while we did something else
/// assert_eq!(ahead.count().await, 99);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct AdaptiveBuffer<S: Stream> {
    reader: Option<Reader<S>>,
    queue: Arc<Queue<S::Item>>,
    task: Option<Task<()>>,
    ended: bool,
}

impl<S> AdaptiveBuffer<S>
where
    S: Stream + Send + 'static,
    S::Item: Send,
{
    pub(crate) fn new(source: S, range: RangeInclusive<NonZeroUsize>) -> Self {
        let queue = Arc::new(Queue::new(Capacity::adaptive(range)));
        let reader = Reader { source, queue: Arc::clone(&queue), held: None, meter: None };
        Self { reader: Some(reader), queue, task: None, ended: false }
    }

    /// Tells this meter when the reader is blocked: it has an item and the buffer is full. Give it
    /// the meter of the source to see where that one's time goes. Has no effect once polled.
    pub fn report_to(mut self, meter: Meter) -> Self {
        if let Some(reader) = &mut self.reader {
            reader.meter = Some(meter);
        }
        self
    }

    /// Reads capacity and fill, at any moment and from any thread.
    pub fn gauge(&self) -> BufferGauge<S::Item> {
        BufferGauge { queue: Arc::clone(&self.queue) }
    }
}

// Nothing in it is pinned: the source is moved to the heap of its task before it is polled.
impl<S: Stream> Unpin for AdaptiveBuffer<S> {}

impl<S> Stream for AdaptiveBuffer<S>
where
    S: Stream + Send + 'static,
    S::Item: Send,
{
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if let Some(reader) = self.reader.take() {
            self.task = Some(Task::spawn(reader));
        }
        if !self.ended {
            let item = ready!(self.queue.poll_pop(cx));
            if item.is_some() {
                return Poll::Ready(item);
            }
            self.ended = true;
        }
        if let Some(task) = &mut self.task {
            let joined = ready!(task.poll_join(cx));
            self.task = None;
            if let Err(broken) = joined {
                broken.surface();
            }
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.reader {
            Some(reader) => reader.source.size_hint(),
            None if self.ended => (0, Some(0)),
            None => (self.queue.len(), None),
        }
    }
}

impl<S> FusedStream for AdaptiveBuffer<S>
where
    S: Stream + Send + 'static,
    S::Item: Send,
{
    fn is_terminated(&self) -> bool {
        self.ended && self.task.is_none()
    }
}

impl<S: Stream> Drop for AdaptiveBuffer<S> {
    fn drop(&mut self) {
        self.queue.abandon(); // a gauge may keep the queue, but not what is in it
    }
}

/// Capacity and fill of an [`AdaptiveBuffer`], readable at any moment and from any thread.
#[derive(Debug)]
pub struct BufferGauge<T> {
    queue: Arc<Queue<T>>,
}

impl<T> BufferGauge<T> {
    /// How many items may wait now.
    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// How many items wait now; above the capacity for a while after it shrank.
    pub fn fill(&self) -> usize {
        self.queue.len()
    }
}

impl<T> Clone for BufferGauge<T> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue) }
    }
}

pin_project! {
    /// The task: source to queue. Whatever ends it (the end, a panic, an abort), the queue hears.
    #[derive(Debug)]
    struct Reader<S: Stream> {
        #[pin]
        source: S,
        queue: Arc<Queue<S::Item>>,
        held: Option<S::Item>,
        meter: Option<Meter>,
    }

    impl<S: Stream> PinnedDrop for Reader<S> {
        fn drop(this: Pin<&mut Self>) {
            this.queue.end();
        }
    }
}

impl<S: Stream> Future for Reader<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            let proceed = ready!(tokio::task::coop::poll_proceed(cx));
            if let Some(item) = this.held.take() {
                match this.queue.try_push(item) {
                    Ok(()) => {}
                    Err(Refused::Abandoned(_)) => return Poll::Ready(()),
                    Err(Refused::Full(item)) => {
                        *this.held = Some(item);
                        if this.queue.poll_room(cx).is_pending() {
                            Meter::note_blocked(this.meter);
                            return Poll::Pending;
                        }
                        continue;
                    }
                }
            }
            match ready!(this.source.as_mut().poll_next(cx)) {
                Some(item) => *this.held = Some(item),
                None => return Poll::Ready(()),
            }
            proceed.made_progress();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures::{FutureExt, StreamExt, stream};
    use tokio::task::yield_now;

    use super::*;
    use crate::{FlowExt, nz};

    #[tokio::test]
    async fn grows_when_it_was_full_and_then_ran_dry() {
        let (items, source) = tokio::sync::mpsc::unbounded_channel();
        let source = tokio_stream::wrappers::UnboundedReceiverStream::new(source);
        let mut buffer = source.adaptive_buffer(nz!(1)..=nz!(16));
        let gauge = buffer.gauge();
        assert!(buffer.next().now_or_never().is_none());
        for round in 1..=6 {
            for item in 0..100 {
                items.send(item).unwrap();
            }
            for item in 0..100 {
                yield_now().await; // a bursty source, and time for it to fill the buffer
                assert_eq!(buffer.next().await, Some(item));
            }
            assert!(buffer.next().now_or_never().is_none());
            assert_eq!(gauge.capacity(), (1 << round).min(16));
        }
    }

    #[tokio::test]
    #[should_panic(expected = "the source broke")]
    async fn a_panic_surfaces_after_the_items_before_it() {
        let source = stream::iter(0..5).map(|item| {
            assert!(item < 3, "the source broke");
            item
        });
        let mut buffer = source.adaptive_buffer(nz!(8)..=nz!(8));
        for expected in 0..3 {
            assert_eq!(buffer.next().await, Some(expected));
        }
        buffer.next().await;
    }

    #[tokio::test]
    async fn after_a_panic_that_was_caught_it_has_ended() {
        let source = stream::iter(0..5).map(|item| assert!(item < 1, "the source broke"));
        let mut buffer = source.adaptive_buffer(nz!(8)..=nz!(8));
        assert!(buffer.next().await.is_some());
        assert!(AssertUnwindSafe(buffer.next()).catch_unwind().await.is_err());
        assert!(buffer.is_terminated());
        assert_eq!(buffer.next().await, None);
    }

    #[tokio::test]
    async fn dropping_it_drops_the_source_and_what_is_buffered() {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let source = stream::repeat(()).map(move |()| Arc::clone(&held));
        let mut buffer = source.adaptive_buffer(nz!(2)..=nz!(8));
        let gauge = buffer.gauge();
        assert!(buffer.next().await.is_some());
        yield_now().await;
        assert_eq!(gauge.fill(), 2);
        drop(buffer);
        assert_eq!(gauge.fill(), 0);
        while Arc::strong_count(&alive) > 1 {
            yield_now().await;
        }
    }
}
