//! Databases, read and written for real.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod faults;
mod keys;
mod support;
