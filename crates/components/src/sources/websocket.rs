//! `websocket`: messages as rows, from those who connect here, or from where this connects to.
//!
//! A message is a record, or with `framing = "newline"` one or more lines; text and binary alike.
//! `source` is who sent it and the path: `127.0.0.1:5000/feed`, or the address it was connected to.
//!
//! **Delivery.** A WebSocket can't be read again: what is in flight at a crash is lost, and with
//! `mode = "connect"` what is sent while there is no connection, unless a subscribe message makes the
//! server say it again. It is one partition, whose offsets count rows.
//!
//! **Backpressure.** Connections are read only when the pipeline asks, in turns; a peer's own sends
//! wait once the kernel's buffers are full. Nobody then answers its pings, so a pause that is longer
//! than it waits for an answer (often 20 s) ends the connection from its side. That is told in the
//! log, and counted; `mode = "connect"` comes back by itself. Silence counts only while we read.
//!
//! **Memory.** Room for a message is reserved before its body is read, and for one in several frames
//! as much as a message may have. Outside the budget a connection has up to 16 KiB of a message that
//! has begun, and about 2 KiB otherwise.
//!
//! **Stop.** Connections are closed as they should be, with the code 1001. With `--once`, `connect`
//! ends with its connection, and `listen` when somebody was there and nobody is any more.

use std::time::Duration;

use tidegate_model::{ByteSize, Mistake, Result, Settings, Source, SourceSpec, Spanned, TimeSpan};
use tidegate_net::websocket::Options;

use crate::codecs::{Codec, decoder_named};
use crate::network::span;
use crate::websocket::Mode;

/// Those who come here.
mod listen;

/// Going there.
mod connect;

/// Messages to rows.
mod rows;

/// One connection's messages.
mod socket;

use rows::Framing;

/// How the source presents itself.
pub const SPEC: SourceSpec = SourceSpec {
    summary: "messages of WebSockets, from clients that connect or from a server",
    example: r#"mode = "listen"               # or "connect", with url = "wss://…"
listen = "127.0.0.1:9000"
# path = ["/feed", "/rooms/*"]
# codec = "json"              # of a message
# framing = "newline"         # a message has lines
# subprotocol = "feed.v1"
# headers = { x-tenant = "a" }
# auth = { tokens = ["${FEED_TOKEN}"] }
# subscribe = ["{\"op\":\"subscribe\"}"]   # after each connect"#,
    build,
};

/// How long a message may be at all.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

fn build(settings: &Settings<'_>) -> Result<Box<dyn Source>, Mistake> {
    match Mode::of(settings)? {
        Mode::Listen => listen::build(settings),
        Mode::Connect => connect::build(settings),
    }
}

/// The fields that both modes have.
struct MessageFields {
    codec: Option<Spanned<String>>,
    framing: Option<Spanned<String>>,
    message_bytes_max: Option<Spanned<ByteSize>>,
    frame_bytes_max: Option<Spanned<ByteSize>>,
    message_timeout: Option<Spanned<TimeSpan>>,
    ping_interval: Option<Spanned<TimeSpan>>,
}

/// How messages are read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    codec: Codec,
    framing: Framing,
    options: Options,
}

impl MessageFields {
    fn understood(self) -> Result<Reading, Mistake> {
        let codec = decoder_named(self.codec.as_ref())?;
        let framing = match &self.framing {
            None => Framing::Message,
            Some(word) => match word.get_ref().as_str() {
                "message" => Framing::Message,
                "newline" => Framing::Newline,
                other => {
                    let message = format!("{other:?} is no framing of a WebSocket");
                    let help =
                        "\"message\": a message is a record; \"newline\": each of its lines is";
                    return Err(Mistake::at(word.span(), message).help(help));
                }
            },
        };
        let mut options = Options::default();
        if let Some(max) = &self.message_bytes_max {
            options.message_bytes_max = size(max)?;
        }
        options.frame_bytes_max = match &self.frame_bytes_max {
            Some(max) => size(max)?,
            None => options.message_bytes_max,
        };
        if let Some(time) = &self.message_timeout {
            options.message_timeout = span(time)?;
        }
        if let Some(time) = &self.ping_interval {
            let interval = time.get_ref().0;
            options.ping_interval = (interval > Duration::ZERO).then_some(interval);
        }
        Ok(Reading { codec, framing, options })
    }
}

fn size(max: &Spanned<ByteSize>) -> Result<usize, Mistake> {
    match usize::try_from(max.get_ref().0) {
        Ok(bytes @ 1..=MESSAGE_BYTES_MAX) => Ok(bytes),
        _ => Err(Mistake::at(max.span(), "no message can be that long").help("1 byte to 256 MiB")),
    }
}

impl Reading {
    /// A message, or what is read at once of shorter ones.
    fn bytes_min(&self) -> usize {
        self.options.message_bytes_max.max(READ_BYTES)
    }
}

/// What a connection has room for before it reads.
const READ_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests;
