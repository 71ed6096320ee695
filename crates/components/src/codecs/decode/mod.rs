//! Lines to rows: what every decoder is given and gives, and the table of them.

/// The columns of a batch, as many as anyone reads.
mod columns;

/// Columns of texts that are computed.
mod texts;

/// Days and years.
mod calendar;

/// Times that are numbers.
mod epoch;

/// The time at the head of a line.
mod time;

/// The word for how bad it is.
mod level;

/// Lines that may be severe.
mod severe;

/// Rows in the making.
mod rows;

/// Lines that are JSON objects.
mod object;

/// Whatever the line says of itself.
mod auto;

/// Each line is a JSON object.
mod json;

/// Each line is a message of syslog.
mod syslog;

/// The line is the message, and nothing else is looked at.
mod text;

/// Records that something is known of beside their text.
mod tagged;

/// Rows as tests look at them.
#[cfg(test)]
mod shown;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use tidegate_model::{Mistake, Result, Spanned};

pub use columns::{Label, Shape};
pub use severe::Severe;
pub(crate) use tagged::Tagged;

use super::lines::Line;

/// Makes rows of lines.
///
/// Told which columns anyone reads, it makes those and looks for nothing else. Text stays in the
/// chunk it was read into; what has to be computed is charged to the budget.
pub trait Decoder: Send {
    /// One row for each line, in order, with the columns of the [`Shape`] it was made for; none for
    /// lines that it refuses as they are malformed, and those that say nothing at all, where what it
    /// reads has no such records. Which these are does not depend on the columns.
    ///
    /// # Errors
    ///
    /// Where Arrow can't have such a batch, which no input causes.
    fn decode(&mut self, chunk: &Chunk<'_>) -> Result<Decoded>;
}

/// Lines that were read at once.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'c> {
    /// What was read.
    pub bytes: &'c Buffer,
    /// Where the lines are in it, ascending.
    pub lines: &'c [Line],
    /// Where the lines are in their partition.
    pub places: Places,
    /// Which file, peer or table they came from.
    pub label: &'c Label,
    /// When they were read: nanoseconds since the epoch.
    pub read_at: i64,
}

impl Chunk<'_> {
    /// Where that line is in its partition.
    pub(crate) fn offset(&self, line: usize) -> u64 {
        match self.places {
            Places::Bytes(base) => {
                base + self.lines.get(line).map_or(0, |line| u64::from(line.start))
            }
            Places::Rows(first) => first + line as u64,
        }
    }
}

/// What rows of a chunk get as offsets in their partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// The place of the line's first byte; the chunk begins at this one.
    Bytes(u64),
    /// The number of the line; the first one has this one.
    Rows(u64),
}

/// What a [`Decoder`] made of a chunk.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows.
    pub rows: RecordBatch,
    /// How many lines were no UTF-8, as far as their text was looked at: what is none in them is
    /// U+FFFD.
    pub repaired: u64,
    /// How many lines were malformed, and are no rows.
    pub refused: u64,
    /// The first of them.
    pub malformed: Option<Malformed>,
}

/// A line that a decoder refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Which of the chunk's lines it is, from 0.
    pub line: usize,
    /// Where it is in its partition.
    pub offset: u64,
    /// What is wrong with it, in a few words that have nothing of its content.
    pub reason: String,
}

/// How lines are read, as a configuration's `codec` names it.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    /// That name.
    pub name: &'static str,
    /// Makes a decoder for rows of a shape.
    pub decoder: fn(Shape) -> Box<dyn Decoder>,
    /// A text without U+FFFD that is in a row's `message` is in its line as well, byte for byte, or
    /// the line has one of these.
    pub escapes: &'static [&'static str],
    /// How to find lines whose `severity` may be at least this; `None` where it never is anything.
    pub severe: Option<fn(u8) -> Option<Severe>>,
}

/// All of them.
pub const DECODERS: &[Codec] = &[text::CODEC, auto::CODEC, json::CODEC, syslog::CODEC];

/// The one that a configuration names; `text` where it names none.
///
/// # Errors
///
/// A mistake that lists them, where there is none of that name.
pub fn decoder_named(name: Option<&Spanned<String>>) -> Result<Codec, Mistake> {
    let Some(name) = name else { return Ok(text::CODEC) };
    let found = DECODERS.iter().find(|codec| codec.name == name.get_ref());
    found.copied().ok_or_else(|| {
        let names: Vec<_> = DECODERS.iter().map(|codec| format!("{:?}", codec.name)).collect();
        let message = format!("there is no codec {:?} to read with", name.get_ref());
        Mistake::at(name.span(), message).help(format!("one of {}", names.join(", ")))
    })
}
