//! Records of one connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow_buffer::Buffer;
use bytes::Bytes;
use tidegate_model::{
    BudgetHolder, Partition, Permit, Position, Result, SourceBatch, SourceContext,
};
use tokio::time::timeout;
use tracing::debug;

use super::wire::Wire;
use crate::clock;
use crate::codecs::{
    Chunk, Codec, Cut, Damage, Decoder, Framer, Framing, Label, Line, Piece, Places, Pool,
    Prefilter, Shape, Space, rounded, too_large,
};

/// How much is read at once: grows with what comes.
const CHUNK_BYTES_MIN: usize = 8 << 10;
/// See [`CHUNK_BYTES_MIN`].
pub(super) const CHUNK_BYTES_MAX: usize = 256 << 10;

/// What all connections of a source have in common.
pub(super) struct Shared {
    pub(super) context: SourceContext,
    pub(super) codec: Codec,
    pub(super) framing: Framing,
    pub(super) line_bytes_max: usize,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) pool: Pool,
    /// Which lines anyone wants, where not all are.
    pub(super) prefilter: Option<Prefilter>,
    /// How many bytes have been read in all.
    pub(super) sequence: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        context: SourceContext,
        codec: Codec,
        framing: Framing,
        line_bytes_max: usize,
        idle_timeout: Option<Duration>,
    ) -> Arc<Self> {
        let lines = framing == Framing::Newline;
        let prefilter = if lines { Prefilter::wanted(&context, &codec) } else { None };
        let (pool, sequence) = (Pool::default(), AtomicU64::new(0));
        Arc::new(Self {
            context,
            codec,
            framing,
            line_bytes_max,
            idle_timeout,
            pool,
            prefilter,
            sequence,
        })
    }

    pub(super) fn decoder(&self) -> Box<dyn Decoder> {
        let columns = Arc::clone(&self.context.columns);
        (self.codec.decoder)(Shape::new(columns, Arc::clone(&self.context.holder)))
    }

    pub(super) fn holder(&self) -> &BudgetHolder {
        &self.context.holder
    }

    /// Where so many bytes more begin.
    pub(super) fn place(&self, bytes: usize) -> u64 {
        self.sequence.fetch_add(bytes as u64, Ordering::Relaxed)
    }
}

/// Where a source is after so many bytes; it can't go on from there.
pub(super) fn position(sequence: u64) -> Position {
    Position { partition: Partition::from("socket"), sequence, state: Bytes::new() }
}

