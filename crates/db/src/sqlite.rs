//! SQLite: a file's tables and queries, read in keyset pages by the library that is built in.
//!
//! The file is only read. Between two pages nothing is locked, so that others write as if nobody
//! read.
//!
//! **Types.** SQLite keeps any value in any column; a column's Arrow type follows from the type that
//! it was declared with, and a [`Mismatch`](crate::sqlite::Mismatch) says what becomes of values that
//! are of another.
//!
//! | declared | Arrow | values |
//! |---|---|---|
//! | `…INT…` | Int64 | integers |
//! | `…CHAR…`, `…CLOB…`, `…TEXT…` | Utf8 | texts |
//! | `…BLOB…` | Binary | blobs |
//! | `…REAL…`, `…FLOA…`, `…DOUB…`, `DECIMAL`, `NUMERIC`, `NUMBER`, `MONEY` | Float64 | reals, and integers that are one exactly |
//! | `BOOL`, `BOOLEAN` | Boolean | the integers 0 and 1 |
//! | anything else (`DATE`, `DATETIME`, `JSON`, `STRING`, …), an expression | Utf8 | any, as text |
//!
//! The first line that fits counts, as in SQLite. As text, integers and reals are written with the
//! fewest digits that read back as the same; blobs, and texts that are no UTF-8, as literals
//! (`X'00FF'`).
//!
//! **Keys.** The primary key; for a table with nulls in it, or without one, the rowid; or else
//! a unique index without nulls. A query has that of its table, where SQLite's plan shows that it
//! reads no more than that one table, once, and the key's columns are among its own; others are named.
//! Where no index has the key's order, each page sorts all rows that are left: make such an index.
//! Conditions on the current time (`date('now')`) are looked at anew for each page.
//! A rowid that is no column may be another one after a `VACUUM`: what was begun before that must not
//! be gone on with.
//!
//! **Memory.** A stream has a page in the budget, and another one that is read ahead where there is
//! room; beside it SQLite keeps 2 MiB of the file for each. A row of at most 128 MiB that is bigger than
//! a page is charged beyond it.

mod catalog;
mod columns;
mod connection;
mod describe;
mod key;
mod kind;
mod page;
mod pages;
mod proof;
mod source;
mod stop;
mod table;
mod text;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub use kind::Mismatch;
pub use table::Table;

use self::connection::{Access, open};
use crate::{Consistency, Reading, Result};

/// A SQLite database.
#[derive(Clone, Debug)]
pub struct Database {
    path: PathBuf,
    mismatch: Mismatch,
}

impl Database {
    /// The one in this file; nothing is done yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mismatch: Mismatch::default() }
    }

    /// What becomes of values that are not of their column's type.
    #[must_use]
    pub fn mismatch(self, mismatch: Mismatch) -> Self {
        Self { mismatch, ..self }
    }

    /// Opens the file and looks at a table or query.
    ///
    /// [`Consistency::Snapshot`] keeps a read transaction open, on one connection by which all
    /// streams read in turn, until the table is dropped. Meanwhile a write-ahead log can't be written
    /// back, and grows; without one, whoever wants to write waits.
    ///
    /// Dropped meanwhile, it goes on to its end in a thread of tokio's, and is forgotten.
    ///
    /// # Errors
    ///
    /// [`Kind::Connection`](crate::Kind::Connection) where another program has the file locked.
    /// [`Kind::Refused`](crate::Kind::Refused) where it can't be opened or is no database, where there
    /// is no such table, or where its pages would not be pages of the same rows: without a key, with
    /// nulls in it, with `LIMIT`, or with functions like `random()`; with the reason and the remedy.
    pub async fn describe(
        &self,
        reading: &Reading,
        consistency: Consistency,
    ) -> Result<Arc<Table>> {
        let (path, mismatch, reading) =
            (Arc::from(self.path.as_path()), self.mismatch, reading.clone());
        let opened = move || {
            let snapshot = match consistency {
                Consistency::Pages => None,
                Consistency::Snapshot => {
                    let connection = open(&path)?;
                    // It begins with the first statement that reads, which is the next one.
                    let begun = connection.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema");
                    begun.map_err(|error| connection::fault(&path, &error))?;
                    Some(Arc::new(Mutex::new(connection)))
                }
            };
            let access = Access { path, snapshot };
            let table = access.with(&mut None, |connection| {
                describe::look(connection, access.clone(), mismatch, &reading)
            })?;
            Ok(Arc::new(table))
        };
        tokio::task::spawn_blocking(opened).await.map_err(connection::ended)?
    }
}

#[cfg(test)]
mod tests;
