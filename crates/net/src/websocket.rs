//! WebSockets ([RFC 6455]): messages with backpressure in both directions, and one message to many.
//!
//! tungstenite shakes hands and reads frames' heads. What is between them is read here, straight into
//! memory that was asked for first, so that a stream that nobody polls and one that is idle hold
//! nothing, and a message is in the memory's books before its body is read.
//!
//! - [`MessageStream`](crate::websocket::MessageStream): one connection, as a stream of what comes and
//!   a sink of what goes.
//! - [`Server`](crate::websocket::Server) and [`connect`](crate::websocket::connect()): where
//!   connections come from; [`reconnecting`](crate::websocket::reconnecting) comes back by itself.
//! - Many of them are one stream, each in its turn, with [`FairMerge`](tidegate_flow::FairMerge).
//! - [`Broadcast`](crate::websocket::Broadcast): the same messages to all, each framed once, whoever is
//!   slow.
//!
//! [RFC 6455]: https://www.rfc-editor.org/rfc/rfc6455

/// Frames: their heads, their masks.
mod frame;

/// What is to be written.
mod outgoing;

/// Messages that were read at once.
mod messages;

/// A message of which a part is there.
mod partial;

/// Silence, pauses, messages that take too long.
mod clock;

/// One connection.
mod stream;

/// What is wrong with a message or a connection.
mod failure;

/// Connections that come in.
mod accept;

/// Who may come in, and what the others are answered.
mod rules;

/// Connections that go out.
mod connect;

/// What is sent to many, kept for those that are not so fast.
mod ring;

/// One message to many.
mod broadcast;

use std::time::Duration;

pub use tokio_tungstenite::tungstenite::Utf8Bytes;
pub use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

pub use accept::{Client, NotAccepted, Server};
pub use broadcast::{Broadcast, BroadcastOptions, Frames, Left, Slow, Subscriber};
pub use connect::{Address, AddressError, ConnectError, Reconnected, connect, reconnecting};
pub use failure::Failure;
pub use messages::{Message, Messages};
pub use rules::{Request, Rules};
pub use stream::{Ended, MessageStream, Wire};

/// Which side of a connection this is: a client masks what it sends, a server must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It connected.
    Client,
    /// It was connected to.
    Server,
}

/// How messages are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A longer message ends its connection (1009).
    pub message_bytes_max: usize,
    /// A longer frame does, too.
    pub frame_bytes_max: usize,
    /// After so long a silence the peer is asked whether it is there (a ping); after as long again
    /// without a word from it, it is gone. Only where all that came is read: see [`MessageStream`].
    /// `None` leaves it to TCP's keepalive.
    pub ping_interval: Option<Duration>,
    /// So long the rest of a message may take, once there is room for it, pauses of ours not
    /// counted.
    pub message_timeout: Duration,
    /// So long a connection is waited for at its end: until the peer has our last word, and ends it.
    pub close_timeout: Duration,
    /// Sending waits while so much is not written yet.
    pub send_bytes_max: usize,
    /// Who does not read for so long is [counted](MessageStream::pauses): as many peers ping every
    /// 20 s and wait 20 s for an answer, which nobody gives who does not read.
    pub pause_min: Duration,
}

impl Default for Options {
    /// 1 MiB for messages and frames, pings after 20 s, 30 s for a message, 5 s for the end, 16 KiB
    /// unsent, pauses from 20 s.
    fn default() -> Self {
        Self {
            message_bytes_max: 1 << 20,
            frame_bytes_max: 1 << 20,
            ping_interval: Some(Duration::from_secs(20)),
            message_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            send_bytes_max: 16 << 10,
            pause_min: Duration::from_secs(20),
        }
    }
}
