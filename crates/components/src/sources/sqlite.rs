//! `sqlite`: rows of a table or a query of a SQLite file, in the order of a key.
//!
//! Rows come in pages (`WHERE key > … ORDER BY key LIMIT n`), never by OFFSET; between two pages the
//! file is not locked. What becomes of values that are not of their column's type, `mismatch` says; the
//! types are listed in [`tidegate_db::sqlite`]. How rows are delivered, how reading goes on and what
//! several `workers` do stands in the module `database` of this crate.
//!
//! **Changes while it reads** are seen as by the source `postgres`; with `snapshot = true` one moment
//! is seen, and whoever wants to write waits, or, with a write-ahead log, that grows meanwhile.
//!
//! **Memory.** 4 MiB for each worker, and SQLite's own page cache, 2 MiB for each.

use serde::Deserialize;
use tidegate_db::sqlite::{Database as Sqlite, Mismatch};
use tidegate_model::{Mistake, Settings, Source, SourceSpec, Spanned, TimeSpan};

use crate::database::{DatabaseSource, Declared, Fields};

/// How the source presents itself.
pub const SPEC: SourceSpec = SourceSpec {
    summary: "rows of a SQLite table or query, page by page in the order of a key",
    example: r#"path = "app.db"
table = "events" # or:
# query = "SELECT id, name FROM users"
# where = "id > 1000"
# key = ["id"]         # found from the primary key, or the rowid
# mismatch = "error"   # or "null", or "text": a value of another type than its column
# workers = 4          # ranges that are read at the same time
# poll_interval = "1s" # how often it is asked for more; not with --once
# page_rows = 20_000
# snapshot = false     # all pages see one moment
# schema = { id = "int64", name = "text" } # what `check` goes by"#,
    build,
};

/// The settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The database's file.
    path: Spanned<String>,
    /// A table or view.
    table: Option<Spanned<String>>,
    /// A `SELECT`.
    query: Option<Spanned<String>>,
    /// A condition that rows must meet.
    #[serde(rename = "where")]
    filter: Option<Spanned<String>>,
    /// The columns that order the rows, no two of which share all of them.
    key: Option<Spanned<Vec<String>>>,
    /// What becomes of values of another type than their column's: `error` (default), `null`, `text`.
    mismatch: Option<Spanned<String>>,
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
    let path = config.path.get_ref();
    if path.is_empty() || path.ends_with('/') {
        return Err(Mistake::at(config.path.span(), format!("path: {path:?} names no file"))
            .help("name the database's file, such as \"app.db\""));
    }
    let mismatch = match &config.mismatch {
        None => Mismatch::default(),
        Some(word) => mismatch_named(word.get_ref()).ok_or_else(|| {
            let said = format!("there is no mismatch {:?}", word.get_ref());
            Mistake::at(word.span(), said).help("one of \"error\", \"null\", \"text\"")
        })?,
    };
    let database = Sqlite::new(path).mismatch(mismatch);
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
    Ok(Box::new(DatabaseSource::new(fields, database)?))
}

/// By the name that a configuration has for it.
fn mismatch_named(word: &str) -> Option<Mismatch> {
    match word {
        "error" => Some(Mismatch::Error),
        "null" => Some(Mismatch::Null),
        "text" => Some(Mismatch::Text),
        _ => None,
    }
}
