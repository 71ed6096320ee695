//! Where data goes.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;

use crate::{Mistake, Partition, Result};

/// Where data goes.
///
/// The engine calls one method at a time, and never drops a future of it half-way but at the very
/// end. It owns batching, retries, waits and dead letters: a sink tries once and says how it went.
pub trait Sink: Send {
    /// Which columns of its input it reads, as indices in ascending order.
    ///
    /// # Errors
    ///
    /// A mistake, with what to write instead, where it can't take such rows.
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        Ok((0..input.fields().len()).collect())
    }

    /// When what was written becomes durable.
    fn commit_when(&self) -> Commit;

    /// After how many written bytes they are committed, where the sink [groups](Commit::Grouped)
    /// its writes: for one that holds them in memory until then. It is asked once, before it opens.
    fn commit_bytes_max(&self) -> usize {
        64 << 20
    }

    /// How long after the first write at the latest writes are committed, where the sink
    /// [groups](Commit::Grouped) them: for one to which a commit costs much. Until then they are not
    /// acked. It is asked once, before it opens.
    fn commit_age(&self) -> Duration {
        Duration::from_millis(200)
    }

    /// Whether a row that comes again after a crash is rejected if it was before, and else is not.
    /// Then those who take its [rejects](Written::rejected) may drop what they have. Without it,
    /// because what was committed meanwhile decides too, they get what was in flight twice.
    fn same_rejects(&self) -> bool {
        true
    }

    /// How far small batches are joined before a write.
    fn gather(&self) -> Gather {
        Gather::default()
    }

    /// What it writes to, where two sinks must not write to the same; the engine refuses that.
    fn target(&self) -> Option<String> {
        None
    }

    /// Gets ready, and says what of each input's partitions it already holds. Called again after
    /// `Disconnected`: what was written before that and is not committed yet is then still the
    /// sink's to keep, for those rows don't come again in this run.
    ///
    /// # Errors
    ///
    /// `Disconnected` where it may work later, `Fatal` where a person has to do something.
    fn open(&mut self, context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>>;

    /// Writes rows. After an error, or where some rows are to be tried again, it must be ready for
    /// the same rows once more.
    ///
    /// # Errors
    ///
    /// `Disconnected`: tried again, all of it, after a wait. `Fatal`: the run ends. `Closed`: it
    /// ends too, and as a success.
    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>>;

    /// Makes all that was written durable, and with it how far it has come in each partition that
    /// moved since the last commit, in one step: after a crash either both are there or neither.
    /// What was rejected is durable already, where others take it. Only then the engine acks.
    ///
    /// # Errors
    ///
    /// As [`write`](Sink::write); `Disconnected` commits again.
    fn commit<'a>(&'a mut self, delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>>;

    /// Ends what goes on beside writing, such as what is still on its way to those who listen. Called
    /// once, when all is committed; not where the run failed or is aborted. It bounds its own time,
    /// and a shutdown may take less.
    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// When a sink's writes become durable: see [`Sink::commit_when`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// They are when [`Sink::write`] returns (or never: a terminal). Each is committed at once.
    EachWrite,
    /// A commit costs something, and many writes share one. The sink keeps how far it has come with
    /// what it wrote, so that rows that come again after a crash are not written again.
    Grouped,
}

/// How far the engine joins small batches to one [write](Sink::write): see [`Sink::gather`].
///
/// A batch that is larger passes alone, and none is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// At most so many rows.
    pub rows_max: usize,
    /// At most so many bytes.
    pub bytes_max: usize,
    /// So long the first of them waits for more to come. Without a wait, what there is is joined.
    pub age: Duration,
}

impl Gather {
    /// Each batch is written alone: for sinks to which it matters whose rows they are.
    pub const ALONE: Self = Self { rows_max: 1, bytes_max: 1, age: Duration::ZERO };
}

impl Default for Gather {
    /// 256 rows, 64 KiB, and no wait: joining more costs more than a write does, unless that is a
    /// request.
    fn default() -> Self {
        Self { rows_max: 256, bytes_max: 64 << 10, age: Duration::ZERO }
    }
}

/// How far a sink has come in a partition of one of its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delivered {
    /// The input, by its name in the configuration, and the way its rows came where that is not
    /// straight from the source: the same rows by two ways are two deliveries.
    pub input: Arc<str>,
    /// The source that the rows came from, by its name.
    pub source: Arc<str>,
    /// The partition of that source.
    pub partition: Partition,
    /// Every row with an offset below this is there.
    pub end: u64,
}

/// How a write went, for rows that did not simply go well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows to be written again, ascending.
    pub again: Vec<usize>,
    /// How long to wait before that, where the other side said so.
    pub after: Option<Duration>,
    /// Why they are to be written again, for people to read.
    pub why: Option<String>,
    /// Rows that will never be taken, ascending, and why. They go to the sinks that read
    /// `NAME.rejects`; without one they are counted and gone.
    pub rejected: Vec<(usize, String)>,
}

/// What a sink is given when it opens.
#[derive(Clone)]
pub struct SinkContext {
    /// The component's name in the configuration.
    pub name: Arc<str>,
    /// The columns it will get.
    pub columns: SchemaRef,
    /// What it wants to remember, in the pipeline's store.
    pub records: Arc<dyn Records>,
}

/// A sink's own part of the pipeline's store. Calls block on the disk.
pub trait Records: Send + Sync {
    /// What was saved under this key.
    ///
    /// # Errors
    ///
    /// `Fatal` where the store can't be read.
    fn load(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// How far the sink had come, by the last [`save`](Records::save).
    ///
    /// # Errors
    ///
    /// `Fatal` where the store can't be read.
    fn delivered(&self) -> Result<Vec<Delivered>>;

    /// Saves a value under a key, and how far the sink has come, durably and in one step. Partitions
    /// not named keep what was saved of them.
    ///
    /// # Errors
    ///
    /// `Disconnected` where the disk is full or fails: nothing was saved.
    fn save(&self, key: &str, value: &[u8], delivered: &[Delivered]) -> Result<()>;
}
