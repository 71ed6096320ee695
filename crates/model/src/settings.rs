//! A component's part of the configuration: parsed TOML that remembers where it stood.

use std::ops::Range;

use serde::de::{DeserializeOwned, IntoDeserializer};
use toml::de::DeTable;

/// A value that knows its bytes in the configuration's text. For fields whose content is checked
/// after parsing: `query: Spanned<String>`.
pub use toml::Spanned;

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The bytes of the configuration's text that are wrong; `None` for the component as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong, in lower case, without a full stop.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Mistake {
    /// A mistake at these bytes; [`Spanned::span`] gives a field's.
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span: Some(span), message: message.into(), help: None }
    }

    /// A mistake of the component as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self { span: None, message: message.into(), help: None }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// A component's table, without the keys that the engine reads itself (`type`, `inputs`, …), and
/// with `${VAR}` filled in. It may borrow from the configuration's text.
#[derive(Clone, Debug)]
pub struct Settings<'i> {
    table: Spanned<DeTable<'i>>,
}

impl<'i> Settings<'i> {
    /// Of a parsed table.
    pub fn new(table: Spanned<DeTable<'i>>) -> Self {
        Self { table }
    }

    /// Of TOML text, for tests and for pipelines built in code.
    ///
    /// # Errors
    ///
    /// Where the text is no TOML.
    pub fn from_toml(text: &'i str) -> Result<Self, Mistake> {
        DeTable::parse(text).map(Self::new).map_err(Mistake::from)
    }

    /// As a component's configuration: a struct that derives `Deserialize`, with
    /// `#[serde(deny_unknown_fields)]`.
    ///
    /// # Errors
    ///
    /// Where a key is unknown or missing, or a value is of the wrong type.
    pub fn parse<C: DeserializeOwned>(&self) -> Result<C, Mistake> {
        C::deserialize(self.table.clone().into_deserializer()).map_err(Mistake::from)
    }
}

impl From<toml::de::Error> for Mistake {
    fn from(error: toml::de::Error) -> Self {
        Self { span: error.span(), message: error.message().to_owned(), help: None }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        path: Spanned<String>,
        #[serde(default)]
        lines: u32,
    }

    fn parsed(text: &str) -> Result<Config, Mistake> {
        Settings::from_toml(text)?.parse()
    }

    #[test]
    fn fields_know_where_they_stood() {
        let config = parsed("lines = 3\npath = \"a.log\"").unwrap();
        assert_eq!((config.path.span(), config.lines), (17..24, 3));
        assert_eq!(config.path.get_ref(), "a.log");
    }

    #[test]
    fn mistakes_point_at_what_is_wrong() {
        let unknown = parsed("path = \"a\"\npaht = 1").unwrap_err();
        assert_eq!(unknown.span, Some(11..15), "{unknown:?}");
        let wrong = parsed("path = \"a\"\nlines = \"many\"").unwrap_err();
        assert_eq!(wrong.span, Some(19..25), "{wrong:?}");
        assert!(parsed("lines = 1").unwrap_err().message.contains("`path`"));
        assert!(parsed("path =").is_err());
    }
}
