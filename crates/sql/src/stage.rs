//! A query at work: as many rows at a time as make an output of moderate size, and the rows that
//! fail set aside one by one.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{RecordBatch, UInt32Array};
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use tidegate_model::{Error, Moment, Output, Rejects, Result, Stage};

use crate::plan::{Make, Plan};

/// What one output has of worked out values of any length, more or less.
const OUTPUT_BYTES: usize = 1 << 20;

/// How many rows are taken while nothing is known about what becomes of a row.
const FIRST_ROWS: usize = 64;

/// How much more may be taken than the time before.
const STEP: usize = 16;

/// Copies of the query's constants have at most this many bytes at a time.
const CONSTANTS_BYTES_MAX: usize = 8 << 20;

/// A planned query.
///
/// **Buffering**: none between calls. Within one, it holds what it makes of the rows it takes:
/// about 1 MiB, and at most what one row makes, or what [`FIRST_ROWS`] rows make at first.
#[derive(Clone, Debug)]
pub(crate) struct SqlStage {
    plan: Arc<Plan>,
    pace: Option<Pace>,
    rows_max: usize,
}

/// How many rows to take, from what became of those before. Only for queries that make values of
/// any length; others take all.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    rows: usize,
    row_bytes: usize,
}

impl SqlStage {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        let grows = plan.makes.iter().any(|make| matches!(make, Make::Value { grows: true, .. }));
        let rows_max = (CONSTANTS_BYTES_MAX / plan.constant_bytes.max(1)).max(1);
        Self { plan, pace: grows.then(Pace::default), rows_max }
    }
}

impl Stage for SqlStage {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.plan.schema)
    }

    fn fork(&self) -> Option<Box<dyn Stage>> {
        // Sharing is only slower.
        let plan = self.plan.unshared().map_or_else(|_| Arc::clone(&self.plan), Arc::new);
        Some(Box::new(Self { plan, ..self.clone() }))
    }

    fn apply(&mut self, rows: RecordBatch, at: Moment) -> Result<Output> {
        let count = rows.num_rows();
        let take = self.pace.map_or(count, |pace| pace.take(count)).min(self.rows_max).min(count);
        let mut work = Work::new(&self.plan, &rows, at.read_at);
        work.run(0..take);
        if let Some(pace) = &mut self.pace {
            pace.learn(work.done, work.made, work.bytes);
        }
        let rest = count - work.done;
        let rest = (rest > 0).then(|| rows.slice(work.done, rest));
        let (rows, rejects) = work.finish().map_err(|error| {
            // All pieces have one schema, and indices come from the rows: this can't happen.
            Error::fatal("the parts of a batch don't fit together").because(error)
        })?;
        Ok(Output { rows, rejects, rest, wait: Duration::ZERO })
    }
}

impl Pace {
    fn take(self, count: usize) -> usize {
        let fit = match self.rows {
            0 => FIRST_ROWS,
            before => (OUTPUT_BYTES / self.row_bytes.max(1)).clamp(1, before.saturating_mul(STEP)),
        };
        // Not a second time for the last few.
        if count <= fit.saturating_add(fit / 4) { count } else { fit }
    }

    /// Of rows that a filter removed nothing is learned: those that come may pass it.
    fn learn(&mut self, taken: usize, made: usize, bytes: usize) {
        if taken == 0 {
            return;
        }
        self.rows = taken.max(FIRST_ROWS);
        if let Some(now) = bytes.checked_div(made) {
            // Up at once, down slowly: rows of one kind often come in turns.
            self.row_bytes = now.max(self.row_bytes - self.row_bytes / 4);
        }
    }
}

/// One call's work.
struct Work<'w> {
    plan: &'w Plan,
    rows: &'w RecordBatch,
    read_at: i64,
    pieces: Vec<RecordBatch>,
    rejected: Vec<u32>,
    reasons: Vec<String>,
    /// How many rows, from the first, are settled.
    done: usize,
    made: usize,
    bytes: usize,
}

impl<'w> Work<'w> {
    fn new(plan: &'w Plan, rows: &'w RecordBatch, read_at: i64) -> Self {
        let (pieces, rejected, reasons) = (Vec::new(), Vec::new(), Vec::new());
        Self { plan, rows, read_at, pieces, rejected, reasons, done: 0, made: 0, bytes: 0 }
    }

