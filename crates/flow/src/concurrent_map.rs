//! `concurrent_map`, `concurrent_map_unordered`: up to `n` futures at work, in tasks of their own.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;
use slab::Slab;

use crate::queue::{Capacity, Queue};
use crate::task::Task;

pin_project! {
    /// Stream for the [`concurrent_map`](crate::FlowExt::concurrent_map) method.
    ///
    /// Each future is a tokio task, so what has begun goes on while the consumer is busy elsewhere;
    /// with `futures`' `buffered` it would stand still until the stream is polled again, and
    /// whatever it holds (a connection, a lock) with it. New items are pulled when it is polled.
    ///
    /// - **Ordering**: results come in the order of the items.
    /// - **Buffering**: `n` items, as running futures and as results that wait for their turn.
    /// - **Cancellation**: dropping it aborts every future; dropping a future that waits for the
    ///   next result loses nothing.
    /// - **End, error**: the end comes after the last result; an error is a result like others.
    ///
    /// # Panics
    ///
    /// Polling panics outside a tokio runtime, with the panic of a future when its turn comes, and
    /// where the runtime was shut down under the tasks. With a future's panic the stream is over:
    /// the other futures are aborted, and polling again, where the panic was caught, gives the end.
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use tidegate_flow::{FlowExt, nz};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let squares = stream::iter(1..=5).concurrent_map(nz!(3), |n: u32| async move { n * n });
    /// assert_eq!(squares.collect::<Vec<_>>().await, [1, 4, 9, 16, 25]);
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct ConcurrentMap<S, F, R> {
        #[pin]
        source: S,
        map: F,
        max: usize,
        tasks: VecDeque<Task<R>>,
        ended: bool,
    }
}

impl<S, F, R> ConcurrentMap<S, F, R> {
    pub(crate) fn new(source: S, max: NonZeroUsize, map: F) -> Self {
        Self { source, map, max: max.get(), tasks: VecDeque::new(), ended: false }
    }
}

