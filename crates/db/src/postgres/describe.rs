//! A table or query that is looked at before it is read: its columns, its key, and whether pages of it
//! would be pages of the same thing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_schema::{Field as ArrowField, Schema};

use super::config::Config;
use super::connection::{Connection, Field, first_value};
use super::plan::Planned;
use super::statement::{Chosen, Pages, Wanted, column, literal, trimmed};
use super::table::{Origin, Table};
use super::types::{Form, id};
use crate::{Consistency, Error, Reading, Result, What, identifier};

/// A Postgres database.
#[derive(Clone, Debug)]
pub struct Database {
    config: Arc<Config>,
}

impl Database {
    /// One that can be connected to so; nothing is done yet.
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(config) }
    }

    /// Connects and looks at a table or query.
    ///
    /// [`Consistency::Snapshot`] holds a transaction open for as long as rows are read. Meanwhile the
    /// server can't clean up (`VACUUM`) what was deleted or changed since, in any table, and
    /// a connection stays open. It ends with the server, and can't be resumed.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`](crate::Kind::Refused) where there is no such thing, or its pages would not be
    /// pages of the same rows: without a key, with nulls in it, with a key that is ordered otherwise
    /// than compared, with `LIMIT`, or with functions whose values change from call to call; with the
    /// reason and the remedy.
    pub async fn describe(
        &self,
        reading: &Reading,
        consistency: Consistency,
    ) -> Result<Arc<Table>> {
        let mut connection = connect(&self.config).await?;
        let snapshot = match consistency {
            Consistency::Pages => None,
            Consistency::Snapshot => {
                connection.simple("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                let id = connection.simple("SELECT pg_catalog.pg_export_snapshot()").await?;
                Some(first_value(id).unwrap_or_default())
            }
        };
        let mut looker = Looker { config: &self.config, connection: &mut connection };
        let looked = looker.look(reading).await?;
        let schema = looked.schema();
        let holder = match snapshot {
            Some(id) => Some((id, connection)),
            None => {
                connection.close().await;
                None
            }
        };
        Ok(Arc::new(Table {
            config: Arc::clone(&self.config),
            schema,
            forms: looked.forms,
            key: looked.key,
            is_unique: looked.is_unique,
            pages: looked.pages,
            rows: looked.planned.rows,
            width: looked.planned.width,
            key_origin: looked.key_origin,
            snapshot: holder,
            without_copy: AtomicBool::new(false),
        }))
    }
}

/// A connection that only reads.
pub(super) async fn connect(config: &Arc<Config>) -> Result<Connection> {
    let mut connection = Connection::connect(config).await?;
    connection.simple("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").await?;
    Ok(connection)
}

/// The class of operators (of `btree`, 403) that a type `t`, no domain, is ordered by, as the server
/// finds it: its own, or that of a type whose values are the same bytes, best the preferred one.
const DEFAULT_CLASS: &str = "\
SELECT o.opcfamily, o.opcintype FROM pg_catalog.pg_opclass AS o \
JOIN pg_catalog.pg_type AS input ON input.oid = o.opcintype \
WHERE o.opcmethod = 403 AND o.opcdefault \
  AND (o.opcintype = t.oid \
    OR EXISTS (SELECT FROM pg_catalog.pg_cast AS x \
        WHERE x.castsource = t.oid AND x.casttarget = o.opcintype \
          AND x.castmethod = 'b' AND x.castcontext = 'i') \
    OR input.typtype = 'p' AND input.typname = CASE t.typtype WHEN 'e' THEN 'anyenum' \
        WHEN 'r' THEN 'anyrange' WHEN 'm' THEN 'anymultirange' WHEN 'c' THEN 'record' \
        ELSE CASE WHEN t.typlen = -1 AND t.typelem <> 0 THEN 'anyarray' END END) \
ORDER BY o.opcintype = t.oid DESC, \
  input.typispreferred AND input.typcategory = t.typcategory DESC LIMIT 1";

/// What was found.
struct Looked {
    fields: Vec<Field>,
    forms: Vec<Form>,
    key: Vec<usize>,
    is_unique: bool,
    pages: Pages,
    planned: Planned,
    key_origin: Option<Origin>,
}

