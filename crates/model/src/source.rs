//! Where data comes from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use tidegate_flow::BudgetHolder;

use crate::{Position, Result, SourceBatch};

/// What a source reads with: batches in order within each partition, or what went wrong.
///
/// After an error the engine drops the stream: `Disconnected` is opened again, after a wait, from
/// what was read last; everything else ends the run. The end of the stream is the end of the source.
pub type SourceStream = BoxStream<'static, Result<SourceBatch>>;

/// Where data comes from.
///
/// A source reads only when its stream is polled, and only with a permit of its
/// [holder](SourceContext::holder) in hand, which it ties to the buffer it reads into
/// (`Bytes::from_owner`). It does not detach tasks, retry, log each record or count: the engine does.
/// Dropping the stream stops it; what it had not given is read again next time.
pub trait Source: Send {
    /// The columns its rows have; `None` as long as only the other side knows them. Once they are
    /// known they stay the same.
    fn schema(&self) -> Option<SchemaRef>;

    /// Learns what only the other side knows: after it [`schema`](Source::schema) is known. A run
    /// calls it once, before the pipeline is planned and anything is opened; `check` never does.
    /// It bounds its own time. It may be dropped half-way, and then nothing else is called.
    ///
    /// # Errors
    ///
    /// Each ends the run at once, whatever its kind: nothing goes on yet that could wait for a
    /// second try.
    fn prepare(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Whether it can go on from a position: what is lost in flight is read again. Without that, a
    /// crash loses what was in flight, and documentation says so.
    fn replayable(&self) -> bool;

    /// Whether a row that is read again has the offset that it had before, so that sinks may drop what
    /// they have by that. Without it, what was in flight at a crash is delivered twice.
    fn same_offsets(&self) -> bool {
        self.replayable()
    }

    /// The bytes it needs to read one batch, whatever its size: its share of the budget can never be
    /// less.
    fn bytes_min(&self) -> usize;

    /// The text column whose literals it can look for before it makes rows, if there is one: then it
    /// may be told what rows must have [in it](SourceContext::required).
    fn searched(&self) -> Option<&'static str> {
        None
    }

    /// Whether it can tell, before it makes rows, which can't be as severe as is asked: then it may be
    /// told [how severe](SourceContext::severity_min) rows must be.
    fn severity_searched(&self) -> bool {
        false
    }

    /// Begins to read. Called again after [`ErrorKind::Disconnected`](crate::ErrorKind::Disconnected).
    ///
    /// # Errors
    ///
    /// `Disconnected` where it may work later, `Fatal` where a person has to do something.
    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>>;

    /// Ends what goes on beside the stream, such as answers to those who wait for them. Called once,
    /// when the stream is gone and all it gave has been [told](SourceBatch::told); not where the run
    /// is aborted. It is bounded by the time that a shutdown may take.
    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// What a source is given when it opens.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// The component's name in the configuration.
    pub name: Arc<str>,
    /// Where to go on, one for each partition that was read before.
    pub positions: Vec<Position>,
    /// The source's share of the budget; at least [`Source::bytes_min`] is guaranteed.
    pub holder: Arc<BudgetHolder>,
    /// The columns to give, in this order: those of [`Source::schema`] that anyone reads, and
    /// [`OFFSET`](crate::OFFSET) last where [`offsets`](Self::offsets) is set.
    pub columns: SchemaRef,
    /// Texts of which a row must have at least one in the column that the source
    /// [searches](Source::searched): nobody makes anything of a row that has none of them, and the
    /// source may skip and [count](SourceBatch::skipped) it. `None` where every row is wanted.
    pub required: Option<Arc<[Box<str>]>>,
    /// The least number that a row must have in the column `severity`, where the source
    /// [can tell](Source::severity_searched): nobody makes anything of a row that has less, or none,
    /// and the source may skip and count it, as it may by [`required`](Self::required). A row must
    /// pass both. `None` where every row is wanted.
    pub severity_min: Option<u8>,
    /// Whether rows must say where they are, in the column [`OFFSET`](crate::OFFSET).
    pub offsets: bool,
    /// Stop at the end of what there is, rather than wait for more.
    pub once: bool,
    /// A batch has at most this many bytes of input, what is [skipped](SourceBatch::skipped) not
    /// counted.
    pub batch_bytes_max: usize,
    /// A batch has at most this many rows.
    pub batch_rows_max: usize,
    /// Where to say how much there is to read.
    pub expected: Expected,
}

/// How much there is to read in all, as far as the source knows, in bytes, in rows or in both: for
/// progress, never for correctness.
#[derive(Clone, Debug, Default)]
pub struct Expected(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    // 0 is unknown.
    bytes: AtomicU64,
    // 0 is unknown; else twice the rows and 2 more, and 1 more where that is exact.
    rows: AtomicU64,
}

/// A number of rows that are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedRows {
    /// How many.
    pub rows: u64,
    /// Whether they were counted, rather than estimated.
    pub is_exact: bool,
}

impl Expected {
    /// Says how many bytes there are, what is read already included. 0 is unknown.
    pub fn set(&self, bytes: u64) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    /// The bytes that were said last.
    pub fn get(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Says how many rows there are, those read already included; and whether they were counted,
    /// rather than estimated.
    pub fn set_rows(&self, rows: u64, is_exact: bool) {
        let said = rows.min(u64::MAX / 2 - 1) * 2 + 2 + u64::from(is_exact);
        self.0.rows.store(said, Ordering::Relaxed);
    }

    /// The rows that were said last, if any were.
    pub fn rows(&self) -> Option<ExpectedRows> {
        let said = self.0.rows.load(Ordering::Relaxed);
        let rows = (said / 2).checked_sub(1)?;
        Some(ExpectedRows { rows, is_exact: said % 2 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unknown_until_they_are_said() {
        let expected = Expected::default();
        assert_eq!((expected.rows(), expected.get()), (None, 0));
        for (rows, is_exact) in [(0, true), (0, false), (10_000_000, false), (7, true)] {
            expected.clone().set_rows(rows, is_exact);
            assert_eq!(expected.rows(), Some(ExpectedRows { rows, is_exact }));
        }
        expected.set_rows(u64::MAX, true);
        assert!(expected.rows().is_some_and(|rows| rows.rows > u64::MAX / 4 && rows.is_exact));
        assert_eq!(expected.get(), 0, "bytes are another matter");
    }
}
