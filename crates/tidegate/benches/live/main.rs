//! How fast live streams pass through, against programs that only pass them on:
//! `cargo bench -p tidegate --bench live -- --help`.
//!
//! Both sides are processes that listen; we send them the same bytes, over the loopback, and the
//! clock stops when they have all of it: a receiver closes the connection then, a relay has passed
//! it on.

/// Logs, made up: the spine's.
#[path = "../spine/log.rs"]
mod log;

/// Lines over TCP, against `socat`.
mod tcp;

use std::process::ExitCode;

use tidegate_testkit::bench::programs;

/// The program that is measured.
const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

fn main() -> ExitCode {
    programs::main("tidegate: live", |bench| {
        bench.tools(&[("socat", "socat")])?;
        tcp::run(bench)
    })
}