impl<S, F, Fut> Stream for ConcurrentMap<S, F, Fut::Output>
where
    S: Stream,
    F: FnMut(S::Item) -> Fut,
    Fut: Future<Output: Send> + Send + 'static,
{
    type Item = Fut::Output;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Fut::Output>> {
        let mut this = self.project();
        while !*this.ended && this.tasks.len() < *this.max {
            match this.source.as_mut().poll_next(cx) {
                Poll::Ready(Some(item)) => this.tasks.push_back(Task::spawn((this.map)(item))),
                Poll::Ready(None) => *this.ended = true,
                Poll::Pending => break,
            }
        }
        match this.tasks.front_mut() {
            Some(first) => {
                let joined = ready!(first.poll_join(cx));
                this.tasks.pop_front();
                match joined {
                    Ok(output) => Poll::Ready(Some(output)),
                    Err(broken) => {
                        *this.ended = true;
                        this.tasks.clear();
                        broken.surface()
                    }
                }
            }
            None if *this.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        remaining(&self.source, self.ended, self.tasks.len())
    }
}

impl<S, F, Fut> FusedStream for ConcurrentMap<S, F, Fut::Output>
where
    S: Stream,
    F: FnMut(S::Item) -> Fut,
    Fut: Future<Output: Send> + Send + 'static,
{
    fn is_terminated(&self) -> bool {
        self.ended && self.tasks.is_empty()
    }
}

pin_project! {
    /// Stream for the [`concurrent_map_unordered`](crate::FlowExt::concurrent_map_unordered)
    /// method: as [`ConcurrentMap`], but a result comes as soon as it is there.
    ///
    /// - **Ordering**: results come as they are done.
    /// - **Buffering**: `n` items, as running futures and as results not yet taken.
    /// - **Cancellation**: dropping it aborts every future; dropping a future that waits for the
    ///   next result loses nothing.
    /// - **End, error**: the end comes after the last result; an error is a result like others.
    ///
    /// # Panics
    ///
    /// As [`ConcurrentMap`] does, with the panic of a future as soon as it happened.
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures::{StreamExt, stream};
    /// use tidegate_flow::{FlowExt, nz};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let naps = stream::iter([300, 100, 200]).concurrent_map_unordered(nz!(3), |ms| async move {
    ///     tokio::time::sleep(Duration::from_millis(ms)).await;
    ///     ms
    /// });
    /// assert_eq!(naps.collect::<Vec<_>>().await, [100, 200, 300]);
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct ConcurrentMapUnordered<S, F, R> {
        #[pin]
        source: S,
        map: F,
        max: usize,
        tasks: Slab<Task<()>>,
        done: Arc<Queue<Done<R>>>,
        // A task that ended without a result, the only one left: its panic is about to surface.
        broken: Option<Task<()>>,
        ended: bool,
    }
}

/// The place of a task, and its result; none where it panicked or was stopped.
type Done<R> = (usize, Option<R>);

impl<S, F, R> ConcurrentMapUnordered<S, F, R> {
    pub(crate) fn new(source: S, max: NonZeroUsize, map: F) -> Self {
        Self {
            source,
            map,
            max: max.get(),
            tasks: Slab::new(),
            // There is room for the result of every task, so that none ever waits.
            done: Arc::new(Queue::new(Capacity::fixed(max))),
            broken: None,
            ended: false,
        }
    }
}

impl<S, F, Fut> Stream for ConcurrentMapUnordered<S, F, Fut::Output>
where
    S: Stream,
    F: FnMut(S::Item) -> Fut,
    Fut: Future<Output: Send> + Send + 'static,
{
    type Item = Fut::Output;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Fut::Output>> {
        let mut this = self.project();
        ready!(poll_broken(this.broken, cx));
        while !*this.ended && this.tasks.len() < *this.max {
            match this.source.as_mut().poll_next(cx) {
                Poll::Ready(Some(item)) => {
                    let place = this.tasks.vacant_entry();
                    let done = Arc::clone(this.done);
                    let job = Job { future: (this.map)(item), done, place: Some(place.key()) };
                    place.insert(Task::spawn(job));
                }
                Poll::Ready(None) => *this.ended = true,
                Poll::Pending => break,
            }
        }
        if this.tasks.is_empty() {
            return if *this.ended { Poll::Ready(None) } else { Poll::Pending };
        }
        let Some((place, result)) = ready!(this.done.poll_pop(cx)) else {
            return Poll::Ready(None);
        };
        let task = this.tasks.remove(place);
        if result.is_none() {
            *this.ended = true;
            this.tasks.clear();
            *this.broken = Some(task);
            ready!(poll_broken(this.broken, cx));
        }
        Poll::Ready(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        remaining(&self.source, self.ended, self.tasks.len())
    }
}

impl<S, F, Fut> FusedStream for ConcurrentMapUnordered<S, F, Fut::Output>
where
    S: Stream,
    F: FnMut(S::Item) -> Fut,
    Fut: Future<Output: Send> + Send + 'static,
{
    fn is_terminated(&self) -> bool {
        self.ended && self.tasks.is_empty() && self.broken.is_none()
    }
}

pin_project! {
    /// A future that puts its output in a queue; and nothing in the place of it, if it is dropped
    /// before that.
    struct Job<Fut: Future> {
        #[pin]
        future: Fut,
        done: Arc<Queue<Done<Fut::Output>>>,
        place: Option<usize>,
    }

    impl<Fut: Future> PinnedDrop for Job<Fut> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(place) = this.place.take() {
                let pushed = this.done.try_push((place, None));
                debug_assert!(pushed.is_ok(), "there is room for every task");
            }
        }
    }
}

impl<Fut: Future> Future for Job<Fut> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let output = ready!(this.future.poll(cx));
        if let Some(place) = this.place.take() {
            let pushed = this.done.try_push((place, Some(output)));
            debug_assert!(pushed.is_ok(), "there is room for every task");
        }
        Poll::Ready(())
    }
}

