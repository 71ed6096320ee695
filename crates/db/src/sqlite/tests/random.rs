//! Any schema, any rows, any pages and ranges: what comes is what one plain `SELECT` gives.

use proptest::prelude::*;
use rusqlite::types::{Value, ValueRef};

use super::values::cell;
use super::*;
use crate::Key;

/// How a table orders its rows; `k` and `l` are its key's columns.
#[derive(Clone, Copy, Debug)]
enum KeyShape {
    Alias,
    Rowid,
    Text(&'static str),
    Pair,
    WithoutRowid,
    Unproven,
}

const SHAPES: [KeyShape; 8] = [
    KeyShape::Alias,
    KeyShape::Rowid,
    KeyShape::Text("BINARY"),
    KeyShape::Text("NOCASE"),
    KeyShape::Text("RTRIM"),
    KeyShape::Pair,
    KeyShape::WithoutRowid,
    KeyShape::Unproven,
];

const DECLARED: [&str; 8] = ["INT", "REAL", "NUMERIC", "BOOLEAN", "TEXT", "BLOB", "DATETIME", ""];

impl KeyShape {
    fn columns(self) -> String {
        match self {
            Self::Alias => "k INTEGER PRIMARY KEY, l TEXT".into(),
            Self::Rowid => "k INT, l TEXT".into(),
            Self::Text(collation) => format!("k TEXT COLLATE {collation} PRIMARY KEY, l TEXT"),
            Self::Pair | Self::WithoutRowid => {
                "k INT NOT NULL, l TEXT NOT NULL, PRIMARY KEY (k, l)".into()
            }
            Self::Unproven => "k NOT NULL, l NOT NULL".into(),
        }
    }

    fn order(self) -> &'static str {
        match self {
            Self::Alias | Self::Text(_) => "k",
            Self::Rowid => "rowid",
            Self::Pair | Self::WithoutRowid | Self::Unproven => "k, l",
        }
    }

    /// The key's values in a row, by some number and text; those that are there already are left out.
    fn key(self, number: i64, text: &str) -> (Value, Value) {
        let text = Value::Text(text.to_owned());
        match self {
            Self::Text(_) => (text.clone(), text),
            Self::Unproven if number % 3 == 0 => (Value::Real(number as f64 / 2.0), text),
            Self::Unproven if number % 3 == 1 => (text.clone(), text),
            _ => (Value::Integer(number), text),
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    shape: KeyShape,
    declared: Vec<&'static str>,
    rows: Vec<(i64, String, Vec<Value>)>,
    mismatch: Mismatch,
    rows_max: usize,
    bytes_max: usize,
    page_rows_max: usize,
    /// Where the rows are cut into ranges, as shares of them.
    cuts: Vec<prop::sample::Index>,
    filter: bool,
    query: bool,
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(Value::Null),
        2 => (-2_i64..3).prop_map(Value::Integer),
        1 => any::<i64>().prop_map(Value::Integer),
        2 => any::<f64>().prop_map(Value::Real),
        2 => "\\PC{0,12}".prop_map(Value::Text),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Value::Blob),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let declared = prop::collection::vec(prop::sample::select(&DECLARED[..]), 0..5);
    let numbers = prop_oneof![-5_i64..20, any::<i64>()];
    let table =
        (prop::sample::select(&SHAPES[..]), declared).prop_flat_map(move |(shape, declared)| {
            let values = prop::collection::vec(value(), declared.len());
            let rows = prop::collection::vec((numbers.clone(), "[abAB ]{0,3}", values), 0..60);
            (Just(shape), Just(declared), rows)
        });
    let mismatch = prop::sample::select(&[Mismatch::Null, Mismatch::Text][..]);
    let sizes = (1_usize..30, 1_usize..2000, 1_usize..30);
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (table, mismatch, sizes, cuts, any::<bool>(), any::<bool>()).prop_map(
        |((shape, declared, rows), mismatch, sizes, cuts, filter, query)| {
            let (rows_max, bytes_max, page_rows_max) = sizes;
            Case {
                shape,
                declared,
                rows,
                mismatch,
                rows_max,
                bytes_max,
                page_rows_max,
                cuts,
                filter,
                query,
            }
        },
    )
}

impl Case {
    fn file(&self) -> File {
        let mut columns = self.shape.columns();
        // The table's constraints are its last words.
        let constraint = columns.find(", PRIMARY").map(|at| columns.split_off(at));
        for (index, declared) in self.declared.iter().enumerate() {
            columns.push_str(&format!(", c{index} {declared}"));
        }
        columns.push_str(&constraint.unwrap_or_default());
        let ending =
            if matches!(self.shape, KeyShape::WithoutRowid) { " WITHOUT ROWID" } else { "" };
        let file = File::new(&format!("CREATE TABLE t ({columns}){ending}"));
        if matches!(self.shape, KeyShape::Unproven) {
            file.execute("CREATE UNIQUE INDEX i ON t (k, l) WHERE 1");
        }
        file.execute("BEGIN");
        for (number, text, values) in &self.rows {
            let (k, l) = self.shape.key(*number, text);
            let places = vec!["?"; 2 + values.len()].join(", ");
            let values = [k, l].into_iter().chain(values.iter().cloned());
            let sql = format!("INSERT OR IGNORE INTO t VALUES ({places})");
            file.writer.execute(&sql, rusqlite::params_from_iter(values)).unwrap();
        }
        file.execute("COMMIT");
        file
    }

