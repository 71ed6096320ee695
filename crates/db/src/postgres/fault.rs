//! What a server says is wrong, and what to do about it.

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

use super::config::Config;
use crate::{Error, Kind};

/// So much is shown of each part of an error.
const SHOWN_CHARS: usize = 500;

/// An error of the server, by its fields ([protocol], "Error and Notice Message Fields").
///
/// [protocol]: https://www.postgresql.org/docs/current/protocol-error-fields.html
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `SQLSTATE`: five letters and digits.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do, as the server sees it.
    pub hint: Option<String>,
    /// Where: for `COPY`, the line.
    pub place: Option<String>,
    /// The constraint that was broken.
    pub constraint: Option<String>,
    /// The column it is about.
    pub column: Option<String>,
}

impl Fault {
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut fault = Self::default();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => fault.code = value,
                b'M' => fault.message = value,
                b'D' => fault.detail = Some(value),
                b'H' => fault.hint = Some(value),
                b'W' => fault.place = Some(value),
                b'n' => fault.constraint = Some(value),
                b'c' => fault.column = Some(value),
                _ => {}
            }
        }
        fault
    }

    /// All it says, in one line. Of a long value that it names there is the beginning.
    pub fn line(&self) -> String {
        let mut line = beginning(&self.message);
        for (name, more) in [("", &self.detail), ("hint: ", &self.hint)] {
            if let Some(more) = more {
                line = format!("{line}; {name}{}", beginning(more));
            }
        }
        if !self.code.is_empty() {
            line = format!("{line} ({})", self.code);
        }
        line.replace(['\n', '\t'], " ")
    }

    /// Whether the same may work later.
    pub fn kind(&self) -> Kind {
        match self.code.as_str() {
            "57P04" => Kind::Refused, // the database was dropped
            "57014" if self.is_timeout() => Kind::Refused,
            // A lock that lasted, a deadlock, a conflict, a cancelled statement, a limit on idling.
            "55P03" | "40P01" | "40001" | "57014" | "25P03" | "25P04" | "57P05" => Kind::Connection,
            code => match code.get(..2) {
                // The connection, resources, the operator.
                Some("08" | "53" | "57" | "58") => Kind::Connection,
                Some("22" | "23") => Kind::Data,
                _ => Kind::Refused,
            },
        }
    }

    /// Whether a statement took longer than it may.
    pub fn is_timeout(&self) -> bool {
        self.code == "57014" && self.message.contains("statement timeout")
    }

    /// As an error with what a person can do about it.
    pub fn into_error(self, config: &Config) -> Error {
        let Config { user, database, .. } = config;
        let remedy = match self.code.as_str() {
            "28P01" => format!("the password for {user:?} is wrong, or there is none: "),
            "28000" => format!("the server does not let {user:?} in from here: see pg_hba.conf: "),
            "3D000" => format!("there is no database {database:?}: "),
            "42501" => format!("{user:?} may not do that: grant it the right: "),
            "42P01" => "there is no such table; a name may need its schema: ".to_owned(),
            "53300" => "the server has no connection left: ".to_owned(),
            "57014" if self.is_timeout() => {
                "raise statement_timeout for this user, or let an index serve the key: ".to_owned()
            }
            _ => String::new(),
        };
        Error::new(self.kind(), format!("{config}: {remedy}{}", self.line()))
    }
}

fn beginning(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", text.split_at(end).0),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: &str, message: &str) -> Fault {
        Fault { code: code.into(), message: message.into(), ..Fault::default() }
    }

    #[test]
    fn what_may_heal_is_told_from_what_a_person_must_do() {
        for (code, message, kind) in [
            ("57P01", "terminating connection due to administrator command", Kind::Connection),
            ("57P03", "the database system is starting up", Kind::Connection),
            ("53300", "sorry, too many clients already", Kind::Connection),
            ("57014", "canceling statement due to user request", Kind::Connection),
            ("57014", "canceling statement due to statement timeout", Kind::Refused),
            ("28P01", "password authentication failed", Kind::Refused),
            ("42P01", "relation \"x\" does not exist", Kind::Refused),
            ("23505", "duplicate key", Kind::Data),
            ("", "", Kind::Refused),
        ] {
            assert_eq!(fault(code, message).kind(), kind, "{code} {message}");
        }
    }

    #[test]
    fn it_is_one_line_with_cause_and_remedy() {
        let config = Config::parse("postgres://ann:secret@db/shop?sslmode=disable").unwrap();
        let error = fault("28P01", "password authentication\nfailed").into_error(&config);
        let said = "ann@db:5432/shop: the password for \"ann\" is wrong, or there is none: \
                    password authentication failed (28P01)";
        assert_eq!(error.to_string(), said);
    }
}
