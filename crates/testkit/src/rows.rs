//! Rows as texts, from whoever has them, to be compared with other rows.

use std::path::Path;
use std::time::Duration;

use crate::peers;
use crate::process::Program;

/// The values of a row; `None` is no value.
pub type Row = Vec<Option<String>>;

/// How long a file may take to be read.
const DEADLINE: Duration = Duration::from_secs(300);

/// Reads a file by a program that nobody here wrote, and prints it as PostgreSQL's `COPY` does.
const READER: &str = include_str!("rows.py");

/// What a file has: the names of its columns, the types where it knows them, and rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The columns' names.
    pub names: Vec<String>,
    /// Their types as the reader calls them; empty for CSV and SQLite.
    pub types: Vec<String>,
    /// The rows, in the order of the file.
    pub rows: Vec<Row>,
}

/// Reads a CSV file with a head, as RFC 4180 and `psql` have it: nothing is no value, and `""` an
/// empty text. Python's own `csv` must find the same texts.
///
/// # Panics
///
/// Where it is no such file, and where Python is missing, with the command that installs it.
#[track_caller]
pub fn of_csv(file: &Path) -> Table {
    read("csv", file, "")
}

/// Reads a Parquet file by DuckDB, or all that a pattern with `*` means, in the order of their names.
///
/// Values are as PostgreSQL writes them with `timezone = 'UTC'`, but for lists and structures, which
/// are JSON. Decimals of more than 38 digits are doubles to DuckDB.
///
/// # Panics
///
/// As [`of_csv`].
#[track_caller]
pub fn of_parquet(file: &Path) -> Table {
    read("parquet", file, "")
}

/// What a query of a SQLite database gives, by Python's own module: numbers and texts as PostgreSQL
/// writes them, blobs as it writes `bytea`.
///
/// # Panics
///
/// As [`of_csv`].
#[track_caller]
pub fn of_sqlite(file: &Path, query: &str) -> Table {
    read("sqlite", file, query)
}

/// What `COPY … TO STDOUT` printed.
///
/// # Panics
///
/// Where it is no such thing.
#[track_caller]
pub fn of_copy(text: &str) -> Vec<Row> {
    text.lines().map(|line| line.split('\t').map(value).collect()).collect()
}

#[track_caller]
fn read(kind: &str, file: &Path, query: &str) -> Table {
    let mut command = peers::duckdb();
    command.args(["-c", READER, kind]).arg(file).arg(query);
    let ended = Program::of(command).ended(DEADLINE);
    assert!(ended.status.success(), "can't read {}: {}", file.display(), ended.stderr);
    let mut rows = of_copy(&ended.stdout);
    assert!(rows.len() >= 2, "the reader printed no head: {}", ended.stdout);
    let [names, types] = [0, 1].map(|head| rows[head].iter().flatten().cloned().collect());
    rows.drain(..2);
    Table { names, types, rows }
}

/// A value as `COPY` writes it.
#[track_caller]
fn value(text: &str) -> Option<String> {
    if text == r"\N" {
        return None;
    }
    let mut value = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        value.push(match letter {
            '\\' => match letters.next() {
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\u{b}',
                Some(other) => other,
                None => panic!("`{text}` ends in the middle"),
            },
            other => other,
        });
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn row(values: &[Option<&str>]) -> Row {
        values.iter().map(|value| value.map(str::to_owned)).collect()
    }

    /// Runs Python with DuckDB.
    fn python(script: &str, file: &Path) {
        let mut command = peers::duckdb();
        command.args(["-c", script]).arg(file);
        let ended = Program::of(command).ended(DEADLINE);
        assert!(ended.status.success(), "{}", ended.stderr);
    }

    #[test]
    fn what_copy_prints_is_read() {
        let rows = of_copy("1\t\\N\t\n\\\\N\ta\\tb\\nc\té\n");
        assert_eq!(rows[0], row(&[Some("1"), None, Some("")]));
        assert_eq!(rows[1], row(&[Some("\\N"), Some("a\tb\nc"), Some("é")]));
    }

    #[test]
    #[ignore = "needs Python with DuckDB; run by cargo xtask test"]
    fn csv_tells_nothing_from_an_empty_text() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.csv");
        fs::write(&file, "id,\"a \"\"b\"\"\"\r\n1,\n2,\"\"\n3,\"x,\"\"y\"\"\r\nz\"\n").unwrap();
        let table = of_csv(&file);
        assert_eq!(table.names, ["id", "a \"b\""]);
        assert_eq!(table.rows[0], row(&[Some("1"), None]));
        assert_eq!(table.rows[1], row(&[Some("2"), Some("")]));
        assert_eq!(table.rows[2], row(&[Some("3"), Some("x,\"y\"\r\nz")]));
        fs::write(&file, "a\n\n\"\"\n").unwrap();
        assert_eq!(of_csv(&file).rows, [row(&[None]), row(&[Some("")])]);
    }

    #[test]
    #[ignore = "needs Python with DuckDB; run by cargo xtask test"]
    #[should_panic(expected = "line 2")]
    fn csv_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.csv");
        fs::write(&file, "a,b\n1,x\"y\"\n").unwrap();
        of_csv(&file);
    }

    #[test]
    #[ignore = "needs Python with DuckDB; run by cargo xtask test"]
    fn parquet_is_read_as_postgres_writes_values() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.parquet");
        let query = "COPY (SELECT 1 AS i, true AS b, 1e15::double AS f, 'nan'::float AS g, \
                     12.50::decimal(10, 2) AS n, 'é\\t' AS t, '\\xAB'::blob AS y, \
                     timestamptz '2024-01-02 03:04:05.06+00' AS z, NULL::int AS e, \
                     date '0001-01-01' - 1 AS d, [1, NULL] AS l) TO '?' (FORMAT parquet)";
        let script =
            format!("import sys, duckdb; duckdb.execute({query:?}.replace('?', sys.argv[1]))");
        python(&script, &file);
        let table = of_parquet(&file);
        assert_eq!(table.names, ["i", "b", "f", "g", "n", "t", "y", "z", "e", "d", "l"]);
        assert_eq!(table.types[4], "DECIMAL(10,2)");
        let expected = row(&[
            Some("1"),
            Some("t"),
            Some("1e+15"),
            Some("NaN"),
            Some("12.50"),
            Some("é\\t"),
            Some("\\xab"),
            Some("2024-01-02 03:04:05.06+00"),
            None,
            Some("0001-12-31 BC"),
            Some("[1,null]"),
        ]);
        assert_eq!(table.rows, [expected]);
    }

    #[test]
    #[ignore = "needs Python with DuckDB; run by cargo xtask test"]
    fn sqlite_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let script = "import sys, sqlite3; sqlite3.connect(sys.argv[1]).executescript(\
                      \"CREATE TABLE t (a); INSERT INTO t VALUES (1), (0.5), ('x'), (x'ab'), (NULL)\")";
        python(script, &file);
        let table = of_sqlite(&file, "SELECT a FROM t");
        let texts: Vec<_> = table.rows.concat();
        assert_eq!(texts, row(&[Some("1"), Some("0.5"), Some("x"), Some("\\xab"), None]));
    }
}
