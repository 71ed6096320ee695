//! Rows of SQLite's values, as they become Arrow arrays.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow_buffer::{
    ArrowNativeType, BooleanBufferBuilder, Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer,
};
use arrow_schema::ArrowError;
use rusqlite::Row;
use rusqlite::types::ValueRef;
use tidegate_flow::{BudgetHolder, Permit};

use super::kind::{Kind, Mismatch};
use crate::memory::held;

/// So much longer than what is in it a buffer may be, in parts of its length.
const SPARE_SHARE: usize = 4;

/// Columns that rows are added to.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    mismatch: Mismatch,
    rows: usize,
    bytes: usize,
}

/// What came of a row.
#[derive(Debug, PartialEq)]
pub(super) enum Added {
    /// It is in.
    Whole,
    /// It is not: there is no room for it.
    NoRoom,
    /// It is not: the value of this column is odd.
    Odd(usize),
}

/// A value that its column can't have.
struct Odd;

impl Columns {
    /// Empty columns of these kinds.
    pub(super) fn new(kinds: impl Iterator<Item = Kind>, mismatch: Mismatch) -> Self {
        let columns = kinds.map(|kind| Column::new(kind, 0, 0)).collect();
        Self { columns, mismatch, rows: 0, bytes: 0 }
    }

    /// Empty ones that have room for as much as these, but for no more than so many bytes each.
    pub(super) fn another(&self, bytes_max: usize) -> Self {
        let columns = self.columns.iter();
        let columns = columns.map(|it| Column::new(it.kind, self.rows, it.bytes().min(bytes_max)));
        Self { columns: columns.collect(), mismatch: self.mismatch, rows: 0, bytes: 0 }
    }

    /// How many rows they are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// How many bytes their values are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row's first values, if they are at most so many bytes.
    pub(super) fn add(&mut self, row: &Row<'_>, room: usize) -> rusqlite::Result<Added> {
        let mut bytes = 0;
        for index in 0..self.columns.len() {
            let value = row.get_ref(index)?;
            let Some(column) = self.columns.get_mut(index) else { break };
            bytes += column.size(value);
            // Looked at before the value is copied: it may be huge.
            if bytes > room {
                self.cut();
                return Ok(Added::NoRoom);
            }
            if column.push(value).is_err() {
                if self.mismatch == Mismatch::Error {
                    self.cut();
                    return Ok(Added::Odd(index));
                }
                column.push_null();
            }
        }
        self.rows += 1;
        self.bytes += bytes;
        Ok(Added::Whole)
    }

    /// Takes back what there is of a row that was not added in the end.
    fn cut(&mut self) {
        self.columns.iter_mut().for_each(|column| column.truncate(self.rows));
    }

    /// The arrays. They take what they need of the permit, and beyond it of the holder, until the
    /// last view into them is gone.
    pub(super) fn finish(
        mut self,
        permit: &mut Permit,
        holder: &BudgetHolder,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let needed: usize = self.columns.iter_mut().map(Column::shrink).sum();
        // Of the same holder, it is taken.
        let _ = permit.merge(holder.charge(needed.saturating_sub(permit.bytes())));
        let held = Arc::new(permit.split(needed).unwrap_or_else(|| holder.charge(needed)));
        self.columns.into_iter().map(|column| column.finish(&held)).collect()
    }
}

/// The values of one column.
#[derive(Debug)]
struct Column {
    kind: Kind,
    values: Values,
    nulls: NullBufferBuilder,
}

#[derive(Debug)]
enum Values {
    Int(Vec<i64>),
    Real(Vec<f64>),
    Bool(BooleanBufferBuilder),
    /// Of text and blobs, each value behind the others, and where each ends.
    Bytes {
        data: Vec<u8>,
        ends: Vec<i32>,
    },
}

impl Column {
    fn new(kind: Kind, rows: usize, bytes: usize) -> Self {
        let values = match kind {
            Kind::Int => Values::Int(Vec::with_capacity(rows)),
            Kind::Real => Values::Real(Vec::with_capacity(rows)),
            Kind::Bool => Values::Bool(BooleanBufferBuilder::new(rows)),
            Kind::Text | Kind::Blob | Kind::Any => {
                let mut ends = Vec::with_capacity(rows + 1);
                ends.push(0);
                Values::Bytes { data: Vec::with_capacity(bytes), ends }
            }
        };
        Self { kind, values, nulls: NullBufferBuilder::new(rows) }
    }

    /// How much text or blobs there is.
    fn bytes(&self) -> usize {
        match &self.values {
            Values::Bytes { data, .. } => data.len(),
            _ => 0,
        }
    }

    /// How many bytes a value will be, at most.
    fn size(&self, value: ValueRef<'_>) -> usize {
        const NUMBER_BYTES_MAX: usize = 24;
        match (&self.values, value) {
            (Values::Bool(_), _) => 1,
            (Values::Int(_) | Values::Real(_), _) => 8,
            (_, ValueRef::Null) => 4,
            (_, ValueRef::Text(bytes)) => 4 + bytes.len(),
            (_, ValueRef::Blob(bytes)) if self.kind == Kind::Any => 4 + literal_length(bytes),
            (_, ValueRef::Blob(bytes)) => 4 + bytes.len(),
            (_, ValueRef::Integer(_) | ValueRef::Real(_)) => 4 + NUMBER_BYTES_MAX,
        }
    }

