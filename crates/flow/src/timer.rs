//! One tokio timer, made at its first use and set again after that.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Far enough for every purpose, near enough for every clock to add.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The instant that is `wait` from `now`, or 30 years off where that is later.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(FAR)
}

/// Sets the timer. It is made at the first call, so that no runtime is needed before that.
pub(crate) fn arm(mut timer: Pin<&mut Option<Sleep>>, deadline: Instant) {
    match timer.as_mut().as_pin_mut() {
        Some(sleep) => sleep.reset(deadline),
        None => timer.set(Some(sleep_until(deadline))),
    }
}
