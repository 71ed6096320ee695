//! Small batches joined to one write. No clock and no I/O.

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use tidegate_model::{Batch, Error, Gather, Result};
use tokio::time::Instant;

use crate::rejects::Rejected;

/// Batches that are to be written together.
pub(crate) struct Gathered {
    limits: Gather,
    parts: Vec<Part>,
    rows: usize,
    bytes: usize,
    since: Option<Instant>,
}

/// A batch among them.
pub(crate) struct Part {
    pub(crate) way: usize,
    pub(crate) batch: Batch,
    pub(crate) bytes: usize,
    /// Its rows that are to be written.
    rows: RecordBatch,
}

impl Gathered {
    pub(crate) fn new(limits: Gather) -> Self {
        Self { limits, parts: Vec::new(), rows: 0, bytes: 0, since: None }
    }

    /// Whether a batch of that size has to wait until the others are written.
    pub(crate) fn is_too_full_for(&self, rows: usize, bytes: usize) -> bool {
        !self.parts.is_empty()
            && (self.rows.saturating_add(rows) > self.limits.rows_max
                || self.bytes.saturating_add(bytes) > self.limits.bytes_max)
    }

    /// Takes a batch, of which these rows are to be written.
    pub(crate) fn push(&mut self, way: usize, batch: Batch, rows: RecordBatch, bytes: usize) {
        self.rows += rows.num_rows();
        self.bytes += bytes;
        self.since.get_or_insert_with(Instant::now);
        self.parts.push(Part { way, batch, bytes, rows });
    }

    /// Whether nothing more goes in.
    pub(crate) fn is_full(&self) -> bool {
        self.rows >= self.limits.rows_max || self.bytes >= self.limits.bytes_max
    }

    /// Whether those that are there wait for more.
    pub(crate) fn is_patient(&self) -> bool {
        !self.limits.age.is_zero()
    }

    /// When they have waited long enough.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.limits.age)
    }

    /// All of them, and their rows as one batch; it is empty again.
    pub(crate) fn take(&mut self) -> Result<Option<(Vec<Part>, RecordBatch)>> {
        let parts = std::mem::take(&mut self.parts);
        (self.rows, self.bytes, self.since) = (0, 0, None);
        let rows = match &*parts {
            [] => return Ok(None),
            [only] => only.rows.clone(),
            [first, ..] => {
                let schema = first.rows.schema();
                let joined = concat_batches(&schema, parts.iter().map(|part| &part.rows));
                joined.map_err(|error| Error::fatal("batches don't go together").because(error))?
            }
        };
        Ok(Some((parts, rows)))
    }
}

/// Each part with those of the joined rows' rejects that are its own, as rows of its batch. They
/// must be in order.
pub(crate) fn shared_out(
    parts: Vec<Part>,
    rejected: Vec<Rejected>,
) -> impl Iterator<Item = (Part, Vec<Rejected>)> {
    let mut rejected = rejected.into_iter().peekable();
    let mut start = 0;
    parts.into_iter().map(move |part| {
        let first = start;
        start += part.rows.num_rows();
        // The rows before these were there already.
        let left_out = part.batch.rows.num_rows().saturating_sub(part.rows.num_rows());
        let mut own = Vec::new();
        while let Some((row, reason)) = rejected.next_if(|(row, _)| *row < start) {
            own.push((row - first + left_out, reason));
        }
        (part, own)
    })
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;
    use std::time::Duration;

    use arrow_array::cast::AsArray;
    use arrow_array::types::UInt64Type;
    use arrow_array::{ArrayRef, UInt64Array};
    use tidegate_model::{Ack, Partition};

    use super::*;

    fn batch(numbers: Range<u64>) -> (Batch, RecordBatch) {
        let (start, end) = (numbers.start, numbers.end);
        let column: ArrayRef = Arc::new(UInt64Array::from_iter_values(numbers));
        let rows = RecordBatch::try_from_iter([("number", column)]).unwrap();
        let partition = Partition::from("p");
        let ack = Ack::new(|_| {});
        let (all, holds) = (rows.clone(), Vec::new());
        (Batch { rows, partition, start, end, read_at: 0, ack, holds }, all)
    }

    fn gathered(rows_max: usize, bytes_max: usize) -> Gathered {
        Gathered::new(Gather { rows_max, bytes_max, age: Duration::ZERO })
    }

    #[test]
    fn rows_are_joined_in_order_and_each_part_learns_of_its_own() {
        let mut gathered = gathered(10, 1_000);
        assert!(gathered.take().unwrap().is_none());
        for numbers in [0..3, 3..4, 4..8] {
            let (batch, rows) = batch(numbers);
            assert!(!gathered.is_too_full_for(rows.num_rows(), 100));
            gathered.push(0, batch, rows, 100);
        }
        assert!(!gathered.is_full() && gathered.is_too_full_for(3, 1));
        let (parts, rows) = gathered.take().unwrap().unwrap();
        let numbers = rows.column(0).as_primitive::<UInt64Type>().values();
        assert_eq!(numbers.to_vec(), (0..8).collect::<Vec<_>>());
        let rejected = [0, 1, 3, 7].map(|row| (row, format!("no {row}"))).to_vec();
        let found: Vec<_> = shared_out(parts, rejected).map(|(_, rejected)| rejected).collect();
        let own = |row, said: &str| (row, said.to_owned());
        let expected =
            [vec![own(0, "no 0"), own(1, "no 1")], vec![own(0, "no 3")], vec![own(3, "no 7")]];
        assert_eq!(found, expected);
        assert!(gathered.take().unwrap().is_none() && gathered.due().is_none());
    }

    #[test]
    fn a_reject_is_a_row_of_its_batch_though_the_first_rows_were_there_already() {
        let mut gathered = gathered(10, 1_000);
        for (numbers, left_out) in [(0..5, 2), (5..10, 0)] {
            let (batch, rows) = batch(numbers);
            gathered.push(0, batch, rows.slice(left_out, 5 - left_out), 100);
        }
        let (parts, rows) = gathered.take().unwrap().unwrap();
        assert_eq!(rows.num_rows(), 8);
        let rejected = [0, 2, 3].map(|row| (row, String::new())).to_vec();
        let found = shared_out(parts, rejected)
            .map(|(_, rejected)| rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>());
        assert_eq!(found.collect::<Vec<_>>(), [vec![2, 4], vec![0]]);
    }

    #[test]
    fn limits_are_of_rows_and_bytes_and_what_is_larger_passes_alone() {
        let mut gathered = gathered(10, 1_000);
        assert!(!gathered.is_too_full_for(100, 5_000), "nothing is there: it passes alone");
        let (large, rows) = batch(0..1);
        gathered.push(0, large, rows, 5_000);
        assert!(gathered.is_full() && gathered.is_too_full_for(1, 1));
        gathered.take().unwrap();
        let (small, rows) = batch(0..1);
        gathered.push(0, small, rows, 999);
        assert!(!gathered.is_full() && gathered.is_too_full_for(1, 2));
        assert!(!gathered.is_too_full_for(9, 1));
    }
}
