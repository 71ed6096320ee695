//! What SQLite's catalogue says of a table: which columns it has, and which of them are a key.

use rusqlite::{Connection, OptionalExtension, Result, params};

/// A table or view.
#[derive(Clone, Debug)]
pub(super) struct Cataloged {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) is_view: bool,
    /// Whether its columns hold nothing but what they were declared with.
    pub(super) is_strict: bool,
    /// The name by which its rowid is asked for, where it has one that no column hides.
    pub(super) rowid: Option<&'static str>,
    /// The column that is the rowid (`INTEGER PRIMARY KEY`).
    pub(super) alias: Option<String>,
    /// The columns of the primary key. In a table with rowids they may be null, against SQL.
    pub(super) primary: Option<Vec<String>>,
    /// The columns of other indices, no two rows being the same in these, and none null.
    pub(super) uniques: Vec<Vec<String>>,
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    is_not_null: bool,
    /// Its place in the primary key, from 1; 0 where it is in none.
    place: i64,
}

/// The names of a rowid, of which a column may have some.
const ROWID: [&str; 3] = ["rowid", "oid", "_rowid_"];

impl Cataloged {
    /// Looks a table up, as SQLite does: whatever the case of its letters.
    pub(super) fn find(
        connection: &Connection,
        schema: Option<&str>,
        name: &str,
    ) -> Result<Option<Self>> {
        let sql = "SELECT schema, name, type, wr, strict FROM pragma_table_list(?1) \
                   WHERE ?2 IS NULL OR schema = ?2 COLLATE NOCASE ORDER BY schema <> 'main'";
        let found = connection.query_row(sql, params![name, schema], |row| {
            let texts = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
            Ok((texts, row.get::<_, String>(2)?, row.get::<_, bool>(3)?, row.get::<_, bool>(4)?))
        });
        let Some(((schema, name), kind, without_rowid, is_strict)) = found.optional()? else {
            return Ok(None);
        };
        let mut table = Self {
            columns: columns(connection, &schema, &name)?,
            schema,
            name,
            is_view: kind == "view",
            is_strict,
            rowid: None,
            alias: None,
            primary: None,
            uniques: Vec::new(),
        };
        if table.is_view {
            return Ok(Some(table));
        }
        if without_rowid {
            table.columns.iter_mut().for_each(|column| column.is_not_null |= column.place > 0);
        } else {
            table.rowid = ROWID.into_iter().find(|name| table.column(name).is_none());
        }
        table.find_keys(connection, without_rowid)?;
        Ok(Some(table))
    }

    /// Names of what there is, for a message.
    pub(super) fn names(connection: &Connection, most: u32) -> Result<Vec<String>> {
        let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' \
                   AND type IN ('table', 'view', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                   ORDER BY name LIMIT ?1";
        connection.prepare(sql)?.query_map([most], |row| row.get(0))?.collect()
    }

