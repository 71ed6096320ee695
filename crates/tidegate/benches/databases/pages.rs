//! A page deep in the table against the first: what is read before it costs nothing.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use tidegate_db::postgres::{Config, Database};
use tidegate_db::{Consistency, Key, KeyValue, Options, Range, Reading, Relation, What};
use tidegate_flow::ByteBudget;
use tidegate_testkit::bench::Cost;
use tidegate_testkit::bench::programs::{Clock, Goal, Outcome, Programs};

use crate::ground::Ground;

/// Rows of a page.
const PAGE_ROWS: u64 = 20_000;

/// How many pages are read in a row, so that connecting is a small part.
const PAGES: u64 = 10;

/// More than the pages that are in memory.
const BUDGET_BYTES: usize = 64 << 20;

pub(crate) fn run(bench: &mut Programs, ground: &Ground) {
    bench.section("pages of the library: deep in the table vs at its beginning");
    let deep = ground.rows * 9 / 10;
    let goal = Goal::Speed(Clock::Wall, 1.0 / 1.2);
    bench.compared(&format!("{PAGES} pages behind row {deep} vs the first"), goal, || {
        let url = ground.server()?.url();
        let wanted = (ground.rows - deep).min(PAGES * PAGE_ROWS);
        let pages = |url: String, after| move || pages(&url, after, wanted);
        Ok((pages(url.clone(), Some(deep)), pages(url, None)))
    });
}

/// What it takes to read so many rows behind a row.
fn pages(url: &str, after: Option<u64>, wanted: u64) -> Outcome<Cost> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let database = Database::new(Config::parse(url)?);
        let reading = Reading { what: What::Table("users".to_owned()), filter: None, key: None };
        let table: Arc<dyn Relation> = database.describe(&reading, Consistency::Pages).await?;
        let budget = ByteBudget::new(BUDGET_BYTES);
        let options = Options {
            columns: (0..table.schema().fields().len()).collect(),
            rows_max: 8_192,
            bytes_max: 1 << 20,
            page_rows_max: PAGE_ROWS as usize,
            holder: Arc::new(budget.holder(BUDGET_BYTES / 2)?),
            backoff: None,
        };
        let after = after.map(i64::try_from).transpose()?;
        let after = after.map(|row| Key(vec![KeyValue::Int(row)]));
        let began = Instant::now();
        let mut rows = table.stream(Range { after, until: None }, options);
        let mut read = 0;
        while read < wanted {
            let page = rows.next().await.ok_or("the table ends too early")??;
            read += page.batch.num_rows() as u64;
        }
        Ok(Cost { wall: began.elapsed().as_nanos() as f64, cpu: None, peak: None })
    })
}
