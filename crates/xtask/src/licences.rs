//! `cargo xtask licences`: every dependency may be used under a licence that fits ours.

use std::collections::BTreeSet;

use crate::step::Step;

/// What fits MIT OR Apache-2.0.
const FITS: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Zlib",
];

/// Asks cargo for all dependencies and their licences.
pub(crate) fn run() -> Result<(), String> {
    let command = "cargo tree --workspace --all-features --edges normal,build,dev \
                   --prefix none --no-dedupe --format {p}|{l}";
    let output = Step { env: &[], command }.read()?;
    let complaints: BTreeSet<String> = output.lines().filter_map(complaint).collect();
    if complaints.is_empty() {
        println!("the licences of all dependencies fit");
        return Ok(());
    }
    let complaints: Vec<String> = complaints.into_iter().collect();
    Err(format!("these licences don't fit MIT OR Apache-2.0:\n  {}", complaints.join("\n  ")))
}

fn complaint(line: &str) -> Option<String> {
    let (package, licence) = line.trim_end_matches(" (*)").split_once('|')?;
    (!fits(licence)).then(|| format!("{package}: `{licence}`"))
}

/// An SPDX expression as they occur: `OR` (or the old `/`) of `AND`s, with brackets.
fn fits(expression: &str) -> bool {
    let expression = expression.replace(['(', ')'], "").replace('/', " OR ");
    if expression.contains(" AND ") && expression.contains(" OR ") {
        // Mixed, so read strictly: each name in it must fit.
        return expression.split(" AND ").flat_map(|part| part.split(" OR ")).all(named);
    }
    expression.split(" OR ").any(|part| part.split(" AND ").all(named))
}

fn named(licence: &str) -> bool {
    FITS.contains(&licence.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_licences_as_they_occur() {
        for good in
            ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"]
        {
            assert!(fits(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-2.0) AND ISC"] {
            assert!(!fits(bad), "{bad}");
        }
        let line = "copyleft v1.0.0|GPL-3.0 (*)";
        assert_eq!(complaint(line), Some("copyleft v1.0.0: `GPL-3.0`".to_owned()));
    }
}
