//! A source's open batches, shared between its task, the acks and the checkpoints.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_model::{Ack, Position};
use tokio::sync::Notify;

use crate::tracker::Tracker;

/// How many batches of one source may be without a verdict: the source waits at this number. Much
/// more than a sink needs between two commits.
pub(crate) const OPEN_MAX: usize = 4_096;

/// The tracker of one source, and who waits for it.
pub(crate) struct Ledger {
    tracker: Mutex<Tracker>,
    // For the source's task: there is room for one more.
    room: Notify,
    // For checkpoints, shared by all ledgers: something was settled.
    settled: Arc<Notify>,
    // For the supervisor, shared by all: a batch has failed.
    failed: Arc<Notify>,
}

impl Ledger {
    pub(crate) fn new(settled: Arc<Notify>, failed: Arc<Notify>) -> Arc<Self> {
        let (tracker, room) = (Mutex::default(), Notify::new());
        Arc::new(Self { tracker, room, settled, failed })
    }

    /// The ack of a batch that was read up to this position; its verdict is told to the source too,
    /// if it wants to know.
    pub(crate) fn register(self: &Arc<Self>, position: Position, told: Option<Ack>) -> Ack {
        let ticket = self.lock().register(position);
        let ledger = Arc::clone(self);
        Ack::new(move |verdict| {
            let mut tracker = ledger.lock();
            tracker.settle(&ticket, verdict);
            let failed = tracker.failed();
            drop(tracker);
            if let Some(told) = told {
                told.settle(verdict);
            }
            ledger.room.notify_one();
            ledger.settled.notify_one();
            if failed {
                ledger.failed.notify_one();
            }
        })
    }

    /// Waits until another batch may be read.
    pub(crate) async fn has_room(&self) {
        while self.open() >= OPEN_MAX {
            self.room.notified().await;
        }
    }

    /// Waits until each batch has its verdict. For the source's task, when it reads no more.
    pub(crate) async fn is_settled(&self) {
        while self.lock().waiting() > 0 {
            self.room.notified().await;
        }
    }

    pub(crate) fn take_settled(&self) -> Vec<Position> {
        self.lock().take_settled()
    }

    pub(crate) fn open(&self) -> usize {
        self.lock().open()
    }

    pub(crate) fn failed(&self) -> bool {
        self.lock().failed()
    }

    fn lock(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
