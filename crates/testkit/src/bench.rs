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

/// The command line.
mod options;

/// Numbers of many rounds made one, and printed.
mod figures;

/// What the system tells of processors.
mod machine;

/// What is printed and kept of every pair.
mod report;

/// Whole programs as the sides of a pair.
pub mod programs;

use std::error::Error;
use std::fmt;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use figures::{Spread, median, nanoseconds};
use options::{Kind, Options};
use report::{Report, Verdict};

/// Rounds that are run and forgotten: caches, allocator, branch predictors, prepared inputs.
const WARM_UP_ROUNDS: usize = 2;

const KIND: Kind = Kind {
    rounds: 25,
    quick_rounds: 3,
    input: None,
    columns: "\
Columns: wall-clock nanoseconds an item and, after the slash, nanoseconds of CPU time of all
threads, medians of both sides; `ratio` is the median of the rounds' wall ratios (ours / theirs)
with its interquartile range; `more` is the median of the rounds' differences in ns an item.
",
};

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
    start(title, &KIND, |options| {
        let legend = format!("{} rounds a pair; ns an item: wall / CPU", options.rounds);
        let mut bench = Bench { report: Report::new(options, TABLE_HEADER) };
        bench.report.open(title, &legend);
        run(&mut bench)?;
        bench.report.finish()
    })
}

/// Reads the command line, and runs what it asks for.
fn start(
    title: &str,
    kind: &Kind,
    run: impl FnOnce(Options) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1), kind) {
        Ok(options) => options,
        Err(mistake) => {
            eprintln!("{mistake}; try --help");
            return ExitCode::from(2);
        }
    };
    if options.help {
        print!("{}", options::help(kind));
        return ExitCode::SUCCESS;
    }
    match run(options) {
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
    report: Report,
}

impl Bench {
    /// Begins a table; it is printed with its first row.
    pub fn section(&mut self, title: &str) {
        self.report.section(title);
    }

    /// Whether the filter lets a pair of this name run: to spare what is costly to prepare.
    pub fn wants(&self, name: &str) -> bool {
        self.report.wants(name)
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
        let items = self.report.options.items(items);
        for _ in 0..WARM_UP_ROUNDS {
            black_box(ours(black_box(items)));
            black_box(theirs(black_box(items)));
        }
        let rounds: Vec<Round> = (0..self.report.options.rounds)
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
        let summary = Summary::of(items, &rounds);
        let row = row(name, items, &summary, target);
        self.report.row(name, &row, summary.verdict(target));
        self.report.keep(name, items, &rounds);
    }
}

/// What one run of one side took, times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// By the clock.
    pub wall: f64,
    /// On processors, all threads together; `None` where the system doesn't tell.
    pub cpu: Option<f64>,
    /// The most memory that a process had at once, in bytes; `None` of what is none.
    pub peak: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Round {
    ours: Cost,
    theirs: Cost,
}

fn measure<R>(items: u64, side: &mut impl FnMut(u64) -> R) -> Cost {
    let cpu_before = machine::cpu_time();
    let start = Instant::now();
    black_box(side(black_box(items)));
    let wall = start.elapsed();
    let cpu = cpu_before.zip(machine::cpu_time());
    let cpu = cpu.map(|(before, after)| after.saturating_sub(before) as f64);
    Cost { wall: wall.as_nanos() as f64, cpu, peak: None }
}

/// The rounds of a pair, in nanoseconds an item.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    ours: f64,
    ours_cpu: Option<f64>,
    theirs: f64,
    theirs_cpu: Option<f64>,
    ratio: Spread,
    more: f64,
}

impl Summary {
    fn of(items: u64, rounds: &[Round]) -> Self {
        let each = |nanos: f64| nanos / items as f64;
        let walls = |side: fn(&Round) -> Cost| -> Vec<f64> {
            rounds.iter().map(|round| each(side(round).wall)).collect()
        };
        let cpu = |side: fn(&Round) -> Cost| -> Option<f64> {
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
            ratio: Spread::of(&ratios),
            more: median(&differences),
        }
    }

    fn verdict(&self, target: Target) -> Verdict {
        match target {
            Target::None => Verdict::Unjudged,
            Target::Ratio(most) => Verdict::of(self.ratio.median <= most),
            Target::More(most) => Verdict::of(self.more <= most),
        }
    }
}

const TABLE_HEADER: &str = "\
| pair | items | ours | theirs | ratio (IQR) | more | target | verdict |
|---|--:|--:|--:|--:|--:|--:|---|";

fn row(name: &str, items: u64, summary: &Summary, target: Target) -> String {
    format!(
        "| {name} | {items} | {} / {} | {} / {} | {} | {} | {target} | {} |",
        nanoseconds(summary.ours),
        summary.ours_cpu.map_or("n/a".to_owned(), nanoseconds),
        nanoseconds(summary.theirs),
        summary.theirs_cpu.map_or("n/a".to_owned(), nanoseconds),
        summary.ratio,
        nanoseconds(summary.more),
        summary.verdict(target),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ours: u32, theirs: u32) -> Round {
        let cost = |nanos| {
            let (wall, cpu) = (f64::from(nanos), Some(f64::from(nanos / 2)));
            Cost { wall, cpu, peak: None }
        };
        Round { ours: cost(ours), theirs: cost(theirs) }
    }

    #[test]
    fn a_summary_takes_ratios_round_by_round() {
        // The machine was slow in the second round: for both.
        let rounds = [round(110, 100), round(1_100, 1_000), round(120, 100)];
        let summary = Summary::of(10, &rounds);
        assert_eq!((summary.ours, summary.theirs), (12.0, 10.0));
        assert_eq!((summary.ours_cpu, summary.theirs_cpu), (Some(6.0), Some(5.0)));
        assert_eq!((summary.ratio.median, summary.more), (1.1, 2.0));
        assert_eq!((summary.ratio.low, summary.ratio.high), (1.1, (1.1 + 1.2) / 2.0));
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
    fn a_pair_runs_both_sides_in_turns() {
        let order = std::cell::RefCell::new(String::new());
        let note = |side| order.borrow_mut().push(side);
        let options = options::tests::options(&["--rounds", "3"]).unwrap();
        let mut bench = Bench { report: Report::new(options, TABLE_HEADER) };
        bench.section("test");
        bench.pair("both", 1, Target::None, |_| note('a'), |_| note('b'));
        assert_eq!(order.take(), "abababbaab");
        assert_eq!(bench.report.raw().lines().count(), 1 + 3);
    }
}
