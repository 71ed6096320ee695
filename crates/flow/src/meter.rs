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
                this.meter.stop();
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
    // How many futures in `Meter::blocked` are pending.
    handing_on: usize,
    // The stream has ended: nothing starts the time again.
    ended: bool,
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
            handing_on: 0,
            ended: false,
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
    /// counts as blocked; after it (also where it is dropped half-way) as busy. Of several at a
    /// time the last one to be done counts; after the stream's end, none.
    pub async fn blocked<F: Future>(&self, handing_on: F) -> F::Output {
        let mut handing_on = std::pin::pin!(handing_on);
        let mut waiting = HandingOn { meter: self, counted: false };
        std::future::poll_fn(|cx| {
            let polled = handing_on.as_mut().poll(cx);
            if polled.is_pending() {
                waiting.note();
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
        self.0.update(|times| times.enter(activity));
    }

    fn stop(&self) {
        self.0.update(|times| {
            times.enter(Activity::Stopped);
            times.ended = true;
        });
    }
}

impl Cells {
    /// Changes the times, and what is said of them without the lock.
    fn update(&self, change: impl FnOnce(&mut Times)) {
        let mut times = lock(&self.times);
        change(&mut times);
        self.activity.store(times.activity as u8, Ordering::Relaxed);
    }
}

/// A future in [`Meter::blocked`], which counts from when it is first pending until it is gone.
struct HandingOn<'a> {
    meter: &'a Meter,
    counted: bool,
}

impl HandingOn<'_> {
    fn note(&mut self) {
        if std::mem::replace(&mut self.counted, true) {
            self.meter.enter(Activity::Blocked);
        } else {
            self.meter.0.update(|times| {
                times.handing_on += 1;
                times.enter(Activity::Blocked);
            });
        }
    }
}

impl Drop for HandingOn<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.meter.0.update(|times| {
                times.handing_on -= 1;
                if times.handing_on == 0 && times.activity == Activity::Blocked {
                    times.enter(Activity::Busy);
                }
            });
        }
    }
}

impl Times {
    fn enter(&mut self, activity: Activity) {
        if self.ended {
            return;
        }
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

#[cfg(all(test, flow_loom))]
mod loom_tests {
    use loom::future::block_on;
    use loom::thread;

    use super::*;
    use crate::nz;
    use crate::queue::{Capacity, Queue};

    fn said(meter: &Meter) -> (u8, Activity, usize) {
        let times = lock(&meter.0.times);
        (meter.0.activity.load(Ordering::Relaxed), times.activity, times.handing_on)
    }

    /// Hands an item on: pending until another thread makes room, if it comes too early.
    async fn hand_on(meter: &Meter, queue: &Queue<()>) {
        meter.blocked(std::future::poll_fn(|cx| queue.poll_pop(cx))).await;
    }

    /// Several hand items on, from threads of their own: when all are done nobody is blocked.
    #[test]
    fn loom_meter_is_busy_after_the_last_that_was_blocked() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let meter = Meter::new();
            meter.enter(Activity::Busy);
            let room: Vec<_> =
                (0..2).map(|_| Arc::new(Queue::new(Capacity::fixed(nz!(1))))).collect();
            let threads: Vec<_> = room
                .iter()
                .map(|queue| (meter.clone(), Arc::clone(queue)))
                .map(|(meter, queue)| thread::spawn(move || block_on(hand_on(&meter, &queue))))
                .collect();
            room.iter().for_each(|queue| assert!(queue.try_push(()).is_ok()));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(said(&meter), (Activity::Busy as u8, Activity::Busy, 0));
        });
    }

    /// The stream goes on and ends while an item is handed on: its end is the last word.
    #[test]
    fn loom_meter_stays_stopped() {
        loom::model(|| {
            let meter = Meter::new();
            meter.enter(Activity::Busy);
            let queue = Arc::new(Queue::new(Capacity::fixed(nz!(1))));
            let (handing, room) = (meter.clone(), Arc::clone(&queue));
            let thread = thread::spawn(move || block_on(hand_on(&handing, &room)));
            meter.enter(Activity::Idle);
            meter.enter(Activity::Busy);
            assert!(queue.try_push(()).is_ok());
            meter.stop();
            thread.join().unwrap();
            assert_eq!(said(&meter), (Activity::Stopped as u8, Activity::Stopped, 0));
        });
    }
}
