//! What `cargo xtask test` runs with a nightly toolchain: Miri and a sanitizer over the tests of
//! code that nobody may get wrong, and a short run of each fuzz target.

use std::fs;

use crate::step::{Step, root, target_dir};
use crate::test::passed;

/// Which tests of a package's library are run under Miri, a hundred times slower than else.
const UNDER_MIRI: &[(&str, &str)] = &[(
    "tidegate-components",
    "codecs::views codecs::space codecs::decode::text codecs::decode::auto --skip what_nobody_reads --skip sizes_are_few",
)];

/// Which are run under AddressSanitizer.
const SANITIZED: &[(&str, &str)] = &[("tidegate-components", "codecs::")];

/// Fuzz targets: the folder of their crate, and their name. Inputs to begin with are in the crate's
/// `seeds/NAME`.
const FUZZED: &[(&str, &str)] = &[
    ("crates/components/fuzz", "decode"),
    ("crates/components/fuzz", "framing"),
    ("crates/net/fuzz", "events"),
];

/// How long a fuzz target is run.
const FUZZ_SECONDS: u32 = 20;

/// AddressSanitizer, and which branches were taken, counted for libFuzzer.
const FUZZ_FLAGS: &str = "-Zsanitizer=address -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=3 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table";

/// Runs all of it, and stops at the first failure.
pub(crate) fn run() -> Result<(), String> {
    let host = toolchain()?;
    for (package, tests) in UNDER_MIRI {
        let env = [
            ("MIRIFLAGS", "-Zmiri-strict-provenance -Zmiri-disable-isolation"),
            ("PROPTEST_CASES", "4"),
        ];
        let command = format!("cargo +nightly miri test -p {package} --lib -- {tests}");
        some(&Step { env: &env, command: &command })?;
    }
    for (package, tests) in SANITIZED {
        let folder = folder("asan")?;
        let env = [("RUSTFLAGS", "-Zsanitizer=address"), ("CARGO_TARGET_DIR", &*folder)];
        let command = format!("cargo +nightly test --target {host} -p {package} --lib -- {tests}");
        some(&Step { env: &env, command: &command })?;
    }
    FUZZED.iter().try_for_each(|(package, target)| fuzz(package, target, &host))
}

/// Sees to it that there is what is needed; gives the name of this kind of machine.
fn toolchain() -> Result<String, String> {
    need("cargo +nightly --version", "rustup toolchain install nightly --profile minimal")?;
    // Does nothing where they are.
    let components = "rustup component add --toolchain nightly miri rust-src";
    Step { env: &[], command: components }.run()?;
    need("c++ --version", "apt-get install -y g++")?;
    let version = Step { env: &[], command: "rustc +nightly -vV" }.read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "`rustc +nightly -vV` names no host".to_owned())
}

/// Gets what a command shows to be missing.
fn need(shown_by: &str, got_by: &str) -> Result<(), String> {
    let shown = Step { env: &[], command: shown_by }.read();
    shown.or_else(|_| Step { env: &[], command: got_by }.run()).map(drop)
}

/// Runs tests, of which there must be some.
fn some(step: &Step<'_>) -> Result<(), String> {
    match passed(&step.run()?) {
        0 => Err(format!("no test was run: have they other names now? {step}")),
        _ => Ok(()),
    }
}

/// Builds a target and runs it for a while. What it finds is kept, and the next run begins anew.
fn fuzz(package: &str, target: &str, host: &str) -> Result<(), String> {
    let built = folder("fuzz")?;
    let env = [("RUSTFLAGS", FUZZ_FLAGS), ("CARGO_TARGET_DIR", &*built)];
    let manifest = format!("{package}/Cargo.toml");
    let build = format!(
        "cargo +nightly build --release --target {host} --manifest-path {manifest} \
         --bin {target}"
    );
    Step { env: &env, command: &build }.run()?;

    let corpus = format!("{built}/corpus/{target}");
    let made = fs::create_dir_all(&corpus).and_then(|()| fs::remove_dir_all(&corpus));
    let made = made.and_then(|()| fs::create_dir(&corpus));
    made.map_err(|error| format!("cannot make an empty {corpus}: {error}"))?;
    let run = format!(
        "{built}/{host}/release/{target} {corpus} {package}/seeds/{target} -max_len=4096 \
         -timeout=30 -max_total_time={FUZZ_SECONDS} -artifact_prefix={built}/{target}- -verbosity=0 \
         -print_final_stats=1"
    );
    Step { env: &[], command: &run }.run().map(drop)
}

/// A folder for builds of their own: flags change every crate.
fn folder(name: &str) -> Result<String, String> {
    let folder = root().join(target_dir()).join(name);
    folder.into_os_string().into_string().map_err(|_| "the target folder is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_targets_are_where_they_are_said_to_be_and_have_seeds() {
        for (package, target) in FUZZED {
            let package = root().join(package);
            assert!(package.join(format!("fuzz_targets/{target}.rs")).is_file(), "{target}");
            assert!(fs::read_dir(package.join("seeds").join(target)).unwrap().count() > 0);
        }
    }
}
