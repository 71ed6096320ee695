//! The encoders against other people's readers and against the simplest code that does the same.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::sync::Arc;

use arrow_array::builder::{
    Int32Builder, ListBuilder, MapBuilder, StringBuilder, StringViewBuilder,
};
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::*;
use arrow_buffer::{Buffer, NullBuffer, ScalarBuffer, i256};
use arrow_schema::{DataType, Field, Fields, IntervalUnit, Schema};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidegate_components::codecs::encode::{ENCODERS, Encoder};

fn encoder(name: &str) -> &'static Encoder {
    ENCODERS.iter().find(|(known, _)| *known == name).unwrap().1
}

/// All rows, in steps of so many bytes.
fn encoded(name: &str, rows: &RecordBatch, enough: usize) -> Vec<u8> {
    let (mut all, mut from) = (Vec::new(), 0);
    while from < rows.num_rows() {
        let mut out = Vec::new();
        let next = (encoder(name).encode)(rows, from, &mut out, enough).unwrap();
        assert!(next > from && next <= rows.num_rows(), "no step from {from} to {next}");
        assert!(next == rows.num_rows() || out.len() >= enough, "stopped early");
        let last = out[..out.len() - 1].iter().rposition(|byte| *byte == b'\n');
        assert!(last.is_none_or(|end| end + 1 < enough), "stopped late");
        from = next;
        all.append(&mut out);
    }
    all
}

fn text_of(name: &str, rows: &RecordBatch) -> String {
    String::from_utf8(encoded(name, rows, usize::MAX)).unwrap()
}

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
        .unwrap()
}

/// A column of one type, written as ndjson, without what is the same in all.
fn values(array: impl Array + 'static) -> Vec<String> {
    let lines = text_of("ndjson", &batch([("x", Arc::new(array))]));
    let lines = lines.lines().map(|line| {
        let value = line.strip_prefix("{\"x\":").and_then(|rest| rest.strip_suffix('}'));
        value.unwrap_or(line).to_owned()
    });
    lines.collect()
}

