//! Rows of a whole body: all of them, or a word on what is wrong with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_buffer::Buffer;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use memchr::memchr_iter;
use tidegate_model::{Ack, BudgetHolder, Error, Partition, Position, SourceBatch};

use crate::clock;
use crate::codecs::{Chunk, Codec, Cutter, Decoder, Label, Line, Piece, Places, Shape, array};

/// An array may have so many elements: where they are takes eight bytes for each.
const ELEMENTS_MAX: usize = 1 << 20;

/// What a body is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Lines, read by this codec.
    Lines(Codec),
    /// A JSON array of records, or one record, each read by this codec.
    Array(Codec),
}

/// Why a body has no rows.
#[derive(Debug)]
pub(super) enum Wrong {
    /// The client's mistake, as it is told.
    Body(String),
    /// Ours.
    Ours(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// Makes rows, as anyone reads them.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) columns: SchemaRef,
    pub(super) holder: Arc<BudgetHolder>,
    pub(super) line_bytes_max: usize,
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
    /// How many rows there have been.
    pub(super) sequence: AtomicU64,
}

impl Rows {
    /// The batches of a body from that peer. Nothing is made of one that has a bad record.
    pub(super) fn of(
        &self,
        body: &Buffer,
        kind: Kind,
        peer: &str,
    ) -> Result<Vec<SourceBatch>, Wrong> {
        let (Kind::Lines(codec) | Kind::Array(codec)) = kind;
        let shape = Shape::new(Arc::clone(&self.columns), Arc::clone(&self.holder));
        let mut making = Making {
            rows: self,
            body,
            decoder: (codec.decoder)(shape),
            label: Label::from(peer),
            read_at: clock::now(),
            batches: Vec::new(),
        };
        match kind {
            Kind::Lines(_) => making.lines()?,
            Kind::Array(_) => making.array()?,
        }
        Ok(making.batches)
    }
}

struct Making<'m> {
    rows: &'m Rows,
    body: &'m Buffer,
    decoder: Box<dyn Decoder>,
    label: Label,
    read_at: i64,
    batches: Vec<SourceBatch>,
}

impl Making<'_> {
    fn lines(&mut self) -> Result<(), Wrong> {
        let mut cutter = Cutter::new(self.rows.line_bytes_max);
        let (mut from, mut lines) = (0, Vec::new());
        while from < self.body.len() {
            lines.clear();
            let rows_max = self.rows.rows_max;
            let bytes: &[u8] = self.body;
            let piece = Piece { bytes, from, offset: 0, ended: true, rows_max, prefilter: None };
            let cut = cutter.cut(piece, &mut lines);
            if let Some(long) = cut.too_long {
                let number = self.line_number(long.offset);
                let max = self.rows.line_bytes_max;
                let said = format!("line {number} has more than {max} bytes");
                return Err(Wrong::Body(said));
            }
            self.batches_of(&lines, |making, line, reason| {
                let offset = lines.get(line).map_or(0, |line| u64::from(line.start));
                format!("line {}: {reason}", making.line_number(offset))
            })?;
            if cut.used <= from {
                break;
            }
            from = cut.used;
        }
        Ok(())
    }

    fn array(&mut self) -> Result<(), Wrong> {
        let mut lines = Vec::new();
        let begun = self.body.len() - self.body.trim_ascii_start().len();
        if self.body.get(begun) == Some(&b'[') {
            let cut = array::cut(self.body, ELEMENTS_MAX, &mut lines);
            cut.map_err(|error| Wrong::Body(error.to_string()))?;
        } else if begun < self.body.len() {
            let ends = (u32::try_from(begun), u32::try_from(self.body.trim_ascii_end().len()));
            let (Ok(start), Ok(end)) = ends else {
                return Err(Wrong::Body("it is longer than any record may be".to_owned()));
            };
            lines.push(Line { start, end });
        }
        let _charged = self.rows.holder.charge(lines.capacity() * size_of::<Line>());
        let long = lines
            .iter()
            .position(|line| (line.end - line.start) as usize > self.rows.line_bytes_max);
        if let Some(element) = long {
            let max = self.rows.line_bytes_max;
            let said = format!("element {element} of the array has more than {max} bytes");
            return Err(Wrong::Body(said));
        }
        self.batches_of(&lines, |_, line, reason| format!("element {line} of the array: {reason}"))
    }

    /// Makes batches of lines; `bad` says which of all lines, and why.
    fn batches_of(
        &mut self,
        lines: &[Line],
        bad: impl Fn(&Self, usize, &str) -> String,
    ) -> Result<(), Wrong> {
        let mut first = 0;
        while first < lines.len() {
            let rest = lines.get(first..).unwrap_or_default();
            let count = self.fitting(rest);
            let chosen = rest.get(..count).unwrap_or_default();
            let sequence = self.rows.sequence.fetch_add(count as u64, Ordering::Relaxed);
            let decoded = self.decoder.decode(&Chunk {
                bytes: self.body,
                lines: chosen,
                places: Places::Rows(sequence),
                label: &self.label,
                read_at: self.read_at,
            })?;
            if let Some(malformed) = decoded.malformed {
                return Err(Wrong::Body(bad(self, first + malformed.line, &malformed.reason)));
            }
            self.batches.push(SourceBatch {
                rows: decoded.rows,
                start: sequence,
                position: Position {
                    partition: Partition::from("http"),
                    sequence: sequence + count as u64,
                    state: Bytes::new(),
                },
                read_at: self.read_at,
                bytes: bytes_of(chosen),
                refused: 0,
                skipped: 0,
                told: None,
            });
            first += count;
        }
        Ok(())
    }

    /// How many lines go into a batch; at least one.
    fn fitting(&self, lines: &[Line]) -> usize {
        let start = lines.first().map_or(0, |line| line.start);
        let fit = lines.partition_point(|line| (line.end - start) as usize <= self.rows.bytes_max);
        fit.min(self.rows.rows_max).clamp(1, lines.len())
    }

    fn line_number(&self, offset: u64) -> usize {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.body.len());
        memchr_iter(b'\n', self.body.get(..offset).unwrap_or_default()).count() + 1
    }
}

fn bytes_of(lines: &[Line]) -> u64 {
    let ends = lines.first().zip(lines.last());
    ends.map_or(0, |(first, last)| u64::from(last.end - first.start))
}

/// Gives each batch a part of the duty to tell what became of all of them.
pub(super) fn tell(batches: &mut [SourceBatch], told: Ack) {
    for batch in batches {
        batch.told = Some(told.split());
    }
    told.settle(tidegate_model::Verdict::Delivered);
}
