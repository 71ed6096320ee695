//! The file source on files that are rotated, cut, replaced and removed, while it runs and while
//! it does not.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tempfile::TempDir;
use tidegate_model::SourceStream;

use super::support::Probe;
#[cfg(target_os = "linux")]
use super::support::open_logs;

/// A log that numbers its lines, and a source that reads it.
struct Log {
    folder: TempDir,
    file: File,
    written: usize,
    probe: Probe,
    stream: Option<SourceStream>,
}

impl Log {
    async fn new(pattern: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let file = File::options().create(true).append(true).open(path).unwrap();
        let include = folder.path().join(pattern).display().to_string();
        let mut probe = Probe::follow("file", format!("include = [{include:?}]"));
        probe.rows_max = 7;
        let stream = Some(probe.open().await);
        Self { folder, file, written: 0, probe, stream }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("app.log")
    }

    fn write(&mut self, lines: usize) {
        for _ in 0..lines {
            self.written += 1;
            writeln!(self.file, "line number {}", self.written).unwrap();
        }
    }

    /// As logrotate does: older ones are renamed, the log too, and a new one is made.
    fn rotate(&mut self) {
        let name = |number: usize| self.folder.path().join(format!("app.log.{number}"));
        let oldest = (1..).find(|number| !name(*number).exists()).unwrap();
        for number in (1..oldest).rev() {
            fs::rename(name(number), name(number + 1)).unwrap();
        }
        fs::rename(self.path(), name(1)).unwrap();
        self.file = File::options().create(true).append(true).open(self.path()).unwrap();
    }

    async fn settle(&mut self) {
        if let Some(stream) = &mut self.stream {
            self.probe.settle(stream).await;
        }
    }

    fn stop(&mut self) {
        self.stream = None;
    }

    async fn start(&mut self) {
        self.stream = Some(self.probe.open().await);
        self.settle().await;
    }

    /// Every line was given once; per file in order, and so in all after a sort.
    fn check(&mut self) {
        let mut numbers: Vec<usize> =
            self.probe.rows.iter().map(|row| number(&row.message)).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=self.written).collect::<Vec<_>>());
    }
}

