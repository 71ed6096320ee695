//! `run --once` against `grep` and `cat`, and against itself.
//!
//! Ours starts with an empty `data_dir` each time, writes where it has got to, and waits until the
//! disk has the rows and that; `grep` and `cat` leave both to the kernel.

use std::fs;
use std::path::Path;

use tidegate_testkit::bench::programs::{Clock, Goal, Outcome, Programs, Side};

use crate::TIDEGATE;
use crate::inputs::Inputs;
use crate::scan::like;

/// Work for the processor: three functions, one of them a regular expression.
const HEAVY: &str =
    r"SELECT md5(upper(regexp_replace(message, '\d+', '#', 'g'))) AS message FROM input";

/// How much the CPU-heavy query gets.
const HEAVY_BYTES: u64 = 100_000_000;

pub(crate) fn run(bench: &mut Programs, inputs: &Inputs) {
    bench.section("run --once: file to text file");
    let errors = format!("SELECT message FROM input WHERE {}", like(&["ERROR"]));
    let filter = Sql { query: &errors, more: "" };
    for locale in ["C", "C.UTF-8"] {
        let name = format!("LIKE '%ERROR%' vs grep ERROR, LC_ALL={locale}");
        bench.pair(&name, Goal::Speed(Clock::Cpu, 0.4), || {
            let log = inputs.mixed()?;
            let theirs = Side::prints("grep", ["ERROR", log.arg()], &inputs.path("theirs.txt"));
            let ours = once(inputs, "ours", log.arg(), "text", Some(filter))?;
            Ok((ours, theirs.env("LC_ALL", locale)))
        });
    }
    bench.pair("no transform vs cat", Goal::Speed(Clock::Cpu, 0.25), || {
        let log = inputs.mixed()?;
        let theirs = Side::prints("cat", [log.arg()], &inputs.path("theirs.txt"));
        Ok((once(inputs, "ours", log.arg(), "text", None)?, theirs))
    });
    let severe = "SELECT message FROM input WHERE severity >= severity('error')";
    let severe = Sql { query: severe, more: "" };
    // At most three times the CPU time of the other.
    let goal = Goal::Speed(Clock::Cpu, 1.0 / 3.0);
    bench.pair("auto, severity >= severity('error') vs LIKE '%ERROR%'", goal, || {
        let log = inputs.mixed()?.arg();
        let auto = once(inputs, "auto", log, "auto", Some(severe))?;
        Ok((auto, once(inputs, "like", log, "text", Some(filter))?))
    });

    bench.section("run --once: CPU-heavy SQL");
    bench.pair("two workers vs one", Goal::Speed(Clock::Wall, 1.6), || {
        let bytes = inputs.scaled(HEAVY_BYTES);
        let log = inputs.sized("heavy.log", bytes)?;
        let workers = |name, more| {
            let heavy = Sql { query: HEAVY, more };
            once(inputs, name, log.arg(), "text", Some(heavy))
        };
        Ok((workers("two", "workers = 2")?, workers("one", "workers = 1")?))
    });
}

/// A transform.
#[derive(Clone, Copy)]
struct Sql<'q> {
    query: &'q str,
    /// Other lines of its table.
    more: &'q str,
}

/// `tidegate run --once` of a pipeline from one file to another, with nothing remembered.
fn once(
    inputs: &Inputs,
    name: &str,
    log: &str,
    codec: &str,
    sql: Option<Sql<'_>>,
) -> Outcome<Side> {
    let state = inputs.path(&format!("{name}.state"));
    let output = state.join("out.txt");
    let sink = format!("type = \"file\"\npath = '{}'\ncodec = \"text\"", output.display());
    let config = inputs.path(&format!("{name}.toml"));
    fs::write(&config, pipeline(&state, log, codec, sql, &sink))?;
    let args = ["run", config.to_str().unwrap_or_default(), "--once", "--quiet"];
    Ok(Side::writes(TIDEGATE, args, &output).fresh(&state))
}

/// The same of an empty file, to nowhere: what starting costs.
pub(crate) fn nothing(inputs: &Inputs, log: &str) -> Outcome<Side> {
    let (state, config) = (inputs.path("nothing.state"), inputs.path("nothing.toml"));
    fs::write(&config, pipeline(&state, log, "text", None, "type = \"blackhole\""))?;
    let args = ["run", config.to_str().unwrap_or_default(), "--once", "--quiet"];
    Ok(Side::silent(TIDEGATE, args).fresh(&state))
}

fn pipeline(state: &Path, log: &str, codec: &str, sql: Option<Sql<'_>>, sink: &str) -> String {
    let input = if sql.is_some() { "query" } else { "log" };
    let transform = sql.map_or(String::new(), |Sql { query, more }| {
        format!("\n[transforms.query]\ntype = \"sql\"\ninputs = [\"log\"]\n{more}\nquery = '''{query}'''\n")
    });
    format!(
        "data_dir = '{}'\n\n[sources.log]\ntype = \"file\"\ninclude = ['{log}']\n\
         codec = \"{codec}\"\n{transform}\n[sinks.out]\ninputs = [\"{input}\"]\n{sink}\n",
        state.display()
    )
}
