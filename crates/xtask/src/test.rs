//! `cargo xtask test`: every test there is.
//!
//! Tests that need more than cargo are `#[ignore]`d for plain `cargo test`, and run here. What tests
//! and benchmarks need is fetched before the first of them runs.

use crate::bench;
use crate::peers;
use crate::proof;
use crate::step::{Step, target_dir};

/// Runs everything, and stops at the first failure.
pub(crate) fn run() -> Result<(), String> {
    bench::fetch_tools()?;
    peers::fetch()?;
    let all = Step {
        env: &[("TIDEGATE_KILLS", "100")],
        command: "cargo test --workspace --all-features --lib --bins --tests --examples -- \
                  --include-ignored",
    };
    let passed = passed(&all.run()?);

    Step { env: &[], command: "cargo test --workspace --all-features --doc" }.run()?;

    let worlds = Step {
        env: &[("TIDEGATE_SIM_SEEDS", "10000")],
        command: "cargo test --release -p tidegate-engine --test suite sim::",
    };
    if self::passed(&worlds.run()?) == 0 {
        return Err("the engine was not simulated: is `sim` no module of its tests?".to_owned());
    }

    // Builds of their own: the flag changes every crate.
    let folder = target_dir().join("loom");
    let folder = folder.to_str().ok_or("the target folder's name is not UTF-8")?;
    let models = Step {
        env: &[("RUSTFLAGS", "--cfg flow_loom"), ("CARGO_TARGET_DIR", folder)],
        command: "cargo test -p tidegate-flow --lib --release loom_",
    };
    if self::passed(&models.run()?) == 0 {
        return Err("no model of concurrency was run: has `loom_` left their names?".to_owned());
    }

    bench::smoke()?;
    proof::run()?;
    println!("\nall tests passed ({passed}, and those of documentation and models)");
    Ok(())
}

/// How many tests passed, as the test runners' closing lines say.
pub(crate) fn passed(output: &str) -> u32 {
    let counts = output.lines().filter_map(|line| {
        let (_, rest) = line.split_once("test result: ok. ")?;
        rest.split_once(" passed")?.0.parse::<u32>().ok()
    });
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_the_runners_say() {
        let output = "running 3 tests\ntest result: ok. 3 passed; 0 failed; 1 ignored\n\
                      test result: FAILED. 9 passed; 1 failed\ntest result: ok. 12 passed; 0 failed";
        assert_eq!(passed(output), 15);
        assert_eq!(passed(""), 0);
    }
}
