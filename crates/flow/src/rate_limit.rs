//! `rate_limit`: a lossless token bucket.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::timer::{Bell, after, arm};

/// How long after its wake-up a poll may come and still have the lost time made up for: between the
/// two there is the scheduler, and a consumer that is elsewhere looks the same.
const POLL_SLACK: Duration = Duration::from_millis(10);

/// How much lost time is made up for at once in all: 1 % of 10 s.
const MADE_UP_MAX: Duration = Duration::from_millis(100);

/// So many units (items, bytes, whatever the cost counts) in so much time.
///
/// ```
/// use std::time::Duration;
/// use tidegate_flow::{Rate, nz};
///
/// assert_eq!(Rate::per_second(nz!(3_000)), Rate::new(nz!(180_000), Duration::from_secs(60)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    seconds_each: f64,
}

impl Rate {
    /// `units` in every `time`. A zero `time` is no limit at all.
    pub fn new(units: NonZeroU64, time: Duration) -> Self {
        Self { seconds_each: time.as_secs_f64() / units.get() as f64 }
    }

    /// `units` a second.
    pub fn per_second(units: NonZeroU64) -> Self {
        Self::new(units, Duration::from_secs(1))
    }
}

pin_project! {
    /// Stream for the [`rate_limit`](crate::FlowExt::rate_limit) and
    /// [`rate_limit_by`](crate::FlowExt::rate_limit_by) methods.
    ///
    /// A token bucket (RFC 2697 without colours): it holds at most `burst` units, starts full and
    /// fills at the rate. An item passes when the bucket holds its cost, and takes it. Nothing is
    /// dropped: what is too early waits, and the source with it. An item dearer than the burst
    /// waits until its whole cost has come in, so it passes late but passes.
    ///
    /// - **Ordering**: kept.
    /// - **Buffering**: one item, the one that waits (its cost is known only once it is here).
    /// - **Cancellation**: dropping it loses at most the item that waits.
    /// - **End, error**: the end passes at once; an error is an item like others, with its cost.
    /// - **Time**: once the burst is spent the rate holds to 1 % over any 10 s, and to one item at
    ///   each end of them: an item counts whole when it passes, however dear. Tokio's timer has a
    ///   grain of 1 ms, so above 1,000 items a second they leave in clumps of a millisecond's
    ///   worth. What a timer costs that goes off late (its thread was hogged) is made up for, up to
    ///   100 ms of it; of the time between the wake-up and the poll, 10 ms. So a consumer that is
    ///   elsewhere is owed the burst, or 10 ms' worth, and no more; and where polls regularly come
    ///   later than that, the rate is not reached.
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use tidegate_flow::{FlowExt, Rate, nz};
    /// use tokio::time::Instant;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let start = Instant::now();
    /// let lines = stream::iter(["0123456789"; 31]);
    /// let sent = lines.rate_limit_by(Rate::per_second(nz!(100)), nz!(10), |line| line.len() as u64);
    /// assert_eq!(sent.count().await, 31); // 10 bytes of burst, then 300 bytes at 100 B/s
    /// assert_eq!(start.elapsed().as_secs(), 3);
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct RateLimit<S: Stream, F> {
        #[pin]
        source: S,
        #[pin]
        timer: Option<Sleep>,
        cost: F,
        bucket: TokenBucket,
        // Rung by the timer, made when there is one.
        bell: Option<Bell>,
        // The bucket's times count from here: the first poll.
        start: Option<Instant>,
        held: Option<S::Item>,
        ended: bool,
    }
}

impl<S: Stream, F: FnMut(&S::Item) -> u64> RateLimit<S, F> {
    pub(crate) fn new(source: S, rate: Rate, burst: NonZeroU64, cost: F) -> Self {
        let bucket = TokenBucket::new(rate, burst);
        let (timer, bell, start, held) = (None, None, None, None);
        Self { source, timer, cost, bucket, bell, start, held, ended: false }
    }
}

