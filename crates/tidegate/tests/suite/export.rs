//! `tidegate export` of Postgres: byte for byte what psql writes, whatever happens on the way.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tidegate_testkit::postgres::random::{MOOD, TYPES, table};
use tidegate_testkit::postgres::{Postgres, Version};
use tidegate_testkit::process::{Ended, Program};
use tidegate_testkit::rows;

use crate::support::{DEADLINE, Folder, TIDEGATE, times};

/// A table of every type, with what is odd about each.
const ODDITIES: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE types (
    id bigint PRIMARY KEY, b bool, i2 int2, i4 int4, o oid, f4 float4, f8 float8,
    n numeric, n12 numeric(12, 2), n50 numeric(50, 10), t text, vc varchar(40), c char(5),
    by bytea, d date, ti time, tz timetz, ts timestamp, tstz timestamptz, iv interval, u uuid,
    j json, jb jsonb, ia int[], ta text[], m mood, p pair, dom positive, r int4range,
    tr tstzrange, ip inet, net cidr, mac macaddr, bits bit(3), vb bit varying(9), mo money,
    pt point, v tsvector, x xml, nm name, "Odd ""name" text);
INSERT INTO types VALUES (
    1, true, -32768, 2147483647, 4294967295, 1.5e-7, 1e20,
    123456789012345678901234567890.000100, -0.05, 1234567890123456789012345678901234567890.0000000001,
    E'a,b"c"\nd\re\\f', '', 'x', '\x00ff', '2024-02-29', '24:00', '12:00+05:30',
    '2024-02-29 12:00:00.000001', '2024-02-29 12:00:00.25+02', '1 mon 2 days 03:04:05.5',
    'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{"a": [1, "x"]}', '{"b": null, "a": 1.0}',
    '{{1,2},{3,NULL}}', ARRAY['a,b', NULL, '"q"', ''], 'happy', ROW(1, 'it''s'), 5, '[1,10)',
    '[2024-01-01, infinity)', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', B'101', B'1', '-1234.56',
    '(1.5,-2)', 'a fat cat', NULL, 'name', 'odd');
INSERT INTO types (id) VALUES (2);
INSERT INTO types (id, f4, f8, n, d, ts, tstz, t, n12) VALUES
    (3, 'NaN', '-Infinity', 'NaN', 'infinity', '-infinity', 'infinity', '\.', 0),
    (4, '-0', '-0', 'Infinity', '0044-03-15 BC', '0044-03-15 12:00 BC', '0001-01-01 00:00 BC', ' ', 9999999999.99),
    (5, 1e6, 1e15, 0.000, '9999-12-31', '1969-12-31 23:59:59.999999', '10000-01-01', 'ü€😀', -9999999999.99),
    (6, 123456.7, 0.0001, -1e-20, '-infinity', 'infinity', '-infinity', repeat('é', 1000000), 1);
INSERT INTO types (id, f4, f8, n, ts, tstz, d, ti, n12, by) SELECT 100 + g,
    (random() * 2 - 1) * 10 ^ (g % 40 - 20), (random() * 2 - 1) * 10 ^ (g % 600 - 300),
    (random() * 2 - 1) * 10 ^ (g % 60 - 30), '1600-01-01'::timestamp + random() * interval '9000 years',
    '1600-01-01'::timestamp + random() * interval '9000 years', '4000-01-01 BC'::date + g * 700,
    '00:00'::time + random() * interval '1 day', random() * 1e9, sha256(g::text::bytea)
    FROM generate_series(1, 3000) AS g;
ANALYZE types;
"#;

fn export(folder: &Folder, arguments: &[&str]) -> Ended {
    let all = ["export"].iter().chain(arguments);
    Program::start(TIDEGATE, folder.path(), all).ended(DEADLINE)
}

#[track_caller]
fn exported(folder: &Folder, arguments: &[&str]) -> Ended {
    let ended = export(folder, arguments);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    ended
}

