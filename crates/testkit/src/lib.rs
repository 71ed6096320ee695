//! What Tidegate's tests and benchmarks share.

#![allow(clippy::panic, reason = "a test fails by a panic")]

/// A stream that does what a test tells it.
pub mod script;

/// A waker that counts.
pub mod wakes;

/// Texts and what is said of them.
pub mod cases;

/// A program that is started, watched and stopped.
pub mod process;

/// A network with faults.
pub mod proxy;

/// Certificates, good and bad.
pub mod certificates;

/// Programs that nobody here wrote.
pub mod peers;

/// Rows as texts, of files that others read.
pub mod rows;

/// Real PostgreSQL servers.
pub mod postgres;

/// A browser with a page.
pub mod browser;

/// Paired benchmarks: both sides in one run, interleaved, as a ratio.
pub mod bench;
