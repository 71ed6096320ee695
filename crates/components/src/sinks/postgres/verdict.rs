//! What an error of the server means: for some rows, for a while, or for good. Pure.

use tidegate_db::{Error as DbError, Kind};
use tidegate_model::Error;

/// The classes of errors that are not about a row. Others are: a value, a constraint, what a trigger
/// breaks at or raises, which may have a code of its own, a view's condition, a limit on what a row
/// or an entry of an index may be.
const OTHERS: [&str; 31] = [
    "", "01", "02", "03", "08", "0A", "0B", "0F", "0L", "0P", "0Z", "24", "25", "26", "28", "2B",
    "2D", "34", "3B", "3D", "3F", "40", "42", "53", "55", "57", "58", "72", "F0", "HV", "XX",
];

/// A sequence has no number left for any row.
const SEQUENCE_ENDS: &str = "2200H";

/// Why an attempt to write rows came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The table does not take one of them: this line of the attempt, where the server says so.
    Rows { line: Option<usize>, reason: String },
    /// It is not about the rows.
    Sink(Error),
}

impl Failure {
    /// Of an attempt before the server took data: whatever it says (a default that can't be computed
    /// has a code as of a row), it is about none of the rows.
    pub(super) fn before(error: DbError) -> Self {
        Self::Sink(failed(if error.fault().is_some() { "table" } else { "url" })(error))
    }

    /// Of one that broke while data was on its way. What the server said of a row meanwhile is said
    /// again when all of them have come.
    pub(super) fn between(error: DbError) -> Self {
        Self::Sink(Error::disconnected(format!("url: {error}")))
    }

    /// Of one that the server has against the data for the table of that name.
    pub(super) fn of(error: DbError, table: &str) -> Self {
        let Some(fault) = error.fault() else { return Self::Sink(failed("url")(error)) };
        let class = fault.code.get(..2).unwrap_or_default();
        if OTHERS.contains(&class) || fault.code == SEQUENCE_ENDS {
            return Self::Sink(failed("table")(error));
        }
        // A row that is too big is noticed when it is stored together with others, and the server
        // names the last of them.
        let place = fault.place.as_deref().filter(|_| class != "54");
        let line = place.and_then(|place| line(place, table));
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
/// "line" is in its own language. What a trigger does comes first, in lines of their own; behind the
/// number there may be a value, and so anything.
fn line(place: &str, table: &str) -> Option<usize> {
    let copy = format!("COPY {table}, ");
    let (_, rest) = match place.strip_prefix(&copy) {
        Some(rest) => ("", rest),
        None => place.split_once(&format!("\n{copy}"))?,
    };
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
            ("COPY events, line 7, column v: \"COPY events, line 1\"", "events", Some(7)),
            ("COPY events, line 7, column v: \"\nCOPY events, line 1\"", "events", Some(7)),
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
