//! What is read, in which order, and what is refused.

use tidegate_db::{Key, KeyValue, Kind, Range, Reading, Relation};
use tidegate_testkit::postgres::{Postgres, Version};

use crate::support::{all_ids, describe, keyed, next, options, query, table};

const TABLES: &str = "
CREATE TABLE plain (id bigint PRIMARY KEY, name text, at timestamptz);
INSERT INTO plain SELECT g, 'name ' || g, now() FROM generate_series(1, 1000) AS g;
CREATE TABLE pair (b int, a text COLLATE \"C\", id bigint, PRIMARY KEY (a, b));
INSERT INTO pair SELECT g % 7, 'k' || g / 7, g FROM generate_series(0, 999) AS g;
CREATE TABLE keyless (id bigint, name text);
INSERT INTO keyless SELECT g / 2, 'n' FROM generate_series(0, 9) AS g;
CREATE TABLE holes (id bigint UNIQUE, name text);
INSERT INTO holes VALUES (1, 'a'), (NULL, 'b');
CREATE TABLE \"Odd \"\"Name\"\"\" (\"order\" uuid PRIMARY KEY DEFAULT gen_random_uuid(), id bigint);
INSERT INTO \"Odd \"\"Name\"\"\" (id) SELECT g FROM generate_series(1, 500) AS g;
CREATE TABLE parts (id bigint PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
INSERT INTO parts SELECT g FROM generate_series(0, 199) AS g;
CREATE VIEW seen AS SELECT id, name FROM plain;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE moods (m mood PRIMARY KEY, id bigint);
INSERT INTO moods VALUES ('happy', 3), ('sad', 1), ('ok', 2);
ANALYZE;
";

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn rows_come_in_the_order_of_the_key_whatever_the_pages() {
    for version in Version::all() {
        let server = Postgres::of(version).start();
        server.psql(TABLES);
        let thousand: Vec<i64> = (1..=1000).collect();
        for page in [1, 7, 1000, 20_000] {
            let plain = describe(&server.url(), &table("plain")).await.unwrap();
            assert_eq!(all_ids(&plain, Range::default(), page).await, thousand, "{page}");
        }
        let pair = describe(&server.url(), &table("pair")).await.unwrap();
        let by_text = server.psql("SELECT id FROM pair ORDER BY a, b");
        let by_text: Vec<i64> = by_text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(all_ids(&pair, Range::default(), 13).await, by_text);
        for (reading, rows) in [
            (table("public.\"Odd \"\"Name\"\"\""), 500),
            (table("parts"), 200),
            (table("moods"), 3),
            (query("SELECT id, lower(name) AS n FROM plain WHERE id > 10; "), 990),
            (query("SELECT id FROM plain -- to the end"), 1000),
            (query("SELECT DISTINCT id FROM plain"), 1000),
            (query("SELECT id, (SELECT count(*) FROM pair LIMIT 1) AS n FROM plain"), 1000),
            (keyed(table("seen"), &["id"]), 1000),
            (keyed(query("SELECT p.id, q.a FROM plain p JOIN pair q USING (id)"), &["id"]), 999),
            (keyed(query("SELECT count(*) AS id, b FROM pair GROUP BY b"), &["b"]), 7),
            (Reading { filter: Some("id <= 5 OR id = 9".into()), ..table("plain") }, 6),
        ] {
            let found = describe(&server.url(), &reading).await.unwrap();
            let ids = all_ids(&found, Range::default(), 10).await;
            assert_eq!(ids.len(), rows, "{reading:?}");
        }
    }
}

/// Of a relation with the column `id`, in so many parts that there are cuts of a text, or none.
async fn check_ranges(server: &Postgres, reading: &Reading) {
    let found = describe(&server.url(), reading).await.unwrap();
    let whole = all_ids(&found, Range::default(), 50).await;
    for parts in [1, 2, 4, 9] {
        let cuts = found.split(parts).await.unwrap();
        assert!(cuts.len() < parts.max(2), "{cuts:?}");
        let mut all = Vec::new();
        for range in Range::between(&cuts) {
            let ids = all_ids(&found, range, 50).await;
            assert!(cuts.is_empty() || ids.len() < whole.len(), "{reading:?}");
            all.extend(ids);
        }
        assert_eq!(all, whole, "{reading:?} in {parts}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn ranges_are_all_of_it_and_nothing_twice() {
    let server = Postgres::start();
    server.psql(TABLES);
    for reading in [table("plain"), table("pair"), table("moods"), keyed(table("seen"), &["id"])] {
        check_ranges(&server, &reading).await;
    }
    let plain = describe(&server.url(), &table("plain")).await.unwrap();
    assert_eq!(plain.split(4).await.unwrap().len(), 3);
}

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn rows_of_any_type_of_key_are_cut_by_the_statistics() {
    for version in Version::all() {
        let server = Postgres::of(version).start();
        // Not every server is built with ICU.
        let collation = server.psql(
        "SELECT quote_ident(coalesce(max(collname), 'C')) FROM pg_collation WHERE collname = 'en-x-icu'",
    );
        let collated = format!("text COLLATE {collation}");
        let domain = format!("word COLLATE {collation}");
        server.psql(
            "CREATE DOMAIN word AS text COLLATE \"C\" CHECK (length(value) < 9);
             CREATE EXTENSION citext;",
        );
        for (kind, value) in [
            (collated.as_str(), "(CASE g % 2 WHEN 0 THEN 'it''s, ' ELSE 'IT\"S ' END) || g"),
            ("word", "'w' || g"),
            (domain.as_str(), "(CASE g % 2 WHEN 0 THEN 'a' ELSE 'B' END) || g"),
            ("citext", "(CASE g % 2 WHEN 0 THEN 'a' ELSE 'B' END) || g"),
            ("varchar(5)", "'v' || g"),
            ("char(9)", "'c' || g"),
            ("name", "'n' || g"),
            ("oid", "g"),
            ("numeric(12, 2)", "g / 7.0 - 40"),
            ("float4", "g / 7.0 - 40"),
            ("timestamptz", "timestamptz '2020-01-01' + g * interval '1 hour'"),
            ("interval", "g * interval '1 hour'"),
            ("uuid", "gen_random_uuid()"),
            ("bytea", "decode(md5(g::text), 'hex')"),
            ("inet", "inet '10.0.0.0' + g"),
            ("bit(12)", "g::bit(12)"),
            ("int[]", "ARRAY[g % 10, g]"),
        ] {
            server.psql(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (k {kind} PRIMARY KEY, id bigint);
                 INSERT INTO t SELECT {value}, g FROM generate_series(1, 1000) AS g; ANALYZE t;"
            ));
            check_ranges(&server, &table("t")).await;
            let found = describe(&server.url(), &table("t")).await.unwrap();
            assert_eq!(found.split(4).await.unwrap().len(), 3, "{kind}");
        }
    }
}

/// Bounds in another order than the column's, as an older collation leaves them.
const STALE: &str = "
CREATE TABLE stale (k text COLLATE \"C\" PRIMARY KEY, id bigint);
INSERT INTO stale SELECT (CASE g % 2 WHEN 0 THEN 'a' ELSE 'B' END) || lpad(g::text, 4, '0'), g
  FROM generate_series(1, 1000) AS g;
ANALYZE stale;
SELECT pg_restore_attribute_stats('schemaname', 'public', 'relname', 'stale', 'attname', 'k',
  'inherited', false, 'version', 180000, 'null_frac', 0::real, 'avg_width', 6, 'n_distinct', -1::real,
  'histogram_bounds',
  (SELECT array_agg(k ORDER BY substr(k, 2))::text FROM stale WHERE id % 7 = 0));
";

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn ranges_ascend_where_the_statistics_do_not() {
    let server = Postgres::of(Version::V18).start();
    server.psql(STALE);
    let bounds = "SELECT bound FROM (SELECT unnest(histogram_bounds::text::text[]) AS bound
        FROM pg_stats WHERE tablename = 'stale' AND attname = 'k') AS bounds";
    assert_ne!(server.psql(bounds), server.psql(&format!("{bounds} ORDER BY bound COLLATE \"C\"")));
    check_ranges(&server, &table("stale")).await;
    let found = describe(&server.url(), &table("stale")).await.unwrap();
    assert_eq!(found.split(4).await.unwrap().len(), 3);
}

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn only_what_is_asked_for_is_read_and_each_row_says_where_it_is() {
    let server = Postgres::start();
    server.psql(TABLES);
    let plain = describe(&server.url(), &table("plain")).await.unwrap();
    let mut options = options(&*plain, 100);
    options.columns = vec![1];
    options.rows_max = 30;
    let after = Some(Key(vec![KeyValue::Int(990)]));
    let range = Range { after, until: Some(Key(vec![KeyValue::Int(995)])) };
    let holder = std::sync::Arc::clone(&options.holder);
    let mut stream = std::sync::Arc::clone(&plain).stream(range, options);
    let rows = next(&mut stream).await.unwrap().unwrap();
    assert_eq!((rows.batch.num_rows(), rows.batch.num_columns()), (5, 1));
    assert_eq!(rows.last, Key(vec![KeyValue::Int(995)]));
    assert_eq!(rows.numbers.last().copied(), rows.last.number());
    assert!(rows.numbers.is_sorted() && holder.held() > 0);
    assert!(next(&mut stream).await.is_none());
    drop((rows, stream));
    assert_eq!(holder.held(), 0);
}

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn what_could_leave_rows_out_is_refused_with_the_remedy() {
    let server = Postgres::start();
    server.psql(TABLES);
    for (reading, said) in [
        (table("keyless"), "no primary key"),
        (table("seen"), "no primary key"),
        (table("nothing"), "there is no such table"),
        (table("plain; DROP TABLE plain"), "invalid name syntax"),
        (query("SELECT p.id FROM plain p, pair"), "more than one plain table"),
        (query("SELECT id, unnest(ARRAY[1, 2]) FROM plain"), "more than one plain table"),
        (query("SELECT id FROM plain UNION ALL SELECT id FROM plain"), "more than one plain table"),
        (query("SELECT name FROM plain"), "no primary key"),
        (query("SELECT id FROM plain LIMIT 5"), "LIMIT or OFFSET"),
        (query("SELECT id FROM plain OFFSET 5"), "LIMIT or OFFSET"),
        (query("SELECT id FROM plain TABLESAMPLE BERNOULLI (10)"), "TABLESAMPLE"),
        (query("SELECT id, random() AS r FROM plain"), "random()"),
        (query("SELECT id FROM plain WHERE id = $1"), "parameter"),
        (query("SELECT id, id FROM plain"), "two columns \"id\""),
        (query("SELECT id FROM plain; SELECT 1"), "multiple commands"),
        (query("DELETE FROM plain"), "no rows"),
        (query("  ;"), "empty"),
        (query("SELECT FROM plain"), "no columns"),
        (keyed(table("holes"), &["id"]), "has a null"),
        (keyed(table("plain"), &["ID"]), "no column \"ID\""),
        (keyed(table("plain"), &["id", "id"]), "twice"),
        (keyed(table("plain"), &[]), "no column"),
        (keyed(query("SELECT '{}'::json AS j"), &["j"]), "ordering operator"),
        (Reading { filter: Some("no_such = 1".into()), ..table("plain") }, "no_such"),
        (Reading { filter: Some("1 = 1) OR (true".into()), ..table("plain") }, "syntax error"),
    ] {
        let error = describe(&server.url(), &reading).await.err();
        let error = error.unwrap_or_else(|| panic!("{reading:?} is taken"));
        let line = error.to_string();
        assert!(line.contains(said) && !line.contains('\n'), "{reading:?}: {line}");
        assert_eq!(error.kind(), Kind::Refused, "{line}");
    }
    // Two rows with one key: some could be left out.
    let found = describe(&server.url(), &keyed(table("keyless"), &["id"])).await.unwrap();
    for page in [1, 2, 3, 100] {
        let mut stream =
            std::sync::Arc::clone(&found).stream(Range::default(), options(&*found, page));
        let error = loop {
            match next(&mut stream).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("pages of {page} do not notice"),
            }
        };
        assert!(error.to_string().contains("two rows have the same"), "{error}");
    }
    assert_eq!(server.psql("SELECT count(*) FROM plain"), "1000");
}

const SAME: &str = "
CREATE TABLE numerics (k numeric NOT NULL, id bigint);
INSERT INTO numerics VALUES (1.0, 1), (1.00, 2);
CREATE TABLE floats (k float8 NOT NULL, id bigint);
INSERT INTO floats VALUES (0, 1), ('-0', 2);
CREATE TABLE intervals (k interval NOT NULL, id bigint);
INSERT INTO intervals VALUES ('1 day', 1), ('24 hours', 2);
CREATE TABLE jsons (k jsonb NOT NULL, id bigint);
INSERT INTO jsons VALUES ('1.0', 1), ('1.00', 2);
CREATE TABLE wide (k int NOT NULL, id bigint, t text);
INSERT INTO wide SELECT 1, g, repeat('x', 1500000) FROM generate_series(1, 2) AS g;
CREATE TABLE parent (k int PRIMARY KEY, id bigint);
CREATE TABLE child () INHERITS (parent);
INSERT INTO parent VALUES (1, 1);
INSERT INTO child VALUES (1, 2);
";

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn keys_that_are_the_same_to_the_server_are_noticed_wherever_a_page_ends() {
    let server = Postgres::start();
    server.psql(SAME);
    for name in ["numerics", "floats", "intervals", "jsons", "wide", "parent"] {
        let found = describe(&server.url(), &keyed(table(name), &["k"])).await.unwrap();
        for page in [1, 2, 100] {
            let mut stream =
                std::sync::Arc::clone(&found).stream(Range::default(), options(&*found, page));
            let error = next(&mut stream).await.unwrap().err();
            let error = error.unwrap_or_else(|| panic!("{name}: pages of {page} do not notice"));
            assert!(error.to_string().contains("two rows have the same"), "{error}");
        }
    }
    for (reading, said) in [
        (table("parent"), "no primary key"),
        (query("SELECT k, count(*) FROM parent GROUP BY ROLLUP (k)"), "more than one plain table"),
    ] {
        let error = describe(&server.url(), &reading).await.expect_err("no key");
        assert!(error.to_string().contains(said), "{error}");
    }
}

const OPERATORS: &str = "
CREATE SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
CREATE DOMAIN word AS ext.citext;
CREATE TABLE people (k ext.citext PRIMARY KEY, id bigint);
INSERT INTO people VALUES ('alice', 1), ('Bob', 2), ('carol', 3), ('Dave', 4);
CREATE TABLE words (n int, k word, id bigint, PRIMARY KEY (n, k));
INSERT INTO words SELECT 1, * FROM people;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE CAST (mood AS text) WITH INOUT AS IMPLICIT;
CREATE TABLE moods (k mood PRIMARY KEY, id bigint);
INSERT INTO moods VALUES ('sad', 1), ('ok', 2), ('happy', 3);
CREATE TABLE texts (k ext.citext NOT NULL, id bigint);
CREATE UNIQUE INDEX ON texts (k text_ops);
INSERT INTO texts VALUES ('bob', 1), ('Bob', 2);
";

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn keys_that_are_ordered_otherwise_than_compared_are_refused() {
    for version in Version::all() {
        let server = Postgres::of(version).start();
        server.psql(OPERATORS);
        let visible = format!("{}?options=-csearch_path%3Dpublic,ext", server.url());
        for (name, remedy) in [
            ("people", "?options=-csearch_path%3Dpublic,ext"),
            ("words", "?options=-csearch_path%3Dpublic,ext"),
            ("moods", "cast it in a query"),
        ] {
            let error = describe(&server.url(), &table(name)).await.expect_err(name);
            let line = error.to_string();
            assert!(line.contains("is ordered by") && line.contains(remedy), "{line}");
            assert_eq!(error.kind(), Kind::Refused, "{line}");
        }
        for name in ["people", "words"] {
            let found = describe(&visible, &table(name)).await.unwrap();
            for page in [1, 2, 3, 4] {
                assert_eq!(all_ids(&found, Range::default(), page).await, [1, 2, 3, 4], "{name}");
            }
        }
        let cast = keyed(query("SELECT k::text AS k, id FROM moods"), &["k"]);
        let found = describe(&server.url(), &cast).await.unwrap();
        assert_eq!(all_ids(&found, Range::default(), 1).await, [3, 2, 1]);
        // An index by another equality than the key's says nothing about its rows.
        let error = describe(&visible, &table("texts")).await.expect_err("no key");
        assert!(error.to_string().contains("no primary key"), "{error}");
        let found = describe(&visible, &keyed(table("texts"), &["k"])).await.unwrap();
        let mut stream =
            std::sync::Arc::clone(&found).stream(Range::default(), options(&*found, 1));
        let error = next(&mut stream).await.unwrap().expect_err("one key");
        assert!(error.to_string().contains("two rows have the same"), "{error}");
    }
}
