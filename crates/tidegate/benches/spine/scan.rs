//! `scan` against `rg` and `wc`: how fast lines are found.

use tidegate_testkit::bench::programs::{Clock, Goal, Programs, Side};

use crate::TIDEGATE;
use crate::inputs::Inputs;
use crate::log::LONG_BYTES;

/// A literal that one line in 100 has.
const ERROR: &str = "ERROR";

/// One line in 75,000 has it.
const RARE: &str = "checksum mismatch";

/// Every second line has it.
const FREQUENT: &str = " INFO ";

/// One line in 300 has it.
const LONGER: &str = "connection refused by upstream payments";

/// No line has it.
const NEVER: &str = "segmentation fault";

/// The year: every line has it.
const ALWAYS: &str = "2026";

/// A number and a word later in the line.
const REGEX: &str = r"user \d+ .*timeout";

pub(crate) fn run(bench: &mut Programs, inputs: &Inputs) {
    literals(bench, inputs);
    several(bench, inputs);
    others(bench, inputs);
    shapes(bench, inputs);
    more(bench, inputs);
}

/// `tidegate scan PATH --where PREDICATE --count --threads 1`.
pub(crate) fn count(path: &str, predicate: &str) -> Side {
    Side::counts(TIDEGATE, ["scan", path, "--where", predicate, "--count", "--threads", "1"])
}

/// The same, and what is more to be said.
fn count_with(path: &str, predicate: &str, more: &[&str]) -> Side {
    let args = ["scan", path, "--where", predicate, "--count"];
    Side::counts(TIDEGATE, args.iter().chain(more))
}

/// `rg -c OPTIONS... PATH`.
fn rg(options: &[&str], path: &str) -> Side {
    Side::counts("rg", ["-c"].iter().chain(options).chain(&[path])).may_find_nothing()
}

/// `message LIKE '%…%'` for each literal, joined by OR.
pub(crate) fn like(literals: &[&str]) -> String {
    let tests = literals.iter().map(|literal| format!("message LIKE '%{literal}%'"));
    tests.collect::<Vec<_>>().join(" OR ")
}

fn literals(bench: &mut Programs, inputs: &Inputs) {
    bench.section("one literal: scan --where \"message LIKE '%…%'\" --count --threads 1 vs rg -c");
    let goal = Goal::Speed(Clock::Wall, 0.5);
    for (name, literal) in [
        ("ERROR", ERROR),
        ("a rare one", RARE),
        ("a frequent one", FREQUENT),
        ("a longer one", LONGER),
    ] {
        bench.pair(name, goal, || {
            let log = inputs.mixed()?.arg();
            Ok((count(log, &like(&[literal])), rg(&[literal], log)))
        });
    }
    for (name, option) in [("ERROR vs rg -c --no-mmap", "--no-mmap"), ("ERROR vs rg -c -j1", "-j1")]
    {
        bench.pair(name, Goal::None, || {
            let log = inputs.mixed()?.arg();
            Ok((count(log, &like(&[ERROR])), rg(&[option, ERROR], log)))
        });
    }
}

fn several(bench: &mut Programs, inputs: &Inputs) {
    bench.section("two literals, none, all: scan … --count --threads 1 vs rg -c -e … -e …");
    let goal = Goal::Speed(Clock::Wall, 0.4);
    for (name, literals) in [
        ("ERROR or WARN", &[ERROR, "WARN"][..]),
        ("two rare ones", &[RARE, LONGER]),
        ("one that never occurs", &[NEVER]),
        ("two that never occur", &[NEVER, "bus error"]),
        ("one in every line", &[ALWAYS]),
    ] {
        bench.pair(name, goal, || {
            let log = inputs.mixed()?.arg();
            let patterns: Vec<&str> = literals.iter().flat_map(|one| ["-e", *one]).collect();
            Ok((count(log, &like(literals)), rg(&patterns, log)))
        });
    }
}

