//! What a running pipeline looks like from outside: plain numbers, and where it hurts.

use std::sync::Arc;
use std::time::Duration;

use tidegate_flow::Usage;
use tidegate_model::ExpectedRows;

use crate::graph::Role;

/// A running pipeline at one moment. All counts are since the start.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// How long it has been running.
    pub elapsed: Duration,
    /// The budget for row data.
    pub budget: Usage,
    /// The bytes there are to read, where every source knows.
    pub bytes_expected: Option<u64>,
    /// The rows there are to read, where every source knows or has an estimate; exact where all are.
    pub rows_expected: Option<ExpectedRows>,
    /// All components: sources, transforms, sinks, in the order of the configuration.
    pub components: Vec<Reading>,
    /// The queues in front of sinks.
    pub edges: Vec<EdgeReading>,
}

/// A component at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What it is.
    pub role: Role,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Rows it gave or [skipped](Self::skipped) (a source), took (a transform) or has written (a sink).
    pub rows: u64,
    /// Their bytes: of input for a source, of row data otherwise.
    pub bytes: u64,
    /// Time it waited for something to do.
    pub idle: Duration,
    /// Time it worked.
    pub busy: Duration,
    /// Time it waited for somebody to take what it had.
    pub blocked: Duration,
    /// Records of the input that were malformed or too long, and left out.
    pub refused: u64,
    /// Rows of a source that were skipped unseen, as no query makes anything of them.
    pub skipped: u64,
    /// Rows it could not work on; without a reader of its rejects they are gone.
    pub rejected: u64,
    /// Why a transform could not work on the first of them.
    pub reason: Option<String>,
    /// Why it waits before it tries again, where it does.
    pub trouble: Option<String>,
    /// Whether it has come to its end.
    pub ended: bool,
}

/// The queue between what one source feeds and a sink, at one moment.
#[derive(Clone, Debug)]
pub struct EdgeReading {
    /// The source at its beginning.
    pub source: Arc<str>,
    /// The sink's input that it is.
    pub input: Arc<str>,
    /// The sink.
    pub sink: Arc<str>,
    /// Bytes of row data in the queue.
    pub queued_bytes: usize,
    /// Bytes at which it is full.
    pub queue_bytes_max: usize,
    /// Rows that its policy dropped.
    pub dropped: u64,
}

impl Snapshot {
    /// Rows that sources have read.
    pub fn rows_read(&self) -> u64 {
        self.of(Role::Source).map(|source| source.rows).sum()
    }

    /// Bytes of input that sources have read.
    pub fn bytes_read(&self) -> u64 {
        self.of(Role::Source).map(|source| source.bytes).sum()
    }

    /// Rows that sinks have written.
    pub fn rows_written(&self) -> u64 {
        self.of(Role::Sink).map(|sink| sink.rows).sum()
    }

    /// Rows that policies have dropped.
    pub fn dropped(&self) -> u64 {
        self.edges.iter().map(|edge| edge.dropped).sum()
    }

    /// The components of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Reading> {
        self.components.iter().filter(move |reading| reading.role == role)
    }

    /// Where time was lost since an earlier snapshot: the component that was busy the most and not
    /// blocked itself, if any was busy for half of the time; else a source that the rest waits for.
    ///
    /// Flink's rule (FLINK-20718): who is blocked suffers from somebody downstream, who is idle from
    /// somebody upstream, and the culprit is busy.
    pub fn bottleneck(&self, before: &Snapshot) -> Option<Bottleneck> {
        let time = self.elapsed.saturating_sub(before.elapsed).as_secs_f64();
        if time <= 0.0 {
            return None;
        }
        let share =
            |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64().min(time) / time;
        let busy = self.components.iter().zip(&before.components).map(|(now, then)| Bottleneck {
            role: now.role,
            name: Arc::clone(&now.name),
            busy: share(now.busy, then.busy) * (1.0 - share(now.blocked, then.blocked)),
        });
        let busiest = busy.max_by(|a, b| a.busy.total_cmp(&b.busy))?;
        (busiest.busy >= BUSY_SHARE_MIN).then_some(busiest)
    }
}

/// A component that is busy for less than this share of the time holds nobody up.
const BUSY_SHARE_MIN: f64 = 0.5;

/// The component that holds the others up.
#[derive(Clone, Debug, PartialEq)]
pub struct Bottleneck {
    /// What it is.
    pub role: Role,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The share of time that it was busy, 0 to 1.
    pub busy: f64,
}
