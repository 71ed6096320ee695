//! What Parquet makes of every type, read back by other readers.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, ListBuilder, MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::types::{Int8Type, Int32Type, Int64Type};
use arrow_array::*;
use arrow_buffer::{NullBuffer, i256};
use arrow_schema::{DataType, Field, Fields, IntervalUnit, Schema, TimeUnit, UnionFields};
use arrow_select::concat::concat_batches;
use proptest::prelude::*;
use tempfile::tempdir;
use tidegate_model::{Mistake, log_schema};
use tidegate_testkit::rows::of_parquet;

use crate::memory::{Memory, context_of, delivered};
use crate::parquet::{parquet_sink, read};

/// Writes rows in batches, with a commit after each, and reads them all.
async fn there_and_back(path: &Path, batches: &[RecordBatch], settings: &str) -> RecordBatch {
    let schema = batches[0].schema();
    let mut sink = parquet_sink(path, settings);
    assert_eq!(sink.columns(&schema), Ok((0..schema.fields().len()).collect()));
    sink.open(context_of(&Arc::new(Memory::default()), &schema)).await.unwrap();
    for (end, rows) in batches.iter().enumerate() {
        sink.write(rows).await.unwrap();
        sink.commit(&[delivered(end as u64)]).await.unwrap();
    }
    drop(sink);
    let (read, _) = read(path).unwrap();
    concat_batches(&read[0].schema(), &read).unwrap()
}

/// As the format calls what a list has, whatever we do.
fn element() -> Field {
    Field::new("element", DataType::Int32, true)
}

#[allow(clippy::too_many_lines, reason = "it is a table")]
fn columns() -> Vec<ArrayRef> {
    let mut lists = ListBuilder::new(Int32Builder::new()).with_field(element());
    lists.append_value([Some(1), None, Some(3)]);
    lists.append_value([]);
    lists.append_null();
    let [entry, key, value] = ["key_value", "key", "value"].map(str::to_owned);
    let names = Some(MapFieldNames { entry, key, value });
    let mut maps = MapBuilder::new(names, StringBuilder::new(), StringBuilder::new());
    maps.keys().append_value("a");
    maps.values().append_null();
    maps.keys().append_value("b");
    maps.values().append_value("c");
    maps.append(true).unwrap();
    maps.append(true).unwrap();
    maps.append(false).unwrap();
    let inner = Fields::from(vec![
        Field::new("a", DataType::Int32, true),
        Field::new("b", DataType::Boolean, true),
    ]);
    let structs = StructArray::new(
        inner,
        vec![
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        ],
        Some(NullBuffer::from(vec![true, true, false])),
    );
    let bytes: [Option<&[u8]>; 3] = [Some(b"\xff\0"), None, Some(b"")];
    let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(
        [Some([1, 2]), None, Some([3, 4])].into_iter(),
        2,
    );
    let words = [Some("a"), None, Some("é\n")];
    let dictionary: DictionaryArray<Int8Type> = words.into_iter().collect();
    let numbers = Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]);
    let numbers = DictionaryArray::<Int32Type>::new(
        Int32Array::from(vec![Some(0), None, Some(2)]),
        Arc::new(numbers),
    );
    let odd = vec![Some(f64::NAN), Some(f64::NEG_INFINITY), Some(-0.0)];
    let decimal = |precision, scale| {
        let values = Decimal128Array::from(vec![Some(-5), None, Some(9)]);
        Arc::new(values.with_precision_and_scale(precision, scale).unwrap())
    };
    let huge = Decimal256Array::from(vec![Some(i256::MIN), None, Some(i256::ONE)]);
    let ends = vec![Some(i64::MIN), None, Some(i64::MAX)];
    vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(i16::MAX)])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)])),
        Arc::new(Int64Array::from(ends.clone())),
        Arc::new(UInt8Array::from(vec![Some(0), None, Some(u8::MAX)])),
        Arc::new(UInt16Array::from(vec![Some(0), None, Some(u16::MAX)])),
        Arc::new(UInt32Array::from(vec![Some(0), None, Some(u32::MAX)])),
        Arc::new(UInt64Array::from(vec![Some(0), None, Some(u64::MAX)])),
        Arc::new(Float32Array::from(vec![Some(0.1), None, Some(f32::INFINITY)])),
        Arc::new(Float64Array::from(odd)),
        decimal(1, 0),
        decimal(9, 3),
        decimal(18, 18),
        decimal(38, 10),
        Arc::new(huge.with_precision_and_scale(76, 1).unwrap()),
        Arc::new(StringArray::from(words.to_vec())),
        Arc::new(LargeStringArray::from(words.to_vec())),
        Arc::new(StringViewArray::from(words.to_vec())),
        Arc::new(BinaryArray::from(bytes.to_vec())),
        Arc::new(LargeBinaryArray::from(bytes.to_vec())),
        Arc::new(BinaryViewArray::from(bytes.to_vec())),
        Arc::new(fixed.unwrap()),
        Arc::new(dictionary),
        Arc::new(numbers),
        Arc::new(Date32Array::from(vec![Some(-1), None, Some(19_782)])),
        Arc::new(Date64Array::from(vec![Some(-86_400_000), None, Some(0)])),
        Arc::new(Time32MillisecondArray::from(vec![Some(0), None, Some(86_399_999)])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(0), None, Some(86_399_999_999)])),
        Arc::new(Time64NanosecondArray::from(vec![Some(0), None, Some(86_399_999_999_999)])),
        Arc::new(TimestampMillisecondArray::from(ends.clone())),
        Arc::new(TimestampMicrosecondArray::from(ends.clone()).with_timezone("+02:00")),
        Arc::new(TimestampNanosecondArray::from(ends).with_timezone("UTC")),
        Arc::new(NullArray::new(3)),
        Arc::new(lists.finish()),
        Arc::new(maps.finish()),
        Arc::new(structs),
    ]
}

