//! The files that are read: each is made when a pair first wants it, all are removed at the end.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate_testkit::bench::programs::{Outcome, kept};

use crate::log::{self, Facts, Shape};
use crate::room;

/// A file and what is known of it.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    pub(crate) facts: Facts,
}

impl Input {
    /// The path as an argument.
    pub(crate) fn arg(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }
}

/// All files of a run, in a folder beside the build's.
#[derive(Debug)]
pub(crate) struct Inputs {
    folder: TempDir,
    bytes: u64,
    mixed: OnceCell<Input>,
    json: OnceCell<Input>,
    long: OnceCell<Input>,
    parts: OnceCell<PathBuf>,
    small: OnceCell<PathBuf>,
}

/// The logs, and the copies that a side writes of one of them, as multiples of a log's size.
const LOGS_AT_ONCE: u64 = 8;

impl Inputs {
    /// Makes the folder, where the disk has room for files of this size.
    pub(crate) fn new(mib: u64) -> Outcome<Self> {
        let beside = env!("CARGO_TARGET_TMPDIR");
        let bytes = mib << 20;
        room::demand(Path::new(beside), LOGS_AT_ONCE * bytes, "--mb")?;
        let folder = TempDir::with_prefix_in("spine-", beside)?;
        Ok(Self {
            folder,
            bytes,
            mixed: OnceCell::new(),
            json: OnceCell::new(),
            long: OnceCell::new(),
            parts: OnceCell::new(),
            small: OnceCell::new(),
        })
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The main log: an application's lines among an access log's.
    pub(crate) fn mixed(&self) -> Outcome<&Input> {
        self.log(&self.mixed, "mixed.log", Shape::Mixed)
    }

    /// Of the same size, in JSON.
    pub(crate) fn json(&self) -> Outcome<&Input> {
        self.log(&self.json, "json.log", Shape::Json)
    }

    /// Of the same size, with lines of very different length.
    pub(crate) fn long(&self) -> Outcome<&Input> {
        self.log(&self.long, "long.log", Shape::Long)
    }

    fn log<'i>(&self, cell: &'i OnceCell<Input>, name: &str, shape: Shape) -> Outcome<&'i Input> {
        kept(cell, || {
            let path = self.path(name);
            let facts = log::write(&path, shape, self.bytes)?;
            Ok(Input { path, facts })
        })
    }

    /// A folder with the main log in eight files.
    pub(crate) fn parts(&self) -> Outcome<&Path> {
        let folder = kept(&self.parts, || self.cut("parts", 8))?;
        Ok(folder)
    }

    /// A folder with the main log in so many files as a log of 512 MiB has pieces of some 50 KiB.
    pub(crate) fn small_files(&self) -> Outcome<&Path> {
        let folder = kept(&self.small, || self.cut("small", self.small_files_count()))?;
        Ok(folder)
    }

    /// How many small files there are: 10,000 where the inputs have their full size.
    pub(crate) fn small_files_count(&self) -> u64 {
        self.scaled(10_000).max(1)
    }

    /// A number that is meant for inputs of 512 MiB, for those that we have. It grows no further.
    pub(crate) fn scaled(&self, number: u64) -> u64 {
        let full = 512 << 20;
        number * self.bytes.min(full) / full
    }

    /// The main log's lines in so many files of about one size.
    fn cut(&self, name: &str, files: u64) -> Outcome<PathBuf> {
        let folder = self.path(name);
        fs::create_dir(&folder)?;
        let whole = self.mixed()?;
        let mut from = BufReader::with_capacity(1 << 20, File::open(&whole.path)?);
        let (mut taken, mut block) = (0, Vec::new());
        for number in 1..=files {
            let until = whole.facts.bytes * number / files;
            block.clear();
            (&mut from).take(until.saturating_sub(taken)).read_to_end(&mut block)?;
            from.read_until(b'\n', &mut block)?;
            taken += block.len() as u64;
            fs::write(folder.join(format!("{number:05}.log")), &block)?;
        }
        rustix::fs::sync(); // so that their writing disturbs no measurement
        Ok(folder)
    }

    /// The head of the main log, of about so many bytes and ending with a whole line; the log over
    /// and over where it is to be larger.
    pub(crate) fn sized(&self, name: &str, bytes: u64) -> Outcome<Input> {
        let whole = self.mixed()?;
        let path = self.path(name);
        let mut to = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let mut facts = Facts::default();
        while facts.bytes + whole.facts.bytes <= bytes {
            io::copy(&mut File::open(&whole.path)?, to.get_mut())?;
            facts.bytes += whole.facts.bytes;
            facts.lines += whole.facts.lines;
        }
        let mut from = BufReader::with_capacity(1 << 20, File::open(&whole.path)?);
        let mut line = Vec::new();
        while facts.bytes < bytes {
            line.clear();
            if from.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            facts.bytes += line.len() as u64;
            facts.lines += 1;
            to.write_all(&line)?;
        }
        to.into_inner()?.sync_all()?;
        Ok(Input { path, facts })
    }

    /// Whether the disk has room for a file of so many bytes more.
    pub(crate) fn have_room_for(&self, bytes: u64) -> Outcome<bool> {
        room::is_there(self.folder.path(), bytes)
    }
}
