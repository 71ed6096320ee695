//! `auto`: finds out, for each line, what it says of itself.
//!
//! A line that is a JSON object gives its time, level and message under their usual names, and all
//! the rest as metadata: objects within it flattened (`http.status`), lists as JSON. What is broken
//! JSON is text. Of a text line the time at its head is taken and the word near it that says how
//! bad it is; the message stays the whole line. Where there is no time, it is when the line was
//! read; where there is no level, null.

use std::borrow::Cow;

use arrow_array::UInt8Array;
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, ScalarBuffer};
use tidegate_model::{BudgetHolder, Result, severity_of};

use super::columns::{Found, Shape, impossible};
use super::texts::{Metadata, Texts};
use super::time::Now;
use super::{Chunk, Codec, Decoded, Decoder, Severe, json, level, time};
use crate::codecs::space::charged;
use crate::codecs::views::{Text, Views};

/// A message is the whole line or a JSON value as it is written, unless that is a string with a
/// backslash in it.
pub(super) const CODEC: Codec =
    Codec { name: "auto", decoder, escapes: &["\\"], severe: Some(Severe::new) };

/// See the module.
struct AutoDecoder {
    shape: Shape,
    wants: Wants,
}

/// Which columns anyone reads.
#[derive(Clone, Copy)]
struct Wants {
    timestamp: bool,
    severity: bool,
    level: bool,
    message: bool,
    metadata: bool,
}

fn decoder(shape: Shape) -> Box<dyn Decoder> {
    let wants = Wants {
        timestamp: shape.wants("timestamp"),
        severity: shape.wants("severity"),
        level: shape.wants("level"),
        message: shape.wants("message"),
        metadata: shape.wants("metadata"),
    };
    Box::new(AutoDecoder { shape, wants })
}

impl Decoder for AutoDecoder {
    fn decode(&mut self, chunk: &Chunk<'_>) -> Result<Decoded> {
        let Wants { timestamp, severity, level, message, metadata } = self.wants;
        if !(timestamp || severity || level || message || metadata) {
            return Ok(Decoded { rows: self.shape.batch(chunk, Found::default())?, repaired: 0 });
        }
        let text = Text::of(chunk);
        let mut rows = Rows::new(chunk, self.wants);
        let mut repaired = 0;
        for line in chunk.lines {
            let line = text.line(*line);
            repaired += u64::from(matches!(line, Cow::Owned(_)));
            if !(line.trim_ascii_start().starts_with('{') && rows.json(&line)) {
                rows.text(&line);
            }
        }
        let found = rows.finish(self.shape.holder())?;
        Ok(Decoded { rows: self.shape.batch(chunk, found)?, repaired })
    }
}

/// Columns in the making: those that are wanted.
struct Rows<'c> {
    wants: Wants,
    now: Now,
    read_at: i64,
    times: Vec<i64>,
    severities: Severities,
    levels: Texts,
    messages: Views<'c>,
    metadata: Metadata,
}

impl<'c> Rows<'c> {
    fn new(chunk: &Chunk<'c>, wants: Wants) -> Self {
        let rows = |wanted| if wanted { chunk.lines.len() } else { 0 };
        Self {
            wants,
            now: Now::new(chunk.read_at),
            read_at: chunk.read_at,
            times: Vec::with_capacity(rows(wants.timestamp)),
            severities: Severities::new(rows(wants.severity)),
            levels: Texts::new(rows(wants.level)),
            messages: Views::new(chunk.bytes, rows(wants.message)),
            metadata: Metadata::new(rows(wants.metadata)),
        }
    }

    fn text(&mut self, line: &str) {
        let wants = self.wants;
        if wants.timestamp || wants.severity || wants.level {
            let head = time::at_head(line.as_bytes(), &self.now);
            if wants.timestamp {
                self.times.push(head.map_or(self.read_at, |stamp| stamp.nanos));
            }
            if wants.severity || wants.level {
                let glog = head.and_then(|stamp| stamp.letter).and_then(level::glog);
                let found =
                    glog.or_else(|| level::near_head(line, head.map_or(0, |stamp| stamp.end)));
                self.level(found.map(|level| level.word), found.map(|level| level.severity));
            }
        }
        if wants.message {
            self.messages.push(line);
        }
        if wants.metadata {
            self.metadata.row(false);
        }
    }

    /// Whether it was an object; nothing was done if not.
    fn json(&mut self, line: &str) -> bool {
        let wants = self.wants;
        let Some(record) = json::read(line, wants.metadata.then_some(&mut self.metadata)) else {
            self.metadata.undo();
            return false;
        };
        if wants.timestamp || wants.metadata {
            self.json_time(record.time);
        }
        if wants.severity || wants.level {
            let word = record.level.and_then(json::text);
            let severity = word
                .as_deref()
                .and_then(|word| severity_of(word.trim()).or_else(|| level::of_number(word)));
            self.level(word.as_deref(), severity);
        }
        if wants.message {
            let message = record.message.and_then(json::text);
            self.messages.push(message.as_deref().unwrap_or(line));
        }
        if wants.metadata {
            self.metadata.row(true);
        }
        true
    }

