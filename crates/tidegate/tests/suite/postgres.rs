//! Into Postgres, whoever is killed: each row is there once.

use std::time::Duration;

use tidegate_testkit::postgres::Postgres;
use tidegate_testkit::process::Program;

use crate::support::{DEADLINE, Folder, TIDEGATE, times};

/// Rows that are made in one run before it is cut short, at the most.
const ROWS_EACH: usize = 10_000;

/// Two tables fed by one source: one straight, one through SQL.
fn config(server: &Postgres, count: usize, rate: &str) -> String {
    let url = server.url();
    format!(
        "data_dir = 'state'\n\
         [sources.lines]\ntype = 'generate'\nlines = ['{{n}}']\ncodec = 'text'\ncount = {count}\n\
         {rate}\n\
         [transforms.cast]\ntype = 'sql'\ninputs = ['lines']\n\
         query = 'SELECT CAST(message AS BIGINT) AS n, timestamp, metadata FROM input'\n\
         [sinks.plain]\ntype = 'postgres'\ninputs = ['lines']\nurl = '{url}'\ntable = 'plain'\n\
         create = true\n\
         [sinks.numbers]\ntype = 'postgres'\ninputs = ['cast']\nurl = '{url}'\n\
         table = 'numbers'\ncreate = true\n"
    )
}

/// Runs it again and again, cut short at random moments, and once more to the end.
fn survive(mut cut: impl FnMut(&mut fastrand::Rng, Program, &mut Postgres)) {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut server, folder) = (Postgres::start(), Folder::new());
    let count = ROWS_EACH * times();
    folder.write("slow.toml", config(&server, count, "rate = 20000"));
    folder.write("fast.toml", config(&server, count, ""));
    for _ in 0..times() {
        let mut program = Program::start(TIDEGATE, folder.path(), ["run", "slow.toml"]);
        let time = Duration::from_millis(random.u64(0..500));
        assert!(program.runs_for(time), "seed {seed}: {:?}", program.ended(DEADLINE));
        cut(&mut random, program, &mut server);
    }
    let program = Program::start(TIDEGATE, folder.path(), ["run", "fast.toml"]);
    let ended = program.ended(DEADLINE);
    assert_eq!(ended.code(), Some(0), "seed {seed}: {ended:?}");
    let expected = format!("{count}|{count}|0|{}", count - 1);
    for (table, number) in [("plain", "message::bigint"), ("numbers", "n")] {
        let found = server.psql(&format!(
            "SELECT count(*), count(DISTINCT {number}), min({number}), max({number}) FROM {table}"
        ));
        assert_eq!(found, expected, "seed {seed}, {table}");
    }
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn killed_at_any_moment() {
    survive(|_, program, _| program.kill());
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn killed_while_its_server_is_killed_too() {
    survive(|random, mut program, server| {
        server.kill();
        // It waits for the server.
        assert!(program.runs_for(Duration::from_millis(random.u64(0..50))));
        server.restart();
        assert!(program.runs_for(Duration::from_millis(random.u64(0..300))));
        program.kill();
    });
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn terminated_it_has_committed_all_that_was_written() {
    survive(|_, program, _| {
        program.signal("TERM");
        let ended = program.ended(DEADLINE);
        assert!(ended.code() == Some(0) || ended.status.code().is_none(), "{ended:?}");
    });
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn a_table_becomes_another_through_sql_whenever_it_is_killed() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let (server, folder) = (Postgres::start(), Folder::new());
    server.psql(
        "CREATE TABLE numbered (id bigint PRIMARY KEY, name text, amount numeric(12, 2));
         INSERT INTO numbered SELECT g * 7, 'n' || g, g * 0.25 FROM generate_series(1, 60000) AS g;
         CREATE TABLE named (id uuid PRIMARY KEY, name text, amount numeric(12, 2));
         INSERT INTO named SELECT md5(g::text)::uuid, 'n' || g, g * 0.25
             FROM generate_series(1, 60000) AS g;
         ANALYZE numbered; ANALYZE named;",
    );
    let url = server.url();
    let lane = |table: &str| {
        format!(
            "[sources.{table}]\ntype = 'postgres'\nurl = '{url}'\ntable = '{table}'\n\
             page_rows = 500\nworkers = 2\n\
             [transforms.some_{table}]\ntype = 'sql'\ninputs = ['{table}']\n\
             query = \"SELECT id, name, amount * 2 AS twice FROM input WHERE name NOT LIKE '%3'\"\n\
             [sinks.to_{table}]\ntype = 'postgres'\ninputs = ['some_{table}']\nurl = '{url}'\n\
             table = 'of_{table}'\ncreate = true\n"
        )
    };
    let config = format!("data_dir = 'state'\n{}{}", lane("numbered"), lane("named"));
    folder.write("pipeline.toml", config);
    let run = ["run", "--once", "pipeline.toml"];
    for _ in 0..times().div_ceil(2) {
        let mut program = Program::start(TIDEGATE, folder.path(), run);
        if program.runs_for(Duration::from_millis(random.u64(0..1_000))) {
            program.kill();
        }
    }
    let ended = Program::start(TIDEGATE, folder.path(), run).ended(DEADLINE);
    assert_eq!(ended.code(), Some(0), "seed {seed}: {ended:?}");
    for table in ["numbered", "named"] {
        let expected = server.rows(&format!(
            "SELECT id::text, name, amount * 2 FROM {table} WHERE name NOT LIKE '%3' ORDER BY name"
        ));
        let found = server.rows(&format!(
            "SELECT id::text, name, twice::numeric(12, 2) FROM of_{table} ORDER BY name"
        ));
        assert!(found == expected, "seed {seed}, {table}: {} of {}", found.len(), expected.len());
    }
}
