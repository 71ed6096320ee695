//! A query to CSV on the standard output, page by page: memory stays the same however many rows there
//! are, and a reader that is slow slows the database.
//!
//! ```sh
//! cargo run --example query_to_csv -- sqlite:app.db 'SELECT id, name FROM users' > users.csv
//! ```

use std::error::Error;
use std::io::Write;
use std::sync::Arc;

use futures::StreamExt;
use tidegate::components::codecs::encode::csv;
use tidegate::db::{self, Consistency, Options, Range, Reading, Relation, What};
use tidegate::flow::{Backoff, ByteBudget};

/// Memory for rows.
const BYTES: usize = 16 << 20;

/// So much is written at once.
const WRITE_BYTES: usize = 64 << 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(query)) = (arguments.next(), arguments.next()) else {
        return Err("name a database and a query".into());
    };
    let rows = run(&url, &query, &mut std::io::stdout().lock()).await?;
    eprintln!("{rows} rows");
    Ok(())
}

/// Writes what a query gives, and says how many rows that were.
pub async fn run(url: &str, query: &str, out: &mut impl Write) -> Result<u64, Box<dyn Error>> {
    let reading = Reading { what: What::Query(query.into()), filter: None, key: None };
    let relation: Arc<dyn Relation> = match url.strip_prefix("sqlite:") {
        Some(path) => {
            db::sqlite::Database::new(path).describe(&reading, Consistency::Pages).await?
        }
        None => {
            let database = db::postgres::Database::new(db::postgres::Config::parse(url)?);
            database.describe(&reading, Consistency::Pages).await?
        }
    };
    let budget = ByteBudget::new(BYTES);
    let options = Options {
        columns: (0..relation.own_columns()).collect(),
        rows_max: 8_192,
        bytes_max: 1 << 20,
        page_rows_max: 20_000,
        holder: Arc::new(budget.holder(relation.bytes_min(1 << 20))?),
        backoff: Some(Backoff::default()),
    };
    let mut stream = relation.stream(Range::default(), options);
    let (mut count, mut buffer) = (0, Vec::new());
    while let Some(rows) = stream.next().await {
        let rows = rows?.batch;
        let mut row = 0;
        while row < rows.num_rows() {
            row = (csv::SPEC.encode)(&rows, row, &mut buffer, WRITE_BYTES)?;
            out.write_all(&buffer)?;
            buffer.clear();
        }
        count += rows.num_rows() as u64;
    }
    Ok(count)
}
