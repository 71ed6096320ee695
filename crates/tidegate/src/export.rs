//! `tidegate export`: a table or query of a database to files, with the engine that runs pipelines.
//!
//! Rows are read in ranges of the key, as many at a time as there are workers, each through the engine
//! to a file of its own: its positions and the file's length are kept beside the result until that is
//! whole, so that whatever ends an export, `--resume` goes on. At the end the files are joined in the
//! order of the key, and the result takes its name.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;

use tidegate::components::database::{RangeSource, check_names, own};
use tidegate::components::sinks::file;
use tidegate::db::postgres::{self, Config};
use tidegate::db::sqlite::{self, Mismatch};
use tidegate::db::{Consistency, Estimate, Reading, Relation, What};
use tidegate::engine::{Pipeline, Role, RunOptions, SinkOptions, Snapshot};
use tidegate::model::{Mistake, Settings, Source};

use self::job::Job;
use self::place::{Format, Place};
use crate::failed::Failed;
use crate::logging::Logs;
use crate::run::size;
use crate::screen::{Screen, Status};
use crate::{progress, session};

/// What is kept of an export until it is whole.
mod job;

/// Parts to one file.
mod join;

/// One process at a time.
mod lock;

/// Where the result goes, and what lies beside it meanwhile.
mod place;

/// How far it is.
mod status;

/// The row data in flight of each worker, where nothing is said.
const MEMORY_EACH: usize = 12 << 20;

/// Exports a table or query of a database to files
///
/// Rows are read page by page in the order of a key: the primary key, or the columns that --key names.
/// The result has its name when it is whole; what there is until then lies beside it, in a folder whose
/// name ends in .export, and --resume goes on from there, whatever ended the export. CSV is as psql's
/// \copy writes it, with a head.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The database: postgres://USER@HOST/DATABASE, or sqlite:FILE. A password is taken from
    /// PGPASSWORD or ~/.pgpass
    #[arg(value_name = "DATABASE")]
    database: String,
    /// What to export: one SELECT
    #[arg(long, value_name = "SQL", required_unless_present = "table", conflicts_with = "table")]
    query: Option<String>,
    /// What to export: a table or view
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Only rows that meet a condition in the database's SQL
    #[arg(long = "where", value_name = "SQL", allow_hyphen_values = true)]
    filter: Option<String>,
    /// The columns that order the rows, no two of which share all of them; default: the primary key
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    key: Vec<String>,
    /// The file to write, whose name says how: .csv, .ndjson or .parquet; or a folder, which gets
    /// Parquet parts
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// How rows are written, where the name does not say it
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How many ranges of the key are read at the same time, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    /// Go on with an export that was interrupted
    #[arg(long, conflicts_with_all = ["overwrite", "snapshot"])]
    resume: bool,
    /// Replace what there is under the name, and begin anew where an export was interrupted
    #[arg(long)]
    overwrite: bool,
    /// At most so many rows a second
    #[arg(long, value_name = "ROWS")]
    rate: Option<NonZeroU64>,
    /// See one moment: a transaction is held open at the server for as long as it takes, which keeps
    /// it from cleaning up in all tables; it can't be resumed
    #[arg(long)]
    snapshot: bool,
    /// How many rows a page has at most
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(20_000).unwrap_or(NonZeroUsize::MIN))]
    page_rows: NonZeroUsize,
    /// SQLite: what becomes of a value of another type than its column
    #[arg(long, value_enum, default_value_t = OnMismatch::Error)]
    mismatch: OnMismatch,
    /// CSV without a head
    #[arg(long)]
    no_header: bool,
    /// What is between values in CSV: , where nothing is said
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<String>,
    /// What stands for null in CSV: nothing, where nothing is said
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// Row data in flight; default: 12MiB for each worker
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<usize>,
    /// Show no progress and no last line
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    logs: Logs,
}

