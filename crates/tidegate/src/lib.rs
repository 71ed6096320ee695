//! Tidegate's front door for Rust programs: everything under one name.
//!
//! - [`flow`]: flow control for any stream.
//! - [`model`]: what flows, and the contracts of sources, transforms and sinks.
//! - [`db`]: Postgres and SQLite as streams.
//! - [`engine`]: pipelines, built in code or read from a configuration, and run.
//! - [`components`] and [`sql`]: the sources, transforms and sinks there are; [`registry()`] has them
//!   all by name.
//!
//! A pipeline with a source and a sink of one's own: `examples/embed.rs`. One from a configuration:
//!
//! ```
//! use tidegate::engine::{Overrides, config};
//!
//! let text = r#"
//!     [sources.numbers]
//!     type = "generate"
//!     template = "app"
//!     count = 10
//!
//!     [sinks.nowhere]
//!     type = "blackhole"
//!     inputs = ["numbers"]
//! "#;
//! let env = |name: &str| std::env::var(name).ok();
//! let registry = tidegate::registry();
//! let pipeline = config::load("text", text, &registry, &env, &Overrides::default()).unwrap();
//! assert_eq!(pipeline.components().count(), 2);
//! ```

/// All components by their names.
mod registry;

pub use registry::registry;

/// Sources, transforms and sinks: the crate `tidegate-components`.
pub use tidegate_components as components;
/// Databases as streams: the crate `tidegate-db`.
pub use tidegate_db as db;
/// Pipelines: the crate `tidegate-engine`.
pub use tidegate_engine as engine;
/// Flow control for any stream: the crate `tidegate-flow`.
pub use tidegate_flow as flow;
/// What flows, and contracts: the crate `tidegate-model`.
pub use tidegate_model as model;
/// Live streams: the crate `tidegate-net`.
pub use tidegate_net as net;
/// The transform `sql`: the crate `tidegate-sql`.
pub use tidegate_sql as sql;
