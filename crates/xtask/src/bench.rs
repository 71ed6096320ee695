//! `cargo xtask bench`: runs the benchmarks and keeps the raw result beside the processor's name.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use crate::peers;
use crate::step::{Step, root, write};

/// Every benchmark: its package and its name.
const BENCHMARKS: [(&str, &str); 6] = [
    ("tidegate-flow", "operators"),
    ("tidegate-net", "idle"),
    ("tidegate-net", "websocket"),
    ("tidegate", "spine"),
    ("tidegate", "live"),
    ("tidegate", "databases"),
];

/// Runs all, or the pairs whose name has the filter in it; only a full run is kept.
pub(crate) fn run(filter: Option<&str>) -> Result<(), String> {
    fetch_tools()?;
    peers::fetch()?;
    if let Some(filter) = filter {
        return each(|command, _| {
            Step { env: &[], command: &format!("{command} {filter}") }.run().map(drop)
        });
    }
    let date = said("date -u +%F")?;
    let processor = processor();
    let folder = root().join("benches/runs").join(format!("{date}-{}", slug(&processor)));
    let head = format!(
        "# {date}, {processor}, {} cores\n\n{}, commit {}\n\n",
        available_parallelism().map_or(0, usize::from),
        said("rustc --version")?,
        said("git describe --always --dirty")?,
    );
    each(|command, name| kept(command, &head, &folder.join(name)))
}

/// A run of each benchmark that shows only that it works.
pub(crate) fn smoke() -> Result<(), String> {
    each(|command, _| Step { env: &[], command: &format!("{command} --quick") }.run().map(drop))
}

/// Gets the programs that ours is compared with and that a system may lack, but for the tests' peers.
pub(crate) fn fetch_tools() -> Result<(), String> {
    peers::fetch_programs("the benchmarks", &[("rg --version", "ripgrep")])
}

/// Does something with the command and the name of each benchmark, up to the first failure.
fn each(mut run: impl FnMut(&str, &str) -> Result<(), String>) -> Result<(), String> {
    BENCHMARKS.iter().try_for_each(|(package, name)| {
        run(&format!("cargo bench -p {package} --bench {name} --"), name)
    })
}

/// Runs a benchmark, and keeps what it prints and every round.
fn kept(command: &str, head: &str, stem: &Path) -> Result<(), String> {
    let (page, raw) = (stem.with_extension("md"), stem.with_extension("csv"));
    write(&raw, "")?; // makes the folder
    let raw = raw.to_str().ok_or("the checkout's path is not UTF-8")?;
    let output = Step { env: &[], command: &format!("{command} --raw {raw}") }.run()?;
    write(&page, &(head.to_owned() + &output))?;
    println!("\nkept in {}", page.display());
    Ok(())
}

fn said(command: &str) -> Result<String, String> {
    Ok(Step { env: &[], command }.read()?.trim().to_owned())
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}

/// A name as a folder is named: lower case, with dashes.
fn slug(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_a_folder() {
        assert_eq!(slug("AMD EPYC(TM) 7B13 @ 2.4 GHz"), "amd-epyc-tm-7b13-2-4-ghz");
    }
}
