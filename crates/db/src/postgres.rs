//! Postgres: connections, pages by `COPY`, rows into tables.
//!
//! The crate `postgres-protocol` knows the messages and how to log in; when to read and how much at
//! once, and what the bytes of a row mean as Arrow, is here.

mod answer;
mod config;
mod connection;
mod copy_in;
mod decode;
mod describe;
mod fault;
mod login;
mod pages;
mod plan;
mod socket;
mod statement;
mod table;
mod target;
mod tls;
mod written;

/// Rows as `COPY … FROM STDIN` takes them.
pub mod encode;

/// Types.
pub mod types;

pub use config::{Config, Host, SslMode};
pub use connection::{Connection, Field, TextRow, first_value};
pub use copy_in::CopyIn;
pub use describe::Database;
pub use fault::Fault;
pub use statement::literal;
pub use table::Table;
pub use target::{Target, TargetName, create_table};
