//! Our own logs: to the standard error, as text or as JSON, above a status line if there is one.

use std::io::{self, Write};
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::failed::Failed;
use crate::screen::Screen;

/// Where nothing else is said: our own information, and others' warnings.
const LEVEL_DEFAULT: &str = "warn,tidegate=info";
/// Where a scan says nothing else: what it can't read it says itself, at its end.
pub(crate) const SCAN_LEVEL: &str = "error";
/// The variable that says which, where the option doesn't.
const LEVEL_VARIABLE: &str = "TIDEGATE_LOG";

/// What is logged, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// How logs on the standard error are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    log_format: Format,
    /// What is logged: off, error, warn, info, debug, trace, or by module, such as
    /// warn,tidegate_engine=debug; else what the variable TIDEGATE_LOG says
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Logs {
    /// Sends logs to the screen from here on.
    pub(crate) fn start(&self, screen: Arc<Screen>) -> Result<(), Failed> {
        self.start_at(LEVEL_DEFAULT, screen)
    }

    /// The same, at that level where nothing else is said.
    pub(crate) fn start_at(&self, default: &str, screen: Arc<Screen>) -> Result<(), Failed> {
        let variable = std::env::var(LEVEL_VARIABLE).ok().filter(|level| !level.is_empty());
        let (level, from) = match (&self.log_level, variable) {
            (Some(level), _) => (level.clone(), "--log-level"),
            (None, Some(level)) => (level, LEVEL_VARIABLE),
            (None, None) => (default.to_owned(), "the default"),
        };
        let targets = targets(&level).ok_or_else(|| {
            Failed::usage(format!(
                "error: {from} can't be `{level}`: write off, error, warn, info, debug or trace, \
                 or by module, such as warn,tidegate_engine=debug"
            ))
        })?;
        let lines = tracing_subscriber::fmt::layer().log_internal_errors(false);
        let lines = lines.with_writer(LogLines(screen));
        let lines = match self.log_format {
            Format::Text => lines.with_ansi(false).with_target(false).boxed(),
            Format::Json => lines.json().flatten_event(true).boxed(),
        };
        let set = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
        set.map_err(|error| Failed::data(format!("logs can't be set up: {error}")))
    }
}

/// A level for all, or for modules: `warn,tidegate_engine=debug`. A word that is no level is refused,
/// where `Targets` itself would take it for a module.
fn targets(text: &str) -> Option<Targets> {
    let mut targets = Targets::new();
    for part in text.split(',').map(str::trim) {
        // Nothing at all would stand for errors.
        let level = |text: &str| text.parse::<LevelFilter>().ok().filter(|_| !text.is_empty());
        targets = match part.split_once('=') {
            Some((module, word)) => targets.with_target(module, level(word)?),
            None => targets.with_default(level(part)?),
        };
    }
    Some(targets)
}

struct LogLines(Arc<Screen>);

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine(&self.0)
    }
}

/// Gets each event whole.
struct LogLine<'a>(&'a Screen);

impl Write for LogLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.print(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_are_for_all_or_for_modules() {
        let levels = targets(LEVEL_DEFAULT).unwrap();
        assert!(levels.would_enable("tidegate_engine::run", &Level::INFO));
        assert!(!levels.would_enable("tidegate_engine::run", &Level::DEBUG));
        assert!(!levels.would_enable("redb", &Level::INFO));
        assert!(!targets("off").unwrap().would_enable("tidegate", &Level::ERROR));
        for wrong in ["", "loud", "warn,tidegate", "tidegate=loud", "warn;info"] {
            assert!(targets(wrong).is_none(), "{wrong}");
        }
    }
}
