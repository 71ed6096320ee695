//! A table or query that is looked at before it is read: its columns, its key, and whether pages of
//! it would be pages of the same thing.

use std::sync::Arc;

use arrow_schema::{Field, Schema};
use rusqlite::{Connection, OptionalExtension};

use super::catalog::{Cataloged, collation};
use super::connection::{Access, is_wrong_sql, message};
use super::key::{Collation, KeyColumn};
use super::kind::{Kind, Mismatch};
use super::proof::{is_of_one_table, volatile};
use super::source::Source;
use super::table::{Column, Sampled, Table, estimate};
use super::text::{Query, condition, table_name, told};
use crate::{Error, Reading, Result, What};

/// So many names a message has at most.
const NAMES_MAX: u32 = 8;

/// Looks at what is to be read.
pub(super) fn look(
    connection: &Connection,
    access: Access,
    mismatch: Mismatch,
    reading: &Reading,
) -> Result<Table> {
    let looker = Looker { connection, access: &access };
    let mut base = looker.base(&reading.what)?;
    let fields = looker.fields(&base)?;
    if let Some(filter) = &reading.filter {
        looker.filter(&mut base, filter)?;
    }
    looker.check_stable(&base)?;
    let origin = looker.origin(&base, &fields)?;
    let names = Vec::from_iter(fields.iter().map(|field| field.name.clone()));
    let mut columns = Vec::new();
    for (index, field) in fields.into_iter().enumerate() {
        let origin =
            origin.as_ref().and_then(|origin| Some((origin, origin.columns[index].as_ref()?)));
        let is_exact = origin.is_some_and(|(origin, column)| origin.is_exact(column));
        let kind = match mismatch {
            Mismatch::Text if !is_exact => Kind::Any,
            _ => Kind::of(field.declared.as_deref()),
        };
        columns.push(Column { sql: base.source.column(&field.name), name: field.name, kind });
    }
    let own_columns = columns.len();
    let found = looker.key(&base, origin.as_ref(), reading.key.as_deref(), &names)?;
    if let Some(rowid) = found.hidden {
        let column =
            Column { name: rowid.to_owned(), sql: base.source.column(rowid), kind: Kind::Int };
        columns.push(column);
    }
    looker.check_order(&base, &found.key, &columns)?;
    let key_columns = looker.key_columns(origin.as_ref(), &found, &columns)?;
    let fields = columns.iter().map(|it| Field::new(&it.name, it.kind.data_type(), true));
    let whole = origin.as_ref().filter(|_| base.is_whole());
    let table = Table {
        mismatch,
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        own_columns,
        is_unique: found.is_unique,
        estimate: whole.map_or(Ok(None), |origin| looker.estimate(origin))?,
        sampled: origin.as_ref().and_then(|origin| origin.sampled(&found)),
        key: found.key,
        key_columns,
        columns,
        source: base.source,
        access: access.clone(),
    };
    // That all of it together makes sense.
    let page = connection.prepare(&table.page(&table.key, None, None));
    page.map_err(|error| access.fault(&error))?;
    Ok(table)
}

/// What is read, before more is known.
struct Base<'a> {
    source: Source,
    /// The whole of it as a statement.
    sql: String,
    field: &'static str,
    query: Option<Query<'a>>,
    table: Option<Cataloged>,
}

impl Base<'_> {
    fn is_whole(&self) -> bool {
        self.source.filter.is_none() && self.query.as_ref().is_none_or(|query| query.is_whole)
    }
}

/// A column of a result.
struct ResultField {
    name: String,
    declared: Option<String>,
    /// Its schema, table and name, where it is a table's column.
    origin: Option<[String; 3]>,
}

/// The one table that rows are rows of.
struct Origin {
    table: Cataloged,
    /// For each column of the result, the one of the table that it is.
    columns: Vec<Option<String>>,
}

impl Origin {
    /// Where a column of the table is in the result.
    fn place(&self, name: &str) -> Option<usize> {
        let is_it = |it: &String| it.eq_ignore_ascii_case(name);
        self.columns.iter().position(|column| column.as_ref().is_some_and(is_it))
    }

    /// Where some columns of the table are, if all of them are there.
    fn places(&self, names: &[String]) -> Option<Vec<usize>> {
        names.iter().map(|name| self.place(name)).collect()
    }

    /// Where the rowid is in the result, by whatever name.
    fn rowid(&self) -> Option<usize> {
        self.place(self.table.alias.as_deref().or(self.table.rowid)?)
    }

