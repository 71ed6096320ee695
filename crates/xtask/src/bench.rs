//! `cargo xtask bench`: runs the benchmarks and keeps the raw result beside the processor's name.

use std::fs;
use std::thread::available_parallelism;

use crate::step::{Step, root, write};

/// Runs all, or those whose name has the filter in it; only a full run is kept.
pub(crate) fn run(filter: Option<&str>) -> Result<(), String> {
    let command = "cargo bench -p tidegate-flow --bench operators --";
    if let Some(filter) = filter {
        return Step { env: &[], command: &format!("{command} {filter}") }.run().map(drop);
    }
    let date = said("date -u +%F")?;
    let processor = processor();
    let folder = root().join("benches/runs").join(format!("{date}-{}", slug(&processor)));
    let raw = folder.join("operators.csv");
    write(&raw, "")?; // makes the folder
    let raw = raw.to_str().ok_or("the checkout's path is not UTF-8")?;
    let output = Step { env: &[], command: &format!("{command} --raw {raw}") }.run()?;
    let head = format!(
        "# {date}, {processor}, {} cores\n\n{}, commit {}\n\n",
        available_parallelism().map_or(0, usize::from),
        said("rustc --version")?,
        said("git describe --always --dirty")?,
    );
    let path = folder.join("operators.md");
    write(&path, &(head + &output))?;
    println!("\nkept in {}", path.display());
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
