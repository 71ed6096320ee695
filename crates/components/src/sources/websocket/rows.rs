//! Messages to rows: batch by batch, as large as one may be.

use std::ops::Range;
use std::sync::Arc;

use arrow_buffer::Buffer;
use bytes::Bytes;
use tidegate_model::{Partition, Position, Result, SourceBatch, SourceContext};
use tidegate_net::websocket::Messages;

use super::Reading;
use crate::clock;
use crate::codecs::{Chunk, Cut, Cutter, Damage, Decoder, Label, Line, Piece, Places, Shape};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// A message.
    Message,
    /// A line of one.
    Newline,
}

/// Who sent messages.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: Box<str>,
    pub(super) label: Label,
}

impl Peer {
    pub(super) fn new(name: String) -> Arc<Self> {
        Arc::new(Self { label: Label::from(&*name), name: name.into() })
    }
}

/// Makes batches of messages.
pub(super) struct Rows {
    decoder: Box<dyn Decoder>,
    framing: Framing,
    rows_max: usize,
    bytes_max: usize,
    damage: Damage,
    partition: Partition,
    /// How many records there have been.
    sequence: u64,
    left: Option<Left>,
}

/// Records that are not rows yet.
struct Left {
    bytes: Buffer,
    lines: Vec<Line>,
    at: usize,
    peer: Arc<Peer>,
    read_at: i64,
}

impl Rows {
    pub(super) fn new(reading: &Reading, context: &SourceContext) -> Self {
        let shape = Shape::new(Arc::clone(&context.columns), Arc::clone(&context.holder));
        Self {
            decoder: (reading.codec.decoder)(shape),
            framing: reading.framing,
            rows_max: context.batch_rows_max.max(1),
            bytes_max: context.batch_bytes_max,
            damage: Damage::default(),
            partition: Partition::from("websocket"),
            sequence: 0,
            left: None,
        }
    }

    /// Takes what was read at once; what was taken before must be rows by now.
    pub(super) fn take(&mut self, messages: &Messages, peer: Arc<Peer>) {
        let bytes = Buffer::from(messages.bytes().clone());
        let mut lines = Vec::with_capacity(messages.count_all());
        for (range, _) in messages.ranges() {
            match self.framing {
                Framing::Message => lines.push(line(range)),
                Framing::Newline => cut(&bytes, range, &mut lines),
            }
        }
        self.left = Some(Left { bytes, lines, at: 0, peer, read_at: clock::now() });
    }

    /// The next batch of what was taken, if anything is left of it.
    pub(super) fn next(&mut self) -> Result<Option<SourceBatch>> {
        let Some(mut left) = self.left.take() else { return Ok(None) };
        let rest = left.lines.get(left.at..).unwrap_or_default();
        let mut bytes = 0;
        let fits = |line: &&Line| {
            bytes += (line.end - line.start) as usize;
            bytes <= self.bytes_max
        };
        // One is given however long it is.
        let count = rest.iter().take(self.rows_max).take_while(fits).count().max(1);
        let Some(lines) = rest.get(..count) else { return Ok(None) };
        let start = self.sequence;
        self.sequence += count as u64;
        let decoded = self.decoder.decode(&Chunk {
            bytes: &left.bytes,
            lines,
            places: Places::Rows(start),
            label: &left.peer.label,
            read_at: left.read_at,
        })?;
        self.damage.tell(&left.peer.name, &Cut::default(), &decoded);
        let bytes = lines.iter().map(|line| u64::from(line.end - line.start)).sum();
        let read_at = left.read_at;
        left.at += count;
        if left.at < left.lines.len() {
            self.left = Some(left);
        }
        let partition = self.partition.clone();
        Ok(Some(SourceBatch {
            rows: decoded.rows,
            start,
            position: Position { partition, sequence: self.sequence, state: Bytes::new() },
            read_at,
            bytes,
            refused: decoded.refused,
            skipped: 0,
            told: None,
        }))
    }
}

/// Messages have at most 256 MiB, and those read at once no more than one may have.
fn line(range: Range<usize>) -> Line {
    Line { start: range.start as u32, end: range.end as u32 }
}

/// The lines of a message; what follows the last line end is one, too.
fn cut(bytes: &[u8], range: Range<usize>, lines: &mut Vec<Line>) {
    let from = lines.len();
    let base = range.start as u32;
    let bytes = bytes.get(range).unwrap_or_default();
    let (offset, ended, rows_max) = (0, true, usize::MAX);
    let piece = Piece { bytes, from: 0, offset, ended, rows_max, prefilter: None };
    Cutter::new(bytes.len()).cut(piece, lines);
    for line in lines.iter_mut().skip(from) {
        line.start += base;
        line.end += base;
    }
}
