//! `tidegate check`: what is wrong with a configuration, before anything is opened.

use std::io::Write;
use std::path::PathBuf;

use tidegate::engine::{Overrides, Pipeline, Role};

use crate::failed::Failed;
use crate::load;

/// Checks a configuration, and opens nothing
///
/// Finds wrong syntax, unknown keys, values of a wrong type, unknown inputs, cycles, SQL that does
/// not fit its input, and variables that are not set: all at once, each with its place and what to
/// write instead. Exits with 2 where something is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate check pipeline.toml\n  \
                        for file in *.toml; do tidegate check \"$file\" || break; done")]
pub(crate) struct Args {
    /// The configuration
    file: PathBuf,
}

/// Prints what there is where all is well, and what could not be checked.
pub(crate) fn check(args: &Args, out: &mut impl Write) -> Result<(), Failed> {
    let pipeline = load::pipeline(&args.file, &Overrides::default())?;
    let counts = [
        count(&pipeline, Role::Source, "source"),
        count(&pipeline, Role::Transform, "transform"),
        count(&pipeline, Role::Sink, "sink"),
    ];
    writeln!(out, "ok: {}", counts.join(", "))?;
    writeln!(
        out,
        "not checked: whether files and folders are there and may be used; running it shows that"
    )?;
    for name in pipeline.not_replayable() {
        writeln!(
            out,
            "note: sources.{name} can't be read again: what is on its way when the process is \
             killed is lost"
        )?;
    }
    Ok(())
}

fn count(pipeline: &Pipeline, role: Role, noun: &str) -> String {
    match pipeline.components().filter(|component| component.0 == role).count() {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}
