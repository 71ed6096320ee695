//! `text`: the line is the message. The time is when it was read; there is no level.

use tidegate_model::Result;

use super::columns::{Found, Shape};
use super::{Chunk, Decoded, Decoder};
use crate::codecs::views::Text;

/// See the module.
struct TextDecoder {
    shape: Shape,
}

pub(super) fn decoder(shape: Shape) -> Box<dyn Decoder> {
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
