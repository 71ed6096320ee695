//! How fast rows go out of databases and into them, against `psql` and `sqlite3`:
//! `cargo bench -p tidegate --bench databases -- --help`.
//!
//! Both sides are clients of one server, started for the run, and read the same table, which is in
//! the page cache. CPU time and memory are the clients' own; what the server took is in the wall
//! clock, and among what `others` took.

/// The table, and where it is.
mod ground;

/// Room on the disk: the spine's.
#[path = "../spine/room.rs"]
mod room;

/// `export` against `psql -c '\copy … to'` and `sqlite3 -csv`.
mod export;

/// A page deep in the table against the first.
mod pages;

/// The sink against `psql -c '\copy … from'`.
mod load;

use std::process::ExitCode;

use tidegate_testkit::bench::programs;

/// The program that is measured.
const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

fn main() -> ExitCode {
    programs::main_of_rows("tidegate: databases", |bench| {
        bench.tools(&[("sqlite3", "sqlite3")])?;
        let ground = ground::Ground::new(bench.input())?;
        export::run(bench, &ground);
        pages::run(bench, &ground);
        load::run(bench, &ground);
        Ok(())
    })
}
