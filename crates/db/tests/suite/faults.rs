//! Servers that die, networks that break, tables that change.

use std::sync::Arc;

use tidegate_db::postgres::{Config, Connection, Database};
use tidegate_db::{Consistency, Kind, Range, Relation};
use tidegate_testkit::postgres::{Postgres, Version};

use crate::support::{describe, ids, next, options, query, table};

const ROWS: i64 = 5_000;

fn server(version: Version) -> Postgres {
    let server = Postgres::of(version).start();
    server.psql(&format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text);
         INSERT INTO t SELECT g * 10, repeat('x', 50) FROM generate_series(1, {ROWS}) AS g;
         ANALYZE t;"
    ));
    server
}

fn expected() -> Vec<i64> {
    (1..=ROWS).map(|id| id * 10).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_server_that_dies_or_throws_us_out_costs_nothing() {
    for version in Version::all() {
        let mut server = server(version);
        let found = describe(&server.url(), &table("t")).await.unwrap();
        let mut stream = Arc::clone(&found).stream(Range::default(), options(&*found, 100));
        let mut all = Vec::new();
        while let Some(rows) = next(&mut stream).await {
            all.extend(ids(&rows.unwrap()));
            match all.len() {
                500 | 1_500 => drop(server.terminate_backends()),
                1_000 => {
                    server.kill();
                    server.restart();
                }
                _ => {}
            }
        }
        assert_eq!(all, expected());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_network_that_cuts_pages_in_two_costs_nothing() {
    let server = server(Version::V18);
    let proxy = tidegate_testkit::proxy::FaultProxy::to(server.address());
    let found = describe(&server.url_through(proxy.address()), &table("t")).await.unwrap();
    let before = proxy.connections();
    // Room for what is said at first, and for a page or two.
    proxy.cut_after(Some(20_011));
    let mut stream = Arc::clone(&found).stream(Range::default(), options(&*found, 100));
    let mut all = Vec::new();
    while let Some(rows) = next(&mut stream).await {
        all.extend(ids(&rows.unwrap()));
    }
    assert_eq!(all, expected());
    assert!(proxy.connections() - before > 10, "{}", proxy.connections());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_table_may_change_before_and_behind_the_cursor() {
    let server = server(Version::V18);
    let found = describe(&server.url(), &table("t")).await.unwrap();
    let mut stream = Arc::clone(&found).stream(Range::default(), options(&*found, 100));
    let mut all = ids(&next(&mut stream).await.unwrap().unwrap());
    assert_eq!(all.last(), Some(&1_000));
    // The first is behind the cursor, and is not read; the second is before it, and is. A row that was
    // deleted is not read, and one that moves behind the cursor is left out, before it comes again.
    server.psql(
        "INSERT INTO t VALUES (5, 'behind'), (40005, 'before');
         DELETE FROM t WHERE id = 40010;
         UPDATE t SET id = 7 WHERE id = 40020;
         UPDATE t SET id = 60000 WHERE id = 10;",
    );
    while let Some(rows) = next(&mut stream).await {
        all.extend(ids(&rows.unwrap()));
    }
    let mut wanted = expected();
    wanted.retain(|id| ![40_010, 40_020].contains(id));
    wanted.insert(wanted.partition_point(|id| *id < 40_005), 40_005);
    wanted.push(60_000);
    assert_eq!(all, wanted);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_snapshot_sees_one_moment_even_over_several_connections() {
    let server = server(Version::V18);
    let database = Database::new(Config::parse(&server.url()).unwrap());
    let found = database.describe(&table("t"), Consistency::Snapshot).await.unwrap();
    server.psql("DELETE FROM t WHERE id > 100; INSERT INTO t VALUES (1, 'late');");
    for _ in 0..2 {
        let mut stream = Arc::clone(&found).stream(Range::default(), options(&*found, 700));
        let mut all = Vec::new();
        while let Some(rows) = next(&mut stream).await {
            all.extend(ids(&rows.unwrap()));
        }
        assert_eq!(all, expected());
    }
    server.terminate_backends();
    let mut stream = Arc::clone(&found).stream(Range::default(), options(&*found, 700));
    // Nobody waits for it to come again.
    let error = next(&mut stream).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the moment that was read is gone"), "{error}");
    assert_eq!(error.kind(), Kind::Refused);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_column_that_goes_or_a_table_ends_it_by_name() {
    for (change, said) in [
        ("ALTER TABLE t DROP COLUMN v", "column tidegate_base.v does not exist"),
        ("DROP TABLE t", "relation \"t\" does not exist"),
    ] {
        let server = server(Version::V18);
        let found = describe(&server.url(), &table("t")).await.unwrap();
        let mut stream = Arc::clone(&found).stream(Range::default(), options(&*found, 100));
        next(&mut stream).await.unwrap().unwrap();
        server.psql(change);
        let error = loop {
            match next(&mut stream).await.expect("it ends by an error") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(error.kind(), Kind::Refused);
        assert!(next(&mut stream).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn nothing_is_held_at_the_server_while_nobody_takes_rows() {
    let server = server(Version::V18);
    let found = describe(&server.url(), &table("t")).await.unwrap();
    let mut stream = Arc::clone(&found).stream(Range::default(), options(&*found, 100));
    let mut all = ids(&next(&mut stream).await.unwrap().unwrap());
    tidegate_testkit::process::wait_for("the connection to go", crate::support::DEADLINE, || {
        (server.clients() == 0).then_some(())
    });
    while let Some(rows) = next(&mut stream).await {
        all.extend(ids(&rows.unwrap()));
    }
    assert_eq!(all, expected());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn a_page_that_takes_too_long_is_made_smaller() {
    let server = server(Version::V18);
    server.psql(
        "CREATE FUNCTION slow(bigint) RETURNS bigint STABLE LANGUAGE sql
             AS 'SELECT $1 FROM pg_sleep(0.0005)';
         ALTER ROLE postgres SET statement_timeout = '900ms';",
    );
    let slow = query("SELECT id, slow(id) AS s FROM t WHERE id <= 20000");
    let database = Database::new(Config::parse(&server.url()).unwrap());
    for consistency in [Consistency::Pages, Consistency::Snapshot] {
        let found = database.describe(&slow, consistency).await.unwrap();
        let mut stream = Arc::clone(&found).stream(Range::default(), options(&*found, 20_000));
        let mut all = Vec::new();
        while let Some(rows) = next(&mut stream).await {
            all.extend(ids(&rows.unwrap()));
        }
        assert_eq!(all.len(), 2_000, "{consistency:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn long_texts_and_many_rows_fit_into_little_memory() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text);
         INSERT INTO t SELECT g, CASE WHEN g % 50 = 0 THEN repeat('é', 1000000) ELSE 'x' END
             FROM generate_series(1, 1000) AS g;
         ANALYZE t;",
    );
    let found = describe(&server.url(), &table("t")).await.unwrap();
    let options = options(&*found, 20_000);
    let holder = Arc::clone(&options.holder);
    let mut stream = Arc::clone(&found).stream(Range::default(), options);
    let (mut rows, mut most) = (0, 0);
    while let Some(batch) = next(&mut stream).await {
        let batch = batch.unwrap();
        rows += batch.batch.num_rows();
        most = most.max(holder.held());
    }
    assert_eq!(rows, 1_000);
    assert!(most < 14 << 20, "{most}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn who_may_not_come_in_is_told_why_in_one_line() {
    let server = Postgres::of(Version::V18).password("ann", "right").start();
    server.psql(
        "CREATE TABLE t (id bigint PRIMARY KEY); CREATE DATABASE closed;
                 REVOKE CONNECT ON DATABASE closed FROM public;",
    );
    let address = server.address();
    let right = server.url_as(address, "ann", Some("right"), "postgres");
    let mut config = Config::parse(&right).unwrap();
    assert!(Connection::connect(&Arc::new(config.clone())).await.unwrap().is_usable());
    config.password = None;
    let without = Connection::connect(&Arc::new(config)).await.unwrap_err();
    assert!(without.to_string().contains("wants a password, and there is none"), "{without}");
    for (url, said, kind) in [
        (server.url_as(address, "ann", Some("wrong"), "postgres"), "is wrong", Kind::Refused),
        (server.url_as(address, "bob", Some("right"), "postgres"), "\"bob\"", Kind::Refused),
        (
            server.url_as(address, "ann", Some("right"), "nowhere"),
            "no database \"nowhere\"",
            Kind::Refused,
        ),
        (server.url_as(address, "ann", Some("right"), "closed"), "may not do that", Kind::Refused),
        ("postgres://ann@127.0.0.1:9/postgres".into(), "can't connect", Kind::Connection),
        (
            "postgres://ann@no-such-host.invalid/postgres".into(),
            "no-such-host.invalid",
            Kind::Refused,
        ),
        (format!("{right}?sslmode=require"), "no TLS", Kind::Refused),
    ] {
        let config = Arc::new(Config::parse(&url).unwrap());
        let error = Connection::connect(&config).await.unwrap_err();
        let line = error.to_string();
        assert!(line.contains(said) && !line.contains('\n'), "{url}: {line}");
        assert_eq!(error.kind(), kind, "{line}");
    }
    let denied = describe(&right, &table("t")).await.unwrap_err();
    assert!(denied.to_string().contains("grant it the right"), "{denied}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn the_server_must_prove_who_it_is_where_that_is_asked() {
    use tidegate_testkit::certificates::Authority;
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let issued = authority.issue_for("server", "localhost");
    let server =
        Postgres::of(Version::System).tls(&issued).tls_only().password("ann", "right").start();
    let other = tempfile::tempdir().unwrap();
    let other = Authority::new(other.path(), "other");
    let url = |host: &str, rest: &str| {
        format!("postgres://ann:right@{host}:{}/postgres?{rest}", server.port())
    };
    let roots = format!("sslrootcert={}", authority.file().display());
    let strangers = format!("sslrootcert={}", other.file().display());
    for (url, refused) in [
        (url("localhost", &format!("sslmode=verify-full&{roots}")), None),
        (url("127.0.0.1", &format!("sslmode=verify-ca&{roots}")), None),
        (url("127.0.0.1", "sslmode=require"), None),
        (url("127.0.0.1", ""), None),
        (url("127.0.0.1", &format!("sslmode=verify-full&{roots}")), Some("not accepted")),
        (url("localhost", &format!("sslmode=verify-full&{strangers}")), Some("not accepted")),
        (url("localhost", &format!("sslmode=require&{strangers}")), Some("not accepted")),
        (url("localhost", "sslmode=disable"), Some("pg_hba.conf")),
        (url("localhost", "sslmode=verify-full&sslrootcert=/no/such.pem"), Some("is not there")),
    ] {
        let config = Arc::new(Config::parse(&url).unwrap());
        let connected = Connection::connect(&config).await;
        match refused {
            None => drop(connected.unwrap()),
            Some(said) => {
                let error = connected.unwrap_err();
                assert!(error.to_string().contains(said), "{url}: {error}");
                assert_eq!(error.kind(), Kind::Refused, "{error}");
            }
        }
    }
}
