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

use crate::codecs::{Pool, Space, rounded};

/// How far back a zstd stream may refer, as a power of two: all that its encoders make by default
/// stays below. It is reserved with the body.
const ZSTD_WINDOW_LOG: u32 = 23;

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
        rounded(bytes_max).saturating_mul(2).saturating_add(1 << ZSTD_WINDOW_LOG)
    }

    /// Reads and unpacks a body. Dropped half-way, it gives back all it holds.
    pub(super) async fn read(
        &self,
        mut body: Incoming,
        packing: Packing,
    ) -> Result<Buffer, Unusable> {
        let length = body.size_hint().exact();
        let length = length.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let mut filling = Filling::new(self, length.filter(|_| packing == Packing::Plain))?;
        let mut unpacker = match packing {
            Packing::Plain => Unpacker::Plain(filling),
            Packing::Gzip => Unpacker::Gzip(Box::new(MultiGzDecoder::new(filling))),
            Packing::Zstd => {
                let window = 1 << ZSTD_WINDOW_LOG;
                filling.window = Some(self.holder.try_acquire(window).ok_or(Unusable::Full)?);
                Unpacker::Zstd(Zstd::new(filling)?)
            }
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
    /// What unpacking needs beside it.
    window: Option<Permit>,
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
        Ok(Self { room: room.clone(), space, capacity, filled: 0, window: None, failed: None })
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
            Self::Zstd(zstd) if zstd.within => Err(Unusable::Damaged("zstd")),
            Self::Zstd(zstd) => Ok(zstd.filling.finish()),
        }
    }
}

fn gzip_failed(gzip: &mut MultiGzDecoder<Filling>) -> Unusable {
    gzip.get_mut().failed.take().unwrap_or(Unusable::Damaged("gzip"))
}

/// zstd, unpacked to where it is to be.
struct Zstd {
    decoder: ZstdDecoder<'static>,
    filling: Filling,
    /// Whether a frame has begun and not ended.
    within: bool,
}

impl Zstd {
    fn new(filling: Filling) -> Result<Self, Unusable> {
        let unusable = |_| Unusable::Full;
        let mut decoder = ZstdDecoder::new().map_err(unusable)?;
        let limit = zstd::stream::raw::DParameter::WindowLogMax(ZSTD_WINDOW_LOG);
        decoder.set_parameter(limit).map_err(unusable)?;
        Ok(Self { decoder, filling, within: true })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Unusable> {
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
            self.within = left != 0;
            if self.filling.filled > self.filling.room.bytes_max {
                return Err(Unusable::TooLarge);
            }
            // Full output may mean that there is more of what was read already, but in a frame that
            // has ended.
            if input.pos() >= bytes.len() && (written < room || !self.within) {
                return Ok(());
            }
        }
    }
}
