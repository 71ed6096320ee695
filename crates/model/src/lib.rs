//! What flows through Tidegate, and the contracts of what it flows through: a batch with its ack
//! and position, the traits of sources, transforms and sinks, how they are registered and
//! configured, and the errors that tell the engine what to do.
//!
//! No I/O and no clock: times are passed in.

/// Which columns logs have.
mod schema;

/// How bad, as a number.
mod severity;

/// Where reading goes on: partitions and positions.
mod position;

/// Rows on their way, and what they hold.
mod batch;

/// Word that a batch is safe, or not.
mod ack;

/// Where data comes from.
mod source;

/// Rows in, rows out.
mod transform;

/// Where data goes.
mod sink;

/// What a component is called, and how it is made of its settings.
mod spec;

/// A component's part of the configuration.
mod settings;

/// Sizes and times as people write them.
mod units;

/// What went wrong, and what the engine should do about it.
mod error;

pub use ack::{Ack, Verdict};
pub use batch::{Batch, OFFSET, SourceBatch};
pub use error::{Error, ErrorKind, Result};
pub use position::{Partition, Position};
pub use schema::{METADATA_ENTRY, log_schema};
pub use settings::{Mistake, Settings, Spanned};
pub use severity::severity_of;
pub use sink::{Commit, Delivered, Gather, Records, Sink, SinkContext, Written};
pub use source::{Expected, ExpectedRows, Source, SourceContext, SourceStream};
pub use spec::{Registry, SinkSpec, SourceSpec, TransformSpec};
pub use tidegate_flow::{BudgetHolder, Permit};
pub use transform::{Moment, Output, Rejects, Stage, Transform};
pub use units::{ByteSize, TimeSpan};
