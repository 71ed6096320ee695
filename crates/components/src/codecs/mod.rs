//! Bytes to rows, rows to bytes.

/// Memory to read into, within the budget.
mod space;

/// Which lines are worth being looked at.
mod prefilter;

/// Where lines begin and end.
mod lines;

/// The elements of a JSON array as lines.
pub mod array;

/// Where records begin and end.
mod framing;

/// Lines that are not as they should be.
mod damage;

/// Lines to rows.
mod decode;

/// Text as views into what was read.
mod views;

/// Rows to bytes.
pub mod encode;

/// Rows to Parquet files.
pub mod parquet;

/// Single values as bytes.
pub(crate) mod values;

pub(crate) use damage::Damage;
pub(crate) use decode::Tagged;
pub use decode::{
    Chunk, Codec, DECODERS, Decoded, Decoder, Label, Malformed, Places, Severe, Shape,
    decoder_named,
};
pub use framing::{Framer, Framing};
pub(crate) use lines::too_large;
pub use lines::{Cut, Cutter, Line, Piece, TooLong, line_bytes_max};
pub use prefilter::Prefilter;
pub(crate) use space::rounded;
pub use space::{Pool, Space};
