//! The source of a SQLite file's rows: where it goes on, how it numbers rows, what it waits for.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};
use futures::StreamExt;
use rusqlite::Connection;
use tempfile::TempDir;
use tidegate_components::sources::SOURCES;
use tidegate_model::{ErrorKind, OFFSET, Settings, Source};

use super::support::Probe;

const TABLES: &str = "
CREATE TABLE plain (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE keyless (id INT, name TEXT);
CREATE TABLE named (name TEXT PRIMARY KEY NOT NULL, id INT) WITHOUT ROWID;
CREATE TABLE mixed (k NOT NULL UNIQUE, id INT);
WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 500)
INSERT INTO plain SELECT value * 3 - 600, 'name ' || value FROM n;
INSERT INTO keyless SELECT id, name FROM plain;
INSERT INTO named SELECT name, id FROM plain;
INSERT INTO mixed SELECT CASE abs(id) % 2 WHEN 0 THEN id ELSE name END, id FROM plain;
";

/// A database with these tables, and a connection that may write to it.
struct Database {
    folder: TempDir,
    writer: Connection,
}

impl Database {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let writer = Connection::open(folder.path().join("app.db")).unwrap();
        writer.execute_batch(TABLES).unwrap();
        Self { folder, writer }
    }

    fn settings(&self, more: &str) -> String {
        format!("path = {:?}\n{more}", self.folder.path().join("app.db"))
    }

    fn probe(&self, more: &str) -> Probe {
        let fields = vec![
            Field::new("id", DataType::Int64, true),
            Field::new(OFFSET, DataType::UInt64, false),
        ];
        let columns = Arc::new(Schema::new(fields));
        Probe { columns, ..Probe::once("sqlite", self.settings(more)) }
    }

    fn source(&self, more: &str) -> Box<dyn Source> {
        let spec = SOURCES.iter().find(|(name, _)| *name == "sqlite").unwrap().1;
        (spec.build)(&Settings::from_toml(&self.settings(more)).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn rows_are_the_same_and_have_the_same_offsets_after_a_restart_anywhere() {
    let database = Database::new();
    for table in ["plain\"", "keyless\"", "named\"", "mixed\"\nkey = [\"k\"]"] {
        let settings = format!("table = \"{table}\npage_rows = 40");
        let mut whole = database.probe(&settings);
        whole.drain().await.unwrap();
        assert_eq!(whole.rows.len(), 500, "{table}");
        let mut pieces = Probe { rows_max: 7, ..database.probe(&settings) };
        loop {
            let mut stream = pieces.open().await;
            let Some(batch) = stream.next().await else { break };
            pieces.take(&batch.unwrap());
        }
        assert_eq!(pieces.rows, whole.rows, "{table}");
        assert_eq!(whole.budget.usage().used, 0);
    }
}

#[tokio::test]
async fn offsets_follow_from_keys_that_are_integers_and_are_counted_else() {
    let database = Database::new();
    let offsets = async |table| {
        let mut probe = database.probe(table);
        probe.drain().await.unwrap();
        Vec::from_iter(probe.rows.iter().map(|row| row.offset))
    };
    let middle = (1 << 63) - 1;
    assert_eq!(offsets("table = \"plain\"").await[..2], [middle - 597, middle - 594]);
    assert_eq!(
        offsets("table = \"keyless\"").await[..2],
        [middle + 1, middle + 2],
        "those of its rowids"
    );
    assert_eq!(offsets("table = \"named\"").await[..2], [0, 1]);
    let mixed = offsets("table = \"mixed\"\nkey = [\"k\"]").await;
    assert_eq!(mixed[..2], [0, 1], "though its first keys are integers");
}

#[tokio::test]
async fn two_rows_in_the_place_of_one_are_refused() {
    let database = Database::new();
    database.writer.execute_batch("CREATE TABLE least (id INTEGER PRIMARY KEY)").unwrap();
    for id in [i64::MIN, i64::MIN + 1, i64::MIN + 2] {
        database.writer.execute("INSERT INTO least VALUES (?)", [id]).unwrap();
    }
    for page_rows in [1, 3] {
        let settings = format!("table = \"least\"\npage_rows = {page_rows}");
        let error = database.probe(&settings).drain().await.unwrap_err();
        assert!(error.to_string().contains("have the same offset"), "{error}");
    }
    let mut rest =
        database.probe(&format!("table = \"least\"\npage_rows = 1\nwhere = \"id > {}\"", i64::MIN));
    rest.drain().await.unwrap();
    assert_eq!(rest.rows.len(), 2);
}

#[tokio::test]
async fn ranges_are_partitions_that_are_all_of_it() {
    let database = Database::new();
    let settings = "table = \"plain\"\nworkers = 4\npage_rows = 10";
    let mut whole = database.probe("table = \"plain\"");
    whole.drain().await.unwrap();
    let mut probe = Probe { rows_max: 9, ..database.probe(settings) };
    // Cut off in the middle, and gone on with.
    let mut stream = probe.open().await;
    for _ in 0..10 {
        let batch = stream.next().await.unwrap().unwrap();
        probe.take(&batch);
    }
    drop(stream);
    probe.drain().await.unwrap();
    assert_eq!(probe.positions.len(), 4);
    let mut offsets = Vec::from_iter(probe.rows.iter().map(|row| row.offset));
    offsets.sort_unstable();
    assert_eq!(offsets, Vec::from_iter(whole.rows.iter().map(|row| row.offset)));
}

#[tokio::test(start_paused = true)]
async fn it_asks_again_for_rows_behind_the_last_one() {
    let database = Database::new();
    let settings = "table = \"plain\"\npoll_interval = \"1s\"";
    let mut probe = Probe { once: false, ..database.probe(settings) };
    let mut stream = probe.open().await;
    probe.settle(&mut stream).await;
    assert_eq!(probe.rows.drain(..).len(), 500);
    let insert = "INSERT INTO plain VALUES (5000, 'behind'), (-5000, 'before')";
    database.writer.execute_batch(insert).unwrap();
    probe.settle(&mut stream).await;
    assert_eq!(Vec::from_iter(probe.rows.iter().map(|row| row.offset)), [(1 << 63) + 4999]);
}

#[tokio::test]
async fn its_columns_are_those_of_the_table_and_no_rowid() {
    let database = Database::new();
    let mut source = database.source("table = \"keyless\"");
    assert_eq!(source.schema(), None);
    source.prepare().await.unwrap();
    let schema = source.schema().unwrap();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    assert_eq!(Vec::from_iter(names), ["id", "name"]);
}

#[tokio::test]
async fn a_lock_may_go_and_a_mistake_stays() {
    let database = Database::new();
    let kind = async |more: &str| {
        let error = database.source(more).prepare().await.unwrap_err();
        (error.kind(), error.to_string())
    };
    let (missing, said) = kind("table = \"nothing\"").await;
    assert!(missing == ErrorKind::Fatal && said.contains("there is no table"), "{said}");
    database.writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (locked, said) = kind("table = \"plain\"").await;
    assert!(locked == ErrorKind::Disconnected && said.contains("locked"), "{said}");
}
