//! The locks and atomics of this crate: the standard ones, or loom's under `--cfg flow_loom`.
//!
//! All hand-written synchronisation goes through here, so that the loom models (one beside each
//! structure that two threads share) explore the same code that ships.

use std::sync::PoisonError;
use std::task::{Context, Waker};

#[cfg(flow_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(flow_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

/// Locks, and ignores poisoning: no code of this crate leaves a state half-changed when it panics,
/// because callers' code (clone, drop, wake) never runs while a lock is held, or runs last.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves the waker of this poll in a slot of the locked state, and unlocks. A waker that was there
/// is dropped last: it may own a task, and that one anything, such as what takes this very lock.
pub(crate) fn park<T>(
    mut state: MutexGuard<'_, T>,
    slot: impl FnOnce(&mut T) -> &mut Option<Waker>,
    cx: &Context<'_>,
) {
    let slot = slot(&mut state);
    let replaced = match slot {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        _ => slot.replace(cx.waker().clone()),
    };
    drop(state);
    drop(replaced);
}

/// Wakes whom a locked section found to be woken. Called after the lock is released.
pub(crate) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
