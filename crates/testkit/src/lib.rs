//! What Tidegate's tests and benchmarks share.

/// A stream that does what a test tells it.
pub mod script;

/// A waker that counts.
pub mod wakes;

/// A program that is started, watched and stopped.
pub mod process;

/// The paired benchmark: both sides in one run, interleaved, as a ratio.
pub mod bench;
