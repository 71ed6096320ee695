//! `tidegate scan`: counts, filters, extracts and groups log files, with the engine, the sources and
//! the SQL of `run`. It writes nothing but what it prints.
//!
//! **Lanes.** Each thread reads files of its own, one after the other, and works on their rows; the
//! files are dealt out in turn, in the order of their paths, and standard input has a lane of its own.
//! What is printed is in that order, too: a lane that is ahead waits, and with it what it reads.

use std::collections::HashMap;
use std::io::{BufWriter, IsTerminal, Write};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate::components::sources::file::{Unread, files};
use tidegate::components::sources::stdin;
use tidegate::engine::{Builder, Pipeline, Role, RunOptions, SinkOptions, Snapshot, Store};
use tidegate::model::{Mistake, Settings, Sink, Source, Spanned, Transform};

use self::count::{CountSink, Counted};
use self::find::{Files, Input};
use self::groups::{GroupSink, Groups};
use self::print::{PrintSink, Printer};
use self::query::{Columns, Query};
use crate::failed::Failed;
use crate::logging::{Logs, SCAN_LEVEL};
use crate::screen::{Screen, Status, printable};
use crate::{progress, session};

/// How many rows there are.
mod count;

/// Which files there are.
mod find;

/// How many rows there are of each kind.
mod groups;

/// The rows, in the order of the files.
mod print;

/// What is asked, as SQL.
mod query;

/// How long what was read may take to be printed after Ctrl-C: a reader may stand still.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// So many of the files that can't be read are named.
const UNREAD_NAMED_MAX: usize = 20;

/// Counts, filters, extracts and groups the lines of log files
///
/// Reads files, directories with all that is in them, patterns and standard input, and prints lines
/// in the order of the files' paths. --where, --select and --by are SQL over the columns message,
/// level, severity, timestamp, source and metadata. Nothing is kept: no position, no state.
///
/// A file that can't be read fails the scan at its end, and so does a line longer than 1 MiB, which
/// is left out, or with --codec json one that is no JSON object; all others are read.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Files, directories, patterns such as "logs/**/*.log"; - or nothing for standard input
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Which lines: a SQL condition, such as "message LIKE '%ERROR%'"
    #[arg(long = "where", value_name = "SQL", allow_hyphen_values = true)]
    condition: Option<String>,
    /// What to print of each: SQL expressions, such as "timestamp, upper(level) AS level"
    #[arg(
        long,
        value_name = "SQL",
        allow_hyphen_values = true,
        conflicts_with_all = ["count", "by"]
    )]
    select: Option<String>,
    /// Print only how many there are
    #[arg(long)]
    count: bool,
    /// Count each kind: a column, or a SQL expression
    #[arg(long, value_name = "SQL", allow_hyphen_values = true)]
    by: Option<String>,
    /// How a line becomes a row. text: it is the message. auto: its time and level are found, and
    /// what a JSON line says. json: it is a JSON object; what is none is left out. syslog: it is a
    /// message of syslog. Default: auto where the SQL reads timestamp, level, severity or
    /// metadata, else text
    #[arg(long, value_enum)]
    codec: Option<Codec>,
    /// How rows are printed; default: text for one column, ndjson for several
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How many files are read at once, 1 to 64; default: as many as there are processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: Option<u8>,
    /// Stop after so many rows; with --by, show only so many groups
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroU64>,
    /// Which files of a directory, by how their names end: log,txt; "*" for all, such as syslog.
    /// Default: log, out, err, txt, jsonl, ndjson, rotated ones too (app.log.1)
    #[arg(long, value_name = "EXT", value_delimiter = ',')]
    ext: Vec<String>,
    /// Show no status
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    logs: Logs,
}

const EXAMPLES: &str = "\
Examples:
  tidegate scan app.log --where \"message LIKE '%ERROR%'\"
  tidegate scan /var/log --where \"message ~ 'user \\d+ .*timeout'\" --count
  tidegate scan app.log --by level
  tidegate scan 'logs/**/*.log' --by source --where \"severity >= severity('error')\"
  tidegate scan api.log --select \"timestamp, metadata['status'] AS status\" --limit 10
  kubectl logs my-pod | tidegate scan --by \"substr(message, 1, 20)\" --format ndjson

