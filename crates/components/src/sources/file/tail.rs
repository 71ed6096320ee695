//! One file: opened, checked, read on, cut into lines, begun again where its content was replaced.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use arrow_buffer::Buffer;
use tidegate_model::{Error, Partition, SourceBatch};
use tracing::{info, warn};

use super::find::{Found, open_file};
use super::mark::{Id, Input, Known, MARK_BYTES_MAX, Mark, Progress, Stamp, read_at};
use super::rotated;
use crate::clock;
use crate::codecs::{
    Chunk, Cut, Cutter, Damage, Decoder, Label, Line, Piece, Places, Prefilter, Space, rounded,
};

/// So much is read at a time. The system copies it faster the more it is; less than this it writes
/// through the processor's cache.
const PIECE_BYTES: usize = 1 << 20;

/// How much is read in one turn in which nothing is found that anybody wants.
const TURN_BYTES_MAX: u64 = 8 << 20;

/// How far from its end a file's last line end is looked for, where reading begins at the end.
const LINE_END_BYTES_MAX: usize = 64 << 10;

/// What all files of a source share at work.
pub(super) struct Work {
    pub(super) decoder: Box<dyn Decoder>,
    /// Which lines anyone wants, where not all are.
    pub(super) prefilter: Option<Prefilter>,
    pub(super) once: bool,
    pub(super) rows_max: usize,
    pub(super) batch_bytes_max: usize,
    /// How much is read at once, but for a line that is longer.
    pub(super) chunk_bytes: usize,
    /// Used again and again; at most as many as a batch has rows.
    pub(super) lines: Vec<Line>,
}

/// A file, and how far it has been read.
pub(super) struct Tail {
    id: Id,
    /// Where it was found last.
    path: PathBuf,
    /// Where it was found first; rows say so.
    first_path: PathBuf,
    label: Label,
    /// Named with its first batch, by its first line.
    partition: Option<Partition>,
    /// Of what this inode held before.
    older: Vec<Partition>,
    contents: u32,
    offset: u64,
    head: Mark,
    tail: Mark,
    cutter: Cutter,
    file: Option<File>,
    /// Whether it was opened just now, so that `seen` is how it is.
    fresh: bool,
    /// Whether all marks are to be compared: it may be another file than the one that was closed.
    unsure: bool,
    seen: Stamp,
    /// How it was when there was nothing more to take.
    exhausted: Option<Stamp>,
    /// The biggest it was with this content.
    size_max: u64,
    /// How many bytes make a batch, by the lines so far.
    usual: usize,
    /// How many bytes the next line needs at least, where it was not complete.
    needed: usize,
    /// Whether its end is the end, as nobody will write to it any more.
    concluded: bool,
    /// Whether it has content though its size is 0, as what the system makes up while it is read.
    sizeless: bool,
    /// How many bytes, there when it was found, are to be left unread.
    skip: u64,
    damage: Damage,
    /// Whether a pattern leads to it or its name is that of a rotated log, so that it is ours
    /// whatever is in it.
    pub(super) ours: bool,
    /// How many times in a row it was looked for and not found.
    pub(super) missed: u32,
    /// Whether it waits for its turn.
    pub(super) queued: bool,
}

/// What was read in a turn and is still there.
struct Taken {
    /// Where in the file it begins: further on than the turn did, where nothing was found at first.
    begin: u64,
    filled: usize,
    cut: Cut,
}

impl Taken {
    /// Lets go of what was cut, but for what a mark covers.
    fn rewind(&mut self, room: &mut [u8]) {
        let gone = self.cut.used.saturating_sub(MARK_BYTES_MAX);
        room.copy_within(gone..self.filled, 0);
        self.begin += gone as u64;
        self.filled -= gone;
        self.cut.used -= gone;
    }
}

/// Of a batch: where in the file its turn began and ended, and where what is in memory of it begins.
struct Extent {
    start: u64,
    begin: u64,
    end: u64,
}

