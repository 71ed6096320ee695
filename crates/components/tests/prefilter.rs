//! Decoders on lines that were searched first: what has one of the texts comes as it always does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_buffer::Buffer;
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use proptest::prelude::*;
use tidegate_components::codecs::{
    Chunk, Codec, Cutter, DECODERS, Label, Piece, Places, Prefilter, Shape,
};
use tidegate_flow::ByteBudget;
use tidegate_model::log_schema;

/// How an input is read.
#[derive(Clone, Copy, Debug)]
struct How {
    chunk: usize,
    line_max: usize,
    rows_max: usize,
}

/// Lines that are no rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Missing {
    skipped: u64,
    refused: u64,
}

/// The rows of an input that is read in chunks, and how many lines are none.
fn rows(
    codec: Codec,
    input: &[u8],
    how: How,
    texts: Option<&[Box<str>]>,
) -> (RecordBatch, Missing) {
    let columns = log_schema();
    let budget = ByteBudget::new(64 << 20);
    let shape = Shape::new(Arc::clone(&columns), Arc::new(budget.holder(0).unwrap()));
    let mut decoder = (codec.decoder)(shape);
    let prefilter = texts.and_then(|texts| Prefilter::new(texts, codec.escapes));
    let mut cutter = Cutter::new(how.line_max);
    let (mut batches, mut lines, mut missing) = (Vec::new(), Vec::new(), Missing::default());
    let (mut at, mut size) = (0, how.chunk);
    while at < input.len() {
        let end = input.len().min(at + size);
        let bytes = Buffer::from(input[at..end].to_vec());
        let piece = Piece {
            bytes: &bytes,
            from: 0,
            offset: at as u64,
            ended: end == input.len(),
            rows_max: how.rows_max,
            prefilter: prefilter.as_ref(),
        };
        lines.clear();
        let cut = cutter.cut(piece, &mut lines);
        let places = Places::Bytes(at as u64);
        let label = Label::from("test");
        let chunk = Chunk { bytes: &bytes, lines: &lines, places, label: &label, read_at: 0 };
        let decoded = decoder.decode(&chunk).unwrap();
        batches.push(decoded.rows);
        missing.skipped += cut.skipped;
        missing.refused += decoded.refused;
        at += cut.used;
        size = if cut.used == 0 { size * 2 } else { how.chunk };
    }
    (concat_batches(&columns, &batches).unwrap(), missing)
}

/// The rows whose message has one of the texts.
fn wanted(rows: &RecordBatch, texts: &[Box<str>]) -> RecordBatch {
    let messages = rows.column_by_name("message").unwrap().as_string_view();
    let has = |message: &str| texts.iter().any(|text| message.contains(&**text));
    let has = messages.iter().map(|message| Some(has(message.unwrap())));
    filter_record_batch(rows, &has.collect::<BooleanArray>()).unwrap()
}

fn texts(texts: &[&str]) -> Vec<Box<str>> {
    texts.iter().map(|text| (*text).into()).collect()
}

const HOW: How = How { chunk: 1 << 20, line_max: 1 << 20, rows_max: 8_192 };

#[test]
fn escapes_do_not_hide_a_text() {
    let input = br#"{"msg":"an \u0045RROR"}
{"msg":"plain ERROR"}
{"msg":"nothing","error":"ERROR elsewhere"}
{"msg":{"nested":"\u0045RROR"}}
{"msg":"nothing at all"}
text with an ERROR
text with \u0045RROR
"#;
    for codec in DECODERS {
        let searched = texts(&["ERROR"]);
        let (all, malformed) = rows(*codec, input, HOW, None);
        let (some, missing) = rows(*codec, input, HOW, Some(&searched));
        assert_eq!(wanted(&some, &searched), wanted(&all, &searched), "{}", codec.name);
        // Both lines of text are looked at, as they have what is searched for.
        let refused = if codec.name == "json" { 2 } else { 0 };
        assert_eq!((malformed.refused, missing.refused), (refused, refused), "{}", codec.name);
        assert_eq!(all.num_rows() as u64 + refused, 7);
        assert_eq!(some.num_rows() as u64 + refused + missing.skipped, 7);
        assert!(missing.skipped > 0, "{}", codec.name);
    }
}