    fn is_rowid(&self, column: &str) -> bool {
        let rowid = self.table.alias.as_deref().or(self.table.rowid);
        rowid.is_some_and(|rowid| rowid.eq_ignore_ascii_case(column))
    }

    /// Whether a column of the table holds nothing but what it was declared with.
    fn is_exact(&self, column: &str) -> bool {
        self.table.is_strict || self.is_rowid(column)
    }

    /// How the key can be sampled, where the table has rowids that are not the key themselves.
    fn sampled(&self, found: &Found) -> Option<Sampled> {
        let table = Source::table(&self.table.schema, &self.table.name);
        let rowid = table.column(self.table.rowid?);
        let column = |index: &usize| self.columns.get(*index)?.as_deref();
        let key = found.key.iter().map(|index| Some(table.column(column(index)?)));
        let key = key.collect::<Option<_>>()?;
        Some(Sampled { table, rowid, key })
    }
}

/// A key that was found or named, as indices of columns.
struct Found {
    key: Vec<usize>,
    is_unique: bool,
    /// The name of the rowid, where that is a column only for the key.
    hidden: Option<&'static str>,
}

struct Looker<'a> {
    connection: &'a Connection,
    access: &'a Access,
}

impl Looker<'_> {
    fn refused(&self, why: &str) -> Error {
        Error::refused(format!("{}: {why}", self.access.path.display()))
    }

    fn fault(&self) -> impl Fn(rusqlite::Error) -> Error {
        |error| self.access.fault(&error)
    }

    /// What SQLite says of what a person wrote in this setting.
    fn wrong(&self, field: &str) -> impl Fn(rusqlite::Error) -> Error {
        move |error| match is_wrong_sql(&error) {
            true => self.refused(&format!("{field}: {}", message(&error))),
            false => self.access.fault(&error),
        }
    }

    fn base<'a>(&self, what: &'a What) -> Result<Base<'a>> {
        let named = |error: Error| self.refused(&error.to_string());
        match what {
            What::Query(text) => {
                let query = Query::new(text).map_err(named)?;
                let sql = query.text.to_owned();
                let source = Source::query(query.text);
                Ok(Base { source, sql, field: "query", query: Some(query), table: None })
            }
            What::Table(text) => {
                let (schema, name) = table_name(text).map_err(named)?;
                let found = Cataloged::find(self.connection, schema.as_deref(), &name);
                let found = found.map_err(self.fault())?;
                let table = found.ok_or_else(|| self.unknown(text))?;
                let source = Source::table(&table.schema, &table.name);
                let sql = source.select("*", &[]);
                Ok(Base { source, sql, field: "table", query: None, table: Some(table) })
            }
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let names = match Cataloged::names(self.connection, NAMES_MAX + 1) {
            Ok(names) => names,
            Err(error) => return self.access.fault(&error),
        };
        let mut there =
            Vec::from_iter(names.iter().take(NAMES_MAX as usize).map(|name| told(name))).join(", ");
        if names.len() > NAMES_MAX as usize {
            there.push_str(", …");
        }
        match there.is_empty() {
            true => self.refused(&format!("there is no table or view {name}, nor any other")),
            false => self.refused(&format!("there is no table or view {name}; there are: {there}")),
        }
    }

    fn fields(&self, base: &Base<'_>) -> Result<Vec<ResultField>> {
        let statement = self.connection.prepare(&base.sql).map_err(self.wrong(base.field))?;
        if !statement.readonly() || statement.is_explain() != 0 || statement.column_count() == 0 {
            return Err(self.refused(&format!("{}: is no SELECT", base.field)));
        }
        let metadata = statement.columns_with_metadata().map(|column| {
            let parts = [column.database_name(), column.table_name(), column.origin_name()];
            parts.map(|part| part.map(str::to_owned))
        });
        let fields = statement.columns().zip(metadata).map(|(column, origin)| ResultField {
            name: column.name().to_owned(),
            declared: column.decl_type().map(str::to_owned),
            origin: match origin {
                [Some(schema), Some(table), Some(name)] => Some([schema, table, name]),
                _ => None,
            },
        });
        let fields = Vec::from_iter(fields);
        let mut seen = std::collections::HashSet::new();
        match fields.iter().find(|field| !seen.insert(field.name.to_ascii_lowercase())) {
            None => Ok(fields),
            Some(ResultField { name, .. }) => Err(self.refused(&format!(
                "{}: has two columns {}: give one of them another name, with AS",
                base.field,
                told(name)
            ))),
        }
    }

    fn filter(&self, base: &mut Base<'_>, filter: &str) -> Result<()> {
        let filter = condition("where", filter);
        let filter = filter.map_err(|error| self.refused(&error.to_string()))?;
        base.source.filter = Some(filter.to_owned());
        let sql = base.source.select("*", &[]);
        self.connection.prepare(&sql).map_err(self.wrong("where"))?;
        Ok(())
    }

    /// Refuses what would give other rows from page to page.
    fn check_stable(&self, base: &Base<'_>) -> Result<()> {
        let found = volatile(self.connection, &base.source.select("*", &[]));
        match found.map_err(self.fault())? {
            None => Ok(()),
            Some(name) => Err(self.refused(&format!(
                "{name}() gives something else each time it is called, and so for each page: leave \
                 it out"
            ))),
        }
    }

    /// The table whose rows they are, if they are those of one.
    fn origin(&self, base: &Base<'_>, fields: &[ResultField]) -> Result<Option<Origin>> {
        let table = match &base.table {
            Some(table) if !table.is_view => table.clone(),
            _ => {
                let mut origins = fields.iter().filter_map(|field| field.origin.as_ref());
                let Some([schema, table, _]) = origins.next() else { return Ok(None) };
                let is_one = is_of_one_table(self.connection, &base.sql).map_err(self.fault())?;
                let found = Cataloged::find(self.connection, Some(schema), table);
                match found.map_err(self.fault())? {
                    Some(table) if is_one && !table.is_view => table,
                    _ => return Ok(None),
                }
            }
        };
        let columns = fields.iter().map(|field| {
            let [schema, of, name] = field.origin.as_ref()?;
            (*schema == table.schema && *of == table.name).then(|| name.clone())
        });
        Ok(Some(Origin { columns: columns.collect(), table }))
    }

    fn key(
        &self,
        base: &Base<'_>,
        origin: Option<&Origin>,
        named: Option<&[String]>,
        names: &[String],
    ) -> Result<Found> {
        let hidden = base.table.as_ref().and_then(|table| table.rowid);
        let key = |key| Found { key, is_unique: true, hidden: None };
        let primary = origin.and_then(|it| it.places(it.table.primary.as_ref()?)).map(key);
        let rowid = origin.and_then(Origin::rowid).map(|place| key(vec![place]));
        let rowid = rowid.or_else(|| {
            let key = vec![names.len()];
            hidden.map(|rowid| Found { key, is_unique: true, hidden: Some(rowid) })
        });
        let uniques =
            origin.iter().flat_map(|it| it.table.uniques.iter().map(|key| it.places(key)));
        let uniques = uniques.flatten().map(key);
        if let Some(named) = named {
            let mut found = self.named(named, names, hidden)?;
            self.check_nulls(base, origin, &found, names)?;
            let has = |key: &Found| key.key.iter().all(|place| found.key.contains(place));
            found.is_unique = primary.into_iter().chain(rowid).chain(uniques).any(|key| has(&key));
            return Ok(found);
        }
        if let Some(primary) = primary
            && self.null(base, origin, &primary, names)?.is_none()
        {
            return Ok(primary);
        }
        let next = rowid.into_iter().chain(uniques).next();
        next.ok_or_else(|| self.without_key(base, origin, names))
    }

    fn named(
        &self,
        named: &[String],
        names: &[String],
        hidden: Option<&'static str>,
    ) -> Result<Found> {
        let mut found = Found { key: Vec::new(), is_unique: false, hidden: None };
        for name in named {
            let same = |it: &String| it.eq_ignore_ascii_case(name);
            let exact = names.iter().position(|it| it == name);
            let place = match (exact.or_else(|| names.iter().position(same)), hidden) {
                (Some(place), _) => place,
                (None, Some(rowid)) if rowid.eq_ignore_ascii_case(name) => {
                    found.hidden = Some(rowid);
                    names.len()
                }
                (None, _) => {
                    let there = names.iter().take(NAMES_MAX as usize).map(|name| told(name));
                    let there = Vec::from_iter(there).join(", ");
                    let why = format!("key: there is no column {}, but {there}", told(name));
                    return Err(self.refused(&why));
                }
            };
            if found.key.contains(&place) {
                return Err(self.refused(&format!("key: names {} twice", told(name))));
            }
            found.key.push(place);
        }
        match found.key.is_empty() {
            true => Err(self.refused("key: names no column: leave it out, or name some")),
            false => Ok(found),
        }
    }

    /// The key's column that is null in some row, if any is.
    fn null<'n>(
        &self,
        base: &Base<'_>,
        origin: Option<&Origin>,
        found: &Found,
        names: &'n [String],
    ) -> Result<Option<&'n String>> {
        let is_never = |index: &usize| {
            let column = origin.and_then(|it| Some((it, it.columns.get(*index)?.as_deref()?)));
            column.is_some_and(|(it, name)| it.is_rowid(name) || it.table.is_never_null(name))
        };
        for index in found.key.iter().filter(|index| !is_never(index)) {
            let Some(name) = names.get(*index) else { continue };
            let condition = format!("{} IS NULL", base.source.column(name));
            let sql = format!("{} LIMIT 1", base.source.select("1", &[condition]));
            let null = self.connection.query_row(&sql, [], |_| Ok(())).optional();
            if null.map_err(self.fault())?.is_some() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn check_nulls(
        &self,
        base: &Base<'_>,
        origin: Option<&Origin>,
        found: &Found,
        names: &[String],
    ) -> Result<()> {
        match self.null(base, origin, found, names)? {
            None => Ok(()),
            Some(name) => Err(self.refused(&format!(
                "key: {} is null in some row, which can't say where reading goes on: leave such rows \
                 out (where), or name another key",
                told(name)
            ))),
        }
    }

    fn without_key(&self, base: &Base<'_>, origin: Option<&Origin>, names: &[String]) -> Error {
        let field = base.field;
        let why = match origin {
            None => {
                format!("{field}: is more than one plain table, so that no key is known to hold")
            }
            Some(origin @ Origin { table, .. }) => {
                let is_there = table.primary.as_ref().and_then(|key| origin.places(key)).is_some();
                let why = if is_there { "has nulls" } else { "is not selected" };
                let key = table.primary.iter().flatten().map(|name| told(name));
                let key = Vec::from_iter(key).join(", ");
                let key = if key.is_empty() { "rowid" } else { &key };
                format!("{field}: the key of {} ({key}) {why}", told(&table.name))
            }
        };
        let there = names.iter().take(NAMES_MAX as usize).map(|name| told(name));
        let there = Vec::from_iter(there).join(", ");
        self.refused(&format!(
            "{why}: select it, or name columns that no two rows share (key), of {there}"
        ))
    }

    /// An order that was asked for must be the key's.
    fn check_order(&self, base: &Base<'_>, key: &[usize], columns: &[Column]) -> Result<()> {
        let Some(order) = base.query.as_ref().and_then(|query| query.order.as_ref()) else {
            return Ok(());
        };
        let key = || key.iter().map(|index| columns[*index].name.as_str());
        let is_same = |order: &Vec<String>| {
            order.iter().zip(key()).all(|(name, key)| name.eq_ignore_ascii_case(key))
        };
        if order.as_ref().is_ok_and(is_same) {
            return Ok(());
        }
        let names = Vec::from_iter(key().map(told)).join(", ");
        Err(self.refused(&format!(
            "query: rows come in the order of their key ({names}), and no other: leave ORDER BY out, \
             or name the key that it orders by (key)"
        )))
    }

    fn key_columns(
        &self,
        origin: Option<&Origin>,
        found: &Found,
        columns: &[Column],
    ) -> Result<Vec<KeyColumn>> {
        let mut key_columns = Vec::new();
        for (place, index) in found.key.iter().enumerate() {
            let Column { name, kind, .. } = &columns[*index];
            let column = origin.and_then(|it| Some((it, it.columns.get(*index)?.as_deref()?)));
            let collation = match column {
                _ if *index >= columns.len() - usize::from(found.hidden.is_some()) => {
                    Collation::Binary
                }
                Some((origin, column)) if !origin.is_rowid(column) => {
                    let named = collation(self.connection, &origin.table, column);
                    Collation::named(&named.map_err(self.fault())?)
                }
                Some(_) => Collation::Binary,
                None => Collation::Unknown,
            };
            let is_integer = *kind == Kind::Int;
            key_columns.push(KeyColumn { name: name.clone(), place, is_integer, collation });
        }
        Ok(key_columns)
    }

    fn estimate(&self, origin: &Origin) -> Result<Option<u64>> {
        let Cataloged { schema, name, rowid, .. } = &origin.table;
        let table = Source::table(schema, name);
        let rowid = rowid.map(|rowid| table.column(rowid));
        estimate(self.connection, &table, name, rowid.as_deref()).map_err(self.fault())
    }
}
