//! A tokio task that ends with its handle, and whose panic is its owner's.

use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::{JoinError, JoinHandle};

/// A spawned future; dropping this aborts it.
#[derive(Debug)]
pub(crate) struct Task<R>(JoinHandle<R>);

impl<R: Send + 'static> Task<R> {
    pub(crate) fn spawn(future: impl Future<Output = R> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }

    /// The future's output, or why there is none; must not be polled again after that.
    pub(crate) fn poll_join(&mut self, cx: &mut Context<'_>) -> Poll<Result<R, Broken>> {
        Pin::new(&mut self.0).poll(cx).map_err(Broken)
    }
}

impl<R> Drop for Task<R> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a task has no output: it panicked, or was stopped with its runtime.
#[derive(Debug)]
pub(crate) struct Broken(JoinError);

impl Broken {
    /// Carries a task's panic on; a task that was cancelled by others has no output to give, and to
    /// call that an end would lose what it had in hand. Its owner forgets the task before.
    #[expect(clippy::panic, reason = "the alternative is an end that isn't one: lost items")]
    pub(crate) fn surface(self) -> ! {
        match self.0.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(error) => panic!("a stream's task was stopped with its runtime: {error}"),
        }
    }
}