/// Lets the panic of a task that has one surface, and forgets the task.
fn poll_broken(task: &mut Option<Task<()>>, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(broken) = task {
        let joined = ready!(broken.poll_join(cx));
        *task = None;
        if let Err(broken) = joined {
            broken.surface();
        }
    }
    Poll::Ready(())
}

fn remaining<S: Stream>(source: &S, ended: bool, held: usize) -> (usize, Option<usize>) {
    let (lower, upper) = if ended { (0, Some(0)) } else { source.size_hint() };
    (lower.saturating_add(held), upper.and_then(|upper| upper.checked_add(held)))
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::stream::FusedStream;
    use futures::{FutureExt, StreamExt, stream};
    use tokio::task::yield_now;

    use crate::{FlowExt, nz};

    #[tokio::test]
    async fn work_goes_on_while_the_consumer_is_elsewhere() {
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let mut work = stream::iter(0..8).concurrent_map(nz!(4), move |_| {
            let count = Arc::clone(&count);
            async move {
                for _ in 0..10 {
                    yield_now().await;
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert!(work.next().now_or_never().is_none());
        while done.load(Ordering::SeqCst) < 4 {
            yield_now().await; // never polling `work`
        }
        assert_eq!(work.count().await, 8);
    }

    #[tokio::test]
    async fn dropping_it_aborts_everything() {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let endless = move |_| {
            let held = Arc::clone(&held);
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        };
        let mut ordered = stream::iter(0..9).concurrent_map(nz!(4), endless.clone());
        let mut unordered = stream::iter(0..9).concurrent_map_unordered(nz!(4), endless);
        assert!(ordered.next().now_or_never().is_none());
        assert!(unordered.next().now_or_never().is_none());
        assert_eq!(Arc::strong_count(&alive), 1 + 2 + 8);
        drop((ordered, unordered));
        while Arc::strong_count(&alive) > 1 {
            yield_now().await;
        }
    }

    async fn fragile(n: u32) -> u32 {
        assert_ne!(n, 2, "two is too much");
        n
    }

    #[tokio::test]
    #[should_panic(expected = "two is too much")]
    async fn a_panic_surfaces_in_its_turn() {
        let mut mapped = stream::iter(0..4).concurrent_map(nz!(4), fragile);
        assert_eq!((mapped.next().await, mapped.next().await), (Some(0), Some(1)));
        mapped.next().await;
    }

    #[tokio::test]
    #[should_panic(expected = "two is too much")]
    async fn a_panic_surfaces_unordered() {
        stream::iter(0..4).concurrent_map_unordered(nz!(4), fragile).count().await;
    }

    /// Catches the panic of the third item of many, and polls on.
    async fn polled_on(mut mapped: impl FusedStream<Item = u32> + Unpin, alive: &Arc<()>) {
        let at_rest = Arc::strong_count(alive);
        let caught = loop {
            match AssertUnwindSafe(mapped.next()).catch_unwind().await {
                Ok(item) => assert!(item.is_some_and(|item| item < 2)),
                Err(panic) => break panic,
            }
        };
        assert!(caught.downcast::<String>().unwrap().contains("two is too much"));
        assert!(mapped.is_terminated());
        assert_eq!(mapped.size_hint(), (0, Some(0)));
        for _ in 0..3 {
            assert_eq!(mapped.next().await, None);
        }
        while Arc::strong_count(alive) > at_rest {
            yield_now().await; // the others are aborted
        }
    }

    #[tokio::test]
    async fn after_a_panic_that_was_caught_it_has_ended() {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let work = move |item| {
            let held = Arc::clone(&held);
            async move {
                let item = fragile(item).await;
                if item > 2 {
                    std::future::pending::<()>().await;
                }
                drop(held);
                item
            }
        };
        polled_on(stream::iter(0..9).concurrent_map(nz!(5), work.clone()), &alive).await;
        polled_on(stream::iter(0..9).concurrent_map_unordered(nz!(5), work), &alive).await;
    }
}