    /// Whether a column can't be null.
    pub(super) fn is_never_null(&self, name: &str) -> bool {
        self.column(name).is_some_and(|column| column.is_not_null)
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    fn find_keys(&mut self, connection: &Connection, without_rowid: bool) -> Result<()> {
        let sql = "SELECT name, origin FROM pragma_index_list(?1, ?2) \
                   WHERE \"unique\" AND NOT partial ORDER BY seq DESC";
        let mut statement = connection.prepare(sql)?;
        let indices = statement.query_map([&self.name, &self.schema], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        let indices: Vec<_> = indices.collect::<Result<_>>()?;
        // The rowid itself needs no index.
        let has_index = indices.iter().any(|(_, origin)| origin == "pk");
        let mut primary = self.columns.iter_mut().filter(|column| column.place > 0);
        if let (Some(one), None, false) =
            (primary.next(), primary.next(), has_index || without_rowid)
        {
            one.is_not_null = true;
            self.alias = Some(one.name.clone());
            self.primary = Some(vec![one.name.clone()]);
        }
        for (index, origin) in indices {
            match self.indexed(connection, &index)? {
                Some(columns) if origin == "pk" => self.primary = Some(columns),
                Some(columns) if columns.iter().all(|name| self.is_never_null(name)) => {
                    self.uniques.push(columns);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The columns of an index, if it is one of columns that is ordered as they are themselves.
    fn indexed(&self, connection: &Connection, index: &str) -> Result<Option<Vec<String>>> {
        let sql =
            "SELECT name, \"desc\", coll FROM pragma_index_xinfo(?1, ?2) WHERE key ORDER BY seqno";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([index, &self.schema])?;
        let mut columns = Vec::new();
        let mut descend = Vec::new();
        while let Some(row) = rows.next()? {
            // An expression has no name.
            let Some(name) = row.get::<_, Option<String>>(0)? else { return Ok(None) };
            let ordered: String = row.get(2)?;
            if !ordered.eq_ignore_ascii_case(&collation(connection, self, &name)?) {
                return Ok(None);
            }
            columns.push(name);
            descend.push(row.get::<_, bool>(1)?);
        }
        descend.dedup();
        Ok((descend.len() == 1).then_some(columns))
    }
}

/// The order of a column's texts.
pub(super) fn collation(
    connection: &Connection,
    table: &Cataloged,
    column: &str,
) -> Result<String> {
    let schema = Some(table.schema.as_str());
    let (_, collation, ..) = connection.column_metadata(schema, table.name.as_str(), column)?;
    let collation = collation.as_deref().and_then(|name| name.to_str().ok());
    Ok(collation.unwrap_or("BINARY").to_owned())
}

fn columns(connection: &Connection, schema: &str, name: &str) -> Result<Vec<Column>> {
    // Hidden ones of virtual tables are no columns of theirs.
    let sql = "SELECT name, \"notnull\", pk FROM pragma_table_xinfo(?1, ?2) WHERE hidden <> 1";
    let mut statement = connection.prepare(sql)?;
    let columns = statement.query_map([name, schema], |row| {
        Ok(Column { name: row.get(0)?, is_not_null: row.get(1)?, place: row.get(2)? })
    })?;
    columns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sql: &str) -> Cataloged {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        Cataloged::find(&connection, None, "T").unwrap().unwrap()
    }

    #[test]
    fn keys_are_those_that_the_schema_promises() {
        for (sql, rowid, alias, primary, uniques) in [
            ("(a, b)", Some("rowid"), None, None, None),
            ("(id INTEGER PRIMARY KEY)", Some("rowid"), Some("id"), Some("id"), None),
            ("(id INT PRIMARY KEY)", Some("rowid"), None, Some("id"), None),
            ("(id INTEGER PRIMARY KEY DESC)", Some("rowid"), None, Some("id"), None),
            ("(rowid TEXT NOT NULL UNIQUE, OID)", Some("_rowid_"), None, None, Some("rowid")),
            ("(a, b, PRIMARY KEY (b, a)) WITHOUT ROWID", None, None, Some("b, a"), None),
            ("(a, b NOT NULL, PRIMARY KEY (a DESC, b))", Some("rowid"), None, None, None),
            ("(a UNIQUE, b NOT NULL)", Some("rowid"), None, None, None),
        ] {
            let table = found(&format!("CREATE TABLE t {sql}"));
            assert_eq!((table.rowid, table.alias.as_deref()), (rowid, alias), "{sql}");
            let joined = |columns: &Vec<String>| columns.join(", ");
            assert_eq!(table.primary.as_ref().map(joined).as_deref(), primary, "{sql}");
            assert_eq!(table.uniques.first().map(joined).as_deref(), uniques, "{sql}");
        }
    }

    #[test]
    fn an_index_that_is_partial_or_ordered_otherwise_is_no_key() {
        let table = found(
            "CREATE TABLE t (a TEXT NOT NULL COLLATE NOCASE, b TEXT NOT NULL);
             CREATE UNIQUE INDEX one ON t (a COLLATE BINARY);
             CREATE UNIQUE INDEX two ON t (b) WHERE b > 'm';
             CREATE UNIQUE INDEX three ON t (lower(b));
             CREATE UNIQUE INDEX four ON t (b, a);",
        );
        assert_eq!(table.uniques, [["b", "a"]]);
    }

    #[test]
    fn tables_views_and_nothing_are_told_apart() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t (a INT) STRICT; CREATE VIEW v AS SELECT a FROM t")
            .unwrap();
        let find = |schema, name| Cataloged::find(&connection, schema, name).unwrap();
        assert!(find(None, "t").is_some_and(|table| table.is_strict && !table.is_view));
        assert!(find(Some("MAIN"), "v").is_some_and(|view| view.is_view && view.rowid.is_none()));
        assert!(find(None, "nothing").is_none() && find(Some("temp"), "t").is_none());
        assert_eq!(Cataloged::names(&connection, 9).unwrap(), ["t", "v"]);
    }
}
