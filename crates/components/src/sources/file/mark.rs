//! How a file is known again: its identity, the marks of its content, and what a position says.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use bytes::Bytes;
use tidegate_model::{Error, Partition, Position, Result};

/// How many bytes a mark covers at most.
pub(super) const MARK_BYTES_MAX: usize = 256;

/// The layout of a position's state.
const STATE_VERSION: u8 = 1;

/// How long that is, but for the path at its end.
const STATE_BYTES: usize = 1 + 3 * 8 + 4 + 2 * (2 + 8);

/// What the file system calls a file, whatever its path. It gives the number of a file that was
/// removed to a new one, so content is compared as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl From<&Metadata> for Id {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A file's size, and when it was written to: if neither has changed, nothing has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    /// Seconds and nanoseconds since the epoch.
    pub(super) written: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self { size: metadata.size(), written: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// A few bytes of a file, by which its content is known again: their number and a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    bytes: u16,
    hash: u64,
}

/// Of nothing, as every file has it.
impl Default for Mark {
    fn default() -> Self {
        Self::of_end(&[])
    }
}

impl Mark {
    /// Of at most so many bytes as a mark covers; of more, the last ones.
    pub(super) fn of_end(bytes: &[u8]) -> Self {
        let from = bytes.len().saturating_sub(MARK_BYTES_MAX);
        let bytes = bytes.get(from..).unwrap_or_default();
        Self { bytes: bytes.len() as u16, hash: hash(bytes) }
    }

    /// Of the bytes before `end`, as many as there are and a mark covers.
    pub(super) fn before(file: &File, end: u64) -> io::Result<Self> {
        let start = end.saturating_sub(MARK_BYTES_MAX as u64);
        let mut bytes = [0; MARK_BYTES_MAX];
        let filled = read_at(file, &mut bytes, start, end)?;
        Ok(Self::of_end(bytes.get(..filled).unwrap_or_default()))
    }

    /// Of the first line; of its first bytes, where it has more than a mark covers.
    pub(super) fn first_line(file: &File) -> io::Result<Self> {
        let mut bytes = [0; MARK_BYTES_MAX];
        let filled = read_at(file, &mut bytes, 0, MARK_BYTES_MAX as u64)?;
        Ok(Self::of_first_line(bytes.get(..filled).unwrap_or_default()))
    }

    /// The same of what a file begins with.
    pub(super) fn of_first_line(bytes: &[u8]) -> Self {
        let bytes = bytes.get(..MARK_BYTES_MAX).unwrap_or(bytes);
        let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        Self::of_end(bytes.get(..end).unwrap_or_default())
    }

    /// Whether it covers as much as it can.
    pub(super) fn is_full(&self) -> bool {
        usize::from(self.bytes) >= MARK_BYTES_MAX
    }

    /// Whether the file still has these bytes before `end`.
    pub(super) fn is_before(&self, input: Input<'_>, end: u64) -> io::Result<bool> {
        let mut bytes = [0; MARK_BYTES_MAX];
        let start = end.saturating_sub(u64::from(self.bytes));
        let room = bytes.get_mut(..usize::from(self.bytes)).unwrap_or_default();
        let filled = input.read_at(room, start)?;
        Ok(Self::of_end(bytes.get(..filled).unwrap_or_default()) == *self)
    }

    /// Where it ends, as a mark of a file's first bytes.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.bytes)
    }

    fn put(&self, state: &mut Vec<u8>) {
        state.extend_from_slice(&self.bytes.to_le_bytes());
        state.extend_from_slice(&self.hash.to_le_bytes());
    }

    fn take(state: &mut &[u8]) -> Option<Self> {
        let bytes = u16::from_le_bytes(take(state)?);
        Some(Self { bytes, hash: u64::from_le_bytes(take(state)?) })
    }
}

/// A file to be read from.
#[derive(Clone, Copy)]
pub(super) struct Input<'f> {
    pub(super) file: &'f File,
    /// Whether to wait for the disk; [`io::ErrorKind::WouldBlock`] where that would be needed.
    pub(super) wait: bool,
}