    /// Works rows out from the first to the last. Where that fails, each half by itself, down to
    /// single rows: what a row gives alone is its fate. Stops early once there is enough.
    fn run(&mut self, range: Range<usize>) {
        let mut open = vec![range];
        while let Some(Range { start, end }) = open.pop() {
            if start > 0 && self.bytes >= OUTPUT_BYTES {
                return;
            }
            let slice = self.rows.slice(start, end - start);
            match self.plan.evaluate(&slice, self.read_at) {
                Ok(made) => {
                    self.bytes += made.bytes;
                    self.made += made.rows.num_rows();
                    if made.rows.num_rows() > 0 {
                        self.pieces.push(made.rows);
                    }
                    self.done = end;
                }
                Err(reason) if end - start == 1 => {
                    self.rejected.extend(u32::try_from(start));
                    self.reasons.push(reason);
                    self.done = end;
                }
                Err(_) => {
                    let middle = start + (end - start) / 2;
                    open.push(middle..end);
                    open.push(start..middle);
                }
            }
        }
    }

    fn finish(mut self) -> Result<(RecordBatch, Option<Rejects>), arrow_schema::ArrowError> {
        let rows = match self.pieces.len() {
            0 => RecordBatch::new_empty(Arc::clone(&self.plan.schema)),
            1 => self.pieces.remove(0),
            _ => concat_batches(&self.plan.schema, &self.pieces)?,
        };
        if self.rejected.is_empty() {
            return Ok((rows, None));
        }
        let rejected = take_record_batch(self.rows, &UInt32Array::from(self.rejected))?;
        Ok((rows, Some(Rejects { rows: rejected, reasons: self.reasons })))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{ArrayRef, Int64Array};
    use arrow_schema::{DataType, Schema};
    use datafusion_common::Result as DataResult;
    use datafusion_expr::ColumnarValue;
    use datafusion_physical_expr::PhysicalExpr;

    use super::*;
    use crate::plan;
    use crate::query::Query;

    /// A kernel that can't bear a 3.
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Fussy;

    impl fmt::Display for Fussy {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("fussy")
        }
    }

    impl PhysicalExpr for Fussy {
        fn data_type(&self, _: &Schema) -> DataResult<DataType> {
            Ok(DataType::Int64)
        }

        fn evaluate(&self, batch: &RecordBatch) -> DataResult<ColumnarValue> {
            let numbers = batch.column(0).as_primitive::<Int64Type>();
            assert!(!numbers.values().contains(&3), "a 3 was found");
            Ok(ColumnarValue::Array(Arc::clone(batch.column(0))))
        }

        fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
            Vec::new()
        }

        fn with_new_children(
            self: Arc<Self>,
            _: Vec<Arc<dyn PhysicalExpr>>,
        ) -> DataResult<Arc<dyn PhysicalExpr>> {
            Ok(self)
        }

        fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Display::fmt(self, f)
        }
    }

    #[test]
    fn a_panic_in_a_kernel_rejects_the_row() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..6));
        let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let query = Query::parse("SELECT n + 0 AS n FROM input").unwrap();
        let mut plan = plan::plan(&query, &rows.schema()).unwrap();
        let Make::Value { expr, .. } = &mut plan.makes[0] else { panic!("a value is made") };
        *expr = Arc::new(Fussy);
        let at = Moment { read_at: 0, elapsed: Duration::ZERO };
        let output = SqlStage::new(Arc::new(plan)).apply(rows, at).unwrap();
        let made = output.rows.column(0).as_primitive::<Int64Type>();
        assert_eq!(made.values().to_vec(), [0, 1, 2, 4, 5]);
        assert_eq!(output.rejects.unwrap().reasons, ["it can't be worked out: a 3 was found"]);
    }

    #[test]
    fn the_pace_follows_what_rows_make() {
        let mut pace = Pace::default();
        assert_eq!([1, 70, 90, 9_000].map(|rows| pace.take(rows)), [1, 70, FIRST_ROWS, FIRST_ROWS]);
        pace.learn(64, 64, 64 * 10);
        assert_eq!(pace.take(9_000), 64 * STEP, "no more than so much more at once");
        pace.learn(1024, 1024, 1024 * 4096);
        assert_eq!(pace.take(9_000), OUTPUT_BYTES / 4096);
        pace.learn(256, 0, 0);
        assert_eq!(pace.take(9_000), OUTPUT_BYTES / 4096, "removed rows teach nothing");
        pace.learn(256, 256, 0);
        assert!((256..=256 * 2).contains(&pace.take(9_000)), "down slowly: {pace:?}");
        pace.learn(1, 1, 64 << 20);
        assert_eq!(pace.take(9_000), 1, "never none");
    }
}