#[test]
fn numbers_keep_all_their_digits() {
    assert_eq!(values(Int64Array::from(vec![i64::MIN, 0])), ["-9223372036854775808", "0"]);
    assert_eq!(values(UInt64Array::from(vec![u64::MAX])), ["18446744073709551615"]);
    assert_eq!(values(Int8Array::from(vec![Some(-7), None])), ["-7", "{}"]);
    let odd = vec![0.1, -0.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    assert_eq!(values(Float64Array::from(odd)), ["0.1", "-0.0", "1e+300", "null", "null", "null"]);
    assert_eq!(values(Float32Array::from(vec![0.1])), ["0.1"]);
    let decimals = Decimal128Array::from(vec![-5, 12_345, 0]);
    let decimals = decimals.with_precision_and_scale(10, 3).unwrap();
    assert_eq!(values(decimals), ["-0.005", "12.345", "0.000"]);
    let hundreds = Decimal32Array::from(vec![12, 0]).with_precision_and_scale(9, -2).unwrap();
    assert_eq!(values(hundreds), ["1200", "0"]);
    let huge = Decimal256Array::from(vec![i256::MIN]).with_precision_and_scale(76, 1).unwrap();
    let digits = "-5789604461865809771178549250434395392663499233282028201972879200395656481996.8";
    assert_eq!(values(huge), [digits]);
}

#[test]
fn times_are_as_rfc_3339_and_iso_8601_have_them() {
    let instants = TimestampNanosecondArray::from(vec![1_700_000_000_120_000_000, 0]);
    let expected = ["\"2023-11-14T22:13:20.12Z\"", "\"1970-01-01T00:00:00Z\""];
    assert_eq!(values(instants.clone().with_timezone("UTC")), expected);
    assert_eq!(values(instants.clone().with_timezone("+02:00")), expected);
    assert_eq!(values(instants), expected);
    assert_eq!(values(TimestampSecondArray::from(vec![-1])), ["\"1969-12-31T23:59:59Z\""]);
    assert_eq!(values(TimestampMillisecondArray::from(vec![1])), ["\"1970-01-01T00:00:00.001Z\""]);
    assert_eq!(values(TimestampMicrosecondArray::from(vec![-1]))[0].len(), 29);
    assert_eq!(values(Date32Array::from(vec![19_782])), ["\"2024-02-29\""]);
    assert_eq!(values(Date64Array::from(vec![-1])), ["\"1969-12-31\""]);
    assert_eq!(values(Time32SecondArray::from(vec![86_399])), ["\"23:59:59\""]);
    assert_eq!(values(Time64NanosecondArray::from(vec![1_500_000_000])), ["\"00:00:01.5\""]);
    assert_eq!(values(DurationMillisecondArray::from(vec![-1_500])), ["\"-PT1.5S\""]);
}

#[test]
fn what_has_parts_is_an_object_or_an_array() {
    let mut lists = ListBuilder::new(Int32Builder::new());
    lists.append_value([Some(1), None, Some(3)]);
    lists.append_value([]);
    lists.append_null();
    assert_eq!(values(lists.finish()), ["[1,null,3]", "[]", "{}"]);
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        [Some(vec![Some(1), Some(2)]), None, Some(vec![Some(5), Some(6)])],
        2,
    );
    assert_eq!(values(fixed.slice(1, 2)), ["{}", "[5,6]"]);
    let view = ListViewArray::new(
        Arc::new(Field::new("item", DataType::Int32, true)),
        ScalarBuffer::from(vec![1, 0]),
        ScalarBuffer::from(vec![2, 0]),
        Arc::new(Int32Array::from(vec![7, 8, 9])),
        None,
    );
    assert_eq!(values(view), ["[8,9]", "[]"]);
    let inner = Fields::from(vec![
        Field::new("a \"b\"", DataType::Int32, true),
        Field::new("c", DataType::Boolean, true),
    ]);
    let structs = StructArray::new(
        inner,
        vec![
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        ],
        Some(NullBuffer::from(vec![true, true, false])),
    );
    assert_eq!(values(structs), ["{\"a \\\"b\\\"\":1,\"c\":true}", "{}", "{}"]);
    let mut counts = MapBuilder::new(None, Int32Builder::new(), StringBuilder::new());
    counts.keys().append_value(-4);
    counts.values().append_null();
    counts.keys().append_value(5);
    counts.values().append_value("five");
    counts.append(true).unwrap();
    assert_eq!(values(counts.finish()), ["{\"-4\":null,\"5\":\"five\"}"]);
}

#[test]
fn bytes_dictionaries_and_nulls_have_a_form() {
    let bytes: [&[u8]; 4] = [b"", b"f", b"fo", b"\xfb\xff\xfe"];
    let base64 = ["\"\"", "\"Zg==\"", "\"Zm8=\"", "\"+//+\""];
    assert_eq!(values(BinaryArray::from_iter_values(bytes)), base64);
    assert_eq!(values(LargeBinaryArray::from_iter_values(bytes)), base64);
    assert_eq!(values(BinaryViewArray::from_iter_values(bytes)), base64);
    let fixed = FixedSizeBinaryArray::try_from_iter([b"fo", b"ob"].iter()).unwrap();
    assert_eq!(values(fixed), ["\"Zm8=\"", "\"b2I=\""]);
    let words: DictionaryArray<Int8Type> =
        [Some("a\n"), None, Some("b"), Some("a\n")].into_iter().collect();
    assert_eq!(values(words), ["\"a\\n\"", "{}", "\"b\"", "\"a\\n\""]);
    let hidden = StringArray::from(vec![Some("a"), None]);
    let hidden = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![1, 0]), Arc::new(hidden));
    assert_eq!(values(hidden), ["{}", "\"a\""]);
    let nothing: DictionaryArray<Int32Type> = [None::<&str>, None].into_iter().collect();
    assert_eq!(values(nothing), ["{}", "{}"]);
    assert_eq!(values(NullArray::new(2)), ["{}", "{}"]);
    assert_eq!(values(LargeStringArray::from(vec!["\u{1}"])), ["\"\\u0001\""]);
}

