//! Bytes to rows, rows to bytes.

/// Memory to read into, within the budget.
mod space;

/// Where lines begin and end.
mod lines;

/// Lines to rows.
mod decode;

/// Text as views into what was read.
mod views;

/// Rows to bytes.
pub mod encode;

/// Single values as bytes.
pub(crate) mod values;

pub use decode::{Chunk, DECODERS, Decoder, DecoderName, Label, NewDecoder, Places, Shape};
pub use lines::{Cut, Cutter, Line, Piece, TooLong};
pub use space::{Pool, Space};
