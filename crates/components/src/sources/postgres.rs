//! `postgres`: rows of a table or a query of a Postgres database, in the order of a key.
//!
//! Rows come in pages (`WHERE key > … ORDER BY key LIMIT n`), never by OFFSET, each a `COPY` in binary
//! form. Types are Arrow's own where both mean the same, and Postgres' text where not
//! ([`tidegate_db::postgres::types`]). How rows are delivered, how reading goes on and what several
//! `workers` do stands in the module `database` of this crate.
//!
//! **Changes while it reads.** Each page sees what is committed when it is read. A row that is added
//! with a key behind the place that reading has come to is read, one before it is not; one that is
//! deleted before it is reached is not read; one whose key changes may be left out or come twice. With
//! `snapshot = true` all pages see one moment; that holds a transaction open at the server, which can't
//! clean up meanwhile, and can't go on after a restart: the next run begins anew.
//!
//! **The connection.** One for each worker, given back after 2 s in which the pipeline takes nothing.
//! One that breaks is made again; a page that was cut is read again.
//!
//! **Memory.** 4 MiB for each worker; a row may have 64 MiB.

use serde::Deserialize;
use tidegate_db::postgres::{Config as Server, Database as Postgres};
use tidegate_model::{Mistake, Settings, Source, SourceSpec, Spanned, TimeSpan};

use crate::database::{DatabaseSource, Declared, Fields};

/// How the source presents itself.
pub const SPEC: SourceSpec = SourceSpec {
    summary: "rows of a Postgres table or query, page by page in the order of a key",
    example: r#"url = "postgres://user@host/database?sslmode=verify-full" # PGPASSWORD, ~/.pgpass
table = "public.events" # or:
# query = "SELECT id, name FROM users"
# where = "id > 1000"
# key = ["id"]          # found from the primary key
# workers = 4           # ranges that are read at the same time
# poll_interval = "1s"  # how often it is asked for more; not with --once
# page_rows = 20_000
# snapshot = false      # all pages see one moment
# schema = { id = "int64", name = "text" } # what `check` goes by"#,
    build,
};

/// The settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The server, as libpq has it: `postgres://user:password@host:5432/database?sslmode=verify-full`.
    url: Spanned<String>,
    /// A table or view.
    table: Option<Spanned<String>>,
    /// A `SELECT`.
    query: Option<Spanned<String>>,
    /// A condition that rows must meet.
    #[serde(rename = "where")]
    filter: Option<Spanned<String>>,
    /// The columns that order the rows, no two of which share all of them.
    key: Option<Spanned<Vec<String>>>,
    /// A page has at most so many rows: 20,000.
    page_rows: Option<Spanned<usize>>,
    /// How many ranges are read at the same time: 1.
    workers: Option<Spanned<usize>>,
    /// How often it is asked for more: 1 s.
    poll_interval: Option<Spanned<TimeSpan>>,
    /// Whether all pages see one moment.
    #[serde(default)]
    snapshot: bool,
    /// The columns and their types, to check the pipeline without the database.
    schema: Option<Declared>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Source>, Mistake> {
    let config: Config = settings.parse()?;
    let server = Server::parse(config.url.get_ref()).map_err(|error| {
        Mistake::at(config.url.span(), error.to_string())
            .help("such as \"postgres://user@host/database\"")
    })?;
    let fields = Fields {
        table: config.table,
        query: config.query,
        filter: config.filter,
        key: config.key,
        page_rows: config.page_rows,
        workers: config.workers,
        poll_interval: config.poll_interval,
        snapshot: config.snapshot,
        schema: config.schema,
    };
    Ok(Box::new(DatabaseSource::new(fields, Postgres::new(server))?))
}
