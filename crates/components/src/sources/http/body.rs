//! A request's body, unpacked into memory of the budget.

use std::io::{self, Write};
use std::sync::Arc;

use arrow_buffer::Buffer;
use flate2::write::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tidegate_model::{BudgetHolder, Permit};
use zstd::stream::raw::{Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::frames::{HEAD_BYTES_MAX, Head, bytes_for};
use crate::codecs::{Pool, Space, rounded};

/// How far back a zstd frame may refer: what its encoders make by default stays within. What a frame
/// needs is reserved when it begins.
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// What is reserved for a body whose length nobody says.
const BEGIN_BYTES: usize = 16 << 10;

/// Why a body is of no use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is no room for it now.
    Full,
    /// It has more bytes than a body may have.
    TooLarge,
    /// It is packed in a way that is not known.
    Unknown(String),
    /// It is not what it is said to be packed with, or cut off.
    Damaged(&'static str),
    /// It refers back further than there is memory for.
    FarBack,
    /// It did not come.
    CutOff,
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// What the headers say.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Unusable> {
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Self::Plain) };
        let said = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        match &*said {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(Unusable::Unknown(said)),
        }
    }
}

/// Where bodies go.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) holder: Arc<BudgetHolder>,
    pub(super) pool: Pool,
    /// The most that a body may have, unpacked.
    pub(super) bytes_max: usize,
}

impl Room {
    /// What a body of that size takes at most: while it grows, both its old and its new memory, and
    /// what unpacking needs.
    pub(super) fn bytes_min(bytes_max: usize) -> usize {
        rounded(bytes_max).saturating_mul(2).saturating_add(bytes_for(WINDOW_BYTES_MAX))
    }

    /// Reads and unpacks a body. Dropped half-way, it gives back all it holds.
    pub(super) async fn read(
        &self,
        mut body: Incoming,
        packing: Packing,
    ) -> Result<Buffer, Unusable> {
        let length = body.size_hint().exact();
        let length = length.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let filling = Filling::new(self, length.filter(|_| packing == Packing::Plain))?;
        let mut unpacker = match packing {
            Packing::Plain => Unpacker::Plain(filling),
            Packing::Gzip => Unpacker::Gzip(Box::new(MultiGzDecoder::new(filling))),
            Packing::Zstd => Unpacker::Zstd(Zstd::new(filling)?),
        };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Unusable::CutOff)?;
            if let Some(data) = frame.data_ref() {
                unpacker.push(data)?;
            }
        }
        unpacker.finish()
    }
}

/// Memory that grows with a body.
struct Filling {
    room: Room,
    space: Space,
    capacity: usize,
    filled: usize,
    /// Why it takes no more.
    failed: Option<Unusable>,
}

impl Filling {
    fn new(room: &Room, length: Option<usize>) -> Result<Self, Unusable> {
        if length.is_some_and(|length| length > room.bytes_max) {
            return Err(Unusable::TooLarge);
        }
        let capacity = rounded(length.unwrap_or(BEGIN_BYTES.min(room.bytes_max)));
        let permit = room.holder.try_acquire(capacity).ok_or(Unusable::Full)?;
        let space = room.pool.space(permit);
        Ok(Self { room: room.clone(), space, capacity, filled: 0, failed: None })
    }

    /// Free memory, at least one byte of it.
    fn free(&mut self) -> Result<&mut [u8], Unusable> {
        if self.filled == self.capacity {
            self.grow(self.filled + 1)?;
        }
        Ok(self.space.bytes_mut().get_mut(self.filled..).unwrap_or_default())
    }

