//! The program `tidegate`: one file for each command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Live lines, their flow shown as it happens.
mod demo;

/// Moves live data to where it must be, with backpressure from end to end.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
}

/// Exit codes: 0 done, 1 data failed, 2 usage (clap's own).
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Cli { command: Command::Demo(args) } = Cli::parse();
    match demo::run(args, &mut std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate demo: {error}");
            ExitCode::FAILURE
        }
    }
}
