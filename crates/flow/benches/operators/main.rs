//! What each operator costs, against the nearest thing in futures, tokio-stream, tokio and
//! futures-concurrency: `cargo bench -p tidegate-flow --bench operators -- --help`.
//!
//! Both sides of a pair process the same items, do the same work and run on the same kind of tokio
//! runtime. Every item goes through `black_box`, on both sides.

/// What the pairs share: runtimes, sources, sinks.
mod support;

/// `batch` against `chunks_timeout` and `chunks`.
mod batch;

/// `FairMerge` against `select_all`, `StreamMap` and futures-concurrency's `merge`.
mod merge;

/// `concurrent_map` against `buffered`, and the unordered ones.
mod map;

/// `Replay` against `tokio::sync::broadcast`.
mod replay;

/// `meter` against nothing.
mod meter;

/// The other operators against what one would write by hand.
mod others;

/// What each operator adds to a plain stream.
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate_testkit::bench::main("tidegate-flow: operators", |bench| {
        batch::run(bench)?;
        merge::run(bench)?;
        map::run(bench)?;
        replay::run(bench)?;
        meter::run(bench)?;
        others::run(bench)?;
        table::run(bench)
    })
}