/// What `\copy` writes of a query.
fn copied(server: &Postgres, folder: &Path, query: &str, options: &str) -> String {
    let file = folder.join("psql.csv");
    let mut psql = server.psql_command();
    psql.args(["-c", "SET timezone = 'UTC'", "-c"]);
    psql.arg(format!("\\copy ({query}) TO '{}' WITH (FORMAT csv, {options})", file.display()));
    let ended = Program::of(psql).ended(DEADLINE);
    assert!(ended.status.success(), "{}", ended.stderr);
    fs::read_to_string(file).unwrap()
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn csv_is_byte_for_byte_what_psql_writes() {
    for version in Version::all() {
        let server = Postgres::of(version).start();
        server.psql(ODDITIES);
        let folder = Folder::new();
        let all = "SELECT * FROM types ORDER BY id";
        exported(&folder, &[&server.url(), "--table", "types", "--to", "a.csv"]);
        let expected = copied(&server, folder.path(), all, "HEADER");
        assert!(
            folder.read("a.csv") == expected,
            "{}",
            difference(&folder.read("a.csv"), &expected)
        );
        let options = ["--no-header", "--delimiter", "\t", "--null", "\\N", "--workers", "3"];
        let what = [&server.url(), "--table", "types", "--to", "b.csv"];
        exported(&folder, &[&what[..], &options].concat());
        let expected = copied(&server, folder.path(), all, "DELIMITER E'\\t', NULL '\\N'");
        assert!(
            folder.read("b.csv") == expected,
            "{}",
            difference(&folder.read("b.csv"), &expected)
        );
        // And a query, by pages of few rows, without the unchangeable ways of COPY.
        let query = "SELECT id, t, n12 FROM types WHERE id <> 2";
        let some = ["--page-rows", "3", "--where", "id < 2000", "--snapshot"];
        let what = [&server.url(), "--query", query, "--to", "c.csv"];
        exported(&folder, &[&what[..], &some].concat());
        let query = format!("{query} AND id < 2000 ORDER BY id");
        assert_eq!(folder.read("c.csv"), copied(&server, folder.path(), &query, "HEADER"));
        let entries = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(entries, 4, "nothing is left beside the results");
    }
}

fn difference(ours: &str, theirs: &str) -> String {
    let at = ours.bytes().zip(theirs.bytes()).position(|(a, b)| a != b).unwrap_or(0);
    let part = |text: &str| {
        let bytes = text.as_bytes();
        String::from_utf8_lossy(&bytes[at.saturating_sub(60)..bytes.len().min(at + 60)])
            .into_owned()
    };
    format!("at {at}:\nours   {:?}\ntheirs {:?}", part(ours), part(theirs))
}

#[test]
#[ignore = "needs PostgreSQL and DuckDB; run by cargo xtask test"]
fn parquet_holds_what_the_table_does() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE t (id bigint PRIMARY KEY, a text, n numeric(12,2), at timestamptz, d date,
             f float8, b bool, by bytea);
         INSERT INTO t SELECT g, nullif('v' || g % 7, 'v3'), g * 1.25, now() + g * interval '1 s',
             current_date + g, g / 3.0, g % 2 = 0, sha256(g::text::bytea)
             FROM generate_series(1, 20000) AS g;
         ANALYZE t;",
    );
    let folder = Folder::new();
    let query = "SELECT * FROM t ORDER BY id";
    for (to, files) in [("a.parquet", "a.parquet"), ("parts/", "parts/*.parquet")] {
        let workers = ["--workers", "3"];
        exported(&folder, &[&[&server.url(), "--table", "t", "--to", to][..], &workers].concat());
        let read = rows::of_parquet(&folder.path().join(files));
        assert!(read.rows == server.rows(query), "{to}");
        assert_eq!(read.names, ["id", "a", "n", "at", "d", "f", "b", "by"]);
    }
    assert_eq!(fs::read_dir(folder.path().join("parts")).unwrap().count(), 3);
}

/// Exports, slowed down, again and again, killed at random moments, and once more to the end.
#[track_caller]
fn killed(folder: &Folder, what: &[&str], slow: &[&str], kills: usize, random: &mut fastrand::Rng) {
    let to = what.iter().skip_while(|argument| **argument != "--to").nth(1).unwrap();
    let to = folder.path().join(to);
    let job = to.with_added_extension("export").join("job.json");
    let mut resume: &[&str] = &[];
    for _ in 0..kills {
        let arguments = ["export"].iter().chain(what).chain(slow).chain(resume);
        let mut program = Program::start(TIDEGATE, folder.path(), arguments);
        if !program.runs_for(Duration::from_millis(random.u64(0..400))) {
            break;
        }
        program.kill();
        resume = if job.exists() { &["--resume"] } else { &["--overwrite"] };
    }
    let ended = export(folder, &[what, resume].concat());
    // One that was not slow enough is there already.
    let is_there = ended.code() == Some(2) && to.exists();
    assert!(ended.code() == Some(0) || is_there, "seed {}: {}", random.get_seed(), ended.stderr);
}

/// A float by its value.
fn float<F: std::str::FromStr<Err = std::num::ParseFloatError> + std::fmt::Debug>(
    text: &str,
) -> Option<String> {
    Some(format!("{:?}", text.parse::<F>().unwrap()))
}

