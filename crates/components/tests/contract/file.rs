//! The file sink against crashes, meddlers and odd paths.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::tempdir;
use tidegate_model::{Commit, Error, ErrorKind, Sink};

use crate::memory::{Memory, Save, context, delivered, file_sink, messages, sink};

/// Longer than what a sink gathers before it writes.
const LONG: usize = 3 * 1024 * 1024;

async fn opened(path: &Path, records: &Arc<Memory>) -> Result<Box<dyn Sink>, Error> {
    let mut sink = file_sink(path);
    sink.open(context(records)).await?;
    Ok(sink)
}

async fn refusal(path: &Path, records: &Arc<Memory>) -> (ErrorKind, String) {
    let error = opened(path, records).await.err().unwrap();
    (error.kind(), error.to_string())
}

/// Writes lines and commits them.
async fn commit(sink: &mut dyn Sink, lines: &[&str], end: u64) -> Result<(), Error> {
    sink.write(&messages(lines)).await?;
    sink.commit(&[delivered(end)]).await
}

#[tokio::test]
async fn rows_are_there_after_a_commit_and_not_before() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.log");
    let records = Arc::new(Memory::default());
    let mut sink = file_sink(&path);
    assert_eq!(sink.commit_when(), Commit::Grouped);
    assert_eq!(sink.open(context(&records)).await.unwrap(), []);
    sink.write(&messages(&["one", "two"])).await.unwrap();
    sink.write(&messages(&["three"])).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    sink.commit(&[delivered(3)]).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
    let saves = records.saves();
    sink.commit(&[]).await.unwrap();
    assert_eq!(records.saves(), saves, "nothing new, and still saved");
    sink.commit(&[delivered(4)]).await.unwrap();
    drop(sink);
    let mut sink = file_sink(&path);
    assert_eq!(sink.open(context(&records)).await.unwrap(), [delivered(4)]);
}

#[tokio::test]
async fn rows_of_a_source_that_has_no_offsets_are_kept_by_their_commit_too() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.log");
    let records = Arc::new(Memory::default());
    for line in ["one", "two"] {
        let mut sink = opened(&path, &records).await.unwrap();
        sink.write(&messages(&[line])).await.unwrap();
        sink.commit(&[]).await.unwrap();
        sink.write(&messages(&["never committed"])).await.unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
}

#[tokio::test]
async fn a_file_that_no_commit_is_known_of_is_appended_to() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.log");
    for (before, after) in [("old\n", "old\nnew\n"), ("half", "half\nnew\n"), ("", "new\n")] {
        fs::write(&path, before).unwrap();
        let records = Arc::new(Memory::default());
        let mut sink = opened(&path, &records).await.unwrap();
        sink.write(&messages(&["lost"])).await.unwrap();
        drop(sink); // before its first commit
        let mut sink = opened(&path, &records).await.unwrap();
        commit(&mut *sink, &["new"], 1).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), after);
    }
}

#[tokio::test]
async fn a_first_write_that_a_crash_cut_short_is_cut_off_what_was_there_is_not() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.log");
    fs::write(&path, "old").unwrap();
    let records = Arc::new(Memory::default());
    let mut sink = opened(&path, &records).await.unwrap();
    sink.write(&messages(&["x".repeat(LONG)])).await.unwrap();
    assert!(fs::metadata(&path).unwrap().len() > LONG as u64, "written before the commit");
    drop(sink);
    drop(opened(&path, &records).await.unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
}

