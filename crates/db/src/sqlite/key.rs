//! The key's columns in a row: read, compared as SQLite compares them, and bound again.

use std::cmp::Ordering;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Row, Statement};

use super::columns::write;
use crate::{Key, KeyValue};

/// A column of the key.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    /// Its place among what a page selects.
    pub(super) place: usize,
    /// Whether its values are to be integers, and nothing else.
    pub(super) is_integer: bool,
    pub(super) collation: Collation,
}

/// Which texts are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collation {
    Binary,
    NoCase,
    RTrim,
    /// Those may be that any of SQLite's own takes for the same.
    Unknown,
}

impl Collation {
    pub(super) fn named(name: &str) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "BINARY" => Self::Binary,
            "NOCASE" => Self::NoCase,
            "RTRIM" => Self::RTrim,
            _ => Self::Unknown,
        }
    }

    fn is_same(self, left: &str, right: &str) -> bool {
        let trimmed = || (left.trim_end_matches(' '), right.trim_end_matches(' '));
        match self {
            Self::Binary => left == right,
            Self::NoCase => left.eq_ignore_ascii_case(right),
            Self::RTrim => trimmed().0 == trimmed().1,
            Self::Unknown => trimmed().0.eq_ignore_ascii_case(trimmed().1),
        }
    }
}

/// Why a value can be none of a key.
pub(super) type Unfit = &'static str;

impl KeyColumn {
    /// Puts its value of a row in the place of another's.
    pub(super) fn read(
        &self,
        row: &Row<'_>,
        into: &mut KeyValue,
    ) -> rusqlite::Result<Option<Unfit>> {
        match (row.get_ref(self.place)?, into) {
            (ValueRef::Null, _) => return Ok(Some("is null")),
            (ValueRef::Integer(value), into) => *into = KeyValue::Int(value),
            _ if self.is_integer => return Ok(Some("is no integer, as it was declared")),
            (ValueRef::Real(value), into) => *into = KeyValue::Real(value),
            (ValueRef::Text(value), into) => {
                let Ok(value) = simdutf8::basic::from_utf8(value) else {
                    return Ok(Some("is a text that is no UTF-8"));
                };
                match into {
                    KeyValue::Text(text) => {
                        text.clear();
                        text.push_str(value);
                    }
                    into => *into = KeyValue::Text(value.to_owned()),
                }
            }
            (ValueRef::Blob(value), into) => match into {
                KeyValue::Blob(bytes) => {
                    bytes.clear();
                    bytes.extend_from_slice(value);
                }
                into => *into = KeyValue::Blob(value.to_owned()),
            },
        }
        Ok(None)
    }

    /// Whether SQLite takes two values for the same.
    pub(super) fn is_same(&self, left: &KeyValue, right: &KeyValue) -> bool {
        match (left, right) {
            (KeyValue::Text(left), KeyValue::Text(right)) => self.collation.is_same(left, right),
            (KeyValue::Int(int), KeyValue::Real(real))
            | (KeyValue::Real(real), KeyValue::Int(int)) => {
                real.fract() == 0.0 && (*real as i128).cmp(&i128::from(*int)) == Ordering::Equal
            }
            (left, right) => left == right,
        }
    }
}

/// A key of as many values, to be read into.
pub(super) fn blank(columns: usize) -> Vec<KeyValue> {
    vec![KeyValue::Int(0); columns]
}

/// Binds a key's values from this parameter on; gives the number of the parameter behind them.
pub(super) fn bind(
    statement: &mut Statement<'_>,
    first: usize,
    key: Option<&Key>,
) -> rusqlite::Result<usize> {
    let mut next = first;
    for value in key.iter().flat_map(|Key(values)| values) {
        statement.raw_bind_parameter(next, ToSqlOutput::Borrowed(borrowed(value)))?;
        next += 1;
    }
    Ok(next)
}

fn borrowed(value: &KeyValue) -> ValueRef<'_> {
    match value {
        KeyValue::Int(value) => ValueRef::Integer(*value),
        KeyValue::Real(value) => ValueRef::Real(*value),
        KeyValue::Text(value) => ValueRef::Text(value.as_bytes()),
        KeyValue::Blob(value) => ValueRef::Blob(value),
    }
}

/// A key for a message: `id = 12, name = 'x'`.
pub(super) fn told(columns: &[KeyColumn], values: &[KeyValue]) -> String {
    let parts = columns.iter().zip(values).map(|(column, value)| {
        let name = super::text::told(&column.name);
        format!("{name} = {}", shown(borrowed(value)))
    });
    Vec::from_iter(parts).join(", ")
}

/// A value for a message: a few letters of it, texts in quotes.
pub(super) fn shown(value: ValueRef<'_>) -> String {
    const LETTERS_MAX: usize = 40;
    const BYTES_MAX: usize = 4 * LETTERS_MAX;
    let mut text = Vec::new();
    match value {
        ValueRef::Null => return "null".to_owned(),
        ValueRef::Text(long) => text.extend_from_slice(&long[..long.len().min(BYTES_MAX)]),
        ValueRef::Blob(long) => {
            write(&mut text, ValueRef::Blob(&long[..long.len().min(BYTES_MAX)]))
        }
        number => write(&mut text, number),
    }
    let text = String::from_utf8_lossy(&text);
    let mut short: String = text.chars().take(LETTERS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    if matches!(value, ValueRef::Text(_)) { format!("'{}'", short.escape_debug()) } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_same_where_sqlite_says_so() {
        let same = |collation, left: &str, right: &str| {
            let column = KeyColumn {
                name: "k".into(),
                place: 0,
                is_integer: false,
                collation: Collation::named(collation),
            };
            let text = |text: &str| KeyValue::Text(text.into());
            column.is_same(&text(left), &text(right))
        };
        assert!(!same("BINARY", "a", "A") && same("nocase", "a", "A") && !same("NOCASE", "ä", "Ä"));
        assert!(same("RTRIM", "a", "a  ") && !same("RTRIM", "a", "A") && same("mine", "a", "A "));
    }

    #[test]
    fn integers_and_reals_are_compared_as_numbers() {
        let column = KeyColumn {
            name: "k".into(),
            place: 0,
            is_integer: false,
            collation: Collation::Binary,
        };
        let same = |int, real| column.is_same(&KeyValue::Int(int), &KeyValue::Real(real));
        assert!(same(1, 1.0) && !same(1, 1.5) && same(i64::MIN, -9_223_372_036_854_775_808.0));
        assert!(!same(i64::MAX, 9_223_372_036_854_775_808.0), "one less than that");
    }

    #[test]
    fn long_values_are_told_in_part() {
        assert_eq!(shown(ValueRef::Text(b"it\ns")), "'it\\ns'");
        assert_eq!(shown(ValueRef::Text("ü".repeat(1000).as_bytes())).chars().count(), 43);
        assert_eq!(shown(ValueRef::Blob(&[1, 255])), "X'01FF'");
        assert_eq!(shown(ValueRef::Blob(&[0; 1000])).chars().count(), 41);
        assert_eq!(shown(ValueRef::Real(1.5)), "1.5");
    }
}
