//! What is wrong with a message or a connection.

use std::fmt;
use std::io;
use std::time::Duration;

use tidegate_flow::TooLarge;

use super::CloseCode;

/// Why a connection ended that was not closed as it should be.
#[derive(Debug)]
pub enum Failure {
    /// The connection broke.
    Io(io::Error),
    /// It ended without a word.
    Cut,
    /// The peer broke the protocol (1002).
    Protocol(String),
    /// A text message was no UTF-8 (1007).
    NotText,
    /// A message was longer than it may be (1009).
    TooBig {
        /// So long it was, as far as it is known.
        bytes: usize,
        /// So long it may be.
        max: usize,
    },
    /// A frame was longer than it may be (1009).
    FrameTooBig {
        /// So long it was.
        bytes: usize,
        /// So long it may be.
        max: usize,
    },
    /// The rest of a message did not come in time (1008).
    Slow(Duration),
    /// Nothing came for so long, not even an answer to a ping.
    Silent(Duration),
    /// There can never be room for a message of this length (1009).
    NoRoom(TooLarge),
}

impl Failure {
    /// What the peer is told, where it can still be told anything.
    pub fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::Io(_) | Self::Cut | Self::Silent(_) => None,
            Self::Protocol(_) => Some(CloseCode::Protocol),
            Self::NotText => Some(CloseCode::Invalid),
            Self::TooBig { .. } | Self::FrameTooBig { .. } | Self::NoRoom(_) => {
                Some(CloseCode::Size)
            }
            Self::Slow(_) => Some(CloseCode::Policy),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Cut => f.write_str("the connection ended without a close"),
            Self::Protocol(what) => write!(f, "the peer broke the protocol: {what}"),
            Self::NotText => f.write_str("a text message is no UTF-8"),
            Self::TooBig { bytes, max } => {
                write!(f, "a message of {bytes} bytes or more, where {max} are allowed")
            }
            Self::FrameTooBig { bytes, max } => {
                write!(f, "a frame of {bytes} bytes, where {max} are allowed")
            }
            Self::Slow(time) => write!(f, "the rest of a message did not come within {time:?}"),
            Self::Silent(time) => write!(f, "no word for {time:?}, nor an answer to a ping"),
            Self::NoRoom(error) => write!(f, "no room for a message: {error}"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::NoRoom(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