    fn reading(&self) -> Reading {
        let rowid = if matches!(self.shape, KeyShape::Rowid) { ", rowid AS place" } else { "" };
        let reading = match self.query {
            true => query(&format!("SELECT *{rowid} FROM t -- all")),
            false => table("t"),
        };
        let reading = match self.shape {
            KeyShape::Unproven => keyed(reading, &["k", "l"]),
            _ => reading,
        };
        if self.filter { filtered(reading, "l <> 'a' OR k > 3") } else { reading }
    }

    /// What one plain `SELECT` gives.
    fn expected(&self, file: &File) -> Vec<Vec<Option<String>>> {
        let filter = if self.filter { "WHERE (l <> 'a' OR k > 3)" } else { "" };
        let sql = format!("SELECT * FROM t {filter} ORDER BY {}", self.shape.order());
        let mut statement = file.writer.prepare(&sql).unwrap();
        let types = Vec::from_iter(
            statement
                .columns()
                .map(|column| column.decl_type().map(str::to_owned).unwrap_or_default()),
        );
        let mut rows = statement.query([]).unwrap();
        let mut all = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let cells = types.iter().enumerate().map(|(index, declared)| {
                let is_alias = index == 0 && matches!(self.shape, KeyShape::Alias);
                let is_text = self.mismatch == Mismatch::Text && !is_alias;
                let declared = if is_text { "" } else { declared.as_str() };
                expected(declared, row.get_ref(index).unwrap())
            });
            all.push(cells.collect());
        }
        all
    }

    async fn check(&self) {
        let file = self.file();
        let database = file.database().mismatch(self.mismatch);
        let found = database.describe(&self.reading(), Consistency::Pages).await.unwrap();
        let (whole, error) = read(&mut self.stream(&found, Range::default())).await;
        assert!(error.is_none(), "{error:?}");
        let (whole, keys) = self.cells(&whole);
        assert_eq!(whole, self.expected(&file));
        // Any keys cut the rows into ranges that are all of them.
        let mut cuts = Vec::from_iter(self.cuts.iter().filter(|_| !keys.is_empty()));
        cuts.sort_unstable_by_key(|cut| cut.index(keys.len()));
        let cuts = Vec::from_iter(cuts.into_iter().map(|cut| cut.get(&keys).clone()));
        let own = found.split(4).await.unwrap();
        for cuts in [cuts, own] {
            let mut after = None;
            let mut all = Vec::new();
            for until in cuts.into_iter().map(Some).chain([None]) {
                let range = Range { after, until: until.clone() };
                let (rows, error) = read(&mut self.stream(&found, range)).await;
                assert!(error.is_none(), "{error:?}");
                all.extend(self.cells(&rows).0);
                after = until;
            }
            assert_eq!(all, whole);
        }
    }

    fn stream(&self, table: &Arc<Table>, range: Range) -> CursorStream {
        let Self { rows_max, bytes_max, page_rows_max, .. } = *self;
        let columns = (0..2 + self.declared.len()).collect();
        let options = Options { columns, rows_max, bytes_max, ..options(table, page_rows_max) };
        Arc::clone(table).stream(range, options)
    }

    /// All cells, and the keys at the ends of batches, which are as small as they must be.
    fn cells(&self, rows: &[Rows]) -> (Vec<Vec<Option<String>>>, Vec<Key>) {
        let mut all = Vec::new();
        for Rows { batch, bytes, .. } in rows {
            assert!(
                batch.num_rows() > 0 && batch.num_rows() <= self.rows_max.min(self.page_rows_max)
            );
            assert!(batch.num_rows() == 1 || *bytes <= self.bytes_max as u64, "{bytes}");
            for row in 0..batch.num_rows() {
                all.push((0..batch.num_columns()).map(|column| cell(batch, column, row)).collect());
            }
        }
        (all, rows.iter().map(|rows| rows.last.clone()).collect())
    }
}

/// A value by its column's type, where what is of another one is null; in words of its own.
fn expected(declared: &str, value: ValueRef<'_>) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    let exact = |value: i64| (value as f64 as i128 == i128::from(value)).then_some(value as f64);
    match (declared, value) {
        ("INT" | "INTEGER", ValueRef::Integer(value)) => Some(value.to_string()),
        ("REAL" | "NUMERIC", ValueRef::Real(value)) => Some(format!("{value:?}")),
        ("REAL" | "NUMERIC", ValueRef::Integer(value)) => exact(value).map(|it| format!("{it:?}")),
        ("BOOLEAN", ValueRef::Integer(value @ 0..=1)) => Some((value == 1).to_string()),
        ("TEXT" | "DATETIME" | "", ValueRef::Text(value)) => Some(text(value)),
        ("BLOB", ValueRef::Blob(value)) => Some(format!("{value:x?}")),
        ("DATETIME" | "", ValueRef::Integer(value)) => Some(value.to_string()),
        ("DATETIME" | "", ValueRef::Real(value)) => Some(match value {
            f64::INFINITY => "Inf".to_owned(),
            f64::NEG_INFINITY => "-Inf".to_owned(),
            value => zmij::Buffer::new().format(value).to_owned(),
        }),
        ("DATETIME" | "", ValueRef::Blob(value)) => Some(format!("X'{}'", hex(value))),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn pages_and_ranges_are_what_one_select_gives(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(case.check());
    }
}
