//! What an error of the server means: for some rows, for a while, or for good. Pure.

use tidegate_db::{Error as DbError, Kind};
use tidegate_model::Error;

/// Why an attempt to write rows came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The table does not take one of them: this line of the attempt, where the server says so.
    Rows { line: Option<usize>, reason: String },
    /// It is not about the rows.
    Sink(Error),
}

impl Failure {
    /// Of an attempt to copy into the table of that name.
    pub(super) fn of(error: DbError, table: &str) -> Self {
        let Some(fault) = error.fault() else { return Self::Sink(failed("url")(error)) };
        // A value, a constraint, what a trigger raises or breaks at, a view's condition, a limit on
        // what a row or an entry of an index may be.
        let rows = ["22", "23", "38", "39", "44", "54", "P0"];
        if !fault.code.get(..2).is_some_and(|class| rows.contains(&class)) {
            return Self::Sink(failed("table")(error));
        }
        let line = fault.place.as_deref().and_then(|place| line(place, table));
        Self::Rows { line, reason: fault.line() }
    }
}

/// What to make of an error that is not about rows, in the words of this setting.
pub(super) fn failed(setting: &str) -> impl Fn(DbError) -> Error {
    move |error| {
        let code = error.fault().map(|fault| fault.code.as_str()).unwrap_or_default();
        let said = format!("{setting}: {error}");
        match (code, error.kind()) {
            ("57014", _) => Error::disconnected(format!(
                "{said}: if that is statement_timeout, raise it for this user"
            )),
            ("25006", _) => Error::disconnected(format!(
                "{said}: the server takes no writes, as a standby does not: name another in `url`, \
                 or wait"
            )),
            (_, Kind::Connection) => Error::disconnected(said),
            (_, Kind::Refused | Kind::Data) => Error::fatal(said),
        }
    }
}

/// The line of a `COPY` that the server names: `COPY events, line 3, column id: "x"`. Its word for
/// "line" is in its own language. What a trigger does comes first, the `COPY` itself last.
fn line(place: &str, table: &str) -> Option<usize> {
    let copy = format!("COPY {table}, ");
    let (_, rest) = place.rsplit_once(&copy)?;
    let number = rest.trim_start_matches(|letter: char| letter != '\n' && !letter.is_ascii_digit());
    let end = number.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(number.len());
    number.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_read_where_there_is_one() {
        for (place, table, expected) in [
            ("COPY events, line 3", "events", Some(3)),
            ("COPY events, line 12, column id: \"x 7\"", "events", Some(12)),
            ("COPY e 2, line 5, column a", "e 2", Some(5)),
            ("COPY events, Zeile 8, Spalte id", "events", Some(8)),
            ("PL/pgSQL function f() line 4 at RAISE\nCOPY events, line 9", "events", Some(9)),
            ("SQL statement \"SELECT 1\"", "events", None),
            ("COPY other, line 3", "events", None),
            ("COPY events, line", "events", None),
            ("COPY events, line\n9", "events", None),
            ("COPY events, line 99999999999999999999999", "events", None),
        ] {
            assert_eq!(line(place, table), expected, "{place}");
        }
    }

    #[test]
    fn what_a_person_must_do_ends_it_and_what_passes_does_not() {
        use tidegate_model::ErrorKind;
        let kinds = [
            (DbError::connection("lost"), ErrorKind::Disconnected),
            (DbError::refused("no such"), ErrorKind::Fatal),
        ];
        for (error, kind) in kinds {
            let Failure::Sink(error) = Failure::of(error, "t") else { panic!("about rows") };
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().starts_with("url: "));
        }
    }
}
