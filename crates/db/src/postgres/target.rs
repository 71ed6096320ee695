//! Tables that rows go into: what they are called, what columns they have, and how one is made for
//! rows of a schema.

use std::fmt;

use arrow_schema::{DataType, Field, Schema};

use super::connection::Connection;
use super::encode::{Column, Form};
use crate::{Error, Result, identifier};

/// The columns of a table, with the function that receives their values: a domain's is that of the
/// type that it is a part of.
const COLUMNS: &str = "\
WITH RECURSIVE base (number, type) AS ( \
  SELECT attnum, atttypid FROM pg_catalog.pg_attribute \
  WHERE attrelid = pg_catalog.to_regclass($1) AND attnum > 0 AND NOT attisdropped \
  UNION ALL \
  SELECT number, typbasetype FROM base JOIN pg_catalog.pg_type ON oid = type WHERE typtype = 'd') \
SELECT nspname, relname, attname, pg_catalog.format_type(atttypid, atttypmod), proname, \
  attgenerated <> '' \
FROM pg_catalog.pg_class AS c \
JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace \
JOIN pg_catalog.pg_attribute ON attrelid = c.oid \
JOIN base ON number = attnum \
JOIN pg_catalog.pg_type AS t ON t.oid = type AND typtype <> 'd' \
LEFT JOIN pg_catalog.pg_proc AS p ON p.oid = typreceive \
WHERE c.oid = pg_catalog.to_regclass($1) ORDER BY attnum";

/// A table's name as SQL writes it: `events`, `public.events`, `"Odd Name"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetName {
    /// The schema; the first of the server's `search_path` that has the table where there is none.
    pub schema: Option<String>,
    /// The table itself.
    pub table: String,
}

impl TargetName {
    /// Reads a name. Without quotes it is in lower case, as in SQL.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`](crate::Kind::Refused), with what to write instead.
    pub fn parse(name: &str) -> Result<Self> {
        let odd = || {
            Error::refused(format!(
                "{name:?} is no name of a table: write table or schema.table, and what is no plain \
                 word in double quotes: \"Odd Name\""
            ))
        };
        let (first, rest) = part(name).ok_or_else(odd)?;
        let (schema, table) = match rest.strip_prefix('.') {
            None if rest.is_empty() => (None, first),
            None => return Err(odd()),
            Some(rest) => match part(rest) {
                Some((table, "")) => (Some(first), table),
                _ => return Err(odd()),
            },
        };
        Ok(Self { schema, table })
    }
}

/// In quotes, for SQL.
impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", identifier(schema))?;
        }
        f.write_str(&identifier(&self.table))
    }
}

/// A name's first part, and what follows it.
fn part(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
        let end = text.find(|letter| !is_inner(letter)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let is_word =
            !word.is_empty() && !word.starts_with(|c: char| c.is_ascii_digit() || c == '$');
        return is_word.then(|| (word.to_ascii_lowercase(), rest));
    };
    let (mut name, mut rest) = (String::new(), quoted);
    loop {
        let (before, after) = rest.split_once('"')?;
        name += before;
        match after.strip_prefix('"') {
            Some(more) => (name, rest) = (name + "\"", more),
            None => return (!name.is_empty() && !name.contains('\0')).then_some((name, after)),
        }
    }
}

/// A table as it is on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name, with its schema.
    pub name: TargetName,
    /// Its columns in order, but those that the server computes.
    pub columns: Vec<Column>,
    /// The names of those that the server computes.
    pub computed: Vec<String>,
}

impl Target {
    /// Looks a table up; `None` where there is no such.
    ///
    /// # Errors
    ///
    /// What the server says, or that the connection broke.
    pub async fn find(connection: &mut Connection, name: &TargetName) -> Result<Option<Self>> {
        let rows = connection.query(COLUMNS, &[&name.to_string()]).await?;
        let mut found: Option<Self> = None;
        for row in rows {
            let mut values = row.into_iter();
            let mut next = || values.next().flatten().unwrap_or_default();
            let name = TargetName { schema: Some(next()), table: next() };
            let (column, type_name, form) = (next(), next(), Form::received_by(&next()));
            let table =
                found.get_or_insert(Self { name, columns: Vec::new(), computed: Vec::new() });
            match &*next() {
                "t" => table.computed.push(column),
                _ => table.columns.push(Column { name: column, type_name, form }),
            }
        }
        Ok(found)
    }