#[test]
#[ignore = "needs PostgreSQL and DuckDB; run by cargo xtask test"]
fn random_tables_are_read_by_others_as_they_are() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let (server, folder) = (Postgres::start(), Folder::new());
    server.psql(MOOD);
    let url = server.url();
    let read = |round: usize, columns: &str, to: &str| {
        let workers = if round.is_multiple_of(2) { "1" } else { "3" };
        let what = [url.as_str(), "--table", "a", "--to", to, "--overwrite", "--workers", workers];
        exported(&folder, &what);
        let path = folder.path().join(to);
        let read = if to == "a.csv" { rows::of_csv(&path) } else { rows::of_parquet(&path) };
        let expected = server.rows("SELECT * FROM a ORDER BY id");
        assert_eq!(read.rows.len(), expected.len(), "seed {seed}, {to} of {columns}");
        for (ours, theirs) in read.rows.iter().zip(&expected) {
            for (column, values) in ours.iter().zip(theirs).enumerate() {
                // As texts, floats have the digits that Python or Postgres takes for the shortest.
                let (ours, theirs) = match (read.types.get(column).map(String::as_str), values) {
                    (Some("FLOAT"), (Some(ours), Some(theirs))) => {
                        (float::<f32>(ours), float::<f32>(theirs))
                    }
                    (Some("DOUBLE"), (Some(ours), Some(theirs))) => {
                        (float::<f64>(ours), float::<f64>(theirs))
                    }
                    (_, (ours, theirs)) => (ours.clone(), theirs.clone()),
                };
                assert_eq!(ours, theirs, "seed {seed}, {to}, column {column} of {columns}");
            }
        }
    };
    // DuckDB has other infinite days, and takes decimals of more than 38 digits for doubles.
    let unlike = ["date", "timestamptz", "numeric(76,40)"];
    let types: Vec<_> = TYPES.iter().copied().filter(|(name, _)| !unlike.contains(name)).collect();
    for round in 0..6 {
        server.psql("DROP TABLE IF EXISTS a");
        let columns = table(&server, "a", &TYPES, round == 0, &mut random);
        read(round, &columns, "a.csv");
        let psql = copied(&server, folder.path(), "SELECT * FROM a ORDER BY id", "HEADER");
        assert!(
            folder.read("a.csv") == psql,
            "seed {seed}: {}",
            difference(&folder.read("a.csv"), &psql)
        );
        server.psql("DROP TABLE a");
        let columns = table(&server, "a", &types, round == 0, &mut random);
        read(round, &columns, "a.parquet");
    }
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn whatever_ends_an_export_it_goes_on_and_is_the_same_in_the_end() {
    let server = Postgres::start();
    server.psql(
        "CREATE TABLE t (a text, b int, v text, PRIMARY KEY (a, b));
         INSERT INTO t SELECT md5((g / 10)::text), g % 10, repeat('x', g % 90)
             FROM generate_series(1, 60000) AS g;
         CREATE TABLE n (id bigint PRIMARY KEY, v text);
         INSERT INTO n SELECT g * 3, repeat('y', g % 90) FROM generate_series(1, 60000) AS g;
         ANALYZE t; ANALYZE n;",
    );
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = Folder::new();
    for (table, to) in [("t", "t.csv"), ("n", "n.ndjson"), ("n", "n.csv"), ("n", "n.parquet")] {
        for workers in ["1", "3"] {
            let url = server.url();
            let what = [url.as_str(), "--table", table, "--page-rows", "500", "--workers", workers];
            let whole = format!("whole-{to}");
            exported(&folder, &[&what[..], &["--to", &whole]].concat());
            let what = [&what[..], &["--to", to]].concat();
            let slow = ["--rate", "200000"];
            let kills = times().div_ceil(2);
            killed(&folder, &what, &slow, kills, &mut random);
            if to.ends_with(".parquet") {
                let read = |name: &str| rows::of_parquet(&folder.path().join(name)).rows;
                assert!(read(to) == read(&whole), "seed {seed}");
            } else {
                let (ours, expected) = (folder.read(to), folder.read(&whole));
                assert!(ours == expected, "seed {seed}, {to}: {}", difference(&ours, &expected));
            }
            for name in [to, &whole] {
                fs::remove_file(folder.path().join(name)).unwrap();
            }
        }
    }
}

/// Random tables of SQLite; every type, nulls, texts that need quotes.
fn sqlite(folder: &Folder, random: &mut fastrand::Rng) {
    let database = rusqlite::Connection::open(folder.path().join("app.db")).unwrap();
    let tables = "CREATE TABLE plain (id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB);
        CREATE TABLE pairs (a TEXT NOT NULL, b INT NOT NULL, i INT, r REAL, t TEXT, x BLOB,
            PRIMARY KEY (a, b)) WITHOUT ROWID;";
    database.execute_batch(tables).unwrap();
    let texts = ["", "a,b", "say \"hi\"", "two\nlines", "ü€😀", "\\.", " ", "plain"];
    database.execute_batch("BEGIN").unwrap();
    for number in 0..20_000_i64 {
        let some = |random: &mut fastrand::Rng| random.u8(0..5) > 0;
        let integer = some(random).then(|| random.i64(..));
        let real = some(random).then(|| (random.f64() - 0.5) * 10_f64.powi(random.i32(-20..15)));
        let text = some(random).then(|| *random.choice(&texts).unwrap());
        let blob = some(random).then(|| vec![random.u8(..); random.usize(1..9)]);
        let insert = "INSERT INTO plain VALUES (?, ?, ?, ?, ?)";
        let values = rusqlite::params![number * 3 - 9_000, integer, real, text, blob];
        database.execute(insert, values).unwrap();
        let key = format!("k{}", number % 97);
        let insert = "INSERT INTO pairs VALUES (?, ?, ?, ?, ?, ?)";
        let values = rusqlite::params![key, number, integer, real, text, blob];
        database.execute(insert, values).unwrap();
    }
    database.execute_batch("COMMIT").unwrap();
}

