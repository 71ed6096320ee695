//! A table or query of SQLite that was looked at.

use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::connection::Access;
use super::key::{KeyColumn, blank};
use super::kind::{Kind, Mismatch};
use super::page::BYTES_MAX;
use super::pages::fetched;
use super::source::Source;
use crate::key::even_cuts;
use crate::{CursorStream, Error, Estimate, Key, KeyValue, Options, Range, Relation, Result};

/// So many rows are looked at for each part that a table is cut into.
const SAMPLES: usize = 16;

/// It is cut into so many parts at most.
const PARTS_MAX: usize = 256;

/// A table or query of SQLite: see [`Database::describe`](super::Database::describe).
#[derive(Clone)]
pub struct Table {
    pub(super) access: Access,
    pub(super) mismatch: Mismatch,
    pub(super) source: Source,
    pub(super) schema: SchemaRef,
    pub(super) own_columns: usize,
    /// As many as the schema's.
    pub(super) columns: Vec<Column>,
    pub(super) key: Vec<usize>,
    /// As many as the key's; their places are those of a page.
    pub(super) key_columns: Vec<KeyColumn>,
    /// Whether the schema promises that no two rows have the same key.
    pub(super) is_unique: bool,
    pub(super) estimate: Option<u64>,
    pub(super) sampled: Option<Sampled>,
}

/// A column, as it is asked for and read.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) sql: String,
    pub(super) kind: Kind,
}

/// The table whose rowids are spread over the key's values, to take samples of these.
#[derive(Clone, Debug)]
pub(super) struct Sampled {
    pub(super) table: Source,
    pub(super) rowid: String,
    /// The key's columns in it.
    pub(super) key: Vec<String>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Table");
        debug.field("path", &self.access.path).field("source", &self.source).finish_non_exhaustive()
    }
}

impl Table {
    pub(super) fn refused(&self, why: &str) -> Error {
        Error::refused(format!("{}: {why}", self.access.path.display()))
    }

    /// The statement for a page with these columns.
    pub(super) fn page(
        &self,
        columns: &[usize],
        after: Option<&Key>,
        until: Option<&Key>,
    ) -> String {
        let sql = |index: &usize| self.columns[*index].sql.as_str();
        let columns = Vec::from_iter(columns.iter().map(sql));
        let key = Vec::from_iter(self.key.iter().map(sql));
        self.source.page(&columns, &key, after, until)
    }

    fn cuts(&self, connection: &Connection, parts: usize) -> rusqlite::Result<Vec<Key>> {
        if self.key_columns.first().is_some_and(|column| column.is_integer) {
            return self.even_cuts(connection, parts);
        }
        match &self.sampled {
            Some(sampled) => sampled.cuts(connection, parts, &self.key_columns),
            None => Ok(Vec::new()),
        }
    }

    /// Integers at even distances.
    fn even_cuts(&self, connection: &Connection, parts: usize) -> rusqlite::Result<Vec<Key>> {
        let first = &self.columns[self.key[0]].sql;
        let Some((least, greatest)) = ends(connection, &self.source, first)? else {
            return Ok(Vec::new());
        };
        let cuts = even_cuts(least, greatest, parts);
        Ok(cuts.map(|cut| Key(vec![KeyValue::Int(cut)])).collect())
    }
}

