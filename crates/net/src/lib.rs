//! Live streams with backpressure: what reaches the peer through its own protocol, and never grows
//! in our memory.
//!
//! Well-kept crates speak the protocols (tokio-tungstenite, hyper, reqwest, rustls); here is what
//! they leave to their users: limits, silence, coming back, fairness, slow readers.

/// Where certificates and keys are, and what they make.
pub mod tls;

/// Who may come in.
pub mod auth;

/// Connections that come in, with limits.
pub mod listen;

/// An end that the other side hears of.
mod linger;

/// HTTP for those that come in.
pub mod serve;

/// Server-sent events.
pub mod sse;

/// Connections that go out.
pub mod connect;

/// WebSockets: messages with backpressure, and one message to many.
pub mod websocket;

/// When a socket wakes whoever waits for it.
pub mod wake;
