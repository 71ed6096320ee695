//! CSV files: their header, their dialects, and crashes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use tempfile::tempdir;
use tidegate_components::sinks::SINKS;
use tidegate_model::{Settings, Sink};
use tidegate_testkit::postgres::Postgres;

use crate::memory::{Memory, context_of, delivered, sink};

/// A sink that is open, of a file with these further settings.
async fn opened(
    path: &Path,
    options: &str,
    records: &Arc<Memory>,
    rows: &RecordBatch,
) -> Box<dyn Sink> {
    let settings = format!("path = '{}'\ncodec = \"csv\"\n{options}", path.display());
    let mut sink = sink("file", &settings);
    sink.open(context_of(records, &rows.schema())).await.unwrap();
    sink
}

fn rows(first: &str, ids: &[Option<i64>], texts: &[Option<&str>]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    RecordBatch::try_from_iter_with_nullable([(first, ids, true), ("a, b", texts, true)]).unwrap()
}

#[tokio::test]
async fn a_header_is_written_once_whatever_happens() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.csv");
    let records = Arc::new(Memory::default());
    let one = rows("id", &[Some(1)], &[Some("x")]);
    let mut sink = opened(&path, "", &records, &one).await;
    sink.write(&one).await.unwrap();
    drop(sink); // before its first commit
    for end in 1..3 {
        let mut sink = opened(&path, "", &records, &one).await;
        sink.open(context_of(&records, &one.schema())).await.unwrap();
        sink.write(&one).await.unwrap();
        sink.commit(&[delivered(end)]).await.unwrap();
        sink.write(&one).await.unwrap();
    }
    drop(opened(&path, "", &records, &one).await);
    assert_eq!(fs::read_to_string(&path).unwrap(), "id,\"a, b\"\n1,x\n1,x\n");
}

#[tokio::test]
async fn a_file_has_a_header_without_rows_and_none_behind_those_of_others() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.csv");
    let one = rows("id", &[Some(1)], &[Some("x")]);
    for (before, options, after) in
        [("", "", "id,\"a, b\"\n"), ("", "csv = { header = false }", ""), ("7,y\n", "", "7,y\n")]
    {
        fs::write(&path, before).unwrap();
        opened(&path, options, &Arc::default(), &one).await.close().await;
        assert_eq!(fs::read_to_string(&path).unwrap(), after);
    }
}

#[tokio::test]
async fn settings_of_csv_are_refused_with_another_codec() {
    let settings = "path = 'x'\ncodec = 'ndjson'\ncsv = { header = false }";
    let spec = SINKS.iter().find(|(known, _)| *known == "file").unwrap().1;
    let mistake = (spec.build)(&Settings::from_toml(settings).unwrap()).err().unwrap();
    assert!(mistake.help.unwrap().contains("codec = \"csv\""));
}

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn dialects_and_headers_are_as_postgres_has_them() {
    let server = Postgres::start();
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.csv");
    for (options, theirs) in [
        ("", ""),
        ("csv = { null = \"NULL\" }", ", null 'NULL'"),
        ("csv = { null = \"3\" }", ", null '3'"),
        ("csv = { delimiter = \"\\t\", quote = \"'\" }", ", delimiter E'\\t', quote ''''"),
        ("csv = { delimiter = \"-\", quote = \"1\" }", ", delimiter '-', quote '1'"),
    ] {
        let ids = [Some(-10), None, Some(3), Some(11)];
        let texts = [Some("NULL"), Some(""), Some("it's, \"so\"\t1-1"), None];
        for first in ["NULL", "3", "x\"y"] {
            let batch = rows(first, &ids, &texts);
            fs::write(&path, "").unwrap();
            let mut sink = opened(&path, options, &Arc::default(), &batch).await;
            sink.write(&batch).await.unwrap();
            sink.commit(&[]).await.unwrap();
            let query = format!(
                "COPY (SELECT * FROM (VALUES (-10, 'NULL'), (NULL, ''), \
                 (3, E'it''s, \"so\"\\t1-1'), (11, NULL)) AS rows (\"{}\", \"a, b\")) \
                 TO STDOUT (FORMAT csv, HEADER{theirs})",
                first.replace('"', "\"\"")
            );
            let ours = fs::read_to_string(&path).unwrap();
            assert_eq!(ours.trim_end_matches('\n'), server.psql(&query), "{options}, {first}");
        }
    }
}