#[test]
fn rows_without_columns_are_still_rows() {
    let options = RecordBatchOptions::new().with_row_count(Some(2));
    let rows =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    assert_eq!(text_of("ndjson", &rows), "{}\n{}\n");
}

#[test]
fn text_writes_the_message_or_the_only_column() {
    let message: ArrayRef = Arc::new(StringArray::from(vec![Some("one"), None, Some("a\nb")]));
    let level: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "z"]));
    let rows = batch([("level", level.clone()), ("message", message)]);
    assert_eq!((encoder("text").columns)(rows.schema_ref()), Ok(vec![1]));
    assert_eq!(text_of("text", &rows), "one\n\na\nb\n");
    assert_eq!(text_of("text", &batch([("level", level)])), "x\ny\nz\n");
    let plain = |array: ArrayRef| text_of("text", &batch([("only", array)]));
    assert_eq!(plain(Arc::new(Float64Array::from(vec![1.5, f64::NAN]))), "1.5\nNaN\n");
    assert_eq!(plain(Arc::new(TimestampSecondArray::from(vec![0]))), "1970-01-01T00:00:00Z\n");
    assert_eq!(plain(Arc::new(BooleanArray::from(vec![Some(true), None]))), "true\n\n");
    let words: DictionaryArray<Int32Type> = ["\"q\"", "r"].into_iter().collect();
    assert_eq!(plain(Arc::new(words)), "\"q\"\nr\n");
    let raw = batch([("only", Arc::new(BinaryArray::from_iter_values([b"\xff"])) as ArrayRef)]);
    assert_eq!(encoded("text", &raw, usize::MAX), b"\xff\n");
}

#[test]
fn parts_of_a_line_are_lines_of_their_own() {
    let mut views = StringViewBuilder::new();
    let block =
        views.append_block(Buffer::from(b"one part of a line, another part of it".to_vec()));
    views.try_append_view(block, 0, 18).unwrap();
    views.try_append_view(block, 19, 19).unwrap();
    let rows = batch([("message", Arc::new(views.finish()))]);
    assert_eq!(text_of("text", &rows), "one part of a line\n another part of it\n");
}

#[test]
fn what_cannot_be_written_is_refused_with_what_to_do() {
    let refused = |name: &str, fields: Vec<(&str, DataType)>| {
        let fields: Vec<_> = fields.into_iter().map(|(n, t)| Field::new(n, t, true)).collect();
        (encoder(name).columns)(&Schema::new(fields)).unwrap_err()
    };
    let two = refused("text", vec![("a", DataType::Int32), ("b", DataType::Utf8)]);
    assert_eq!(
        two.message,
        "text writes the column `message`, or the only one, and these rows have 2 columns: `a`, `b`"
    );
    assert!(two.help.unwrap().contains("codec = \"ndjson\""));
    let none = refused("text", vec![]);
    assert!(none.message.ends_with("and there are no columns"), "{}", none.message);
    let list = DataType::new_list(DataType::Int32, true);
    let nested = refused("text", vec![("message", list)]);
    assert!(nested.message.starts_with("text can't write the column `message`: List"));
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let deep = DataType::new_list(interval, true);
    let interval = refused("ndjson", vec![("a", DataType::Int32), ("gap", deep)]);
    assert!(interval.message.starts_with("ndjson can't write the column `gap`: "));
    assert!(interval.help.unwrap().contains("CAST(gap AS VARCHAR)"));
}

/// A row as JSON has it.
#[derive(Clone, Debug)]
struct Row {
    text: Option<String>,
    number: Option<i64>,
    float: Option<f64>,
    flag: Option<bool>,
    map: Option<Vec<(String, Option<String>)>>,
    list: Option<Vec<Option<i32>>>,
}

fn row() -> impl Strategy<Value = Row> {
    let text = || proptest::option::of("\\PC{0,60}|[\\x00-\\x7f]{0,60}");
    let key = "[a-z\"\\\\]{1,8}";
    (
        text(),
        any::<Option<i64>>(),
        any::<Option<f64>>(),
        any::<Option<bool>>(),
        proptest::option::of(proptest::collection::btree_map(key, text(), 0..4)),
        proptest::option::of(proptest::collection::vec(any::<Option<i32>>(), 0..4)),
    )
        .prop_map(|(text, number, float, flag, map, list)| {
            let map = map.map(|map| map.into_iter().collect());
            Row { text, number, float, flag, map, list }
        })
}

