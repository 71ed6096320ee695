//! `auto`: finds out, for each line, what it says of itself.
//!
//! A line that is a JSON object gives its time, level and message under their usual names, and all
//! the rest as metadata: objects within it flattened (`http.status`), lists as JSON. What is broken
//! JSON is text. Of a text line the time at its head is taken and the word near it that says how
//! bad it is; the message stays the whole line. Where there is no time, it is when the line was
//! read; where there is no level, null.

use std::borrow::Cow;

use tidegate_model::Result;

use super::columns::{Found, Shape};
use super::rows::{Rows, Wants};
use super::{Chunk, Codec, Decoded, Decoder, Severe, level, object, time};
use crate::codecs::views::Text;

/// A message is the whole line or a JSON value as it is written, unless that is a string with a
/// backslash in it.
pub(super) const CODEC: Codec =
    Codec { name: "auto", decoder, escapes: &["\\"], severe: Some(Severe::new) };

/// See the module.
struct AutoDecoder {
    shape: Shape,
    wants: Wants,
}

fn decoder(shape: Shape) -> Box<dyn Decoder> {
    let wants = Wants::of(&shape);
    Box::new(AutoDecoder { shape, wants })
}

impl Decoder for AutoDecoder {
    fn decode(&mut self, chunk: &Chunk<'_>) -> Result<Decoded> {
        if self.wants.nothing() {
            return self.shape.decoded(chunk, Found::default(), 0);
        }
        let text = Text::of(chunk);
        let mut rows = Rows::new(chunk, self.wants);
        let mut repaired = 0;
        for line in chunk.lines {
            let line = text.line(*line);
            repaired += u64::from(matches!(line, Cow::Owned(_)));
            let is_object =
                line.trim_ascii_start().starts_with('{') && object::push(&mut rows, &line).is_ok();
            if !is_object {
                push_text(&mut rows, &line);
            }
        }
        let found = rows.finish(self.shape.holder())?;
        self.shape.decoded(chunk, found, repaired)
    }
}

fn push_text(rows: &mut Rows<'_>, line: &str) {
    let wants = rows.wants;
    if wants.timestamp || wants.severity || wants.level {
        let head = time::at_head(line.as_bytes(), rows.now());
        rows.time(head.map(|stamp| stamp.nanos));
        if wants.severity || wants.level {
            let glog = head.and_then(|stamp| stamp.letter).and_then(level::glog);
            let found = glog.or_else(|| level::near_head(line, head.map_or(0, |stamp| stamp.end)));
            rows.level(found.map(|level| level.word), found.map(|level| level.severity));
        }
    }
    rows.message(line);
    rows.end(false);
}

#[cfg(test)]
mod tests {
    use arrow_array::RecordBatch;
    use arrow_array::cast::AsArray;
    use arrow_schema::SchemaRef;
    use proptest::prelude::*;
    use tidegate_model::log_schema;

    use super::super::shown::{self, rows};
    use super::*;

    /// The rows of a text, and how many lines were repaired.
    fn decode(text: &[u8], columns: SchemaRef) -> (RecordBatch, u64) {
        let decoded = shown::decode(CODEC, text, columns);
        assert_eq!(decoded.refused, 0);
        (decoded.rows, decoded.repaired)
    }

