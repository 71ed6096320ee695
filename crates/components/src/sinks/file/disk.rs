//! A regular file that a sink writes: blocking, and exact about what is in it.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use tidegate_model::{Delivered, Error, Records, Result};

use super::place::Place;
use super::{BUFFER_BYTES, failed};

/// What a person can do about a file that is not as it was left.
pub(super) const REMEDY: &str = "put it back as it was, or change `path` to go on in a new file, or remove \
                      the pipeline's data_dir to begin anew";

/// So that opening never waits for another side, whatever the path turns out to be.
pub(super) fn open_flags() -> i32 {
    (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed()
}

/// The key under which a sink remembers a file.
fn record_key(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    format!("file {}", whole.display())
}

/// A file, and what of it is ours.
pub(super) struct Disk {
    path: PathBuf,
    file: File,
    identity: (u64, u64),
    records: Arc<dyn Records>,
    /// The end of what is written.
    place: Place,
    /// What is to be written there next; the sink bounds it.
    pub(super) pending: Vec<u8>,
    /// How many bytes behind the end are ours too, until more is written there.
    trailing: u64,
    /// Whether there may be other bytes behind the end, of a write that failed or of another run.
    dirty: bool,
    /// Whether there is something that a crash would take away.
    unsynced: bool,
    /// Whether the end is another than the one that was saved.
    unsaved: bool,
}

/// A place between two writes, to go back to.
#[derive(Clone)]
pub(super) struct Mark {
    flushed: u64,
    pending: usize,
    begin: Place,
}

impl Disk {
    /// Opens the file where the record says it ends; where there is none, at its present end, which
    /// is recorded first.
    pub(super) fn open(path: &Path, records: Arc<dyn Records>) -> Result<Self> {
        let mut disk = Self::open_uncut(path, records)?;
        let bytes = disk.beyond()?;
        if bytes > 0 {
            tracing::info!(?path, bytes, "cut off what was not committed; it comes again");
        }
        disk.cut()?;
        Ok(disk)
    }

    /// As [`open`](Self::open), but what is behind the end stays there until something is written.
    pub(super) fn open_uncut(path: &Path, records: Arc<dyn Records>) -> Result<Self> {
        let Some(place) = recorded(path, &*records)? else {
            return Self::begin(path, records);
        };
        let (file, metadata) = reopen(path, &place)?;
        let mut disk = Self::at(path, file, &metadata, records, place);
        disk.dirty = true;
        Ok(disk)
    }

    /// Opens it again after trouble, with all that was written since the last commit. Where that
    /// fails it is as it was.
    pub(super) fn open_again(&mut self) -> Result<()> {
        // The lock is the old opening's, and would keep the new one out.
        let _ = self.file.unlock();
        let (file, metadata) = reopen(&self.path, &self.place)?;
        self.file = file;
        self.identity = identity(&metadata);
        self.dirty = true;
        self.cut()
    }

    fn begin(path: &Path, records: Arc<dyn Records>) -> Result<Self> {
        let (file, created) = match options().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (options().create(true).open(path), true)
            }
            opened => (opened, false),
        };
        let file = file.map_err(|error| failed("open", path, error))?;
        let metadata = claim(path, &file)?;
        let length = metadata.len();
        let tail = read_tail(&file, length).map_err(|error| failed("read", path, error))?;
        let place = Place::new(length, tail);
        if created {
            // A file that a crash takes away again would look as if somebody had deleted it.
            let durable = file.sync_all().and_then(|()| sync_folder(path));
            durable.map_err(|error| failed("create", path, error))?;
        }
        records.save(&record_key(path), &place.to_record(), &[])?;
        Ok(Self::at(path, file, &metadata, records, place))
    }

    fn at(
        path: &Path,
        file: File,
        metadata: &Metadata,
        records: Arc<dyn Records>,
        place: Place,
    ) -> Self {
        Self {
            path: path.to_path_buf(),
            file,
            identity: identity(metadata),
            records,
            place,
            pending: Vec::new(),
            trailing: 0,
            dirty: false,
            unsynced: false,
            unsaved: false,
        }
    }

    /// How far the sink had come at the last commit.
    pub(super) fn delivered(&self) -> Result<Vec<Delivered>> {
        self.records.delivered()
    }

    /// Writes what is pending. Where that fails, all of it still is.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.dirty {
            self.cut()?;
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.trailing > 0 {
            self.cut()?;
        }
        if let Err(error) = self.file.write_all_at(&self.pending, self.place.length) {
            // A full disk has room again for others, and nobody reads half of a row.
            self.dirty = self.file.set_len(self.place.length).is_err();
            return Err(failed("write", &self.path, error));
        }
        self.place = self.place.after(&self.pending);
        self.pending.clear();
        self.pending.shrink_to(2 * BUFFER_BYTES); // after a row as long as that
        self.unsynced = true;
        self.unsaved = true;
        Ok(())
    }

    /// Writes something behind the end that the next rows are written over. What is pending is
    /// flushed before.
    pub(super) fn trail(&mut self, bytes: &[u8]) -> Result<()> {
        self.cut()?;
        if let Err(error) = self.file.write_all_at(bytes, self.place.length) {
            self.dirty = self.file.set_len(self.place.length).is_err();
            return Err(failed("write", &self.path, error));
        }
        self.trailing = bytes.len() as u64;
        self.unsynced = true;
        Ok(())
    }

    /// Whether something trails.
    pub(super) fn trails(&self) -> bool {
        self.trailing > 0
    }

    /// Cuts off what is behind the end.
    fn cut(&mut self) -> Result<()> {
        let cut = self.file.set_len(self.place.length);
        cut.map_err(|error| failed("cut", &self.path, error))?;
        (self.dirty, self.trailing) = (false, 0);
        Ok(())
    }

    /// How many bytes there are behind the end.
    fn beyond(&self) -> Result<u64> {
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|error| failed("look at", &self.path, error))?;
        Ok(metadata.len().saturating_sub(self.place.length))
    }

    /// Where the next bytes that are pending will be written.
    pub(super) fn end(&self) -> u64 {
        self.place.length + self.pending.len() as u64
    }

    /// Reads what was written.
    pub(super) fn read_at(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)
    }

    /// Whether nothing is in it, nor will be.
    pub(super) fn is_empty(&self) -> bool {
        self.place.length == 0 && self.pending.is_empty()
    }

    /// Where the next rows begin.
    pub(super) fn mark(&self) -> Mark {
        let begin = self.place.after(&self.pending);
        Mark { flushed: self.place.length, pending: self.pending.len(), begin }
    }

    /// Somebody's last line without an end is not to become the head of our first.
    pub(super) fn begin_line(&mut self) {
        if self.pending.is_empty() && !self.place.begins_line() {
            self.pending.push(b'\n');
        }
    }

    /// Takes back what was written since.
    pub(super) fn back_to(&mut self, mark: Mark) {
        if self.place.length == mark.flushed {
            self.pending.truncate(mark.pending);
            return;
        }
        // What was pending then is in the file, and stays.
        self.place = mark.begin;
        self.pending.clear();
        self.dirty = true;
    }

    /// Makes durable what was written, and saves with it how far the sink has come.
    pub(super) fn commit(&mut self, delivered: &[Delivered]) -> Result<()> {
        self.flush()?;
        if !self.unsaved && delivered.is_empty() {
            return Ok(());
        }
        self.check()?;
        if self.unsynced {
            // Not to be tried again: after a failure the kernel may have dropped the pages, and the
            // next call succeeds without them (Rebello et al., "Can Applications Recover from fsync
            // Failures?", USENIX ATC 2020). A restart cuts to the last commit, and writes them anew.
            self.file.sync_data().map_err(|error| {
                let path = &self.path;
                Error::fatal(format!(
                    "path: the disk did not store {path:?}: see to the disk and start again; all \
                     since the last commit is then written anew"
                ))
                .because(error)
            })?;
            self.unsynced = false;
        }
        self.records.save(&record_key(&self.path), &self.place.to_record(), delivered)?;
        self.unsaved = false;
        Ok(())
    }

    /// Whether the file is what we made of it.
    pub(super) fn check(&self) -> Result<()> {
        let (path, length) = (&self.path, self.place.length + self.trailing);
        let found = self.file.metadata().map_err(|error| failed("look at", path, error))?.len();
        if found < length {
            return Err(Error::fatal(format!(
                "path: {path:?} was cut to {found} bytes by someone else, {length} were written: \
                 {REMEDY}"
            )));
        }
        if found > length {
            return Err(Error::fatal(format!(
                "path: {path:?} has {found} bytes, and only {length} are ours: someone else writes \
                 to it; let them write elsewhere, and start again: it is cut to the last commit"
            )));
        }
        let moved = match std::fs::metadata(path) {
            Ok(metadata) => identity(&metadata) != self.identity,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(failed("look at", path, error)),
        };
        if moved {
            return Err(Error::fatal(format!(
                "path: {path:?} was moved or deleted while it was written: {REMEDY}"
            )));
        }
        Ok(())
    }
}

