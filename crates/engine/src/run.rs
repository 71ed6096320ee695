//! A pipeline at work: starts the tasks, watches them, and ends them in order.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tidegate_flow::{Backoff, ByteBudget};
use tidegate_model::{Error, ErrorKind, ExpectedRows, Result};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::gauges::{Gauge, NamedEdge};
use crate::graph::Pipeline;
use crate::ledger::Ledger;
use crate::route::StageCounts;
use crate::snapshot::Snapshot;
use crate::source_task::lost;
use crate::start::Starter;
use crate::stop::{Phase, panicked};
use crate::store::Store;

/// A batch has at most this many bytes of input …
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// … and this many rows.
pub const BATCH_ROWS_MAX: usize = 8_192;

/// How long to wait before trying again: what has healed is used again within five seconds.
const RETRY_WAITS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);

/// How to run a pipeline.
#[derive(Clone)]
pub struct RunOptions {
    /// Stop when all sources have come to the end of what there is.
    pub once: bool,
    /// How many workers the transforms of one source may have, where they allow as many; 1 runs them
    /// in the source's task.
    pub workers: NonZeroUsize,
    /// How to wait before trying again what was disconnected.
    pub backoff: Backoff,
    /// Where to keep positions, in place of the pipeline's `data_dir`.
    pub store: Option<Store>,
}

impl Default for RunOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { once: false, workers, backoff: Backoff::exponential(RETRY_WAITS), store: None }
    }
}

impl Pipeline {
    /// Opens the store, locks it, lets sources learn their columns, and starts. Components open in
    /// their own time: one that can't at first is tried again while the others go on.
    ///
    /// Dropping the future gives up: nothing was read then, and the store is free again.
    ///
    /// # Errors
    ///
    /// Where the store can't be had, or a source can't learn its columns; and `Invalid` where the
    /// pipeline does not fit these columns, each mistake in a line of its own.
    pub async fn start(self, options: RunOptions) -> Result<Running> {
        let store = match options.store.clone() {
            Some(store) => store,
            None => {
                let folder = self.builder.data_dir.clone();
                let opened = tokio::task::spawn_blocking(move || Store::open(&folder)).await;
                opened.map_err(|error| Error::fatal("can't open the store").because(error))??
            }
        };
        let (builder, plan) = self.prepare().await?;
        Starter::new(builder, plan, options, store).start().await
    }
}

/// A pipeline at work. Dropping it aborts everything: what was not committed is read again.
pub struct Running {
    pub(crate) tasks: JoinSet<Result<()>>,
    pub(crate) names: HashMap<Id, String>,
    pub(crate) handle: Handle,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) failed: Arc<Notify>,
    // One task, aborted when this is dropped.
    pub(crate) checkpoints: JoinSet<Result<()>>,
    pub(crate) last_commit: oneshot::Sender<()>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) resumed: bool,
}

/// Watches and stops a pipeline from elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) began: Instant,
    pub(crate) budget: ByteBudget,
    pub(crate) sources: Vec<Arc<Gauge>>,
    pub(crate) transforms: Vec<(Arc<str>, Arc<StageCounts>)>,
    pub(crate) sinks: Vec<Arc<Gauge>>,
    pub(crate) edges: Vec<NamedEdge>,
    pub(crate) ledgers: Vec<(Arc<str>, Arc<Ledger>)>,
}

/// How a run ended that went well: all that was read is acked, and positions are committed.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The last numbers.
    pub snapshot: Snapshot,
    /// Whether sources had been read before, in an earlier run.
    pub resumed: bool,
}

/// How a run ended that did not: positions are safe, what is not acked is read again.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong first, with the component's name.
    pub error: Error,
    /// How many batches were left without a verdict.
    pub unacked: u64,
    /// The last numbers.
    pub snapshot: Box<Snapshot>,
}

impl Handle {
    /// Stops the sources; what is in flight is still delivered, within the shutdown timeout.
    pub fn stop(&self) {
        self.shared.advance(Phase::Drain);
    }

    /// Stops everything at once.
    pub fn abort(&self) {
        self.shared.advance(Phase::Abort);
    }

    /// The numbers of this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }
}

