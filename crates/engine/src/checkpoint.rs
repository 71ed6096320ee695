//! Commits what is settled: every source's positions, many of them in one transaction.

use std::sync::Arc;
use std::time::Duration;

use tidegate_flow::Backoff;
use tidegate_model::{Error, Position, Result};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use crate::ledger::Ledger;
use crate::store::Store;

/// Acks gather for this long before they are committed together.
const INTERVAL: Duration = Duration::from_millis(100);
/// How often the last commit is tried before the run says that it failed.
const LAST_TRIES: u32 = 5;

/// The ledgers of all sources, and where their positions go.
pub(crate) struct Checkpoints {
    pub(crate) store: Store,
    pub(crate) ledgers: Vec<(Arc<str>, Arc<Ledger>)>,
    pub(crate) settled: Arc<Notify>,
    pub(crate) backoff: Backoff,
}

impl Checkpoints {
    /// Commits as acks come, until told that no more will; then once more.
    ///
    /// # Errors
    ///
    /// Where the last commit fails for good: what was acked since the last good one is read again.
    pub(crate) async fn run(self, mut last: oneshot::Receiver<()>) -> Result<()> {
        let mut delays = self.backoff.delays();
        let mut positions = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut last => break,
                () = self.settled.notified() => {}
            }
            tokio::select! {
                biased;
                _ = &mut last => break,
                () = sleep(INTERVAL) => {}
            }
            positions = self.commit(positions).await.or_else(|(kept, error)| {
                tracing::warn!("{error}; trying again");
                // The next ack would come back here; without one this must.
                self.settled.notify_one();
                Ok::<_, Error>(kept)
            })?;
            let wait = if positions.is_empty() { None } else { delays.next() };
            match wait {
                Some(wait) => sleep(wait).await,
                None => delays = self.backoff.delays(),
            }
        }
        let mut delays = self.backoff.retries(LAST_TRIES).delays();
        loop {
            match self.commit(positions).await {
                Ok(_) => return Ok(()),
                Err((kept, error)) => {
                    let Some(delay) = delays.next() else { return Err(error) };
                    positions = kept;
                    sleep(delay).await;
                }
            }
        }
    }

    /// Commits these and what is settled since. Gives back an empty list, or all that is still to
    /// be committed.
    async fn commit(
        &self,
        mut positions: Vec<(Arc<str>, Position)>,
    ) -> Result<Vec<(Arc<str>, Position)>, (Vec<(Arc<str>, Position)>, Error)> {
        for (source, ledger) in &self.ledgers {
            let settled = ledger.take_settled();
            positions.extend(settled.into_iter().map(|position| (Arc::clone(source), position)));
        }
        if positions.is_empty() {
            return Ok(positions);
        }
        // In order: of two positions of one partition the later one stays.
        let positions = Arc::new(positions);
        let committing = Arc::clone(&positions);
        let committed = self.store.run(move |store| store.commit(&committing)).await;
        let mut positions = Arc::unwrap_or_clone(positions);
        match committed {
            Ok(()) => {
                positions.clear();
                Ok(positions)
            }
            Err(error) => Err((positions, error)),
        }
    }
}
