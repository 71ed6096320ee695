//! Sources as the engine sees them: opened, polled, dropped and opened again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

/// Opening, reading and remembering.
mod support;

/// The file source, whatever happens.
mod chaos;

/// The source of made-up lines.
mod generate;

/// The file source on what files hold.
mod file;

/// The file source told what rows must have.
mod required;

/// The file source on files that are rotated, cut, replaced and removed.
mod rotation;

/// The source of a SQLite file's rows.
mod sqlite;