    /// Makes room for so many bytes in all, and for as much again as there are.
    fn grow(&mut self, least: usize) -> Result<(), Unusable> {
        if least > self.room.bytes_max {
            return Err(Unusable::TooLarge);
        }
        let most = rounded(self.room.bytes_max);
        let capacity = rounded(least.max(self.capacity.saturating_mul(2))).min(most);
        let permit = self.room.holder.try_acquire(capacity).ok_or(Unusable::Full)?;
        let mut space = self.room.pool.space(permit);
        let (old, new) = (self.space.bytes_mut(), space.bytes_mut());
        if let (Some(old), Some(new)) = (old.get(..self.filled), new.get_mut(..self.filled)) {
            new.copy_from_slice(old);
        }
        (self.space, self.capacity) = (space, capacity);
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Unusable> {
        let end = self.filled.saturating_add(bytes.len());
        if end > self.room.bytes_max {
            return Err(Unusable::TooLarge);
        }
        if end > self.capacity {
            self.grow(end)?;
        }
        if let Some(free) = self.space.bytes_mut().get_mut(self.filled..end) {
            free.copy_from_slice(bytes);
        }
        self.filled = end;
        Ok(())
    }

    fn finish(self) -> Buffer {
        self.space.into_buffer(self.filled)
    }
}

impl Write for Filling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.push(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(unusable) => {
                self.failed = Some(unusable);
                Err(io::ErrorKind::OutOfMemory.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Unpacker {
    Plain(Filling),
    Gzip(Box<MultiGzDecoder<Filling>>),
    Zstd(Zstd),
}

impl Unpacker {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Unusable> {
        match self {
            Self::Plain(filling) => filling.push(bytes),
            Self::Gzip(gzip) => {
                let written = gzip.write_all(bytes);
                written.map_err(|_| gzip_failed(gzip))
            }
            Self::Zstd(zstd) => zstd.push(bytes),
        }
    }

    fn finish(self) -> Result<Buffer, Unusable> {
        match self {
            Self::Plain(filling) => Ok(filling.finish()),
            Self::Gzip(mut gzip) => {
                let finished = gzip.try_finish();
                finished.map_err(|_| gzip_failed(&mut gzip))?;
                let filling = gzip.finish().map_err(|_| Unusable::Damaged("gzip"))?;
                Ok(filling.finish())
            }
            Self::Zstd(zstd) => zstd.finish(),
        }
    }
}

fn gzip_failed(gzip: &mut MultiGzDecoder<Filling>) -> Unusable {
    gzip.get_mut().failed.take().unwrap_or(Unusable::Damaged("gzip"))
}

/// zstd, unpacked to where it is to be, frame by frame.
struct Zstd {
    decoder: ZstdDecoder<'static>,
    filling: Filling,
    /// The first bytes of a frame, as long as they don't say what it takes.
    head: Vec<u8>,
    /// Whether it is in a frame, behind its head.
    within: bool,
    /// How many have begun.
    frames: u64,
    /// What the decoder may have, and permits for it: it keeps what it had for the frame that needed
    /// most. There is one for each power of two at most.
    reserved: usize,
    permits: Vec<Permit>,
}

impl Zstd {
    fn new(filling: Filling) -> Result<Self, Unusable> {
        let decoder = ZstdDecoder::new().map_err(|_| Unusable::Full)?;
        let (head, permits) = Default::default();
        Ok(Self { decoder, filling, head, within: false, frames: 0, reserved: 0, permits })
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), Unusable> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.within {
                let used = self.run(bytes)?;
                bytes = bytes.get(used..).unwrap_or_default();
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            let needed = match Head::of(&self.head) {
                Head::Short if self.head.len() < HEAD_BYTES_MAX => continue,
                Head::Short | Head::Other => return Err(Unusable::Damaged("zstd")),
                Head::Skippable => 0,
                Head::Frame { window, length } => self.needed(window, length)?,
            };
            self.reserve(needed)?;
            self.within = true;
            self.frames += 1;
            let head = std::mem::take(&mut self.head);
            self.run(&head)?;
        }
        Ok(())
    }

    fn needed(&self, window: u64, length: Option<u64>) -> Result<usize, Unusable> {
        if length.is_some_and(|length| length > self.filling.room.bytes_max as u64) {
            return Err(Unusable::TooLarge);
        }
        // What is shorter than its window needs no more than it is long.
        let window = window.min(length.unwrap_or(window));
        if window > WINDOW_BYTES_MAX {
            return Err(Unusable::FarBack);
        }
        Ok(bytes_for(window))
    }

    fn reserve(&mut self, needed: usize) -> Result<(), Unusable> {
        if let Some(more) = needed.checked_sub(self.reserved).filter(|more| *more > 0) {
            let permit = self.filling.room.holder.try_acquire(more).ok_or(Unusable::Full)?;
            self.permits.push(permit);
            self.reserved = needed;
        }
        Ok(())
    }

    /// Unpacks to the end of the bytes or of the frame; how many were used.
    fn run(&mut self, bytes: &[u8]) -> Result<usize, Unusable> {
        let mut input = InBuffer::around(bytes);
        loop {
            // A frame may end after its last byte has come out: where there is no room, one more
            // would be too many.
            let mut beyond = [0];
            let free = match self.filling.filled < self.filling.room.bytes_max {
                true => self.filling.free()?,
                false => &mut beyond[..],
            };
            let mut output = OutBuffer::around(free);
            let room = output.capacity();
            let ran = self.decoder.run(&mut input, &mut output);
            let left = ran.map_err(|_| Unusable::Damaged("zstd"))?;
            let written = output.pos();
            self.filling.filled += written;
            if self.filling.filled > self.filling.room.bytes_max {
                return Err(Unusable::TooLarge);
            }
            self.within = left != 0;
            // Full output may mean that there is more of what was read already.
            if !self.within || (input.pos() >= bytes.len() && written < room) {
                return Ok(input.pos());
            }
        }
    }

    fn finish(self) -> Result<Buffer, Unusable> {
        match self.frames > 0 && !self.within && self.head.is_empty() {
            true => Ok(self.filling.finish()),
            false => Err(Unusable::Damaged("zstd")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_flow::ByteBudget;

    use super::*;

    /// Some frames behind one another, with what holds nothing in between.
    fn frames(random: &mut fastrand::Rng) -> (Vec<u8>, Vec<u8>) {
        let (mut content, mut packed) = (Vec::new(), Vec::new());
        for _ in 0..random.usize(1..4) {
            let length = random.usize(0..40_000);
            let piece: Vec<u8> =
                (0..length).map(|at| (at / 7 % 50) as u8 ^ random.u8(0..2)).collect();
            let level = random.i32(1..4);
            packed.extend(match random.u8(0..3) {
                0 => zstd::encode_all(&*piece, level).unwrap(),
                1 => zstd::bulk::compress(&piece, level).unwrap(),
                _ => {
                    let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
                    encoder.include_checksum(true).unwrap();
                    encoder.write_all(&piece).unwrap();
                    encoder.finish().unwrap()
                }
            });
            content.extend(piece);
            if random.bool() {
                packed.extend(b"\x5f\x2a\x4d\x18\x02\0\0\0ab");
            }
        }
        (content, packed)
    }

    #[test]
    fn zstd_in_any_pieces_is_unpacked_as_its_own_tools_unpack_it_and_damage_is_found() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let budget = ByteBudget::new(64 << 20);
        let holder = Arc::new(budget.holder(0).unwrap());
        let room = Room { holder, pool: Pool::default(), bytes_max: 1 << 20 };
        let mut damaged = 0;
        for round in 0..600 {
            let (content, mut packed) = frames(&mut random);
            match random.u8(0..3) {
                0 => packed.truncate(random.usize(0..packed.len())),
                1 => {
                    let at = random.usize(0..packed.len());
                    packed[at] ^= 1 << random.u8(0..8);
                }
                _ => {}
            }
            let expected = zstd::decode_all(&*packed).ok().filter(|_| !packed.is_empty());
            let mut unpacker = Zstd::new(Filling::new(&room, None).unwrap()).unwrap();
            let mut pushed = Ok(());
            for piece in packed.chunks(random.usize(1..5_000)) {
                pushed = pushed.and_then(|()| unpacker.push(piece));
            }
            let found = pushed.and_then(|()| unpacker.finish());
            match (found, expected) {
                (Ok(found), Some(expected)) => assert!(*found == *expected, "{seed}, {round}"),
                (Err(Unusable::FarBack | Unusable::TooLarge), _) | (Err(_), None) => damaged += 1,
                (found, expected) => {
                    let expected = expected.map(|expected| expected.len());
                    panic!(
                        "seed {seed}, round {round}: {found:?}, {expected:?}, {}",
                        content.len()
                    );
                }
            }
        }
        assert!((100..500).contains(&damaged), "{damaged}");
        assert_eq!(budget.usage().used, 0);
    }
}
