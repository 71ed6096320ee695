//! The command line of a benchmark program.

use std::path::PathBuf;

/// What differs between kinds of benchmarks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// Rounds of each pair, if nothing else is said.
    pub(super) rounds: usize,
    /// The same, of a quick run.
    pub(super) quick_rounds: usize,
    /// How large inputs are, where there are any.
    pub(super) input: Option<Input>,
    /// What the columns mean, for `--help`.
    pub(super) columns: &'static str,
}

/// How large inputs are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input {
    /// What says so.
    pub(super) flag: &'static str,
    /// What it counts.
    pub(super) unit: &'static str,
    /// If nothing is said.
    pub(super) full: u64,
    /// The same, of a quick run.
    pub(super) quick: u64,
}

/// What a quick run divides the items by.
const QUICK_DIVISOR: u64 = 50;

/// What the user wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Options {
    pub(super) quick: bool,
    pub(super) help: bool,
    pub(super) rounds: usize,
    pub(super) input: u64,
    pub(super) raw: Option<PathBuf>,
    pub(super) filters: Vec<String>,
}

impl Options {
    pub(super) fn parse(
        args: impl IntoIterator<Item = String>,
        kind: &Kind,
    ) -> Result<Self, String> {
        let mut options = Self::default();
        let (mut rounds, mut input) = (None, None);
        let input_flag = kind.input.map(|input| input.flag);
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => {} // what cargo itself adds
                "--quick" => options.quick = true,
                "--help" | "-h" => options.help = true,
                "--raw" => options.raw = Some(PathBuf::from(value()?)),
                "--rounds" => rounds = Some(number("--rounds", &value()?)?),
                flag if input_flag == Some(flag) => input = Some(number(flag, &value()?)?),
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                filter => options.filters.push(filter.to_lowercase()),
            }
        }
        let usual = if options.quick { kind.quick_rounds } else { kind.rounds };
        options.rounds = rounds.map_or(usual, |rounds| rounds as usize);
        let usual = kind.input.map(|of| if options.quick { of.quick } else { of.full });
        options.input = input.or(usual).unwrap_or_default();
        Ok(options)
    }

    /// Whether the filters let a pair run.
    pub(super) fn wants(&self, section: &str, name: &str) -> bool {
        let full = format!("{section}: {name}").to_lowercase();
        self.filters.iter().all(|filter| full.contains(filter))
    }

    /// So many items, or the few of a quick run.
    pub(super) fn items(&self, items: u64) -> u64 {
        if self.quick { (items / QUICK_DIVISOR).max(1) } else { items }
    }
}

fn number(option: &str, text: &str) -> Result<u64, String> {
    let parsed = text.parse().ok().filter(|number| *number > 0);
    parsed.ok_or(format!("{option} {text} is no number"))
}

/// The text of `--help`.
pub(super) fn help(kind: &Kind) -> String {
    let Kind { rounds, columns, .. } = kind;
    let inputs = kind.input.map_or(String::new(), |Input { flag, unit, full, quick }| {
        format!("\n  {:<15}inputs of so many {unit} ({full}, quick {quick})", format!("{flag} N"))
    });
    format!(
        "\
usage: cargo bench [-p CRATE] [--bench NAME] -- [OPTIONS] [FILTER...]

Runs the pairs whose \"section: name\" contains every FILTER, and prints a Markdown table.

  --quick        few rounds of little: a smoke run, no figures
  --rounds N     so many rounds of each pair ({rounds}){inputs}
  --raw FILE     also writes every round as CSV
  --help         this text

{columns}"
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const KIND: Kind = Kind {
        rounds: 25,
        quick_rounds: 3,
        input: Some(Input { flag: "--mb", unit: "MiB", full: 512, quick: 2 }),
        columns: "Columns: none\n",
    };

    pub(crate) fn options(args: &[&str]) -> Result<Options, String> {
        Options::parse(args.iter().map(|arg| (*arg).to_owned()), &KIND)
    }

    #[test]
    fn the_command_line_is_read() {
        let parsed = options(&["--bench", "--quick", "Merge", "10,000", "--raw", "x.csv"]).unwrap();
        assert!(parsed.quick && parsed.rounds == 3 && parsed.input == 2);
        assert_eq!(parsed.raw, Some(PathBuf::from("x.csv")));
        assert!(parsed.wants("FairMerge", "10,000 inputs"));
        assert!(!parsed.wants("FairMerge", "100 inputs"));
        assert_eq!((parsed.items(5_000), parsed.items(3)), (100, 1));
        assert_eq!(options(&["--rounds", "7"]).unwrap().rounds, 7);
        assert_eq!(options(&["--quick", "--mb", "7"]).unwrap().input, 7);
        let usual = options(&[]).unwrap();
        assert_eq!((usual.rounds, usual.input), (25, 512));
        assert!(options(&["--help"]).unwrap().help);
        for wrong in [&["--rounds"][..], &["--rounds", "0"], &["--mb", "x"], &["--fast"]] {
            assert!(options(wrong).is_err());
        }
    }

    #[test]
    fn only_what_has_inputs_takes_their_size() {
        let kind = Kind { input: None, ..KIND };
        assert!(Options::parse(["--mb".to_owned(), "7".to_owned()], &kind).is_err());
        assert!(!help(&kind).contains("--mb") && help(&KIND).contains("--mb N"));
    }
}
