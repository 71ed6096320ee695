//! Tidegate's development commands, run as `cargo xtask COMMAND`.

use std::env;
use std::process::ExitCode;

/// `cargo xtask bench`.
mod bench;

/// `cargo xtask licences`.
mod licences;

/// Programs and packages that tests and benchmarks need.
mod peers;

/// Miri, a sanitizer and fuzz targets.
mod proof;

/// One command line, run and timed.
mod step;

/// `cargo xtask test`.
mod test;

const HELP: &str = "\
Tidegate's development commands

Usage: cargo xtask <COMMAND>

Commands:
  test            Fetch what the tests need and run all of them: unit, integration, examples,
                  documentation, models of concurrency, Miri, a sanitizer, fuzz targets, and a
                  short run of the benchmarks
  fetch           Fetch what the tests need, so that each can be run alone
  bench [FILTER]  Run the benchmarks; without a filter, keep the result in benches/runs/
  licences        Check that every dependency's licence fits ours

Examples:
  cargo xtask test
  cargo xtask bench merge
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["test"] => test::run(),
        ["fetch"] => peers::fetch(),
        ["bench"] => bench::run(None),
        ["bench", filter] if !filter.starts_with('-') => bench::run(Some(filter)),
        ["licences"] => licences::run(),
        [] | ["help" | "-h" | "--help"] | [_, "-h" | "--help"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => {
            eprintln!("xtask: `{}` is no command; see `cargo xtask --help`", args.join(" "));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