#[tokio::test]
async fn every_type_comes_back_as_it_was() {
    let folder = tempdir().unwrap();
    let names: Vec<_> = (0..columns().len()).map(|column| format!("c{column}")).collect();
    let columns = names.into_iter().zip(columns()).map(|(name, array)| (name, array, true));
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    for compression in ["none", "snappy", "zstd"] {
        let path = folder.path().join(compression);
        let settings = format!("compression = '{compression}'");
        let read = there_and_back(&path, &[rows.clone(), rows.slice(1, 2)], &settings).await;
        let expected = concat_batches(&rows.schema(), [&rows, &rows.slice(1, 2)]).unwrap();
        for (field, (found, expected)) in
            rows.schema().fields().iter().zip(read.columns().iter().zip(expected.columns()))
        {
            assert_eq!(found, expected, "{field}");
        }
    }
}

#[test]
fn what_parquet_has_no_type_for_is_refused_with_what_to_do() {
    let refused = |data_type: DataType| -> Mistake {
        let fields =
            vec![Field::new("id", DataType::Int64, false), Field::new("x", data_type, true)];
        let sink = parquet_sink(Path::new("x"), "");
        sink.columns(&Arc::new(Schema::new(fields))).unwrap_err()
    };
    let list = |of| DataType::new_list(of, true);
    let dictionary = |of| DataType::Dictionary(Box::new(DataType::Int32), Box::new(of));
    let one = Field::new("a", DataType::Duration(TimeUnit::Second), true);
    let ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
    let values = Arc::new(Field::new("values", DataType::Int32, true));
    for data_type in [
        DataType::Duration(TimeUnit::Microsecond),
        DataType::Interval(IntervalUnit::MonthDayNano),
        list(DataType::Interval(IntervalUnit::DayTime)),
        DataType::Struct(vec![one].into()),
        DataType::Struct(Fields::empty()),
        DataType::RunEndEncoded(ends, values),
        DataType::Union(UnionFields::empty(), arrow_schema::UnionMode::Sparse),
        dictionary(DataType::Utf8View),
        dictionary(DataType::Duration(TimeUnit::Second)),
        DataType::Decimal128(9, -2),
        DataType::Decimal32(1, 0),
    ] {
        let Mistake { message, help, .. } = refused(data_type.clone());
        let said = format!("Parquet has no type for the column `x`: {data_type}");
        assert_eq!((message, help.unwrap().contains("CAST(x AS VARCHAR)")), (said, true));
    }
    let help = refused(DataType::Timestamp(TimeUnit::Second, None)).help.unwrap();
    assert_eq!(help, "make it finer in SQL: CAST(x AS TIMESTAMP)");
    let help = refused(DataType::Time32(TimeUnit::Second)).help.unwrap();
    assert_eq!(help, "make it finer in SQL: CAST(x AS TIME)");
    let sink = parquet_sink(Path::new("x"), "");
    assert!(sink.columns(&Arc::new(Schema::empty())).is_err());
    assert_eq!(sink.columns(&log_schema()), Ok((0..6).collect()));
}

