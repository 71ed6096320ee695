//! `text`: the line is the message. The time is when it was read; there is no level.

use tidegate_model::Result;

use super::columns::{Found, Shape};
use super::{Chunk, Codec, Decoded, Decoder};
use crate::codecs::views::Text;

/// What is no UTF-8 becomes U+FFFD; all other text is as it was.
pub(super) const CODEC: Codec = Codec { name: "text", decoder, escapes: &[] };

/// See the module.
struct TextDecoder {
    shape: Shape,
}

fn decoder(shape: Shape) -> Box<dyn Decoder> {
    Box::new(TextDecoder { shape })
}

impl Decoder for TextDecoder {
    fn decode(&mut self, chunk: &Chunk<'_>) -> Result<Decoded> {
        let mut found = Found::default();
        let mut repaired = 0;
        if self.shape.wants("message") {
            let (messages, count) = self.shape.messages(chunk, &Text::of(chunk));
            (found.message, repaired) = (Some(messages), count);
        }
        Ok(Decoded { rows: self.shape.batch(chunk, found)?, repaired })
    }
}
