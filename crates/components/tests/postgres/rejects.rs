//! Rows that a table does not take: each is named with the reason, and all others go in.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use tidegate_model::ErrorKind;
use tidegate_testkit::postgres::{Postgres, Version};

use crate::support::{Memory, end, opened, rows, server};

/// Rows of two columns.
fn pairs(rows: &[(Option<i64>, Option<&str>)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let texts: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>());
    RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("v", texts, true)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn whatever_a_table_has_against_rows_is_said_of_each() {
    for version in Version::all() {
        let server = Postgres::of(version).start();
        server.psql(
            "CREATE TABLE parents (id bigint PRIMARY KEY);
             INSERT INTO parents VALUES (1), (2), (3), (4), (5), (6), (7), (8);
             CREATE TABLE t (
               id integer PRIMARY KEY REFERENCES parents CHECK (id <> 3),
               v varchar(5) NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED,
               same integer GENERATED ALWAYS AS (id * 2) STORED);
             CREATE FUNCTION check_v() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN IF NEW.v = 'raise' THEN RAISE 'never'; END IF; RETURN NEW; END $$;
             CREATE TRIGGER check_v BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION check_v();",
        );
        let rows = pairs(&[
            (Some(1), Some("a")),
            (Some(1), Some("b")), // primary key
            (Some(9), Some("c")), // foreign key
            (Some(2), Some("d")),
            (Some(3), Some("e")), // check
            (Some(4), None),      // not null
            (Some(4), Some("too long")),
            (Some(5), Some("a")),       // unique, deferred
            (Some(1 << 40), Some("f")), // out of range
            (Some(6), Some("g\0")),     // NUL
            (Some(6), Some("raise")),   // a trigger
            (None, Some("h")),
            (Some(7), Some("i")),
        ]);
        let records = Arc::new(Memory::default());
        let (mut sink, _) = opened(&server, &rows.schema(), &records).await;
        let written = sink.write(&rows).await.unwrap();
        sink.commit(&[end(13)]).await.unwrap();
        assert_eq!(server.psql("SELECT id, v FROM t ORDER BY id"), "1|a\n2|d\n7|i");
        let said = [
            (1, "duplicate key value violates unique constraint \"t_pkey\"; Key (id)=(1) already"),
            (
                2,
                "insert or update on table \"t\" violates foreign key constraint \"t_id_fkey\"; Key",
            ),
            (4, "new row for relation \"t\" violates check constraint \"t_id_check\"; Failing row"),
            (5, "null value in column \"v\" of relation \"t\" violates not-null constraint"),
            (6, "value too long for type character varying(5) (22001)"),
            (7, "duplicate key value violates unique constraint \"t_v_key\"; Key (v)=(a) already"),
            (8, "id integer: 1099511627776 is out of its range"),
            (9, "v character varying(5): \"g\\0\" has a NUL, which text of Postgres can't have"),
            (10, "never (P0001)"),
            (11, "null value in column \"id\" of relation \"t\" violates not-null constraint"),
        ];
        assert_eq!(written.rejected.len(), said.len(), "{written:#?}");
        for ((row, reason), (expected, beginning)) in written.rejected.iter().zip(said) {
            assert_eq!(*row, expected, "{reason}");
            assert!(reason.starts_with(beginning), "{reason}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_few_bad_rows_among_many_cost_little_and_the_rest_goes_in() {
    let server = server();
    server.psql("CREATE UNIQUE INDEX ON t (id); INSERT INTO t VALUES (77, 'x'), (4000, 'x')");
    let records = Arc::new(Memory::default());
    let (mut sink, _) = opened(&server, &rows(0..1).schema(), &records).await;
    sink.write(&rows(10_000..20_000)).await.unwrap();
    let written = sink.write(&rows(0..8_192)).await.unwrap();
    let bad: Vec<_> = written.rejected.iter().map(|(row, _)| *row).collect();
    assert_eq!(bad, [77, 4_000]);
    // What is kept is without them.
    server.terminate_backends();
    sink.write(&rows(20_000..20_001)).await.unwrap();
    sink.commit(&[end(1)]).await.unwrap();
    assert_eq!(server.psql("SELECT count(*), count(DISTINCT id) FROM t"), "18193|18193");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_batch_of_nothing_but_bad_rows_is_rejected_as_a_whole() {
    let server = server();
    for constraint in ["CHECK (id < 0)", "REFERENCES p"] {
        server.psql(
            "DROP TABLE IF EXISTS t, p; CREATE TABLE p (id bigint PRIMARY KEY);
             CREATE TABLE t (id bigint, v text)",
        );
        let bad = constraint.replace("REFERENCES", "ADD FOREIGN KEY (id) REFERENCES");
        server.psql(&format!("ALTER TABLE t {}", bad.replace("CHECK", "ADD CHECK")));
        let records = Arc::new(Memory::default());
        let (mut sink, _) = opened(&server, &rows(0..1).schema(), &records).await;
        let written = sink.write(&rows(0..2_000)).await.unwrap();
        let bad: Vec<_> = written.rejected.iter().map(|(row, _)| *row).collect();
        assert_eq!(bad, Vec::from_iter(0..2_000));
        sink.commit(&[end(2_000)]).await.unwrap();
        assert_eq!(server.psql("SELECT count(*) FROM t"), "0");
        assert_eq!(server.psql("SELECT \"end\" FROM tidegate_delivered WHERE input <> ''"), "2000");
        server.psql("DROP TABLE tidegate_delivered");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_value_of_any_length_is_rejected_in_few_words() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id bigint, v inet)");
    let long = "1".repeat(20 << 20);
    let rows = pairs(&[(Some(1), Some("::1")), (Some(2), Some(&long)), (Some(3), Some("::3"))]);
    let (mut sink, _) = opened(&server, &rows.schema(), &Arc::default()).await;
    let written = sink.write(&rows).await.unwrap();
    let [(1, reason)] = &*written.rejected else { panic!("{} rows", written.rejected.len()) };
    assert!(reason.starts_with("invalid input syntax for type inet: \"1111"), "{reason}");
    assert!(reason.len() < 600 && reason.ends_with("… (22P02)"), "{reason}");
    sink.commit(&[end(3)]).await.unwrap();
    assert_eq!(server.psql("SELECT id, v FROM t"), "1|::1\n3|::3");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn no_row_is_taken_for_another() {
    let server = Postgres::start();
    server.psql(
        "CREATE SEQUENCE three MAXVALUE 3;
         CREATE TABLE t (id bigint, v text);
         ALTER TABLE t ALTER v SET STORAGE PLAIN;
         CREATE FUNCTION check_v() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF NEW.v = 'odd' THEN RAISE 'never' USING ERRCODE = '45000'; END IF;
              RETURN NEW; END $$;",
    );
    // What is stored together with others: the server names the last of them.
    let big = "x".repeat(9_000);
    let mut values = vec![(Some(1), Some("a")); 100];
    values[7] = (Some(2), Some(&big));
    let records = Arc::new(Memory::default());
    let (mut sink, _) = opened(&server, &pairs(&values).schema(), &records).await;
    let written = sink.write(&pairs(&values)).await.unwrap();
    assert_eq!(written.rejected.len(), 1, "{written:?}");
    assert!(written.rejected[0].0 == 7 && written.rejected[0].1.starts_with("row is too big"));
    sink.commit(&[end(100)]).await.unwrap();
    assert_eq!(server.psql("SELECT count(*), max(id) FROM t"), "99|1");

    // A code of one's own.
    server
        .psql("CREATE TRIGGER check_v BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION check_v();");
    values[7] = (Some(2), Some("odd"));
    let written = sink.write(&pairs(&values)).await.unwrap();
    assert_eq!(written.rejected, [(7, "never (45000)".to_owned())]);

    // What is wrong with no row in particular rejects none.
    sink.commit(&[end(200)]).await.unwrap();
    server.psql("TRUNCATE t; ALTER TABLE t ADD number integer DEFAULT nextval('three')");
    let error = sink.write(&pairs(&values)).await.unwrap_err().to_string();
    assert!(error.contains("reached maximum value of sequence"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_server_that_takes_no_data_at_all_loses_no_row() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id bigint, v text, more integer DEFAULT 1 / 0)");
    let rows = pairs(&[(Some(1), Some("a")), (Some(2), Some("b"))]);
    let records = Arc::new(Memory::default());
    let (mut sink, _) = opened(&server, &rows.schema(), &records).await;
    let error = sink.write(&rows).await.unwrap_err();
    assert!(error.to_string().contains("table: ") && error.to_string().contains("(22012)"));
    assert_eq!(error.kind(), ErrorKind::Fatal, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn what_the_server_can_not_read_as_text_is_rejected_too() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id bigint, v inet)");
    let rows = pairs(&[
        (Some(1), Some("10.0.0.1")),
        (Some(2), Some("COPY t, line 1")),
        (None, None),
        (Some(4), Some("::1/64")),
    ]);
    let records = Arc::new(Memory::default());
    let (mut sink, _) = opened(&server, &rows.schema(), &records).await;
    let written = sink.write(&rows).await.unwrap();
    let reason = "invalid input syntax for type inet: \"COPY t, line 1\" (22P02)".to_owned();
    assert_eq!(written.rejected, [(1, reason)]);
    sink.commit(&[end(4)]).await.unwrap();
    assert_eq!(server.psql("SELECT id, v FROM t"), "1|10.0.0.1\n|\n4|::1/64");

    // What the server would round is no more taken as text than in binary.
    let exact = 9_007_199_254_740_993;
    let rows = pairs(&[(Some(exact), Some("::1")), (Some(exact - 1), Some("::2"))]);
    for kind in ["inet", "text"] {
        server.psql(&format!("DROP TABLE t; CREATE TABLE t (id double precision, v {kind})"));
        let records = Arc::new(Memory::default());
        let (mut sink, _) = opened(&server, &rows.schema(), &records).await;
        let written = sink.write(&rows).await.unwrap();
        let reason = "id double precision: 9007199254740993 is out of its range".to_owned();
        assert_eq!(written.rejected, [(0, reason)], "{kind}");
        sink.commit(&[end(2)]).await.unwrap();
        assert_eq!(server.psql("SELECT id::bigint FROM t"), (exact - 1).to_string());
    }
}
