//! Whole programs as the sides of a pair, each a process of its own.
//!
//! Both sides give an answer, a number or a file, and the answers must be equal: a pair whose sides
//! disagree is no benchmark and fails. Figures are speeds, theirs' time / ours' time: above 1 we are
//! faster, at 0.5 we take twice as long.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use tidegate_testkit::bench::programs::{self, Clock, Goal, Side};
//!
//! fn main() -> ExitCode {
//!     programs::main("lines", |bench| {
//!         bench.tools(&[("grep", "grep"), ("wc", "coreutils")])?;
//!         bench.section("lines");
//!         bench.pair("all", Goal::Speed(Clock::Wall, 0.1), || {
//!             let ours = Side::counts("grep", ["-c", "", "/etc/services"]);
//!             Ok((ours, Side::counts("wc", ["-l", "/etc/services"])))
//!         });
//!         Ok(())
//!     })
//! }
//! ```

/// One side: a program, and what it must answer.
mod side;

/// One side that is a server.
mod served;

use std::cell::OnceCell;
use std::error::Error;
use std::fmt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::figures::{Spread, median, time, times};
use super::machine::Account;
use super::options::{Input, Kind};
use super::report::{Report, Verdict};
use super::{Cost, Round, start};

pub use served::Served;
pub use side::Side;

const KIND: Kind = Kind {
    rounds: 9,
    quick_rounds: 1,
    input: Some(Input { flag: "--mb", unit: "MiB", full: 512, quick: 2 }),
    columns: COLUMNS,
};

/// Of what takes a quarter of a minute.
const ROWS_KIND: Kind = Kind {
    rounds: 5,
    quick_rounds: 1,
    input: Some(Input { flag: "--rows", unit: "rows", full: 10_000_000, quick: 20_000 }),
    columns: COLUMNS,
};

const COLUMNS: &str = "\
Columns: wall clock and, after the slash, CPU time (user and system) of each side, medians; `speed`
is theirs' time / ours' time, by the clock and by CPU time: the median of the rounds' ratios with its
interquartile range (2.00: we take half as long, 0.50: twice as long); `peak` is the most memory that
each side had at once, in MiB, in any round; `others` is the part of all processors that other
processes used meanwhile.
";

const TABLE_HEADER: &str = "\
| pair | ours | theirs | speed, wall (IQR) | speed, CPU (IQR) | peak, ours / theirs | others | goal \
| verdict |
|---|--:|--:|--:|--:|--:|--:|--:|---|";

/// What can go wrong with a side, or before.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What is in the cell, made if it was empty: for what is costly and not every pair needs.
///
/// # Errors
///
/// Where it can't be made; the cell is empty then.
pub fn kept<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Outcome<T>) -> Outcome<&T> {
    if cell.get().is_none() {
        let made = make()?;
        return Ok(cell.get_or_init(|| made));
    }
    cell.get().ok_or_else(|| "what was made is lost".into())
}

/// Which time is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clock {
    /// From the start to the end.
    Wall,
    /// User and system time of the process, all threads together.
    Cpu,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wall => "wall",
            Self::Cpu => "CPU",
        })
    }
}

/// What a pair has to reach, judged by the median over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Nothing: the numbers are for information.
    None,
    /// Ours has at least so many times theirs' speed.
    Speed(Clock, f64),
    /// Neither side has more than so many times the other's speed.
    Even(Clock, f64),
    /// Ours takes at most so long.
    Within(Clock, Duration),
    /// Ours never has more than so many MiB.
    Peak(u64),
    /// [`Speed`](Self::Speed) and [`Peak`](Self::Peak).
    SpeedAndPeak(Clock, f64, u64),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("-"),
            Self::Speed(clock, least) => write!(f, "{clock} ≥ {}", times(*least)),
            Self::Even(clock, most) => write!(f, "{clock} within {most}×"),
            Self::Within(clock, most) => write!(f, "{clock} ≤ {} ms", most.as_millis()),
            Self::Peak(most) => write!(f, "≤ {most} MiB"),
            Self::SpeedAndPeak(clock, least, most) => {
                write!(f, "{}, {}", Self::Speed(*clock, *least), Self::Peak(*most))
            }
        }
    }
}

