//! Arbitrary bytes, cut at arbitrary places, given to every decoder: the columns are what Arrow
//! calls valid, the lines are those of a plain decoder, but for such as may be skipped or, where
//! they are no JSON objects, are refused, messages of syslog are the end of their line, columns that
//! nobody reads change nothing, memory that a row refers to is not used again, and all that was
//! charged comes back.
#![no_main]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use libfuzzer_sys::fuzz_target;
use tidegate_components::codecs::{
    Chunk, Codec, Cutter, DECODERS, Label, Piece, Places, Pool, Prefilter, Shape,
};
use tidegate_flow::ByteBudget;
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

/// Texts that rows may have to have.
const TEXTS: [&str; 8] = ["ERROR", "a", "ä", "ms", "\0", "\r", "line", "\u{fffd}"];

/// What the first six bytes of an input say.
struct Settings {
    chunk_bytes: usize,
    line_bytes_max: usize,
    rows_max: usize,
    /// A bit for each column that is read.
    columns: u8,
    /// Whether rows live while more is read.
    kept: bool,
    /// Of which a row must have one, if that is asked for.
    required: Option<Vec<Box<str>>>,
}

/// What was made of a text.
#[derive(Default)]
struct Made {
    /// Offset and message of each row.
    rows: Vec<(u64, String)>,
    repaired: u64,
    refused: u64,
    malformed: u64,
    skipped: u64,
}

fuzz_target!(|input: &[u8]| {
    let Some((&[chunk, line, rows, columns, kept, required], text)) = input.split_first_chunk()
    else {
        return;
    };
    let texts = TEXTS.iter().enumerate().filter(|(text, _)| required >> text & 1 == 1);
    let texts = texts.map(|(_, text)| Box::from(*text));
    let settings = Settings {
        chunk_bytes: 1 + usize::from(chunk).pow(2),
        line_bytes_max: 1 + 2 * usize::from(line),
        rows_max: 1 + usize::from(rows),
        columns,
        kept: kept % 2 == 1,
        required: (required > 0).then(|| texts.collect()),
    };
    for codec in DECODERS {
        let prefilter = settings.required.as_deref();
        let prefilter = prefilter.and_then(|texts| Prefilter::new(texts, codec.escapes));
        let made = decode(codec, &settings, prefilter.as_ref(), text);
        compare(codec.name, &settings, prefilter.is_some(), made, text);
    }
});

/// Decodes a text chunk by chunk, as a source does.
fn decode(codec: &Codec, settings: &Settings, prefilter: Option<&Prefilter>, text: &[u8]) -> Made {
    let (name, new) = (codec.name, codec.decoder);
    let budget = ByteBudget::new(1 << 30);
    let holder = Arc::new(budget.holder(0).unwrap());
    let pool = Pool::default();
    let (all, some, wanted) = schemas(settings.columns);
    let mut whole = new(Shape::new(all, Arc::clone(&holder)));
    let mut part = new(Shape::new(some, Arc::clone(&holder)));
    let mut cutter = Cutter::new(settings.line_bytes_max);
    let (mut lines, mut at, mut size, mut chunks) = (Vec::new(), 0, settings.chunk_bytes, 0);
    let (mut kept, mut made) = (Vec::new(), Made::default());
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
        let piece = Piece { bytes: &bytes, from: 0, offset, ended, rows_max, prefilter };
        let cut = cutter.cut(piece, &mut lines);
        (made.refused, made.skipped) = (made.refused + cut.refused, made.skipped + cut.skipped);
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
        let fewer = part.decode(&chunk).unwrap();
        assert_eq!(fewer.rows, rows.rows.project(&wanted).unwrap(), "{name}: {wanted:?}");
        assert_eq!(fewer.malformed, rows.malformed, "{name}: {wanted:?}");
        assert_eq!(rows.malformed.is_some(), rows.refused > 0, "{name}");
        made.repaired += rows.repaired;
        made.malformed += rows.refused;
        kept.extend([rows.rows, fewer.rows]);
        // Two for each chunk.
        let done = kept.len().saturating_sub(if settings.kept { 2 * KEPT_MAX } else { 0 });
        see(&mut made.rows, kept.drain(..done));
    }
    see(&mut made.rows, kept.drain(..));
    drop((whole, part));
    assert_eq!(holder.held(), 0, "bytes that nobody has are still charged");
    made
}

/// Compares with what a plain decoder makes.
fn compare(name: &str, settings: &Settings, skips: bool, made: Made, text: &[u8]) {
    let plain = plain::lines(text, settings.line_bytes_max);
    let mut seen = made.rows.iter().peekable();
    let (mut malformed, mut blank) = (0, 0);
    for (offset, line) in &plain.lines {
        let line = String::from_utf8_lossy(line);
        let object = if matches!(name, "auto" | "json") { plain::object(&line) } else { None };
        if name == "json" && object.is_none() {
            match line.trim_ascii().is_empty() {
                true => blank += 1,
                false => malformed += 1,
            }
            continue;
        }
        let message = match name {
            "syslog" => seen.peek().filter(|row| row.0 == *offset).map(|row| {
                assert!(plain::is_end(&row.1, &line), "{row:?} is not of {line:?}");
                row.1.clone()
            }),
            _ => object.flatten(),
        };
        let row = (*offset, message.unwrap_or_else(|| line.into_owned()));
        if seen.next_if_eq(&&row).is_none() {
            let texts = settings.required.as_deref().filter(|_| skips);
            let wanted = texts.is_none_or(|texts| texts.iter().any(|text| row.1.contains(&**text)));
            assert!(!wanted, "{name}: {row:?} is missing, there is {:?}", seen.peek());
        }
    }
    assert_eq!(seen.next(), None, "{name}: no such row");
    let lines = plain.lines.len() as u64 + plain.refused;
    let told = made.rows.len() as u64 + made.refused + made.malformed + made.skipped;
    if skips {
        assert!(made.repaired <= plain.broken && made.refused <= plain.refused, "{name}");
        assert!(made.malformed <= malformed && (told..=told + blank).contains(&lines), "{name}");
    } else {
        assert_eq!((made.repaired, made.refused), (plain.broken, plain.refused), "{name}");
        assert_eq!((made.malformed, told + blank), (malformed, lines), "{name}");
    }
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