/// Where the record says that the file ends; none where there is no record.
pub(super) fn recorded(path: &Path, records: &dyn Records) -> Result<Option<Place>> {
    let key = record_key(path);
    let Some(record) = records.load(&key)? else { return Ok(None) };
    Place::from_record(&record).map(Some).ok_or_else(|| {
        Error::fatal(format!("the record {key:?} in data_dir makes no sense: {REMEDY}"))
    })
}

/// Opens the file where it was left: it must have all that was written.
fn reopen(path: &Path, place: &Place) -> Result<(File, Metadata)> {
    let length = place.length;
    let file = options().open(path).map_err(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            return failed("open", path, error);
        }
        Error::fatal(format!(
            "path: {path:?} is missing, and {length} bytes were written to it: {REMEDY}"
        ))
    })?;
    let metadata = claim(path, &file)?;
    let found = metadata.len();
    if found < length {
        return Err(Error::fatal(format!(
            "path: {path:?} has {found} bytes, and {length} were written to it: {REMEDY}"
        )));
    }
    let tail = read_tail(&file, length).map_err(|error| failed("read", path, error))?;
    if tail != place.tail() {
        return Err(Error::fatal(format!(
            "path: {path:?} is not the file that was written: before byte {length} it has \
             something else: {REMEDY}"
        )));
    }
    Ok((file, metadata))
}

