//! WebSockets against tungstenite, against bytes that are wrong, and against time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

/// What tests share.
mod support;

/// Messages and their frames.
mod messages;

/// Any bytes are taken as tungstenite takes them.
mod compared;

/// What breaks the protocol, and what the peer is told.
mod violations;

/// Silence, pauses, the end.
mod time;

/// Memory, and peers that wait.
mod pressure;

/// Handshakes.
mod handshakes;

/// One message to many.
mod broadcast;

/// Networks with faults, and TLS.
mod faults;

/// Peers that others wrote.
mod peers;

/// What is shown to others.
pub mod examples;
