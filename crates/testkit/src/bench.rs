//! The paired benchmark: both sides of a comparison in one run, interleaved, as a ratio.
//!
//! On a shared, noisy machine a time measured alone says little. Here the two sides of a pair take
//! turns (A B, B A, A B, …), each round gives a ratio, and what is printed is the median of the
//! ratios with its interquartile range: what disturbs the machine for longer than a round disturbs
//! both sides.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use tidegate_testkit::bench::{self, Target};
//!
//! fn main() -> ExitCode {
//!     bench::main("sums", |bench| {
//!         bench.section("against a loop");
//!         bench.pair(
//!             "sum of a range",
//!             100_000,
//!             Target::Ratio(1.1),
//!             |items| (0..items).map(std::hint::black_box).sum::<u64>(),
//!             |items| {
//!                 let mut sum = 0;
//!                 for item in 0..items {
//!                     sum += std::hint::black_box(item);
//!                 }
//!                 sum
//!             },
//!         );
//!         Ok(())
//!     })
//! }
//! ```

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 25;
const QUICK_ROUNDS: usize = 3;

/// Rounds that are run and forgotten: caches, allocator, branch predictors, prepared inputs.
const WARM_UP_ROUNDS: usize = 2;

/// What a quick run divides the items by.
const QUICK_DIVISOR: u64 = 50;

/// The kernel adds running time to a thread's account when it leaves the processor; a nap this long
/// makes it do so before the account is read.
const NAP: Duration = Duration::from_micros(50);

const HELP: &str = "\
usage: cargo bench [-p CRATE] [--bench NAME] -- [OPTIONS] [FILTER...]

Runs the pairs whose \"section: name\" contains every FILTER, and prints a Markdown table.

  --quick        few rounds of few items: a smoke run, no figures
  --rounds N     so many rounds of each pair (25)
  --raw FILE     also writes every round as CSV
  --help         this text

Columns: wall-clock nanoseconds an item and, after the slash, nanoseconds of CPU time of all
threads, medians of both sides; `ratio` is the median of the rounds' wall ratios (ours / theirs)
with its interquartile range; `more` is the median of the rounds' differences in ns an item.
";

/// What a pair has to reach, judged by the median over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Nothing: the numbers are for information.
    None,
    /// Ours takes at most so many times as long as theirs.
    Ratio(f64),
    /// Ours takes at most so many nanoseconds an item more than theirs.
    More(f64),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("-"),
            Self::Ratio(ratio) => write!(f, "≤ {ratio}×"),
            Self::More(more) => write!(f, "≤ {more} ns more"),
        }
    }
}

