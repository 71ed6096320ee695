//! What a person has to do is said in one line.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, Float64Array, ListArray, RecordBatch};
use futures::future::join_all;
use tidegate_model::ErrorKind;
use tidegate_testkit::postgres::Postgres;

use crate::support::{Memory, end, open, rows, server};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn what_is_wrong_is_said_in_one_line() {
    let server = server();
    server.psql(
        "CREATE USER ann; CREATE SCHEMA hers; GRANT USAGE ON SCHEMA hers TO ann;
         CREATE TABLE hers.t (id bigint, v text); GRANT SELECT, INSERT ON hers.t TO ann;
         CREATE TABLE narrow (id bigint); CREATE TABLE other (id bigint, \"V\" text);
         CREATE TABLE typed (id date, v text); CREATE TABLE bytes (id bigint, v bytea);
         CREATE TABLE made (id bigint, v text GENERATED ALWAYS AS ('x') STORED);",
    );
    let numbers: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
    let lists: ArrayRef =
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]));
    let float = RecordBatch::try_from_iter([("id", numbers)]).unwrap().schema();
    let list = RecordBatch::try_from_iter([("id", lists)]).unwrap().schema();
    let plain = rows(0..1).schema();
    let (url, ann) = (server.url(), server.url_as(server.address(), "ann", None, "postgres"));
    let cases = [
        (
            &url,
            "absent",
            &plain,
            "table: there is no \"absent\": set `create = true` to have it made, \
          or make it: CREATE TABLE \"absent\" (\"id\" bigint NOT NULL, \"v\" text NOT NULL)",
        ),
        (
            &url,
            "narrow",
            &plain,
            "\"public\".\"narrow\" has no column `v`, only id: rename it in SQL",
        ),
        (&url, "other", &plain, "has no column `v`, but `V`: call it that in SQL: \"v\" AS \"V\""),
        (&url, "made", &plain, "computes its column `v` itself: leave it out in SQL"),
        (&url, "typed", &plain, "the column `id` of type date can't take Int64: convert it in SQL"),
        (&url, "bytes", &plain, "the column `v` of type bytea can't take Utf8: convert it in SQL"),
        (&url, "t", &float, "the column `id` of type bigint can't take Float64"),
        (&url, "t", &list, "the column `id` of type bigint can't take List"),
        (
            &ann,
            "t",
            &plain,
            "may not make a table there: have its owner run: CREATE TABLE IF NOT \
          EXISTS \"public\".\"tidegate_delivered\"",
        ),
        (&ann, "hers.t", &plain, "may not make a table there"),
    ];
    for (url, table, columns, said) in cases {
        let records = Arc::new(Memory::default());
        let settings = format!("table = '{table}'");
        let Err(error) = open(url, &settings, columns, &records).await else {
            panic!("{table} was opened");
        };
        let line = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Fatal, "{line}");
        assert!(line.contains(said) && !line.contains('\n'), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn rights_and_tables_that_go_end_it_by_name() {
    let server = server();
    server.psql(
        "CREATE USER ann; GRANT ALL ON SCHEMA public TO ann; GRANT SELECT ON t TO ann;
         CREATE TABLE gone (id bigint, v text)",
    );
    let ann = server.url_as(server.address(), "ann", None, "postgres");
    let columns = rows(0..1).schema();
    let records = Arc::new(Memory::default());
    let (mut sink, _) = open(&ann, "table = 't'", &columns, &records).await.unwrap();
    let error = sink.write(&rows(0..1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.to_string().contains("\"ann\" may not do that: grant it the right"), "{error}");
    let (mut sink, _) =
        open(&server.url(), "table = 'gone'", &columns, &Arc::new(Memory::default()))
            .await
            .unwrap();
    sink.write(&rows(0..1)).await.unwrap();
    sink.commit(&[end(1)]).await.unwrap();
    server.psql("DROP TABLE gone");
    let error = sink.write(&rows(1..2)).await.unwrap_err();
    assert!(
        error.to_string().starts_with("table: ") && error.kind() == ErrorKind::Fatal,
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_table_is_made_on_request_and_only_once() {
    let server = Postgres::start();
    let columns = rows(0..1).schema();
    let settings = "table = '\"Odd \"\"Name\"'\ncreate = true\nkey = ['id']";
    let records = Arc::new(Memory::default());
    for round in 0..2 {
        let (mut sink, _) = open(&server.url(), settings, &columns, &records).await.unwrap();
        sink.write(&rows(round..round + 1)).await.unwrap();
        sink.commit(&[end(1)]).await.unwrap();
    }
    let found = server.psql("SELECT id, v FROM \"Odd \"\"Name\" ORDER BY id");
    assert_eq!(found, "0|row 0\n1|row 1");
    let duplicate = server.try_psql("INSERT INTO \"Odd \"\"Name\" VALUES (1, 'x')");
    assert!(duplicate.unwrap_err().contains("duplicate key"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn tables_are_made_once_by_sinks_that_begin_at_one_time() {
    let server = Postgres::start();
    let (url, columns) = (server.url(), rows(0..1).schema());
    // What the server says of it goes by the moment.
    for _ in 0..30 {
        let opened = (0..8).map(async |_| {
            let records = Arc::new(Memory::default());
            open(&url, "table = 'shared'\ncreate = true", &columns, &records).await.map(drop)
        });
        for opened in join_all(opened).await {
            opened.unwrap();
        }
        server.psql("DROP TABLE shared, tidegate_delivered");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_column_that_gets_another_type_ends_it_before_anything_wrong_is_written() {
    let (server, records) = (server(), Arc::new(Memory::default()));
    let (mut sink, _) =
        open(&server.url(), "table = 't'", &rows(0..1).schema(), &records).await.unwrap();
    sink.write(&rows(0..5)).await.unwrap();
    sink.commit(&[end(5)]).await.unwrap();
    // The same eight bytes would be other numbers.
    server.psql("ALTER TABLE t ADD more text, ALTER id TYPE double precision");
    let error = sink.write(&rows(5..9)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    let said = "the columns of \"public\".\"t\" were changed since it was opened: start again";
    assert!(error.to_string().contains(said), "{error}");
    assert_eq!(server.psql("SELECT count(*), max(id) FROM t"), "5|4");
}
