//! Pages of a range, one after the other: the next one is read while the last one is worked on.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{Stream, try_unfold};
use rusqlite::Connection;
use tidegate_flow::{Backoff, Delays, Permit};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::columns::Columns;
use super::connection::ended;
use super::page::{End, Page, Plan};
use super::stop::{Stop, StopOnDrop};
use super::table::Table;
use crate::{Error, Key, Options, Range, Result, Rows};

/// Batches of a range.
pub(super) fn fetched(
    table: Arc<Table>,
    range: Range,
    options: Options,
) -> impl Stream<Item = Result<Rows>> + Send + 'static {
    let backoff = options.backoff;
    let reader = Plan::new(table, &range, options).map(|plan| Reader::new(plan, range, backoff));
    // The first item says what is wrong with the range.
    try_unfold(Some(reader), |reader| async move {
        let Some(reader) = reader else { return Ok(None) };
        let next = reader?.next().await?;
        Ok(next.map(|(rows, reader)| (rows, Some(Ok(reader)))))
    })
}

/// What reads pages, in a thread that may wait.
struct Worker {
    plan: Arc<Plan>,
    own: Option<Connection>,
    columns: Columns,
}

impl Worker {
    fn read(&mut self, after: Option<&Key>, permit: Permit, stop: &Stop) -> Page {
        let Self { plan, own, columns } = self;
        let read = plan.table().access.with(own, |connection| {
            stop.watch(connection);
            Ok(plan.read(connection, after, columns, permit, stop))
        });
        read.unwrap_or_else(|error| Page { ready: VecDeque::new(), end: error.into() })
    }
}

/// The stream at work. At most one page is read ahead, and only where the budget has room for it.
struct Reader {
    plan: Arc<Plan>,
    /// At rest, or with the page that is being read.
    worker: Option<Worker>,
    ahead: Option<JoinHandle<(Worker, Page)>>,
    /// Behind the last row that was read.
    after: Option<Key>,
    ready: VecDeque<Rows>,
    end: End,
    backoff: Option<Backoff>,
    delays: Option<Delays>,
    stop: StopOnDrop,
}

impl Reader {
    fn new(plan: Plan, range: Range, backoff: Option<Backoff>) -> Self {
        let plan = Arc::new(plan);
        let worker = Worker { plan: Arc::clone(&plan), own: None, columns: plan.columns() };
        Self {
            plan,
            worker: Some(worker),
            ahead: None,
            after: range.after,
            ready: VecDeque::new(),
            end: End::More,
            backoff,
            delays: backoff.map(|backoff| backoff.delays()),
            stop: StopOnDrop::default(),
        }
    }

    async fn next(mut self) -> Result<Option<(Rows, Self)>> {
        loop {
            if let Some(rows) = self.ready.pop_front() {
                return Ok(Some((rows, self)));
            }
            match std::mem::replace(&mut self.end, End::More) {
                End::More => {}
                End::Over => return Ok(None),
                End::Failed(error) => self.wait(error).await?,
            }
            if self.ahead.is_none() {
                let permit = self.plan.holder.acquire(self.plan.bytes_max).await;
                self.begin(permit.map_err(|error| Error::refused("a page").because(error))?);
            }
            self.take().await?;
            if matches!(self.end, End::More)
                && let Some(permit) = self.plan.holder.try_acquire(self.plan.bytes_max)
            {
                self.begin(permit);
            }
        }
    }

    /// Waits before another attempt, where one may succeed.
    async fn wait(&mut self, error: Error) -> Result<()> {
        let delay = self.delays.as_mut().and_then(Iterator::next);
        match delay.filter(|_| error.may_heal()) {
            Some(delay) => {
                sleep(delay).await;
                Ok(())
            }
            None => Err(error),
        }
    }

    /// Begins to read a page.
    fn begin(&mut self, permit: Permit) {
        let Some(mut worker) = self.worker.take() else { return };
        let after = self.after.clone();
        let stop = Arc::clone(&self.stop.0);
        self.ahead = Some(tokio::task::spawn_blocking(move || {
            let page = worker.read(after.as_ref(), permit, &stop);
            (worker, page)
        }));
    }

    /// Takes the page that is being read.
    async fn take(&mut self) -> Result<()> {
        let Some(ahead) = &mut self.ahead else { return Ok(()) };
        let (worker, page) = ahead.await.map_err(ended)?;
        self.ahead = None;
        self.worker = Some(worker);
        if let Some(rows) = page.ready.back() {
            self.after = Some(rows.last.clone());
            self.delays = self.backoff.map(|backoff| backoff.delays());
        }
        self.ready = page.ready;
        self.end = page.end;
        Ok(())
    }
}
