//! The sink against `psql -c '\copy … from'`.

use std::fs;
use std::path::Path;

use tidegate_testkit::bench::Cost;
use tidegate_testkit::bench::programs::{Clock, Goal, Outcome, Programs, Side};

use crate::TIDEGATE;
use crate::ground::{Ground, TABLE};

/// The database that rows go to, made anew each time.
const TARGET: &str = "target";

pub(crate) fn run(bench: &mut Programs, ground: &Ground) {
    bench.section("load: run --once, Postgres to Postgres, vs psql -c '\\copy … from'");
    let goal = Goal::Speed(Clock::Wall, 0.6);
    bench.compared("vs \\copy from a CSV file", goal, || {
        Ok((ours(ground, "")?, from_file(ground, "")?))
    });
    bench.compared("vs \\copy to and \\copy from in a pipe, binary", Goal::None, || {
        let from = ground.psql("postgres", "\\copy users to stdout binary")?;
        let to = ground.psql(TARGET, "\\copy users from stdin binary")?;
        let quoted =
            |words: Vec<String>| words.iter().map(|word| format!("'{word}' ")).collect::<String>();
        let script = format!("{} | {}", quoted(from), quoted(to));
        Ok((ours(ground, "")?, into_empty(ground, "", Side::silent("sh", ["-c", &script]))))
    });
    let key = "ALTER TABLE users ADD PRIMARY KEY (id)";
    bench.compared("with a primary key, vs \\copy from a CSV file", Goal::None, || {
        Ok((ours(ground, key)?, from_file(ground, key)?))
    });
}

/// A pipeline from the one table to the other, with nothing remembered.
fn ours<'g>(ground: &'g Ground, also: &'g str) -> Outcome<impl FnMut() -> Outcome<Cost> + 'g> {
    let (server, state) = (ground.server()?, ground.path("load.state"));
    let url = |database| server.url_as(server.address(), "postgres", None, database);
    let text = format!(
        "data_dir = '{}'\n\n[sources.users]\ntype = \"postgres\"\nurl = '{}'\ntable = \"users\"\n\n\
         [sinks.out]\ninputs = [\"users\"]\ntype = \"postgres\"\nurl = '{}'\ntable = \"users\"\n",
        state.display(),
        url("postgres"),
        url(TARGET)
    );
    let config = ground.path("load.toml");
    fs::write(&config, text)?;
    let args = [Path::new("run"), &config, Path::new("--once"), Path::new("--quiet")];
    Ok(into_empty(ground, also, Side::silent(TIDEGATE, args).fresh(&state)))
}

fn from_file<'g>(ground: &'g Ground, also: &'g str) -> Outcome<impl FnMut() -> Outcome<Cost> + 'g> {
    let from = format!("\\copy users from '{}' csv header", ground.csv()?.display());
    let psql = ground.psql(TARGET, &from)?;
    Ok(into_empty(ground, also, Side::silent(&psql[0], &psql[1..])))
}

/// What it takes a side to fill the table of a new database, which then has all rows.
fn into_empty<'g>(
    ground: &'g Ground,
    also: &'g str,
    mut side: Side,
) -> impl FnMut() -> Outcome<Cost> + 'g {
    move || {
        let server = ground.server()?;
        server.psql(&format!("DROP DATABASE IF EXISTS {TARGET}; CREATE DATABASE {TARGET}"));
        let within = |sql: &str| server.psql(&format!("\\connect {TARGET}\n{sql}"));
        within(&format!("CREATE TABLE users {TABLE}; {also}"));
        server.psql("CHECKPOINT");
        let cost = side.cost()?;
        let loaded = within("SELECT count(*) || ' ' || sum(id) FROM users");
        let there = server.psql("SELECT count(*) || ' ' || sum(id) FROM users");
        match loaded == there {
            true => Ok(cost),
            false => Err(format!("rows and their sum are {loaded}, not {there}").into()),
        }
    }
}
