//! A waker that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

/// Counts how often its wakers are woken.
#[derive(Clone, Debug, Default)]
pub struct Wakes(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter(AtomicUsize);

impl Wakes {
    /// A counter at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// A waker that counts here.
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.0))
    }

    /// How often it was woken since this was last asked.
    pub fn take(&self) -> usize {
        self.0.0.swap(0, Ordering::SeqCst)
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