fn number(line: &str) -> usize {
    line.strip_prefix("line number ").unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn ten_rotations_while_it_runs_lose_and_repeat_nothing() {
    for pattern in ["app.log", "app.log*"] {
        let mut log = Log::new(pattern).await;
        for round in 0..10 {
            log.write(20 + round);
            if round % 3 > 0 {
                log.settle().await;
            }
            log.write(5);
            // Whoever has the old file open may go on writing to it.
            let mut old = log.file.try_clone().unwrap();
            if round == 0 {
                log.settle().await;
            }
            log.rotate();
            if round % 2 > 0 {
                log.write(3);
                log.written += 1;
                writeln!(old, "line number {}", log.written).unwrap();
            }
            log.settle().await;
        }
        log.check();
    }
}

#[tokio::test(start_paused = true)]
async fn ten_rotations_while_it_is_stopped_lose_and_repeat_nothing() {
    for pattern in ["app.log", "app.log*"] {
        let mut log = Log::new(pattern).await;
        for round in 0..10 {
            log.write(20 + round);
            log.settle().await;
            log.stop();
            log.write(5);
            log.rotate();
            log.write(round % 3);
            log.start().await;
        }
        log.check();
    }
}

#[tokio::test(start_paused = true)]
async fn many_rotations_between_two_looks_do_no_harm() {
    for pattern in ["app.log", "app.log*"] {
        let mut log = Log::new(pattern).await;
        log.write(1);
        log.settle().await;
        for round in 0..5 {
            for _ in 0..4 {
                log.write(10);
                log.rotate();
            }
            if round % 2 > 0 {
                log.stop();
                log.write(2);
                log.rotate();
                log.write(3);
                log.rotate();
                log.start().await;
            }
            log.settle().await;
        }
        log.check();
        let path = log.path();
        let sources = log.probe.rows.iter().filter(|row| row.source == path.to_str().unwrap());
        let all = pattern == "app.log";
        assert!(!all || sources.count() == log.written, "rows say which log they are of");
    }
}

#[tokio::test(start_paused = true)]
async fn other_logs_beside_it_are_none_of_its_rotations() {
    let mut log = Log::new("app.log").await;
    log.write(10);
    log.settle().await;
    log.rotate();
    for other in ["app.log.wf", "app.log.1.gz", "app-error.log", "app.log-error.1", "xapp.log.1"] {
        fs::write(log.folder.path().join(other), "of another log\n").unwrap();
    }
    log.write(10);
    log.settle().await;
    log.check();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_cut_begins_again_while_it_runs() {
    let mut log = Log::new("app.log").await;
    for lines in [20, 3, 40, 40, 1] {
        log.write(lines);
        log.settle().await;
        log.file.set_len(0).unwrap();
    }
    log.write(2);
    log.settle().await;
    log.check();
    assert_eq!(log.probe.positions.len(), 6, "each content is a partition");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_cut_begins_again_while_it_is_stopped() {
    let mut log = Log::new("app.log").await;
    for lines in [20, 3, 40, 40, 1] {
        log.write(lines);
        log.settle().await;
        log.stop();
        log.file.set_len(0).unwrap();
        log.write(lines * 2);
        log.start().await;
    }
    log.check();
}

#[tokio::test(start_paused = true)]
async fn content_that_is_replaced_by_as_much_or_more_is_noticed() {
    let mut log = Log::new("app.log").await;
    // The same first line each time, as a header is.
    for (round, stopped) in [(1, false), (2, true), (3, false), (4, true)] {
        if stopped {
            log.stop();
        }
        let lines: Vec<String> = (0..40).map(|line| format!("round {round}, {line}")).collect();
        let content = format!("# a header\n{}\n", lines.join("\n"));
        fs::write(log.path(), &content).unwrap();
        if stopped {
            log.start().await;
        }
        log.settle().await;
        let given = log.probe.messages();
        assert_eq!(given.join("\n") + "\n", content, "round {round}");
    }
    assert_eq!(log.probe.positions.len(), 4);
}

#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn a_removed_file_is_read_to_its_end() {
    let mut log = Log::new("app.log").await;
    log.write(10);
    log.settle().await;
    log.write(30);
    fs::remove_file(log.path()).unwrap();
    log.write(10);
    log.settle().await;
    log.check();
    let size = log.file.metadata().unwrap();
    assert_eq!(size.nlink(), 0);
    for _ in 0..10 {
        log.settle().await;
    }
    assert_eq!(open_logs(log.folder.path()), 1, "it is let go, but by its writer");
}

#[tokio::test(start_paused = true)]
async fn the_last_line_of_a_removed_file_needs_no_end() {
    let mut log = Log::new("app.log").await;
    log.write(10);
    log.settle().await;
    log.written += 1;
    write!(log.file, "line number {}", log.written).unwrap();
    fs::remove_file(log.path()).unwrap();
    log.settle().await;
    assert_eq!(log.probe.rows.len(), 10, "it may still be completed");
    for _ in 0..10 {
        log.settle().await;
    }
    log.check();
}

/// File systems give the number of a removed file to the next one.
#[tokio::test(start_paused = true)]
async fn a_new_file_under_the_inode_of_another_is_a_new_file() {
    for stopped in [false, true] {
        let mut reused = 0;
        for attempt in 0..50 {
            let mut log = Log::new("app.log").await;
            log.write(20);
            log.settle().await;
            let inode = log.file.metadata().unwrap().ino();
            if stopped {
                log.stop();
            } else {
                // Wait until the removed file has been let go.
                fs::remove_file(log.path()).unwrap();
                for _ in 0..10 {
                    log.settle().await;
                }
            }
            let _ = fs::remove_file(log.path());
            log.file = File::open("/dev/null").unwrap();
            log.file = File::options().create(true).append(true).open(log.path()).unwrap();
            reused += usize::from(log.file.metadata().unwrap().ino() == inode);
            log.write(30 + attempt);
            if stopped {
                log.start().await;
            }
            log.settle().await;
            log.check();
            if reused > 0 {
                break;
            }
        }
        if reused == 0 {
            eprintln!("this file system never gave an inode twice");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_moved_away_and_back_is_not_read_twice() {
    let mut log = Log::new("app.log").await;
    log.write(10);
    log.settle().await;
    let away = log.folder.path().join("elsewhere");
    fs::create_dir(&away).unwrap();
    fs::rename(log.path(), away.join("app.log")).unwrap();
    for _ in 0..10 {
        log.settle().await;
    }
    log.write(5);
    fs::rename(away.join("app.log"), log.path()).unwrap();
    log.settle().await;
    log.check();
}

/// A stranger may get the inode of a rotated file; its lines are not ours.
#[tokio::test(start_paused = true)]
async fn a_file_outside_the_patterns_is_never_read() {
    let mut log = Log::new("app.log").await;
    log.write(10);
    log.settle().await;
    log.stop();
    fs::rename(log.path(), log.folder.path().join("other.txt")).unwrap();
    fs::write(log.folder.path().join("other.txt"), "not a log\n".repeat(100)).unwrap();
    log.start().await;
    log.check();
}
