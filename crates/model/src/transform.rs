//! Rows in, rows out.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::{Mistake, Result};

/// A transform as configured, before it knows what rows it will get.
///
/// Planning does no I/O; `check` plans and stops there.
pub trait Transform: Send + Sync {
    /// Which columns of the input it reads itself, as indices in ascending order.
    ///
    /// # Errors
    ///
    /// A mistake, with what to write instead, where it does not fit the input's schema.
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake>;

    /// Gets ready for rows of exactly this schema: the columns it asked for, perhaps more, perhaps
    /// with the hidden column [`OFFSET`](crate::OFFSET), which it carries along as its last one.
    ///
    /// # Errors
    ///
    /// As [`columns`](Transform::columns).
    fn plan(&self, input: &SchemaRef) -> Result<Box<dyn Stage>, Mistake>;

    /// Whether it hands on its input's columns as they are, whatever they are: then it is given
    /// what those after it read as well, and its output has the columns of its input. Otherwise
    /// its output has the columns that its [plan](Transform::plan) says.
    fn passes_through(&self) -> bool {
        false
    }

    /// Texts of which a row must have at least one in this column of the input, a text column: of
    /// all other rows it makes nothing, not even rejects, so that a source may skip them unseen.
    /// None of them is empty. `None` where a row can be of use whatever the column says.
    ///
    /// The stage must not rely on it: rows that have none of them come as well.
    fn required(&self, _input: &SchemaRef, _column: &str) -> Option<BTreeSet<String>> {
        None
    }

    /// The least number in the column `severity` of which a row is of any use: of rows with less,
    /// or with none, it makes nothing, not even rejects, so that a source may skip them unseen.
    /// `None` where a row can be of use whatever its severity.
    ///
    /// The stage must not rely on it: such rows come as well.
    fn severity_min(&self, _input: &SchemaRef) -> Option<u8> {
        None
    }

    /// On how many workers it may run at a time; `None` for as many as there are. Transforms that
    /// follow each other run as one, on as many as each of them allows.
    fn workers(&self) -> Option<NonZeroUsize> {
        Some(NonZeroUsize::MIN)
    }
}

/// A transform at work: synchronous, without I/O, told the time.
pub trait Stage: Send {
    /// The columns of what it gives.
    fn schema(&self) -> SchemaRef;

    /// Another one for another worker, where rows can go through either; `None` where all must go
    /// through this one, in order.
    fn fork(&self) -> Option<Box<dyn Stage>>;

    /// Takes rows from the front of its input, as many as make an output of moderate size, and
    /// gives what becomes of them and the rest of the input, to be given to it again.
    ///
    /// # Errors
    ///
    /// What concerns single rows is no error: they are [rejects](Output::rejects). An error ends
    /// the run.
    fn apply(&mut self, rows: RecordBatch, at: Moment) -> Result<Output>;
}

/// The time, as a stage is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When the rows were read: nanoseconds since the epoch. `now()` in SQL.
    pub read_at: i64,
    /// How long the pipeline has been running, by a clock that never jumps.
    pub elapsed: Duration,
}

/// What a [`Stage`] gives.
#[derive(Debug)]
pub struct Output {
    /// The rows; perhaps none.
    pub rows: RecordBatch,
    /// Rows of the input that could not be worked on.
    pub rejects: Option<Rejects>,
    /// What was not looked at yet, at the end of the input. Never all of it.
    pub rest: Option<RecordBatch>,
    /// How long to wait before the rows are handed on.
    pub wait: Duration,
}

impl Output {
    /// All rows at once, nothing rejected.
    pub fn rows(rows: RecordBatch) -> Self {
        Self { rows, rejects: None, rest: None, wait: Duration::ZERO }
    }
}

/// Rows that could not be worked on, as they came in.
#[derive(Debug)]
pub struct Rejects {
    /// The rows, in order, with the columns of the input.
    pub rows: RecordBatch,
    /// Why, for each row.
    pub reasons: Vec<String>,
}
