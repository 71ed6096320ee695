//! What went wrong, and what the engine should do about it.

use std::error::Error as StdError;
use std::fmt;

/// A result whose error tells the engine what to do.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the engine should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Not now, perhaps later: wait, and try again while the rest goes on.
    Disconnected,
    /// This piece of data will never be taken: dead letters, and on with the next.
    Rejected,
    /// What somebody wrote or sent makes no sense: it has to be changed.
    Invalid,
    /// Nothing helps but a person: end the run, positions safe.
    Fatal,
    /// Whoever took the data has seen enough (a pipe was closed): end the run, as a success.
    Closed,
}

/// What went wrong, as a sentence that names the field, the cause and the remedy; the engine puts
/// the component's name before it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of a kind; the constructors named after the kinds are shorter.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// See [`ErrorKind::Disconnected`].
    pub fn disconnected(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Disconnected, context)
    }

    /// See [`ErrorKind::Rejected`].
    pub fn rejected(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Rejected, context)
    }

    /// See [`ErrorKind::Invalid`].
    pub fn invalid(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, context)
    }

    /// See [`ErrorKind::Fatal`].
    pub fn fatal(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fatal, context)
    }

    /// See [`ErrorKind::Closed`].
    pub fn closed(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Closed, context)
    }

    /// Adds what caused it.
    #[must_use]
    pub fn because(self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(cause.into()), ..self }
    }

    /// Puts something before what it says, such as a component's name.
    #[must_use]
    pub fn within(self, place: impl fmt::Display) -> Self {
        Self { context: format!("{place}: {}", self.context), ..self }
    }

    /// What the engine should do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The sentence and its causes, in one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        let mut cause = self.source.as_deref().map(|cause| cause as &dyn StdError);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

// `Display` says the causes already, so `source` must not offer them again.
impl StdError for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_one_line_from_place_to_cause() {
        let cause = std::io::Error::other("permission denied");
        let error = Error::fatal("path: can't open \"a.log\"").because(cause).within("sources.app");
        let said = "sources.app: path: can't open \"a.log\": permission denied";
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Fatal, said.to_owned()));
    }
}