/// Runs a benchmark program: reads the command line, lets `run` measure its pairs, prints.
///
/// Inputs are so many MiB as `--mb` says.
pub fn main(title: &str, run: impl FnOnce(&mut Programs) -> Outcome) -> ExitCode {
    main_of(title, &KIND, run)
}

/// The same with inputs of so many rows as `--rows` says.
pub fn main_of_rows(title: &str, run: impl FnOnce(&mut Programs) -> Outcome) -> ExitCode {
    main_of(title, &ROWS_KIND, run)
}

fn main_of(title: &str, kind: &Kind, run: impl FnOnce(&mut Programs) -> Outcome) -> ExitCode {
    let unit = kind.input.map_or("", |input| input.unit);
    start(title, kind, |options| {
        let legend = format!(
            "rounds a pair, after one of warm-up: {}; inputs of {} {unit}; wall / CPU time, speed = \
             theirs' time / ours' time",
            options.rounds, options.input
        );
        let mut bench = Programs { report: Report::new(options, TABLE_HEADER) };
        bench.report.open(title, &legend);
        run(&mut bench)?;
        bench.report.finish()
    })
}

/// A benchmark run: measures pairs of programs and prints a row for each.
#[derive(Debug)]
pub struct Programs {
    report: Report,
}

impl Programs {
    /// Begins a table; it is printed with its first row.
    pub fn section(&mut self, title: &str) {
        self.report.section(title);
    }

    /// How many MiB an input is to have, or rows.
    pub fn input(&self) -> u64 {
        self.report.options.input
    }

    /// Looks for the programs that are needed, each with the package that has it, and prints their
    /// versions.
    ///
    /// # Errors
    ///
    /// Where one is not installed, with the command that installs it.
    pub fn tools(&self, tools: &[(&str, &str)]) -> Outcome {
        println!();
        for (tool, package) in tools {
            let version = Command::new(tool).arg("--version").stdin(Stdio::null()).output();
            let version = version.map_err(|error| {
                format!("cannot run `{tool}` ({error}); install it: apt-get install -y {package}")
            })?;
            let said = String::from_utf8_lossy(&version.stdout);
            println!("- `{tool}`: {}", said.lines().next().unwrap_or("tells no version"));
        }
        Ok(())
    }

    /// Measures a pair of programs and prints its row. The sides are made only where the filter
    /// lets the pair run.
    pub fn pair(&mut self, name: &str, goal: Goal, sides: impl FnOnce() -> Outcome<(Side, Side)>) {
        self.costs(name, goal, || {
            let (mut ours, mut theirs) = sides()?;
            Ok(move |ours_first: bool| {
                let (our, their) = if ours_first {
                    let our = ours.run()?;
                    (our, theirs.run()?)
                } else {
                    let their = theirs.run()?;
                    (ours.run()?, their)
                };
                side::compare(&our.answer, &their.answer)?;
                Ok(Round { ours: our.cost, theirs: their.cost })
            })
        });
    }

    /// Measures what two things cost of which each is found out by more than one run of a program:
    /// the closures that `sides` makes do those runs.
    pub fn compared<A, B>(
        &mut self,
        name: &str,
        goal: Goal,
        sides: impl FnOnce() -> Outcome<(A, B)>,
    ) where
        A: FnMut() -> Outcome<Cost>,
        B: FnMut() -> Outcome<Cost>,
    {
        self.costs(name, goal, || {
            let (mut ours, mut theirs) = sides()?;
            Ok(move |ours_first: bool| {
                if ours_first {
                    let ours = ours()?;
                    Ok(Round { ours, theirs: theirs()? })
                } else {
                    let theirs = theirs()?;
                    Ok(Round { ours: ours()?, theirs })
                }
            })
        });
    }

