//! A sink, records that outlive it, and an engine that does nothing but try again.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::SchemaRef;
use tidegate_components::sinks::SINKS;
use tidegate_model::{Delivered, ErrorKind, Records, Result, Settings, Sink, SinkContext, Written};
use tidegate_testkit::postgres::{Postgres, Version};
use tokio::time::{Instant, timeout};

/// So long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How long is waited before something is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Records in memory.
#[derive(Default)]
pub(crate) struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

impl Records for Memory {
    fn load(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn delivered(&self) -> Result<Vec<Delivered>> {
        Ok(Vec::new())
    }

    fn save(&self, key: &str, value: &[u8], _: &[Delivered]) -> Result<()> {
        self.0.lock().unwrap().insert(key.to_owned(), value.to_vec());
        Ok(())
    }
}

/// A sink at work.
pub(crate) struct Loading {
    sink: Box<dyn Sink>,
    /// How many times something was tried again.
    pub(crate) retries: usize,
}

/// A sink of a table with these columns, and what it says is there; or why it can't be opened.
pub(crate) async fn open(
    url: &str,
    settings: &str,
    columns: &SchemaRef,
    records: &Arc<Memory>,
) -> Result<(Loading, Vec<Delivered>)> {
    let spec = SINKS.iter().find(|(name, _)| *name == "postgres").unwrap().1;
    let settings = format!("url = '{url}'\n{settings}");
    let sink = (spec.build)(&Settings::from_toml(&settings).unwrap()).unwrap();
    let mut loading = Loading { sink, retries: 0 };
    let records: Arc<dyn Records> = records.clone();
    let context = SinkContext { name: "out".into(), columns: Arc::clone(columns), records };
    loading.sink.columns(columns).unwrap();
    let began = Instant::now();
    loop {
        match loading.sink.open(context.clone()).await {
            Err(error) if error.kind() == ErrorKind::Disconnected => {
                assert!(began.elapsed() < DEADLINE, "{error}");
                loading.rest().await;
            }
            opened => return opened.map(|delivered| (loading, delivered)),
        }
    }
}

/// The same for a table called `t`, where nothing goes wrong.
pub(crate) async fn opened(
    server: &Postgres,
    columns: &SchemaRef,
    records: &Arc<Memory>,
) -> (Loading, Vec<Delivered>) {
    open(&server.url(), "table = 't'", columns, records).await.unwrap()
}

impl Loading {
    /// Writes as the engine does, until it went well or for good wrong.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<Written> {
        let began = Instant::now();
        loop {
            match self.try_write(rows).await {
                Err(error) if error.kind() == ErrorKind::Disconnected => {
                    assert!(began.elapsed() < DEADLINE, "{error}");
                    self.rest().await;
                }
                written => return written,
            }
        }
    }

    /// Writes once.
    pub(crate) async fn try_write(&mut self, rows: &RecordBatch) -> Result<Written> {
        timeout(DEADLINE, self.sink.write(rows)).await.unwrap()
    }

    /// Commits as the engine does.
    pub(crate) async fn commit(&mut self, delivered: &[Delivered]) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.try_commit(delivered).await {
                Err(error) if error.kind() == ErrorKind::Disconnected => {
                    assert!(began.elapsed() < DEADLINE, "{error}");
                    self.rest().await;
                }
                committed => return committed,
            }
        }
    }

    /// Commits once.
    pub(crate) async fn try_commit(&mut self, delivered: &[Delivered]) -> Result<()> {
        timeout(DEADLINE, self.sink.commit(delivered)).await.unwrap()
    }

    pub(crate) async fn close(mut self) {
        self.sink.close().await;
    }

    async fn rest(&mut self) {
        self.retries += 1;
        let _ = timeout(RETRY, pending::<()>()).await;
    }
}

/// Where the first partition of the source has come.
pub(crate) fn end(end: u64) -> Delivered {
    let (input, source) = ("rows".into(), "rows".into());
    Delivered { input, source, partition: "p \"1\\".into(), end }
}

/// Rows with these numbers, and a text each.
pub(crate) fn rows(ids: impl Iterator<Item = i64> + Clone) -> RecordBatch {
    let texts: ArrayRef =
        Arc::new(StringArray::from_iter_values(ids.clone().map(|id| format!("row {id}"))));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    RecordBatch::try_from_iter([("id", ids), ("v", texts)]).unwrap()
}

/// A server with a table for them that takes each number as often as it comes.
pub(crate) fn server() -> Postgres {
    let server = Postgres::of(Version::V18).start();
    server.psql("CREATE TABLE t (id bigint, v text)");
    server
}

/// Each of so many rows is there once.
#[track_caller]
pub(crate) fn assert_each_once(server: &Postgres, count: i64) {
    let found = server.psql("SELECT count(*), count(DISTINCT id), min(id), max(id) FROM t");
    assert_eq!(found, format!("{count}|{count}|0|{}", count - 1));
    assert_eq!(server.psql("SELECT count(*) FROM t WHERE v <> 'row ' || id"), "0");
}
