//! `websocket`: a message for each row, to all who connect here, or to where this connects to.
//!
//! **Delivery.** With `mode = "listen"` rows are broadcast: a row is delivered when it was framed for
//! those who are connected, each of whom gets what comes from then on. A subscriber that is slower than
//! what is kept for all (`keep_bytes_max`, `keep_messages_max`) misses the oldest messages and is told
//! how many by `{"missed":N}` (`when_slow = "drop_oldest"`), is told to go with the code 1013
//! (`"disconnect"`), or holds up the pipeline (`"block"`). Only `block` ever waits for one.
//!
//! With `mode = "connect"` rows are delivered when the kernel has taken them for the server: at least
//! once, but that a WebSocket has no acknowledgements, and what is on its way when a connection is
//! lost may be.
//!
//! **Memory.** What is kept for slow subscribers is outside the budget, and bounded by the two
//! settings; a subscriber has about 2 KiB.
//!
//! **Stop.** Subscribers get what there is for them, and a close with the code 1001.

use arrow_array::RecordBatch;
use tidegate_model::{Mistake, Result, Settings, Sink, SinkSpec, Spanned};

use crate::codecs::encode::Encoder;
use crate::websocket::Mode;

/// Those who come here.
mod listen;

/// Going there.
mod connect;

/// See the module.
pub const SPEC: SinkSpec = SinkSpec {
    summary: "broadcasts rows to WebSocket subscribers, or sends them to a server",
    example: r#"mode = "listen"               # or "connect", with url = "wss://…"
listen = "127.0.0.1:9001"
# path = "/live"
# codec = "text"              # or "ndjson", the default
# when_slow = "disconnect"    # or "block", or "drop_oldest", the default
# keep_bytes_max = "4MiB"     # for all who are slow together
# auth = { tokens = ["${LIVE_TOKEN}"] }
# tls = { certificate = "cert.pem", key = "key.pem" }"#,
    build,
};

fn build(settings: &Settings<'_>) -> Result<Box<dyn Sink>, Mistake> {
    match Mode::of(settings)? {
        Mode::Listen => listen::build(settings),
        Mode::Connect => connect::build(settings),
    }
}

/// How rows become messages: without their line ends.
struct Rows {
    encoder: &'static Encoder,
    // A line of it is a row, so that many can be written at once.
    lines: bool,
    buffer: Vec<u8>,
}

/// So much is written at once.
const BUFFER_BYTES: usize = 32 << 10;

impl Rows {
    fn named(codec: Option<&Spanned<String>>) -> Result<Self, Mistake> {
        let default = Spanned::new(0..0, NDJSON.to_owned());
        let codec = codec.unwrap_or(&default);
        let (encoder, lines) = (Encoder::named(Some(codec))?, codec.get_ref() == NDJSON);
        Ok(Self { encoder, lines, buffer: Vec::new() })
    }

    fn each(&mut self, rows: &RecordBatch, mut give: impl FnMut(&[u8])) -> Result<()> {
        let enough = if self.lines { BUFFER_BYTES } else { 1 };
        let mut row = 0;
        while row < rows.num_rows() {
            self.buffer.clear();
            row = (self.encoder.encode)(rows, row, &mut self.buffer, enough)?;
            let written = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
            match self.lines {
                true => written.split(|byte| *byte == b'\n').for_each(&mut give),
                false => give(written),
            }
        }
        self.buffer.shrink_to(BUFFER_BYTES);
        Ok(())
    }
}

const NDJSON: &str = "ndjson";

#[cfg(test)]
mod tests;
