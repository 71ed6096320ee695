//! `tidegate check`: what is wrong with a configuration, before anything is opened.

use std::io::Write;
use std::path::PathBuf;

use tidegate::engine::{Overrides, Pipeline, Role, Unchecked};

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
    for unchecked in pipeline.unchecked() {
        writeln!(out, "{}", not_checked(unchecked))?;
    }
    for name in pipeline.not_replayable() {
        writeln!(
            out,
            "note: sources.{name} can't be read again: what is on its way when the process is \
             killed is lost"
        )?;
    }
    Ok(())
}

/// Who is not checked for a source whose columns are not known, and what to do about it.
fn not_checked(unchecked: &Unchecked) -> String {
    let Unchecked { source, components } = unchecked;
    let names = components.iter().map(|(role, name)| format!("{}.{name}", role.table()));
    format!(
        "not checked: {}, as the columns of sources.{source} are known only when it has connected; \
         declare them there to have that checked too: schema = {{ id = \"int64\", … }}",
        Vec::from_iter(names).join(", ")
    )
}

fn count(pipeline: &Pipeline, role: Role, noun: &str) -> String {
    match pipeline.components().filter(|component| component.0 == role).count() {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_whose_columns_are_missing_and_who_depends_on_them() {
        let components = vec![(Role::Transform, "adults".into()), (Role::Sink, "out".into())];
        let said = not_checked(&Unchecked { source: "users".into(), components });
        let expected = "not checked: transforms.adults, sinks.out, as the columns of sources.users \
                        are known only when it has connected; declare them there to have that \
                        checked too: schema = { id = \"int64\", … }";
        assert_eq!(said, expected);
    }
}
