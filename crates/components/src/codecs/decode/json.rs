//! `json`: each line is a JSON object, and nothing else.
//!
//! Its time, level and message are found under their usual names, and all the rest is metadata, as
//! `auto` has it ([`object`]); an object without a message is its own. A line that is no object is
//! refused: it is no row, and counted. A blank line is no record, and passed over.
//!
//! The whole line is checked, whichever columns are read: values that nobody reads are stepped over,
//! and nothing is made of them. Lines that were skipped before, as their rows are of no use to
//! anyone, are neither checked nor counted as refused.

use std::borrow::Cow;

use tidegate_model::Result;

use super::columns::Shape;
use super::rows::{Rows, Wants};
use super::{Chunk, Codec, Decoded, Decoder, Malformed, Severe, object};
use crate::codecs::views::Text;

/// What finds the lines of `auto` finds these: there they are the same rows.
pub(super) const CODEC: Codec =
    Codec { name: "json", decoder, escapes: &["\\"], severe: Some(Severe::new) };

/// See the module.
struct JsonDecoder {
    shape: Shape,
    wants: Wants,
}

fn decoder(shape: Shape) -> Box<dyn Decoder> {
    let wants = Wants::of(&shape);
    Box::new(JsonDecoder { shape, wants })
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, chunk: &Chunk<'_>) -> Result<Decoded> {
        let text = Text::of(chunk);
        let mut rows = Rows::new(chunk, self.wants);
        let (mut left_out, mut malformed) = (Vec::new(), None);
        let (mut repaired, mut refused) = (0, 0);
        for (number, line) in chunk.lines.iter().enumerate() {
            let line = text.line(*line);
            repaired += u64::from(matches!(line, Cow::Owned(_)));
            let Err(error) = object::push(&mut rows, &line) else { continue };
            left_out.push(number as u32);
            if !line.trim_ascii().is_empty() {
                refused += 1;
                malformed.get_or_insert_with(|| Malformed {
                    line: number,
                    offset: chunk.offset(number),
                    reason: reason(&line, &error),
                });
            }
        }
        let mut found = rows.finish(self.shape.holder())?;
        found.left_out = left_out;
        Ok(Decoded { rows: self.shape.batch(chunk, found)?, repaired, refused, malformed })
    }
}

