//! What every component promises, checked for every row of the tables; and what a sink owes to those
//! who kill it, fill its disk or meddle with its files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod csv;
mod file;
mod full_disk;
mod memory;
mod parquet;
mod parquet_types;
mod pipes;
mod tables;