impl Looked {
    fn schema(&self) -> Arc<Schema> {
        let fields = self.fields.iter().zip(&self.forms);
        let fields =
            fields.map(|(field, form)| ArrowField::new(&field.name, form.data_type(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

struct Looker<'c> {
    config: &'c Config,
    connection: &'c mut Connection,
}

impl Looker<'_> {
    async fn look(&mut self, reading: &Reading) -> Result<Looked> {
        let (base, is_table) = self.base(&reading.what).await?;
        let fields = self.connection.describe(&base).await?;
        let fields = fields.ok_or_else(|| self.refused("it gives no rows: write a SELECT"))?;
        self.check_names(&fields)?;
        let forms: Vec<_> =
            fields.iter().map(|field| Form::of(field.type_id, field.modifier)).collect();
        let columns = fields.iter().zip(&forms).map(|(field, form)| {
            let wanted = match (form, field.type_id) {
                (Form::Cast, id::INET) => Wanted::InetText,
                (Form::Cast, _) => Wanted::Text,
                _ => Wanted::AsItIs,
            };
            Chosen { name: field.name.clone(), wanted }
        });
        let filter = reading.filter.as_deref().map(trimmed).filter(|filter| !filter.is_empty());
        let mut pages = Pages {
            base,
            filter: filter.map(str::to_owned),
            columns: columns.collect(),
            key: Vec::new(),
            compares: false,
        };
        if let Some(filter) = &pages.filter {
            // By itself, lest it close the parentheses that it is put into.
            let alone = format!("SELECT FROM (\n{}\n) AS tidegate_base WHERE {filter}", pages.base);
            self.connection.describe(&alone).await?;
        }
        let planned = self.plan(&pages.all(), is_table).await?;
        self.check_stable(&planned).await?;
        let indices = self.indices(&fields, &planned).await?;
        let key = match &reading.key {
            Some(names) => self.named(names, &fields)?,
            None => indices.first().cloned().ok_or_else(|| self.without_key(&fields, &planned))?,
        };
        pages.key = key.iter().map(|place| fields[*place].name.clone()).collect();
        let is_unique = indices.iter().any(|index| index.iter().all(|place| key.contains(place)));
        if !is_unique {
            self.check_nulls(&pages).await?;
        }
        // That the filter, the key's order and all makes sense.
        self.connection.describe(&pages.inlined(&crate::Range::default(), 1)).await?;
        self.check_operators(&key, &fields).await?;
        pages.compares = !is_unique;
        let first = &fields[key[0]];
        let Field { table, number, type_id, .. } = *first;
        let key_origin = (table != 0).then_some(Origin { table, number, type_id });
        Ok(Looked { fields, forms, key, is_unique, pages, planned, key_origin })
    }

    fn refused(&self, why: &str) -> Error {
        Error::refused(format!("{}: {why}", self.config))
    }

    /// The query, or that for a table.
    async fn base(&mut self, what: &What) -> Result<(String, bool)> {
        match what {
            What::Query(query) => {
                let query = trimmed(query);
                if query.is_empty() {
                    return Err(self.refused("query: it is empty"));
                }
                Ok((query.to_owned(), false))
            }
            What::Table(name) => {
                let found = "SELECT $1::pg_catalog.regclass::pg_catalog.text";
                let found = self.connection.query(found, &[name]).await?;
                let name = first_value(found).unwrap_or_default();
                Ok((format!("SELECT * FROM {name}"), true))
            }
        }
    }

    fn check_names(&self, fields: &[Field]) -> Result<()> {
        if fields.is_empty() {
            return Err(self.refused("it has no columns"));
        }
        let mut seen = HashSet::new();
        match fields.iter().find(|field| !seen.insert(&field.name)) {
            None => Ok(()),
            Some(Field { name, .. }) => Err(self.refused(&format!(
                "it has two columns {name:?}: name one of them otherwise, with AS"
            ))),
        }
    }

    async fn plan(&mut self, sql: &str, is_table: bool) -> Result<Planned> {
        let plan = self.connection.simple(&format!("EXPLAIN (FORMAT JSON, VERBOSE) {sql}")).await?;
        let lines = plan.into_iter().filter_map(|row| row.into_iter().next().flatten());
        let text = Vec::from_iter(lines).join("\n");
        Planned::read(&text, is_table).ok_or_else(|| self.refused("its plan makes no sense"))
    }

    /// Refuses what would give other rows from page to page.
    async fn check_stable(&mut self, planned: &Planned) -> Result<()> {
        if let Some(what) = planned.picks {
            return Err(self.refused(&format!(
                "the query has {what}, and would pick other rows for each page: leave it out, and \
                 narrow the rows by a condition"
            )));
        }
        if planned.functions.is_empty() {
            return Ok(());
        }
        let names = planned.functions.iter().map(|name| literal(name));
        let names = Vec::from_iter(names).join(", ");
        let sql = format!(
            "SELECT proname FROM pg_catalog.pg_proc WHERE proname IN ({names}) GROUP BY proname \
             HAVING bool_and(provolatile = 'v')"
        );
        match first_value(self.connection.simple(&sql).await?) {
            None => Ok(()),
            Some(name) => Err(self.refused(&format!(
                "the query calls {name}(), which gives something else each time, and so for each \
                 page: leave it out"
            ))),
        }
    }

    /// The unique keys that hold for the rows, as places of columns; the primary key first.
    async fn indices(&mut self, fields: &[Field], planned: &Planned) -> Result<Vec<Vec<usize>>> {
        let table = fields.iter().map(|field| field.table).find(|table| *table != 0);
        let Some(table) = table.filter(|_| planned.is_of_one_table) else { return Ok(Vec::new()) };
        let types = fields.iter().filter(|field| field.table == table);
        let types = types.map(|field| format!("({}::int2, {}::oid)", field.number, field.type_id));
        let types = Vec::from_iter(types).join(", ");
        // Without nulls, conditions and expressions, checked at once, with the same values the same as
        // in the key's order: by collation, and by operator (an index of a `citext` may be one of
        // texts); and not of a table that others inherit, whose rows no index of it knows.
        let sql = format!(
            "SELECT (SELECT string_agg(k.number::text, ' ' ORDER BY k.place) \
                     FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place) \
                     WHERE k.place <= i.indnkeyatts) \
             FROM pg_catalog.pg_index AS i \
             WHERE i.indrelid = {table} AND i.indisunique AND i.indisvalid AND i.indimmediate \
               AND i.indpred IS NULL AND i.indexprs IS NULL \
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a \
                   WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]) \
                     AND NOT a.attnotnull) \
               AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[], i.indcollation::oid[]) \
                     AS k(number, coll) JOIN pg_catalog.pg_attribute AS a \
                     ON a.attrelid = i.indrelid AND a.attnum = k.number \
                   WHERE a.attcollation <> k.coll) \
               AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[], i.indclass::oid[]) \
                     AS k(number, class) \
                   JOIN pg_catalog.pg_opclass AS c ON c.oid = k.class \
                   JOIN (VALUES {types}) AS f(number, type) ON f.number = k.number \
                   JOIN pg_catalog.pg_type AS t ON t.oid = f.type \
                   CROSS JOIN LATERAL ({DEFAULT_CLASS}) AS d \
                   WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_amop AS one \
                       JOIN pg_catalog.pg_amop AS other ON other.amopopr = one.amopopr \
                       WHERE one.amopfamily = c.opcfamily AND one.amopstrategy = 3 \
                         AND one.amoplefttype = c.opcintype AND one.amoprighttype = c.opcintype \
                         AND other.amopfamily = d.opcfamily AND other.amopstrategy = 3 \
                         AND other.amoplefttype = d.opcintype \
                         AND other.amoprighttype = d.opcintype)) \
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS h \
                     JOIN pg_catalog.pg_class AS c ON c.oid = h.inhparent \
                   WHERE h.inhparent = i.indrelid AND c.relkind <> 'p') \
             ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid"
        );
        let place = |number: &str| {
            let number: i16 = number.parse().ok()?;
            fields.iter().position(|field| field.table == table && field.number == number)
        };
        let found = self.connection.simple(&sql).await?;
        let indices = found.into_iter().filter_map(|row| {
            let numbers = row.into_iter().next().flatten()?;
            numbers.split(' ').map(place).collect::<Option<Vec<_>>>()
        });
        Ok(indices.collect())
    }

    /// Refuses a key that the server orders by other operators than those that `>`, `<=` and `=` mean:
    /// `ORDER BY` goes by the type, but an operator is searched for, by its name. One that takes the
    /// key's own type is found before all others; else one of a type that it can be made into may be.
    async fn check_operators(&mut self, key: &[usize], fields: &[Field]) -> Result<()> {
        for Field { name, type_id, .. } in key.iter().map(|place| &fields[*place]) {
            let sql = format!(
                "SELECT op.oid::pg_catalog.regoperator, s.nspname, \
                   pg_catalog.pg_operator_is_visible(op.oid) \
                 FROM pg_catalog.pg_type AS t \
                 CROSS JOIN (VALUES ('>', 5), ('<=', 2), ('=', 3)) AS used(name, strategy) \
                 LEFT JOIN LATERAL ({DEFAULT_CLASS}) AS d ON true \
                 LEFT JOIN pg_catalog.pg_amop AS a ON a.amopfamily = d.opcfamily \
                   AND a.amoplefttype = d.opcintype AND a.amoprighttype = d.opcintype \
                   AND a.amopstrategy = used.strategy \
                 LEFT JOIN pg_catalog.pg_operator AS op ON op.oid = a.amopopr \
                 LEFT JOIN pg_catalog.pg_namespace AS s ON s.oid = op.oprnamespace \
                 WHERE t.oid = {type_id} AND NOT coalesce(op.oprname = used.name \
                   AND pg_catalog.pg_operator_is_visible(op.oid) \
                   AND (d.opcintype = t.oid \
                     OR NOT EXISTS (SELECT FROM pg_catalog.pg_operator AS own \
                         WHERE own.oprname = used.name AND own.oprleft = t.oid \
                           AND own.oprright = t.oid \
                           AND pg_catalog.pg_operator_is_visible(own.oid)) \
                       AND (t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace \
                         OR NOT EXISTS (SELECT FROM pg_catalog.pg_cast AS x \
                           WHERE x.castsource = t.oid AND x.castcontext = 'i' \
                             AND x.casttarget <> d.opcintype))), false) \
                 LIMIT 1"
            );
            let Some(found) = self.connection.simple(&sql).await?.pop() else { continue };
            let mut found = found.into_iter().map(Option::unwrap_or_default);
            let mut next = || found.next().unwrap_or_default();
            let (operator, schema, is_visible) = (next(), next(), next() == "t");
            let remedy = match is_visible || schema.is_empty() {
                true => "cast it in a query".to_owned(),
                false => format!(
                    "have the schema {schema} searched (url: \
                     ?options=-csearch_path%3Dpublic,{schema})"
                ),
            };
            return Err(self.refused(&format!(
                "key: {name:?} is ordered by {operator}, which is not what a comparison means here, \
                 and pages would miss rows: {remedy}, or name another key"
            )));
        }
        Ok(())
    }

    fn named(&self, names: &[String], fields: &[Field]) -> Result<Vec<usize>> {
        if names.is_empty() {
            return Err(self.refused("key: it names no column"));
        }
        let mut seen = HashSet::new();
        let place = |name: &String| {
            let known = || Vec::from_iter(fields.iter().map(|field| field.name.as_str()));
            let found = fields.iter().position(|field| field.name == *name);
            let found = found.ok_or_else(|| {
                self.refused(&format!("key: there is no column {name:?}, but {:?}", known()))
            })?;
            match seen.insert(found) {
                true => Ok(found),
                false => Err(self.refused(&format!("key: it names {name:?} twice"))),
            }
        };
        names.iter().map(place).collect()
    }

    fn without_key(&self, fields: &[Field], planned: &Planned) -> Error {
        let why = match planned.is_of_one_table {
            true => {
                "no primary key, nor a unique index without nulls, has all its columns in the result \
                 and knows all rows (those of a table that inherits are not known)"
            }
            false => "the query is more than one plain table, so that no key is known to hold",
        };
        let names = fields.iter().map(|field| identifier(&field.name));
        let names = Vec::from_iter(names.take(8)).join(", ");
        self.refused(&format!(
            "rows have no key to read them in order by: {why}: name columns that no two rows share \
             (key), of {names}"
        ))
    }

    /// Rows without a key would never be read.
    async fn check_nulls(&mut self, pages: &Pages) -> Result<()> {
        let any = pages.key.iter().map(|name| format!("{} IS NULL", column(name)));
        let any = Vec::from_iter(any).join(" OR ");
        let filter = pages
            .filter
            .as_ref()
            .map_or(any.clone(), |filter| format!("(\n{filter}\n) AND ({any})"));
        let sql =
            format!("SELECT 1 FROM (\n{}\n) AS tidegate_base WHERE {filter} LIMIT 1", pages.base);
        match self.connection.simple(&sql).await?.is_empty() {
            true => Ok(()),
            false => Err(self.refused(&format!(
                "key: a row has a null in {:?}, and would never be read: leave such rows out \
                 (where), or name another key",
                pages.key
            ))),
        }
    }
}
