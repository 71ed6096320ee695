//! The real program, with real files, pipes and signals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod cli;
mod crash;
mod faults;
mod http;
mod live;
mod memory;
mod mistakes;
mod postgres;
mod pushdown;
mod scan;
mod support;
