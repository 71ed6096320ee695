//! The handles of a [`FairMerge`]: what they ask for, until it is next polled.

use std::sync::Arc;

#[cfg(doc)]
use super::FairMerge;
use super::Woken;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// Adds and removes sources of a [`FairMerge`] from any task or thread, while it runs.
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

    /// As [`FairMerge::insert`], when the merge is next polled; a replaced source is dropped. Where
    /// the merge is gone, the source is dropped at once.
    pub fn insert(&self, key: K, source: S) {
        self.request(Request::Insert(key, source));
    }

    /// As [`FairMerge::remove`], when the merge is next polled; the source is dropped.
    pub fn remove(&self, key: K) {
        self.request(Request::Remove(key));
    }

    fn request(&self, request: Request<K, S>) {
        let mut state = lock(&self.requests.state);
        if state.closed {
            drop(state);
            drop(request); // nobody would serve it, nor ever drop its source
            return;
        }
        state.queue.push(request);
        self.requests.waiting.store(true, Ordering::Release);
        drop(state);
        self.woken.poke();
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
    queue: Vec<Request<K, S>>,
    // The merge is gone.
    closed: bool,
}

#[derive(Debug)]
pub(super) enum Request<K, S> {
    Insert(K, S),
    Remove(K),
}

impl<K, S> Requests<K, S> {
    /// Whether there is a handle.
    pub(super) fn may_come(&self) -> bool {
        self.handles.load(Ordering::Acquire) > 0
    }

    /// Whether something was asked for, or may be.
    pub(super) fn may_change(&self) -> bool {
        self.may_come() || self.waiting.load(Ordering::Acquire)
    }

    /// What was asked for since this was last called, in order.
    pub(super) fn take(&self) -> Vec<Request<K, S>> {
        if !self.waiting.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut state = lock(&self.state);
        self.waiting.store(false, Ordering::Relaxed);
        std::mem::take(&mut state.queue)
    }

    /// From here on nothing is kept; what nobody will serve is given back, to be dropped.
    pub(super) fn close(&self) -> Vec<Request<K, S>> {
        let mut state = lock(&self.state);
        state.closed = true;
        std::mem::take(&mut state.queue)
    }
}

impl<K, S> Default for Requests<K, S> {
    fn default() -> Self {
        Self {
            handles: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
            state: Mutex::new(RequestState { queue: Vec::new(), closed: false }),
        }
    }
}