/// What becomes of a value that is not of its column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OnMismatch {
    /// The export ends
    Error,
    /// It becomes null
    Null,
    /// All of the column is text
    Text,
}

const EXAMPLES: &str = "\
Examples:
  tidegate export postgres://ann@db/shop --table orders --to orders.csv
  tidegate export postgres://ann@db/shop --query 'SELECT id, name FROM users' --to users.ndjson
  tidegate export postgres://ann@db/shop --table events --to events/ --workers 4
  tidegate export sqlite:app.db --table users --where 'id > 1000' --to users.parquet
  tidegate export postgres://ann@db/shop --table orders --to orders.csv --resume

Exit codes: 0 done, 1 failed or interrupted (--resume goes on), 2 wrong usage";

/// Exports, or goes on with it.
pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let screen = Arc::new(Screen::new());
    args.logs.start(Arc::clone(&screen))?;
    let place = Place::of(&args.to, args.format)?;
    let options = args.options(place.format)?;
    let mut signals = session::Signals::listen()?;
    // Asked for before anything is removed, and held until all is in its place.
    let lock = Arc::new(place.lock()?);
    place.is_free(args.resume, args.overwrite)?;
    let mut asked = args.asked(&place, &options);
    // What there is may make no sense, and is not read where it is not to be gone on with.
    let load = |path: PathBuf| if args.resume { Job::load(&path) } else { Ok(None) };
    if let Some(job) = load(place.whole_job())? {
        place.put(job.resumed(&asked)?.ranges.len())?;
        return finished(&args, &place, &screen, None);
    }
    let stopped = || Failed::data("stopped before it had begun to read");
    let relation = tokio::select! {
        relation = args.describe() => relation?,
        () = signals.next() => return Err(stopped()),
    };
    check_names(&*relation).map_err(|error| Failed::usage(format!("error: {error}")))?;
    asked.extend(args.asked_to_read(&relation));
    let begun = load(place.job())?;
    let is_new = begun.is_none();
    let job = match begun {
        Some(job) => job.resumed(&asked)?,
        None => tokio::select! {
            cuts = relation.split(args.ranges()) => Job::new(asked, &cuts.map_err(Failed::data)?),
            () = signals.next() => return Err(stopped()),
        },
    };
    let pipeline = args.pipeline(&place, &options, &relation, &job)?;
    if is_new {
        place.clean()?;
        job.save(&place.job())?;
    }
    let run = RunOptions { once: true, ..RunOptions::default() };
    let Some(running) = session::start(pipeline, run, &mut signals).await? else {
        return Err(args.interrupted("stopped"));
    };
    if !args.quiet {
        screen.show_status(Status::of_progress());
    }
    let ended = session::watch(running, &mut signals, &screen, None, status::line).await?;
    let summary = ended.outcome.map_err(|failure| args.interrupted(&failure.error.to_string()))?;
    if ended.stopped {
        return Err(args.interrupted("stopped"));
    }
    // Until here every part is whole; joined, they need nothing of what is beside them.
    let (joined, parts, held) = (place.clone(), job.ranges.len(), Arc::clone(&lock));
    let joined = tokio::task::spawn_blocking(move || {
        let done = joined.finish(parts);
        drop(held);
        done
    });
    tokio::select! {
        biased;
        joined = joined => joined.map_err(|error| args.interrupted(&error.to_string()))??,
        () = signals.next() => return Err(args.interrupted("stopped")),
    }
    finished(&args, &place, &screen, Some(&summary.snapshot))
}

/// The last line.
fn finished(
    args: &Args,
    place: &Place,
    screen: &Screen,
    now: Option<&Snapshot>,
) -> Result<(), Failed> {
    place.clean()?;
    if args.quiet {
        return Ok(());
    }
    let path = place.to.display();
    let line = match now {
        None => format!("{path} is whole: there was nothing left to do\n"),
        Some(now) => {
            let rows: u64 = now.of(Role::Sink).map(|sink| sink.rows).sum();
            let seconds = now.elapsed.as_secs_f64();
            format!(
                "exported {} rows to {path}{} in {seconds:.1} s: {} rows/s\n",
                progress::count(rows),
                place
                    .size()
                    .map_or_else(String::new, |size| format!(" ({})", progress::bytes(size))),
                progress::count((rows as f64 / seconds.max(0.001)).round() as u64),
            )
        }
    };
    screen.print(line.as_bytes());
    Ok(())
}