impl Input<'_> {
    /// Reads what there is from `start` on, as far as there is room.
    pub(super) fn read_at(self, room: &mut [u8], start: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let from = start + filled as u64;
            let read = match self.wait {
                true => self.file.read_at(rest, from),
                false => read_now(self.file, rest, from),
            };
            match read {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// What the system has in memory.
#[cfg(target_os = "linux")]
fn read_now(file: &File, room: &mut [u8], start: u64) -> io::Result<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    let room = io::IoSliceMut::new(room);
    Ok(preadv2(file, &mut [room], start, ReadWriteFlags::NOWAIT)?)
}

/// Nobody can tell.
#[cfg(not(target_os = "linux"))]
fn read_now(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

/// The same on every machine, and part of what positions say: it must stay as it is. Eight bytes at
/// a time, mixed by both halves of a product, as wyhash does it.
fn hash(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: [u8; 8]| {
        let product = u128::from(hash ^ u64::from_le_bytes(word)) * 0x9e37_79b9_7f4a_7c15_u128;
        product as u64 ^ (product >> 64) as u64
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let hash = words.iter().fold(0xa076_1d64_78bd_642f, |hash, word| mix(hash, *word));
    // The length tells zeros at the end from none.
    mix(mix(hash, last), (bytes.len() as u64).to_le_bytes())
}

/// Reads what there is from `start` to `end`, as far as there is room.
pub(super) fn read_at(file: &File, room: &mut [u8], start: u64, end: u64) -> io::Result<usize> {
    let wanted = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
    let wanted = wanted.min(room.len());
    Input { file, wait: true }.read_at(room.get_mut(..wanted).unwrap_or_default(), start)
}
/// How far a file has been read, and by what it is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) partition: Partition,
    pub(super) id: Id,
    /// How many contents the inode had before this one, as far as they were read.
    pub(super) contents: u32,
    /// Where the next line begins, or what is left of one that is being passed over.
    pub(super) offset: u64,
    /// Where the line began that is being passed over.
    pub(super) skipping: Option<u64>,
    /// Of the first bytes, as far as they were read.
    pub(super) head: Mark,
    /// Of the last bytes before the offset.
    pub(super) tail: Mark,
    /// The path under which it was found first; `source` says it.
    pub(super) path: PathBuf,
}

impl Progress {
    /// The name of a file's partition: its identity, its first line, and a number where the inode
    /// had `older` contents that began with the same line. A replay gives the same name.
    pub(super) fn name(id: Id, first_line: Mark, older: &[Partition]) -> Partition {
        let mut name = format!("{:x}-{:x}-{:016x}", id.device, id.inode, first_line.hash);
        let same = older.iter().filter_map(|older| {
            let (older, number) = older.as_str().rsplit_once('-')?;
            (older == name).then(|| number.parse::<u64>().ok())?
        });
        let number = same.max().map_or(0, |last| last + 1);
        name.push('-');
        name.push_str(itoa::Buffer::new().format(number));
        Partition::from(name)
    }

    /// As the engine keeps it.
    pub(super) fn position(&self) -> Position {
        let path = self.path.as_os_str().as_bytes();
        let mut state = Vec::with_capacity(STATE_BYTES + path.len());
        state.push(STATE_VERSION);
        for number in [self.id.device, self.id.inode, self.skipping.unwrap_or(u64::MAX)] {
            state.extend_from_slice(&number.to_le_bytes());
        }
        state.extend_from_slice(&self.contents.to_le_bytes());
        self.head.put(&mut state);
        self.tail.put(&mut state);
        state.extend_from_slice(path);
        let partition = self.partition.clone();
        Position { partition, sequence: self.offset, state: Bytes::from(state) }
    }
}

/// What is known of an inode.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Of the content it had last.
    pub(super) last: Progress,
    /// The partitions of what it had before that.
    pub(super) older: Vec<Partition>,
}

/// What is known by inode. Device and number are the key, so there is one for each inode that has a
/// position in the store.
pub(super) fn by_inode(all: Vec<Progress>) -> HashMap<Id, Known> {
    let mut known: HashMap<Id, Known> = HashMap::with_capacity(all.len());
    for mut progress in all {
        match known.entry(progress.id) {
            Entry::Vacant(place) => drop(place.insert(Known { last: progress, older: Vec::new() })),
            Entry::Occupied(mut place) => {
                let known = place.get_mut();
                if progress.contents > known.last.contents {
                    std::mem::swap(&mut progress, &mut known.last);
                }
                known.older.push(progress.partition);
            }
        }
    }
    known
}

impl TryFrom<&Position> for Progress {
    type Error = Error;

    fn try_from(position: &Position) -> Result<Self> {
        read_state(position).ok_or_else(|| {
            let partition = &position.partition;
            Error::fatal(format!(
                "positions: that of {partition} can't be understood; was it written by a newer \
                 version? Use that one, or another data_dir to begin again"
            ))
        })
    }
}

fn read_state(position: &Position) -> Option<Progress> {
    let mut state = position.state.as_ref();
    if take::<1>(&mut state)? != [STATE_VERSION] {
        return None;
    }
    let device = u64::from_le_bytes(take(&mut state)?);
    let inode = u64::from_le_bytes(take(&mut state)?);
    let skipping = u64::from_le_bytes(take(&mut state)?);
    let contents = u32::from_le_bytes(take(&mut state)?);
    let head = Mark::take(&mut state)?;
    let tail = Mark::take(&mut state)?;
    Some(Progress {
        partition: position.partition.clone(),
        id: Id { device, inode },
        contents,
        offset: position.sequence,
        skipping: (skipping != u64::MAX).then_some(skipping),
        head,
        tail,
        path: OsString::from_vec(state.to_vec()).into(),
    })
}

fn take<const N: usize>(state: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = state.split_first_chunk::<N>()?;
    *state = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Write;

    use super::*;

    const ID: Id = Id { device: 0x801, inode: 0xabc };

    fn progress() -> Progress {
        Progress {
            partition: Progress::name(ID, Mark::of_end(b"first\n"), &[]),
            id: ID,
            contents: 3,
            offset: 1_234,
            skipping: None,
            head: Mark::of_end(b"first\nsecond\n"),
            tail: Mark::of_end(b"second\n"),
            path: OsString::from_vec(b"/var/log/\xff.log".to_vec()).into(),
        }
    }

    #[test]
    fn a_position_says_all_there_is_to_know() {
        for progress in [progress(), Progress { skipping: Some(7), ..progress() }] {
            assert_eq!(Progress::try_from(&progress.position()).unwrap(), progress);
        }
    }

    #[test]
    fn a_state_that_is_cut_or_of_another_version_is_refused() {
        let position = progress().position();
        for length in 0..STATE_BYTES {
            let state = position.state.slice(..length);
            assert!(Progress::try_from(&Position { state, ..position.clone() }).is_err());
        }
        let mut state = position.state.to_vec();
        state[0] += 1;
        let error = Progress::try_from(&Position { state: state.into(), ..position }).unwrap_err();
        assert!(error.to_string().contains("newer version"), "{error}");
    }

    #[test]
    fn a_name_tells_content_and_generations_apart() {
        let [first, other] = [&b"first\n"[..], b"other\n"].map(Mark::of_end);
        let name = Progress::name(ID, first, &[]);
        assert_eq!(name, Progress::name(ID, first, &[]));
        let mut older = vec![name];
        for mark in [first, other, first, other] {
            let new = Progress::name(ID, mark, &older);
            assert!(!older.contains(&new), "{new} in {older:?}");
            older.push(new);
        }
        assert_eq!(Progress::name(ID, other, &[]), older[2], "whatever came before it");
    }

    #[test]
    fn of_several_contents_of_an_inode_the_last_counts() {
        let named = |contents: u32| Progress {
            partition: Partition::from(format!("p-{contents}")),
            contents,
            ..progress()
        };
        let mut known = by_inode([1, 2, 0].map(named).to_vec());
        let known = known.remove(&ID).unwrap();
        assert_eq!(known.last.contents, 2);
        assert_eq!(known.older, ["p-1", "p-0"].map(Partition::from));
    }

    #[test]
    fn a_hash_stays_what_it_is_and_differs_with_every_bit_and_length() {
        assert_eq!(hash(b""), 0xf5b4_6a00_aa28_3ecf);
        assert_eq!(hash(b"2026-03-10T12:00:00Z INFO started\n"), 0x7f37_45b9_f599_ab04);
        let line = [b"2026-03-10T12:00:00Z INFO started".as_slice(), &[0; 20]].concat();
        let mut all = HashSet::new();
        for length in 0..=line.len() {
            assert!(all.insert(hash(&line[..length])), "{length} bytes");
        }
        let mut flipped = 0;
        for bit in 0..line.len() * 8 {
            let mut other = line.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(all.insert(hash(&other)), "bit {bit}");
            flipped += (hash(&other) ^ hash(&line)).count_ones() as usize;
        }
        // Of 64 bits half are to be expected.
        let average = flipped / (line.len() * 8);
        assert!((30..=34).contains(&average), "{average}");
    }

    #[test]
    fn marks_know_content_again_and_notice_change() {
        let mut file = tempfile::tempfile().unwrap();
        let content = b"0123456789\n".repeat(50);
        file.write_all(&content).unwrap();
        let size = content.len() as u64;
        assert!(Mark::default().is_before(Input { file: &file, wait: true }, 0).unwrap());
        for end in [0, 1, 255, 256, 257, size] {
            let mark = Mark::before(&file, end).unwrap();
            assert_eq!(mark, Mark::of_end(&content[..end as usize]));
            assert!(mark.is_before(Input { file: &file, wait: true }, end).unwrap());
            assert_eq!(mark.is_full(), end >= 256);
            assert_eq!(
                mark.is_before(Input { file: &file, wait: true }, end + 1).unwrap(),
                end == 0,
                "at {end}"
            );
        }
        let tail = Mark::before(&file, size).unwrap();
        file.write_all_at(b"X", size - 1).unwrap();
        assert!(!tail.is_before(Input { file: &file, wait: true }, size).unwrap());
        file.set_len(10).unwrap();
        assert!(!tail.is_before(Input { file: &file, wait: true }, size).unwrap());
    }
}
