//! A page: one statement, read to its end or to where there is no more room, as batches.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use rusqlite::{Connection, Row};
use tidegate_flow::{BudgetHolder, Permit};

use super::columns::{Added, Columns};
use super::key::{self, KeyColumn, bind, blank, shown};
use super::stop::Stop;
use super::table::Table;
use super::text;
use crate::{Error, Key, KeyValue, Options, Range, Result, Rows, ordered};

/// A page is never bigger: offsets into its texts are 32 bits, and one row may come on top.
pub(super) const BYTES_MAX: usize = 1 << 30;

/// How pages of a range are read.
#[derive(Debug)]
pub(super) struct Plan {
    table: Arc<Table>,
    schema: SchemaRef,
    /// The columns that are given, as indices of the table's.
    given: Vec<usize>,
    /// What is selected: those, and what else the key needs.
    selected: Vec<usize>,
    key: Vec<KeyColumn>,
    until: Option<Key>,
    rows_max: usize,
    page_rows_max: usize,
    pub(super) bytes_max: usize,
    pub(super) holder: Arc<BudgetHolder>,
}

/// What was read.
pub(super) struct Page {
    pub(super) ready: VecDeque<Rows>,
    pub(super) end: End,
}

/// What comes behind a page.
pub(super) enum End {
    /// Perhaps more.
    More,
    /// Nothing.
    Over,
    /// This went wrong.
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Plan {
    pub(super) fn new(table: Arc<Table>, range: &Range, options: Options) -> Result<Self> {
        for key in [&range.after, &range.until].into_iter().flatten() {
            if key.0.is_empty() || key.0.len() > table.key.len() {
                return Err(table.refused(&format!(
                    "a position has {} values, and the key {} columns: it is of another key; begin \
                     anew",
                    key.0.len(),
                    table.key.len()
                )));
            }
        }
        let mut selected = options.columns.clone();
        let mut columns = Vec::new();
        for (index, column) in table.key.iter().zip(&table.key_columns) {
            let place = selected.iter().position(|selected| selected == index);
            let place = place.unwrap_or_else(|| {
                selected.push(*index);
                selected.len() - 1
            });
            columns.push(KeyColumn { place, ..column.clone() });
        }
        let fields = options.columns.iter().map(|index| Arc::clone(&table.schema.fields()[*index]));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let bytes_max = options.bytes_max.min(options.holder.largest()).clamp(1, BYTES_MAX);
        Ok(Self {
            schema,
            given: options.columns,
            selected,
            key: columns,
            until: range.until.clone(),
            rows_max: options.rows_max.max(1),
            page_rows_max: options.page_rows_max.max(1),
            bytes_max,
            holder: options.holder,
            table,
        })
    }

    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Columns for the first page.
    pub(super) fn columns(&self) -> Columns {
        let kinds = self.given.iter().map(|index| self.table.columns[*index].kind);
        Columns::new(kinds, self.table.mismatch)
    }

    /// Reads a page into columns, and leaves some for the next one. What goes wrong stands behind the
    /// rows before it.
    pub(super) fn read(
        &self,
        connection: &Connection,
        after: Option<&Key>,
        columns: &mut Columns,
        permit: Permit,
        stop: &Stop,
    ) -> Page {
        let mut page = Reading {
            plan: self,
            columns,
            permit,
            ready: VecDeque::new(),
            numbers: Vec::new(),
            last: blank(self.key.len()),
            next: blank(self.key.len()),
            rows: 0,
            bytes: 0,
        };
        let read = page.read(connection, after, stop);
        let end = read.unwrap_or_else(|error| self.table.access.fault(&error).into());
        let closed = page.close();
        let end =
            closed.map_or_else(|error| self.table.refused(&error.to_string()).into(), |()| end);
        Page { ready: page.ready, end }
    }

    /// As many rows as a statement is asked for: one more where neighbours must be compared.
    fn limit(&self) -> usize {
        self.page_rows_max + usize::from(!self.table.is_unique)
    }
}

/// A page that is being read.
struct Reading<'a> {
    plan: &'a Plan,
    columns: &'a mut Columns,
    permit: Permit,
    ready: VecDeque<Rows>,
    /// Of the batch that is not ready: the numbers of its rows, where the key is one.
    numbers: Vec<u64>,
    /// The keys of the row that was added last, and of the one that may be next.
    last: Vec<KeyValue>,
    next: Vec<KeyValue>,
    /// Of the whole page.
    rows: usize,
    bytes: usize,
}