/// One connection at work.
pub(super) struct Link {
    shared: Arc<Shared>,
    wire: Wire,
    decoder: Box<dyn Decoder>,
    framer: Framer,
    records: Vec<Line>,
    label: Label,
    name: String,
    damage: Damage,
    chunk_bytes: usize,
    /// What was read and not cut yet, as there were more records than a batch has rows.
    rest: Option<Buffer>,
    /// A record that is not complete yet, charged.
    part: Option<(Vec<u8>, Permit)>,
    ended: bool,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>, wire: Wire, name: String) -> Self {
        Self {
            wire,
            decoder: shared.decoder(),
            framer: Framer::new(shared.framing, shared.line_bytes_max),
            records: Vec::new(),
            label: Label::from(name.as_str()),
            name,
            damage: Damage::default(),
            chunk_bytes: CHUNK_BYTES_MIN,
            rest: None,
            part: None,
            ended: false,
            shared,
        }
    }

    /// The next batch; nothing at the connection's end, whatever kind of end that is.
    pub(super) async fn next(mut self) -> Result<Option<(SourceBatch, Self)>> {
        loop {
            if self.rest.is_none() {
                if self.ended {
                    return Ok(None);
                }
                let first = match self.readable().await {
                    Ok(first) => first,
                    Err(error) => {
                        let (peer, source) = (&*self.name, &*self.shared.context.name);
                        debug!(source, peer, %error, "a connection ended");
                        self.ended = true;
                        None
                    }
                };
                // At the end only what is left is looked at.
                if !self.ended || self.part.is_some() {
                    let wants = self.wants();
                    let shared = Arc::clone(&self.shared);
                    let permit = shared.holder().acquire(wants).await.map_err(too_large)?;
                    self.fill(permit, first);
                }
            }
            if let Some(batch) = self.cut()? {
                return Ok(Some((batch, self)));
            }
        }
    }

    /// Waits until there is something to read, holding nothing but a part of a record.
    async fn readable(&mut self) -> io::Result<Option<u8>> {
        let Some(idle) = self.shared.idle_timeout else { return self.wire.readable().await };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it said nothing for idle_timeout");
        timeout(idle, self.wire.readable()).await.map_err(late)?
    }

    /// Room for what waits for its rest, and as much again.
    fn wants(&self) -> usize {
        let part = self.part.as_ref().map_or(0, |(part, _)| part.len());
        let record = self.framer.chunk_bytes_min().min(part.saturating_mul(2));
        let context = &self.shared.context;
        let most = context.batch_bytes_max.min(context.holder.largest());
        rounded(self.chunk_bytes.min(most).max(record).max(part + 1)).min(context.holder.largest())
    }

    /// Reads what there is, as far as there is room.
    fn fill(&mut self, permit: Permit, first: Option<u8>) {
        let mut space: Space = self.shared.pool.space(permit);
        let room = space.bytes_mut();
        let mut filled = 0;
        let part = self.part.take().map(|(part, _)| part).unwrap_or_default();
        for known in [&*part, first.as_slice()] {
            if let Some(start) = room.get_mut(filled..filled + known.len()) {
                start.copy_from_slice(known);
                filled += known.len();
            }
        }
        let before = filled;
        while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty())
            && !self.ended
        {
            match self.wire.try_read(rest) {
                Ok(0) => self.ended = true,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let (peer, source) = (&*self.name, &*self.shared.context.name);
                    debug!(source, peer, %error, "a connection broke");
                    self.ended = true;
                }
            }
        }
        let (read, size) = (filled - before, room.len());
        // As large as twice what comes at once.
        self.chunk_bytes = match read {
            read if filled == size && read > 0 => (self.chunk_bytes * 2).min(CHUNK_BYTES_MAX),
            read if read < self.chunk_bytes / 4 => (self.chunk_bytes / 2).max(CHUNK_BYTES_MIN),
            _ => self.chunk_bytes,
        };
        if filled > 0 {
            self.rest = Some(space.into_buffer(filled));
        }
    }

    /// A batch of what was read; nothing where it has no whole record.
    fn cut(&mut self) -> Result<Option<SourceBatch>> {
        let Some(buffer) = self.rest.take() else { return Ok(None) };
        let context = &self.shared.context;
        // What is more than a batch may have is one record.
        let rows_max = match buffer.len() > context.batch_bytes_max {
            true => 1,
            false => context.batch_rows_max.max(1),
        };
        self.records.clear();
        let prefilter = self.shared.prefilter.as_ref();
        let (ended, bytes) = (self.ended, &*buffer);
        let piece = Piece { bytes, from: 0, offset: 0, ended, rows_max, prefilter };
        let cut = self.framer.cut(piece, &mut self.records);
        let rest = buffer.slice(cut.used);
        if self.records.len() >= rows_max && !rest.is_empty() {
            self.rest = Some(rest);
        } else if !rest.is_empty() {
            self.part = Some((rest.to_vec(), context.holder.charge(rest.len())));
        }
        if cut.used == 0 {
            return Ok(None);
        }
        let start = self.shared.place(cut.used);
        let read_at = clock::now();
        let decoded = self.decoder.decode(&Chunk {
            bytes: &buffer,
            lines: &self.records,
            places: Places::Bytes(start),
            label: &self.label,
            read_at,
        })?;
        self.damage.tell(&*self.name, &cut, &decoded);
        let Cut { used, refused, skipped, .. } = cut;
        let refused = refused + decoded.refused;
        let (position, rows) = (position(start + used as u64), decoded.rows);
        let bytes = used as u64;
        Ok(Some(SourceBatch {
            rows,
            start,
            position,
            read_at,
            bytes,
            refused,
            skipped,
            told: None,
        }))
    }
}