impl Args {
    fn interrupted(&self, why: &str) -> Failed {
        let next = match self.snapshot {
            false => "what is exported is kept: the same command with --resume goes on",
            true => {
                "of one moment there is no going on: the same command with --overwrite begins anew"
            }
        };
        Failed::data(format!("{why}\n{next}"))
    }

    fn reading(&self) -> Reading {
        let what = match (&self.query, &self.table) {
            (Some(query), _) => What::Query(query.clone()),
            (None, table) => What::Table(table.clone().unwrap_or_default()),
        };
        let key = Some(self.key.clone()).filter(|key| !key.is_empty());
        Reading { what, filter: self.filter.clone(), key }
    }

    /// Connects, and looks at what is to be exported.
    async fn describe(&self) -> Result<Arc<dyn Relation>, Failed> {
        let failed = |error: tidegate::db::Error| match error.may_heal() {
            true => Failed::data(error),
            false => Failed::usage(format!("error: {error}")),
        };
        let consistency = Consistency::of_snapshot(self.snapshot);
        let reading = self.reading();
        if self.database.starts_with("postgres://") || self.database.starts_with("postgresql://") {
            let database = postgres::Database::new(Config::parse(&self.database).map_err(failed)?);
            return Ok(database.describe(&reading, consistency).await.map_err(failed)?);
        }
        if let Some(path) = self.sqlite_path() {
            let database = sqlite::Database::new(path).mismatch(self.mismatch());
            return Ok(database.describe(&reading, consistency).await.map_err(failed)?);
        }
        Err(Failed::usage(format!(
            "error: {} is no database: write postgres://USER@HOST/DATABASE, or sqlite:FILE",
            self.shown()
        )))
    }

    fn mismatch(&self) -> Mismatch {
        match self.mismatch {
            OnMismatch::Error => Mismatch::Error,
            OnMismatch::Null => Mismatch::Null,
            OnMismatch::Text => Mismatch::Text,
        }
    }

    /// The database without a password.
    fn shown(&self) -> String {
        match Config::parse(&self.database) {
            Ok(config) => config.to_string(),
            Err(_) => self.database.clone(),
        }
    }

    /// What tells a database from others: whoever goes on may be in another folder, or search another
    /// schema.
    fn identity(&self) -> String {
        match (Config::parse(&self.database), self.sqlite_path().map(std::path::absolute)) {
            (Ok(config), _) => match &config.options {
                Some(options) => format!("{config} {options}"),
                None => config.to_string(),
            },
            (Err(_), Some(Ok(path))) => format!("sqlite:{}", path.display()),
            _ => self.database.clone(),
        }
    }

    fn sqlite_path(&self) -> Option<&str> {
        let path = self.database.strip_prefix("sqlite:").filter(|path| !path.is_empty())?;
        Some(path.strip_prefix("//").unwrap_or(path))
    }

    /// What CSV is written with, as settings.
    fn options(&self, format: Format) -> Result<String, Failed> {
        let csv_only = [
            ("--no-header", self.no_header),
            ("--delimiter", self.delimiter.is_some()),
            ("--null", self.null.is_some()),
        ];
        if let Some((option, _)) =
            csv_only.iter().find(|(_, given)| *given && format != Format::Csv)
        {
            return Err(Failed::usage(format!("error: {option} is for CSV alone: leave it out")));
        }
        let given = [("delimiter", &self.delimiter), ("null", &self.null)];
        let given = given.iter().filter_map(|(name, value)| {
            // A string of JSON is one of TOML.
            Some(format!(", {name} = {}", serde_json::to_string(value.as_ref()?).ok()?))
        });
        Ok(given.collect())
    }