    /// The columns that rows of a schema go into, by name.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`](crate::Kind::Refused), with the column and what to do, where the table has
    /// none of that name.
    pub fn columns_for(&self, schema: &Schema) -> Result<Vec<Column>> {
        let column = |field: &Field| {
            let name = field.name();
            let same = self.columns.iter().find(|column| column.name == *name);
            same.cloned().ok_or_else(|| Error::refused(self.lacks(field)))
        };
        schema.fields().iter().map(|field| column(field)).collect()
    }

    fn lacks(&self, field: &Field) -> String {
        let (table, name) = (&self.name, field.name());
        if self.computed.contains(name) {
            return format!("{table} computes its column `{name}` itself: leave it out in SQL");
        }
        let almost = |column: &&Column| column.name.eq_ignore_ascii_case(name);
        if let Some(Column { name: other, .. }) = self.columns.iter().find(almost) {
            return format!(
                "{table} has no column `{name}`, but `{other}`: call it that in SQL: {} AS {}",
                identifier(name),
                identifier(other)
            );
        }
        let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let type_name = type_for(field.data_type()).unwrap_or_else(|| "jsonb".to_owned());
        format!(
            "{table} has no column `{name}`, only {}: rename it in SQL ({name} AS …), leave it out, \
             or add it: ALTER TABLE {table} ADD COLUMN {} {type_name}",
            names.join(", "),
            identifier(name)
        )
    }
}

