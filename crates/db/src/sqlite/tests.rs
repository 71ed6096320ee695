//! Real files, read and changed meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use futures::StreamExt;
use rusqlite::Connection;
use tempfile::TempDir;
use tidegate_flow::{Backoff, ByteBudget};
use tokio::time::timeout;

use super::{Database, Mismatch, Table};
use crate::{
    Consistency, CursorStream, Error, Options, Range, Reading, Relation, Result, Rows, What,
};

/// Rows that change while they are read, locks, files that are none.
mod faults;

/// What is read, in which order, and what is refused.
mod keys;

/// Any schema, any rows, any pages.
mod random;

/// What becomes of values.
mod values;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A database of its own, and a connection that may write to it.
struct File {
    folder: TempDir,
    writer: Connection,
}

impl File {
    fn new(sql: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let writer = Connection::open(folder.path().join("test.db")).unwrap();
        let file = Self { folder, writer };
        file.execute(sql);
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("test.db")
    }

    fn execute(&self, sql: &str) {
        self.writer.execute_batch(sql).unwrap();
    }

    fn integers(&self, sql: &str) -> Vec<i64> {
        let mut statement = self.writer.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn database(&self) -> Database {
        Database::new(self.path())
    }

    async fn describe(&self, reading: &Reading) -> Result<Arc<Table>> {
        self.database().describe(reading, Consistency::Pages).await
    }
}

fn table(name: &str) -> Reading {
    Reading { what: What::Table(name.into()), filter: None, key: None }
}

fn query(sql: &str) -> Reading {
    Reading { what: What::Query(sql.into()), filter: None, key: None }
}

fn keyed(reading: Reading, key: &[&str]) -> Reading {
    Reading { key: Some(key.iter().map(|&name| name.into()).collect()), ..reading }
}

fn filtered(reading: Reading, filter: &str) -> Reading {
    Reading { filter: Some(filter.into()), ..reading }
}

/// All columns, pages of so many rows; locks are waited for.
fn options(table: &Table, page_rows_max: usize) -> Options {
    let budget = ByteBudget::new(16 << 20);
    Options {
        columns: (0..table.own_columns()).collect(),
        rows_max: 8_192,
        bytes_max: 1 << 20,
        page_rows_max,
        holder: Arc::new(budget.holder(table.bytes_min(1 << 20)).unwrap()),
        backoff: Some(Backoff::exponential(Duration::from_millis(10)..=Duration::from_millis(100))),
    }
}

fn stream(table: &Arc<Table>, range: Range, page_rows_max: usize) -> CursorStream {
    Arc::clone(table).stream(range, options(table, page_rows_max))
}

async fn next(stream: &mut CursorStream) -> Option<Result<Rows>> {
    timeout(DEADLINE, stream.next()).await.expect("rows, or an end")
}

/// All that comes, and what ended it if that is an error.
async fn read(stream: &mut CursorStream) -> (Vec<Rows>, Option<Error>) {
    let mut all = Vec::new();
    loop {
        match next(stream).await {
            Some(Ok(rows)) => all.push(rows),
            Some(Err(error)) => return (all, Some(error)),
            None => return (all, None),
        }
    }
}

/// The column `id`.
fn ids(rows: &[Rows]) -> Vec<i64> {
    let columns = rows.iter().map(|rows| rows.batch.column_by_name("id").expect("a column id"));
    columns.flat_map(|column| column.as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// The column `id` of a range, to its end.
async fn all_ids(table: &Arc<Table>, range: Range, page_rows_max: usize) -> Vec<i64> {
    let (rows, error) = read(&mut stream(table, range, page_rows_max)).await;
    assert!(error.is_none(), "{error:?}");
    ids(&rows)
}
