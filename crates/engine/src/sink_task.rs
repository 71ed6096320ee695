//! One sink at work: takes turns among its edges, writes, hands on what it rejects, commits, and only
//! then acks.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow_array::{RecordBatch, UInt64Array};
use futures::{FutureExt, Stream, StreamExt};
use tidegate_flow::{Backoff, FairMerge, FlowExt, Merged, Meter};
use tidegate_model::{
    Ack, Batch, Commit, Delivered, Error, ErrorKind, OFFSET, Partition, Result, Sink, SinkContext,
    Verdict, Written,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::edge::EdgeReceiver;
use crate::gather::{Gathered, Part, shared_out};
use crate::gauges::Gauge;
use crate::graph::{Role, place};
use crate::rejects::{Hurry, Outlet, Owed, Rejected, Waiting};

/// What was written is committed once so many batches are written: fewer than a source may have open.
/// The sink says after which time, and after how many bytes.
const COMMIT_BATCHES: usize = crate::ledger::OPEN_MAX / 4;

/// A sink and what feeds it.
pub(crate) struct SinkTask {
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) context: SinkContext,
    pub(crate) inlets: Vec<Inlet>,
    /// Told by those whose rejects it takes that they wait for them to be safe.
    pub(crate) hurry: Arc<Hurry>,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) backoff: Backoff,
}

/// An edge of the sink.
pub(crate) struct Inlet {
    pub(crate) input: Arc<str>,
    pub(crate) source: Arc<str>,
    /// Whether the same rows come again after a restart, with the same offsets.
    pub(crate) same_offsets: bool,
    pub(crate) edge: EdgeReceiver,
    /// Where the rows go that the sink rejects of it.
    pub(crate) rejects: Outlet,
}

/// Why a sink ends before all its edges have.
enum Halt {
    /// It failed itself.
    Failed(Error),
    /// What it rejected was not made safe. Who was to do that says why; here all that is not
    /// committed is given up.
    Lost,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Halt::Failed(error)
    }
}

impl SinkTask {
    /// Runs until all edges have ended and everything is committed, or to an error that waiting
    /// does not mend.
    pub(crate) async fn run(self) -> Result<()> {
        let Self { sink, context, inlets, hurry, gauge, backoff } = self;
        let name = Arc::clone(&context.name);
        let mut merge = FairMerge::new();
        let mut ways = Vec::new();
        for Inlet { input, source, same_offsets, edge, rejects } in inlets {
            merge.insert(ways.len(), edge);
            // Without a commit there is nothing to keep the ends with, and rows may not know theirs.
            let keeps_ends = same_offsets && sink.commit_when() == Commit::Grouped;
            ways.push(Way { input, source, keeps_ends, rejects });
        }
        let batches = merge.filter_map(|merged| async {
            match merged {
                Merged::Item(way, batch) => Some((way, batch)),
                Merged::Ended(_) => None,
            }
        });
        let batches = batches.meter();
        let meter = batches.handle();
        gauge.set_meter(meter.clone());
        let (written, gathered) = (Uncommitted::default(), Gathered::new(sink.gather()));
        let (commit_bytes_max, commit_age) = (sink.commit_bytes_max(), sink.commit_age());
        // Where each write is durable at once, nothing is kept that could be ahead of its rejects.
        let owed = (sink.commit_when() == Commit::Grouped).then(Arc::default);
        let mut writer = Writer {
            sink,
            ways,
            ends: BTreeMap::new(),
            gathered,
            written,
            owed,
            hurry,
            commit_age,
            commit_bytes_max,
            meter,
            gauge,
            backoff,
        };
        match writer.serve(context, batches).await {
            Ok(()) => {
                writer.gauge.ended.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(Halt::Lost) => Ok(()),
            Err(Halt::Failed(error)) => Err(error.within(place(Role::Sink, &name))),
        }
    }
}

/// How rows came.
struct Way {
    input: Arc<str>,
    source: Arc<str>,
    // Whether it is kept how far the sink has come.
    keeps_ends: bool,
    rejects: Outlet,
}

/// What was written and is not committed.
#[derive(Default)]
struct Uncommitted {
    acks: Vec<(Ack, Verdict)>,
    // The end of each partition that moved, by the way it came.
    moved: BTreeMap<(usize, Partition), u64>,
    bytes: usize,
    since: Option<Instant>,
}

struct Writer {
    sink: Box<dyn Sink>,
    ways: Vec<Way>,
    // How far the sink has come, rows that are written or gathered included.
    ends: BTreeMap<(usize, Partition), u64>,
    gathered: Gathered,
    written: Uncommitted,
    // Rejects that must be safe before a commit.
    owed: Option<Arc<Owed>>,
    hurry: Arc<Hurry>,
    commit_age: Duration,
    commit_bytes_max: usize,
    meter: Meter,
    gauge: Arc<Gauge>,
    backoff: Backoff,
}

impl Writer {
    /// Takes, writes and commits until there is no more.
    async fn serve(
        &mut self,
        context: SinkContext,
        batches: impl Stream<Item = (usize, Batch)>,
    ) -> Result<(), Halt> {
        self.open(context).await?;
        let mut batches = pin!(batches);
        loop {
            let hurry = Arc::clone(&self.hurry);
            let due = |due: Option<Instant>| {
                due.map(|due| if hurry.is_on() { Instant::now() } else { due })
            };
            let commit = until(due(self.written.since.map(|since| since + self.commit_age)));
            let gathered = until(due(self.gathered.due()));
            tokio::select! {
                biased;
                () = commit => self.commit().await?,
                () = gathered => self.write().await?,
                next = batches.next() => match next {
                    Some((way, batch)) => self.take(way, batch).await?,
                    None => break,
                },
                () = hurry.told() => continue,
            }
            if self.gathered.is_patient() {
                continue;
            }
            // Whoever is not to wait is joined by what is there.
            while !self.gathered.is_full()
                && let Some(Some((way, batch))) = batches.next().now_or_never()
            {
                self.take(way, batch).await?;
            }
            self.write().await?;
        }
        self.write().await?;
        self.commit().await?;
        self.sink.close().await;
        Ok(())
    }

