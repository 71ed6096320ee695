//! The file source under any sequence of writes, rotations, cuts, crashes and late commits: of all
//! that was written each line comes at one place only, and none that is wanted is missing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use futures::{FutureExt, StreamExt};
use proptest::prelude::*;
use tempfile::TempDir;
use tidegate_model::{Position, SourceStream};

use super::support::Probe;

/// What lines have that are wanted, where not all are; the first one has it.
const WANTED: &str = "1";

#[derive(Clone, Debug)]
enum Step {
    /// Lines of some length, the last one perhaps without its end until the next step that writes.
    Write { lines: usize, bytes: usize, end: bool },
    /// The log gets another name and begins anew.
    Rotate,
    /// All is read and committed, and the log is cut to nothing.
    Cut,
    /// Up to so many batches are read.
    Read(usize),
    /// All that there is is read.
    Settle,
    /// The partitions of which this number has a bit are committed.
    Commit(u8),
    /// Reading goes on from what was committed.
    Crash,
    /// The same, and steps follow before it does.
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..40, 0usize..60, any::<bool>())
            .prop_map(|(lines, bytes, end)| Step::Write { lines, bytes, end }),
        2 => Just(Step::Rotate),
        1 => Just(Step::Cut),
        3 => (1usize..5).prop_map(Step::Read),
        1 => Just(Step::Settle),
        2 => any::<u8>().prop_map(Step::Commit),
        1 => Just(Step::Crash),
        1 => Just(Step::Stop),
    ]
}

struct World {
    folder: TempDir,
    log: File,
    written: usize,
    complete: bool,
    probe: Probe,
    stream: Option<SourceStream>,
    committed: BTreeMap<String, Position>,
    /// What came, by where it came.
    given: BTreeMap<(String, u64), String>,
}

impl World {
    async fn new(pattern: &str, searched: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = File::options().create(true).append(true).open(folder.path().join("app.log"));
        let include = folder.path().join(pattern).display().to_string();
        let settings = format!("include = [{include:?}]\nfiles_open_max = 2");
        let mut probe = Probe::follow("file", settings);
        (probe.rows_max, probe.bytes_max) = (5, 400);
        if searched {
            probe = probe.searching(&[WANTED]);
        }
        let mut world = Self {
            folder,
            log: log.unwrap(),
            written: 0,
            complete: true,
            probe,
            stream: None,
            committed: BTreeMap::new(),
            given: BTreeMap::new(),
        };
        // What was never met can't be known again.
        world.write(1, 10, true);
        world.settle().await;
        world.commit(u8::MAX);
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("app.log")
    }

    fn write(&mut self, lines: usize, bytes: usize, end: bool) {
        self.end_line();
        for line in 1..=lines {
            self.written += 1;
            write!(self.log, "{} {}", self.written, "x".repeat(bytes)).unwrap();
            self.complete = false;
            if end || line < lines {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        if !std::mem::replace(&mut self.complete, true) {
            self.log.write_all(b"\n").unwrap();
        }
    }

    async fn rotate(&mut self) {
        self.end_line();
        let name = |number: usize| self.folder.path().join(format!("app.log.{number}"));
        let oldest = (1..).find(|number| !name(*number).exists()).unwrap();
        for number in (1..oldest).rev() {
            fs::rename(name(number), name(number + 1)).unwrap();
        }
        fs::rename(self.path(), name(1)).unwrap();
        self.log = File::options().create(true).append(true).open(self.path()).unwrap();
    }

    async fn start(&mut self) {
        if self.stream.is_none() {
            self.probe.positions = self.committed.clone();
            self.stream = Some(self.probe.open().await);
        }
    }

    async fn read(&mut self, batches: usize) {
        self.start().await;
        for _ in 0..batches {
            let Some(stream) = &mut self.stream else { break };
            // Sometimes it is dropped at work: nothing may hang on what a poll has begun.
            if let Some(batch) = stream.next().now_or_never() {
                self.probe.take(&batch.unwrap().unwrap());
            }
            let next = tokio::time::timeout(std::time::Duration::from_secs(3), stream.next());
            if let Ok(batch) = next.await {
                self.probe.take(&batch.unwrap().unwrap());
            }
        }
        self.note();
    }

    async fn settle(&mut self) {
        self.start().await;
        if let Some(stream) = &mut self.stream {
            self.probe.settle(stream).await;
        }
        self.note();
    }

    /// What comes again at its place is the same.
    fn note(&mut self) {
        for row in self.probe.rows.drain(..) {
            let place = (row.partition.clone(), row.offset);
            let before = self.given.insert(place, row.message.clone());
            assert!(before.is_none_or(|before| before == row.message), "{row:?}");
        }
    }

    fn commit(&mut self, which: u8) {
        for (index, (partition, position)) in self.probe.positions.iter().enumerate() {
            if which >> (index % 8) & 1 == 1 {
                self.committed.insert(partition.clone(), position.clone());
            }
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Write { lines, bytes, end } => self.write(lines, bytes, end),
            Step::Rotate => self.rotate().await,
            Step::Cut => {
                self.end_line();
                self.settle().await;
                self.commit(u8::MAX);
                self.log.set_len(0).unwrap();
            }
            Step::Read(batches) => self.read(batches).await,
            Step::Settle => self.settle().await,
            Step::Commit(which) => self.commit(which),
            Step::Crash => {
                self.stream = None;
                self.start().await;
            }
            Step::Stop => self.stream = None,
        }
    }

    /// All lines, each at one place.
    async fn check(mut self) {
        self.end_line();
        self.settle().await;
        let number = |line: &String| line.split(' ').next().unwrap().parse::<usize>().unwrap();
        let searched = self.probe.required.is_some();
        let wanted = |number: &usize| !searched || number.to_string().contains(WANTED);
        let mut numbers: Vec<usize> = self.given.values().map(number).filter(wanted).collect();
        numbers.sort_unstable();
        let all: Vec<usize> = (1..=self.written).filter(wanted).collect();
        assert_eq!(numbers, all, "in a file of inode {}", self.log.metadata().unwrap().ino());
        let whole = self.given.values().map(|line| line.len()).sum::<usize>();
        assert!(whole >= all.len(), "each line is whole");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_line_comes_at_one_place_whatever_happens(
        all in any::<bool>(),
        searched in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new(if all { "app.log*" } else { "app.log" }, searched).await;
            for step in steps {
                world.step(step).await;
            }
            world.check().await;
        });
    }
}
