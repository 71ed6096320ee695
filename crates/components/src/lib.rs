//! Tidegate's codecs, sources, transforms and sinks: one file each, and one line in a table.

#[macro_use]
mod register;

/// Work that blocks.
mod blocking;

/// The time of reading.
mod clock;

/// Settings of listeners and clients.
#[allow(dead_code, reason = "components that use it all follow")]
mod network;

/// What sources of databases have in common.
pub mod database;

/// Settings of WebSockets.
mod websocket;

/// Bytes to rows, rows to bytes.
pub mod codecs;

/// Where data comes from.
pub mod sources;

/// Rows in, rows out.
pub mod transforms;

/// Where data goes.
pub mod sinks;

/// Writes to pipes and terminals that never block for good.
mod outlet;