Exit codes: 0 done (found or not), 1 a file could not be read, 2 wrong usage or SQL";

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Codec {
    Text,
    Auto,
    Json,
    Syslog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Ndjson,
}

impl Codec {
    fn name(self) -> &'static str {
        match self {
            Codec::Text => "text",
            Codec::Auto => "auto",
            Codec::Json => "json",
            Codec::Syslog => "syslog",
        }
    }
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Ndjson => "ndjson",
        }
    }
}

impl Args {
    /// On how many threads it runs.
    pub(crate) fn threads(&self) -> NonZeroUsize {
        let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.and_then(|threads| NonZeroUsize::new(threads.into())).unwrap_or_else(all)
    }
}

/// What is printed at the end.
enum Outcome {
    /// Rows were, on the way.
    Printed,
    Count(Counted),
    Groups(Groups),
}

/// Reads everything once and prints what was asked for.
pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let screen = Arc::new(Screen::new());
    args.logs.start_at(SCAN_LEVEL, Arc::clone(&screen))?;
    let Files { inputs, mut problems } = find::find(&args.paths, &args.ext)?;
    let printing = !args.count && args.by.is_none();
    let lanes = lanes(&inputs, args.threads());
    let query = Query::new(&args, printing && lanes.len() > 1)?;
    let unread = Unread::default();
    let Plan { builder, outcome } = plan(&args, &query, &inputs, &lanes, &unread)?;
    if inputs.is_empty() {
        return told(&problems, &[]);
    }
    let pipeline = builder.shutdown_timeout(STOP_TIMEOUT).build().map_err(|mistakes| {
        let mistake = mistakes.into_iter().next().map(|found| found.mistake);
        query.failed(mistake.unwrap_or_else(|| Mistake::new("it can't be planned")))
    })?;
    let mut signals = session::Signals::listen()?;
    let store = Store::forgetful().map_err(Failed::data)?;
    let workers = args.threads().get().div_ceil(lanes.len());
    let workers = NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN);
    let options = RunOptions { once: true, workers, store: Some(store), ..RunOptions::default() };
    let running = pipeline.start(options).await.map_err(Failed::data)?;
    // Lines that are printed on the same terminal say enough.
    if !(args.quiet || printing && std::io::stdout().is_terminal()) {
        screen.show_status(Status::suiting(false));
    }
    let ended = session::watch(running, &mut signals, &screen, None, progress::once).await?;
    let mut failures = Vec::new();
    let snapshot = match ended.outcome {
        _ if ended.stopped => {
            failures.push("stopped before the end: the rest was not read".to_owned());
            None
        }
        Ok(summary) => Some(summary.snapshot),
        Err(failure) => {
            failures.push(failure.error.to_string());
            None
        }
    };
    match outcome.print(&args, &query) {
        Err(Failed::Data(said)) => failures.push(said),
        other => other?,
    }
    if let Some(now) = snapshot {
        let refused: u64 = now.of(Role::Source).map(|source| source.refused).sum();
        if refused > 0 {
            let count = progress::count(refused);
            let which = match args.codec {
                Some(Codec::Json) => "lines that are no JSON object, or longer than 1 MiB,",
                _ => "lines longer than 1 MiB",
            };
            failures.push(format!("{which} were left out: {count}"));
        }
        warn_of_rejects(&screen, &now);
    }
    problems.extend(unread.take());
    problems.sort_unstable();
    told(&problems, &failures)
}

/// What one thread reads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lane {
    Stdin,
    /// Files, by their place among all inputs, ascending.
    Files(Vec<usize>),
}

/// Files are dealt out in turn; nothing else comes beside standard input.
fn lanes(inputs: &[Input], threads: NonZeroUsize) -> Vec<Lane> {
    let stdin = usize::from(inputs.first() == Some(&Input::Stdin));
    let count = (threads.get() - stdin).max(1).min(inputs.len() - stdin);
    let files = (0..count).map(|lane| (stdin + lane..inputs.len()).step_by(count).collect());
    std::iter::repeat_n(Lane::Stdin, stdin).chain(files.map(Lane::Files)).collect()
}

struct Plan {
    builder: Builder,
    outcome: Outcome,
}

