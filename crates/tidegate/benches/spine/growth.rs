//! What starting, a row more and a file more cost.

use std::fs;
use std::time::Duration;

use tidegate_testkit::bench::Cost;
use tidegate_testkit::bench::programs::{Clock, Goal, Outcome, Programs, Side};

use crate::inputs::{Input, Inputs};
use crate::run;
use crate::scan::{count, like};

/// The sizes between which the cost of a row is found out, in bytes.
const SMALL: u64 = 1_000_000;
const MIDDLE: u64 = 100_000_000;
const LARGE: u64 = 10_000_000_000;

/// What is taken where the disk has no room for more.
const LARGE_AT_LEAST: u64 = 2_000_000_000;

/// How often the small files are read in a round: one reading is short, and noisy.
const SMALL_RUNS: usize = 8;

pub(crate) fn run(bench: &mut Programs, inputs: &Inputs) -> Outcome {
    start(bench, inputs);
    files(bench, inputs);
    rows(bench, inputs)
}

fn start(bench: &mut Programs, inputs: &Inputs) {
    bench.section("start-up: an empty file");
    let goal = Goal::Within(Clock::Wall, Duration::from_millis(30));
    let empty = || -> Outcome<String> {
        let path = inputs.path("empty.log");
        fs::write(&path, "")?;
        Ok(path.to_str().unwrap_or_default().to_owned())
    };
    bench.pair("scan --count vs rg -c", goal, || {
        let log = empty()?;
        let theirs = Side::counts("rg", ["-c", "ERROR", &log]).may_find_nothing();
        Ok((count(&log, &like(&["ERROR"])), theirs))
    });
    bench.pair("run --once to a blackhole vs wc -l", goal, || {
        let log = empty()?;
        Ok((run::nothing(inputs, &log)?, Side::counts("wc", ["-l", &log]).known(0)))
    });
}

fn files(bench: &mut Programs, inputs: &Inputs) {
    bench.section("many small files vs one of the same size: scan … LIKE '%ERROR%' --count");
    let files = inputs.small_files_count();
    let predicate = like(&["ERROR"]);
    // At most twice the CPU time of the other.
    bench.pair(&format!("{files} files vs one"), Goal::Speed(Clock::Cpu, 0.5), || {
        let folder = inputs.small_files()?.to_str().unwrap_or_default();
        Ok((count(folder, &predicate), count(inputs.mixed()?.arg(), &predicate)))
    });
    bench.pair(&format!("{files} files vs rg -c -j1"), Goal::None, || {
        let folder = inputs.small_files()?.to_str().unwrap_or_default();
        let args = ["-c", "-j1", "--no-filename", "--no-ignore", "ERROR", folder];
        Ok((count(folder, &predicate), Side::counts("rg", args)))
    });
}

/// The large file is written only where a pair wants it, and is the last thing read: it drives the
/// others out of the page cache.
fn rows(bench: &mut Programs, inputs: &Inputs) -> Outcome {
    bench.section("a row more: what it costs from size to size, scan --count --threads 1");
    let large = inputs.scaled(LARGE);
    let large = if inputs.have_room_for(large)? { large } else { inputs.scaled(LARGE_AT_LEAST) };
    let sizes = [inputs.scaled(SMALL), inputs.scaled(MIDDLE), large];
    let [small, middle, large] = sizes.map(size);
    let files = std::cell::OnceCell::new();
    for (name, predicate) in
        [("octet_length", "octet_length(message) > 120"), ("LIKE", &like(&["ERROR"]))]
    {
        let name = format!("{name}, {middle} to {large} vs {small} to {middle}");
        bench.compared(&name, Goal::Even(Clock::Cpu, 1.3), || {
            if files.get().is_none() {
                let [small, middle, large] = sizes;
                let made = [
                    inputs.sized("small.log", small)?,
                    inputs.sized("middle.log", middle)?,
                    inputs.sized("large.log", large)?,
                ];
                let _ = files.set(made);
            }
            let Some([small, middle, large]) = files.get() else {
                return Err("the files of three sizes were lost".into());
            };
            let ours = move || row_more(predicate, middle, large, 1);
            Ok((ours, move || row_more(predicate, small, middle, SMALL_RUNS)))
        });
    }
    Ok(())
}

/// What a row more costs, found out between two sizes.
fn row_more(predicate: &str, smaller: &Input, larger: &Input, runs: usize) -> Outcome<Cost> {
    let mut sum = Cost { wall: 0.0, cpu: Some(0.0), peak: None };
    for _ in 0..runs {
        let less = count(smaller.arg(), predicate).cost()?;
        let more = count(larger.arg(), predicate).cost()?;
        sum.wall += more.wall - less.wall;
        let cpu = more.cpu.zip(less.cpu).map(|(more, less)| more - less);
        sum.cpu = sum.cpu.zip(cpu).map(|(sum, cpu)| sum + cpu);
        sum.peak = more.peak; // the same in each
    }
    let rows = runs as f64 * (larger.facts.lines - smaller.facts.lines) as f64;
    Ok(Cost { wall: sum.wall / rows, cpu: sum.cpu.map(|cpu| cpu / rows), peak: sum.peak })
}

/// A size, to be read.
fn size(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{} GB", bytes / 1_000_000_000),
        1_000_000.. => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} kB", bytes / 1_000),
    }
}
