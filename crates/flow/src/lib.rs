//! Flow control for any [`futures::Stream`](futures_core::Stream): rate limits, batches, bounded
//! read-ahead, fan-out with a policy per consumer, a fair merge of any number of sources, a byte
//! budget, reconnection, replay, and a meter that says where the time goes.
//!
//! Everything here is bounded, keeps items in order, and loses none without saying so. Import
//! [`FlowExt`] beside `futures::StreamExt`; no method of the two has the same name.
//!
//! ```
//! use std::time::Duration;
//! use futures::{StreamExt, stream};
//! use tidegate_flow::{BatchLimits, FlowExt, Rate, nz};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let limits = BatchLimits::rows(nz!(100)).age(Duration::from_millis(50));
//! let lines = stream::iter(0..1000)
//!     .rate_limit(Rate::per_second(nz!(2_000)), nz!(500)) // lossless: what is too early waits
//!     .batch(limits)
//!     .concurrent_map(nz!(4), |batch| async move { batch.len() }) // goes on while we are busy
//!     .fold(0, |sum, rows| async move { sum + rows });
//! assert_eq!(lines.await, 1000);
//! # }
//! ```
//!
//! | for | use |
//! |---|---|
//! | `map`, `filter`, `take`, `zip`, `fold`, … | `futures::StreamExt` |
//! | a bounded channel between two tasks | `tokio::sync::mpsc` |
//! | the latest value only | `tokio::sync::watch` |
//! | a few sources of one type, no keys, all busy | `futures::stream::select_all` |
//! | concurrency without tasks (borrowing futures) | `buffered`, polled all the time |
//! | deadlines for an item | `tokio_stream::StreamExt::timeout` |
//! | anything above under load, with bounds and accounts | this crate |

/// Lets no more through than a byte budget has room for.
mod budgeted;

/// The budget itself.
mod byte_budget;

/// At least an interval between items.
mod pace;

/// A lossless token bucket.
mod rate_limit;

/// No more than so many items being worked on.
mod in_flight_limit;

/// Items gathered by number, bytes and age.
mod batch;

/// Reads ahead as far as that helps.
mod adaptive_buffer;

/// Up to `n` futures at work.
mod concurrent_map;

/// Fallible work, tried again.
mod retry;

/// A stream that outlives its connections.
mod reconnect;

/// Many sources into one.
mod fair_merge;

/// One source into many.
mod fan_out;

/// A broadcast that remembers.
mod replay;

/// Counts, and where the time goes.
mod meter;

/// How long to wait before trying again.
mod backoff;

mod queue;
mod sync;
mod task;
mod timer;

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::time::Duration;

use futures_core::{Stream, TryStream};

pub use adaptive_buffer::{AdaptiveBuffer, BufferGauge};
pub use backoff::{Backoff, Delays};
pub use batch::{Batch, BatchLimits, Unweighed, Weigh};
pub use budgeted::Budgeted;
pub use byte_budget::{Acquire, BudgetHolder, ByteBudget, NoRoom, Permit, TooLarge, Usage};
pub use concurrent_map::{ConcurrentMap, ConcurrentMapUnordered};
pub use fair_merge::{FairMerge, MergeHandle, Merged};
pub use fan_out::{Consumer, ConsumerGauge, Ended, FanOut, FanOutHandle, WhenFull};
pub use in_flight_limit::{InFlight, InFlightLimit, InFlightSlot};
pub use meter::{Meter, Metered, Reading};
pub use pace::Pace;
pub use rate_limit::{Rate, RateLimit, TokenBucket};
pub use reconnect::{ConnectionState, GaveUp, Reconnecting, reconnect};
pub use replay::{FirstIdTooLarge, Lagged, Replay, Subscription, UnknownId};
pub use retry::Retry;

/// A non-zero number, checked when compiled: `nz!(8)` is a `NonZeroUsize`, or whatever non-zero type
/// is asked for, and `nz!(0)` does not compile.
///
/// ```
/// # use std::num::NonZeroU64;
/// let rate: NonZeroU64 = tidegate_flow::nz!(8);
/// assert_eq!(rate.get(), 8);
/// ```
///
/// ```compile_fail
/// let zero: std::num::NonZeroUsize = tidegate_flow::nz!(0);
/// ```
#[macro_export]
macro_rules! nz {
    ($number:expr) => {
        const { ::core::num::NonZero::new($number).expect("nz! takes a number that is not zero") }
    };
}

