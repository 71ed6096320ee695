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
use tidegate_model::{Mistake, Result, Settings, Sink, SinkSpec};

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

/// Rows one by one, as messages: without the line end.
fn each_row(
    encoder: &Encoder,
    rows: &RecordBatch,
    out: &mut Vec<u8>,
    mut give: impl FnMut(&[u8]),
) -> Result<()> {
    let mut row = 0;
    while row < rows.num_rows() {
        out.clear();
        row = (encoder.encode)(rows, row, out, 1)?;
        give(out.strip_suffix(b"\n").unwrap_or(out));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