    fn costs<R>(&mut self, name: &str, goal: Goal, prepare: impl FnOnce() -> Outcome<R>)
    where
        R: FnMut(bool) -> Outcome<Round>,
    {
        if !self.report.wants(name) {
            return;
        }
        let rounds = self.report.options.rounds;
        let measured = prepare().and_then(|mut round| {
            round(true)?; // warms the page cache up
            let then = Account::now();
            let rounds = (0..rounds).map(|number| round(number % 2 == 0));
            let rounds = rounds.collect::<Outcome<Vec<Round>>>()?;
            let others = Account::now().zip(then).map(|(now, then)| now.used_by_others(&then));
            Ok((rounds, others))
        });
        match measured {
            Ok((rounds, others)) => {
                let summary = Summary::of(&rounds, others);
                // Of small inputs nearly all is start-up.
                let judged = !self.report.options.quick;
                let verdict = if judged { summary.verdict(goal) } else { Verdict::Unjudged };
                self.report.row(name, &row(name, &summary, goal, verdict), verdict);
                self.report.keep(name, 1, &rounds);
            }
            Err(error) => self.report.failure(name, &*error),
        }
    }
}

/// The rounds of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    wall: Times,
    cpu: Option<Times>,
    /// Of each side, in bytes.
    peaks: [Option<f64>; 2],
    others: Option<f64>,
}

/// The same, by one clock.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    ours: f64,
    theirs: f64,
    speed: Spread,
}

impl Summary {
    fn of(rounds: &[Round], others: Option<f64>) -> Self {
        let wall = |cost: Cost| Some(cost.wall);
        // There is always a wall time.
        let none = Times { ours: f64::NAN, theirs: f64::NAN, speed: Spread::of(&[]) };
        Self {
            wall: Times::of(rounds, wall).unwrap_or(none),
            cpu: Times::of(rounds, |cost| cost.cpu),
            peaks: [most(rounds, |round| round.ours), most(rounds, |round| round.theirs)],
            others,
        }
    }

    fn verdict(&self, goal: Goal) -> Verdict {
        self.reaches(goal).map_or(Verdict::Unjudged, Verdict::of)
    }

    /// Whether a goal is reached, where there is one and the system tells.
    fn reaches(&self, goal: Goal) -> Option<bool> {
        let by = |clock| match clock {
            Clock::Wall => Some(self.wall),
            Clock::Cpu => self.cpu,
        };
        Some(match goal {
            Goal::None => return None,
            Goal::Speed(clock, least) => by(clock)?.speed.median >= least,
            Goal::Even(clock, most) => (1.0 / most..=most).contains(&by(clock)?.speed.median),
            Goal::Within(clock, most) => by(clock)?.ours <= most.as_nanos() as f64,
            Goal::Peak(most) => self.peaks[0]? <= most as f64 * MIB,
            Goal::SpeedAndPeak(clock, least, most) => {
                self.reaches(Goal::Speed(clock, least))? && self.reaches(Goal::Peak(most))?
            }
        })
    }
}

impl Times {
    fn of(rounds: &[Round], time: impl Fn(Cost) -> Option<f64>) -> Option<Self> {
        let times = rounds.iter().map(|round| Some((time(round.ours)?, time(round.theirs)?)));
        let (ours, theirs): (Vec<f64>, Vec<f64>) = times.collect::<Option<_>>()?;
        let speeds: Vec<f64> = ours.iter().zip(&theirs).map(|(our, their)| their / our).collect();
        Some(Self { ours: median(&ours), theirs: median(&theirs), speed: Spread::of(&speeds) })
    }
}

const MIB: f64 = (1 << 20) as f64;

/// The largest peak of a side.
fn most(rounds: &[Round], side: fn(&Round) -> Cost) -> Option<f64> {
    rounds.iter().filter_map(|round| side(round).peak).reduce(f64::max)
}