#[tokio::test]
#[ignore = "needs Python with DuckDB; run by cargo xtask test"]
async fn another_reader_finds_the_same_values() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.parquet");
    let instants = vec![Some(1_700_000_000_120_000), None];
    let days = Date32Array::from(vec![Some(19_782), None]);
    let amount = Decimal128Array::from(vec![Some(12_345), None]);
    let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    maps.keys().append_value("k");
    maps.values().append_value("v");
    maps.append(true).unwrap();
    maps.append(false).unwrap();
    let lists = [Some(vec![Some(1), None]), None];
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
    let columns: Vec<(&str, ArrayRef, &str, &str)> = vec![
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None])), "BOOLEAN", "t"),
        (
            "i",
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
            "BIGINT",
            "-9223372036854775808",
        ),
        ("u", Arc::new(UInt8Array::from(vec![Some(255), None])), "UTINYINT", "255"),
        ("f", Arc::new(Float64Array::from(vec![Some(0.1), None])), "DOUBLE", "0.1"),
        ("n", Arc::new(amount.with_precision_and_scale(20, 3).unwrap()), "DECIMAL(20,3)", "12.345"),
        ("t", Arc::new(StringViewArray::from(vec![Some("é\t\0x"), None])), "VARCHAR", "é\t\0x"),
        ("y", Arc::new(BinaryArray::from(vec![Some(&b"\xab"[..]), None])), "BLOB", "\\xab"),
        ("d", Arc::new(days), "DATE", "2024-02-29"),
        (
            "s",
            Arc::new(TimestampMicrosecondArray::from(instants.clone())),
            "TIMESTAMP",
            "2023-11-14 22:13:20.12",
        ),
        (
            "z",
            Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("UTC")),
            "TIMESTAMP WITH TIME ZONE",
            "2023-11-14 22:13:20.12+00",
        ),
        ("m", Arc::new(maps.finish()), "MAP(VARCHAR, VARCHAR)", "{\"k\":\"v\"}"),
        ("l", Arc::new(lists), "BIGINT[]", "[1,null]"),
    ];
    let arrays = columns.iter().map(|(name, array, ..)| (*name, Arc::clone(array), true));
    let rows = RecordBatch::try_from_iter_with_nullable(arrays).unwrap();
    there_and_back(&path, &[rows.slice(0, 1), rows.slice(1, 1), rows], "").await;
    let table = of_parquet(&path);
    let values: Vec<_> = columns.iter().map(|(.., value)| Some((*value).to_owned())).collect();
    let none = vec![None; columns.len()];
    assert_eq!(table.rows, [values.clone(), none.clone(), values, none]);
    assert_eq!(table.names, columns.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    assert_eq!(table.types, columns.iter().map(|(_, _, kind, _)| *kind).collect::<Vec<_>>());
}

/// A row of every kind of column that there is.
type Row = (Option<String>, Option<i64>, Option<f64>, Option<Vec<Option<i32>>>, bool);

fn row() -> impl Strategy<Value = Row> {
    let text = proptest::option::of(prop_oneof!["\\PC{0,30}", "same|other", "[a-z]{500}"]);
    let list = proptest::option::of(proptest::collection::vec(any::<Option<i32>>(), 0..4));
    (text, any::<Option<i64>>(), any::<Option<f64>>(), list, any::<bool>())
}

fn batch(rows: &[Row]) -> RecordBatch {
    let texts = || rows.iter().map(|row| row.0.as_deref());
    let words: DictionaryArray<Int32Type> = texts().collect();
    let mut lists = ListBuilder::new(Int32Builder::new()).with_field(element());
    for row in rows {
        lists.append_option(row.3.clone());
    }
    let flags: BooleanArray = rows.iter().map(|row| Some(row.4)).collect();
    let columns: [(&str, ArrayRef, bool); 7] = [
        ("text", Arc::new(texts().collect::<StringArray>()), true),
        ("view", Arc::new(texts().collect::<StringViewArray>()), true),
        ("word", Arc::new(words), true),
        ("number", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()), true),
        ("float", Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()), true),
        ("list", Arc::new(lists.finish()), true),
        ("flag", Arc::new(flags), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn rows_come_back_as_they_were(
        rows in proptest::collection::vec(row(), 1..60),
        batches in 1_usize..5,
        row_group_rows in 1_usize..30,
    ) {
        let folder = tempdir().unwrap();
        let path = folder.path().join("out.parquet");
        let whole = batch(&rows);
        let size = rows.len().div_ceil(batches);
        let parts: Vec<_> = (0..rows.len())
            .step_by(size)
            .map(|from| whole.slice(from, size.min(rows.len() - from)))
            .collect();
        let settings = format!("row_group_rows = {row_group_rows}");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(there_and_back(&path, &parts, &settings));
        prop_assert_eq!(&read, &whole);
    }
}
