//! One sink at work: takes turns among its edges, writes, commits, and only then acks.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow_array::{RecordBatch, UInt64Array};
use futures::{FutureExt, StreamExt};
use tidegate_flow::{Backoff, FairMerge, FlowExt, Merged};
use tidegate_model::{
    Ack, Batch, Commit, Delivered, Error, ErrorKind, OFFSET, Partition, Result, Sink, SinkContext,
    Verdict, Written,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::edge::EdgeReceiver;
use crate::gather::{Gathered, Part, verdicts};
use crate::gauges::Gauge;
use crate::graph::{Role, place};

/// What was written is committed this long after the first of it, at the latest.
const COMMIT_AGE: Duration = Duration::from_millis(200);
/// … or once as many bytes are written as the sink says, or so many batches: fewer than a source may
/// have open.
const COMMIT_BATCHES: usize = crate::ledger::OPEN_MAX / 4;

/// A sink and what feeds it.
pub(crate) struct SinkTask {
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) context: SinkContext,
    pub(crate) inlets: Vec<Inlet>,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) backoff: Backoff,
}

/// An edge of the sink.
pub(crate) struct Inlet {
    pub(crate) input: Arc<str>,
    pub(crate) source: Arc<str>,
    /// Whether offsets mean the same after a restart.
    pub(crate) same_offsets: bool,
    pub(crate) edge: EdgeReceiver,
}

impl SinkTask {
    /// Runs until all edges have ended and everything is committed, or to an error that waiting
    /// does not mend.
    pub(crate) async fn run(self) -> Result<()> {
        let Self { sink, context, inlets, gauge, backoff } = self;
        let name = Arc::clone(&context.name);
        let mut merge = FairMerge::new();
        let mut ways = Vec::new();
        for Inlet { input, source, same_offsets, edge } in inlets {
            merge.insert(ways.len(), edge);
            // Without a commit there is nothing to keep the ends with, and rows may not know theirs.
            let keeps_ends = same_offsets && sink.commit_when() == Commit::Grouped;
            ways.push(Way { input, source, keeps_ends });
        }
        let batches = merge.filter_map(|merged| async {
            match merged {
                Merged::Item(way, batch) => Some((way, batch)),
                Merged::Ended(_) => None,
            }
        });
        let batches = batches.meter();
        gauge.set_meter(batches.handle());
        let (written, gathered) = (Uncommitted::default(), Gathered::new(sink.gather()));
        let (ends, commit_bytes_max) = (BTreeMap::new(), sink.commit_bytes_max());
        let mut writer =
            Writer { sink, ways, ends, gathered, written, commit_bytes_max, gauge, backoff };
        let done = async {
            writer.open(context).await?;
            let mut batches = pin!(batches);
            loop {
                let commit = until(writer.written.since.map(|since| since + COMMIT_AGE));
                let gathered = until(writer.gathered.due());
                tokio::select! {
                    biased;
                    () = commit => writer.commit().await?,
                    () = gathered => writer.write().await?,
                    next = batches.next() => match next {
                        Some((way, batch)) => writer.take(way, batch).await?,
                        None => break,
                    },
                }
                if writer.gathered.is_patient() {
                    continue;
                }
                // Whoever is not to wait is joined by what is there.
                while !writer.gathered.is_full()
                    && let Some(Some((way, batch))) = batches.next().now_or_never()
                {
                    writer.take(way, batch).await?;
                }
                writer.write().await?;
            }
            writer.write().await?;
            writer.commit().await?;
            writer.sink.close().await;
            Ok(())
        };
        done.await.map_err(|error: Error| error.within(place(Role::Sink, &name)))?;
        writer.gauge.ended.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// How rows came.
struct Way {
    input: Arc<str>,
    source: Arc<str>,
    // Whether it is kept how far the sink has come.
    keeps_ends: bool,
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
    commit_bytes_max: usize,
    gauge: Arc<Gauge>,
    backoff: Backoff,
}

impl Writer {
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
    async fn take(&mut self, way: usize, batch: Batch) -> Result<()> {
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

    /// Writes what was gathered.
    async fn write(&mut self) -> Result<()> {
        let Some((parts, rows)) = self.gathered.take()? else { return Ok(()) };
        let rejected = match rows.num_rows() {
            0 => Vec::new(),
            _ => self.write_rows(rows).await?,
        };
        let verdicts: Vec<_> = verdicts(&parts, &rejected).collect();
        for (Part { way, batch, bytes, .. }, verdict) in parts.into_iter().zip(verdicts) {
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

    /// Writes rows until each is written or rejected; gives the rejected ones, ascending.
    async fn write_rows(&mut self, mut rows: RecordBatch) -> Result<Vec<usize>> {
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
                        refused.extend(rejected.iter().filter_map(|(row, _)| first(&left, *row)));
                    }
                    if again.is_empty() {
                        self.gauge.set_trouble(None);
                        refused.sort_unstable();
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

    /// Makes durable what was written, and acks it.
    async fn commit(&mut self) -> Result<()> {
        if self.written.acks.is_empty() {
            return Ok(());
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