/// Why a line is no object. Of one that is cut in two, in a few words.
fn reason(line: &str, error: &serde_json::Error) -> String {
    match line.trim_ascii_start().starts_with('{') {
        // Elements of an array may have lines of their own.
        true if error.line() > 1 => error.to_string(),
        true => error.to_string().replace(" at line 1 column ", " at byte "),
        false => "it is no JSON object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::shown::{self, rows};
    use super::super::{Places, auto};
    use super::*;

    fn decode(text: &[u8]) -> Decoded {
        shown::decode(CODEC, text, shown::with_offsets())
    }

    #[test]
    fn an_object_is_the_row_that_auto_makes_of_it() {
        let text = br#"{"time":"2015-10-18T18:01:47Z","level":"info","msg":"hi","a":{"b":1}}
  {"ts":1445191307.5,"level":40,"text":"a\tb"}
{"@timestamp":"soon","severity":"loud","log":null,"x":[1,2]}
{"msg":"half \ud800 a pair"}
{}
"#;
        let decoded = decode(text);
        assert_eq!((decoded.rows.num_rows(), decoded.refused, &decoded.malformed), (5, 0, &None));
        assert_eq!(decoded.rows, shown::decode(auto::CODEC, text, shown::with_offsets()).rows);
        assert_eq!(rows(&decoded.rows)[0], "1445191307; info 9; hi; a.b=1");
    }

    #[test]
    fn what_is_no_object_is_no_row_and_the_first_is_told() {
        let text = b"{\"msg\":\"a\"}\n\n{\"msg\":\"cut\n[1]\n \t\r\n{\"msg\":\"b\"}\ntext\n{\"msg\":\"c\"}";
        let decoded = decode(text);
        assert_eq!(rows(&decoded.rows), ["read; -; a;", "read; -; b;", "read; -; c;"]);
        assert_eq!(shown::offsets(&decoded.rows), [0, 33, 50]);
        assert_eq!(decoded.refused, 3);
        let reason = "EOF while parsing a string at byte 11".to_owned();
        assert_eq!(decoded.malformed, Some(Malformed { line: 2, offset: 13, reason }));
        let numbered = shown::decode_at(CODEC, text, shown::with_offsets(), Places::Rows(100));
        assert_eq!(shown::offsets(&numbered.rows), [100, 105, 107]);
        assert_eq!(numbered.malformed.unwrap().offset, 102);
    }

    #[test]
    fn reasons_say_where_and_have_nothing_of_the_line() {
        let long = format!("\"{}\"", "x".repeat(1000));
        for (line, reason) in [
            ("text", "it is no JSON object"),
            ("[{\"a\":1}]", "it is no JSON object"),
            (&long, "it is no JSON object"),
            ("{\"a\":1}{", "trailing characters at byte 8"),
            ("{\"a\" 1}", "expected `:` at byte 6"),
            ("{'a': 1}", "key must be a string at byte 2"),
            ("{\"a\":tru}", "expected ident at byte 9"),
            ("{\"a\":1,}", "trailing comma at byte 8"),
            ("{", "EOF while parsing an object at byte 1"),
            (
                "{\"a\":\"\u{1}\"}",
                "control character (\\u0000-\\u001F) found while parsing a string at byte 6",
            ),
        ] {
            assert_eq!(decode(line.as_bytes()).malformed.unwrap().reason, reason, "{line}");
        }
    }

    #[test]
    fn of_a_refused_line_nothing_is_left() {
        let decoded = decode(
            b"{\"msg\":\"a\",\"x\":1}\n{\"y\":2,\"z\":{\"a\":1},\n{\"msg\":\"b\",\"w\":3}\n",
        );
        assert_eq!(rows(&decoded.rows), ["read; -; a; x=1", "read; -; b; w=3"]);
    }

    #[test]
    fn what_nobody_reads_changes_nothing_in_what_is_read() {
        shown::check_choices(
            CODEC,
            b"{\"msg\":\"hi\",\"level\":\"warn\",\"x\":1}\ntext\n\n{\"x\":}\n{}\n",
        );
    }

    #[test]
    fn a_huge_and_a_deep_object_are_read() {
        let huge = format!("{{\"msg\":\"{}\"}}\n", "x".repeat(500_000));
        let deep = format!("{{\"a\":{}1{}}}\n", "[".repeat(200_000), "]".repeat(200_000));
        let decoded = decode(format!("{huge}{deep}").as_bytes());
        let messages = decoded.rows.column(4).as_string_view();
        assert_eq!((messages.value(0).len(), messages.value(1)), (500_000, deep.trim_end()));
    }

    /// A value of a member, as JSON.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
            "[ -~äß\t\n\"\\\\]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::vec(("[a-c]", inner), 0..3).prop_map(Value::from_iter),
            ]
        })
    }

    /// What metadata has of a value, more slowly.
    fn flattened(name: &str, value: &Value, all: &mut Vec<(String, Option<String>)>) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                members
                    .iter()
                    .for_each(|(key, value)| flattened(&format!("{name}.{key}"), value, all));
            }
            Value::Null => all.push((name.to_owned(), None)),
            Value::String(text) => all.push((name.to_owned(), Some(text.clone()))),
            other => all.push((name.to_owned(), Some(other.to_string()))),
        }
    }

    proptest! {
        #[test]
        fn rows_have_the_values_that_serde_finds(
            message in "[ -~äß\t\n\"\\\\]{0,30}",
            members in proptest::collection::btree_map("[k-q]{1,2}", value(), 0..5),
        ) {
            let mut object = serde_json::Map::from_iter(members.clone());
            object.insert("message".to_owned(), Value::from(&*message));
            let line = serde_json::to_string(&object).unwrap();
            let decoded = decode(line.as_bytes());
            prop_assert_eq!(decoded.rows.column(4).as_string_view().value(0), message);
            let mut expected = Vec::new();
            members.iter().for_each(|(key, value)| flattened(key, value, &mut expected));
            let entries = decoded.rows.column(5).as_map().value(0);
            let (keys, values) = (entries.column(0), entries.column(1));
            let found = keys.as_string::<i32>().iter().zip(values.as_string::<i32>());
            let found = found.map(|(key, value)| (key.unwrap().to_owned(), value.map(str::to_owned)));
            prop_assert_eq!(found.collect::<Vec<_>>(), expected);
        }

        #[test]
        fn any_bytes_are_rows_or_refused_as_serde_takes_them(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                &b"{"[..], b"}", b"\"", b"\"k\":", b",", b"[", b"]", b"1", b"null", b"\\", b"\\u00e4",
                b"\xff", b" ", b"\t", b"\n", b"\r\n", b"{}", b"{\"msg\":\"a\"}", b"\0",
            ]), 0..30),
        ) {
            let text = pieces.concat();
            let decoded = decode(&text);
            let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
            if lines.last().is_some_and(|last| last.is_empty()) {
                lines.pop();
            }
            let lines = lines.into_iter().map(|line| String::from_utf8_lossy(line).trim_ascii().to_owned());
            let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
            type Object<'l> = std::collections::HashMap<String, &'l serde_json::value::RawValue>;
            let objects = lines.iter().filter(|line| serde_json::from_str::<Object<'_>>(line).is_ok());
            prop_assert_eq!(decoded.rows.num_rows(), objects.count());
            prop_assert_eq!(decoded.refused as usize, lines.len() - decoded.rows.num_rows());
            prop_assert_eq!(decoded.malformed.is_some(), decoded.refused > 0);
        }
    }
}
