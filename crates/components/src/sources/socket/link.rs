//! Records of one connection.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_buffer::Buffer;
use bytes::Bytes;
use tidegate_model::{
    BudgetHolder, Partition, Permit, Position, Result, SourceBatch, SourceContext,
};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::parts::{Parts, Room};
use super::wire::Wire;
use crate::clock;
use crate::codecs::{
    Chunk, Codec, Cut, Damage, Decoded, Decoder, Framer, Framing, Label, Line, Piece, Places, Pool,
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
    /// Room for records that are not complete yet.
    pub(super) parts: Parts,
    /// What has been told; once for all connections, or whoever connects could fill the log.
    damage: Mutex<Damage>,
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
            parts: Parts::new(),
            damage: Mutex::default(),
        })
    }

    pub(super) fn decoder(&self) -> Box<dyn Decoder> {
        let columns = Arc::clone(&self.context.columns);
        (self.codec.decoder)(Shape::new(columns, Arc::clone(&self.context.holder)))
    }

    pub(super) fn holder(&self) -> &BudgetHolder {
        &self.context.holder
    }

    /// Tells what is wrong for the first time in what came from a peer.
    pub(super) fn tell(&self, peer: &str, cut: &Cut, decoded: &Decoded) {
        let told = || self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let mut damage = *told();
        damage.tell(peer, cut, decoded);
        *told() = damage;
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

/// From here on, what is kept of a record is read on in place rather than copied to what follows.
const LONG_BYTES: usize = 16 << 10;

/// One that says nothing for so long in the middle of a record, while others wait for room to keep
/// theirs, is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection at work.
pub(super) struct Link {
    shared: Arc<Shared>,
    wire: Wire,
    decoder: Box<dyn Decoder>,
    framer: Framer,
    records: Vec<Line>,
    label: Label,
    name: String,
    chunk_bytes: usize,
    /// How many bytes of the connection are done with.
    offset: u64,
    /// What was read and not cut yet, as there were more records than a batch has rows.
    rest: Option<Buffer>,
    part: Option<Part>,
    room: Room,
    ended: bool,
}

/// A record that is not complete yet, charged.
struct Part {
    /// Its bytes, and room for more.
    bytes: Vec<u8>,
    filled: usize,
    /// How many of them have no end of it.
    searched: usize,
    permit: Permit,
}

impl Part {
    fn known(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
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
            chunk_bytes: CHUNK_BYTES_MIN,
            offset: 0,
            rest: None,
            part: None,
            room: Room::default(),
            ended: false,
            shared,
        }
    }

    /// The next batch; nothing at the connection's end, whatever kind of end that is.
    pub(super) async fn next(mut self) -> Result<Option<(SourceBatch, Self)>> {
        loop {
            if self.rest.is_none() && !self.read().await? {
                return Ok(None);
            }
            if let Some(batch) = self.cut()? {
                return Ok(Some((batch, self)));
            }
        }
    }

    /// Reads what there is, once there is something; nothing at the end.
    async fn read(&mut self) -> Result<bool> {
        let mut first = None;
        if !self.ended {
            match self.readable().await {
                Ok(byte) => first = byte,
                Err(error) => self.end(&error),
            }
        }
        let mut is_whole = false;
        if !self.ended && self.part.as_ref().is_some_and(|part| part.filled >= LONG_BYTES) {
            self.lengthen(first.take()).await?;
            is_whole = self.is_whole();
            if !self.ended && !is_whole {
                return Ok(true);
            }
        }
        let part = self.part.as_ref().map_or(0, |part| part.filled);
        if self.ended && part == 0 {
            return Ok(false);
        }
        let shared = Arc::clone(&self.shared);
        let wants = self.wants(part);
        loop {
            let mut permit = shared.holder().acquire(wants).await.map_err(too_large)?;
            let room = match shared.parts.reserve(&mut self.room, part, wants) {
                // What is there is done with, and gives room back.
                None if is_whole || self.ended => Some(part),
                room => room,
            };
            if let Some(room) = room {
                permit.shrink_to(room);
                self.fill(permit, first);
                return Ok(true);
            }
            drop(permit);
            shared.parts.wait(&mut self.room, wants).await;
        }
    }

    /// Waits until there is something to read, holding nothing but a part of a record.
    async fn readable(&mut self) -> io::Result<Option<u8>> {
        let (idle, began) = (self.shared.idle_timeout, Instant::now());
        let patience = self.part.as_ref().map(|_| PATIENCE);
        let Some(limit) = idle.into_iter().chain(patience).min() else {
            return self.wire.readable().await;
        };
        loop {
            if let Ok(read) = timeout(limit, self.wire.readable()).await {
                return read;
            }
            let said = if idle.is_some_and(|idle| began.elapsed() >= idle) {
                "it said nothing for idle_timeout"
            } else if self.shared.parts.wanted() && began.elapsed() >= PATIENCE {
                "it said nothing in the middle of a record, while others wait for its room"
            } else {
                continue;
            };
            return Err(io::Error::new(io::ErrorKind::TimedOut, said));
        }
    }

    fn end(&mut self, error: &io::Error) {
        let (peer, source) = (&*self.name, &*self.shared.context.name);
        debug!(source, peer, %error, "a connection ended");
        self.ended = true;
    }

    /// Room for the part that waits for its rest, and for what comes.
    fn wants(&self, part: usize) -> usize {
        let context = &self.shared.context;
        let most = context.batch_bytes_max.max(part + 2);
        rounded((part + self.chunk_bytes).min(most)).min(context.holder.largest())
    }

    /// Reads on at the end of a long part, as far as there is something.
    async fn lengthen(&mut self, first: Option<u8>) -> Result<()> {
        let Some(mut part) = self.part.take() else { return Ok(()) };
        if let Some(known) = first {
            self.grow(&mut part).await?;
            if let Some(byte) = part.bytes.get_mut(part.filled) {
                (*byte, part.filled) = (known, part.filled + 1);
            }
        }
        // One chunk at most, so that others get their turns.
        let enough = part.filled + CHUNK_BYTES_MAX;
        while !self.ended && part.filled < self.framer.chunk_bytes_min().min(enough) {
            self.grow(&mut part).await?;
            let into = part.bytes.get_mut(part.filled..).unwrap_or_default();
            match self.wire.try_read(into) {
                Ok(0) => self.ended = true,
                Ok(count) => part.filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.end(&error),
            }
        }
        self.part = Some(part);
        Ok(())
    }

    /// Makes room for more of a part, if there is none: twice as much, up to the longest record.
    async fn grow(&mut self, part: &mut Part) -> Result<()> {
        let has = part.bytes.len();
        if part.filled < has {
            return Ok(());
        }
        let size = (2 * has).min(self.framer.chunk_bytes_min()).max(part.filled + 1);
        let shared = Arc::clone(&self.shared);
        while shared.parts.reserve(&mut self.room, part.filled, size) != Some(size) {
            shared.parts.wait(&mut self.room, size).await;
        }
        let more = shared.holder().acquire(size - has).await.map_err(too_large)?;
        // It is of the same holder.
        let _merged = part.permit.merge(more);
        part.bytes.reserve_exact(size - has);
        part.bytes.resize(size, 0);
        Ok(())
    }

    /// Whether there may be an end in the part, or it is as long as a record may be.
    fn is_whole(&mut self) -> bool {
        let Some(part) = &mut self.part else { return false };
        let whole = self.framer.may_be_whole(part.known(), part.searched);
        part.searched = part.filled;
        whole
    }

    /// Reads what there is, as far as there is room.
    fn fill(&mut self, permit: Permit, first: Option<u8>) {
        let mut space: Space = self.shared.pool.space(permit);
        let room = space.bytes_mut();
        let mut filled = 0;
        let part = self.part.take();
        let part = part.as_ref().map(Part::known).unwrap_or_default();
        for known in [part, first.as_slice()] {
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
                Err(error) => self.end(&error),
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
        let (ended, offset, bytes) = (self.ended, self.offset, &*buffer);
        let piece = Piece { bytes, from: 0, offset, ended, rows_max, prefilter };
        let cut = self.framer.cut(piece, &mut self.records);
        self.offset += cut.used as u64;
        let rest = buffer.slice(cut.used);
        if self.records.len() >= rows_max && !rest.is_empty() {
            self.rest = Some(rest);
        } else {
            self.shared.parts.keep(&mut self.room, rest.len());
            self.part = (!rest.is_empty()).then(|| Part {
                bytes: rest.to_vec(),
                filled: rest.len(),
                searched: rest.len(),
                permit: context.holder.charge(rest.len()),
            });
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
        self.shared.tell(&self.name, &cut, &decoded);
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
