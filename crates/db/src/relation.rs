//! What to read, and how.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use tidegate_flow::{Backoff, BudgetHolder};

use crate::{CursorStream, Key, Range, Result};

/// What a person wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// A table or a query.
    pub what: What,
    /// A condition in the database's own SQL that rows must meet.
    pub filter: Option<String>,
    /// The columns that order the rows, no two of which have the same values in them; found from the
    /// primary key, or else a unique index without nulls, where `None`.
    pub key: Option<Vec<String>>,
}

/// A table or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A table's or view's name, with its schema or without: `events`, `public.events`,
    /// `"Odd Name"`.
    Table(String),
    /// One `SELECT`.
    Query(String),
}

/// How rows that change while they are read are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Each page sees what is committed when it is read: nothing is held at the database between
    /// pages.
    #[default]
    Pages,
    /// All pages see what was committed at one moment: a transaction is held open for as long as
    /// rows are read. What that costs each database says where it is asked to describe something.
    Snapshot,
}

impl Consistency {
    /// One moment or not.
    pub fn of_snapshot(snapshot: bool) -> Self {
        if snapshot { Self::Snapshot } else { Self::Pages }
    }
}

/// How many rows there are, by the database's statistics, and so not exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// How many.
    pub rows: u64,
    /// Whether it is known exactly.
    pub is_exact: bool,
}

/// How a range is read.
#[derive(Clone, Debug)]
pub struct Options {
    /// The columns to give, as indices of [`Relation::schema`]; those of the key are read as well.
    pub columns: Vec<usize>,
    /// A batch has at most so many rows.
    pub rows_max: usize,
    /// A batch has at most about so many bytes, or one row.
    pub bytes_max: usize,
    /// A page, which is what one statement gets, has at most so many rows.
    pub page_rows_max: usize,
    /// Memory for what is read: a page and its batches.
    pub holder: Arc<BudgetHolder>,
    /// How long it waits before it tries again after an error that may heal. `None` gives the error at
    /// once, and ends the stream.
    pub backoff: Option<Backoff>,
}

/// A table or query that was looked at: its columns, its key, and ways to read it.
pub trait Relation: Send + Sync {
    /// Its columns, and behind them those of the key that are none of its own (SQLite's rowid).
    fn schema(&self) -> &SchemaRef;

    /// How many columns of [`schema`](Relation::schema) are its own: the first ones.
    fn own_columns(&self) -> usize {
        self.schema().fields().len()
    }

    /// The columns of its key, as indices of [`schema`](Relation::schema), in the key's order.
    fn key(&self) -> &[usize];

    /// How many rows there are.
    fn estimate(&self) -> Option<Estimate>;

    /// The memory that a stream needs at least for itself.
    fn bytes_min(&self, bytes_max: usize) -> usize;

    /// Keys that cut the rows into at most so many ranges, each of about as many rows as the others;
    /// ascending. Fewer where there is nothing to cut by.
    ///
    /// # Errors
    ///
    /// What the database says.
    fn split(&self, parts: usize) -> BoxFuture<'_, Result<Vec<Key>>>;

    /// Reads a range in the key's order, in keyset pages: rows that are added behind the place that
    /// reading has come to are read, those added before it are not, and those deleted before they were
    /// reached are not either.
    fn stream(self: Arc<Self>, range: Range, options: Options) -> CursorStream;
}
