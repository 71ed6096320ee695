//! What the pairs share: runtimes, sources, sinks.

use std::error::Error;
use std::hint::black_box;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use tokio::runtime::{Builder, Runtime};

/// What a group of pairs returns.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// One thread, as most pairs use it.
pub(crate) fn current_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_time().build()
}

/// The caller's thread and so many workers.
pub(crate) fn multi_thread(workers: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(workers).enable_time().build()
}

/// Takes everything, one item after the other.
pub(crate) async fn drain<S: Stream>(source: S) -> u64 {
    let mut source = pin!(source);
    let mut count = 0;
    while let Some(item) = source.next().await {
        black_box(item);
        count += 1;
    }
    count
}

/// As [`drain`], for batches: counts what is inside.
pub(crate) async fn drain_batches<T>(source: impl Stream<Item = Vec<T>>) -> u64 {
    let mut source = pin!(source);
    let mut count = 0;
    while let Some(batch) = source.next().await {
        count += black_box(&batch).len() as u64;
    }
    count
}

/// Takes so many items of a stream that outlives the measurement.
pub(crate) async fn take<S: Stream + Unpin>(source: &mut S, items: u64) {
    for _ in 0..items {
        black_box(source.next().await);
    }
}

/// The smallest source: the numbers from 0 up, always ready.
pub(crate) fn numbers(items: u64) -> impl Stream<Item = u64> + Send + Unpin + 'static {
    futures::stream::iter(0..black_box(items))
}

/// An always-ready source of a few shared strings, over and over: each item is one `Arc` clone.
pub(crate) fn lines(items: u64) -> impl Stream<Item = Arc<str>> + Send + Unpin + 'static {
    let lines = some_lines();
    let mask = lines.len() as u64 - 1;
    futures::stream::iter(
        (0..black_box(items)).map(move |item| Arc::clone(&lines[(item & mask) as usize])),
    )
}

/// 64 lines of different lengths.
pub(crate) fn some_lines() -> Vec<Arc<str>> {
    (0..64).map(|number| "a line of a log ".repeat(number % 7 + 1).into()).collect()
}

/// The numbers from 0 up; `Pending` after every so many items, and ready again at the next poll.
#[derive(Debug)]
pub(crate) struct Hiccups {
    next: u64,
    end: u64,
    every: u64,
    until_hiccup: u64,
}

impl Hiccups {
    pub(crate) fn new(items: u64, every: u64) -> Self {
        Self { next: 0, end: black_box(items), every, until_hiccup: every }
    }
}

impl Stream for Hiccups {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        let this = &mut *self;
        if this.next == this.end {
            return Poll::Ready(None);
        }
        if this.until_hiccup == 0 {
            this.until_hiccup = this.every;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.until_hiccup -= 1;
        this.next += 1;
        Poll::Ready(Some(this.next - 1))
    }
}

/// Pending once: a future that gives way to others.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            Poll::Ready(())
        } else {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}
