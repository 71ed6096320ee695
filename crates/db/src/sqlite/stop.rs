//! A reader's leave: what SQLite does for it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, InterruptHandle};

/// Whether a page is still wanted, known to whoever reads it.
#[derive(Default)]
pub(super) struct Stop {
    is_set: AtomicBool,
    running: Mutex<Option<InterruptHandle>>,
}

impl Stop {
    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// This connection reads from now on.
    pub(super) fn watch(&self, connection: &Connection) {
        let handle = connection.get_interrupt_handle();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
    }

    fn set(&self) {
        self.is_set.store(true, Ordering::Relaxed);
        // A statement of another reader of the same snapshot may be hit: it begins again.
        if let Some(running) = &*self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            running.interrupt();
        }
    }
}

/// Stops it when dropped.
#[derive(Default)]
pub(super) struct StopOnDrop(pub(super) Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}