impl<S: Stream, F: FnMut(&S::Item) -> u64> Stream for RateLimit<S, F> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        if this.held.is_none() {
            let Some(item) = ready!(this.source.poll_next(cx)) else {
                *this.ended = true;
                return Poll::Ready(None);
            };
            let cost = (this.cost)(&item);
            let now = Instant::now();
            let start = *this.start.get_or_insert(now);
            let wait = this.bucket.pay(cost, now.saturating_duration_since(start));
            if wait.is_zero() {
                return Poll::Ready(Some(item));
            }
            *this.held = Some(item);
            let due = after(now, wait);
            this.bell.get_or_insert_with(Bell::new).set(due);
            arm(this.timer.as_mut(), due);
        }
        if let (Some(timer), Some(bell), Some(start)) =
            (this.timer.as_pin_mut(), this.bell, *this.start)
        {
            let rung = ready!(bell.poll(timer, cx));
            let now = Instant::now();
            let woken = rung.unwrap_or(now).saturating_duration_since(start);
            this.bucket.settle_woken(woken, now.saturating_duration_since(start));
        }
        Poll::Ready(this.held.take())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.ended {
            return (0, Some(0));
        }
        let held = usize::from(self.held.is_some());
        let (lower, upper) = self.source.size_hint();
        (lower.saturating_add(held), upper.and_then(|upper| upper.checked_add(held)))
    }
}

impl<S: Stream, F: FnMut(&S::Item) -> u64> FusedStream for RateLimit<S, F> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

/// The token bucket of [`rate_limit`](crate::FlowExt::rate_limit) by itself, for whoever keeps time
/// otherwise: it is told how long it has been since some fixed start.
///
/// It holds at most `burst` units, starts full and fills at the rate; a cost above the burst is paid
/// once all of it has come in.
///
/// ```
/// use std::time::Duration;
/// use tidegate_flow::{Rate, TokenBucket, nz};
///
/// let at = Duration::from_millis;
/// let mut bucket = TokenBucket::new(Rate::per_second(nz!(100)), nz!(10));
/// assert_eq!(bucket.pay(10, at(0)), at(0)); // the burst
/// assert_eq!(bucket.pay(5, at(20)), at(30)); // 2 have come in, 3 are to come
/// bucket.settle(at(50));
/// assert_eq!(bucket.pay(1, at(50)), at(10));
/// ```
#[derive(Clone, Debug)]
pub struct TokenBucket {
    seconds_each: f64,
    burst: f64,
    tokens: f64,
    /// When `tokens` was right; in the future while an item waits for what it has paid ahead.
    as_of: Option<Duration>,
}

impl TokenBucket {
    /// A full one.
    pub fn new(rate: Rate, burst: NonZeroU64) -> Self {
        let burst = burst.get() as f64;
        Self { seconds_each: rate.seconds_each, burst, tokens: burst, as_of: None }
    }

    /// Takes the cost: now, or with what comes in during the wait that is returned. After a wait
    /// [`settle`](Self::settle) must be called before the next payment.
    pub fn pay(&mut self, cost: u64, now: Duration) -> Duration {
        if self.seconds_each == 0.0 {
            return Duration::ZERO;
        }
        let gained = self.gained(now);
        // What a late timer was credited beyond the burst stays; time alone fills to the burst.
        self.tokens = self.tokens.max((self.tokens + gained).min(self.burst));
        let missing = cost as f64 - self.tokens;
        // Later than now only where the last payment was settled early.
        let from = self.as_of.map_or(now, |then| then.max(now));
        if missing <= 0.0 {
            self.tokens = -missing;
            self.as_of = Some(from);
            return Duration::ZERO;
        }
        let wait = Duration::try_from_secs_f64(missing * self.seconds_each);
        // Less than a clock tells apart is a wait all the same, or the payment would go unsettled.
        let wait = wait.unwrap_or(Duration::MAX).max(Duration::from_nanos(1));
        self.tokens = 0.0;
        let due = from.saturating_add(wait);
        self.as_of = Some(due);
        due - now
    }

