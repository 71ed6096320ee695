//! A database's file, opened to be read, and what SQLite says as errors that say what to do.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use tokio::task::{JoinError, spawn_blocking};

use crate::{Error, Kind, Result};

/// A row, and any value in it, has at most so many bytes: 128 MiB.
const ROW_BYTES_MAX: i32 = 128 << 20;

/// So long SQLite itself waits for a lock, which nothing can interrupt.
const BUSY: Duration = Duration::from_millis(250);

/// The byte of a file's header that says how it is written, and what it is with a write-ahead log.
const WRITTEN: usize = 18;
const LOGGED: u8 = 2;

/// How a database is got at.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) path: Arc<Path>,
    /// The connection whose transaction holds on to one moment, where that is wanted.
    pub(super) snapshot: Option<Arc<Mutex<Connection>>>,
}

impl Access {
    /// Does something with the snapshot's connection, or else with `own`, which is opened at need.
    pub(super) fn with<T>(
        &self,
        own: &mut Option<Connection>,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        if let Some(shared) = &self.snapshot {
            return work(&shared.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let connection = match own.take() {
            Some(connection) => connection,
            None => open(&self.path)?,
        };
        work(own.insert(connection))
    }

    /// Does something with a connection where it holds nobody up. Dropped meanwhile, it goes on to
    /// its end and is forgotten.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        spawn_blocking(move || self.with(&mut None, work)).await.map_err(ended)?
    }

    pub(super) fn fault(&self, error: &rusqlite::Error) -> Error {
        fault(&self.path, error)
    }
}

/// Why a thread that may wait did not come to its end; its panic goes on here.
pub(super) fn ended(error: JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Error::refused("reading was stopped with the program").because(error),
    }
}

/// Opens a database to read it, and looks whether it is one.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let refused = |why: &str| Error::refused(format!("{}: {why}", path.display()));
    match fs::metadata(path) {
        Ok(file) if file.is_dir() => {
            return Err(refused("is a folder: name the database's file in it"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refused("there is no such file: check the path"));
        }
        Err(error) => return Err(refused("can't be looked at").because(error)),
    }
    // From the root on, lest a name like `:memory:` mean something else.
    let whole = std::path::absolute(path).map_err(|error| refused("is no path").because(error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(whole, flags).and_then(|connection| {
        connection.busy_timeout(BUSY)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, ROW_BYTES_MAX)?;
        connection.pragma_update(None, "query_only", true)?;
        let odd = odd_schema(&connection)?;
        Ok((connection, odd))
    });
    match opened {
        Ok((connection, None)) => Ok(connection),
        Ok((_, Some(name))) => {
            let name = format!("what it says of `{name}` is no UTF-8: make it again in UTF-8");
            Err(refused(&name))
        }
        Err(error) => Err(fault(path, &error)),
    }
}

/// The first of its tables and views whose text is no UTF-8, which the library relies on.
fn odd_schema(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for index in 0..2 {
            if let ValueRef::Text(text) = row.get_ref(index)?
                && simdutf8::basic::from_utf8(text).is_err()
            {
                let name = row.get_ref(0)?.as_bytes_or_null()?.unwrap_or_default();
                return Ok(Some(String::from_utf8_lossy(name).into_owned()));
            }
        }
    }
    Ok(None)
}

/// What SQLite says, in one line that begins with the path.
pub(super) fn fault(path: &Path, error: &rusqlite::Error) -> Error {
    let (kind, why) = told(error, || is_logged(path));
    Error::new(kind, format!("{}: {why}", path.display()))
}

/// Its own message, without what this crate asked it.
pub(super) fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// Whether it says that what a person wrote makes no sense.
pub(super) fn is_wrong_sql(error: &rusqlite::Error) -> bool {
    code(error).is_some_and(|error| error.code == ErrorCode::Unknown)
}

fn code(error: &rusqlite::Error) -> Option<&ffi::Error> {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => Some(error),
        rusqlite::Error::SqlInputError { error, .. } => Some(error),
        _ => None,
    }
}

fn told(error: &rusqlite::Error, is_logged: impl Fn() -> bool) -> (Kind, String) {
    let said = message(error);
    let extended = code(error).map_or(0, |error| error.extended_code);
    let refused = |why: &str| (Kind::Refused, why.to_owned());
    match code(error).map(|error| error.code) {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SchemaChanged,
        ) => (Kind::Connection, format!("another program has it locked ({said})")),
        Some(ErrorCode::OperationInterrupted) => (Kind::Connection, "was interrupted".to_owned()),
        Some(ErrorCode::NotADatabase) => refused("is no SQLite database, or it is encrypted"),
        Some(ErrorCode::DatabaseCorrupt) => (
            Kind::Refused,
            format!(
                "is damaged ({said}): see what `PRAGMA integrity_check` says, or take a backup"
            ),
        ),
        Some(ErrorCode::ReadOnly) if extended == ffi::SQLITE_READONLY_ROLLBACK => refused(
            "was left in the middle of a write: open it once with a program that may write to it",
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) if is_logged() => refused(
            "has a write-ahead log, and nothing can be written beside it, as reading it needs: \
             let the folder be written to, or read a copy (`VACUUM INTO 'copy.db'`)",
        ),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            refused("can't be opened: see that this user may read the file and its folder")
        }
        Some(ErrorCode::TooBig) => (
            Kind::Refused,
            format!("a row has more than {} MiB: leave such rows out", ROW_BYTES_MAX >> 20),
        ),
        Some(ErrorCode::SystemIoFailure) => (
            Kind::Refused,
            format!("can't be read ({said}): see whether the file was cut, and its disk is well"),
        ),
        _ => (Kind::Refused, said),
    }
}

/// Whether the file's header says that there is a write-ahead log.
fn is_logged(path: &Path) -> bool {
    let mut header = [0; WRITTEN + 1];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header.last() == Some(&LOGGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32, message: Option<&str>) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), message.map(str::to_owned))
    }

    #[test]
    fn what_may_heal_is_told_from_what_may_not() {
        for (code, kind, part) in [
            (ffi::SQLITE_BUSY, Kind::Connection, "locked"),
            (ffi::SQLITE_BUSY_RECOVERY, Kind::Connection, "locked"),
            (ffi::SQLITE_PROTOCOL, Kind::Connection, "locked"),
            (ffi::SQLITE_INTERRUPT, Kind::Connection, "interrupted"),
            (ffi::SQLITE_NOTADB, Kind::Refused, "encrypted"),
            (ffi::SQLITE_CORRUPT, Kind::Refused, "integrity_check"),
            (ffi::SQLITE_READONLY_ROLLBACK, Kind::Refused, "middle of a write"),
            (ffi::SQLITE_CANTOPEN, Kind::Refused, "may read"),
            (ffi::SQLITE_TOOBIG, Kind::Refused, "128 MiB"),
            (ffi::SQLITE_IOERR_SHORT_READ, Kind::Refused, "was cut"),
            (ffi::SQLITE_ERROR, Kind::Refused, "no such table: t"),
        ] {
            let (is, why) = told(&failure(code, Some("no such table: t")), || false);
            assert!(is == kind && why.contains(part), "{code}: {why}");
        }
        let (_, why) = told(&failure(ffi::SQLITE_CANTOPEN, None), || true);
        assert!(why.contains("write-ahead log"), "{why}");
    }
}