/// The statement that makes a table for rows of a schema, with this primary key or none.
///
/// # Errors
///
/// [`Kind::Refused`](crate::Kind::Refused), with the column and what to do, where Postgres has no
/// type for one.
pub fn create_table(name: &TargetName, schema: &Schema, key: &[String]) -> Result<String> {
    let mut parts = Vec::new();
    for field in schema.fields() {
        let column = field.name();
        let type_name = match field.metadata().get("ARROW:extension:name").map(String::as_str) {
            Some("arrow.uuid") => Some("uuid".to_owned()),
            Some("arrow.json") => Some("jsonb".to_owned()),
            _ => type_for(field.data_type()),
        };
        let type_name = type_name.ok_or_else(|| {
            Error::refused(format!(
                "there is no type for the column `{column}` of {}: convert it in SQL with \
                 CAST({column} AS …)",
                field.data_type()
            ))
        })?;
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        parts.push(format!("{} {type_name}{not_null}", identifier(column)));
    }
    if !key.is_empty() {
        let key: Vec<_> = key.iter().map(|column| identifier(column)).collect();
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    Ok(format!("CREATE TABLE {name} ({})", parts.join(", ")))
}

/// The type that holds all values of an Arrow type.
fn type_for(data_type: &DataType) -> Option<String> {
    use DataType as T;
    let name = match data_type {
        T::Boolean => "boolean",
        T::Int8 | T::Int16 | T::UInt8 => "smallint",
        T::Int32 | T::UInt16 => "integer",
        T::Int64 | T::UInt32 => "bigint",
        T::UInt64 => "numeric(20)",
        T::Float16 | T::Float32 => "real",
        T::Float64 => "double precision",
        T::Decimal32(digits, scale)
        | T::Decimal64(digits, scale)
        | T::Decimal128(digits, scale)
        | T::Decimal256(digits, scale) => {
            let (digits, scale) = (i16::from(*digits), i16::from(*scale));
            // Neither more decimals than digits nor less than none are known to servers before 15.
            let digits = digits.max(scale) - scale.min(0);
            return Some(format!("numeric({digits},{})", scale.max(0)));
        }
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Null => "text",
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => "bytea",
        T::Date32 | T::Date64 => "date",
        T::Time32(_) | T::Time64(_) => "time",
        T::Timestamp(_, None) => "timestamp",
        T::Timestamp(_, Some(_)) => "timestamptz",
        T::Duration(_) | T::Interval(_) => "interval",
        T::Dictionary(_, values) => return type_for(values),
        data_type if data_type.is_nested() => "jsonb",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use arrow_schema::{Fields, TimeUnit};

    use super::*;

    fn name(text: &str) -> Option<(Option<String>, String)> {
        TargetName::parse(text).ok().map(|name| (name.schema, name.table))
    }

    #[test]
    fn names_are_read_as_sql_reads_them() {
        let plain =
            |schema: Option<&str>, table: &str| Some((schema.map(str::to_owned), table.to_owned()));
        assert_eq!(name("Events"), plain(None, "events"));
        assert_eq!(name("public.events_2$"), plain(Some("public"), "events_2$"));
        assert_eq!(name("größe"), plain(None, "größe"));
        assert_eq!(name("\"Odd Name\""), plain(None, "Odd Name"));
        assert_eq!(name("\"a.b\".\"c\"\"d\""), plain(Some("a.b"), "c\"d"));
        for text in
            ["", ".", "a.", ".b", "a.b.c", "2a", "a b", "\"", "\"a", "\"\"", "a;--", "\"a\"b"]
        {
            assert_eq!(name(text), None, "{text}");
        }
        let odd = TargetName::parse("\"a\"\"b\".C").unwrap();
        assert_eq!(odd.to_string(), "\"a\"\"b\".\"c\"");
    }

    #[test]
    fn a_table_is_made_of_a_schema() {
        let map = DataType::Struct(Fields::from(vec![Field::new("x", DataType::Int8, true)]));
        let texts = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("a\"b", texts, true),
            Field::new("amount", DataType::Decimal128(12, 2), true),
            Field::new("big", DataType::Decimal128(5, -2), true),
            Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), true),
            Field::new("more", map, true),
        ]);
        let name = TargetName::parse("s.t").unwrap();
        let made = create_table(&name, &schema, &["id".into()]).unwrap();
        assert_eq!(
            made,
            "CREATE TABLE \"s\".\"t\" (\"id\" bigint NOT NULL, \"a\"\"b\" text, \
             \"amount\" numeric(12,2), \"big\" numeric(7,0), \"at\" timestamptz, \"more\" jsonb, \
             PRIMARY KEY (\"id\"))"
        );
        assert!(create_table(&name, &schema, &[]).unwrap().ends_with("\"more\" jsonb)"));
    }

    #[test]
    fn a_column_that_is_not_there_is_named_with_a_remedy() {
        let column =
            |name: &str| Column { name: name.into(), type_name: "text".into(), form: Form::Text };
        let table = Target {
            name: TargetName::parse("s.t").unwrap(),
            columns: vec![column("id"), column("Name")],
            computed: vec!["sum".into()],
        };
        let wanted = |name: &str| {
            let schema = Schema::new(vec![Field::new(name, DataType::Int32, true)]);
            table.columns_for(&schema).map_err(|error| error.to_string())
        };
        assert_eq!(wanted("id"), Ok(vec![column("id")]));
        assert_eq!(
            wanted("sum").unwrap_err(),
            "\"s\".\"t\" computes its column `sum` itself: leave it out in SQL"
        );
        assert_eq!(
            wanted("name").unwrap_err(),
            "\"s\".\"t\" has no column `name`, but `Name`: call it that in SQL: \"name\" AS \"Name\""
        );
        assert_eq!(
            wanted("x").unwrap_err(),
            "\"s\".\"t\" has no column `x`, only id, Name: rename it in SQL (x AS …), leave it out, \
             or add it: ALTER TABLE \"s\".\"t\" ADD COLUMN \"x\" integer"
        );
    }
}
