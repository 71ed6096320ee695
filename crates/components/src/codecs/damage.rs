//! Lines that are too long, malformed or no UTF-8: told once for each input, then only counted.

use std::fmt::Display;

use tracing::warn;

use super::decode::Decoded;
use super::lines::Cut;

/// What has been told of an input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Damage {
    long: bool,
    malformed: bool,
    text: bool,
}

impl Damage {
    /// Tells what is new in a chunk of the input: lines that were left out, and such as were
    /// repaired.
    pub(crate) fn tell(&mut self, input: impl Display, cut: &Cut, decoded: &Decoded) {
        if let Some(line) = cut.too_long.filter(|_| !self.long) {
            self.long = true;
            warn!(%input, offset = line.offset, bytes = line.bytes, "a line is longer than \
                   line_bytes_max and was left out; further ones are only counted");
        }
        if let Some(line) = decoded.malformed.as_ref().filter(|_| !self.malformed) {
            self.malformed = true;
            warn!(%input, offset = line.offset, reason = line.reason, "a line is not what the codec \
                   reads and was left out; further ones are only counted");
        }
        if decoded.repaired > 0 && !self.text {
            self.text = true;
            warn!(%input, lines = decoded.repaired, "has lines that are not UTF-8; what is none was \
                   replaced by U+FFFD");
        }
    }
}