    /// Ends the wait of a payment, and credits the time since it was due: in full where that is
    /// little (10 ms), up to the burst where it is more.
    pub fn settle(&mut self, now: Duration) {
        self.settle_woken(Duration::ZERO, now);
    }

    /// As [`settle`](Self::settle), where it is known when the one who waits was woken: what passed
    /// between the due time and then was not its fault, and up to 100 ms of it are credited too.
    pub fn settle_woken(&mut self, woken: Duration, now: Duration) {
        let late = self.as_of.map_or(Duration::ZERO, |due| woken.min(now).saturating_sub(due));
        let made_up = late.saturating_add(POLL_SLACK).min(MADE_UP_MAX);
        let made_up = made_up.as_secs_f64() / self.seconds_each;
        self.tokens = self.gained(now).min(made_up.max(self.burst));
        self.as_of = self.as_of.max(Some(now));
    }

    fn gained(&self, now: Duration) -> f64 {
        let elapsed = self.as_of.map_or(Duration::ZERO, |then| now.saturating_sub(then));
        elapsed.as_secs_f64() / self.seconds_each
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream};
    use proptest::prelude::*;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::{FlowExt, nz};

    const WINDOW: Duration = Duration::from_secs(10);

    /// What passes within two windows and more: the cost at each time something did.
    async fn passed<T>(
        limited: impl Stream<Item = T>,
        cost: impl Fn(T) -> u64,
    ) -> Vec<(Duration, u64)> {
        let start = Instant::now();
        let mut limited = std::pin::pin!(limited);
        let mut passed: Vec<(Duration, u64)> = Vec::new();
        while let Some(item) = limited.next().await {
            let (time, cost) = (start.elapsed(), cost(item));
            match passed.last_mut() {
                Some((last, sum)) if *last == time => *sum += cost,
                _ => passed.push((time, cost)),
            }
            if time > WINDOW * 5 / 2 {
                break;
            }
        }
        passed
    }

    /// Looks at the windows that begin with an item, any but those of the burst.
    fn assert_rate(passed: &[(Duration, u64)], rate: u64, dearest: u64) {
        let expected = rate * WINDOW.as_secs();
        let (mut sum, mut end, mut windows) = (0, 1, 0);
        for (from, (begin, cost)) in passed.iter().enumerate().skip(1) {
            while passed.get(end).is_some_and(|(time, _)| *time < *begin + WINDOW) {
                sum += passed[end].1;
                end += 1;
            }
            if end == passed.len() {
                break;
            }
            let error = sum.abs_diff(expected);
            let most = expected / 100 + dearest;
            assert!(error <= most, "{sum} in the 10 s from {from}, instead of {expected}");
            sum -= cost;
            windows += 1;
        }
        assert!(windows > 10, "only {windows} windows");
    }

    fn units(number: u64) -> NonZeroU64 {
        NonZeroU64::new(number).unwrap()
    }

