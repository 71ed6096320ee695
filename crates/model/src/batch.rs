//! What a source gives, and what travels from there.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, RecordBatch};
use tidegate_flow::Permit;

use crate::{Ack, Partition, Position};

/// The name of the hidden column that says where in its partition each row is: UInt64, growing,
/// the same after a restart. It is there only where the engine asked for it
/// ([`SourceContext::offsets`](crate::SourceContext::offsets)); transforms carry it along.
pub const OFFSET: &str = "_offset";

/// What a source gives: rows of one partition, in order.
#[derive(Debug)]
pub struct SourceBatch {
    /// The rows, with the columns the source was told to give. There may be none, where the source
    /// moved on without finding any.
    pub rows: RecordBatch,
    /// Where the rows begin: the sequence of the partition's position before this batch.
    pub start: u64,
    /// Where reading goes on after them.
    pub position: Position,
    /// When they were read: nanoseconds since the epoch.
    pub read_at: i64,
    /// How many bytes of input they were.
    pub bytes: u64,
    /// How many records of the input were refused, malformed or too long, and left out.
    pub refused: u64,
    /// How many were skipped, as nobody [wants](crate::SourceContext::required) them.
    pub skipped: u64,
    /// Told what became of the batch, where the source has someone waiting for that. It is settled
    /// once, from any thread, as soon as every sink has made the rows durable; dropped without a
    /// verdict, and so failed, where the run ended before.
    pub told: Option<Ack>,
}

/// Rows of one partition on their way to sinks.
///
/// The memory of what was read belongs to the rows' buffers: it goes back to the budget when the
/// last view into them is gone. What a transform made is charged in `holds`.
#[derive(Debug)]
pub struct Batch {
    /// The rows; never none.
    pub rows: RecordBatch,
    /// Whose rows.
    pub partition: Partition,
    /// The range of offsets that this batch covers, `start..end`, rows that a filter removed
    /// included.
    pub start: u64,
    /// See `start`.
    pub end: u64,
    /// When they were read: nanoseconds since the epoch.
    pub read_at: i64,
    /// What became of it must be said here.
    pub ack: Ack,
    /// What computed buffers hold of the budget.
    pub holds: Vec<Arc<Permit>>,
}

impl Batch {
    /// Another batch of the same duty and extent, with these rows.
    pub fn with_rows(&self, rows: RecordBatch) -> Batch {
        Batch {
            rows,
            partition: self.partition.clone(),
            start: self.start,
            end: self.end,
            read_at: self.read_at,
            ack: self.ack.split(),
            holds: self.holds.clone(),
        }
    }

    /// A copy for another sink: the rows are shared, and the duty has one part more.
    pub fn share(&self) -> Batch {
        self.with_rows(self.rows.clone())
    }

    /// Splits the first `count` rows off, where both sides have some. Gives the first part; the
    /// rest stays. Where rows know their offsets, the extent is cut between the two rows; where they
    /// don't, nobody asks for it, and both keep it.
    pub fn split_front(&mut self, count: usize) -> Option<Batch> {
        if count == 0 || count >= self.rows.num_rows() {
            return None;
        }
        let mut front = self.with_rows(self.rows.slice(0, count));
        if let Some(cut) = offset_of(&self.rows, count) {
            front.end = cut;
            self.start = cut;
        }
        self.rows = self.rows.slice(count, self.rows.num_rows() - count);
        Some(front)
    }

    /// How many rows, from the first, are before this offset; `None` where rows don't know theirs.
    pub fn rows_before(&self, offset: u64) -> Option<usize> {
        let offsets = offsets(&self.rows)?;
        Some(offsets.partition_point(|row| *row < offset))
    }

    /// The bytes its columns use, as far as they are not shared with others.
    pub fn bytes(&self) -> usize {
        used_bytes(&self.rows)
    }
}

fn offsets(rows: &RecordBatch) -> Option<&[u64]> {
    let column = rows.column_by_name(OFFSET)?;
    Some(column.as_primitive_opt::<UInt64Type>()?.values())
}

fn offset_of(rows: &RecordBatch, row: usize) -> Option<u64> {
    offsets(rows)?.get(row).copied()
}

/// What the rows themselves use of their buffers: lengths of texts, widths of values.
fn used_bytes(rows: &RecordBatch) -> usize {
    let columns = rows.columns().iter();
    columns
        .map(|column| match column.as_string_view_opt() {
            Some(views) => views.lengths().map(|length| length as usize + 16).sum(),
            None => column.to_data().get_slice_memory_size().unwrap_or(0),
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, StringViewArray, UInt64Array};

    use super::*;
    use crate::Verdict;

    fn batch(offsets: &[u64], end: u64) -> (Batch, std::sync::mpsc::Receiver<Verdict>) {
        let (say, said) = std::sync::mpsc::channel();
        let messages: ArrayRef = Arc::new(StringViewArray::from(vec!["a line"; offsets.len()]));
        let places: ArrayRef = Arc::new(UInt64Array::from(offsets.to_vec()));
        let rows = RecordBatch::try_from_iter([("message", messages), (OFFSET, places)]).unwrap();
        let ack = Ack::new(move |verdict| say.send(verdict).unwrap_or(()));
        let partition = Partition::from("p");
        let batch = Batch { rows, partition, start: 10, end, read_at: 0, ack, holds: Vec::new() };
        (batch, said)
    }

    #[test]
    fn a_split_cuts_extent_and_duty() {
        let (mut rest, said) = batch(&[10, 14, 30], 40);
        assert_eq!([0, 14, 15, 99].map(|at| rest.rows_before(at)), [0, 1, 2, 3].map(Some));
        assert!(rest.split_front(0).is_none() && rest.split_front(3).is_none());
        let front = rest.split_front(2).unwrap();
        assert_eq!((front.start, front.end, front.rows.num_rows()), (10, 30, 2));
        assert_eq!((rest.start, rest.end, rest.rows.num_rows()), (30, 40, 1));
        rest.ack.settle(Verdict::Delivered);
        assert!(said.try_recv().is_err());
        front.ack.settle(Verdict::Delivered);
        assert_eq!(said.recv(), Ok(Verdict::Delivered));
    }

    #[test]
    fn only_its_own_rows_count_as_bytes() {
        let (mut rest, _said) = batch(&[1, 2, 3, 4], 40);
        let all = rest.bytes();
        let front = rest.split_front(1).unwrap();
        assert_eq!((all, front.bytes(), rest.bytes()), (120, 30, 90));
    }
}
