//! How long to wait before trying again: exponential, with full jitter, a floor and a ceiling.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What a floor of nothing grows from: the grain of tokio's timer.
const GRAIN: Duration = Duration::from_millis(1);

/// A policy for trying again, used by [`retry`](crate::FlowExt::retry) and
/// [`reconnect`](crate::reconnect).
///
/// The `n`-th wait is drawn evenly from `floor..=min(ceiling, floor * factor^n)`: "full jitter" as
/// in Brooker, *Exponential Backoff and Jitter* (AWS Architecture Blog, 2015), but never below the
/// floor, so that a peer that fails at once is never hammered. A `Backoff` is a description and
/// costs nothing to copy; [`delays`](Backoff::delays) makes the sequence.
///
/// ```
/// use std::time::Duration;
/// use tidegate_flow::Backoff;
///
/// let backoff = Backoff::exponential(Duration::from_millis(100)..=Duration::from_secs(1))
///     .without_jitter()
///     .retries(5);
/// let waits: Vec<u128> = backoff.delays().map(|wait| wait.as_millis()).collect();
/// assert_eq!(waits, [100, 200, 400, 800, 1000]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    floor: Duration,
    ceiling: Duration,
    factor: f64,
    retries: Option<u32>,
    jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Jitter {
    Off,
    Random,
    Seeded(u64),
}

/// 100 ms, 200 ms, … up to 30 s, with jitter, without an end.
impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(100)..=Duration::from_secs(30))
    }
}

impl Backoff {
    /// Waits that double from the floor to the ceiling, with jitter, without an end.
    ///
    /// A ceiling below the floor counts as the floor. A floor of nothing grows from 1 ms.
    pub fn exponential(waits: RangeInclusive<Duration>) -> Self {
        let (floor, ceiling) = waits.into_inner();
        Self {
            floor,
            ceiling: ceiling.max(floor),
            factor: 2.0,
            retries: None,
            jitter: Jitter::Random,
        }
    }

    /// Always the same wait, without jitter, without an end.
    pub fn constant(wait: Duration) -> Self {
        Self::exponential(wait..=wait).without_jitter()
    }

    /// By how much the upper end of the wait grows each time; what is below 1 (or no number) is 1.
    #[must_use]
    pub fn factor(self, factor: f64) -> Self {
        Self { factor: factor.max(1.0), ..self }
    }

    /// Gives up after this many retries, that is after `retries + 1` tries. 0 never tries again.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        Self { retries: Some(retries), ..self }
    }

    /// Always waits the upper end. For a single client; many that failed together return together.
    #[must_use]
    pub fn without_jitter(self) -> Self {
        Self { jitter: Jitter::Off, ..self }
    }

    /// Draws the jitter from this seed, so that a run can be repeated.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { jitter: Jitter::Seeded(seed), ..self }
    }

    /// The same with a floor that is no lower than this.
    pub(crate) fn floor_at_least(self, floor: Duration) -> Self {
        let floor = self.floor.max(floor);
        Self { floor, ceiling: self.ceiling.max(floor), ..self }
    }

    /// The waits, one for each retry; the sequence ends when no retry is left.
    pub fn delays(&self) -> Delays {
        let random = match self.jitter {
            Jitter::Off => None,
            Jitter::Random => Some(fastrand::Rng::new()),
            Jitter::Seeded(seed) => Some(fastrand::Rng::with_seed(seed)),
        };
        Delays { backoff: *self, upper: self.floor, taken: 0, random }
    }
}

/// The waits of a [`Backoff`]: an iterator, in order, infinite where the retries have no limit.
#[derive(Clone, Debug)]
pub struct Delays {
    backoff: Backoff,
    upper: Duration,
    taken: u32,
    random: Option<fastrand::Rng>,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let Backoff { floor, ceiling, factor, retries, .. } = self.backoff;
        if retries.is_some_and(|retries| self.taken >= retries) {
            return None;
        }
        self.taken = self.taken.saturating_add(1);
        let upper = self.upper;
        self.upper = Duration::try_from_secs_f64(upper.max(GRAIN).as_secs_f64() * factor)
            .map_or(ceiling, |next| next.clamp(floor, ceiling)); // rounded, it may be below
        Some(match &mut self.random {
            Some(random) => floor.saturating_add((upper - floor).mul_f64(random.f64())).min(upper),
            None => upper,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_millis(100);
    const CEILING: Duration = Duration::from_secs(2);

    #[test]
    fn every_wait_is_between_floor_and_ceiling_and_jitter_spreads_them() {
        let waits: Vec<_> =
            Backoff::exponential(FLOOR..=CEILING).seed(7).delays().take(1000).collect();
        assert!(waits.iter().all(|wait| (FLOOR..=CEILING).contains(wait)));
        assert!(waits[500..].iter().any(|wait| *wait < CEILING / 2));
        assert!(waits[500..].iter().any(|wait| *wait > CEILING / 2));
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let backoff = Backoff::default().seed(3);
        assert!(backoff.delays().take(50).eq(backoff.delays().take(50)));
    }

    #[test]
    fn odd_settings_stay_in_bounds() {
        let reversed = Backoff::exponential(CEILING..=FLOOR).delays().next();
        assert_eq!(reversed, Some(CEILING));
        assert_eq!(Backoff::default().retries(0).delays().next(), None);
        let huge = Duration::new(1 << 50, 1); // as seconds in an f64 it is a nanosecond less
        assert!(
            Backoff::constant(huge).seed(1).factor(1.0).delays().take(9).all(|wait| wait == huge)
        );
        for factor in [f64::NAN, f64::INFINITY, -3.0, 1e300] {
            let mut delays = Backoff::exponential(FLOOR..=Duration::MAX).factor(factor).delays();
            assert!(delays.by_ref().take(500).all(|wait| wait >= FLOOR), "factor {factor}");
        }
        let mut from_nothing =
            Backoff::exponential(Duration::ZERO..=CEILING).without_jitter().delays();
        assert_eq!(
            (from_nothing.next(), from_nothing.nth(20)),
            (Some(Duration::ZERO), Some(CEILING))
        );
        assert!(Backoff::constant(Duration::ZERO).delays().take(9).all(|wait| wait.is_zero()));
    }
}
