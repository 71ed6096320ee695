//! `postgres`: rows into a table by `COPY`, effectively once.
//!
//! Rows go in within a transaction, and with them, in the table `tidegate_delivered` beside theirs,
//! how far each input has come: after a crash either both are there or neither, and what comes again
//! is left out. Only one process can write as the same sink of the same pipeline: a lock of the server
//! sees to it that what an earlier one left unfinished is over before the next begins.
//!
//! A connection that breaks is made again, and what was written and not committed is written again:
//! the sink keeps the bytes of a transaction until it is committed, about 8 MiB of rows and the last
//! write. A commit that was sent and not answered is looked up.
//!
//! Rows that the table does not take (their type, a constraint, a trigger that raises) are found and
//! rejected one by one, with what the server says; the others go in. They are found in few steps: by
//! the line that the server names, and by halves where it names none, as it does for foreign keys.
//!
//! Columns go by name. What each takes is listed at [`tidegate_db::postgres::encode`]; structs, maps
//! and lists go into `json`, `jsonb` and text as JSON.

mod columns;
mod ledger;
mod load;
mod nested;
mod search;
mod verdict;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_db::postgres::encode::Encoder;
use tidegate_db::postgres::{self as pg, Connection, Target, TargetName, create_table};
use tidegate_model::{
    Commit, Delivered, Error, Gather, Mistake, Result, Settings, Sink, SinkContext, SinkSpec,
    Spanned, Written,
};

use self::columns::ColumnTypes;
use self::ledger::{Ledger, make_table};
use self::load::Load;
use self::verdict::failed;
use crate::blocking::blocking;

/// See the module.
pub const SPEC: SinkSpec = SinkSpec {
    summary: "writes rows into a table of PostgreSQL, each once, whatever happens",
    example: "url = \"postgres://app@localhost/shop\"\ntable = \"events\"\n\
              create = true # makes the table where there is none\n\
              # key = [\"id\"] # its primary key then",
    build,
};

/// What is written and not committed is kept, so it is committed after so many bytes: 8 MiB.
const COMMIT_BYTES: usize = 8 << 20;

/// Small batches are joined up to so many rows or bytes, since each is a statement of its own, …
const GATHER_ROWS: usize = 8_192;
const GATHER_BYTES: usize = 1 << 20;
/// … and wait so long for that.
const GATHER_AGE: Duration = Duration::from_millis(50);

/// Where the sink's own records have the name that it goes by in the ledger.
const PIPELINE: &str = "pipeline";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The database: `postgres://user@host:5432/database?sslmode=verify-full`. What is left out is
    /// taken from the environment as by `psql`, and the password best from `PGPASSWORD` or
    /// `~/.pgpass`.
    url: Spanned<String>,
    /// The table, with its schema or without: `events`, `public.events`, `"Odd Name"`.
    table: Spanned<String>,
    /// Whether it is made where there is none; the statement is logged before.
    #[serde(default)]
    create: bool,
    /// The columns of its primary key, where it is made.
    key: Option<Spanned<Vec<Spanned<String>>>>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Sink>, Mistake> {
    let Config { url, table, create, key } = settings.parse()?;
    let wrong = |span| move |error: tidegate_db::Error| Mistake::at(span, error.to_string());
    let config = pg::Config::parse(url.get_ref()).map_err(wrong(url.span()))?;
    let name = TargetName::parse(table.get_ref()).map_err(wrong(table.span()))?;
    if let Some(key) = &key {
        if !create {
            return Err(Mistake::at(key.span(), "key: only a table that is made gets a key")
                .help("leave `key` out, or set `create = true`"));
        }
        if key.get_ref().is_empty() {
            return Err(Mistake::at(key.span(), "key: it names no column").help(
                "name the columns that no two rows have the same values in, or leave it out",
            ));
        }
    }
    let key = key.map(Spanned::into_inner).unwrap_or_default();
    for (index, column) in key.iter().enumerate() {
        if key.iter().take(index).any(|other| other.get_ref() == column.get_ref()) {
            let twice = format!("key: {:?} is there twice", column.get_ref());
            return Err(Mistake::at(column.span(), twice).help("name it once"));
        }
    }
    Ok(Box::new(PostgresSink { config: Arc::new(config), table: name, create, key, load: None }))
}

struct PostgresSink {
    config: Arc<pg::Config>,
    table: TargetName,
    create: bool,
    key: Vec<Spanned<String>>,
    load: Option<Load>,
}