/// A source, perhaps a query, and a sink for each lane; one sink for all where rows are counted.
fn plan(
    args: &Args,
    query: &Query,
    inputs: &[Input],
    lanes: &[Lane],
    unread: &Unread,
) -> Result<Plan, Failed> {
    let transform = query.transform()?;
    let columns = query.columns(transform.as_ref())?;
    let codec = match (args.codec, columns.found) {
        (Some(Codec::Text), Some(column)) => {
            return Err(Failed::usage(format!(
                "error: --codec: text finds no {column} in a line: write --codec auto, or leave it out"
            )));
        }
        (Some(codec), _) => codec,
        (None, Some(_)) => Codec::Auto,
        (None, None) if columns.timed => Codec::Auto,
        (None, None) => Codec::Text,
    };
    let mut builder = Pipeline::builder();
    let mut ends = Vec::new();
    for (index, lane) in lanes.iter().enumerate() {
        let source_name =
            if *lane == Lane::Stdin { "stdin".into() } else { format!("files-{index}") };
        builder = builder.source(&source_name, source(lane, inputs, codec, unread)?);
        let mut end = source_name.clone();
        if let Some(transform) = &transform {
            end = format!("query-{index}");
            let transform: Box<dyn Transform> = Box::new(transform.clone());
            builder = builder.transform(&end, &[source_name.as_str()], transform);
        }
        ends.push(end);
    }
    let all: Vec<&str> = ends.iter().map(String::as_str).collect();
    if args.by.is_some() {
        let groups = Groups::new();
        let sink: Box<dyn Sink> = Box::new(GroupSink::new(&groups));
        let builder = builder.sink("groups", &all, SinkOptions::default(), sink);
        return Ok(Plan { builder, outcome: Outcome::Groups(groups) });
    }
    if args.count {
        let counted = Counted::new(args.limit);
        let sink: Box<dyn Sink> = Box::new(CountSink::new(&counted));
        let builder = builder.sink("count", &all, SinkOptions::default(), sink);
        return Ok(Plan { builder, outcome: Outcome::Count(counted) });
    }
    let format = format(args.format, &columns)?;
    let firsts = lanes.iter().map(|lane| lane.first());
    let printer = Printer::new(stdout(format)?, firsts.collect(), args.limit);
    for (index, (end, lane)) in all.iter().zip(lanes).enumerate() {
        let labels = lane.labels(inputs);
        let sink: Box<dyn Sink> = Box::new(PrintSink::new(&printer, index, labels));
        builder = builder.sink(&format!("print-{index}"), &[*end], SinkOptions::default(), sink);
    }
    Ok(Plan { builder, outcome: Outcome::Printed })
}

impl Lane {
    /// The place of its first input among all.
    fn first(&self) -> usize {
        match self {
            Lane::Stdin => 0,
            Lane::Files(files) => files.first().copied().unwrap_or(0),
        }
    }

    /// What the column `source` says of its inputs, and their places among all.
    fn labels(&self, inputs: &[Input]) -> HashMap<String, usize> {
        let places: &[usize] = match self {
            Lane::Stdin => &[0],
            Lane::Files(files) => files,
        };
        let labelled = |place: &usize| Some((inputs.get(*place)?.label(), *place));
        places.iter().filter_map(labelled).collect()
    }
}

fn source(
    lane: &Lane,
    inputs: &[Input],
    codec: Codec,
    unread: &Unread,
) -> Result<Box<dyn Source>, Failed> {
    let Lane::Files(places) = lane else {
        let text = format!("codec = {:?}", codec.name());
        let settings = Settings::from_toml(&text).map_err(mistaken)?;
        return (stdin::SPEC.build)(&settings).map_err(mistaken);
    };
    let path = |place: &usize| match inputs.get(*place) {
        Some(Input::File(path)) => Some(path.clone()),
        _ => None,
    };
    let codec = Spanned::new(0..0, codec.name().to_owned());
    let paths = places.iter().filter_map(path).collect();
    files(paths, Some(&codec), unread.clone()).map_err(mistaken)
}

fn stdout(format: Format) -> Result<Box<dyn Sink>, Failed> {
    use tidegate::components::sinks::stdout::SPEC;
    let text = format!("codec = {:?}", format.name());
    let settings = Settings::from_toml(&text).map_err(mistaken)?;
    (SPEC.build)(&settings).map_err(mistaken)
}

