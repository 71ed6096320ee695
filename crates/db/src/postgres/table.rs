//! A table or query of Postgres that was looked at.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;

use super::config::Config;
use super::connection::{Connection, first_value};
use super::describe::connect;
use super::pages::{fetched, memory};
use super::statement::{Pages, column, literal};
use super::types::Form;
use crate::key::even_cuts;
use crate::{CursorStream, Error, Estimate, Key, KeyValue, Options, Range, Relation, Result};

/// Where the key's first column is taken from.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) table: u32,
    pub(super) number: i16,
    // That of its values: no domain.
    pub(super) type_id: u32,
}

/// A table or query of Postgres: see [`Database::describe`](super::Database::describe).
pub struct Table {
    pub(super) config: Arc<Config>,
    pub(super) schema: SchemaRef,
    pub(super) forms: Vec<Form>,
    pub(super) key: Vec<usize>,
    // Whether the server sees to it that no two rows have the same key.
    pub(super) is_unique: bool,
    pub(super) pages: Pages,
    pub(super) rows: u64,
    pub(super) width: u64,
    pub(super) key_origin: Option<Origin>,
    // The moment that is read, and the connection that keeps it.
    pub(super) snapshot: Option<(String, Connection)>,
    // Whether the server does not take the query for a COPY.
    pub(super) without_copy: AtomicBool,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("base", &self.pages.base).finish_non_exhaustive()
    }
}

impl Table {
    /// A connection to read pages with.
    pub(super) async fn connect(&self) -> Result<Connection> {
        let mut connection = connect(&self.config).await?;
        if let Some((id, _)) = &self.snapshot {
            connection.simple("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let seen = format!("SET TRANSACTION SNAPSHOT {}", literal(id));
            let seen = connection.simple(&seen).await;
            seen.map_err(|error| match error.may_heal() {
                true => error,
                false => {
                    let config = &self.config;
                    let said = "the moment that was read is gone with its connection: begin anew";
                    Error::refused(format!("{config}: {said}")).because(error)
                }
            })?;
        }
        Ok(connection)
    }

    /// Values of the key's first column that cut the rows in parts: by the server's statistics, or
    /// evenly between the least and the greatest where it is a number.
    async fn cuts(&self, parts: usize) -> Result<Vec<KeyValue>> {
        let Some(first) = self.key.first() else { return Ok(Vec::new()) };
        let is_integer = self.forms.get(*first).is_some_and(|form| form.is_integer());
        let value = |text: String| match text.parse() {
            Ok(number) if is_integer => KeyValue::Int(number),
            _ => KeyValue::Text(text),
        };
        let mut connection = self.connect().await?;
        let filtered = self.pages.filter.is_some();
        if let Some(origin) = self.key_origin.filter(|_| !filtered) {
            let bounds = self.bounds(origin, &mut connection).await?;
            if bounds.len() > parts {
                let last = bounds.len() - 1;
                let cuts = (1..parts).map(|part| bounds[part * last / parts].clone());
                return Ok(cuts.map(value).collect());
            }
        }
        if !is_integer {
            return Ok(Vec::new());
        }
        let name = column(&self.pages.key[0]);
        let sql = format!(
            "SELECT min({name})::int8, max({name})::int8 FROM (\n{}\n) AS tidegate_base",
            self.pages.base
        );
        let ends = connection.simple(&sql).await?;
        let ends: Vec<i64> =
            ends.into_iter().flatten().flatten().filter_map(|end| end.parse().ok()).collect();
        let [least, greatest] = ends[..] else { return Ok(Vec::new()) };
        Ok(even_cuts(least, greatest, parts).map(KeyValue::Int).collect())
    }

    /// Values of the key's first column that the server's statistics know, each less than the next.
    async fn bounds(&self, origin: Origin, connection: &mut Connection) -> Result<Vec<String>> {
        let Origin { table, number, type_id } = origin;
        let kind = format!("SELECT pg_catalog.format_type({type_id}, -1)");
        let kind = first_value(connection.simple(&kind).await?).unwrap_or_default();
        // The statistics may have been made in another order (by an older collation, or the
        // database's own), and ranges that overlap would give rows twice. None of the base's rows is
        // read, but its column says by which collation.
        let sql = format!(
            "SELECT cut FROM (SELECT {} AS cut FROM (\n{}\n) AS tidegate_base WHERE false UNION ALL \
             SELECT bound::{kind} FROM pg_catalog.pg_stats AS s \
             JOIN pg_catalog.pg_class AS c ON c.relname = s.tablename \
             JOIN pg_catalog.pg_namespace AS n \
               ON n.oid = c.relnamespace AND n.nspname = s.schemaname \
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = s.attname \
             CROSS JOIN LATERAL pg_catalog.unnest( \
               s.histogram_bounds::pg_catalog.text::pg_catalog.text[]) AS bound \
             WHERE c.oid = {table} AND a.attnum = {number} AND s.inherited = (c.relkind = 'p') \
             ) AS cuts GROUP BY cut ORDER BY cut",
            column(&self.pages.key[0]),
            self.pages.base
        );
        let bounds = connection.simple(&sql).await?;
        Ok(bounds.into_iter().flatten().flatten().collect())
    }
}

impl Relation for Table {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn key(&self) -> &[usize] {
        &self.key
    }

    fn estimate(&self) -> Option<Estimate> {
        Some(Estimate { rows: self.rows, is_exact: false })
    }

    fn bytes_min(&self, bytes_max: usize) -> usize {
        memory(bytes_max)
    }

    fn split(&self, parts: usize) -> BoxFuture<'_, Result<Vec<Key>>> {
        Box::pin(async move {
            let mut cuts = self.cuts(parts).await?;
            cuts.dedup();
            Ok(cuts.into_iter().map(|cut| Key(vec![cut])).collect())
        })
    }

    fn stream(self: Arc<Self>, range: Range, options: Options) -> CursorStream {
        CursorStream::new(fetched(self, range, options))
    }
}
