//! SQL for Tidegate's transforms: planned once, evaluated batch by batch.
//!
//! A query is one `SELECT … FROM input WHERE …`: it filters rows and works out columns. It is
//! parsed and looked at when it is configured, fitted to its input's columns before anything is
//! opened, and from then on only evaluated. No I/O, and no clock: `now()` is when the rows were
//! read.
//!
//! **A row's fate is its own.** What can't be worked out for a row — a text that is no number, a
//! division by zero, a sum that does not fit — rejects that row with the reason, and no other.
//! WHERE asks its conditions in the order in which they stand, and a row is out as soon as one is
//! not true: `a <> 0 AND 10 / a > 1` never divides by zero.
//!
//! **Bounds.** Outputs have about 1 MiB of worked out text. Functions that make much of little
//! (`repeat`, `lpad`, `replace`, `regexp_replace`, …) make at most 8 MiB a call, or the row is
//! rejected; those that make lists of any length are refused. A constant has at most 64 KiB, a
//! query 4,096 words and expressions of 96 levels.
//!
//! ```
//! use std::sync::Arc;
//! use arrow_array::{ArrayRef, Int64Array, RecordBatch};
//! use tidegate_model::{Moment, Settings, Transform};
//!
//! let settings = Settings::from_toml("query = 'SELECT 10 / a AS b FROM input WHERE a < 5'")?;
//! let transform = tidegate_sql::SqlTransform::from_settings(&settings)?;
//! let a: ArrayRef = Arc::new(Int64Array::from(vec![5, 2, 0]));
//! let rows = RecordBatch::try_from_iter([("a", a)]).unwrap();
//! let mut stage = transform.plan(&rows.schema())?;
//! let at = Moment { read_at: 0, elapsed: Default::default() };
//! let output = stage.apply(rows, at).unwrap();
//! assert_eq!(output.rows.column(0).as_ref(), &Int64Array::from(vec![5]));
//! assert_eq!(output.rejects.unwrap().reasons, ["b: divide by zero error"]);
//! # Ok::<(), tidegate_model::Mistake>(())
//! ```

/// The transform and its settings.
mod transform;

/// The shape of a query.
mod query;

/// The names in it.
mod names;

/// The functions it can call.
mod functions;

/// Its expressions, planned.
mod planner;

/// What they are made to do.
mod physical;

/// All of it, fitted to an input.
mod plan;

/// What the text of a row must have to be of use to it.
mod required;

/// How severe it must be.
mod severe;

/// A plan at work on some rows.
mod evaluate;

/// Batches through a plan.
mod stage;

/// What is wrong with a query, and where.
mod refusal;

pub use transform::{SPEC, SqlTransform};