fn mistaken(mistake: Mistake) -> Failed {
    Failed::usage(format!("error: {}", mistake.message))
}

/// Text where there is one column.
fn format(asked: Option<Format>, columns: &Columns) -> Result<Format, Failed> {
    match (asked, columns.given) {
        (Some(Format::Text), given) if given > 1 => Err(Failed::usage(format!(
            "error: --format: text is for one column, and --select gives {given}: write --format \
             ndjson, or join them: concat_ws(' ', level, message)"
        ))),
        (Some(format), _) => Ok(format),
        (None, 0 | 1) => Ok(Format::Text),
        (None, _) => Ok(Format::Ndjson),
    }
}

impl Outcome {
    fn print(self, args: &Args, query: &Query) -> Result<(), Failed> {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let mut out = BufWriter::new(stdout.lock());
        match self {
            Outcome::Printed => {}
            Outcome::Count(counted) if args.format == Some(Format::Ndjson) => {
                writeln!(out, "{{\"count\":{}}}", counted.get())?;
            }
            Outcome::Count(counted) => writeln!(out, "{}", counted.get())?,
            Outcome::Groups(groups) => {
                let table = groups.table(query.by(), args.limit);
                match args.format {
                    Some(Format::Ndjson) => table.write_ndjson(query.by_is_number(), &mut out)?,
                    _ => table.write_text(terminal, &mut out)?,
                }
            }
        }
        Ok(out.flush()?)
    }
}

/// Rows that were left out, so that nobody takes the answer for more than it is.
fn warn_of_rejects(screen: &Screen, now: &Snapshot) {
    let rejected: u64 = now.of(Role::Transform).map(|query| query.rejected).sum();
    if rejected > 0 {
        let count = progress::count(rejected);
        let reason = now.of(Role::Transform).find_map(|query| query.reason.clone());
        let reason = printable(&reason.unwrap_or_default());
        let said = format!(
            "warning: rows left out, as the SQL can't be worked out for them: {count}; the first: \
             {reason}\n"
        );
        screen.print(said.as_bytes());
    }
}

/// All that went wrong, last.
fn told(unread: &[(PathBuf, String)], failures: &[String]) -> Result<(), Failed> {
    let named = unread.iter().take(UNREAD_NAMED_MAX);
    let mut lines: Vec<String> = named
        .map(|(path, why)| format!("can't read {}: {why}", printable(&path.to_string_lossy())))
        .collect();
    if let more @ 1.. = unread.len().saturating_sub(UNREAD_NAMED_MAX) {
        lines.push(format!("can't read {more} more"));
    }
    lines.extend_from_slice(failures);
    if lines.is_empty() { Ok(()) } else { Err(Failed::data(lines.join("\nerror: "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_dealt_out_in_turn() {
        let inputs: Vec<_> = (0..5).map(|n| Input::File(format!("{n}").into())).collect();
        let dealt = |inputs: &[Input], threads| lanes(inputs, NonZeroUsize::new(threads).unwrap());
        let files = |places: &[usize]| Lane::Files(places.to_vec());
        assert_eq!(dealt(&inputs, 2), [files(&[0, 2, 4]), files(&[1, 3])]);
        assert_eq!(dealt(&inputs, 9).len(), 5);
        assert!(dealt(&[], 1).is_empty());
        let piped: Vec<_> = [Input::Stdin].into_iter().chain(inputs).collect();
        assert_eq!(dealt(&piped, 1), [Lane::Stdin, files(&[1, 2, 3, 4, 5])]);
        assert_eq!(dealt(&piped, 3), [Lane::Stdin, files(&[1, 3, 5]), files(&[2, 4])]);
        assert_eq!(dealt(&piped[..1], 3), [Lane::Stdin]);
    }

    #[test]
    fn only_the_first_of_many_failures_are_named() {
        assert!(told(&[], &[]).is_ok());
        let problems: Vec<_> =
            (0..25).map(|n| (format!("{n:02}.log").into(), "no".to_owned())).collect();
        let Err(Failed::Data(said)) = told(&problems, &["last".to_owned()]) else {
            panic!("it fails")
        };
        assert!(said.starts_with("can't read 00.log: no\nerror: can't read 01.log"), "{said}");
        assert!(said.ends_with("19.log: no\nerror: can't read 5 more\nerror: last"), "{said}");
    }
}
