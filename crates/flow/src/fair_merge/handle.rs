//! The handles of a [`FairMerge`]: what they ask for, until it is next polled.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

#[cfg(doc)]
use super::FairMerge;
use super::Woken;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// Adds and removes sources of a [`FairMerge`] from any task or thread, while it runs.
///
/// - **Buffering**: of each key the latest request, until the merge is next polled.
#[derive(Debug)]
pub struct MergeHandle<K, S> {
    requests: Arc<Requests<K, S>>,
    woken: Arc<Woken>,
}

impl<K, S> MergeHandle<K, S> {
    pub(super) fn new(requests: Arc<Requests<K, S>>, woken: Arc<Woken>) -> Self {
        requests.handles.fetch_add(1, Ordering::Relaxed);
        Self { requests, woken }
    }
}

impl<K: Eq + Hash, S> MergeHandle<K, S> {
    /// As [`FairMerge::insert`], when the merge is next polled; a replaced source is dropped. Where
    /// the merge is gone, the source is dropped at once.
    pub fn insert(&self, key: K, source: S) {
        self.request(key, Some(source));
    }

    /// As [`FairMerge::remove`], when the merge is next polled; the source is dropped.
    pub fn remove(&self, key: K) {
        self.request(key, None);
    }

    fn request(&self, key: K, source: Option<S>) {
        let mut state = lock(&self.requests.state);
        if state.closed {
            drop(state);
            drop((key, source)); // nobody would serve it, nor ever drop its source
            return;
        }
        // Keys are hashed and compared under the lock, before anything has changed.
        let earlier = state.latest.remove_entry(&key);
        let number = state.next_number;
        state.next_number += 1;
        state.latest.insert(key, (number, source));
        self.requests.waiting.store(true, Ordering::Release);
        drop(state);
        self.woken.poke();
        drop(earlier);
    }
}

impl<K, S> Clone for MergeHandle<K, S> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.requests), Arc::clone(&self.woken))
    }
}

impl<K, S> Drop for MergeHandle<K, S> {
    fn drop(&mut self) {
        if self.requests.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.woken.poke();
        }
    }
}

/// What handles ask for, until the merge's next poll.
#[derive(Debug)]
pub(super) struct Requests<K, S> {
    handles: AtomicUsize,
    waiting: AtomicBool,
    state: Mutex<RequestState<K, S>>,
}

#[derive(Debug)]
struct RequestState<K, S> {
    // The source to insert, or none to remove what is there; numbered in the order they came. An
    // earlier request of the same key would be undone by the later one, so it is not kept.
    latest: HashMap<K, (u64, Option<S>)>,
    next_number: u64,
    // The merge is gone.
    closed: bool,
}

impl<K, S> Requests<K, S> {
    /// Whether there is a handle.
    pub(super) fn may_come(&self) -> bool {
        self.handles.load(Ordering::Acquire) > 0
    }

    /// Whether something was asked for, or may be.
    pub(super) fn may_change(&self) -> bool {
        self.may_come() || self.are_waiting()
    }

    /// Whether something was asked for.
    pub(super) fn are_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// The latest that was asked for each key since this was last called, in order.
    pub(super) fn take(&self) -> Vec<(K, Option<S>)> {
        let mut state = lock(&self.state);
        self.waiting.store(false, Ordering::Relaxed);
        let latest = std::mem::take(&mut state.latest);
        drop(state);
        let mut requests: Vec<_> = latest.into_iter().collect();
        requests.sort_unstable_by_key(|(_, (number, _))| *number);
        requests.into_iter().map(|(key, (_, source))| (key, source)).collect()
    }

    /// From here on nothing is kept; what nobody will serve is given back, to be dropped.
    pub(super) fn close(&self) -> impl Sized + use<K, S> {
        let mut state = lock(&self.state);
        state.closed = true;
        std::mem::take(&mut state.latest)
    }
}

impl<K, S> Default for Requests<K, S> {
    fn default() -> Self {
        Self {
            handles: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
            state: Mutex::new(RequestState {
                latest: HashMap::new(),
                next_number: 0,
                closed: false,
            }),
        }
    }
}
