//! `tidegate demo`: three live sources through one byte budget and a fair merge to two consumers,
//! one that must have everything and one that may miss some.

use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, future, stream};
use tidegate::flow::{
    BatchLimits, BudgetHolder, ByteBudget, Consumer, ConsumerGauge, FairMerge, FlowExt, Merged,
    Meter, NoRoom, Permit, Rate, Reading, WhenFull, nz,
};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};

/// Everything in flight fits in here.
const BUDGET_BYTES: usize = 256 * 1024;
/// No made-up line is longer.
const LINE_BYTES_MAX: usize = 256;
/// A batch is so many lines, or what came within the age.
const BATCH_AGE: Duration = Duration::from_millis(100);
/// How long the archive takes for a batch: enough to be the bottleneck now and then.
const ARCHIVE_LATENCY: Duration = Duration::from_millis(40);

/// Shows three live log sources on their way to two consumers, with nothing to install or configure
///
/// Lines of an app, a web server and a database are merged fairly and fanned out: the archive gets
/// every line and slows the sources when it is full; alerts show errors, four a second at the most,
/// and miss the oldest ones when there are more. Ctrl-C stops the sources and drains the rest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate demo\n  tidegate demo --for 10s\n  \
                        tidegate demo --for 1m --rate 200000")]
pub(crate) struct Args {
    /// How long to run, such as 30s or 2m; until Ctrl-C when left out
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// How many lines a second the three sources make together
    #[arg(long, default_value = "3000", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
}

/// Why the demo failed.
#[derive(Debug)]
pub(crate) enum Error {
    Output(io::Error),
    Budget(NoRoom),
    Lost { read: u64, archived: u64 },
    Interrupted,
}

impl Error {
    /// Whoever read our output has seen enough: no failure.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Error::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Output(error) => write!(f, "cannot write to the standard output: {error}"),
            Error::Budget(error) => write!(f, "{error}"),
            Error::Lost { read, archived } => {
                write!(f, "{read} lines were read, but {archived} archived: please report this")
            }
            Error::Interrupted => {
                f.write_str("stopped at the second Ctrl-C, before all was archived")
            }
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Output(error)
    }
}

impl From<NoRoom> for Error {
    fn from(error: NoRoom) -> Self {
        Error::Budget(error)
    }
}

/// One line, and the bytes it holds until its last copy is dropped.
#[derive(Clone, Debug)]
struct Line {
    source: &'static str,
    text: Arc<str>,
    _permit: Arc<Permit>,
}

impl Line {
    fn is_error(&self) -> bool {
        self.text.starts_with("ERROR")
    }
}

/// Runs until the time is over, or until Ctrl-C.
pub(crate) async fn run(args: Args, out: &mut impl Write) -> Result<(), Error> {
    let (stop, stopped) = watch::channel(false);
    let budget = ByteBudget::new(BUDGET_BYTES);
    let mut merge = FairMerge::new();
    for (source, share, make) in SOURCES {
        let lines = lines(source, args.rate as f64 * share, make, budget.holder(LINE_BYTES_MAX)?);
        merge.insert(source, lines.take_until(told(stopped.clone())).boxed());
    }
    let metered = merge.filter_map(item).meter_by(|line: &Line| line.text.len() as u64);
    let meter = metered.handle();
    let fan_out = metered.fan_out().report_to(meter.clone());
    let archive = fan_out.handle().subscribe(nz!(1_000), WhenFull::Block);
    let alerts = fan_out.handle().subscribe(nz!(50), WhenFull::DropOldest);
    let archived = AtomicU64::new(0);
    let screen = Screen { budget, meter, archived: &archived, alerts: alerts.gauge(), shown: 0 };
    let delivered = future::join(fan_out, store(archive, &archived)).map(drop);
    let time = match args.time {
        Some(time) => sleep(time).left_future(),
        None => future::pending().right_future(),
    };
    screen.run(out, alerts, delivered, time, stop).await
}

async fn told(mut stopped: watch::Receiver<bool>) {
    // An error says that the other side is gone: that means stop, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn item(merged: Merged<&'static str, Line>) -> Option<Line> {
    match merged {
        Merged::Item(_, line) => Some(line),
        Merged::Ended(_) => None,
    }
}

type MakeLine = fn(&mut fastrand::Rng) -> String;

/// Name, share of the rate, and what a line looks like.
const SOURCES: [(&str, f64, MakeLine); 3] = [
    ("app", 0.3, |random| {
        let (user, ms) = (random.u32(1..5_000), random.u32(1..900));
        match random.u8(0..100) {
            0 => format!("ERROR payment of user {user} failed: card declined after {ms} ms"),
            1..=5 => format!("WARN  user {user} waited {ms} ms for a session"),
            _ => format!("INFO  user {user} signed in within {ms} ms"),
        }
    }),
    ("web", 0.6, |random| {
        let (path, bytes) = (random.u32(1..400), random.u32(200..90_000));
        match random.u16(0..500) {
            0 => format!("ERROR GET /items/{path} 502 upstream closed the connection"),
            _ => format!("INFO  GET /items/{path} 200 {bytes} bytes"),
        }
    }),
    ("db", 0.1, |random| {
        let (id, ms) = (random.u32(..), random.u32(1..3_000));
        match random.u8(0..200) {
            0 => {
                format!("ERROR deadlock detected: process {id} waits for a row lock since {ms} ms")
            }
            _ => format!("LOG   duration: {ms} ms  statement: SELECT * FROM items WHERE id = {id}"),
        }
    }),
];

