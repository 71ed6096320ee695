//! `tidegate run`: a pipeline at work.

use std::path::PathBuf;
use std::sync::Arc;

use tidegate::engine::{Overrides, RunOptions, Snapshot};
use tidegate::model::ByteSize;

use crate::failed::Failed;
use crate::logging::Logs;
use crate::screen::{Screen, Status};
use crate::{load, progress, session};

/// Runs a pipeline
///
/// Goes on from where the last run stopped. The first Ctrl-C or SIGTERM stops the sources and
/// delivers what was read, the second one stops at once; what is not delivered is read again next
/// time. The standard output carries data only; on a terminal, the standard error shows what passes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate run pipeline.toml\n  \
                        tidegate run pipeline.toml --once --memory 64MiB\n  \
                        tidegate run pipeline.toml --data-dir /var/lib/tidegate --log-format json")]
pub(crate) struct Args {
    /// The configuration
    file: PathBuf,
    /// Stop when all sources have come to the end of what there is
    #[arg(long)]
    once: bool,
    /// Row data in flight, in place of the configuration's `memory`, such as 64MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<usize>,
    /// Where positions are kept, in place of the configuration's `data_dir`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Show no status and no last line
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    logs: Logs,
}

/// An option that is a number of bytes.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let size = ByteSize::parse(text).and_then(|size| usize::try_from(size.0).ok());
    size.ok_or_else(|| "write a number and a unit, such as 64MiB or 1.5GB".to_owned())
}

/// Runs until the sources end, a signal comes, or something fails.
pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let screen = Arc::new(Screen::new());
    args.logs.start(Arc::clone(&screen))?;
    let overrides = Overrides { memory: args.memory, data_dir: args.data_dir.clone() };
    let pipeline = load::pipeline(&args.file, &overrides)?;
    let data_on_stdout = pipeline.targets().any(|target| target == "standard output");
    let mut signals = session::Signals::listen()?;
    let options = RunOptions { once: args.once, ..RunOptions::default() };
    let Some(running) = session::start(pipeline, options, &mut signals).await? else {
        if !args.quiet {
            screen.print(b"stopped before it had begun to read\n");
        }
        return Ok(());
    };
    if !args.quiet {
        screen.show_status(Status::suiting(data_on_stdout));
    }
    let line = if args.once { progress::once } else { progress::live };
    let ended = session::watch(running, &mut signals, &screen, None, line).await?;
    let (last, done) = match ended.outcome {
        Ok(summary) => {
            let nothing_read = summary.resumed && summary.snapshot.bytes_read() == 0;
            let how = if ended.stopped { "stopped" } else { "done" };
            let mut last = closing(how, &summary.snapshot);
            if args.once && !ended.stopped && nothing_read {
                last += "; nothing new since the last run";
            }
            (last, Ok(()))
        }
        Err(failure) => (closing("failed", &failure.snapshot), Err(Failed::data(failure.error))),
    };
    if !args.quiet {
        screen.print(format!("{last}\n").as_bytes());
    }
    done
}

/// The last line: how long it took and what came of it.
fn closing(how: &str, now: &Snapshot) -> String {
    format!("{how} in {:.1} s: {}", now.elapsed.as_secs_f64(), progress::sum(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_in_a_configuration() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1.5 kB"), Ok(1_500));
        for text in ["", "64 apples", "-1", "MiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
