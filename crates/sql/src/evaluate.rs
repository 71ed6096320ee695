//! A plan at work on some rows: WHERE condition by condition, then SELECT on what is left.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, TimestampNanosecondArray,
};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::filter::{FilterBuilder, FilterPredicate};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::ColumnarValue;

use crate::plan::{Make, Plan};
use crate::refusal::{reason, tidy};

/// Where conditions leave at most one row in so many, the rest is filtered before more is asked.
const FEW: usize = 8;

/// What became of some rows.
pub(crate) struct Made {
    pub(crate) rows: RecordBatch,
    /// The bytes of what was worked out and has values of any length.
    pub(crate) bytes: usize,
}

impl Plan {
    /// Works the rows out; an error concerns at least one of them.
    ///
    /// A panic in a kernel is such an error. Expressions have no state, so nothing is left half
    /// done.
    pub(crate) fn evaluate(&self, rows: &RecordBatch, read_at: i64) -> Result<Made, String> {
        catch_unwind(AssertUnwindSafe(|| self.run(rows, read_at)))
            .unwrap_or_else(|panic| Err(format!("it can't be worked out: {}", said(&*panic))))
    }

    fn run(&self, rows: &RecordBatch, read_at: i64) -> Result<Made, String> {
        let scanned = self.scan(rows, read_at).map_err(|error| tidy(&error.to_string()))?;
        let (scanned, kept) = self.filter(scanned).map_err(|error| at("where", &error))?;
        let kept = match kept {
            Kept::None => {
                return Ok(Made {
                    rows: RecordBatch::new_empty(Arc::clone(&self.schema)),
                    bytes: 0,
                });
            }
            Kept::All => self.keep(&scanned, None),
            Kept::Some(mask) => self.keep(&scanned, Some(&mask)),
        };
        self.make(&kept.map_err(|error| tidy(&error.to_string()))?)
    }

    /// The columns that the query reads.
    fn scan(&self, rows: &RecordBatch, read_at: i64) -> Result<RecordBatch, ArrowError> {
        let columns = self.scan.columns.iter().map(|column| match column {
            Some(index) => Arc::clone(rows.column(*index)),
            None => {
                let times = TimestampNanosecondArray::from_value(read_at, rows.num_rows());
                Arc::new(times.with_timezone("UTC")) as ArrayRef
            }
        });
        batch(&self.scan.schema, columns.collect(), rows.num_rows())
    }

    /// Asks the conditions one after the other. Where the next one can fail, it sees only rows for
    /// which all before it were true.
    fn filter(&self, mut rows: RecordBatch) -> Result<(RecordBatch, Kept), DataFusionError> {
        let mut kept = Kept::All;
        for condition in &self.conditions {
            if let Kept::Some(mask) = &kept
                && (condition.can_fail || mask.count_set_bits() <= rows.num_rows() / FEW)
            {
                rows = filtered(&rows, mask)?;
                kept = Kept::All;
            }
            let answers = match condition.expr.evaluate(&rows)? {
                ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))) => continue,
                ColumnarValue::Scalar(_) => return Ok((rows, Kept::None)),
                ColumnarValue::Array(answers) => answers,
            };
            let yes = truths(answers.as_boolean());
            kept = kept.and(yes);
            if matches!(kept, Kept::None) {
                break;
            }
        }
        Ok((rows, kept))
    }

    /// The columns that SELECT reads, of the rows that are kept.
    fn keep(
        &self,
        rows: &RecordBatch,
        mask: Option<&BooleanBuffer>,
    ) -> Result<RecordBatch, ArrowError> {
        let columns = self.kept.iter().map(|index| rows.column(*index));
        let Some(mask) = mask else {
            return batch(&self.kept_schema, columns.cloned().collect(), rows.num_rows());
        };
        let predicate = predicate(mask, self.kept.len());
        let columns = columns.map(|column| predicate.filter(column));
        batch(&self.kept_schema, columns.collect::<Result<_, _>>()?, predicate.count())
    }

    fn make(&self, kept: &RecordBatch) -> Result<Made, String> {
        let mut columns = Vec::with_capacity(self.makes.len());
        let mut bytes = 0;
        for make in &self.makes {
            match make {
                Make::Pass(index) => columns.push(Arc::clone(kept.column(*index))),
                Make::Value { name, expr, grows } => {
                    let value = expr.evaluate(kept);
                    let array = value.and_then(|value| value.into_array(kept.num_rows()));
                    let array = array.map_err(|error| at(name, &error))?;
                    if *grows {
                        bytes += used_bytes(&array);
                    }
                    columns.push(array);
                }
            }
        }
        let rows = batch(&self.schema, columns, kept.num_rows());
        Ok(Made { rows: rows.map_err(|error| tidy(&error.to_string()))?, bytes })
    }
}