    fn push(&mut self, value: ValueRef<'_>) -> Result<(), Odd> {
        match (&mut self.values, value) {
            (_, ValueRef::Null) => {
                self.push_null();
                return Ok(());
            }
            (Values::Int(values), ValueRef::Integer(value)) => values.push(value),
            (Values::Real(values), ValueRef::Real(value)) => values.push(value),
            (Values::Real(values), ValueRef::Integer(value)) => values.push(exactly(value)?),
            (Values::Bool(values), ValueRef::Integer(value @ (0 | 1))) => values.append(value == 1),
            (Values::Bytes { data, ends }, value) => {
                match (self.kind, value) {
                    (Kind::Text | Kind::Any, ValueRef::Text(text)) if is_utf8(text) => {
                        data.extend_from_slice(text);
                    }
                    (Kind::Blob, ValueRef::Blob(bytes)) => data.extend_from_slice(bytes),
                    (Kind::Any, value) => write(data, value),
                    _ => return Err(Odd),
                }
                // A page is much smaller than that; see `BYTES_MAX`.
                ends.push(i32::try_from(data.len()).map_err(|_| Odd)?);
            }
            _ => return Err(Odd),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_null(&mut self) {
        match &mut self.values {
            Values::Int(values) => values.push(0),
            Values::Real(values) => values.push(0.0),
            Values::Bool(values) => values.append(false),
            Values::Bytes { ends, .. } => ends.extend_from_within(ends.len() - 1..),
        }
        self.nulls.append_null();
    }

    fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Int(values) => values.truncate(rows),
            Values::Real(values) => values.truncate(rows),
            Values::Bool(values) => values.truncate(rows),
            Values::Bytes { data, ends } => {
                ends.truncate(rows + 1);
                data.truncate(ends.last().map_or(0, |end| end.unsigned_abs() as usize));
            }
        }
        self.nulls.truncate(rows);
    }

    /// Lets go of what is spare, and says how many bytes there are.
    fn shrink(&mut self) -> usize {
        let bytes = match &mut self.values {
            Values::Int(values) => shrunk(values),
            Values::Real(values) => shrunk(values),
            Values::Bool(values) => values.capacity() / 8,
            Values::Bytes { data, ends } => shrunk(data) + shrunk(ends),
        };
        bytes + self.nulls.allocated_size()
    }

    fn finish(mut self, permit: &Arc<Permit>) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        let held = |buffer| held(buffer, permit);
        Ok(match self.values {
            Values::Int(values) => {
                let values = ScalarBuffer::from(held(Buffer::from_vec(values)));
                Arc::new(Int64Array::try_new(values, nulls)?)
            }
            Values::Real(values) => {
                let values = ScalarBuffer::from(held(Buffer::from_vec(values)));
                Arc::new(Float64Array::try_new(values, nulls)?)
            }
            Values::Bool(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Bytes { data, ends } => {
                let ends = OffsetBuffer::new(ScalarBuffer::from(held(Buffer::from_vec(ends))));
                let data = held(Buffer::from_vec(data));
                if self.kind == Kind::Blob {
                    Arc::new(BinaryArray::try_new(ends, data, nulls)?)
                } else {
                    Arc::new(StringArray::try_new(ends, data, nulls)?)
                }
            }
        })
    }
}

/// Makes it not much longer than it must be; how many bytes it has then.
fn shrunk<T: ArrowNativeType>(values: &mut Vec<T>) -> usize {
    if values.capacity() > values.len() + values.len() / SPARE_SHARE {
        values.shrink_to_fit();
    }
    values.capacity() * size_of::<T>()
}

/// The real number that an integer is, if it is one exactly.
fn exactly(value: i64) -> Result<f64, Odd> {
    let real = value as f64;
    if real as i128 == i128::from(value) { Ok(real) } else { Err(Odd) }
}

fn is_utf8(text: &[u8]) -> bool {
    simdutf8::basic::from_utf8(text).is_ok()
}

/// Any value as text: numbers with the fewest digits that are read back as the same, blobs and what
/// is no UTF-8 as SQLite's literals, `X'00FF'`.
pub(super) fn write(text: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => {}
        ValueRef::Integer(value) => {
            text.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
        ValueRef::Real(value) if value.is_infinite() => {
            text.extend_from_slice(if value > 0.0 { b"Inf" } else { b"-Inf" });
        }
        ValueRef::Real(value) => {
            text.extend_from_slice(zmij::Buffer::new().format(value).as_bytes());
        }
        ValueRef::Text(value) if is_utf8(value) => text.extend_from_slice(value),
        ValueRef::Text(value) | ValueRef::Blob(value) => {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            text.reserve(literal_length(value));
            text.extend_from_slice(b"X'");
            for byte in value {
                text.push(DIGITS[usize::from(byte >> 4)]);
                text.push(DIGITS[usize::from(byte & 15)]);
            }
            text.push(b'\'');
        }
    }
}

fn literal_length(blob: &[u8]) -> usize {
    2 * blob.len() + 3
}
