//! `meter`: how much passes, and where the time goes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::sync::{Mutex, lock};

pin_project! {
    /// Stream for the [`meter`](crate::FlowExt::meter) and [`meter_by`](crate::FlowExt::meter_by)
    /// methods.
    ///
    /// Counts are exact and cost a few plain stores. The clock is read only when the source has
    /// nothing (`Pending`) and when it is polled again after that, so a source that is always ready
    /// costs no clock reads at all: from the first item to the next `Pending`, time is *busy*.
    ///
    /// - **Ordering**: kept.
    /// - **Buffering**: none.
    /// - **Cancellation**: dropping it loses nothing; the [`Meter`] stays readable.
    /// - **End, error**: passed on; time stops at the end. An error counts as an item.
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures::{StreamExt, stream};
    /// use tidegate_flow::FlowExt;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let lines = stream::iter(["one", "two", "three"]);
    /// let slow = lines.then(|line| async move {
    ///     tokio::time::sleep(Duration::from_secs(2)).await;
    ///     line
    /// });
    /// let metered = slow.meter_by(|line| line.len() as u64);
    /// let meter = metered.handle();
    /// metered.for_each(|_| tokio::time::sleep(Duration::from_secs(1))).await;
    ///
    /// let reading = meter.read();
    /// assert_eq!((reading.items, reading.bytes), (3, 11));
    /// assert_eq!((reading.idle.as_secs(), reading.busy.as_secs()), (6, 3));
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Metered<S, W> {
        #[pin]
        source: S,
        weigh: W,
        meter: Meter,
        items: u64,
        bytes: u64,
        ended: bool,
    }
}

impl<S: Stream, W: FnMut(&S::Item) -> u64> Metered<S, W> {
    pub(crate) fn new(source: S, weigh: W) -> Self {
        let meter = Meter::new();
        Self { source, weigh, meter, items: 0, bytes: 0, ended: false }
    }

    /// The meter, to read at any moment and from any thread.
    pub fn handle(&self) -> Meter {
        self.meter.clone()
    }
}

impl<S: Stream, W: FnMut(&S::Item) -> u64> Stream for Metered<S, W> {
    type Item = S::Item;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        match this.source.poll_next(cx) {
            Poll::Ready(Some(item)) => {
                // The only writer of the two counts is this stream, so plain stores are exact.
                *this.items += 1;
                *this.bytes = this.bytes.saturating_add((this.weigh)(&item));
                this.meter.0.items.store(*this.items, Ordering::Relaxed);
                this.meter.0.bytes.store(*this.bytes, Ordering::Relaxed);
                this.meter.enter(Activity::Busy);
                Poll::Ready(Some(item))
            }
            Poll::Ready(None) => {
                *this.ended = true;
                this.meter.enter(Activity::Stopped);
                Poll::Ready(None)
            }
            Poll::Pending => {
                this.meter.enter(Activity::Idle);
                Poll::Pending
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.ended { (0, Some(0)) } else { self.source.size_hint() }
    }
}

impl<S: Stream, W: FnMut(&S::Item) -> u64> FusedStream for Metered<S, W> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

/// The meter of a [`Metered`] stream: cheap to clone, readable at any moment from any thread.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Cells>);

#[derive(Debug)]
struct Cells {
    items: AtomicU64,
    bytes: AtomicU64,
    // Says what `times` says, without the lock: most calls find that nothing changes.
    activity: AtomicU8,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    activity: Activity,
    since: Option<Instant>,
    idle: Duration,
    busy: Duration,
    blocked: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Activity {
    Stopped,
    Idle,
    Busy,
    Blocked,
}

/// What a [`Meter`] has seen up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Items that passed.
    pub items: u64,
    /// Their bytes, as the closure of [`meter_by`](crate::FlowExt::meter_by) counts them.
    pub bytes: u64,
    /// Time spent waiting for the source.
    pub idle: Duration,
    /// Time spent by whatever takes the items on working on them.
    pub busy: Duration,
    /// Time spent with an item in hand that nobody would take, as told by a queue downstream
    /// (`report_to`) or by [`Meter::blocked`].
    pub blocked: Duration,
}

impl Meter {
    fn new() -> Self {
        let times = Times {
            activity: Activity::Stopped,
            since: None,
            idle: Duration::ZERO,
            busy: Duration::ZERO,
            blocked: Duration::ZERO,
        };
        Self(Arc::new(Cells {
            items: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            activity: AtomicU8::new(Activity::Stopped as u8),
            times: Mutex::new(times),
        }))
    }

    /// Counts and times up to this moment; time begins at the first poll.
    pub fn read(&self) -> Reading {
        let mut times = lock(&self.0.times);
        let activity = times.activity;
        times.enter(activity);
        Reading {
            items: self.0.items.load(Ordering::Relaxed),
            bytes: self.0.bytes.load(Ordering::Relaxed),
            idle: times.idle,
            busy: times.busy,
            blocked: times.blocked,
        }
    }

    /// Awaits a future that hands an item on, such as a channel's `send`: while it is pending, time
    /// counts as blocked; after it (also where it is dropped half-way) as busy.
    pub async fn blocked<F: Future>(&self, handing_on: F) -> F::Output {
        let mut handing_on = std::pin::pin!(handing_on);
        let _busy_again = BusyOnDrop(self);
        std::future::poll_fn(|cx| {
            let polled = handing_on.as_mut().poll(cx);
            if polled.is_pending() {
                self.enter(Activity::Blocked);
            }
            polled
        })
        .await
    }

    /// Called by queues that hold an item they cannot queue; ends when the stream is next polled.
    pub(crate) fn note_blocked(meter: &Option<Self>) {
        if let Some(meter) = meter {
            meter.enter(Activity::Blocked);
        }
    }

    #[inline]
    fn enter(&self, activity: Activity) {
        if self.0.activity.load(Ordering::Relaxed) != activity as u8 {
            self.change(activity);
        }
    }

    #[cold]
    fn change(&self, activity: Activity) {
        let mut times = lock(&self.0.times);
        times.enter(activity);
        self.0.activity.store(activity as u8, Ordering::Relaxed);
    }
}

struct BusyOnDrop<'a>(&'a Meter);

impl Drop for BusyOnDrop<'_> {
    fn drop(&mut self) {
        if self.0.0.activity.load(Ordering::Relaxed) == Activity::Blocked as u8 {
            self.0.change(Activity::Busy);
        }
    }
}

impl Times {
    fn enter(&mut self, activity: Activity) {
        let now = Instant::now();
        let spent = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        match self.activity {
            Activity::Stopped => {}
            Activity::Idle => self.idle += spent,
            Activity::Busy => self.busy += spent,
            Activity::Blocked => self.blocked += spent,
        }
        self.since = Some(now);
        self.activity = activity;
    }
}
