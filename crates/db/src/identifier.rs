//! Names in SQL.

/// A name in quotes, as both databases read it: it may have anything in it.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
