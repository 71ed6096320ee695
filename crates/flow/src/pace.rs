//! `pace`: at least an interval between items.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::timer::{after, arm};

pin_project! {
    /// Stream for the [`pace`](crate::FlowExt::pace) method.
    ///
    /// The first item passes at once; each later one is pulled, and passes, no sooner than the
    /// interval after the one before it *left*. Time lost by a slow source or consumer is not made
    /// up for: there are no bursts. Where a rate must be met on average, use
    /// [`rate_limit`](crate::FlowExt::rate_limit).
    ///
    /// - **Ordering**: kept.
    /// - **Buffering**: none; the source is polled only when an item may pass.
    /// - **Cancellation**: dropping it loses nothing.
    /// - **End, error**: passed on at once after their interval; an error is an item like others.
    /// - **Time**: tokio's timer, whose grain is 1 ms; waits are rounded up.
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures::{StreamExt, stream};
    /// use tidegate_flow::FlowExt;
    /// use tokio::time::Instant;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let start = Instant::now();
    /// let times: Vec<u64> = stream::iter(0..3)
    ///     .pace(Duration::from_secs(1))
    ///     .map(|_| start.elapsed().as_secs())
    ///     .collect()
    ///     .await;
    /// assert_eq!(times, [0, 1, 2]);
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Pace<S> {
        #[pin]
        source: S,
        #[pin]
        due: Option<Sleep>,
        interval: Duration,
        waiting: bool,
        ended: bool,
    }
}

impl<S: Stream> Pace<S> {
    pub(crate) fn new(source: S, interval: Duration) -> Self {
        Self { source, due: None, interval, waiting: false, ended: false }
    }
}

impl<S: Stream> Stream for Pace<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        if *this.waiting {
            if let Some(due) = this.due.as_mut().as_pin_mut() {
                ready!(due.poll(cx));
            }
            *this.waiting = false;
        }
        let item = ready!(this.source.poll_next(cx));
        *this.ended = item.is_none();
        if item.is_some() && !this.interval.is_zero() {
            arm(this.due, after(Instant::now(), *this.interval));
            *this.waiting = true;
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.ended { (0, Some(0)) } else { self.source.size_hint() }
    }
}

impl<S: Stream> FusedStream for Pace<S> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use tokio::time::advance;

    use super::*;
    use crate::FlowExt;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_late_consumer_gets_no_burst() {
        let mut paced = Box::pin(stream::iter(0..4).pace(SECOND));
        assert_eq!(paced.next().await, Some(0));
        advance(SECOND * 10).await;
        let start = Instant::now();
        assert_eq!(paced.next().await, Some(1));
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(paced.next().await, Some(2));
        assert!(start.elapsed() >= SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_zero_interval_passes_everything_at_once() {
        let start = Instant::now();
        assert_eq!(stream::iter(0..1000).pace(Duration::ZERO).count().await, 1000);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_huge_interval_does_not_overflow() {
        // The second leads to an instant, but one that can't be rounded up to the timer's grain.
        for huge in [Duration::MAX, greatest_that_can_be_added()] {
            let mut paced = Box::pin(stream::iter(0..2).pace(huge));
            assert_eq!(paced.next().await, Some(0));
            assert!(futures::poll!(paced.next()).is_pending());
        }
    }

    fn greatest_that_can_be_added() -> Duration {
        let now = Instant::now();
        let bits = (0..64).rev().map(|bit| Duration::from_secs(1 << bit));
        let bits = bits.chain((0..30).rev().map(|bit| Duration::from_nanos(1 << bit)));
        bits.fold(Duration::ZERO, |sum, bit| {
            let more = sum.saturating_add(bit);
            if now.checked_add(more).is_some() { more } else { sum }
        })
    }
}