    fn json_time(&mut self, found: Option<(Cow<'_, str>, json::Raw<'_>)>) {
        let nanos = found.as_ref().and_then(|(_, raw)| match raw.starts_with('"') {
            true => json::text(raw).and_then(|text| time::whole(text.as_bytes(), &self.now)),
            false => time::since_epoch(raw),
        });
        if self.wants.timestamp {
            self.times.push(nanos.unwrap_or(self.read_at));
        }
        // A time that can't be understood is kept as it is.
        if let (true, None, Some((key, raw))) = (self.wants.metadata, nanos, found) {
            json::add(&mut self.metadata, &key, raw, 0);
        }
    }

    fn level(&mut self, word: Option<&str>, severity: Option<u8>) {
        if self.wants.level {
            self.levels.push(word);
        }
        if self.wants.severity {
            self.severities.push(severity);
        }
    }

    fn finish(self, holder: &BudgetHolder) -> Result<Found> {
        let Wants { timestamp, severity, level, message, metadata } = self.wants;
        Ok(Found {
            timestamp: timestamp.then_some(self.times),
            severity: severity.then(|| self.severities.finish(holder)),
            level: match level {
                true => Some(self.levels.finish(holder).map_err(impossible)?),
                false => None,
            },
            message: message.then(|| self.messages.finish(holder)),
            metadata: match metadata {
                true => Some(self.metadata.finish(holder).map_err(impossible)?),
                false => None,
            },
        })
    }
}

/// The column `severity` in the making.
struct Severities {
    numbers: Vec<u8>,
    valid: BooleanBufferBuilder,
}

impl Severities {
    fn new(rows: usize) -> Self {
        Self { numbers: Vec::with_capacity(rows), valid: BooleanBufferBuilder::new(rows) }
    }

    fn push(&mut self, number: Option<u8>) {
        self.numbers.push(number.unwrap_or_default());
        self.valid.append(number.is_some());
    }

    fn finish(mut self, holder: &BudgetHolder) -> UInt8Array {
        let numbers = charged(holder, Buffer::from_vec(self.numbers));
        let valid = Some(NullBuffer::new(self.valid.finish())).filter(|v| v.null_count() > 0);
        UInt8Array::new(ScalarBuffer::from(numbers), valid)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::cast::AsArray;
    use arrow_array::types::{TimestampNanosecondType, UInt8Type};
    use arrow_array::{Array, RecordBatch};
    use arrow_schema::SchemaRef;
    use proptest::prelude::*;
    use tidegate_flow::ByteBudget;
    use tidegate_model::log_schema;

    use super::*;
    use crate::codecs::{Cutter, Label, Piece, Places};

    /// 2026-03-10 12:00:00 UTC.
    const READ_AT: i64 = 1_773_144_000_000_000_000;

    /// The rows of a text, and how many lines were repaired.
    fn decode(text: &[u8], columns: SchemaRef) -> (RecordBatch, u64) {
        let budget = ByteBudget::new(64 << 20);
        let holder = Arc::new(budget.holder(0).unwrap());
        let bytes = Buffer::from(text.to_vec());
        let mut lines = Vec::new();
        let (ended, rows_max, prefilter) = (true, usize::MAX, None);
        let piece = Piece { bytes: &bytes, from: 0, offset: 0, ended, rows_max, prefilter };
        Cutter::new(1 << 20).cut(piece, &mut lines);
        let chunk = Chunk {
            bytes: &bytes,
            lines: &lines,
            places: Places::Bytes(0),
            label: &Label::from("test"),
            read_at: READ_AT,
        };
        let decoded = decoder(Shape::new(columns, holder)).decode(&chunk).unwrap();
        for column in decoded.rows.columns() {
            column.to_data().validate_full().unwrap();
        }
        (decoded.rows, decoded.repaired)
    }

    /// Seconds, severity, level, message and metadata of each row, as text.
    fn rows(batch: &RecordBatch) -> Vec<String> {
        let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
        let severities = batch.column(1).as_primitive::<UInt8Type>();
        let levels = batch.column(2).as_string::<i32>();
        let messages = batch.column(4).as_string_view();
        let metadata = batch.column(5).as_map();
        let row = |row: usize| {
            let time = match times.value(row) {
                READ_AT => "read".to_owned(),
                nanos => format!("{}", nanos as f64 / 1e9),
            };
            let level = match (levels.is_valid(row), severities.is_valid(row)) {
                (true, true) => format!("{} {}", levels.value(row), severities.value(row)),
                (true, false) => format!("{} -", levels.value(row)),
                _ => "-".to_owned(),
            };
            let entries = metadata.value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let entries = keys.as_string::<i32>().iter().zip(values.as_string::<i32>());
            let entries = entries
                .map(|(key, value)| format!(" {}={}", key.unwrap(), value.unwrap_or("NULL")));
            let entries: String = entries.collect();
            let null = if metadata.is_null(row) { " null" } else { &entries };
            format!("{time}; {level}; {};{null}", messages.value(row))
        };
        (0..batch.num_rows()).map(row).collect()
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

    /// Any choice of columns is the same as those columns of all.
    #[test]
    fn what_nobody_reads_changes_nothing_in_what_is_read() {
        let text = b"{\"msg\":\"hi\",\"level\":\"warn\",\"x\":1}\n2015-10-18 18:01:47 ERROR x\ny\n";
        let all = decode(text, log_schema()).0;
        for choice in 0..1 << all.num_columns() {
            let wanted: Vec<usize> =
                (0..all.num_columns()).filter(|column| choice >> column & 1 == 1).collect();
            let columns = Arc::new(log_schema().project(&wanted).unwrap());
            assert_eq!(decode(text, columns).0, all.project(&wanted).unwrap(), "{wanted:?}");
        }
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
