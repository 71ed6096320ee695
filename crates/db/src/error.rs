//! What went wrong, and whether it may heal.

use std::fmt;

use crate::postgres::Fault;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not now, perhaps later: the connection broke, the server restarts or is too busy, a lock
    /// lasted too long.
    Connection,
    /// A person has to do something: a wrong password, table, permission, query.
    Refused,
    /// The server refuses the data it was given.
    Data,
}

/// What went wrong, as a sentence that names cause and remedy.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    context: String,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    fault: Option<Box<Fault>>,
}

impl Error {
    /// An error of a kind; the constructors named after the kinds are shorter.
    pub fn new(kind: Kind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), cause: None, fault: None }
    }

    /// See [`Kind::Connection`].
    pub fn connection(context: impl Into<String>) -> Self {
        Self::new(Kind::Connection, context)
    }

    /// See [`Kind::Refused`].
    pub fn refused(context: impl Into<String>) -> Self {
        Self::new(Kind::Refused, context)
    }

    /// See [`Kind::Data`].
    pub fn data(context: impl Into<String>) -> Self {
        Self::new(Kind::Data, context)
    }

    /// Adds what caused it.
    #[must_use]
    pub fn because(self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// Adds what a Postgres server said.
    pub(crate) fn with_fault(self, fault: Fault) -> Self {
        Self { fault: Some(Box::new(fault)), ..self }
    }

    /// What a Postgres server said, where it was one that did.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_deref()
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the same may work later.
    pub fn may_heal(&self) -> bool {
        self.kind == Kind::Connection
    }
}

/// The sentence and its causes, in one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn std::error::Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

// `Display` says the causes already, so `source` must not offer them again.
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_one_line() {
        let error = Error::connection("can't connect").because(std::io::Error::other("no route"));
        assert_eq!(
            (error.to_string().as_str(), error.may_heal()),
            ("can't connect: no route", true)
        );
    }
}
