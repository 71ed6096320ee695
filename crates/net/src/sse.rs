//! Server-sent events, as the [HTML standard] has them: read, served again and again, replayed.
//!
//! [HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html

/// Bytes to events.
mod parser;

/// The side that reads.
mod client;

/// The side that serves.
mod broadcast;

pub use broadcast::{Broadcaster, EventBody, Limits};
pub use client::{Broken, ConnectError, EventSource, EventStream, Events, StreamError, client};
pub use parser::{Event, Parser, TooLong};