/// Flow control for streams. Implemented for every [`Stream`]; each method's type says how it
/// orders, buffers, ends and is cancelled.
///
/// What keeps time ([`pace`](Self::pace), [`rate_limit`](Self::rate_limit), [`batch`](Self::batch),
/// [`retry`](Self::retry)) holds its timer in place and so is not `Unpin`: to call `next()` on it,
/// pin it first, with `std::pin::pin!` or `.boxed()`.
pub trait FlowExt: Stream {
    /// Lets items through at least `interval` apart: see [`Pace`].
    fn pace(self, interval: Duration) -> Pace<Self>
    where
        Self: Sized,
    {
        Pace::new(self, interval)
    }

    /// Lets so many items through in so much time, and a burst at first: see [`RateLimit`].
    fn rate_limit(
        self,
        rate: Rate,
        burst: NonZeroU64,
    ) -> RateLimit<Self, impl FnMut(&Self::Item) -> u64>
    where
        Self: Sized,
    {
        RateLimit::new(self, rate, burst, |_| 1)
    }

    /// As [`rate_limit`](Self::rate_limit), with a cost for each item, such as its bytes: see
    /// [`RateLimit`].
    fn rate_limit_by<F>(self, rate: Rate, burst: NonZeroU64, cost: F) -> RateLimit<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item) -> u64,
    {
        RateLimit::new(self, rate, burst, cost)
    }

    /// Gathers items by number, bytes and age: see [`Batch`].
    fn batch<W>(self, limits: BatchLimits<W>) -> Batch<Self, W>
    where
        Self: Sized,
        W: Weigh<Self::Item>,
    {
        Batch::new(self, limits)
    }

    /// Reads ahead in its own task, by as many items as help: see [`AdaptiveBuffer`].
    fn adaptive_buffer(self, capacity: RangeInclusive<NonZeroUsize>) -> AdaptiveBuffer<Self>
    where
        Self: Sized + Send + 'static,
        Self::Item: Send,
    {
        AdaptiveBuffer::new(self, capacity)
    }

    /// Lets no more than `max` items be worked on at a time, wherever they go: see
    /// [`InFlightLimit`].
    fn in_flight_limit(self, max: NonZeroUsize) -> InFlightLimit<Self>
    where
        Self: Sized,
    {
        InFlightLimit::new(self, max)
    }

    /// Runs fallible work on each item, again where it fails: see [`Retry`].
    fn retry<F, Fut, U>(self, backoff: Backoff, work: F) -> Retry<Self, F, Fut, U>
    where
        Self: Sized + TryStream,
        F: FnMut(&Self::Ok) -> Fut,
        Fut: Future<Output = Result<U, Self::Error>>,
    {
        Retry::new(self, backoff, work)
    }

    /// Runs `map` on up to `max` items at a time, each in a task, results in order: see
    /// [`ConcurrentMap`].
    fn concurrent_map<F, Fut>(
        self,
        max: NonZeroUsize,
        map: F,
    ) -> ConcurrentMap<Self, F, Fut::Output>
    where
        Self: Sized,
        F: FnMut(Self::Item) -> Fut,
        Fut: Future<Output: Send> + Send + 'static,
    {
        ConcurrentMap::new(self, max, map)
    }

    /// As [`concurrent_map`](Self::concurrent_map), results as they are done: see
    /// [`ConcurrentMapUnordered`].
    fn concurrent_map_unordered<F, Fut>(
        self,
        max: NonZeroUsize,
        map: F,
    ) -> ConcurrentMapUnordered<Self, F, Fut::Output>
    where
        Self: Sized,
        F: FnMut(Self::Item) -> Fut,
        Fut: Future<Output: Send> + Send + 'static,
    {
        ConcurrentMapUnordered::new(self, max, map)
    }

    /// Gives every item to every consumer, each with its own policy for being full: see [`FanOut`].
    fn fan_out(self) -> FanOut<Self>
    where
        Self: Sized,
        Self::Item: Clone,
    {
        FanOut::new(self)
    }

    /// Reserves `max_cost` bytes before it pulls an item, and gives back what the item's `cost`
    /// leaves: see [`Budgeted`].
    fn budgeted<F>(self, holder: BudgetHolder, max_cost: usize, cost: F) -> Budgeted<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item) -> usize,
    {
        Budgeted::new(self, holder, max_cost, cost)
    }

    /// Counts items and where the time goes: see [`Metered`].
    fn meter(self) -> Metered<Self, impl FnMut(&Self::Item) -> u64>
    where
        Self: Sized,
    {
        Metered::new(self, |_| 0)
    }

    /// As [`meter`](Self::meter), with the bytes of each item: see [`Metered`].
    fn meter_by<F>(self, bytes: F) -> Metered<Self, F>
    where
        Self: Sized,
        F: FnMut(&Self::Item) -> u64,
    {
        Metered::new(self, bytes)
    }
}

impl<S: Stream + ?Sized> FlowExt for S {}