#[tokio::test]
async fn a_file_that_is_not_as_it_was_left_stops_the_start() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.log");
    let records = Arc::new(Memory::default());
    let mut sink = opened(&path, &records).await.unwrap();
    commit(&mut *sink, &["one", "two"], 2).await.unwrap();
    drop(sink);
    let whole = fs::read(&path).unwrap();

    fs::write(&path, "one\n").unwrap();
    let (kind, said) = refusal(&path, &records).await;
    assert_eq!(kind, ErrorKind::Fatal);
    assert!(
        said.contains("out.log\" has 4 bytes, and 8 were written to it: put it back"),
        "{said}"
    );

    fs::write(&path, "one\ntoo\nthree\n").unwrap();
    let (kind, said) = refusal(&path, &records).await;
    assert_eq!(kind, ErrorKind::Fatal);
    assert!(said.contains("is not the file that was written: before byte 8"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntoo\nthree\n", "it is not ours to cut");

    fs::remove_file(&path).unwrap();
    let (kind, said) = refusal(&path, &records).await;
    assert_eq!(kind, ErrorKind::Fatal);
    assert!(said.contains("is missing, and 8 bytes were written to it"), "{said}");
    assert!(!path.exists());

    fs::create_dir(&path).unwrap();
    assert_eq!(refusal(&path, &records).await.0, ErrorKind::Fatal);
    fs::remove_dir(&path).unwrap();

    // A copy that was put back is as good, and what it has too much is cut off.
    fs::write(&path, [&whole[..], b"thr"].concat()).unwrap();
    drop(opened(&path, &records).await.unwrap());
    assert_eq!(fs::read(&path).unwrap(), whole);

    // Another file knows nothing of this one's record, but of what was delivered.
    let other = folder.path().join("other.log");
    let mut sink = file_sink(&other);
    assert_eq!(sink.open(context(&records)).await.unwrap(), [delivered(2)]);
    drop(sink);

    records.damage();
    let (kind, said) = refusal(&path, &records).await;
    assert_eq!(kind, ErrorKind::Fatal);
    assert!(said.contains("makes no sense"), "{said}");
}

#[tokio::test]
async fn whoever_meddles_with_an_open_file_is_found_out_at_the_next_commit() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.log");
    for (meddle, complaint) in [
        (cut as fn(&Path), "was cut to 2 bytes by someone else, 8 were written"),
        (grow, "has 14 bytes, and only 8 are ours"),
        (delete, "was moved or deleted while it was written"),
        (replace, "was moved or deleted while it was written"),
    ] {
        let records = Arc::new(Memory::default());
        let mut sink = opened(&path, &records).await.unwrap();
        commit(&mut *sink, &["one"], 1).await.unwrap();
        sink.write(&messages(&["two"])).await.unwrap();
        // Its row goes to the file first, and then somebody comes.
        records.next_save(Save::Refused);
        let refused = sink.commit(&[delivered(2)]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Disconnected);
        meddle(&path);
        let error = sink.commit(&[delivered(2)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fatal);
        assert!(error.to_string().contains(complaint), "{error}");
        assert_eq!(records.saves(), 2, "the length at the start, the first commit, and no more");
        drop(sink);
        let _ = fs::remove_file(&path);
    }

    fn cut(path: &Path) {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(2).unwrap();
    }
    fn grow(path: &Path) {
        fs::write(path, "one\ntwo\nthree\n").unwrap();
    }
    fn delete(path: &Path) {
        fs::remove_file(path).unwrap();
    }
    fn replace(path: &Path) {
        fs::rename(path, path.with_extension("old")).unwrap();
        fs::write(path, "one\ntwo\n").unwrap();
    }
}

#[tokio::test]
async fn odd_paths_are_refused_with_what_to_do() {
    let folder = tempdir().unwrap();
    let records = Arc::new(Memory::default());
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, remedy) in [
        (folder.path().join("no/such/folder.log"), "its folder must exist; create it"),
        (file.join("below.log"), "its folder must exist; create it"),
        (folder.path().to_path_buf(), "it is a folder; name a file in it"),
        (folder.path().join("x".repeat(300)), "name another file"),
    ] {
        let (kind, said) = refusal(&path, &records).await;
        assert_eq!(kind, ErrorKind::Fatal, "{said}");
        assert!(said.starts_with("path: can't open") && said.contains(remedy), "{said}");
    }
    let mut unopened = file_sink(&file);
    let error = unopened.write(&messages(&["x"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
}

#[tokio::test]
async fn two_sinks_on_one_file_are_kept_apart() {
    let folder = tempdir().unwrap();
    let (path, link) = (folder.path().join("out.log"), folder.path().join("link.log"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let spelled = folder.path().join("./out.log");
    let before = [&path, &spelled].map(|path| file_sink(path).target());
    assert_eq!(before[0], before[1]);
    let first = opened(&path, &Arc::default()).await.unwrap();
    let targets = [&path, &link, &spelled].map(|path| file_sink(path).target().unwrap());
    assert!(targets.iter().all(|target| Some(target) == before[0].as_ref()), "{targets:?}");
    let (kind, said) = refusal(&link, &Arc::default()).await;
    assert_eq!(kind, ErrorKind::Disconnected);
    assert!(said.contains("is written by another process"), "{said}");
    drop(first);
    opened(&link, &Arc::default()).await.unwrap();
    assert_eq!(file_sink(Path::new("/dev/null")).target(), None);
}

#[tokio::test]
async fn a_sink_that_is_opened_again_keeps_what_it_wrote() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.log");
    let records = Arc::new(Memory::default());
    let mut sink = opened(&path, &records).await.unwrap();
    let long = "x".repeat(LONG);
    sink.write(&messages(&["waits in memory"])).await.unwrap();
    assert_eq!(sink.open(context(&records)).await.unwrap(), []);
    sink.write(&messages(&[&long])).await.unwrap();
    // A write that failed half-way would leave this.
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, b"half of").unwrap();
    assert_eq!(sink.open(context(&records)).await.unwrap(), []);
    sink.write(&messages(&["the last"])).await.unwrap();
    sink.commit(&[delivered(3)]).await.unwrap();
    let expected = format!("waits in memory\n{long}\nthe last\n");
    assert!(fs::read_to_string(&path).unwrap() == expected);
}

#[tokio::test]
async fn the_other_sinks_hold_the_contract_too() {
    let records = Arc::new(Memory::default());
    let mut hole = sink("blackhole", "");
    assert_eq!(hole.columns(&messages(&[""]).schema()), Ok(vec![0]));
    assert_eq!((hole.commit_when(), hole.target()), (Commit::EachWrite, None));
    for _ in 0..2 {
        assert_eq!(hole.open(context(&records)).await.unwrap(), []);
        commit(&mut *hole, &["gone"], 1).await.unwrap();
    }
    assert_eq!(records.saves(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_blackhole_takes_its_time() {
    let mut hole = sink("blackhole", "delay = '250ms'");
    hole.open(context(&Arc::default())).await.unwrap();
    let start = tokio::time::Instant::now();
    commit(&mut *hole, &["gone"], 1).await.unwrap();
    assert_eq!(start.elapsed().as_millis(), 250);
}

#[derive(Clone, Debug)]
enum Step {
    /// So many rows of such a length.
    Write(usize, usize),
    Commit,
    CommitRefused,
    Reopen,
    Crash,
    /// The commit is on the disk, and the process dies before it can say so.
    CommitAndCrash,
    /// The process dies while something is behind the last commit.
    CrashWithRubbish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..4, 0_usize..30).prop_map(|(rows, length)| Step::Write(rows, length)),
        2 => (1_usize..4, 400_000_usize..900_000).prop_map(|(r, l)| Step::Write(r, l)),
        2 => Just(Step::Commit),
        1 => Just(Step::CommitRefused),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::CommitAndCrash),
        1 => Just(Step::CrashWithRubbish),
    ]
}

/// The row with this offset, the same whenever it is read.
fn line(offset: u64, length: usize) -> String {
    format!("{offset}:{}", "x".repeat(length))
}

/// An engine that reads rows again from what was delivered.
struct Run {
    sink: Box<dyn Sink>,
    lengths: Vec<usize>,
    next: u64,
}

impl Run {
    async fn start(path: &Path, records: &Arc<Memory>, lengths: Vec<usize>) -> Self {
        let mut sink = file_sink(path);
        let ends = sink.open(context(records)).await.unwrap();
        let next = ends.first().map_or(0, |delivered| delivered.end);
        let mut run = Self { sink, lengths, next };
        run.replay().await;
        run
    }

    async fn replay(&mut self) {
        let all = self.lengths.len() as u64;
        let rows = self.next..all;
        let lines: Vec<_> = rows.map(|at| line(at, self.lengths[at as usize])).collect();
        if !lines.is_empty() {
            self.sink.write(&messages(&lines)).await.unwrap();
        }
        self.next = all;
    }

    async fn commit(&mut self) -> Result<(), Error> {
        self.sink.commit(&[delivered(self.next)]).await
    }
}

async fn survives(steps: Vec<Step>, before: &str) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.log");
    fs::write(&path, before).unwrap();
    let records = Arc::new(Memory::default());
    let mut run = Run::start(&path, &records, Vec::new()).await;
    for step in steps {
        let mut crashed = false;
        match step {
            Step::Write(rows, length) => {
                run.lengths.resize(run.lengths.len() + rows, length);
                run.replay().await;
            }
            Step::Commit => run.commit().await.unwrap(),
            Step::CommitRefused => {
                records.next_save(Save::Refused);
                assert_eq!(run.commit().await.unwrap_err().kind(), ErrorKind::Disconnected);
            }
            Step::Reopen => {
                run.sink.open(context(&records)).await.unwrap();
            }
            Step::Crash => crashed = true,
            Step::CommitAndCrash => {
                records.next_save(Save::DiesAfter);
                run.commit().await.unwrap_err();
                crashed = true;
            }
            Step::CrashWithRubbish => {
                let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
                std::io::Write::write_all(&mut file, b"7:xxx\n8:").unwrap();
                crashed = true;
            }
        }
        if crashed {
            let lengths = std::mem::take(&mut run.lengths);
            drop(run);
            run = Run::start(&path, &records, lengths).await;
        }
    }
    run.commit().await.unwrap();
    let mut expected = before.to_owned();
    if !expected.is_empty() && !run.lengths.is_empty() {
        expected.push('\n');
    }
    for (offset, length) in run.lengths.iter().enumerate() {
        expected += &line(offset as u64, *length);
        expected.push('\n');
    }
    assert!(fs::read_to_string(&path).unwrap() == expected, "the output is not the input");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_row_is_there_once_whatever_happens(
        steps in prop::collection::vec(step(), 1..24),
        before in prop_oneof![Just(""), Just("somebody's half line")],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(survives(steps, before));
    }
}
