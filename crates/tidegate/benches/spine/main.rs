//! How fast files are read, filtered and written, against the programs that do nothing else:
//! `cargo bench -p tidegate --bench spine -- --help`.
//!
//! Both sides are processes and read the same file, which is in the page cache. Both must give the
//! same answer.

/// Logs, made up.
mod log;

/// Room on the disk.
mod room;

/// The files that are read.
mod inputs;

/// `scan` against `rg` and `wc`.
mod scan;

/// `run --once` against `grep` and `cat`, and against itself.
mod run;

/// What starting, a row more and a file more cost.
mod growth;

use std::process::ExitCode;

use tidegate_testkit::bench::programs;

/// The program that is measured.
const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// What the pairs compare with, and the packages that have it.
const TOOLS: [(&str, &str); 5] = [
    ("rg", "ripgrep"),
    ("grep", "grep"),
    ("cat", "coreutils"),
    ("wc", "coreutils"),
    ("awk", "mawk"),
];

fn main() -> ExitCode {
    programs::main("tidegate: spine", |bench| {
        bench.tools(&TOOLS)?;
        let inputs = inputs::Inputs::new(bench.input())?;
        scan::run(bench, &inputs);
        run::run(bench, &inputs);
        growth::run(bench, &inputs)
    })
}