impl Reading<'_> {
    fn read(
        &mut self,
        connection: &Connection,
        after: Option<&Key>,
        stop: &Stop,
    ) -> rusqlite::Result<End> {
        let plan = self.plan;
        let sql = plan.table.page(&plan.selected, after, plan.until.as_ref());
        let mut statement = connection.prepare(&sql)?;
        let next = bind(&mut statement, 1, after)?;
        let next = bind(&mut statement, next, plan.until.as_ref())?;
        statement.raw_bind_parameter(next, i64::try_from(plan.limit()).unwrap_or(i64::MAX))?;
        // An interrupt before the first step would be none.
        if stop.is_set() {
            return Ok(End::Over);
        }
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            if stop.is_set() {
                return Ok(End::Over);
            }
            if let Some(end) = self.add(row)? {
                return Ok(end);
            }
        }
        Ok(if self.rows < plan.page_rows_max { End::Over } else { End::More })
    }

    /// Adds a row, unless the page ends before it.
    fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<Option<End>> {
        let plan = self.plan;
        for (column, value) in plan.key.iter().zip(&mut self.next) {
            if let Some(unfit) = column.read(row, value)? {
                return Ok(Some(self.unfit(column, unfit).into()));
            }
        }
        if !plan.table.is_unique && self.rows > 0 && self.is_repeated() {
            return Ok(Some(self.repeated().into()));
        }
        if self.rows == plan.page_rows_max {
            return Ok(Some(End::More));
        }
        // A row that is bigger than a page is one.
        let room = if self.rows == 0 { usize::MAX } else { plan.bytes_max - self.bytes };
        let before = self.columns.bytes();
        match self.columns.add(row, room)? {
            Added::Whole => {}
            Added::NoRoom => return Ok(Some(End::More)),
            Added::Odd(index) => return Ok(Some(self.odd(row, index)?.into())),
        }
        let added = self.columns.bytes() - before;
        self.bytes = self.bytes.saturating_add(added).min(plan.bytes_max);
        self.rows += 1;
        mem::swap(&mut self.last, &mut self.next);
        if let ([KeyColumn { is_integer: true, .. }], [KeyValue::Int(value)]) =
            (plan.key.as_slice(), self.last.as_slice())
        {
            self.numbers.push(ordered(*value));
        }
        if self.columns.rows() == plan.rows_max
            && let Err(error) = self.close()
        {
            return Ok(Some(plan.table.refused(&error.to_string()).into()));
        }
        Ok(None)
    }

    /// Makes a batch of the rows that are in none.
    fn close(&mut self) -> Result<(), ArrowError> {
        let (rows, bytes) = (self.columns.rows(), self.columns.bytes());
        if rows == 0 {
            return Ok(());
        }
        let plan = self.plan;
        let another = self.columns.another(plan.bytes_max);
        let columns = mem::replace(self.columns, another);
        let columns = columns.finish(&mut self.permit, &plan.holder)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&plan.schema);
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let spare = Vec::with_capacity(if self.numbers.is_empty() { 0 } else { rows });
        self.ready.push_back(Rows {
            batch,
            numbers: mem::replace(&mut self.numbers, spare),
            last: Key(self.last.clone()),
            bytes: bytes as u64,
        });
        Ok(())
    }

    fn is_repeated(&self) -> bool {
        let mut values = self.plan.key.iter().zip(self.last.iter().zip(&self.next));
        values.all(|(column, (last, next))| column.is_same(last, next))
    }

    /// Where reading is, for a message.
    fn place(&self) -> String {
        key::told(&self.plan.key, &self.next)
    }

    fn repeated(&self) -> Error {
        self.plan.table.refused(&format!(
            "key: two rows have the same, {}, and one could be left out between two pages: name \
             more columns, so that no two rows share them all",
            self.place()
        ))
    }

    fn unfit(&self, column: &KeyColumn, unfit: &str) -> Error {
        let name = text::told(&column.name);
        let behind = match self.rows {
            0 => String::new(),
            _ => format!(" behind {}", key::told(&self.plan.key, &self.last)),
        };
        self.plan.table.refused(&format!(
            "key: {name} {unfit} in the row{behind}, and can't say where reading goes on: leave such \
             rows out (where), or name another key"
        ))
    }

    /// The value of a given column is not of its type.
    fn odd(&self, row: &Row<'_>, index: usize) -> rusqlite::Result<Error> {
        let table = &self.plan.table;
        let column = &table.columns[self.plan.given[index]];
        Ok(table.refused(&format!(
            "{} is {} in the row with {}, and not {}: mend it, or let mismatch be \"null\" or \
             \"text\"",
            text::told(&column.name),
            shown(row.get_ref(index)?),
            self.place(),
            column.kind.wanted(),
        )))
    }
}
