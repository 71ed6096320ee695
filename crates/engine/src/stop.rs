//! The word to stop, as tasks hear it; and how a panic sounds.

use std::any::Any;
use std::pin::pin;

use futures::future::{Either, select};
use tidegate_model::Error;
use tokio::sync::watch;

/// How far a run is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// On and on.
    Run,
    /// Sources stop; what is in flight is delivered.
    Drain,
    /// Everything stops.
    Abort,
}

/// Hears when sources are to stop. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stop(pub(crate) watch::Receiver<Phase>);

impl Stop {
    /// Waits for a future; `None` where the stop comes first.
    pub(crate) async fn unless<F: Future>(mut self, work: F) -> Option<F::Output> {
        // A sender that is gone is a stop too.
        let stopped = pin!(self.0.wait_for(|phase| *phase > Phase::Run));
        match select(stopped, pin!(work)).await {
            Either::Left(_) => None,
            Either::Right((output, _)) => Some(output),
        }
    }
}

/// A panic as an error, without the name of whose it was.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let said = said.unwrap_or("it did not say why");
    Error::fatal(format!("panicked, please report this: {said}"))
}