/// A source that makes so many lines a second, or fewer where nobody takes them.
fn lines(
    source: &'static str,
    rate: f64,
    make: MakeLine,
    holder: BudgetHolder,
) -> impl Stream<Item = Line> + Send {
    let mut random = fastrand::Rng::new();
    let per_hour = std::num::NonZeroU64::MIN.saturating_add((rate * 3600.0) as u64);
    stream::repeat_with(move || make(&mut random))
        .rate_limit(Rate::new(per_hour, Duration::from_secs(3600)), nz!(10))
        .budgeted(holder, LINE_BYTES_MAX, String::len)
        .map(move |(text, permit)| Line { source, text: text.into(), _permit: Arc::new(permit) })
}

/// Takes every line, in batches, two at a time.
async fn store(lines: Consumer<Line>, archived: &AtomicU64) {
    let batches = lines.batch(BatchLimits::rows(nz!(500)).age(BATCH_AGE));
    let stored = batches.concurrent_map(nz!(2), |batch| async move {
        sleep(ARCHIVE_LATENCY).await;
        batch.len() as u64
    });
    let count = |rows| {
        archived.fetch_add(rows, Ordering::Relaxed);
        future::ready(())
    };
    stored.for_each(count).await;
}

/// What is printed, and where it is read.
struct Screen<'a> {
    budget: ByteBudget,
    meter: Meter,
    archived: &'a AtomicU64,
    alerts: ConsumerGauge<Line>,
    shown: u64,
}

impl Screen<'_> {
    /// Prints alerts as they come and the state of the flow every second, until all is delivered.
    async fn run(
        mut self,
        out: &mut impl Write,
        alerts: Consumer<Line>,
        delivered: impl Future<Output = ()>,
        time: impl Future<Output = ()>,
        stop: watch::Sender<bool>,
    ) -> Result<(), Error> {
        let errors = alerts.filter(|line| future::ready(line.is_error()));
        let mut errors = pin!(errors.rate_limit(Rate::per_second(nz!(4)), nz!(4)));
        let (mut delivered, mut time) = (pin!(delivered), pin!(time));
        let mut seconds = interval(Duration::from_secs(1));
        seconds.tick().await;
        let start = Instant::now();
        let (mut before, mut stopping) = (Reading::default(), false);
        writeln!(
            out,
            "app, web and db logs -> {} KiB budget -> fair merge -> fan-out to the archive \
             (blocks) and to alerts (may miss some); Ctrl-C stops",
            BUDGET_BYTES / 1024
        )?;
        loop {
            tokio::select! {
                () = &mut delivered => return self.sum_up(out, start.elapsed()),
                () = &mut time, if !stopping => stopping = true,
                _ = tokio::signal::ctrl_c() => {
                    if stopping {
                        return Err(Error::Interrupted);
                    }
                    stopping = true;
                }
                Some(line) = errors.next() => {
                    self.shown += 1;
                    writeln!(out, "  alert from {:<3}  {}", line.source, line.text)?;
                }
                _ = seconds.tick() => before = self.print(out, start.elapsed(), before)?,
            }
            if stopping {
                stop.send_replace(true);
            }
        }
    }

    /// One line of what happened since the reading before.
    fn print(
        &self,
        out: &mut impl Write,
        elapsed: Duration,
        before: Reading,
    ) -> Result<Reading, Error> {
        let now = self.meter.read();
        let spent = |part: fn(&Reading) -> Duration| part(&now).saturating_sub(part(&before));
        let (idle, busy, blocked) =
            (spent(|read| read.idle), spent(|read| read.busy), spent(|read| read.blocked));
        let total = (idle + busy + blocked).max(Duration::from_nanos(1));
        let percent = |part: Duration| 100.0 * part.as_secs_f64() / total.as_secs_f64();
        let usage = self.budget.usage();
        writeln!(
            out,
            "{:>4} s  {:>7} rows/s  {:>6.2} MB/s  {:>3} KiB in flight (at most {})  idle {:>3.0} %  \
             busy {:>3.0} %  blocked by the archive {:>3.0} %",
            elapsed.as_secs_f64().round(),
            now.items - before.items,
            (now.bytes - before.bytes) as f64 / 1e6,
            usage.used / 1024,
            usage.peak.div_ceil(1024),
            percent(idle),
            percent(busy),
            percent(blocked),
        )?;
        out.flush()?;
        Ok(now)
    }

    /// The last line, and the check that nothing was lost.
    fn sum_up(&self, out: &mut impl Write, elapsed: Duration) -> Result<(), Error> {
        let (read, archived) = (self.meter.read().items, self.archived.load(Ordering::Relaxed));
        if read != archived {
            return Err(Error::Lost { read, archived });
        }
        writeln!(
            out,
            "done in {:.1} s: {read} lines read, {archived} archived, none lost; {} alerts shown, \
             {} lines missed by alerts",
            elapsed.as_secs_f64(),
            self.shown,
            self.alerts.dropped(),
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn output(args: Args) -> String {
        let mut out = Vec::new();
        run(args, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn everything_read_is_archived() {
        for rate in [1, 3_000, 100_000] {
            let out = output(Args { time: Some(Duration::from_secs(3)), rate }).await;
            assert!(out.contains("none lost"), "{out}");
            assert!(out.lines().filter(|line| line.contains("rows/s")).count() >= 2, "{out}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_above_the_archive_shows_as_blocked() {
        let out = output(Args { time: Some(Duration::from_secs(5)), rate: 100_000 }).await;
        let last = out.lines().rfind(|line| line.contains("rows/s")).unwrap();
        let blocked = last.rsplit("archive").next().unwrap().trim().trim_end_matches('%');
        assert!(blocked.trim().parse::<u32>().unwrap() > 50, "{out}");
    }
}
