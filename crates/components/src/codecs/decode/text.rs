//! `text`: the line is the message. The time is when it was read; there is no level.

use tidegate_model::Result;

use super::columns::{Found, Shape};
use super::{Chunk, Codec, Decoded, Decoder};
use crate::codecs::views::Text;

/// What is no UTF-8 becomes U+FFFD; all other text is as it was.
pub(super) const CODEC: Codec = Codec { name: "text", decoder, escapes: &[], severe: None };

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
        self.shape.decoded(chunk, found, repaired)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_buffer::Buffer;
    use tidegate_flow::ByteBudget;
    use tidegate_model::log_schema;

    use super::*;
    use crate::codecs::{Label, Line, Places};

    #[test]
    fn a_line_is_the_message_where_it_lies_or_repaired() {
        let budget = ByteBudget::new(1 << 20);
        let holder = Arc::new(budget.holder(0).unwrap());
        let bytes = Buffer::from(b"short\nlonger than a view\n\nbroken \xff and long".to_vec());
        let lines = [(0, 5), (6, 24), (25, 25), (26, 43)].map(|(start, end)| Line { start, end });
        let chunk = Chunk {
            bytes: &bytes,
            lines: &lines,
            places: Places::Bytes(0),
            label: &Label::from("test"),
            read_at: 0,
        };
        let mut decoder = decoder(Shape::new(log_schema(), holder));
        let Decoded { rows, repaired, .. } = decoder.decode(&chunk).unwrap();
        let messages = rows.column(4).as_string_view();
        messages.to_data().validate_full().unwrap();
        let expected = ["short", "longer than a view", "", "broken \u{fffd} and long"];
        assert_eq!(messages.iter().flatten().collect::<Vec<_>>(), expected);
        assert_eq!((messages.value(1).as_ptr(), repaired), (bytes[6..].as_ptr(), 1));
        assert!(budget.usage().used > 0);
        drop((rows, decoder));
        assert_eq!(budget.usage().used, 0);
    }
}