    #[test]
    fn each_line_says_what_it_says_of_itself() {
        for (line, row) in [
            ("", "read; -; ; null"),
            ("just text", "read; -; just text; null"),
            (
                "2015-10-18 18:01:47,500 WARN x",
                "1445191307.5; WARN 13; 2015-10-18 18:01:47,500 WARN x; null",
            ),
            ("E0314 15:04:05 1 a.go:1] x", "1741964645; E 17; E0314 15:04:05 1 a.go:1] x; null"),
            (
                r#"{"time":"2015-10-18T18:01:47Z","level":"info","msg":"hi","a":{"b":1}}"#,
                "1445191307; info 9; hi; a.b=1",
            ),
            (r#"  {"ts":1445191307.5,"level":40,"text":"a\tb"}"#, "1445191307.5; 40 13; a\tb;"),
            (r#"{"a":null}"#, r#"read; -; {"a":null}; a=NULL"#),
            (
                r#"{"@timestamp":"soon","severity":"loud","log":null}"#,
                r#"read; loud -; {"@timestamp":"soon","severity":"loud","log":null}; @timestamp=soon"#,
            ),
            (
                r#"{"level":"error","msg":"broken"#,
                r#"read; -; {"level":"error","msg":"broken; null"#,
            ),
            ("{ERROR} x", "read; ERROR 17; {ERROR} x; null"),
        ] {
            let text = format!("{line}\n");
            assert_eq!(rows(&decode(text.as_bytes(), log_schema()).0), [row], "{line}");
        }
    }

    #[test]
    fn a_message_stays_in_the_buffer_where_it_is_written_as_it_is() {
        let text = br#"{"msg":"this one is copied nowhere","a":1}
{"msg":"this one \u0068as to be made"}
and this one is no JSON at all
"#;
        let (batch, _) = decode(text, log_schema());
        let messages = batch.column(4).as_string_view();
        let buffer = messages.data_buffers()[0].as_slice();
        let lies_within =
            |row: usize| buffer.as_ptr_range().contains(&messages.value(row).as_ptr());
        assert_eq!([0, 1, 2].map(lies_within), [true, false, true]);
        assert_eq!(messages.value(1), "this one has to be made");
    }

    #[test]
    fn text_that_is_no_utf_8_is_repaired_and_read_like_any_other() {
        let (batch, repaired) =
            decode(b"{\"msg\":\"b\xffd\"}\n2015-10-18 18:01:47 ERROR \xfe\ngood\n", log_schema());
        let expected = [
            "read; -; b\u{fffd}d;",
            "1445191307; ERROR 17; 2015-10-18 18:01:47 ERROR \u{fffd}; null",
            "read; -; good; null",
        ];
        assert_eq!((rows(&batch).as_slice(), repaired), (&expected.map(str::to_owned)[..], 2));
    }

    #[test]
    fn what_nobody_reads_changes_nothing_in_what_is_read() {
        shown::check_choices(
            CODEC,
            b"{\"msg\":\"hi\",\"level\":\"warn\",\"x\":1}\n2015-10-18 18:01:47 ERROR x\ny\n",
        );
    }

    /// Bytes of which some look like what is looked for, cut and glued anywhere.
    fn odd_text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::sample::select(vec![
                &b"{\"msg\":\""[..],
                b"\"}",
                b"\"time\":1445191307.5,",
                b"\"a\":{\"b\":[1,2]}}",
                b"2015-10-18 18:01:47,978 ",
                b"Jun 14 15:16:01 ",
                b"[Sun Dec 04 04:47:44 2005] ",
                b"<34>1 ",
                b"99999999999999999999",
                b"20171223-22:15:29:606|",
                b" ERROR ",
                b"[error]",
                b"E/x",
                b"\\ud800",
                b"\xc3",
                b"\n",
                b"\r\n",
            ])
            .prop_map(<[u8]>::to_vec),
            proptest::collection::vec(any::<u8>(), 1..4),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        // That columns are what Arrow calls valid is checked where they are decoded.
        #[test]
        fn any_bytes_give_valid_columns_and_lines_of_text_as_they_are(bytes in odd_text()) {
            let (batch, _) = decode(&bytes, log_schema());
            let messages = batch.column(4).as_string_view();
            let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            let last = lines.pop().filter(|last| !last.is_empty());
            let lines = lines.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            for (row, line) in lines.chain(last).enumerate() {
                let line = String::from_utf8_lossy(line);
                // By its grammar: half a surrogate pair is JSON, though no text.
                let json = serde_json::from_str::<&serde_json::value::RawValue>(&line);
                let object = json.is_ok_and(|json| json.get().starts_with('{'));
                prop_assert!(object || messages.value(row) == line, "{}", line);
            }
        }
    }
}