    async fn open(&mut self, context: SinkContext) -> Result<()> {
        let mut delays = self.backoff.delays();
        let delivered = loop {
            match self.sink.open(context.clone()).await {
                Ok(delivered) => break delivered,
                Err(error) => wait_after(error, &mut delays, &self.gauge).await?,
            }
        };
        self.gauge.set_trouble(None);
        for Delivered { input, source, partition, end } in delivered {
            let way = |way: &Way| way.keeps_ends && way.input == input && way.source == source;
            if let Some(way) = self.ways.iter().position(way) {
                self.ends.insert((way, partition), end);
            }
        }
        Ok(())
    }

    /// Gathers a batch to be written, but for rows that are there already, and writes what it does
    /// not go together with.
    async fn take(&mut self, way: usize, batch: Batch) -> Result<(), Halt> {
        let key = (way, batch.partition.clone());
        let done = self.ends.get(&key).copied().unwrap_or(0);
        if batch.end <= done {
            batch.ack.settle(Verdict::Delivered);
            return Ok(());
        }
        let skip = if done > batch.start { batch.rows_before(done).unwrap_or(0) } else { 0 };
        let rows = batch.rows.slice(skip, batch.rows.num_rows() - skip);
        let bytes = batch.bytes();
        if self.gathered.is_too_full_for(rows.num_rows(), bytes) {
            self.write().await?;
        }
        if self.ways.get(way).is_some_and(|way| way.keeps_ends) {
            self.ends.insert(key, batch.end);
        }
        self.gathered.push(way, batch, without_offset(rows), bytes);
        if self.gathered.is_full() {
            self.write().await?;
        }
        Ok(())
    }

    /// Writes what was gathered, and hands on what was rejected of it.
    async fn write(&mut self) -> Result<(), Halt> {
        let Some((parts, rows)) = self.gathered.take()? else { return Ok(()) };
        let rejected = match rows.num_rows() {
            0 => Vec::new(),
            _ => self.write_rows(rows).await?,
        };
        for (Part { way, batch, bytes, .. }, rejected) in shared_out(parts, rejected) {
            let verdict = self.hand_on(way, &batch, rejected).await?;
            let Batch { partition, end, ack, .. } = batch;
            if self.ways.get(way).is_some_and(|way| way.keeps_ends) {
                self.written.moved.insert((way, partition), end);
            }
            self.written.acks.push((ack, verdict));
            self.written.bytes += bytes;
        }
        self.written.since.get_or_insert_with(Instant::now);
        let full = self.written.bytes >= self.commit_bytes_max
            || self.written.acks.len() >= COMMIT_BATCHES;
        if full || self.sink.commit_when() == Commit::EachWrite {
            self.commit().await?;
        }
        Ok(())
    }

    /// Rejected rows of a batch go to those who take them; where nobody does they are counted and
    /// gone. What becomes of the batch but for them.
    async fn hand_on(
        &mut self,
        way: usize,
        batch: &Batch,
        rejected: Vec<Rejected>,
    ) -> Result<Verdict> {
        if rejected.is_empty() {
            return Ok(Verdict::Delivered);
        }
        let Some(rejects) = self.ways.get(way).map(|way| &way.rejects) else {
            return Ok(Verdict::Dropped);
        };
        if !rejects.is_read() {
            return Ok(Verdict::Dropped);
        }
        self.meter.blocked(rejects.send(batch, rejected, self.owed.as_ref())).await?;
        Ok(Verdict::Delivered)
    }

