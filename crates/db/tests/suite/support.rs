//! What all of these tests need.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use futures::StreamExt;
use tidegate_db::postgres::{Config, Database, Table};
use tidegate_db::{
    Consistency, CursorStream, Options, Range, Reading, Relation, Result, Rows, What,
};
use tidegate_flow::{Backoff, ByteBudget};

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn table(name: &str) -> Reading {
    Reading { what: What::Table(name.into()), filter: None, key: None }
}

pub(crate) fn query(sql: &str) -> Reading {
    Reading { what: What::Query(sql.into()), filter: None, key: None }
}

pub(crate) fn keyed(reading: Reading, key: &[&str]) -> Reading {
    Reading { key: Some(key.iter().map(|&name| name.into()).collect()), ..reading }
}

pub(crate) async fn describe(url: &str, reading: &Reading) -> Result<Arc<Table>> {
    Database::new(Config::parse(url).unwrap()).describe(reading, Consistency::Pages).await
}

/// All columns, pages of so many rows; connections come back by themselves.
pub(crate) fn options(relation: &dyn Relation, page_rows_max: usize) -> Options {
    let budget = ByteBudget::new(16 << 20);
    Options {
        columns: (0..relation.schema().fields().len()).collect(),
        rows_max: 8_192,
        bytes_max: 1 << 20,
        page_rows_max,
        holder: Arc::new(budget.holder(relation.bytes_min(1 << 20)).unwrap()),
        backoff: Some(Backoff::exponential(Duration::from_millis(10)..=Duration::from_millis(100))),
    }
}

/// The next rows.
pub(crate) async fn next(stream: &mut CursorStream) -> Option<Result<Rows>> {
    tokio::time::timeout(DEADLINE, stream.next()).await.expect("rows, or an end")
}

/// The column `id` of what comes.
pub(crate) fn ids(rows: &Rows) -> Vec<i64> {
    let column = rows.batch.column_by_name("id").expect("a column id");
    column.as_primitive::<Int64Type>().values().to_vec()
}

/// The column `id` of a range, to its end.
pub(crate) async fn all_ids(table: &Arc<Table>, range: Range, page_rows_max: usize) -> Vec<i64> {
    let relation: Arc<Table> = Arc::clone(table);
    let mut stream = relation.stream(range, options(&**table, page_rows_max));
    let mut all = Vec::new();
    while let Some(rows) = next(&mut stream).await {
        all.extend(ids(&rows.unwrap()));
    }
    all
}
