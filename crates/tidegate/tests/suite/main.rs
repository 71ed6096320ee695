//! The real program, with real files, pipes and signals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod cli;
mod crash;
mod examples;
mod export;
mod export_again;
mod faults;
mod http;
mod live;
mod memory;
mod mistakes;
mod postgres;
mod pushdown;
mod rejects;
mod scan;
mod support;
