//! The program `tidegate`: one file for each command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// `tidegate run`.
mod run;

/// `tidegate check`.
mod check;

/// `tidegate demo`.
mod demo;

/// `tidegate list`.
mod list;

/// `tidegate scan`.
mod scan;

/// `tidegate export`.
mod export;

/// A configuration's file to a pipeline.
mod load;

/// How a command fails.
mod failed;

/// Our own logs.
mod logging;

/// Numbers of a run as lines.
mod progress;

/// The lines on the standard error.
mod screen;

/// A run from its start to its end, signals heard.
mod session;

/// Moves live data through SQL to where it must be, with backpressure from end to end
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tidegate demo                       # nothing to configure: three live sources
  tidegate check pipeline.toml        # what is wrong with it, before anything is opened
  tidegate run pipeline.toml --once   # to the end of what there is
  tidegate run pipeline.toml          # on and on; Ctrl-C stops it when all is delivered
  tidegate scan app.log --by level    # counts, filters and groups log files
  tidegate export sqlite:app.db --table users --to users.csv
  tidegate list                       # sources, transforms and sinks, with examples

Exit codes: 0 done, 1 data failed, 2 wrong usage or configuration";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Demo(demo::Args),
    List(list::Args),
    Scan(Box<scan::Args>),
    Export(Box<export::Args>),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => session::block_on(None, run::run(args)),
        Command::Check(args) => check::check(&args, &mut std::io::stdout().lock()),
        Command::Demo(args) => session::block_on(None, demo::run(args)),
        Command::List(args) => list::list(&args, &mut std::io::stdout().lock()),
        Command::Export(args) => session::block_on(None, export::run(*args)),
        Command::Scan(args) => session::block_on(Some(args.threads()), scan::run(*args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.exit(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn commands_and_options_are_put_together_rightly() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("tidegate {name}")), "`{name} --help` has no example");
        }
    }
}