impl Sampled {
    /// Keys of rows that are at even distances in the order of their rowids, sorted by SQLite.
    fn cuts(
        &self,
        connection: &Connection,
        parts: usize,
        columns: &[KeyColumn],
    ) -> rusqlite::Result<Vec<Key>> {
        let Self { table, rowid, key } = self;
        let Some((least, greatest)) = ends(connection, table, rowid)? else {
            return Ok(Vec::new());
        };
        let samples = parts * SAMPLES;
        let span = i128::from(greatest) - i128::from(least);
        let wanted = (0..samples as i128)
            .map(|sample| i128::from(least) + span * sample / samples as i128)
            .filter_map(|rowid| i64::try_from(rowid).ok());
        let next = table.select(rowid, &[format!("{rowid} >= wanted.id")]);
        let key = key.join(", ");
        let rows = table.select(
            &key,
            &[format!("{rowid} IN (SELECT ({next} ORDER BY {rowid} LIMIT 1) FROM wanted)")],
        );
        let values = vec!["(?)"; samples].join(", ");
        let sql = format!("WITH wanted(id) AS (VALUES {values}) {rows} ORDER BY {key}");
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(wanted))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let mut values = blank(columns.len());
            let mut is_fit = true;
            for (place, (column, value)) in columns.iter().zip(&mut values).enumerate() {
                let column = KeyColumn { place, ..column.clone() };
                is_fit &= column.read(row, value)?.is_none();
            }
            if is_fit {
                found.push(Key(values));
            }
        }
        let cuts = (1..parts).filter_map(|part| found.get(part * found.len() / parts).cloned());
        Ok(cuts.collect())
    }
}

/// The least and the greatest value of a column, where these are integers.
fn ends(
    connection: &Connection,
    source: &Source,
    column: &str,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let mut ends = Vec::new();
    for order in ["ASC", "DESC"] {
        let rows = source.select(column, &[]);
        let sql = format!("{rows} ORDER BY {column} {order} LIMIT 1");
        let end = connection.query_row(&sql, [], |row| Ok(row.get_ref(0)?.as_i64().ok()));
        ends.extend(end.optional()?.flatten());
    }
    let [least, greatest] = ends[..] else { return Ok(None) };
    Ok(Some((least, greatest)))
}

/// How many rows a table has: by `ANALYZE`, if it was run, and never more than it has room for
/// between its least and its greatest rowid; `None` where neither is known.
pub(super) fn estimate(
    connection: &Connection,
    table: &Source,
    name: &str,
    rowid: Option<&str>,
) -> rusqlite::Result<Option<u64>> {
    let span = match rowid {
        Some(rowid) => Some(ends(connection, table, rowid)?.map_or(0, |(least, greatest)| {
            u64::try_from(i128::from(greatest) - i128::from(least) + 1).unwrap_or(u64::MAX)
        })),
        None => None,
    };
    if !connection.table_exists(Some("main"), "sqlite_stat1")? {
        return Ok(span);
    }
    let sql = "SELECT max(CAST(stat AS INTEGER)) FROM main.sqlite_stat1 WHERE tbl = ?1";
    let counted: Option<i64> = connection.query_row(sql, [name], |row| row.get(0))?;
    let counted = counted.and_then(|rows| u64::try_from(rows).ok());
    Ok([span, counted].into_iter().flatten().min())
}

impl Relation for Table {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn own_columns(&self) -> usize {
        self.own_columns
    }

    fn key(&self) -> &[usize] {
        &self.key
    }

    fn estimate(&self) -> Option<Estimate> {
        self.estimate.map(|rows| Estimate { rows, is_exact: false })
    }

    fn bytes_min(&self, bytes_max: usize) -> usize {
        bytes_max.clamp(1, BYTES_MAX)
    }

    fn split(&self, parts: usize) -> BoxFuture<'_, Result<Vec<Key>>> {
        Box::pin(async move {
            if parts < 2 {
                return Ok(Vec::new());
            }
            let (table, parts) = (self.clone(), parts.min(PARTS_MAX));
            let cut = move |connection: &Connection| {
                let cuts = table.cuts(connection, parts);
                cuts.map_err(|error| table.access.fault(&error))
            };
            let mut cuts = self.access.clone().run(cut).await?;
            cuts.dedup();
            Ok(cuts)
        })
    }

    fn stream(self: Arc<Self>, range: Range, options: Options) -> CursorStream {
        CursorStream::new(fetched(self, range, options))
    }
}