/// Which rows conditions leave.
enum Kept {
    All,
    Some(BooleanBuffer),
    None,
}

impl Kept {
    fn and(self, yes: BooleanBuffer) -> Kept {
        let mask = match self {
            Kept::None => return Kept::None,
            Kept::All => yes,
            Kept::Some(mask) => &mask & &yes,
        };
        match mask.count_set_bits() {
            0 => Kept::None,
            count if count == mask.len() => Kept::All,
            _ => Kept::Some(mask),
        }
    }
}

/// Null is not true.
fn truths(answers: &BooleanArray) -> BooleanBuffer {
    match answers.nulls() {
        Some(valid) => answers.values() & valid.inner(),
        None => answers.values().clone(),
    }
}

fn predicate(mask: &BooleanBuffer, columns: usize) -> FilterPredicate {
    let mask = BooleanArray::new(mask.clone(), None);
    let builder = FilterBuilder::new(&mask);
    // Worth it where the mask is used more than once.
    if columns > 1 { builder.optimize().build() } else { builder.build() }
}

fn filtered(rows: &RecordBatch, mask: &BooleanBuffer) -> Result<RecordBatch, ArrowError> {
    let predicate = predicate(mask, rows.num_columns());
    let columns = rows.columns().iter().map(|column| predicate.filter(column));
    batch(rows.schema_ref(), columns.collect::<Result<_, _>>()?, predicate.count())
}

/// A batch that knows how many rows it has, also without columns.
fn batch(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// What the rows themselves use: lengths of texts, not of the buffers they may share.
fn used_bytes(array: &ArrayRef) -> usize {
    match array.as_string_view_opt() {
        Some(views) => views.lengths().map(|length| length as usize + 16).sum(),
        None => array.to_data().get_slice_memory_size().unwrap_or(0),
    }
}

fn at(place: &str, error: &DataFusionError) -> String {
    format!("{place}: {}", reason(error))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.map_or_else(|| "a panic".to_owned(), |text| tidy(&text))
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, StringArray};

    use super::*;
    use crate::plan;
    use crate::query::Query;

    /// The rows would come out right without, but only after the batch was halved down to each row
    /// that was guarded.
    #[test]
    fn guarded_rows_do_not_make_a_batch_fail() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..100).map(|n| {
            let null = n % 7 == 0;
            (!null).then_some(n % 3)
        })));
        let words: StringArray =
            (0..100).map(|n| Some(if n % 2 == 0 { "12" } else { "x" })).collect();
        let rows = RecordBatch::try_from_iter([("a", numbers), ("w", Arc::new(words) as ArrayRef)]);
        let rows = rows.unwrap();
        for query in [
            "SELECT a FROM input WHERE a <> 0 AND 10 / a > 1",
            "SELECT a FROM input WHERE a IS NOT NULL AND (a = 0 OR 10 / a > 1)",
            "SELECT a FROM input WHERE NOT (a IS NULL OR a = 0 OR 10 / a > 7)",
            "SELECT a = 0 OR 10 / a > 1 AS t, a <> 0 AND 10 / a > 1 AS u FROM input",
            "SELECT CASE WHEN a <> 0 THEN 10 / a ELSE a END AS c FROM input",
            "SELECT CAST(w AS INT) AS n FROM input WHERE w LIKE '1_'",
            "SELECT CAST(w AS INT) AS n FROM input WHERE w <> 'x' AND CAST(w AS INT) = 12",
            "SELECT coalesce(CASE WHEN w = 'x' THEN 0 END, CAST(w AS INT)) AS n FROM input",
        ] {
            let plan = plan::plan(&Query::parse(query).unwrap(), &rows.schema()).unwrap();
            let made = plan.evaluate(&rows, 0);
            assert!(made.is_ok_and(|made| made.rows.num_rows() > 0), "{query}");
        }
        let query = Query::parse("SELECT a FROM input WHERE 10 / a > 1 AND a <> 0").unwrap();
        let failed = plan::plan(&query, &rows.schema()).unwrap().evaluate(&rows, 0);
        assert_eq!(failed.err().as_deref(), Some("where: divide by zero error"));
    }
}
