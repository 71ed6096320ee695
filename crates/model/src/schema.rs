//! The schema of logs: OpenTelemetry's log record, flattened. It is one for all, so that SQL can be
//! checked before a byte is read.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// The name of the entries' field in `metadata`'s type.
pub const METADATA_ENTRY: &str = "entries";

/// The schema of every log source.
///
/// | column | type | note |
/// |---|---|---|
/// | `timestamp` | Timestamp(ns, UTC) | from the record, else when it was read |
/// | `severity` | UInt8, nullable | OpenTelemetry's severity number, 1 to 24 |
/// | `level` | Utf8, nullable | the record's own word for it |
/// | `source` | Dictionary(Int32, Utf8) | which file, peer, table |
/// | `message` | Utf8View | the text; points into the buffer that was read |
/// | `metadata` | Map(Utf8, Utf8), nullable | everything else |
pub fn log_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let source = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let entry = Fields::from(vec![
            Field::new("keys", DataType::Utf8, false),
            Field::new("values", DataType::Utf8, true),
        ]);
        let entries = Field::new(METADATA_ENTRY, DataType::Struct(entry), false);
        Arc::new(Schema::new(vec![
            Field::new("timestamp", time, false),
            Field::new("severity", DataType::UInt8, true),
            Field::new("level", DataType::Utf8, true),
            Field::new("source", source, false),
            Field::new("message", DataType::Utf8View, false),
            Field::new("metadata", DataType::Map(Arc::new(entries), false), true),
        ]))
    });
    Arc::clone(&SCHEMA)
}
