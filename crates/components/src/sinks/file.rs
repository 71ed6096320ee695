//! `file`: rows to a file, effectively once.
//!
//! A commit writes all rows, has the disk store them (`fdatasync`), and then saves the file's length
//! and how far each input has come in one transaction. After a crash the file is cut to that length,
//! and the rows behind it come again: each row is there once. A file that no commit is known of is
//! appended to, on a line of its own; one that is missing, shorter or another than what was
//! committed stops the start, by name, and so does one that somebody changes while it is written.
//!
//! Rows wait in memory until a mebibyte has come together, or for a commit. A full disk is waited
//! for; what was half written is cut off again at once.
//!
//! What is no regular file (a named pipe, a terminal, `/dev/null`) can't be cut: there rows are
//! written at least once, each batch at once. A pipe that nobody reads holds the sink up; one whose
//! reader goes away waits for the next, which gets the batch from its start.

mod disk;
mod parquet;
mod place;

use std::fs::{FileType, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use rustix::io::Errno;
use serde::Deserialize;
use tidegate_model::{
    Commit, Delivered, Error, Mistake, Records, Result, Settings, Sink, SinkContext, SinkSpec,
    Spanned, Written,
};

use self::disk::{Disk, open_flags, recorded};
use self::parquet::ParquetSink;
use crate::blocking::blocking;
use crate::codecs::encode::{Format, csv};
use crate::codecs::parquet::{Layout, Options as ParquetOptions};
use crate::outlet::{Outlet, is_outlet};

/// See the module.
pub const SPEC: SinkSpec = SinkSpec {
    summary: "writes rows to a file, each once, whatever happens",
    example: r#"path = "errors.ndjson"
codec = "ndjson" # or "csv", "parquet", or "text", the default
# csv = { header = true, delimiter = ",", quote = '"', null = "" }
# parquet = { compression = "snappy", row_group_rows = 131072, row_group_age = "5s" }"#,
    build,
};

/// So many bytes are gathered before they are written.
const BUFFER_BYTES: usize = 1024 * 1024;

/// How often a pipe is asked whether somebody reads it.
const READER_WAIT: Duration = Duration::from_millis(50);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The file; its folder must exist.
    path: Spanned<String>,
    /// How rows are written: `text` (the default), `ndjson`, `csv` or `parquet`.
    codec: Option<Spanned<String>>,
    /// What only CSV has.
    csv: Option<Spanned<csv::Options>>,
    /// What only Parquet has.
    parquet: Option<Spanned<ParquetOptions>>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Sink>, Mistake> {
    let config: Config = settings.parse()?;
    let path = config.path.get_ref();
    if path.is_empty() || path.ends_with('/') {
        return Err(Mistake::at(config.path.span(), format!("path: {path:?} names no file"))
            .help("name the file to write, such as \"out.log\""));
    }
    let (path, codec) = (PathBuf::from(path), config.codec.as_ref());
    let is_parquet = codec.is_some_and(|codec| codec.get_ref() == parquet::NAME);
    if let (Some(options), false) = (&config.parquet, is_parquet) {
        let said = "these settings are for Parquet, and the codec is another";
        return Err(
            Mistake::at(options.span(), said).help("write codec = \"parquet\", or remove them")
        );
    }
    if let (Some(options), true) = (&config.csv, is_parquet) {
        return Err(csv::not_csv(options));
    }
    if is_parquet {
        let none = ParquetOptions::default();
        let layout = Layout::new(config.parquet.as_ref().map_or(&none, Spanned::get_ref))?;
        return Ok(Box::new(ParquetSink::new(path, layout)));
    }
    let format = Format::new(codec, config.csv.as_ref(), &[parquet::NAME])?;
    Ok(Box::new(FileSink { path, format, head: Vec::new(), state: State::Closed }))
}

struct FileSink {
    path: PathBuf,
    format: Format,
    // What a file begins with, once it is known.
    head: Vec<u8>,
    state: State,
}

enum State {
    Closed,
    /// A regular file. Its pending bytes are at most [`BUFFER_BYTES`] and a row.
    Disk(Box<Disk>),
    /// Anything else; none while nobody reads.
    Outlet(Option<Outlet>),
}

impl FileSink {
    async fn open_any(&mut self, context: SinkContext) -> Result<Vec<Delivered>> {
        if let State::Disk(_) = self.state {
            return self.on_disk(|disk| disk.open_again().and_then(|()| disk.delivered())).await;
        }
        self.head = self.format.head(&context.columns);
        let (_, opened) = blocking((self.path.clone(), context.records), |(path, records)| {
            open(path, Arc::clone(records))
        })
        .await?;
        self.state = opened?;
        match &mut self.state {
            State::Disk(disk) if disk.is_empty() => disk.pending.extend_from_slice(&self.head),
            State::Outlet(outlet) => *outlet = outlet.take().map(|outlet| outlet.begin(&self.head)),
            State::Disk(_) | State::Closed => {}
        }
        match self.state {
            State::Disk(_) => self.on_disk(|disk| disk.delivered()).await,
            _ => Ok(Vec::new()),
        }
    }

    async fn write_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        match &mut self.state {
            State::Closed => Err(closed()),
            State::Outlet(_) => self.write_outlet(rows).await,
            State::Disk(disk) => {
                let mark = disk.mark();
                let done = self.write_disk(rows).await;
                if let (Err(_), State::Disk(disk)) = (&done, &mut self.state) {
                    disk.back_to(mark);
                }
                done
            }
        }
    }

    async fn write_disk(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut row = 0;
        loop {
            let State::Disk(disk) = &mut self.state else { return Err(closed()) };
            disk.begin_line();
            row = self.format.encode(rows, row, &mut disk.pending, BUFFER_BYTES)?;
            if disk.pending.len() < BUFFER_BYTES {
                return Ok(());
            }
            self.on_disk(Disk::flush).await?;
        }
    }

    async fn write_outlet(&mut self, rows: &RecordBatch) -> Result<()> {
        let (format, path) = (self.format.clone(), self.path.clone());
        let outlet = self.reader().await?;
        let done = outlet.write_rows(&format, rows, |error| failed("write", &path, error)).await;
        if done.is_err() {
            self.state = State::Outlet(None);
        }
        done
    }

    /// Waits until somebody reads the pipe.
    async fn reader(&mut self) -> Result<&mut Outlet> {
        while let State::Outlet(None) = self.state {
            let path = self.path.clone();
            match blocking(path, |path| open_outlet(path)).await?.1? {
                None => tokio::time::sleep(READER_WAIT).await,
                Some(outlet) => self.state = State::Outlet(Some(outlet.begin(&self.head))),
            }
        }
        match &mut self.state {
            State::Outlet(Some(outlet)) => Ok(outlet),
            _ => Err(closed()),
        }
    }

    /// Does something with the file where it may block.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Disk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let State::Disk(disk) = mem::replace(&mut self.state, State::Closed) else {
            return Err(closed());
        };
        let (disk, done) = blocking(disk, |disk| work(disk)).await?;
        self.state = State::Disk(disk);
        done
    }
}

