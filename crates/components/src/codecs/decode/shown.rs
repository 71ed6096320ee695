//! What decoders make of a text, shown as the tests of all of them look at it.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{TimestampNanosecondType, UInt8Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_buffer::Buffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tidegate_flow::ByteBudget;
use tidegate_model::{OFFSET, log_schema};

use super::{Chunk, Codec, Decoded, Label, Places, Shape};
use crate::codecs::{Cutter, Piece};

/// 2026-03-10 12:00:00 UTC.
pub(super) const READ_AT: i64 = 1_773_144_000_000_000_000;

/// What a codec makes of a text that begins its partition.
pub(super) fn decode(codec: Codec, text: &[u8], columns: SchemaRef) -> Decoded {
    decode_at(codec, text, columns, Places::Bytes(0))
}

/// What a codec makes of a text whose lines are at these places.
pub(super) fn decode_at(codec: Codec, text: &[u8], columns: SchemaRef, places: Places) -> Decoded {
    let budget = ByteBudget::new(64 << 20);
    let holder = Arc::new(budget.holder(0).unwrap());
    let bytes = Buffer::from(text.to_vec());
    let mut lines = Vec::new();
    let (ended, rows_max, prefilter) = (true, usize::MAX, None);
    let piece = Piece { bytes: &bytes, from: 0, offset: 0, ended, rows_max, prefilter };
    Cutter::new(1 << 20).cut(piece, &mut lines);
    let label = &Label::from("test");
    let chunk = Chunk { bytes: &bytes, lines: &lines, places, label, read_at: READ_AT };
    let decoded = (codec.decoder)(Shape::new(columns, holder)).decode(&chunk).unwrap();
    for column in decoded.rows.columns() {
        column.to_data().validate_full().unwrap();
    }
    decoded
}

/// All columns of a log, and where the rows are.
pub(super) fn with_offsets() -> SchemaRef {
    let mut fields = log_schema().fields().to_vec();
    fields.push(Arc::new(Field::new(OFFSET, DataType::UInt64, false)));
    Arc::new(Schema::new(fields))
}

/// Where the rows are.
pub(super) fn offsets(rows: &RecordBatch) -> Vec<u64> {
    rows.column_by_name(OFFSET).unwrap().as_primitive::<UInt64Type>().values().to_vec()
}

/// Seconds, severity, level, message and metadata of each row, as text.
pub(super) fn rows(batch: &RecordBatch) -> Vec<String> {
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
        let entries =
            entries.map(|(key, value)| format!(" {}={}", key.unwrap(), value.unwrap_or("NULL")));
        let entries: String = entries.collect();
        let null = if metadata.is_null(row) { " null" } else { &entries };
        format!("{time}; {level}; {};{null}", messages.value(row))
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Checks that any choice of columns is the same as those columns of all.
pub(super) fn check_choices(codec: Codec, text: &[u8]) {
    let all = decode(codec, text, with_offsets());
    for choice in 0..1 << all.rows.num_columns() {
        let wanted: Vec<usize> =
            (0..all.rows.num_columns()).filter(|column| choice >> column & 1 == 1).collect();
        let columns = Arc::new(with_offsets().project(&wanted).unwrap());
        let some = decode(codec, text, columns);
        assert_eq!(some.rows, all.rows.project(&wanted).unwrap(), "{wanted:?}");
        assert_eq!((some.refused, &some.malformed), (all.refused, &all.malformed), "{wanted:?}");
    }
}