    /// Hogs the thread: time goes on in steps, whatever timers there are.
    async fn hog(step: Duration) {
        loop {
            advance(step).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_to_one_percent_over_any_ten_seconds() {
        for (rate, burst) in [(7, 1), (100, 5), (999, 1), (12_345, 1), (50_000, 1_000)] {
            let limited =
                stream::repeat(()).rate_limit(Rate::per_second(units(rate)), units(burst));
            assert_rate(&passed(limited, |()| 1).await, rate, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_of_costs_holds_to_one_percent_over_any_ten_seconds() {
        for (rate, burst) in [(500, 1), (10_000, 100), (300_000, 5_000)] {
            let costs = stream::iter((0_u64..).map(|number| number * 7_919 % 211));
            let limited = costs.rate_limit_by(Rate::per_second(units(rate)), units(burst), |c| *c);
            assert_rate(&passed(limited, |cost| cost).await, rate, 210);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_on_a_thread_that_is_hogged() {
        for step in [7, 30, 99].map(Duration::from_millis) {
            let hogging = tokio::spawn(hog(step));
            for (rate, burst) in [(100, 1), (1_000, 1), (20_000, 50)] {
                let limited =
                    stream::repeat(()).rate_limit(Rate::per_second(units(rate)), units(burst));
                assert_rate(&passed(limited, |()| 1).await, rate, 1);
            }
            hogging.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_late_by_a_minute_is_made_up_for_in_part() {
        let mut limited =
            Box::pin(stream::repeat(()).rate_limit(Rate::per_second(nz!(1_000)), nz!(20)));
        assert!(limited.by_ref().take(20).count().now_or_never().is_some());
        assert!(limited.next().now_or_never().is_none()); // one item waits
        advance(Duration::from_secs(60)).await; // the machine was asleep
        let burst = std::iter::from_fn(|| limited.next().now_or_never()).count();
        assert_eq!(burst, 1 + 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dear_item_waits_for_its_whole_cost() {
        let start = Instant::now();
        let limited = stream::iter([1_000_u64, 1]);
        let limited = limited.rate_limit_by(Rate::per_second(nz!(100)), nz!(10), |cost| *cost);
        let times: Vec<_> = limited.map(|_| start.elapsed().as_millis()).collect().await;
        assert_eq!(times, [9_900, 9_910]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_absent_consumer_is_owed_the_burst_and_no_more() {
        let rate = Rate::per_second(nz!(1_000));
        let mut limited = Box::pin(stream::repeat(()).rate_limit(rate, nz!(20)));
        assert!(limited.by_ref().take(20).count().now_or_never().is_some());
        assert!(limited.next().now_or_never().is_none()); // one item waits
        sleep(Duration::from_secs(60)).await; // its timer goes off in time
        let burst = std::iter::from_fn(|| limited.next().now_or_never()).count();
        assert_eq!(burst, 21);
    }

    #[tokio::test(start_paused = true)]
    async fn costs_of_nothing_and_of_everything_do_no_harm() {
        let free = stream::repeat(()).take(1000);
        let free = free.rate_limit_by(Rate::per_second(nz!(1)), nz!(1), |()| 0);
        assert_eq!(free.collect::<Vec<_>>().now_or_never().map(|all| all.len()), Some(1000));
        let unlimited = stream::repeat(()).take(1000);
        let unlimited = unlimited.rate_limit(Rate::new(nz!(1), Duration::ZERO), nz!(1));
        assert_eq!(unlimited.count().now_or_never(), Some(1000));
        let dear =
            stream::repeat(()).rate_limit_by(Rate::per_second(nz!(1)), nz!(1), |()| u64::MAX);
        assert!(Box::pin(dear).next().now_or_never().is_none());
    }

    #[test]
    fn whoever_settles_early_gains_nothing() {
        let mut bucket = TokenBucket::new(Rate::per_second(nz!(1)), nz!(1));
        let mut due = Duration::ZERO;
        for _ in 0..10 {
            due += bucket.pay(1, Duration::ZERO);
            bucket.settle(Duration::ZERO);
        }
        assert_eq!(due, Duration::from_secs((1..10).sum()));
    }

    proptest! {
        /// No window of any length lets more through than the bucket and the time allow.
        #[test]
        fn never_more_than_burst_and_rate(
            burst in 1_u64..50,
            polls in prop::collection::vec((1_u64..20, 0_u64..300), 1..200),
        ) {
            let burst = NonZeroU64::new(burst).unwrap();
            let mut bucket = TokenBucket::new(Rate::per_second(nz!(100)), burst);
            let burst = burst.get();
            let mut now = Duration::ZERO;
            let mut passed: Vec<(f64, u64)> = Vec::new();
            for (cost, gap_ms) in polls {
                now += Duration::from_millis(gap_ms);
                let wait = bucket.pay(cost, now);
                if !wait.is_zero() {
                    now += wait;
                    bucket.settle(now);
                }
                passed.push((now.as_secs_f64(), cost));
            }
            for (from, &(begin, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for &(time, cost) in &passed[from..] {
                    sum += cost;
                    let dearest = burst.max(cost).max(passed[from].1) as f64;
                    prop_assert!(sum as f64 <= dearest + (time - begin) * 100.0 + 1e-3);
                }
            }
        }
    }
}
