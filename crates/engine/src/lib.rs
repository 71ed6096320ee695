//! Tidegate's pipeline engine: from components and a configuration to a graph, to running tasks with
//! acks, checkpoints and one budget, to an orderly end.
//!
//! The engine owns what components must not do themselves: retries, commits, acks, positions,
//! counts. It knows no component; they come through the traits of `tidegate-model`.

/// From a configuration's text to components.
pub mod config;

/// Components and what they read, resolved and checked.
mod graph;

/// Which columns flow where.
mod plan;

/// What only the other side of a source knows, before the tasks are made.
mod prepare;

/// From a plan to tasks.
mod start;

/// Watching the tasks, and the end.
mod run;

/// One source at work.
mod source_task;

/// The fused transforms behind a source.
mod route;

/// Rejected rows on their way.
mod rejects;

/// The queue in front of a sink.
mod edge;

/// Small batches joined to one write.
mod gather;

/// One sink at work.
mod sink_task;

/// Which positions may be committed.
mod tracker;

/// The open batches of a source.
mod ledger;

/// Commits what is settled.
mod checkpoint;

/// What survives a crash.
mod store;

/// What a running pipeline looks like.
mod snapshot;

mod gauges;
mod memory;
mod stop;

pub use config::{Overrides, Report};
pub use graph::{
    Builder, GraphMistake, MEMORY_DEFAULT, Pipeline, Role, SHUTDOWN_TIMEOUT_DEFAULT, SinkOptions,
    WhenFull,
};
pub use plan::Unchecked;
pub use run::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Failure, Handle, RunOptions, Running, Summary};
pub use snapshot::{Bottleneck, EdgeReading, Reading, Snapshot};
pub use store::Store;
