//! What every operator promises, checked for every operator; and models for those that need one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod auto_traits;
mod blocked;
mod budget;
mod contract;
mod cooperation;
mod fan_out;
mod merge;
mod meter;
mod names;
mod operators;
