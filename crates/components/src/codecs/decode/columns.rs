//! The columns of a batch of log records: those that are read, in the order asked for.

use std::sync::{Arc, OnceLock};

use arrow_array::types::{ArrowPrimitiveType, Int32Type, TimestampNanosecondType, UInt64Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, PrimitiveArray, RecordBatch, RecordBatchOptions,
    StringArray, StringViewArray, TimestampNanosecondArray, UInt8Array, new_null_array,
};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use tidegate_model::{BudgetHolder, Error, OFFSET, Result};

use super::{Chunk, Decoded};
use crate::codecs::space::charged;
use crate::codecs::views::{Text, Views};

/// Where rows came from, as the column `source` says it.
#[derive(Clone, Debug)]
pub struct Label {
    name: Box<str>,
    // Made where anyone reads it.
    column: OnceLock<ArrayRef>,
}

impl From<&str> for Label {
    fn from(name: &str) -> Self {
        Self { name: name.into(), column: OnceLock::new() }
    }
}

impl Label {
    fn column(&self) -> ArrayRef {
        let made = || Arc::new(StringArray::from(vec![&*self.name])) as _;
        Arc::clone(self.column.get_or_init(made))
    }
}

/// What rows have to look like, and who pays for what is computed.
#[derive(Clone, Debug)]
pub struct Shape {
    columns: SchemaRef,
    holder: Arc<BudgetHolder>,
    // Columns that are the same in each batch, long enough for the longest so far.
    nulls: Vec<ArrayRef>,
    zeros: Int32Array,
}

/// Columns that a decoder has filled; what it has not is filled as if nothing had been found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) timestamp: Option<Vec<i64>>,
    pub(super) severity: Option<UInt8Array>,
    pub(super) level: Option<StringArray>,
    pub(super) message: Option<StringViewArray>,
    pub(super) metadata: Option<ArrayRef>,
    /// Lines that are no rows, ascending.
    pub(super) left_out: Vec<u32>,
}

impl Shape {
    /// These columns, of those that [logs](tidegate_model::log_schema) have and [`OFFSET`].
    pub fn new(columns: SchemaRef, holder: Arc<BudgetHolder>) -> Self {
        Self { columns, holder, nulls: Vec::new(), zeros: Int32Array::from(Vec::<i32>::new()) }
    }

    /// Whether anyone reads that column.
    pub(super) fn wants(&self, column: &str) -> bool {
        self.columns.column_with_name(column).is_some()
    }

    pub(super) fn holder(&self) -> &BudgetHolder {
        &self.holder
    }

    /// The lines as they are, and how many had to be repaired.
    pub(super) fn messages(&self, chunk: &Chunk<'_>, text: &Text<'_>) -> (StringViewArray, u64) {
        let mut views = Views::new(chunk.bytes, chunk.lines.len());
        let mut repaired = 0;
        for line in chunk.lines {
            let line = text.line(*line);
            repaired += u64::from(matches!(line, std::borrow::Cow::Owned(_)));
            views.push(&line);
        }
        (views.finish(&self.holder), repaired)
    }

    /// A column of numbers, charged.
    pub(super) fn numbers<T: ArrowPrimitiveType>(
        &self,
        numbers: Vec<T::Native>,
    ) -> PrimitiveArray<T> {
        let buffer = charged(&self.holder, Buffer::from_vec(numbers));
        PrimitiveArray::new(ScalarBuffer::from(buffer), None)
    }

    /// What a decoder gives that refuses no line.
    pub(super) fn decoded(
        &mut self,
        chunk: &Chunk<'_>,
        found: Found,
        repaired: u64,
    ) -> Result<Decoded> {
        Ok(Decoded { rows: self.batch(chunk, found)?, repaired, refused: 0, malformed: None })
    }

    /// All columns, side by side.
    pub(super) fn batch(&mut self, chunk: &Chunk<'_>, found: Found) -> Result<RecordBatch> {
        let rows = chunk.lines.len() - found.left_out.len();
        self.lengthen(rows);
        let mut found = found;
        let columns = self.columns.fields().iter().zip(&self.nulls).map(|(field, null)| {
            let column: Option<ArrayRef> = match field.name().as_str() {
                "timestamp" => Some(self.times(chunk, rows, found.timestamp.take())),
                "severity" => found.severity.take().map(|column| Arc::new(column) as _),
                "level" => found.level.take().map(|column| Arc::new(column) as _),
                "source" => Some(self.source(chunk.label, rows)?),
                "message" => found.message.take().map(|column| Arc::new(column) as _),
                "metadata" => found.metadata.take(),
                OFFSET => Some(self.offsets(chunk, &found.left_out)),
                _ => None,
            };
            Ok(column.unwrap_or_else(|| null.slice(0, rows)))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.columns), columns, &options)
            .map_err(impossible)
    }

    /// Makes the unchanging columns as long as the longest batch, which is bounded.
    fn lengthen(&mut self, rows: usize) {
        if self.zeros.len() < rows || self.nulls.len() < self.columns.fields().len() {
            let rows = rows.next_power_of_two();
            self.zeros = Int32Array::from(vec![0; rows]);
            let types = self.columns.fields().iter().map(|field| field.data_type());
            self.nulls = types.map(|data_type| self.null(data_type, rows)).collect();
        }
    }

    fn null(&self, data_type: &DataType, rows: usize) -> ArrayRef {
        match data_type {
            // Found by every decoder, so the place is never used.
            DataType::Utf8View | DataType::Dictionary(..) | DataType::Timestamp(..) => {
                new_null_array(data_type, 0)
            }
            _ => new_null_array(data_type, rows),
        }
    }

    fn times(&self, chunk: &Chunk<'_>, rows: usize, times: Option<Vec<i64>>) -> ArrayRef {
        let times = times.unwrap_or_else(|| vec![chunk.read_at; rows]);
        let times: TimestampNanosecondArray = self.numbers::<TimestampNanosecondType>(times);
        Arc::new(times.with_timezone("UTC"))
    }

    fn source(&self, label: &Label, rows: usize) -> Result<ArrayRef> {
        let keys = self.zeros.slice(0, rows);
        let column = DictionaryArray::<Int32Type>::try_new(keys, label.column());
        Ok(Arc::new(column.map_err(impossible)?))
    }

    fn offsets(&self, chunk: &Chunk<'_>, left_out: &[u32]) -> ArrayRef {
        let mut left_out = left_out.iter().peekable();
        let is_row = |number: &u32| left_out.next_if_eq(&number).is_none();
        let numbers = (0..chunk.lines.len() as u32).filter(is_row);
        let offsets = numbers.map(|number| chunk.offset(number as usize)).collect();
        Arc::new(self.numbers::<UInt64Type>(offsets))
    }
}

pub(super) fn impossible(error: ArrowError) -> Error {
    Error::fatal("columns: these can't be put side by side, which is a defect; please report it")
        .because(error)
}