impl Shared {
    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = to.max(*phase);
            later
        });
    }

    fn snapshot(&self) -> Snapshot {
        let elapsed = self.began.elapsed();
        let sources = self.sources.iter().map(|gauge| gauge.read());
        let transforms = self.transforms.iter().map(|(name, counts)| counts.read(name, elapsed));
        let sinks = self.sinks.iter().map(|gauge| gauge.read());
        let expected = self.sources.iter().map(|gauge| gauge.expected.get());
        let known = expected.clone().all(|bytes| bytes > 0);
        Snapshot {
            elapsed,
            budget: self.budget.usage(),
            bytes_expected: known.then(|| expected.sum()),
            rows_expected: self.rows_expected(),
            components: sources.chain(transforms).chain(sinks).collect(),
            edges: self.edges.iter().map(NamedEdge::read).collect(),
        }
    }

    fn rows_expected(&self) -> Option<ExpectedRows> {
        let all = ExpectedRows { rows: 0, is_exact: true };
        self.sources.iter().map(|gauge| gauge.expected.rows()).try_fold(all, |all, rows| {
            let ExpectedRows { rows, is_exact } = rows?;
            let rows = all.rows.saturating_add(rows);
            Some(ExpectedRows { rows, is_exact: all.is_exact && is_exact })
        })
    }

    fn unacked(&self) -> u64 {
        self.ledgers.iter().map(|(_, ledger)| ledger.open() as u64).sum()
    }
}

impl Running {
    /// Watches and stops it from elsewhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits for its end: of all sources, or a [stop](Handle::stop), or a failure.
    ///
    /// # Errors
    ///
    /// Where a component failed, or a stop left something undelivered.
    pub async fn finish(mut self) -> Result<Summary, Failure> {
        let ended = self.watch().await;
        drop(std::mem::take(&mut self.tasks));
        let _ = self.last_commit.send(());
        let committed = match self.checkpoints.join_next().await {
            None => Ok(()),
            Some(Ok(committed)) => committed,
            Some(Err(error)) => Err(Error::fatal("checkpoints failed").because(error)),
        };
        let shared = &self.handle.shared;
        let (unacked, snapshot) = (shared.unacked(), shared.snapshot());
        let error = match first_of(ended, committed) {
            Err(error) if error.kind() != ErrorKind::Closed => error,
            Ok(()) if unacked > 0 => {
                let timeout = self.shutdown_timeout.as_secs();
                let left = format!(
                    "{unacked} batches were not delivered when the run was stopped \
                     (shutdown_timeout is {timeout} s); they are read again at the next start"
                );
                Error::fatal(left)
            }
            _ => return Ok(Summary { snapshot, resumed: self.resumed }),
        };
        Err(Failure { error, unacked, snapshot: Box::new(snapshot) })
    }

    /// Until all tasks have ended. The first failure stops the sources; what is in flight elsewhere
    /// is still delivered, within the timeout.
    async fn watch(&mut self) -> Result<()> {
        let mut first = Ok(());
        // A batch was dropped on its way: perhaps because a task has failed, which says why.
        let mut lost = None;
        let mut deadline = None;
        loop {
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let failure = tokio::select! {
                biased;
                joined = self.tasks.join_next_with_id() => match joined {
                    None => return first.and(lost.map_or(Ok(()), Err)),
                    Some(Ok((_, Ok(())))) => continue,
                    Some(Ok((_, Err(error)))) => Some(error),
                    Some(Err(error)) => self.panicked(error),
                },
                () = self.failed.notified(), if lost.is_none() => {
                    // What an abort drops is counted as unacked, and is nobody's mistake.
                    if *self.phase.borrow() < Phase::Abort {
                        lost = self.lost();
                        self.handle.stop();
                    }
                    None
                }
                _ = self.phase.changed() => None,
                () = late => {
                    self.handle.abort();
                    None
                }
            };
            if let Some(error) = failure {
                self.handle.stop();
                first = first_of(first, Err(error));
            }
            match *self.phase.borrow_and_update() {
                Phase::Run => {}
                Phase::Drain => {
                    deadline.get_or_insert_with(|| Instant::now() + self.shutdown_timeout);
                }
                Phase::Abort => {
                    deadline = None;
                    self.tasks.abort_all();
                }
            }
        }
    }

    fn panicked(&self, error: JoinError) -> Option<Error> {
        if error.is_cancelled() {
            return None; // by an abort
        }
        let name = self.names.get(&error.id()).map_or("a component", String::as_str).to_owned();
        Some(panicked(&*error.into_panic()).within(name))
    }

    /// A batch was dropped on its way.
    fn lost(&self) -> Option<Error> {
        let ledgers = self.handle.shared.ledgers.iter();
        let failed = ledgers.filter(|(_, ledger)| ledger.failed()).map(|(name, _)| name);
        failed.map(|name| lost(name)).next_back()
    }
}

/// The first of two failures; but one that has seen enough is no excuse for what others did.
fn first_of(one: Result<()>, other: Result<()>) -> Result<()> {
    match one {
        Err(closed) if closed.kind() == ErrorKind::Closed => other.and(Err(closed)),
        one => one.and(other),
    }
}
