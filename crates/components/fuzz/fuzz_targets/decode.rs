//! Arbitrary bytes, cut at arbitrary places, given to every decoder: the columns are what Arrow
//! calls valid, the lines are those of a plain decoder, columns that nobody reads change nothing,
//! memory that a row refers to is not used again, and all that was charged comes back.
#![no_main]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use libfuzzer_sys::fuzz_target;
use tidegate_components::codecs::{
    Chunk, Codec, Cutter, DECODERS, Label, Piece, Places, Pool, Shape,
};
use tidegate_flow::{BudgetHolder, ByteBudget};
use tidegate_model::{OFFSET, log_schema};

/// Lines as plainly as they can be had.
#[path = "../plain.rs"]
mod plain;

/// Blocks of this size are used again.
const BLOCK_BYTES: usize = 64 << 10;

/// Rows of so many chunks live at once, where rows are kept.
const KEPT_MAX: usize = 4;

/// So many chunks are as small as an input says; then all that is left is one, to end in time.
const SMALL_CHUNKS: usize = 32;

/// What the first five bytes of an input say.
struct Settings {
    chunk_bytes: usize,
    line_bytes_max: usize,
    rows_max: usize,
    /// A bit for each column that is read.
    columns: u8,
    /// Whether rows live while more is read.
    kept: bool,
}

fuzz_target!(|input: &[u8]| {
    let Some((&[chunk, line, rows, columns, kept], text)) = input.split_first_chunk() else {
        return;
    };
    let settings = Settings {
        chunk_bytes: 1 + usize::from(chunk).pow(2),
        line_bytes_max: 1 + 2 * usize::from(line),
        rows_max: 1 + usize::from(rows),
        columns,
        kept: kept % 2 == 1,
    };
    for codec in DECODERS {
        decode(name, *new, &settings, text);
    }
});

/// Decodes a text chunk by chunk, as a source does.
fn decode(codec: &Codec, settings: &Settings, text: &[u8]) {
    let Codec { name, decoder: new, .. } = *codec;
    let budget = ByteBudget::new(1 << 30);
    let holder = Arc::new(budget.holder(0).unwrap());
    let pool = Pool::default();
    let (all, some, wanted) = schemas(settings.columns);
    let mut whole = new(Shape::new(all, Arc::clone(&holder)));
    let mut part = new(Shape::new(some, Arc::clone(&holder)));
    let mut cutter = Cutter::new(settings.line_bytes_max);
    let (mut lines, mut at, mut size, mut chunks) = (Vec::new(), 0, settings.chunk_bytes, 0);
    let (mut kept, mut seen, mut repaired, mut refused) = (Vec::new(), Vec::new(), 0, 0);
    while at < text.len() {
        chunks += 1;
        let (size_max, rows_max) = match chunks {
            ..=SMALL_CHUNKS => (size, settings.rows_max),
            _ => (usize::MAX, usize::MAX),
        };
        let filled = size_max.min(text.len() - at);
        let mut space = pool.space(holder.try_acquire(filled.max(BLOCK_BYTES)).unwrap());
        space.bytes_mut()[..filled].copy_from_slice(&text[at..at + filled]);
        let bytes = space.into_buffer(filled);
        let (offset, ended) = (at as u64, at + filled == text.len());
        lines.clear();
        let piece = Piece { bytes: &bytes, from: 0, offset, ended, rows_max, prefilter: None };
        let cut = cutter.cut(piece, &mut lines);
        refused += cut.refused;
        at += cut.used;
        if cut.used == 0 {
            assert!(size < cutter.chunk_bytes_min(), "{name}: no way forward");
            size *= 2;
            continue;
        }
        size = settings.chunk_bytes;
        let chunk = Chunk {
            bytes: &bytes,
            lines: &lines,
            places: Places::Bytes(offset),
            label: &Label::from("fuzz"),
            read_at: 1_773_144_000_000_000_000,
        };
        let rows = whole.decode(&chunk).unwrap();
        let fewer = part.decode(&chunk).unwrap().rows;
        assert_eq!(fewer, rows.rows.project(&wanted).unwrap(), "{name}: {wanted:?}");
        repaired += rows.repaired;
        kept.extend([rows.rows, fewer]);
        // Two for each chunk.
        let done = kept.len().saturating_sub(if settings.kept { 2 * KEPT_MAX } else { 0 });
        see(&mut seen, kept.drain(..done));
    }
    see(&mut seen, kept.drain(..));
    let expected = plain::lines(text, settings.line_bytes_max);
    let messages = expected.lines.iter().map(|(offset, line)| {
        let line = String::from_utf8_lossy(line);
        let message = if name == "auto" { plain::message(&line) } else { None };
        (*offset, message.unwrap_or_else(|| line.into_owned()))
    });
    assert_eq!(seen, messages.collect::<Vec<_>>(), "{name}");
    assert_eq!((repaired, refused), (expected.broken, expected.refused), "{name}");
    all_is_given_back(&holder);
}

/// All columns there are; those that are read; and which of all these are.
fn schemas(columns: u8) -> (SchemaRef, SchemaRef, Vec<usize>) {
    let mut fields = log_schema().fields().to_vec();
    fields.push(Arc::new(Field::new(OFFSET, DataType::UInt64, false)));
    let all = Schema::new(fields);
    let wanted: Vec<usize> =
        (0..all.fields().len()).filter(|column| columns >> column & 1 == 1).collect();
    let some = all.project(&wanted).unwrap();
    (Arc::new(all), Arc::new(some), wanted)
}

/// Checks batches, and takes offset and message of each row of those that have all columns.
fn see(seen: &mut Vec<(u64, String)>, batches: impl Iterator<Item = RecordBatch>) {
    for (number, batch) in batches.enumerate() {
        for column in batch.columns() {
            column.to_data().validate_full().unwrap();
        }
        if number % 2 == 0 {
            let offsets = batch.column(6).as_primitive::<UInt64Type>().values().iter();
            let messages = batch.column(4).as_string_view().iter().flatten();
            seen.extend(offsets.copied().zip(messages.map(str::to_owned)));
        }
    }
}

fn all_is_given_back(holder: &BudgetHolder) {
    assert_eq!(holder.held(), 0, "bytes that nobody has are still charged");
}
