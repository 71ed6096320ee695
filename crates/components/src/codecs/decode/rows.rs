//! Rows in the making: the columns that a decoder fills line by line, as far as anyone reads them.

use arrow_array::UInt8Array;
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, ScalarBuffer};
use tidegate_model::{BudgetHolder, Result};

use super::Chunk;
use super::columns::{Found, Shape, impossible};
use super::texts::{Metadata, Texts};
use super::time::Now;
use crate::codecs::space::charged;
use crate::codecs::views::Views;

/// Which columns anyone reads, of those that have to be found in a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    pub(super) timestamp: bool,
    pub(super) severity: bool,
    pub(super) level: bool,
    pub(super) message: bool,
    pub(super) metadata: bool,
}

impl Wants {
    pub(super) fn of(shape: &Shape) -> Self {
        Self {
            timestamp: shape.wants("timestamp"),
            severity: shape.wants("severity"),
            level: shape.wants("level"),
            message: shape.wants("message"),
            metadata: shape.wants("metadata"),
        }
    }

    /// Whether there is nothing to be found.
    pub(super) fn nothing(self) -> bool {
        !(self.timestamp || self.severity || self.level || self.message || self.metadata)
    }
}

/// Columns in the making. For each row each of them is told what was found, in any order, and
/// [`Rows::end`] at last; what nobody reads is not kept.
pub(super) struct Rows<'c> {
    pub(super) wants: Wants,
    now: Now,
    read_at: i64,
    times: Vec<i64>,
    severities: Severities,
    levels: Texts,
    messages: Views<'c>,
    metadata: Metadata,
}

impl<'c> Rows<'c> {
    /// None yet; as many as the chunk has lines are expected.
    pub(super) fn new(chunk: &Chunk<'c>, wants: Wants) -> Self {
        let rows = |wanted| if wanted { chunk.lines.len() } else { 0 };
        Self {
            wants,
            now: Now::new(chunk.read_at),
            read_at: chunk.read_at,
            times: Vec::with_capacity(rows(wants.timestamp)),
            severities: Severities::new(rows(wants.severity)),
            levels: Texts::new(rows(wants.level)),
            messages: Views::new(chunk.bytes, rows(wants.message)),
            metadata: Metadata::new(rows(wants.metadata)),
        }
    }

    /// When the chunk was read.
    pub(super) fn now(&self) -> &Now {
        &self.now
    }

    /// When it was; where that is not known, it is when it was read.
    #[inline]
    pub(super) fn time(&mut self, nanos: Option<i64>) {
        if self.wants.timestamp {
            self.times.push(nanos.unwrap_or(self.read_at));
        }
    }

    /// How bad it is: the word for it, and its number.
    #[inline]
    pub(super) fn level(&mut self, word: Option<&str>, severity: Option<u8>) {
        if self.wants.level {
            self.levels.push(word);
        }
        if self.wants.severity {
            self.severities.push(severity);
        }
    }

    /// What it says.
    #[inline]
    pub(super) fn message(&mut self, text: &str) {
        if self.wants.message {
            self.messages.push(text);
        }
    }

    /// Where entries of the row go, if anyone reads them.
    pub(super) fn metadata(&mut self) -> Option<&mut Metadata> {
        self.wants.metadata.then_some(&mut self.metadata)
    }

    /// Forgets the entries of the row.
    pub(super) fn undo(&mut self) {
        self.metadata.undo();
    }

    /// Ends the row: with its entries, or without metadata.
    #[inline]
    pub(super) fn end(&mut self, has_metadata: bool) {
        if self.wants.metadata {
            self.metadata.row(has_metadata);
        }
    }

    /// The columns, charged.
    pub(super) fn finish(self, holder: &BudgetHolder) -> Result<Found> {
        let Wants { timestamp, severity, level, message, metadata } = self.wants;
        Ok(Found {
            timestamp: timestamp.then_some(self.times),
            severity: severity.then(|| self.severities.finish(holder)),
            level: match level {
                true => Some(self.levels.finish(holder).map_err(impossible)?),
                false => None,
            },
            message: message.then(|| self.messages.finish(holder)),
            metadata: match metadata {
                true => Some(self.metadata.finish(holder).map_err(impossible)?),
                false => None,
            },
            left_out: Vec::new(),
        })
    }
}

/// The column `severity` in the making.
struct Severities {
    numbers: Vec<u8>,
    valid: BooleanBufferBuilder,
}

impl Severities {
    fn new(rows: usize) -> Self {
        Self { numbers: Vec::with_capacity(rows), valid: BooleanBufferBuilder::new(rows) }
    }

    fn push(&mut self, number: Option<u8>) {
        self.numbers.push(number.unwrap_or_default());
        self.valid.append(number.is_some());
    }

    fn finish(mut self, holder: &BudgetHolder) -> UInt8Array {
        let numbers = charged(holder, Buffer::from_vec(self.numbers));
        let valid = Some(NullBuffer::new(self.valid.finish())).filter(|v| v.null_count() > 0);
        UInt8Array::new(ScalarBuffer::from(numbers), valid)
    }
}
