//! Bytes to rows, rows to bytes.

/// Rows to bytes.
pub mod encode;

/// Single values as bytes.
pub(crate) mod values;