impl PostgresSink {
    async fn open_table(&mut self, context: SinkContext) -> Result<Vec<Delivered>> {
        if let Some(load) = &mut self.load {
            return load.open_again().await;
        }
        let (records, name) = (Arc::clone(&context.records), Arc::clone(&context.name));
        let (_, pipeline) = blocking(records, |records| match records.load(PIPELINE)? {
            Some(saved) => Ok(String::from_utf8_lossy(&saved).into_owned()),
            None => {
                let made = random_name();
                records.save(PIPELINE, made.as_bytes(), &[])?;
                Ok(made)
            }
        })
        .await?;
        let mut connection = Connection::connect(&self.config).await.map_err(failed("url"))?;
        let target = self.target_table(&mut connection, &context).await?;
        // Looked up before the columns are, so that no change between passes unnoticed.
        let types = ColumnTypes::find(&mut connection, &target.name, &context.columns).await?;
        let target = Target::find(&mut connection, &target.name).await.map_err(failed("table"))?;
        let target = target.ok_or_else(|| Error::disconnected("table: it was dropped just now"))?;
        let schema = nested::schema(&context.columns);
        let columns = target.columns_for(&context.columns).map_err(failed("table"))?;
        nested::check(&context.columns, &columns)?;
        let encoder = Encoder::new(&schema, columns).map_err(failed("table"))?;
        let ledger = Ledger::find(&mut connection, &target.name, pipeline?, name).await?;
        connection.close().await;
        let config = Arc::clone(&self.config);
        let mut load = Load::new(config, &target, &context.columns, encoder, types, ledger);
        let delivered = load.open_again().await?;
        self.load = Some(load);
        Ok(delivered)
    }

    /// The table, made where there is none and that is wanted.
    async fn target_table(
        &self,
        connection: &mut Connection,
        context: &SinkContext,
    ) -> Result<Target> {
        let table = &self.table;
        if let Some(target) = Target::find(connection, table).await.map_err(failed("table"))? {
            return Ok(target);
        }
        let key: Vec<_> = self.key.iter().map(|column| column.get_ref().clone()).collect();
        let statement = create_table(table, &context.columns, &key).map_err(failed("table"))?;
        if !self.create {
            return Err(Error::fatal(format!(
                "table: there is no {table}: set `create = true` to have it made, or make it: \
                 {statement}"
            )));
        }
        tracing::info!(sink = &*context.name, "there is no {table}; making it: {statement}");
        let made = make_table(connection, &table.to_string(), &statement).await;
        made.map_err(failed("table"))?;
        let target = Target::find(connection, table).await.map_err(failed("table"))?;
        target.ok_or_else(|| {
            Error::fatal(format!("table: {table} was made and is not there: see search_path"))
        })
    }

    fn load(&mut self) -> Result<&mut Load> {
        let closed = || Error::fatal("the table is not open: open it before writing");
        self.load.as_mut().ok_or_else(closed)
    }
}

impl Sink for PostgresSink {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        nested::writable(input)?;
        create_table(&self.table, input, &[]).map_err(|error| Mistake::new(error.to_string()))?;
        for column in &self.key {
            let name = column.get_ref();
            if input.index_of(name).is_err() {
                let names: Vec<_> = input.fields().iter().map(|field| &**field.name()).collect();
                let mistake = format!("key: there is no column {name:?}");
                return Err(Mistake::at(column.span(), mistake)
                    .help(format!("one of {}", names.join(", "))));
            }
        }
        Ok((0..input.fields().len()).collect())
    }

    fn commit_when(&self) -> Commit {
        Commit::Grouped
    }

    fn commit_bytes_max(&self) -> usize {
        COMMIT_BYTES
    }

    /// A unique key, or a foreign one, goes by what other rows there are.
    fn same_rejects(&self) -> bool {
        false
    }

    fn gather(&self) -> Gather {
        Gather { rows_max: GATHER_ROWS, bytes_max: GATHER_BYTES, age: GATHER_AGE }
    }

    fn open(&mut self, context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(self.open_table(context))
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async { self.load()?.write(rows).await })
    }

    fn commit<'a>(&'a mut self, delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { self.load()?.commit(delivered).await })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(load) = self.load.take() {
                load.close().await;
            }
        })
    }
}

/// 128 random bits, as the hashes of a map are seeded.
fn random_name() -> String {
    let half = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests;
