//! How a command fails: what it says, and its exit code.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command did not do what it was to do.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The configuration or the way it was called is wrong: exit code 2.
    Usage(String),
    /// Something went wrong with the data: exit code 1.
    Data(String),
    /// Whoever read our output has seen enough: no failure.
    Closed,
}

impl Failed {
    /// Of the way it was called, or of a configuration.
    pub(crate) fn usage(said: impl fmt::Display) -> Self {
        Failed::Usage(said.to_string())
    }

    /// Of a configuration that turns out to be wrong once something is opened, a line for each
    /// mistake.
    pub(crate) fn invalid(said: impl fmt::Display) -> Self {
        let said = said.to_string();
        Failed::Usage(Vec::from_iter(said.lines().map(|line| format!("error: {line}"))).join("\n"))
    }

    /// Of the data.
    pub(crate) fn data(said: impl fmt::Display) -> Self {
        Failed::Data(said.to_string())
    }

    /// Says it, and gives the exit code.
    pub(crate) fn exit(self) -> ExitCode {
        let (said, code) = match self {
            Failed::Usage(said) => (said, ExitCode::from(2)),
            Failed::Data(said) => (format!("error: {said}"), ExitCode::from(1)),
            Failed::Closed => return ExitCode::SUCCESS,
        };
        // Nobody is left to be told where even this fails.
        let _ = writeln!(io::stderr(), "{said}");
        code
    }
}

/// Of what a command prints itself.
impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failed::Closed,
            _ => Failed::data(format!("can't write to the standard output: {error}")),
        }
    }
}