fn others(bench: &mut Programs, inputs: &Inputs) {
    bench.section("no literal: scan … --count --threads 1 vs wc -l, rg -c");
    let length = format!("octet_length(message) > {LONG_BYTES}");
    bench.pair(&format!("{length} vs wc -l"), Goal::Speed(Clock::Wall, 0.2), || {
        let log = inputs.mixed()?;
        let theirs = Side::counts("wc", ["-l", log.arg()]).known(log.facts.lines);
        Ok((count(log.arg(), &length).known(log.facts.long), theirs))
    });
    bench.pair("all rows vs wc -l", Goal::None, || {
        let log = inputs.mixed()?.arg();
        let ours = Side::counts(TIDEGATE, ["scan", log, "--count", "--threads", "1"]);
        Ok((ours, Side::counts("wc", ["-l", log])))
    });
    bench.pair(&format!("~ '{REGEX}' vs rg -c"), Goal::Speed(Clock::Wall, 0.5), || {
        let log = inputs.mixed()?.arg();
        Ok((count(log, &format!("message ~ '{REGEX}'")), rg(&[REGEX], log)))
    });
}

fn shapes(bench: &mut Programs, inputs: &Inputs) {
    bench.section("other shapes: scan --where \"message LIKE '%…%'\" --count --threads 1 vs rg -c");
    let goal = Goal::Speed(Clock::Wall, 0.5);
    bench.pair("JSON lines: ERROR", goal, || {
        let log = inputs.json()?.arg();
        Ok((count(log, &like(&[ERROR])), rg(&[ERROR], log)))
    });
    bench.pair("JSON lines: a longer one", goal, || {
        let log = inputs.json()?.arg();
        Ok((count(log, &like(&[LONGER])), rg(&[LONGER], log)))
    });
    bench.pair("lines of 20 to 2,000 bytes: ERROR", goal, || {
        let log = inputs.long()?.arg();
        Ok((count(log, &like(&[ERROR])), rg(&[ERROR], log)))
    });
    bench.pair("lines of 20 to 2,000 bytes: a frequent one", goal, || {
        let log = inputs.long()?.arg();
        Ok((count(log, &like(&[FREQUENT])), rg(&[FREQUENT], log)))
    });
}

fn more(bench: &mut Programs, inputs: &Inputs) {
    bench.section("auto: severity >= severity('error') vs LIKE '%ERROR%', both scan --count");
    let severe = "severity >= severity('error')";
    // At most three times the CPU time of the other.
    let goal = Goal::Speed(Clock::Cpu, 1.0 / 3.0);
    let auto = ["--threads", "1", "--codec", "auto"];
    bench.pair("application and access log", goal, || {
        let log = inputs.mixed()?.arg();
        Ok((count_with(log, severe, &auto), count(log, &like(&[ERROR]))))
    });
    bench.pair("JSON lines", Goal::None, || {
        let log = inputs.json()?.arg();
        Ok((count_with(log, severe, &auto), count(log, &like(&[ERROR]))))
    });

    bench.section("scan, for information");
    bench.pair("--codec auto --by level vs awk", Goal::None, || {
        let log = inputs.mixed()?;
        let args = ["scan", log.arg(), "--codec", "auto", "--by", "level", "--threads", "1"];
        let awk = ["{ n[$2]++ } END { for (level in n) print level, n[level] }", log.arg()];
        let errors = log.facts.errors;
        Ok((Side::mentions(TIDEGATE, args, errors), Side::mentions("awk", awk, errors)))
    });
    bench.pair("every second line printed vs rg", Goal::None, || {
        let log = inputs.mixed()?.arg();
        let args = ["scan", log, "--where", &like(&[FREQUENT]), "--threads", "1"];
        let ours = Side::prints(TIDEGATE, args, &inputs.path("ours.txt"));
        Ok((ours, Side::prints("rg", [FREQUENT, log], &inputs.path("theirs.txt"))))
    });
    bench.pair("eight files, two threads vs one", Goal::None, || {
        let folder = inputs.parts()?.to_str().unwrap_or_default();
        let two = count_with(folder, &like(&[ERROR]), &["--threads", "2"]);
        Ok((two, count(folder, &like(&[ERROR]))))
    });
    bench.pair("eight files, two threads vs rg -c -j2", Goal::None, || {
        let folder = inputs.parts()?.to_str().unwrap_or_default();
        let two = count_with(folder, &like(&[ERROR]), &["--threads", "2"]);
        Ok((two, rg(&["-j2", "--no-filename", "--no-ignore", ERROR], folder)))
    });
}
