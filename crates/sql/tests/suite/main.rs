//! What queries promise, seen from outside: one file a topic.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

/// Settings, and where mistakes are pointed at.
mod settings;

/// What is refused, and what is said.
mod mistakes;

/// What SELECT and WHERE make of values.
mod values;

/// Logs: severities, metadata, the read time, hidden columns.
mod logs;

/// Rows that fail, and those beside them.
mod fate;

/// The same whatever the slices.
mod slices;

/// What a row must have to be of use.
mod required;

use std::sync::Arc;
use std::time::Duration;

use arrow_array::builder::{MapBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray,
    TimestampNanosecondArray, UInt8Array,
};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidegate_model::{Mistake, Moment, Output, Settings, Stage, Transform, log_schema};
use tidegate_sql::SqlTransform;

/// When the rows of tests were read: 2024-05-06 07:08:09.123 UTC.
pub(crate) const READ_AT: i64 = 1_714_979_289_123_000_000;

pub(crate) fn moment() -> Moment {
    Moment { read_at: READ_AT, elapsed: Duration::ZERO }
}

/// Numbers, texts, times and a map; most may be null.
pub(crate) fn table() -> SchemaRef {
    let metadata = log_schema().field_with_name("metadata").unwrap().clone();
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Int64, true),
        Field::new("x", DataType::Float64, true),
        Field::new("word", DataType::Utf8, true),
        Field::new("message", DataType::Utf8View, false),
        Field::new("severity", DataType::UInt8, true),
        Field::new("timestamp", time, false),
        metadata,
        Field::new("UserId", DataType::Int64, true),
    ]))
}

/// Six rows of [`table`].
pub(crate) fn rows() -> RecordBatch {
    let mut metadata = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for row in 0..6 {
        if row == 1 {
            metadata.append(false).unwrap();
            continue;
        }
        if row % 2 == 0 {
            metadata.keys().append_value("user_id");
            metadata.values().append_value(format!("u{row}"));
        }
        metadata.keys().append_value("ä");
        metadata.values().append_option((row != 3).then_some("ü"));
        metadata.append(true).unwrap();
    }
    let metadata = metadata.finish();
    let schema = table();
    let DataType::Map(entries, sorted) = schema.field(8).data_type() else { panic!() };
    let DataType::Struct(entry) = entries.data_type() else { panic!() };
    let (_, offsets, old, nulls, _) = metadata.into_parts();
    let old = arrow_array::StructArray::new(entry.clone(), old.columns().to_vec(), None);
    let metadata = arrow_array::MapArray::new(Arc::clone(entries), offsets, old, nulls, *sorted);
    let times = [0, 1_000_000_000, READ_AT, READ_AT - 1, -1, 86_400_000_000_000];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![0, 1, 2, 3, 4, 5])),
        Arc::new(Int64Array::from(vec![Some(0), Some(2), None, Some(-5), Some(i64::MAX), Some(0)])),
        Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(2), Some(1), Some(0)])),
        Arc::new(Float64Array::from(vec![
            Some(0.5),
            Some(0.0),
            None,
            Some(-1.5),
            Some(1e300),
            Some(f64::NAN),
        ])),
        Arc::new(StringArray::from(vec![
            Some("12"),
            Some("abc"),
            None,
            Some(""),
            Some("-7"),
            Some("Größe"),
        ])),
        Arc::new(StringViewArray::from(vec![
            "12:00 ERROR disk is full",
            "info: all is well",
            "warn",
            "",
            "größer als je zuvor ERROR",
            "status=404 took 12ms",
        ])),
        Arc::new(UInt8Array::from(vec![Some(17), Some(9), Some(13), None, Some(21), Some(1)])),
        Arc::new(TimestampNanosecondArray::from(times.to_vec()).with_timezone("UTC")),
        Arc::new(metadata),
        Arc::new(Int64Array::from(vec![Some(7); 6])),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

pub(crate) fn transform(query: &str) -> Result<SqlTransform, Mistake> {
    let toml = format!("query = '''\n{query}'''");
    SqlTransform::from_settings(&Settings::from_toml(&toml).unwrap())
}

/// The stage of a query over rows that have the columns it asks for.
pub(crate) fn stage(query: &str, input: &SchemaRef) -> (Box<dyn Stage>, Vec<usize>) {
    let transform = transform(query).unwrap_or_else(|mistake| panic!("{query}: {mistake:?}"));
    let columns = transform.columns(input).unwrap_or_else(|mistake| panic!("{query}: {mistake:?}"));
    let narrow = Arc::new(input.project(&columns).unwrap());
    let stage = transform.plan(&narrow).unwrap_or_else(|mistake| panic!("{query}: {mistake:?}"));
    (stage, columns)
}

/// What became of all rows.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) rows: RecordBatch,
    pub(crate) rejected: Option<RecordBatch>,
    pub(crate) reasons: Vec<String>,
    pub(crate) calls: usize,
}

/// Gives the stage its rest again until there is none.
pub(crate) fn drain(stage: &mut dyn Stage, rows: RecordBatch) -> Outcome {
    let (mut made, mut rejected, mut reasons, mut calls) = (vec![], vec![], vec![], 0);
    let mut open = Some(rows);
    while let Some(rows) = open {
        let before = rows.num_rows();
        let Output { rows, rejects, rest, wait } = stage.apply(rows, moment()).unwrap();
        assert_eq!((rows.schema(), wait), (stage.schema(), Duration::ZERO));
        assert!(rest.as_ref().is_none_or(|rest| (1..before).contains(&rest.num_rows())));
        made.push(rows);
        if let Some(rejects) = rejects {
            assert!(rejects.rows.num_rows() > 0);
            assert_eq!(rejects.rows.num_rows(), rejects.reasons.len());
            rejected.push(rejects.rows);
            reasons.extend(rejects.reasons);
        }
        calls += 1;
        open = rest;
    }
    let all = |parts: &[RecordBatch]| {
        arrow_select::concat::concat_batches(&parts[0].schema(), parts).unwrap()
    };
    let rejected = (!rejected.is_empty()).then(|| all(&rejected));
    Outcome { rows: all(&made), rejected, reasons, calls }
}

/// Runs a query over rows.
pub(crate) fn run(query: &str, rows: &RecordBatch) -> Outcome {
    let (mut stage, columns) = stage(query, &rows.schema());
    drain(&mut *stage, rows.project(&columns).unwrap())
}

/// The rows as text, a line each, columns between `|`, null as `-`.
pub(crate) fn lines(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("-");
    let columns = rows.columns().iter();
    let columns: Vec<_> =
        columns.map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let line = |row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|");
    (0..rows.num_rows()).map(line).collect()
}

/// What a query makes of [`rows`], and for what reasons it rejects some.
pub(crate) fn query(query: &str) -> (Vec<String>, Vec<String>) {
    let outcome = run(query, &rows());
    (lines(&outcome.rows), outcome.reasons)
}