    /// Into how many ranges rows are cut: no more than are read a second, for each reads one at least.
    fn ranges(&self) -> usize {
        let workers = usize::from(self.workers);
        self.rate
            .map_or(workers, |rate| workers.min(usize::try_from(rate.get()).unwrap_or(usize::MAX)))
    }

    /// All that must be the same when an export goes on.
    fn asked(&self, place: &Place, options: &str) -> Vec<(String, String)> {
        let Reading { what, filter, key } = self.reading();
        [
            ("the database", self.identity()),
            ("what is exported", format!("{what:?}")),
            ("--where", filter.unwrap_or_default()),
            ("--key", key.unwrap_or_default().join(",")),
            ("the format", format!("{:?}{options}, header {}", place.format, !self.no_header)),
            // What is known of the parts is known by their paths.
            ("--to", std::path::absolute(&place.to).unwrap_or_default().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// And what must be where there are rows left to read.
    fn asked_to_read(&self, relation: &Arc<dyn Relation>) -> [(String, String); 2] {
        let columns = own(&**relation);
        let columns =
            columns.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
        [
            ("--snapshot", self.snapshot.to_string()),
            ("the columns", Vec::from_iter(columns).join(", ")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// A source and a sink for each range.
    fn pipeline(
        &self,
        place: &Place,
        options: &str,
        relation: &Arc<dyn Relation>,
        job: &Job,
    ) -> Result<Pipeline, Failed> {
        let ranges = job.ranges.len();
        if let Some(rate) = self.rate.filter(|rate| rate.get() < ranges as u64) {
            return Err(Failed::usage(format!(
                "error: --rate {rate}: the export began with {ranges} ranges, each of which reads at \
                 least one row a second: add --rate {ranges}, or more"
            )));
        }
        let memory = self.memory.unwrap_or(MEMORY_EACH * ranges);
        let mut builder = Pipeline::builder().memory(memory).data_dir(place.state());
        for (index, range) in job.ranges.iter().enumerate() {
            let source = format!("rows-{index}");
            let rows: Box<dyn Source> = Box::new(RangeSource {
                relation: Arc::clone(relation),
                range: range.clone(),
                estimate: relation.estimate().map(|all| share(all, ranges)),
                page_rows: self.page_rows,
                rate: self.rate.map(|rate| each(rate, ranges)),
            });
            builder = builder.source(&source, rows);
            // Of parts that stay parts, each has a head.
            let header = !self.no_header && (index == 0 || place.is_folder);
            let settings = place.settings(index, ranges, header, options);
            let settings = Settings::from_toml(&settings).map_err(mistaken)?;
            let sink = (file::SPEC.build)(&settings).map_err(mistaken)?;
            let name = format!("part-{index}");
            builder = builder.sink(&name, &[source.as_str()], SinkOptions::default(), sink);
        }
        builder.build().map_err(|mistakes| {
            let first = mistakes.into_iter().next().map(|found| found.mistake);
            mistaken(first.unwrap_or_else(|| Mistake::new("it can't be planned")))
        })
    }
}

/// About how many rows each of so many ranges has.
fn share(all: Estimate, ranges: usize) -> Estimate {
    let rows = all.rows.div_ceil(ranges.max(1) as u64);
    Estimate { rows, is_exact: all.is_exact && ranges == 1 }
}

/// The share of a rate that each of so many ranges has.
fn each(rate: NonZeroU64, ranges: usize) -> NonZeroU64 {
    NonZeroU64::new(rate.get() / ranges.max(1) as u64).unwrap_or(NonZeroU64::MIN)
}

fn mistaken(mistake: Mistake) -> Failed {
    let help = mistake.help.map_or_else(String::new, |help| format!(": {help}"));
    Failed::usage(format!("error: {}{help}", mistake.message))
}
