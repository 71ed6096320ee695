//! Bytes to rows, rows to bytes.
