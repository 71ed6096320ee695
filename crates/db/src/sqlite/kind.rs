//! Which Arrow type a column has, by the type that it was declared with.

use arrow_schema::DataType;
use serde::Deserialize;

/// What becomes of a value that is not of the type its column was declared with: SQLite keeps any
/// value in any column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mismatch {
    /// Reading ends with an error that names the column, the row and the value.
    #[default]
    Error,
    /// It is read as null.
    Null,
    /// All columns are text, but those that hold nothing else by SQLite's own rules: an `INTEGER
    /// PRIMARY KEY`, and those of a `STRICT` table.
    Text,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Integers.
    Int,
    /// Reals, and integers that are one exactly.
    Real,
    /// The integers 0 and 1.
    Bool,
    /// Text.
    Text,
    /// Bytes.
    Blob,
    /// Values of all kinds, as text.
    Any,
}

impl Kind {
    /// By the declared type, if there is one. The affinities are those of SQLite ("Determination Of
    /// Column Affinity"), of which NUMERIC is divided by the type's name.
    pub(super) fn of(declared: Option<&str>) -> Self {
        let declared = declared.unwrap_or_default().to_ascii_uppercase();
        let has = |parts: &[&str]| parts.iter().any(|part| declared.contains(part));
        if has(&["INT"]) {
            return Self::Int;
        }
        if has(&["CHAR", "CLOB", "TEXT"]) {
            return Self::Text;
        }
        if has(&["BLOB"]) {
            return Self::Blob;
        }
        if has(&["REAL", "FLOA", "DOUB"]) {
            return Self::Real;
        }
        let name = declared.split(|letter: char| !letter.is_ascii_alphabetic()).next();
        match name.unwrap_or_default() {
            "BOOL" | "BOOLEAN" => Self::Bool,
            "DEC" | "DECIMAL" | "MONEY" | "NUMBER" | "NUMERIC" => Self::Real,
            _ => Self::Any,
        }
    }

    /// The type of its array.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Int => DataType::Int64,
            Self::Real => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Text | Self::Any => DataType::Utf8,
            Self::Blob => DataType::Binary,
        }
    }

    /// What it wants, for a message.
    pub(super) fn wanted(self) -> &'static str {
        match self {
            Self::Int => "an integer",
            Self::Real => "a real number",
            Self::Bool => "0 or 1",
            Self::Text | Self::Any => "a text",
            Self::Blob => "a blob",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_are_read_as_sqlite_reads_them() {
        for (declared, kind) in [
            ("INTEGER", Kind::Int),
            ("unsigned big int", Kind::Int),
            ("POINT", Kind::Int), // so it is
            ("VARCHAR(255)", Kind::Text),
            ("native character(70)", Kind::Text),
            ("BLOB", Kind::Blob),
            ("DOUBLE PRECISION", Kind::Real),
            ("float", Kind::Real),
            ("DECIMAL(10,5)", Kind::Real),
            ("numeric", Kind::Real),
            ("Boolean", Kind::Bool),
            ("DATETIME", Kind::Any),
            ("STRING", Kind::Any),
            ("JSON", Kind::Any),
            ("ANY", Kind::Any),
            ("", Kind::Any),
        ] {
            assert_eq!(Kind::of(Some(declared)), kind, "{declared}");
        }
        assert_eq!(Kind::of(None), Kind::Any);
    }
}