    /// Writes rows until each is written or rejected; gives the rejected ones, ascending.
    async fn write_rows(&mut self, mut rows: RecordBatch) -> Result<Vec<Rejected>> {
        let mut delays = self.backoff.delays();
        let mut refused = Vec::new();
        // Which of the first rows are left, once not all are.
        let mut left: Option<Vec<usize>> = None;
        let first = |left: &Option<Vec<usize>>, row: usize| match left {
            None => Some(row),
            Some(left) => left.get(row).copied(),
        };
        loop {
            match self.sink.write(&rows).await {
                Ok(Written { again, after, why, rejected }) => {
                    let settled = rows.num_rows().saturating_sub(again.len());
                    let taken = settled.saturating_sub(rejected.len()) as u64;
                    self.gauge.rows.fetch_add(taken, Ordering::Relaxed);
                    if let Some((_, reason)) = rejected.first() {
                        let count = rejected.len() as u64;
                        if self.gauge.rejected.fetch_add(count, Ordering::Relaxed) == 0 {
                            let sink = &*self.gauge.name;
                            tracing::warn!(sink, count, "rows are rejected, the first: {reason}");
                        }
                    }
                    let rejected = rejected.into_iter();
                    refused.extend(rejected.filter_map(|(r, why)| Some((first(&left, r)?, why))));
                    if again.is_empty() {
                        self.gauge.set_trouble(None);
                        refused.sort_unstable_by_key(|(row, _)| *row);
                        return Ok(refused);
                    }
                    left = Some(again.iter().filter_map(|row| first(&left, *row)).collect());
                    if let Some(why) = why {
                        trouble(&self.gauge, why);
                    }
                    rows = these(&rows, &again)?;
                    // Whoever asks for no time at all is not hammered for it.
                    let least = self.backoff.delays().next();
                    let wait = match after {
                        Some(after) => Some(after.max(least.unwrap_or_default())),
                        None => delays.next(),
                    };
                    sleep(wait.unwrap_or_default()).await;
                }
                Err(error) => wait_after(error, &mut delays, &self.gauge).await?,
            }
        }
    }

    /// Waits until those who take rejects have made them durable, and has them hurry meanwhile; false
    /// where they never will.
    async fn rejects_are_safe(&mut self) -> bool {
        let Some(owed) = &self.owed else { return true };
        if let Some(safe) = owed.is_settled().now_or_never() {
            return safe;
        }
        let takers = self.ways.iter().flat_map(|way| &way.rejects.takers);
        let _waiting: Vec<Waiting> = takers.map(Hurry::on).collect();
        self.meter.blocked(owed.is_settled()).await
    }

    /// Makes durable what was written, once what was rejected of it is, and acks it.
    async fn commit(&mut self) -> Result<(), Halt> {
        if self.written.acks.is_empty() {
            return Ok(());
        }
        if !self.rejects_are_safe().await {
            return Err(Halt::Lost);
        }
        let moved = self.written.moved.iter();
        let delivered: Vec<Delivered> = moved
            .filter_map(|((way, partition), end)| {
                let Way { input, source, .. } = self.ways.get(*way)?;
                Some(Delivered {
                    input: Arc::clone(input),
                    source: Arc::clone(source),
                    partition: partition.clone(),
                    end: *end,
                })
            })
            .collect();
        let mut delays = self.backoff.delays();
        while let Err(error) = self.sink.commit(&delivered).await {
            wait_after(error, &mut delays, &self.gauge).await?;
        }
        self.gauge.set_trouble(None);
        let written = std::mem::take(&mut self.written);
        self.gauge.bytes.fetch_add(written.bytes as u64, Ordering::Relaxed);
        for (ack, verdict) in written.acks {
            ack.settle(verdict);
        }
        Ok(())
    }
}

/// Waits for a moment, if there is one.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Waits after an error that may pass; gives back one that does not.
async fn wait_after(
    error: Error,
    delays: &mut impl Iterator<Item = Duration>,
    gauge: &Gauge,
) -> Result<()> {
    if error.kind() != ErrorKind::Disconnected {
        return Err(error);
    }
    let Some(delay) = delays.next() else { return Err(error) };
    trouble(gauge, error.to_string());
    sleep(delay).await;
    Ok(())
}

/// Shows why it is tried again, and tells it where that is new.
fn trouble(gauge: &Gauge, why: String) {
    if gauge.set_trouble(Some(why.clone())) {
        tracing::warn!(sink = &*gauge.name, "{why}; trying again");
    }
}

fn without_offset(mut rows: RecordBatch) -> RecordBatch {
    if let Ok(index) = rows.schema().index_of(OFFSET) {
        rows.remove_column(index);
    }
    rows
}

/// Some of the rows.
fn these(rows: &RecordBatch, indices: &[usize]) -> Result<RecordBatch> {
    let indices = UInt64Array::from_iter_values(indices.iter().map(|index| *index as u64));
    arrow_select::take::take_record_batch(rows, &indices)
        .map_err(|error| Error::fatal("it named rows that are not there").because(error))
}
