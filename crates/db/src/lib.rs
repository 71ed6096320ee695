//! Databases as streams with backpressure: rows come in keyset pages as typed Arrow batches, never by
//! OFFSET, never more than the consumer asked for; and go in by `COPY`.
//!
//! [`postgres`] and [`sqlite`] describe a table or a query as a [`Relation`]; a [`CursorStream`] reads
//! a [`Range`] of it, in the order of its key, and says with each batch where reading goes on.

/// What went wrong, and whether it may heal.
mod error;

/// Where in a table reading is.
mod key;

/// Names in SQL.
mod identifier;

/// What to read, and how.
mod relation;

/// Rows of a relation, in order.
mod cursor;

/// What the budget knows of.
mod memory;

/// Postgres.
pub mod postgres;

/// SQLite.
pub mod sqlite;

pub use cursor::{CursorStream, Rows};
pub use error::{Error, Kind, Result};
pub use identifier::identifier;
pub use key::{Key, KeyValue, Range, ordered};
pub use relation::{Consistency, Estimate, Options, Reading, Relation, What};
