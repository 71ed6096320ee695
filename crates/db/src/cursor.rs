//! Rows of a relation, in order.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_array::RecordBatch;
use futures::StreamExt;
use futures_core::Stream;
use futures_core::stream::BoxStream;

use crate::{Key, Result};

/// Rows that were read together.
#[derive(Clone, Debug)]
pub struct Rows {
    /// At least one row. Its memory belongs to the budget until its buffers are dropped.
    pub batch: RecordBatch,
    /// The key of each row, where that is one integer column; else empty.
    pub numbers: Vec<u64>,
    /// The key of the last row: reading goes on after it.
    pub last: Key,
    /// How many bytes of the database's answer they were.
    pub bytes: u64,
}

/// Rows of a range of a [`Relation`](crate::Relation), in the order of its key.
///
/// It reads at most two pages ahead of what was taken. A connection that breaks is made again, after a
/// wait, and reading goes on behind the last row that was given; it ends with an error that does not
/// heal, and then gives nothing more. Dropping it ends what the database was doing for it.
#[must_use = "streams do nothing unless polled"]
pub struct CursorStream {
    rows: BoxStream<'static, Result<Rows>>,
}

impl CursorStream {
    pub(crate) fn new(rows: impl Stream<Item = Result<Rows>> + Send + 'static) -> Self {
        Self { rows: rows.boxed() }
    }
}

impl fmt::Debug for CursorStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CursorStream").finish_non_exhaustive()
    }
}

impl Stream for CursorStream {
    type Item = Result<Rows>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rows.poll_next_unpin(cx)
    }
}