/// Runs a benchmark program: reads the command line, lets `run` measure its pairs, prints.
pub fn main(title: &str, run: impl FnOnce(&mut Bench) -> Result<(), Box<dyn Error>>) -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(mistake) => {
            eprintln!("{mistake}; try --help");
            return ExitCode::from(2);
        }
    };
    if options.help {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let mut bench = Bench::new(options);
    println!("## {title}\n\n{}", bench.preamble());
    match run(&mut bench).and_then(|()| bench.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{title}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A benchmark run: measures pairs and prints a row for each.
#[derive(Debug)]
pub struct Bench {
    options: Options,
    section: String,
    section_printed: bool,
    judged: usize,
    missed: Vec<String>,
    raw: String,
}

impl Bench {
    fn new(options: Options) -> Self {
        Self {
            options,
            section: String::new(),
            section_printed: false,
            judged: 0,
            missed: Vec::new(),
            raw: String::from(RAW_HEADER),
        }
    }

    /// Begins a table; it is printed with its first row.
    pub fn section(&mut self, title: &str) {
        title.clone_into(&mut self.section);
        self.section_printed = false;
    }

    /// Whether the filter lets a pair of this name run: to spare what is costly to prepare.
    pub fn wants(&self, name: &str) -> bool {
        self.options.wants(&self.section, name)
    }

    /// Measures a pair and prints its row. Each closure is told how many items to process, does
    /// exactly that, and returns something that depends on it.
    pub fn pair<A, B>(
        &mut self,
        name: &str,
        items: u64,
        target: Target,
        mut ours: impl FnMut(u64) -> A,
        mut theirs: impl FnMut(u64) -> B,
    ) {
        if !self.wants(name) {
            return;
        }
        let items = self.options.items(items);
        for _ in 0..WARM_UP_ROUNDS {
            black_box(ours(black_box(items)));
            black_box(theirs(black_box(items)));
        }
        let rounds: Vec<Round> = (0..self.options.rounds)
            .map(|round| {
                if round % 2 == 0 {
                    let ours = measure(items, &mut ours);
                    let theirs = measure(items, &mut theirs);
                    Round { ours, theirs }
                } else {
                    let theirs = measure(items, &mut theirs);
                    let ours = measure(items, &mut ours);
                    Round { ours, theirs }
                }
            })
            .collect();
        self.report(name, items, target, &rounds);
    }

    fn report(&mut self, name: &str, items: u64, target: Target, rounds: &[Round]) {
        if !std::mem::replace(&mut self.section_printed, true) {
            println!("\n### {}\n\n{TABLE_HEADER}", self.section);
        }
        let summary = Summary::of(items, rounds);
        println!("{}", row(name, items, &summary, target));
        match summary.verdict(target) {
            Verdict::Unjudged => {}
            Verdict::Reached => self.judged += 1,
            Verdict::Missed => {
                self.judged += 1;
                self.missed.push(format!("{}: {name}", self.section));
            }
        }
        for (number, round) in rounds.iter().enumerate() {
            raw_line(&mut self.raw, &self.section, name, items, number, round);
        }
    }

    fn preamble(&self) -> String {
        let Options { quick, rounds, .. } = self.options;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut text = format!(
            "{}, {cores} cores; {rounds} rounds a pair, both sides interleaved; ns an item: \
             wall / CPU",
            processor()
        );
        if quick {
            text.push_str("\n\n(`--quick`: a smoke run, these are no figures)");
        }
        if cfg!(debug_assertions) {
            text.push_str("\n\n(debug build: these are no figures)");
        }
        text
    }

    fn finish(self) -> Result<(), Box<dyn Error>> {
        let reached = self.judged - self.missed.len();
        println!("\n{reached} of {} targets reached", self.judged);
        for name in &self.missed {
            println!("- MISSED {name}");
        }
        if let Some(path) = &self.options.raw {
            fs::write(path, &self.raw)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    quick: bool,
    help: bool,
    rounds: usize,
    raw: Option<PathBuf>,
    filters: Vec<String>,
}

impl Options {
    fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rounds = None;
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => {} // what cargo itself adds
                "--quick" => options.quick = true,
                "--help" | "-h" => options.help = true,
                "--raw" => options.raw = Some(PathBuf::from(value()?)),
                "--rounds" => {
                    let number = value()?;
                    let parsed = number.parse().ok().filter(|rounds| *rounds > 0);
                    rounds = Some(parsed.ok_or(format!("--rounds {number} is no number"))?);
                }
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                filter => options.filters.push(filter.to_lowercase()),
            }
        }
        let usual = if options.quick { QUICK_ROUNDS } else { ROUNDS };
        options.rounds = rounds.unwrap_or(usual);
        Ok(options)
    }

    fn wants(&self, section: &str, name: &str) -> bool {
        let full = format!("{section}: {name}").to_lowercase();
        self.filters.iter().all(|filter| full.contains(filter))
    }

    fn items(&self, items: u64) -> u64 {
        if self.quick { (items / QUICK_DIVISOR).max(1) } else { items }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    wall: Duration,
    cpu: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Round {
    ours: Sample,
    theirs: Sample,
}

fn measure<R>(items: u64, side: &mut impl FnMut(u64) -> R) -> Sample {
    let cpu_before = cpu_time();
    let start = Instant::now();
    black_box(side(black_box(items)));
    let wall = start.elapsed();
    let cpu = cpu_before.zip(cpu_time()).map(|(before, after)| after.saturating_sub(before));
    Sample { wall, cpu }
}

/// CPU time of all living threads of this process; `None` where there is no Linux `/proc`. What a
/// thread used that ended meanwhile is missing: sides that need threads should keep them.
fn cpu_time() -> Option<Duration> {
    thread::sleep(NAP);
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task").ok()? {
        let account = fs::read_to_string(task.ok()?.path().join("schedstat")).ok();
        total += account.as_deref().map_or(Some(0), running_time)?;
    }
    Some(Duration::from_nanos(total))
}

/// The first number of a `schedstat`: nanoseconds on a processor.
fn running_time(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// The processor's name, or its architecture where the system doesn't tell.
fn processor() -> String {
    fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|info| model_name(&info))
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The middle of the values; NaN of none.
fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// A quantile, interpolated between the two nearest values; NaN of none.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = sorted.len().saturating_sub(1) as f64 * part;
    let below = place.floor();
    match sorted.get(below as usize..) {
        Some([low, high, ..]) => low + (high - low) * (place - below),
        Some([only]) => *only,
        _ => f64::NAN,
    }
}

/// The rounds of a pair, in nanoseconds an item.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    ours: f64,
    ours_cpu: Option<f64>,
    theirs: f64,
    theirs_cpu: Option<f64>,
    ratio: f64,
    ratio_quartiles: (f64, f64),
    more: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Unjudged,
    Reached,
    Missed,
}

impl Summary {
    fn of(items: u64, rounds: &[Round]) -> Self {
        let each = |time: Duration| time.as_nanos() as f64 / items as f64;
        let walls = |side: fn(&Round) -> Sample| -> Vec<f64> {
            rounds.iter().map(|round| each(side(round).wall)).collect()
        };
        let cpu = |side: fn(&Round) -> Sample| -> Option<f64> {
            let times = rounds.iter().map(|round| side(round).cpu.map(each));
            Some(median(&times.collect::<Option<Vec<f64>>>()?))
        };
        let (ours, theirs) = (walls(|round| round.ours), walls(|round| round.theirs));
        let pairs = || ours.iter().zip(&theirs);
        let ratios: Vec<f64> = pairs().map(|(ours, theirs)| ours / theirs).collect();
        let differences: Vec<f64> = pairs().map(|(ours, theirs)| ours - theirs).collect();
        Self {
            ours: median(&ours),
            ours_cpu: cpu(|round| round.ours),
            theirs: median(&theirs),
            theirs_cpu: cpu(|round| round.theirs),
            ratio: median(&ratios),
            ratio_quartiles: (quantile(&ratios, 0.25), quantile(&ratios, 0.75)),
            more: median(&differences),
        }
    }

    fn verdict(&self, target: Target) -> Verdict {
        let reached = match target {
            Target::None => return Verdict::Unjudged,
            Target::Ratio(most) => self.ratio <= most,
            Target::More(most) => self.more <= most,
        };
        if reached { Verdict::Reached } else { Verdict::Missed }
    }
}

const TABLE_HEADER: &str = "\
| pair | items | ours | theirs | ratio (IQR) | more | target | verdict |
|---|--:|--:|--:|--:|--:|--:|---|";

fn row(name: &str, items: u64, summary: &Summary, target: Target) -> String {
    let (low, high) = summary.ratio_quartiles;
    let verdict = match summary.verdict(target) {
        Verdict::Unjudged => "-",
        Verdict::Reached => "ok",
        Verdict::Missed => "MISSED",
    };
    format!(
        "| {name} | {items} | {} / {} | {} / {} | {} ({}–{}) | {} | {target} | \
         {verdict} |",
        nanoseconds(summary.ours),
        summary.ours_cpu.map_or("n/a".to_owned(), nanoseconds),
        nanoseconds(summary.theirs),
        summary.theirs_cpu.map_or("n/a".to_owned(), nanoseconds),
        times(summary.ratio),
        times(low),
        times(high),
        nanoseconds(summary.more),
    )
}

/// Three digits that mean something.
fn nanoseconds(value: f64) -> String {
    match value.abs() {
        small if small < 9.995 => format!("{value:.2}"),
        middle if middle < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Two decimals, or as many as it takes to show that it is not nothing.
fn times(ratio: f64) -> String {
    if ratio < 0.095 { format!("{ratio:.4}") } else { format!("{ratio:.2}") }
}

const RAW_HEADER: &str = "section,pair,items,round,\
    ours_wall_ns,theirs_wall_ns,ours_cpu_ns,theirs_cpu_ns\n";

fn raw_line(raw: &mut String, section: &str, name: &str, items: u64, number: usize, round: &Round) {
    let cpu = |time: Option<Duration>| time.map_or(String::new(), |t| t.as_nanos().to_string());
    let Round { ours, theirs } = round;
    // Writing to a string cannot fail.
    let _ = writeln!(
        raw,
        "\"{section}\",\"{name}\",{items},{number},{},{},{},{}",
        ours.wall.as_nanos(),
        theirs.wall.as_nanos(),
        cpu(ours.cpu),
        cpu(theirs.cpu),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ours: u64, theirs: u64) -> Round {
        let sample = |nanoseconds| Sample {
            wall: Duration::from_nanos(nanoseconds),
            cpu: Some(Duration::from_nanos(nanoseconds / 2)),
        };
        Round { ours: sample(ours), theirs: sample(theirs) }
    }

    fn options(args: &[&str]) -> Result<Options, String> {
        Options::parse(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn quantiles_lie_between_the_nearest_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[5.0, 1.0, 2.0, 3.0, 4.0], 0.25), 2.0);
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.75), 3.25);
        assert_eq!(quantile(&[7.0], 0.25), 7.0);
        assert_eq!(quantile(&[1.0, 2.0], 1.0), 2.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_summary_takes_ratios_round_by_round() {
        // The machine was slow in the second round: for both.
        let rounds = [round(110, 100), round(1_100, 1_000), round(120, 100)];
        let summary = Summary::of(10, &rounds);
        assert_eq!((summary.ours, summary.theirs), (12.0, 10.0));
        assert_eq!((summary.ours_cpu, summary.theirs_cpu), (Some(6.0), Some(5.0)));
        assert_eq!((summary.ratio, summary.more), (1.1, 2.0));
        assert_eq!(summary.ratio_quartiles, (1.1, (1.1 + 1.2) / 2.0));
    }

    #[test]
    fn a_row_says_whether_the_target_is_reached() {
        let mut summary = Summary::of(10, &[round(1_250, 1_000)]);
        assert_eq!(
            row("a", 10, &summary, Target::Ratio(1.1)),
            "| a | 10 | 125 / 62.5 | 100 / 50.0 | 1.25 (1.25–1.25) | 25.0 | ≤ 1.1× | MISSED |"
        );
        assert!(row("a", 10, &summary, Target::More(25.0)).ends_with("| ≤ 25 ns more | ok |"));
        assert!(row("a", 10, &summary, Target::More(24.9)).ends_with("| MISSED |"));
        summary.ours_cpu = None;
        assert_eq!(
            row("a", 10, &summary, Target::None),
            "| a | 10 | 125 / n/a | 100 / 50.0 | 1.25 (1.25–1.25) | 25.0 | - | - |"
        );
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.123, 9.996, 12.34, 99.96, -3.456, 1234.5].map(nanoseconds);
        assert_eq!(texts, ["0.12", "10.0", "12.3", "100", "-3.46", "1234"]);
        assert_eq!([0.00123, 0.5, 12.345].map(times), ["0.0012", "0.50", "12.35"]);
    }

    #[test]
    fn the_command_line_is_read() {
        let parsed = options(&["--bench", "--quick", "Merge", "10,000", "--raw", "x.csv"]).unwrap();
        assert!(parsed.quick && parsed.rounds == QUICK_ROUNDS);
        assert_eq!(parsed.raw, Some(PathBuf::from("x.csv")));
        assert!(parsed.wants("FairMerge", "10,000 inputs"));
        assert!(!parsed.wants("FairMerge", "100 inputs"));
        assert_eq!((parsed.items(5_000), parsed.items(3)), (100, 1));
        assert_eq!(options(&["--rounds", "7"]).unwrap().rounds, 7);
        assert_eq!(options(&[]).unwrap().rounds, ROUNDS);
        assert!(options(&["--help"]).unwrap().help);
        for wrong in [&["--rounds"][..], &["--rounds", "0"], &["--fast"]] {
            assert!(options(wrong).is_err());
        }
    }

    #[test]
    fn the_systems_files_are_read() {
        assert_eq!(running_time("554461556 4616071 80\n"), Some(554_461_556));
        assert_eq!(running_time(""), None);
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\nprocessor\t: 1\n";
        assert_eq!(model_name(cpuinfo).as_deref(), Some("AMD EPYC"));
        assert_eq!(model_name("nothing"), None);
    }

    #[test]
    fn a_pair_runs_both_sides_in_turns() {
        let order = std::cell::RefCell::new(String::new());
        let note = |side| order.borrow_mut().push(side);
        let mut bench = Bench::new(options(&["--rounds", "3"]).unwrap());
        bench.section("test");
        bench.pair("both", 1, Target::None, |_| note('a'), |_| note('b'));
        assert_eq!(order.take(), "abababbaab");
        assert_eq!(bench.raw.lines().count(), 1 + 3);
    }
}
