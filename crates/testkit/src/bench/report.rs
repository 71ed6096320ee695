//! What is printed and kept of every pair: tables, verdicts, and all rounds as CSV.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::fs;

use super::options::Options;
use super::{Round, machine};

/// How a pair did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Unjudged,
    Reached,
    Missed,
}

impl Verdict {
    pub(super) fn of(reached: bool) -> Self {
        if reached { Self::Reached } else { Self::Missed }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unjudged => "-",
            Self::Reached => "ok",
            Self::Missed => "MISSED",
        })
    }
}

const RAW_HEADER: &str = "section,pair,items,round,\
    ours_wall_ns,theirs_wall_ns,ours_cpu_ns,theirs_cpu_ns,ours_peak_bytes,theirs_peak_bytes\n";

/// The report of a run. It holds every round until the end: a line each.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) options: Options,
    table_header: &'static str,
    section: String,
    section_printed: bool,
    judged: usize,
    missed: Vec<String>,
    failed: Vec<String>,
    raw: String,
}

impl Report {
    pub(super) fn new(options: Options, table_header: &'static str) -> Self {
        Self {
            options,
            table_header,
            section: String::new(),
            section_printed: false,
            judged: 0,
            missed: Vec::new(),
            failed: Vec::new(),
            raw: String::from(RAW_HEADER),
        }
    }

    /// Prints what stands above all tables.
    pub(super) fn open(&self, title: &str, legend: &str) {
        let (processor, cores) = (machine::processor(), machine::cores());
        println!("## {title}\n\n{processor}, {cores} cores; both sides interleaved, {legend}");
        if self.options.quick {
            println!("\n(`--quick`: a smoke run, these are no figures)");
        }
        if cfg!(debug_assertions) {
            println!("\n(debug build: these are no figures)");
        }
    }

    /// Begins a table; it is printed with its first row.
    pub(super) fn section(&mut self, title: &str) {
        title.clone_into(&mut self.section);
        self.section_printed = false;
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.options.wants(&self.section, name)
    }

    /// Prints a row, and counts it.
    pub(super) fn row(&mut self, name: &str, row: &str, verdict: Verdict) {
        self.print(row);
        self.judged += usize::from(verdict != Verdict::Unjudged);
        if verdict == Verdict::Missed {
            self.missed.push(format!("{}: {name}", self.section));
        }
    }

    /// A pair that could not be measured; the whole run fails at its end.
    pub(super) fn failure(&mut self, name: &str, error: &dyn Error) {
        self.print(&format!("| {name} | FAILED |"));
        self.failed.push(format!("{}: {name}: {error}", self.section));
    }

    fn print(&mut self, row: &str) {
        if !std::mem::replace(&mut self.section_printed, true) {
            println!("\n### {}\n\n{}", self.section, self.table_header);
        }
        println!("{row}");
    }

    /// Keeps the rounds of a pair.
    pub(super) fn keep(&mut self, name: &str, items: u64, rounds: &[Round]) {
        let told = |number: Option<f64>| number.map_or(String::new(), |known| known.to_string());
        for (number, Round { ours, theirs }) in rounds.iter().enumerate() {
            // Writing to a string cannot fail. A quote within quotes is doubled, as CSV wants it.
            let _ = writeln!(
                self.raw,
                "\"{}\",\"{}\",{items},{number},{},{},{},{},{},{}",
                self.section.replace('"', "\"\""),
                name.replace('"', "\"\""),
                ours.wall,
                theirs.wall,
                told(ours.cpu),
                told(theirs.cpu),
                told(ours.peak),
                told(theirs.peak),
            );
        }
    }

    /// Every round, as CSV.
    #[cfg(test)]
    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    /// Prints what came of it, and writes the rounds where they are wanted.
    pub(super) fn finish(self) -> Result<(), Box<dyn Error>> {
        let reached = self.judged - self.missed.len();
        println!("\n{reached} of {} targets reached", self.judged);
        for name in &self.missed {
            println!("- MISSED {name}");
        }
        for failed in &self.failed {
            println!("- FAILED {failed}");
        }
        if let Some(path) = &self.options.raw {
            fs::write(path, &self.raw)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        match self.failed.len() {
            0 => Ok(()),
            count => Err(format!("{count} pairs could not be measured, see above").into()),
        }
    }
}