fn row(name: &str, summary: &Summary, goal: Goal, verdict: Verdict) -> String {
    let Summary { wall, cpu, peaks, others } = summary;
    let [our_peak, their_peak] = peaks.map(|peak| peak.map(|bytes| format!("{:.0}", bytes / MIB)));
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "n/a".to_owned());
    format!(
        "| {name} | {} / {} | {} / {} | {} | {} | {} / {} | {} | {goal} | {verdict} |",
        time(wall.ours),
        or_none(cpu.map(|cpu| time(cpu.ours))),
        time(wall.theirs),
        or_none(cpu.map(|cpu| time(cpu.theirs))),
        wall.speed,
        or_none(cpu.map(|cpu| cpu.speed.to_string())),
        or_none(our_peak),
        or_none(their_peak),
        or_none(others.map(|part| format!("{:.0} %", part * 100.0))),
    )
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::options;
    use super::*;

    fn bench() -> Programs {
        Programs { report: Report::new(options(&["--rounds", "3"]).unwrap(), TABLE_HEADER) }
    }

    fn shell(script: &str) -> Side {
        Side::counts("sh", ["-c", script])
    }

    #[test]
    fn a_row_shows_speeds_and_judges_the_clock_it_is_told() {
        let cost = |wall, cpu, peak| Cost { wall, cpu: Some(cpu), peak };
        let round = |peak| Round {
            ours: cost(20e6, 40e6, Some(peak * MIB)),
            theirs: cost(10e6, 10e6, None),
        };
        let summary = Summary::of(&[round(64.0), round(60.0)], Some(0.034));
        assert_eq!(
            row("a", &summary, Goal::Speed(Clock::Wall, 0.5), Verdict::Reached),
            "| a | 20.0 ms / 40.0 ms | 10.0 ms / 10.0 ms | 0.50 (0.50–0.50) | 0.25 (0.25–0.25) \
             | 64 / n/a | 3 % | wall ≥ 0.50 | ok |"
        );
        let judged = |goal| summary.verdict(goal);
        assert_eq!(judged(Goal::Speed(Clock::Wall, 0.51)), Verdict::Missed);
        assert_eq!(judged(Goal::Speed(Clock::Cpu, 0.25)), Verdict::Reached);
        assert_eq!(judged(Goal::Even(Clock::Wall, 2.0)), Verdict::Reached);
        assert_eq!(judged(Goal::Even(Clock::Cpu, 2.0)), Verdict::Missed);
        assert_eq!(judged(Goal::Within(Clock::Wall, Duration::from_millis(20))), Verdict::Reached);
        assert_eq!(judged(Goal::Within(Clock::Cpu, Duration::from_millis(39))), Verdict::Missed);
        assert_eq!(judged(Goal::None), Verdict::Unjudged);
        assert_eq!(judged(Goal::Peak(64)), Verdict::Reached);
        assert_eq!(judged(Goal::Peak(63)), Verdict::Missed);
        assert_eq!(judged(Goal::SpeedAndPeak(Clock::Wall, 0.5, 63)), Verdict::Missed);
        assert_eq!(judged(Goal::SpeedAndPeak(Clock::Wall, 0.6, 64)), Verdict::Missed);
        let both = Goal::SpeedAndPeak(Clock::Wall, 0.5, 64);
        assert_eq!(
            (judged(both), both.to_string()),
            (Verdict::Reached, "wall ≥ 0.50, ≤ 64 MiB".into())
        );
    }

    #[test]
    fn sides_take_turns_and_are_measured() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let note = |side| shell(&format!("echo {side} >> '{}'; echo 3", log.display()));
        let mut bench = bench();
        bench.pair("both", Goal::None, || Ok((note("a"), note("b"))));
        assert!(bench.report.finish().is_ok());
        let order = std::fs::read_to_string(log).unwrap().replace('\n', "");
        assert_eq!(order, "ababbaab");
    }

    #[test]
    fn a_pair_whose_sides_disagree_fails_the_run() {
        let mut bench = bench();
        bench.pair("equal", Goal::None, || Ok((shell("echo 3"), shell("echo 3 x"))));
        bench.pair("unequal", Goal::None, || Ok((shell("echo 3"), shell("echo 4"))));
        bench.pair("broken", Goal::None, || Ok((shell("echo 3"), shell("echo 3; exit 2"))));
        let error = bench.report.finish().unwrap_err().to_string();
        assert!(error.starts_with("2 pairs"), "{error}");
    }

    #[test]
    fn a_filter_spares_what_is_costly_to_prepare() {
        let options = options(&["wanted"]).unwrap();
        let mut bench = Programs { report: Report::new(options, TABLE_HEADER) };
        bench.pair("other", Goal::None, || panic!("it is not wanted"));
        assert!(bench.report.finish().is_ok());
    }

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let error = bench().tools(&[("sh", "dash"), ("no-such-tool", "tools")]).unwrap_err();
        assert!(error.to_string().ends_with("install it: apt-get install -y tools"), "{error}");
    }
}