impl Drop for Disk {
    /// The lock goes now, and not when the last copy of the handle is closed: a process that is just
    /// being started has one, for a moment.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(open_flags());
    options
}

/// Makes sure that it is a file, and that nobody else of our kind writes to it.
fn claim(path: &Path, file: &File) -> Result<Metadata> {
    let metadata = file.metadata().map_err(|error| failed("look at", path, error))?;
    if !metadata.is_file() {
        return Err(Error::fatal(format!("path: {path:?} is no file any more: {REMEDY}")));
    }
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::disconnected(format!(
            "path: {path:?} is written by another process: stop it, or give each its own file"
        ))),
        // Some file systems have no locks; then there is nothing to go by.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(metadata),
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The last bytes before a length, as many as are kept.
fn read_tail(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let bytes = Place::tail_bytes(length);
    let mut tail = vec![0; bytes];
    file.read_exact_at(&mut tail, length - bytes as u64)?;
    Ok(tail)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let whole = std::fs::canonicalize(path)?;
    whole.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoRecords;

    impl Records for NoRecords {
        fn load(&self, _key: &str) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn delivered(&self) -> Result<Vec<Delivered>> {
            Ok(Vec::new())
        }

        fn save(&self, _key: &str, _value: &[u8], _delivered: &[Delivered]) -> Result<()> {
            Ok(())
        }
    }

    /// A file that can't be written while this is set, or cut.
    fn set_broken(disk: &mut Disk, broken: bool) {
        let opened = if broken { File::open(&disk.path) } else { options().open(&disk.path) };
        disk.file = opened.unwrap();
    }

    #[test]
    fn what_could_not_be_written_is_pending_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let mut disk = Disk::open(&path, Arc::new(NoRecords)).unwrap();
        disk.pending.extend_from_slice(b"one\n");
        let mark = disk.mark();
        disk.pending.extend_from_slice(b"a longer line\n");
        set_broken(&mut disk, true);
        let error = disk.flush().unwrap_err();
        assert_eq!(error.kind(), tidegate_model::ErrorKind::Disconnected);
        // As if half of it had come through, and could not be cut off again.
        std::fs::write(&path, b"one\na longer l").unwrap();
        disk.back_to(mark);
        assert!(disk.flush().is_err(), "it can't be cut yet");
        set_broken(&mut disk, false);
        disk.commit(&[]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
    }

    #[test]
    fn rows_are_taken_back_even_when_some_are_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let mut disk = Disk::open(&path, Arc::new(NoRecords)).unwrap();
        disk.pending.extend_from_slice(b"one\n");
        let mark = disk.mark();
        disk.pending.extend_from_slice(b"two\n");
        disk.flush().unwrap();
        disk.pending.extend_from_slice(b"three\n");
        disk.back_to(mark);
        disk.pending.extend_from_slice(b"2\n");
        disk.commit(&[]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n2\n");
    }
}