#[test]
#[ignore = "needs DuckDB; run by cargo xtask test"]
fn sqlite_is_exported_as_others_read_it_whenever_it_is_killed() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = Folder::new();
    sqlite(&folder, &mut random);
    for (table, key) in [("plain", "id"), ("pairs", "a, b")] {
        let query = format!("SELECT * FROM {table} ORDER BY {key}");
        let expected = rows::of_sqlite(&folder.path().join("app.db"), &query).rows;
        for to in ["a.csv", "a.parquet"] {
            let some = ["--page-rows", "300", "--workers", "2"];
            let what = [&["sqlite:app.db", "--table", table, "--to", to][..], &some].concat();
            let slow = ["--rate", "100000"];
            killed(&folder, &what, &slow, times().div_ceil(4), &mut random);
            let path = folder.path().join(to);
            let read = if to == "a.csv" { rows::of_csv(&path) } else { rows::of_parquet(&path) };
            assert_eq!(read.rows.len(), expected.len(), "seed {seed}: {table} as {to}");
            let other = read.rows.iter().zip(&expected).find(|(ours, theirs)| ours != theirs);
            assert_eq!(other, None, "seed {seed}: {table} as {to}");
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn mistakes_are_told_in_one_line_with_what_to_do() {
    let server = Postgres::of(Version::V18).password("ann", "s3cret").start();
    server.psql(
        "CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t VALUES (1);
                 CREATE TABLE keyless (v text); GRANT SELECT ON t, keyless TO ann;",
    );
    let folder = Folder::new();
    folder.write("there.csv", "mine");
    let address = server.address();
    let url = server.url_as(address, "ann", Some("s3cret"), "postgres");
    let wrong = server.url_as(address, "ann", Some("wrong"), "postgres");
    let nowhere = server.url_as(address, "ann", Some("s3cret"), "nowhere");
    let (url, wrong, nowhere) = (url.as_str(), wrong.as_str(), nowhere.as_str());
    for (arguments, code, said) in [
        (&[url, "--table", "t", "--to", "there.csv"][..], 2, "--overwrite"),
        (&[url, "--table", "t", "--to", "a.txt"], 2, ".parquet"),
        (&[url, "--table", "t", "--to", "no/a.csv"], 2, "create it"),
        (&[url, "--table", "t", "--to", "a.csv", "--resume"], 2, "no interrupted export"),
        (&[url, "--table", "keyless", "--to", "a.csv"], 2, "no primary key"),
        (&[url, "--table", "nothing", "--to", "a.csv"], 2, "there is no such table"),
        (&[url, "--query", "SELECT id FROM t LIMIT 1", "--to", "a.csv"], 2, "LIMIT"),
        (&[url, "--to", "a.csv"], 2, "--query"),
        (&[url, "--table", "t", "--to", "a.ndjson", "--no-header"], 2, "CSV alone"),
        (&[url, "--table", "t", "--to", "a.csv", "--delimiter", "ab"], 2, "one character"),
        (&["mysql://x/y", "--table", "t", "--to", "a.csv"], 2, "postgres://USER@HOST/DATABASE"),
        (&[wrong, "--table", "t", "--to", "a.csv"], 2, "the password for \"ann\" is wrong"),
        (&[nowhere, "--table", "t", "--to", "a.csv"], 2, "no database \"nowhere\""),
        (&["postgres://ann@127.0.0.1:9/x", "--table", "t", "--to", "a.csv"], 1, "can't connect"),
    ] {
        let ended = export(&folder, arguments);
        assert_eq!(ended.code(), Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("s3cret") && !ended.stderr.contains("panicked"));
    }
    assert_eq!(folder.read("there.csv"), "mine");
    exported(&folder, &[url, "--table", "t", "--to", "there.csv", "--overwrite"]);
    assert_eq!(folder.read("there.csv"), "id\n1\n");
    // Nothing of a table without rows but its head.
    exported(&folder, &[url, "--table", "t", "--where", "id > 1", "--to", "none.csv"]);
    assert_eq!(folder.read("none.csv"), "id\n");
}