#[test]
fn what_repairs_put_in_is_not_searched_for() {
    let input = b"{\"msg\":\"b\xffd\"}\n{\"msg\":\"good\"}\n";
    for codec in DECODERS {
        let searched = texts(&["b\u{fffd}d"]);
        let (some, missing) = rows(*codec, input, HOW, Some(&searched));
        assert_eq!(
            (wanted(&some, &searched).num_rows(), missing.skipped),
            (1, 0),
            "{}",
            codec.name
        );
        let (some, missing) = rows(*codec, input, HOW, Some(&texts(&["d"])));
        assert_eq!((some.num_rows(), missing.skipped), (2, 0), "{}", codec.name);
        let (none, missing) = rows(*codec, input, HOW, Some(&[]));
        assert_eq!((none.num_rows(), missing.skipped), (0, 2), "{}", codec.name);
    }
}

/// Lines of text and JSON, whole and broken, glued of what has the texts, escaped or not.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let word = proptest::sample::select(vec![
        &b"ERROR"[..],
        b"\\u0045RROR",
        b"ERR",
        b"OR",
        b"a\\tb",
        b"\\\\",
        b"\\\"",
        b"\\n",
        b"\xff",
        b"\xc3",
        b"\xef\xbf\xbd",
        "größe".as_bytes(),
        b"\\ud800",
        b"\\ud83d\\ude00",
        b"\0",
        b" ",
        b"a",
        b"ab",
        b"b\r",
        b"1.50",
        b"\"",
        b"<34>1 - host app - - [id name=\"ERROR\\]\"] ",
        b"<13>Mar 10 11:59:59 ab app[1]: ",
    ]);
    let words = proptest::collection::vec(word, 0..5).prop_map(|words| words.concat());
    let key = proptest::sample::select(vec!["msg", "message", "level", "x", "m\\u0073g", "ts"]);
    let value = prop_oneof![
        4 => words.clone().prop_map(|text| [b"\"", &*text, b"\""].concat()),
        1 => proptest::sample::select(vec![
            &b"null"[..], b"12.0", b"true", b"{\"a\": \"ERROR\"}", b"{\"a\":\"\\u0045RROR\"}",
            b"[\"ab\", 1]", b"",
        ]).prop_map(<[u8]>::to_vec),
    ];
    let member =
        (key, value).prop_map(|(key, value)| [b"\"", key.as_bytes(), b"\":", &*value].concat());
    let object = proptest::collection::vec(member, 0..4)
        .prop_map(|members| [b"{", &*members.join(&b","[..]), b"}"].concat());
    let line = prop_oneof![2 => object, 1 => words];
    let end = proptest::sample::select(vec![&b"\n"[..], b"\r\n", b"\n\n"]);
    let lines = proptest::collection::vec((line, end), 0..40);
    (lines, any::<bool>()).prop_map(|(lines, ended)| {
        let mut input = lines.into_iter().flat_map(|(line, end)| [line, end.to_vec()]);
        let mut input: Vec<u8> = input.by_ref().flatten().collect();
        if !ended {
            input.pop();
        }
        input
    })
}

proptest! {
    #[test]
    fn rows_with_one_of_the_texts_are_the_same_as_without_a_search(
        input in input(),
        searched in proptest::sample::subsequence(
            vec!["ERROR", "ab", "\\", "\t", "\n", "ö", "\u{fffd}", "😀", "\"", "a", "", "\\u0045"],
            0..4,
        ),
        chunk in 1usize..400, line_max in 20usize..200, rows_max in 1usize..20,
    ) {
        let searched = texts(&searched);
        let how = How { chunk, line_max, rows_max };
        for codec in DECODERS {
            let (all, malformed) = rows(*codec, &input, how, None);
            prop_assert_eq!(malformed.skipped, 0);
            let (some, missing) = rows(*codec, &input, how, Some(&searched));
            prop_assert_eq!(wanted(&some, &searched), wanted(&all, &searched));
            prop_assert!(some.num_rows() as u64 + missing.skipped >= all.num_rows() as u64);
            prop_assert!(missing.refused <= malformed.refused);
        }
    }
}