/// Why a turn gave nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is not to wait for the disk, and has to.
    NotNow,
    /// This file can't be read now; others can.
    Unreadable(io::Error),
    /// Nothing can.
    Fatal(Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Self::NotNow,
            _ => Self::Unreadable(error),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

impl Tail {
    /// A file seen for the first time.
    pub(super) fn new(found: Found, cutter: Cutter) -> Self {
        let Found { path, id, stamp } = found;
        Self {
            id,
            label: Label::from(&*path.to_string_lossy()),
            first_path: path.clone(),
            path,
            partition: None,
            older: Vec::new(),
            contents: 0,
            offset: 0,
            head: Mark::default(),
            tail: Mark::default(),
            cutter,
            file: None,
            fresh: false,
            unsure: false,
            seen: stamp,
            exhausted: None,
            size_max: stamp.size,
            usual: usize::MAX,
            needed: 0,
            concluded: false,
            sizeless: false,
            skip: 0,
            damage: Damage::default(),
            ours: false,
            missed: 0,
            queued: false,
        }
    }

    /// A file that was read before; whether it still is the same is seen when it is opened.
    pub(super) fn resume(found: Found, mut cutter: Cutter, known: Known) -> Self {
        let Known { last: before, older } = known;
        cutter.skip_from(before.skipping);
        Self {
            label: Label::from(&*before.path.to_string_lossy()),
            first_path: before.path,
            partition: Some(before.partition),
            older,
            contents: before.contents,
            offset: before.offset,
            head: before.head,
            tail: before.tail,
            unsure: true,
            size_max: before.offset.max(found.stamp.size),
            ..Self::new(found, cutter)
        }
    }

    /// Leaves what it has now unread.
    pub(super) fn at_end(self) -> Self {
        Self { skip: self.seen.size, ..self }
    }

    /// One that was the log for a while, though found under another name.
    pub(super) fn was(self, log: &Path) -> Self {
        let label = Label::from(&*log.to_string_lossy());
        Self { first_path: log.to_owned(), label, ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.seen
    }

    /// Takes what is left of it as its end, with or without a line end; `false` where that was done
    /// before, or nothing is left.
    pub(super) fn conclude(&mut self) -> bool {
        let begins = !self.concluded && self.unread() > 0;
        if begins {
            (self.concluded, self.exhausted) = (true, None);
        }
        begins
    }

    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// How many bytes are known to be there and unread.
    pub(super) fn unread(&self) -> u64 {
        self.size_max.saturating_sub(self.offset)
    }

    /// What is to be remembered of it, if anything was read.
    pub(super) fn into_known(self) -> Option<Known> {
        let last = self.partition.clone().map(|partition| self.progress(partition))?;
        Some(Known { last, older: self.older })
    }

    fn progress(&self, partition: Partition) -> Progress {
        Progress {
            partition,
            id: self.id,
            contents: self.contents,
            offset: self.offset,
            skipping: self.cutter.skipping(),
            head: self.head,
            tail: self.tail,
            path: self.first_path.clone(),
        }
    }

    /// It was found there, and like this.
    pub(super) fn found(&mut self, path: PathBuf, stamp: Stamp) {
        self.missed = 0;
        if self.path != path {
            info!(from = %self.path.display(), to = %path.display(), "was renamed");
            self.path = path;
        }
        self.seen = stamp;
    }

    /// Whether there may be something to read. Where it is read `once`, that is tried even if its size
    /// is 0.
    pub(super) fn has_more(&self, once: bool) -> bool {
        let untouched = self.offset == 0 && self.seen.size == 0 && !once;
        !untouched && self.exhausted != Some(self.seen)
    }

    /// Looks whether it has changed, where it is open.
    pub(super) fn look(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let stamp = Stamp::from(&file.metadata()?);
        let changed = stamp != self.seen;
        self.seen = stamp;
        Ok(changed)
    }

    /// How many bytes to read next; the permit is for those.
    pub(super) fn wants(&self, work: &Work) -> usize {
        let rest = self.seen.size.checked_sub(self.offset).unwrap_or(self.seen.size);
        let rest = usize::try_from(rest).ok().filter(|_| !self.sizeless).unwrap_or(usize::MAX);
        rounded(rest.min(self.usual).max(self.needed)).min(work.chunk_bytes.max(self.needed))
    }

    /// Opens it; it must be the file it was.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let file = open_file(&self.path)?;
        let metadata = file.metadata()?;
        if Id::from(&metadata) != self.id {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "another file has taken its place",
            ));
        }
        self.opened(file, Stamp::from(&metadata));
        Ok(())
    }

    /// It was opened just now, and was like this.
    pub(super) fn opened(&mut self, file: File, stamp: Stamp) {
        self.unsure = self.offset > 0;
        (self.seen, self.fresh) = (stamp, true);
        self.file = Some(file);
    }

    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Whether it can be told without waiting for the disk that it still is what it was.
    pub(super) fn is_at_hand(&self) -> bool {
        self.file.is_some() && !self.unsure
    }

    /// Reads on, once: a batch, or nothing where there is none at the moment.
    pub(super) fn turn(
        &mut self,
        space: Space,
        wait: bool,
        work: &mut Work,
    ) -> Result<Option<SourceBatch>, Trouble> {
        let Some(file) = self.file.take() else { return Ok(None) };
        let batch = self.turn_on(Input { file: &file, wait }, space, work);
        self.file = Some(file);
        batch
    }

    fn turn_on(
        &mut self,
        input: Input<'_>,
        mut space: Space,
        work: &mut Work,
    ) -> Result<Option<SourceBatch>, Trouble> {
        let file = input.file;
        if !std::mem::take(&mut self.fresh) {
            self.seen = Stamp::from(&file.metadata()?);
        }
        if !self.is_intact(input)? {
            if !self.ours {
                // A stranger has the inode of a file that was rotated away.
                self.exhausted = Some(self.seen);
                self.size_max = self.offset;
                return Ok(None);
            }
            self.begin_again();
        }
        let skip = std::mem::take(&mut self.skip);
        if skip > 0 && self.offset == 0 {
            return self.skip_to(file, skip, work);
        }
        let Taken { begin, filled, cut } = self.take(input, space.bytes_mut(), work)?;
        let end = begin + cut.used as u64;
        let bytes = end - self.offset;
        self.plan(bytes, work, filled);
        if bytes == 0 {
            return Ok(None);
        }
        let buffer = space.into_buffer(filled);
        let start = self.advance(file, &buffer, cut.used, end)?;
        Ok(Some(self.batch(file, &buffer, Extent { start, begin, end }, cut, work)?))
    }

    /// Reads and cuts, piece by piece, until there is no more, no room, or enough. What has no line
    /// that anybody wants makes room for what comes next.
    fn take(
        &mut self,
        input: Input<'_>,
        room: &mut [u8],
        work: &mut Work,
    ) -> Result<Taken, Trouble> {
        // What is more than a batch may have is one line.
        let rows_max = if room.len() > work.batch_bytes_max { 1 } else { work.rows_max.max(1) };
        let mut taken = Taken { begin: self.offset, filled: 0, cut: Cut::default() };
        work.lines.clear();
        loop {
            let next = taken.begin + taken.filled as u64;
            let rest = match self.sizeless || self.seen.size == 0 {
                true => usize::MAX,
                false => usize::try_from(self.seen.size.saturating_sub(next)).unwrap_or(usize::MAX),
            };
            let until = room.len().min(taken.filled.saturating_add(rest.min(PIECE_BYTES)));
            let piece = room.get_mut(taken.filled..until).unwrap_or_default();
            let wanted = piece.len();
            let read = match input.read_at(piece, next) {
                Ok(read) => read,
                // What was cut is given; the next turn says it again.
                Err(_) if taken.begin + taken.cut.used as u64 > self.offset => break,
                Err(error) => return Err(error.into()),
            };
            taken.filled += read;
            let end = next + read as u64;
            self.size_max = self.size_max.max(self.seen.size).max(end);
            let bytes = room.get(..taken.filled).unwrap_or_default();
            let (at_end, ended) = self.ends(input.file, end, read < wanted, bytes.last(), work)?;
            let cut = self.cutter.cut(
                Piece {
                    bytes,
                    from: taken.cut.used,
                    offset: taken.begin,
                    ended,
                    rows_max,
                    prefilter: work.prefilter.as_ref(),
                },
                &mut work.lines,
            );
            taken.cut.add(cut);
            if taken.begin == 0 {
                let head = taken.cut.used.min(MARK_BYTES_MAX);
                self.head = Mark::of_end(room.get(..head).unwrap_or_default());
            }
            let drained = taken.cut.used == taken.filled || work.lines.len() < rows_max;
            self.exhausted = (at_end && drained).then_some(self.seen);
            if at_end || work.lines.len() >= rows_max {
                break;
            }
            if work.lines.is_empty() {
                taken.rewind(room);
                if taken.begin - self.offset >= TURN_BYTES_MAX {
                    break;
                }
            }
            if taken.filled == room.len() {
                break;
            }
        }
        Ok(taken)
    }

    /// Whether there is no more at the moment, after a read that ended there and may have given less
    /// than was there when it was asked; and whether a line ends there, too.
    fn ends(
        &mut self,
        file: &File,
        end: u64,
        short: bool,
        last: Option<&u8>,
        work: &Work,
    ) -> io::Result<(bool, bool)> {
        // What the system makes up while it is read says nothing of its size.
        self.sizeless |= work.once && self.seen.size == 0 && end > 0;
        if short {
            self.seen = Stamp::from(&file.metadata()?);
        }
        let at_end = short || (end >= self.seen.size && !self.sizeless);
        // If more was written meanwhile, a last line without an end is not complete yet.
        let concludes = at_end && (work.once || self.concluded);
        let unfinished = concludes && last != Some(&b'\n');
        let grown = unfinished && read_at(file, &mut [0], end, u64::MAX)? > 0;
        if grown {
            self.seen = Stamp::from(&file.metadata()?);
        }
        Ok((at_end && !grown, concludes && !grown))
    }

    /// Whether what was read of it is still there.
    fn is_intact(&mut self, input: Input<'_>) -> io::Result<bool> {
        let intact = (self.seen.size >= self.offset || self.sizeless)
            && self.tail.is_before(input, self.offset)?
            && (!self.unsure || self.head.is_before(input, self.head.end())?);
        self.unsure = false;
        Ok(intact)
    }

    /// Another content in the same file: cut by whoever rotates it, or a new file under the number
    /// of one that was removed.
    fn begin_again(&mut self) {
        let (path, unread) = (self.path.display(), self.unread());
        warn!(%path, unread, "was cut or replaced, and is read from its beginning; unread bytes of \
               what it was are lost");
        if let Some(partition) = self.partition.take() {
            self.older.push(partition);
            self.contents += 1;
        }
        self.cutter.skip_from(None);
        // What was rotated away after it was cut was written as the log, and is still known as that.
        if !rotated::is_rotation_of(&self.path, &self.first_path) {
            self.first_path.clone_from(&self.path);
            self.label = Label::from(&*self.path.to_string_lossy());
        }
        (self.offset, self.needed, self.size_max) = (0, 0, self.seen.size);
        (self.head, self.tail) = (Mark::default(), Mark::default());
        self.damage = Damage::default();
    }

    /// A batch without rows that says where, of the first `size` bytes, the last line begins.
    fn skip_to(
        &mut self,
        file: &File,
        size: u64,
        work: &mut Work,
    ) -> Result<Option<SourceBatch>, Trouble> {
        let from = size.saturating_sub(LINE_END_BYTES_MAX as u64);
        let mut bytes = vec![0; LINE_END_BYTES_MAX];
        let filled = read_at(file, &mut bytes, from, size)?;
        let last = memchr::memrchr(b'\n', bytes.get(..filled).unwrap_or_default());
        self.offset = match last {
            Some(at) => from + at as u64 + 1,
            None if from == 0 => 0,
            None => size,
        };
        if self.offset == 0 {
            return Ok(None);
        }
        self.head = Mark::before(file, self.offset.min(MARK_BYTES_MAX as u64))?;
        self.tail = Mark::before(file, self.offset)?;
        work.lines.clear();
        let extent = Extent { start: 0, begin: 0, end: self.offset };
        Ok(Some(self.batch(file, &Buffer::default(), extent, Cut::default(), work)?))
    }

    /// How much to read next time, where so many bytes were done with.
    fn plan(&mut self, bytes: u64, work: &Work, filled: usize) {
        self.needed = match bytes {
            0 => filled.saturating_mul(2).min(self.cutter.chunk_bytes_min()),
            _ => 0,
        };
        // Bytes that were skipped count: a batch is full when it has so many rows.
        if bytes > 0 {
            let rows = work.rows_max.saturating_add(work.rows_max / 16);
            let average = usize::try_from(bytes).ok().and_then(|b| b.checked_div(work.lines.len()));
            self.usual = average.map_or(usize::MAX, |bytes| (bytes + 1).saturating_mul(rows));
        }
    }

    /// Goes on to where reading goes on; gives where it went on this time.
    fn advance(&mut self, file: &File, buffer: &[u8], used: usize, end: u64) -> io::Result<u64> {
        let start = std::mem::replace(&mut self.offset, end);
        self.tail = Mark::of_end(buffer.get(..used).unwrap_or_default());
        if start > 0 && !self.head.is_full() {
            self.head = Mark::before(file, self.offset.min(MARK_BYTES_MAX as u64))?;
        }
        Ok(start)
    }

    fn batch(
        &mut self,
        file: &File,
        buffer: &Buffer,
        extent: Extent,
        cut: Cut,
        work: &mut Work,
    ) -> Result<SourceBatch, Trouble> {
        let Extent { start, begin, end } = extent;
        let partition = match &self.partition {
            Some(partition) => partition.clone(),
            None => {
                let first_line = match begin == 0 && !buffer.is_empty() {
                    true => Mark::of_first_line(buffer),
                    false => Mark::first_line(file)?,
                };
                Progress::name(self.id, first_line, &self.older)
            }
        };
        self.partition = Some(partition.clone());
        let read_at = clock::now();
        let decoded = work.decoder.decode(&Chunk {
            bytes: buffer,
            lines: &work.lines,
            places: Places::Bytes(begin),
            label: &self.label,
            read_at,
        })?;
        self.damage.tell(self.path.display(), &cut, &decoded);
        let position = self.progress(partition).position();
        let (rows, bytes) = (decoded.rows, if buffer.is_empty() { 0 } else { end - start });
        let (refused, skipped) = (cut.refused + decoded.refused, cut.skipped);
        Ok(SourceBatch { rows, start, position, read_at, bytes, refused, skipped, told: None })
    }
}
