//! Rejected rows on their way to those who take them: why they were rejected, and which of a sink's
//! are not safe yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use tidegate_flow::BudgetHolder;
use tidegate_model::{Ack, Batch, Error, OFFSET, Result, Verdict};
use tokio::sync::Notify;

use crate::edge::{EdgeSender, Offer};
use crate::memory::made_bytes;
use crate::route::{Branch, Next, Work, spread};

/// The column that says why a row was rejected, after the columns of the rejected row.
pub(crate) const REASON: &str = "reject_reason";

/// The columns of rejected rows: as they came, and why. Where they say already why they were
/// rejected before, the last time counts.
pub(crate) fn rejects_schema(input: &SchemaRef) -> SchemaRef {
    let fields = input.fields().iter().filter(|field| field.name() != REASON);
    let mut fields: Vec<_> = fields.cloned().collect();
    // The hidden column stays the last one.
    let hidden = fields.pop_if(|field| field.name() == OFFSET);
    fields.push(Arc::new(Field::new(REASON, DataType::Utf8, false)));
    fields.extend(hidden);
    Arc::new(Schema::new(fields))
}

/// Rejected rows with the columns of [`rejects_schema`].
pub(crate) fn with_reasons(
    rows: &RecordBatch,
    reasons: Vec<String>,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let all = rows.schema();
    let columns = all.fields().iter().zip(rows.columns());
    let columns = columns.filter(|(field, _)| field.name() != REASON);
    let mut columns: Vec<ArrayRef> = columns.map(|(_, column)| Arc::clone(column)).collect();
    let hidden = columns.pop_if(|_| schema.column_with_name(OFFSET).is_some());
    columns.push(Arc::new(StringArray::from(reasons)));
    columns.extend(hidden);
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// A row of a batch that was rejected, and why.
pub(crate) type Rejected = (usize, String);

/// Where the rows go that a sink rejects of one of its edges.
pub(crate) struct Outlet {
    pub(crate) branches: Vec<Branch>,
    pub(crate) edges: Vec<EdgeSender>,
    pub(crate) holder: Arc<BudgetHolder>,
    /// The sinks at the other end.
    pub(crate) takers: Vec<Arc<Hurry>>,
}

impl Outlet {
    /// Whether anyone takes them.
    pub(crate) fn is_read(&self) -> bool {
        !self.branches.is_empty()
    }

    /// Hands rows of a batch over to all who take them, with the batch's partition and extent, and a
    /// part of its duty; that is owed meanwhile. First wherever there is room, then it waits for the
    /// full ones.
    pub(crate) async fn send(
        &self,
        batch: &Batch,
        rejected: Vec<Rejected>,
        owed: Option<&Arc<Owed>>,
    ) -> Result<()> {
        let (rows, reasons): (Vec<u64>, Vec<String>) =
            rejected.into_iter().map(|(row, reason)| (row as u64, reason)).unzip();
        let schema = rejects_schema(&batch.rows.schema());
        let rows = arrow_select::take::take_record_batch(&batch.rows, &UInt64Array::from(rows));
        let rows = rows.and_then(|rows| with_reasons(&rows, reasons, &schema));
        let rows = rows
            .map_err(|error| Error::fatal("it rejected rows that are not there").because(error))?;
        let mut out = batch.with_rows(rows);
        out.holds.push(Arc::new(self.holder.charge(made_bytes(&batch.rows, &out.rows))));
        if let Some(owed) = owed {
            out = Batch { ack: owed.until(out.ack), ..out };
        }
        let mut works = Vec::new();
        spread(out, &self.branches, &self.holder, &mut works)?;
        self.hand_over(works).await;
        Ok(())
    }

    async fn hand_over(&self, works: Vec<Work>) {
        let mut waiting = VecDeque::new();
        for Work { next, batch } in works {
            let Next::Edge(edge) = next else { continue };
            let Some(edge) = self.edges.get(edge) else { continue };
            if let Offer::Full(batch) = edge.offer(batch) {
                waiting.push_back((edge, batch));
            }
        }
        for (edge, batch) in waiting {
            edge.send(batch).await;
        }
    }
}

/// What a sink's rejects still need until they are safe.
#[derive(Default)]
pub(crate) struct Owed {
    open: AtomicUsize,
    failed: AtomicBool,
    settled: Notify,
}

impl Owed {
    /// An ack that stands for this one, and is owed until it is settled.
    pub(crate) fn until(self: &Arc<Self>, ack: Ack) -> Ack {
        self.open.fetch_add(1, Ordering::Relaxed);
        let owed = Arc::clone(self);
        Ack::new(move |verdict| {
            if verdict == Verdict::Failed {
                owed.failed.store(true, Ordering::Relaxed);
            }
            ack.settle(verdict);
            owed.open.fetch_sub(1, Ordering::Release);
            owed.settled.notify_one();
        })
    }

    /// Waits until nothing is owed; false where something will never be safe. For one task.
    pub(crate) async fn is_settled(&self) -> bool {
        while self.open.load(Ordering::Acquire) > 0 {
            self.settled.notified().await;
        }
        !self.failed.load(Ordering::Relaxed)
    }
}

/// Whether somebody waits for what a sink has to commit: then it does not wait until that is due.
#[derive(Default)]
pub(crate) struct Hurry {
    waiting: AtomicUsize,
    told: Notify,
}

impl Hurry {
    /// Whether somebody waits now.
    pub(crate) fn is_on(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Waits until somebody begins to wait. For one task.
    pub(crate) async fn told(&self) {
        self.told.notified().await;
    }

    /// Somebody waits, until this is dropped.
    pub(crate) fn on(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Release);
        self.told.notify_one();
        Waiting(Arc::clone(self))
    }
}

/// Somebody who waits for a sink.
pub(crate) struct Waiting(Arc<Hurry>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use arrow_array::cast::AsArray;
    use arrow_array::types::UInt64Type;
    use futures::{FutureExt, StreamExt};
    use tidegate_flow::ByteBudget;

    use super::*;
    use crate::edge::{EdgeReceiver, edge};
    use crate::graph::WhenFull;

    fn batch(end: u64, columns: &[&str]) -> (Batch, std::sync::mpsc::Receiver<Verdict>) {
        let (say, said) = channel();
        let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..end));
        let fields: Vec<_> = columns.iter().map(|name| (*name, Arc::clone(&numbers))).collect();
        let rows = RecordBatch::try_from_iter(fields).unwrap();
        let ack = Ack::new(move |verdict| say.send(verdict).unwrap_or(()));
        let (partition, holds) = ("p".into(), Vec::new());
        (Batch { rows, partition, start: 0, end, read_at: 0, ack, holds }, said)
    }

    /// An outlet to one edge, which gives all columns.
    fn outlet(bytes_max: usize) -> (Outlet, EdgeReceiver) {
        let (sender, receiver) = edge(WhenFull::Block, bytes_max);
        let branches = vec![Branch { columns: None, next: Next::Edge(0) }];
        let holder = Arc::new(ByteBudget::new(1 << 20).holder(0).unwrap());
        (Outlet { branches, edges: vec![sender], holder, takers: Vec::new() }, receiver)
    }

    #[test]
    fn the_last_reason_counts_and_offsets_stay_last() {
        let (batch, _said) = batch(2, &["a", REASON, "b", OFFSET]);
        let schema = rejects_schema(&batch.rows.schema());
        let reasons = vec!["x".to_owned(), "y".to_owned()];
        let rows = with_reasons(&batch.rows, reasons, &schema).unwrap();
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["a", "b", REASON, OFFSET]);
        assert_eq!(rows.column(2).as_string::<i32>().value(1), "y");
    }

    #[tokio::test]
    async fn rows_keep_their_places_and_are_owed_until_they_are_safe() {
        let (outlet, mut receiver) = outlet(1 << 10);
        let (batch, said) = batch(10, &["a", OFFSET]);
        let owed = Arc::default();
        let rejected = vec![(3, "odd".to_owned()), (7, "odd".to_owned())];
        outlet.send(&batch, rejected, Some(&owed)).await.unwrap();
        let out = receiver.next().await.unwrap();
        assert_eq!((out.start, out.end, out.partition.as_str()), (0, 10, "p"));
        let offsets = out.rows.column_by_name(OFFSET).unwrap().as_primitive::<UInt64Type>();
        assert_eq!(offsets.values().to_vec(), [3, 7]);
        assert_eq!((out.holds.len(), out.rows.num_columns()), (1, 3));

        batch.ack.settle(Verdict::Delivered);
        assert!(said.try_recv().is_err() && owed.is_settled().now_or_never().is_none());
        out.ack.settle(Verdict::Dropped);
        assert_eq!((said.recv(), owed.is_settled().await), (Ok(Verdict::Dropped), true));
    }

    #[tokio::test]
    async fn what_nobody_answers_for_has_failed_for_good() {
        let (outlet, receiver) = outlet(1);
        let (batch, said) = batch(10, &["a"]);
        let owed = Arc::default();
        outlet.send(&batch, vec![(0, "odd".to_owned())], Some(&owed)).await.unwrap();
        {
            let mut full = std::pin::pin!(outlet.send(&batch, vec![(1, "odd".to_owned())], None));
            assert!(full.as_mut().now_or_never().is_none(), "it waits for room");
            drop(receiver);
            full.await.unwrap();
        }
        assert!(!owed.is_settled().await);
        batch.ack.settle(Verdict::Delivered);
        assert_eq!(said.recv(), Ok(Verdict::Failed));
    }
}
