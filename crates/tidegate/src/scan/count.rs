//! `--count`: how many rows there are.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use tidegate::model::{Commit, Delivered, Error, Mistake, Result, Sink, SinkContext, Written};

/// A count, and where it stops.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    rows: Arc<AtomicU64>,
    limit: u64,
}

impl Counted {
    pub(super) fn new(limit: Option<NonZeroU64>) -> Self {
        Self { rows: Arc::default(), limit: limit.map_or(u64::MAX, NonZeroU64::get) }
    }

    pub(super) fn get(&self) -> u64 {
        self.rows.load(Ordering::Relaxed).min(self.limit)
    }
}

/// Counts; it reads no column.
pub(super) struct CountSink(Counted);

impl CountSink {
    pub(super) fn new(counted: &Counted) -> Self {
        Self(counted.clone())
    }
}

impl Sink for CountSink {
    fn columns(&self, _input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        Ok(Vec::new())
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    fn open(&mut self, _context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        let Self(Counted { rows: counted, limit }) = self;
        let added = rows.num_rows() as u64;
        let all = counted.fetch_add(added, Ordering::Relaxed).saturating_add(added);
        let enough = all >= *limit;
        Box::pin(async move {
            match enough {
                true => Err(Error::closed("--limit is reached")),
                false => Ok(Written::default()),
            }
        })
    }

    fn commit<'a>(&'a mut self, _delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
