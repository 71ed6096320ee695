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