impl Sink for FileSink {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        self.format.columns(input)
    }

    fn commit_when(&self) -> Commit {
        Commit::Grouped
    }

    fn target(&self) -> Option<String> {
        target(&self.path)
    }

    fn open(&mut self, context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(self.open_any(context))
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async {
            self.write_rows(rows).await?;
            Ok(Written::default())
        })
    }

    fn commit<'a>(&'a mut self, delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            if let State::Outlet(_) = self.state {
                return Ok(());
            }
            let delivered = delivered.to_vec();
            self.on_disk(move |disk| disk.commit(&delivered)).await
        })
    }

    /// A file of no rows has a head all the same.
    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let State::Disk(_) = self.state
                && let Err(error) = self.on_disk(|disk| disk.commit(&[])).await
            {
                tracing::warn!("{error}");
            }
        })
    }
}

/// The file itself, whichever way the path leads there; devices take from any number of sinks.
fn target(path: &Path) -> Option<String> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device()) {
        return None;
    }
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let real = std::fs::canonicalize(&whole).ok().or_else(|| {
        let folder = std::fs::canonicalize(whole.parent()?).ok()?;
        Some(folder.join(whole.file_name()?))
    });
    Some(real.unwrap_or(whole).display().to_string())
}

/// Whether a file is there or can be made; not where it is what rows are only passed on by.
fn is_regular(path: &Path) -> Result<bool> {
    let found = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(metadata) if is_outlet(metadata.file_type()) => Ok(false),
        Ok(metadata) if !metadata.is_file() => Err(odd(metadata.file_type())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(true),
    };
    found.map_err(|error| failed("open", path, error))
}

/// Opens whatever the path leads to.
fn open(path: &Path, records: Arc<dyn Records>) -> Result<State> {
    let regular = is_regular(path)?;
    let known = recorded(path, &*records)?;
    match known {
        None if !regular => Ok(State::Outlet(open_outlet(path)?)),
        Some(_) if !regular => Err(Error::fatal(format!(
            "path: {path:?} was a file, and is none any more: change `path`"
        ))),
        Some(place) if parquet::is_table(&place) => Err(parquet::other_codec(path, "Parquet")),
        _ => Ok(State::Disk(Box::new(Disk::open(path, records)?))),
    }
}

fn closed() -> Error {
    Error::fatal("the file is not open: open it again before writing")
}

/// Opens a pipe or device; none where it is a pipe that nobody reads.
fn open_outlet(path: &Path) -> Result<Option<Outlet>> {
    let opened = OpenOptions::new().write(true).custom_flags(open_flags()).open(path);
    let outlet = opened.and_then(|file| {
        if !is_outlet(file.metadata()?.file_type()) {
            return Err(io::Error::other("it was no file a moment ago, and is one now"));
        }
        Outlet::new(file, true)
    });
    match outlet {
        Ok(outlet) => Ok(Some(outlet)),
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => Ok(None),
        Err(error) => Err(failed("open", path, error)),
    }
}

fn odd(kind: FileType) -> io::Error {
    let what = if kind.is_block_device() { "a block device" } else { "a socket" };
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, and no file"))
}

/// What to make of an error of the operating system: whether it can pass, and what to do.
fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind as Kind;
    let (fatal, remedy) = match error.kind() {
        Kind::NotFound | Kind::NotADirectory => (true, "its folder must exist; create it"),
        Kind::PermissionDenied => (true, "let this user write there"),
        Kind::ReadOnlyFilesystem => (true, "it must be on a file system that can be written"),
        Kind::IsADirectory => (true, "it is a folder; name a file in it"),
        Kind::InvalidFilename | Kind::InvalidInput => (true, "name another file"),
        Kind::FileTooLarge => (true, "it has reached the largest size allowed; change `path`"),
        Kind::StaleNetworkFileHandle => (true, "see to the mount, and start again"),
        Kind::StorageFull | Kind::QuotaExceeded => (false, "make room on its disk"),
        Kind::BrokenPipe => (false, "its reader has gone; waiting for another"),
        _ => (false, "see to its disk"),
    };
    let context = format!("path: can't {verb} {path:?}: {remedy}");
    let kind = if fatal { Error::fatal(context) } else { Error::disconnected(context) };
    kind.because(error)
}
