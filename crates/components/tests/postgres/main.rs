//! The sink `postgres` in front of real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod faults;
mod journeys;
mod mistakes;
mod rejects;
mod support;
mod values;