impl Row {
    fn value(&self) -> Value {
        let mut object = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            value.map(|value| object.insert(name.to_owned(), value));
        };
        for name in ["text", "view", "word"] {
            put(name, self.text.as_ref().map(|text| json!(text)));
        }
        put("number", self.number.map(|number| json!(number)));
        put("float", self.float.map(|float| json!(float)));
        put("flag", self.flag.map(|flag| json!(flag)));
        let map = self.map.clone().map(|map| {
            Value::Object(map.into_iter().map(|(key, value)| (key, json!(value))).collect())
        });
        put("map", map);
        put("list", self.list.as_ref().map(|list| json!(list)));
        Value::Object(object)
    }

    fn batch(rows: &[Row]) -> RecordBatch {
        let texts = || rows.iter().map(|row| row.text.as_deref());
        let words: DictionaryArray<Int32Type> = texts().collect();
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        let mut lists = ListBuilder::new(Int32Builder::new());
        for row in rows {
            for (key, value) in row.map.iter().flatten() {
                maps.keys().append_value(key);
                maps.values().append_option(value.as_ref());
            }
            maps.append(row.map.is_some()).unwrap();
            lists.append_option(row.list.clone());
        }
        batch([
            ("text", Arc::new(texts().collect::<StringArray>())),
            ("view", Arc::new(texts().collect::<StringViewArray>())),
            ("word", Arc::new(words)),
            ("number", Arc::new(rows.iter().map(|row| row.number).collect::<Int64Array>())),
            ("float", Arc::new(rows.iter().map(|row| row.float).collect::<Float64Array>())),
            ("flag", Arc::new(rows.iter().map(|row| row.flag).collect::<BooleanArray>())),
            ("map", Arc::new(maps.finish())),
            ("list", Arc::new(lists.finish())),
        ])
    }
}

proptest! {
    #[test]
    fn ndjson_reads_back_as_the_same_values(
        rows in proptest::collection::vec(row(), 1..20),
        cut in any::<prop::sample::Index>(),
        enough in 1_usize..400,
    ) {
        let cut = cut.index(rows.len());
        let batch = Row::batch(&rows).slice(cut, rows.len() - cut);
        let lines = String::from_utf8(encoded("ndjson", &batch, enough)).unwrap();
        let read: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected: Vec<Value> = rows[cut..].iter().map(Row::value).collect();
        prop_assert_eq!(read, expected);
    }

    /// Lines as a source gives them, views into the buffer that was read, with some filtered out,
    /// some null, and some from another buffer.
    #[test]
    fn text_is_what_joining_the_lines_gives(
        lines in proptest::collection::vec(("[ -~é\r]{0,40}", 0_u8..10), 1..60),
        enough in 1_usize..400,
    ) {
        let chunk: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
        let mut views = StringViewBuilder::new();
        let blocks = [(); 2].map(|()| views.append_block(Buffer::from(chunk.as_bytes().to_vec())));
        let (mut naive, mut offset) = (String::new(), 0);
        for (line, luck) in &lines {
            let length = u32::try_from(line.len()).unwrap();
            let block = blocks[usize::from(*luck == 1)];
            match luck {
                0 => views.append_null(),
                2 | 3 => {}
                _ => views.try_append_view(block, offset, length).unwrap(),
            }
            match luck {
                0 => naive.push('\n'),
                2 | 3 => {}
                _ => naive.push_str(&format!("{line}\n")),
            }
            offset += length + 1;
        }
        let rows = batch([("message", Arc::new(views.finish()))]);
        let written = String::from_utf8(encoded("text", &rows, enough)).unwrap();
        prop_assert_eq!(written, naive);
    }
}

#[test]
fn every_type_of_a_log_can_be_written() {
    let schema = tidegate_model::log_schema();
    assert_eq!((encoder("ndjson").columns)(&schema), Ok((0..6).collect()));
    assert_eq!((encoder("text").columns)(&schema), Ok(vec![4]));
}
