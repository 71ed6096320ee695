//! The file sink that writes Parquet, against crashes, meddlers and files of others.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use proptest::prelude::*;
use tempfile::tempdir;
use tidegate_components::codecs::parquet::concat;
use tidegate_model::{Commit, Error, ErrorKind, Settings, Sink};

use crate::memory::{Memory, Save, context, context_of, delivered, file_sink, messages, sink};

pub(crate) fn parquet_sink(path: &Path, settings: &str) -> Box<dyn Sink> {
    let path = path.display();
    sink("file", &format!("path = '{path}'\ncodec = 'parquet'\nparquet = {{ {settings} }}"))
}

async fn opened(path: &Path, records: &Arc<Memory>) -> Result<Box<dyn Sink>, Error> {
    let mut sink = parquet_sink(path, "row_group_rows = 4");
    sink.open(context(records)).await?;
    Ok(sink)
}

async fn refusal(path: &Path, records: &Arc<Memory>) -> String {
    let error = opened(path, records).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Fatal, "{error}");
    error.to_string()
}

async fn commit(sink: &mut dyn Sink, lines: &[&str], end: u64) -> Result<(), Error> {
    sink.write(&messages(lines)).await?;
    sink.commit(&[delivered(end)]).await
}

/// All rows of a file, and how many are in each row group.
pub(crate) fn read(path: &Path) -> Result<(Vec<RecordBatch>, Vec<i64>), ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let groups = builder.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    let batches = builder.with_batch_size(100_000).build()?.collect::<Result<_, _>>()?;
    Ok((batches, groups))
}

/// The lines of a file of them.
pub(crate) fn lines_of(path: &Path) -> Vec<String> {
    let (batches, _) = read(path).unwrap();
    let columns = batches.iter().map(|rows| rows.column(0).as_string_view());
    columns.flat_map(|column| column.iter().map(|line| line.unwrap().to_owned())).collect()
}

#[tokio::test]
async fn the_file_is_whole_after_every_commit_and_before_the_first() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.parquet");
    let records = Arc::new(Memory::default());
    let mut sink = opened(&path, &records).await.unwrap();
    assert_eq!(sink.commit_when(), Commit::Grouped);
    assert_eq!((sink.commit_age(), sink.commit_bytes_max()), (Duration::from_secs(5), usize::MAX));
    assert_eq!(read(&path).unwrap(), (vec![], vec![]));
    sink.write(&messages(&["one", "two"])).await.unwrap();
    sink.write(&messages(&["three"])).await.unwrap();
    assert_eq!(lines_of(&path), Vec::<String>::new());
    sink.commit(&[delivered(3)]).await.unwrap();
    assert_eq!(lines_of(&path), ["one", "two", "three"]);
    let saves = records.saves();
    sink.commit(&[]).await.unwrap();
    assert_eq!(records.saves(), saves, "nothing new, and still saved");
    // Six rows: a whole row group, and what is left.
    sink.write(&messages(&["4", "5", "6", "7", "8", "9"])).await.unwrap();
    commit(&mut *sink, &["10", "11", "12", "13"], 13).await.unwrap();
    assert_eq!(read(&path).unwrap().1, [3, 4, 4, 2]);
    sink.commit(&[delivered(14)]).await.unwrap();
    drop(sink);
    let mut sink = parquet_sink(&path, "");
    assert_eq!(sink.open(context(&records)).await.unwrap(), [delivered(14)]);
    assert_eq!(lines_of(&path).len(), 13);
    commit(&mut *sink, &["14"], 15).await.unwrap();
    sink.close().await;
    assert_eq!(read(&path).unwrap().1, [3, 4, 4, 2, 1]);
    assert_eq!(lines_of(&path)[12..], ["13", "14"]);
}

#[tokio::test]
async fn a_run_that_fails_leaves_the_last_commit_whole() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.parquet");
    let records = Arc::new(Memory::default());
    let mut sink = opened(&path, &records).await.unwrap();
    for _ in 0..3 {
        sink.write(&messages(&["no", "row", "of", "these"])).await.unwrap();
    }
    drop(sink);
    assert_eq!(lines_of(&path), Vec::<String>::new());
    let mut sink = opened(&path, &records).await.unwrap();
    commit(&mut *sink, &["one"], 1).await.unwrap();
    for _ in 0..3 {
        sink.write(&messages(&["nor", "row", "of", "these"])).await.unwrap();
    }
    drop(sink);
    assert_eq!(lines_of(&path), ["one"]);
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_as_they_are() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.parquet");
    let records = Arc::new(Memory::default());
    fs::write(&path, "PAR1, somebody's").unwrap();
    let said = refusal(&path, &records).await;
    assert!(said.contains("has 16 bytes already that are not this pipeline's"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), b"PAR1, somebody's");
    assert_eq!(records.saves(), 0);

    // One that is empty is none.
    fs::write(&path, "").unwrap();
    let mut sink = opened(&path, &records).await.unwrap();
    commit(&mut *sink, &["one"], 1).await.unwrap();
    drop(sink);
    let whole = fs::read(&path).unwrap();

    let error = file_sink(&path).open(context(&records)).await.unwrap_err();
    let said = "was written with another codec and is Parquet: change `path`";
    assert!(error.to_string().contains(said), "{error}");
    let log = folder.path().join("out.log");
    let mut text = file_sink(&log);
    text.open(context(&records)).await.unwrap();
    commit(&mut *text, &["one"], 1).await.unwrap();
    drop(text);
    let said = refusal(&log, &records).await;
    assert!(said.contains("was written with another codec and is not Parquet"), "{said}");
    assert_eq!(fs::read(&log).unwrap(), b"one\n");

    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let names = [("message", number.clone(), false), ("more", number, true)];
    let other = RecordBatch::try_from_iter_with_nullable(names).unwrap().schema();
    let mut sink = parquet_sink(&path, "");
    let error = sink.open(context_of(&records, &other)).await.unwrap_err();
    let said = "has other columns than these rows, number 1 is `message` (Utf8, never null) in the \
                file, and `message` (Int64, never null) in these";
    assert!(error.to_string().contains(said), "{error}");
    let [message, more] = [messages(&[""]).schema().fields()[0].clone(), other.fields()[1].clone()];
    let more = Arc::new(arrow_schema::Schema::new(vec![message, more]));
    let error = sink.open(context_of(&records, &more)).await.unwrap_err();
    let said = "number 2 is missing in the file, and `more` (Int64) in these";
    assert!(error.to_string().contains(said), "{error}");
    assert_eq!(fs::read(&path).unwrap(), whole);

    let mut null = parquet_sink(Path::new("/dev/null"), "");
    let error = null.open(context(&records)).await.unwrap_err();
    assert!(
        error.to_string().contains("is a pipe or a device, and Parquet needs a file"),
        "{error}"
    );
    assert_eq!((null.target(), sink.target().is_some()), (None, true));
    let error = parquet_sink(&path, "").write(&messages(&["x"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
}

#[tokio::test]
async fn a_file_that_is_not_as_it_was_left_stops_the_start() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.parquet");
    let records = Arc::new(Memory::default());
    let mut sink = opened(&path, &records).await.unwrap();
    commit(&mut *sink, &["one"], 1).await.unwrap();
    commit(&mut *sink, &["two"], 2).await.unwrap();
    drop(sink);
    let whole = fs::read(&path).unwrap();
    let said = |damaged: Vec<u8>| {
        fs::write(&path, damaged).unwrap();
        refusal(&path, &records)
    };
    let text = said(b"one\n".to_vec()).await;
    assert!(text.contains("out.parquet\" has 4 bytes, and"), "{text}");
    let mut last = whole.clone();
    let note = whole.windows(4).rposition(|bytes| bytes == b"\xF5TG\xF5").unwrap();
    last[note - 20] ^= 1;
    let text = said(last).await;
    assert!(text.contains("is not the file that was written: before byte"), "{text}");
    let mut first = whole.clone();
    let note = whole.windows(4).position(|bytes| bytes == b"\xF5TG\xF5").unwrap();
    first[note] ^= 1;
    let text = said(first).await;
    assert!(text.contains("there is no note before byte"), "{text}");
    fs::remove_file(&path).unwrap();
    let text = refusal(&path, &records).await;
    assert!(text.contains("is missing, and"), "{text}");
    assert!(!path.exists());

    // A copy that was put back is as good, with its footer, without, and with anything else behind.
    let note = whole.windows(4).rposition(|bytes| bytes == b"\xF5TG\xF5").unwrap();
    for behind in [&whole[note + 4..], b"", b"half of a row group"] {
        fs::write(&path, [&whole[..note + 4], behind].concat()).unwrap();
        drop(opened(&path, &records).await.unwrap());
        assert!(fs::read(&path).unwrap() == whole);
    }
}

#[tokio::test]
async fn whoever_meddles_with_an_open_file_is_found_out_and_it_is_theirs() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.parquet");
    for (meddle, complaint) in [
        (cut as fn(&Path), "was cut to 2 bytes by someone else"),
        (grow, "someone else writes to it"),
        (delete, "was moved or deleted while it was written"),
    ] {
        let records = Arc::new(Memory::default());
        let mut sink = opened(&path, &records).await.unwrap();
        commit(&mut *sink, &["one"], 1).await.unwrap();
        // A row group that is written already, and a row.
        sink.write(&messages(&["two"; 4])).await.unwrap();
        sink.write(&messages(&["two"])).await.unwrap();
        records.next_save(Save::Refused);
        let refused = sink.commit(&[delivered(6)]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Disconnected);
        meddle(&path);
        let left = fs::read(&path).ok();
        let error = sink.commit(&[delivered(6)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fatal);
        assert!(error.to_string().contains(complaint), "{error}");
        drop(sink);
        assert_eq!(fs::read(&path).ok(), left);
        let _ = fs::remove_file(&path);
    }

    fn cut(path: &Path) {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(2).unwrap();
    }
    fn grow(path: &Path) {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    }
    fn delete(path: &Path) {
        fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn row_groups_are_ended_by_memory_too() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.parquet");
    let records = Arc::new(Memory::default());
    let mut sink = parquet_sink(&path, "compression = 'none', row_group_rows = 1000000");
    sink.open(context(&records)).await.unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..40 {
        let line = |_| (0..100).map(|_| random.alphanumeric()).collect::<String>();
        let rows: Vec<_> = (0..10_000).map(line).collect();
        sink.write(&messages(&rows)).await.unwrap();
    }
    sink.commit(&[delivered(1)]).await.unwrap();
    let (_, groups) = read(&path).unwrap();
    assert_eq!(groups.iter().sum::<i64>(), 400_000);
    // 8 MiB of 104 bytes a row, and the rows that are encoded before it is looked at again.
    let whole = &groups[..groups.len() - 1];
    assert!(whole.iter().all(|rows| (60_000..95_000).contains(rows)), "{groups:?}");
}

#[test]
fn settings_that_make_no_sense_are_refused_where_they_stand() {
    for (settings, at, message, help) in [
        ("codec = 'parquet'\nparquet = { compression = 'gzip' }", "'gzip'", "compression", "zstd"),
        ("codec = 'parquet'\nparquet = { row_group_rows = 0 }", "0", "has to have rows", "1 or"),
        ("parquet = { row_group_rows = 1 }", "{ row_group_rows = 1 }", "for Parquet", "remove"),
        ("codec = 'parquet'\ncsv = { header = true }", "{ header = true }", "for CSV", "remove"),
    ] {
        let settings = format!("path = 'x'\n{settings}");
        let spec = tidegate_components::sinks::SINKS.iter().find(|(name, _)| *name == "file");
        let parsed = Settings::from_toml(&settings).unwrap();
        let mistake = (spec.unwrap().1.build)(&parsed).err().unwrap();
        assert_eq!(&settings[mistake.span.unwrap()], at);
        assert!(mistake.message.contains(message), "{}", mistake.message);
        assert!(mistake.help.unwrap().contains(help));
    }
}

#[tokio::test]
async fn files_are_put_together_in_their_order() {
    let folder = tempdir().unwrap();
    let mut parts = Vec::new();
    let mut expected = Vec::new();
    for (part, compression) in ["snappy", "zstd", "none"].iter().enumerate() {
        let path = folder.path().join(format!("{part}.parquet"));
        let records = Arc::new(Memory::default());
        let settings = format!("compression = '{compression}', row_group_rows = 1000");
        let mut sink = parquet_sink(&path, &settings);
        sink.open(context(&records)).await.unwrap();
        // The second has no rows.
        for commit in 0..if part == 1 { 0 } else { 3 } {
            let rows: Vec<_> = (0..1_500).map(|row| format!("{part} {commit} {row}")).collect();
            sink.write(&messages(&rows)).await.unwrap();
            sink.commit(&[delivered(commit)]).await.unwrap();
            expected.extend(rows);
        }
        parts.push(path);
    }
    let whole = folder.path().join("whole.parquet");
    concat(&parts, &whole).unwrap();
    assert!(lines_of(&whole) == expected);
    assert_eq!(read(&whole).unwrap().1.len(), 12);
    assert_eq!(read(&whole).unwrap().0[0].schema(), messages(&[""]).schema());

    let said = |parts: &[_], to: &Path| concat(parts, to).unwrap_err().to_string();
    // What a run that was killed has left is in nobody's way.
    fs::write(&whole, "half").unwrap();
    concat(&parts, &whole).unwrap();
    assert!(lines_of(&whole) == expected);
    let text = said(&parts, &parts[1]);
    assert!(text.contains("1.parquet can't be put into itself"), "{text}");
    let text = said(&parts, &folder.path().join("no/whole.parquet"));
    assert!(text.contains("whole.parquet: its folder must exist"), "{text}");
    let none = folder.path().join("none.parquet");
    assert!(said(&[], &none).contains("there are no Parquet files"));
    assert!(said(std::slice::from_ref(&none), &none).contains("can't open"));
    fs::write(folder.path().join("half.parquet"), &fs::read(&whole).unwrap()[..5_000]).unwrap();
    let half = folder.path().join("half.parquet");
    assert!(said(&[half], &none).contains("half.parquet is no whole Parquet file"));
    assert!(!none.exists());
    let other = folder.path().join("other.parquet");
    let number: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let schema = RecordBatch::try_from_iter([("number", number)]).unwrap().schema();
    let records = Arc::default();
    parquet_sink(&other, "").open(context_of(&records, &schema)).await.unwrap();
    let text = said(&[parts[0].clone(), other], &none);
    assert!(text.contains("other.parquet has other columns than"), "{text}");
}

#[derive(Clone, Debug)]
enum Step {
    /// So many rows.
    Write(usize),
    Commit,
    CommitRefused,
    Reopen,
    /// The sink is dropped, as where a run fails.
    Fail,
    /// The process dies, and what is written stays as it is.
    Crash,
    /// The commit is on the disk, and the process dies before it can say so.
    CommitAndCrash,
    /// The process dies in the middle of a write.
    CrashWithRubbish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_usize..12).prop_map(Step::Write),
        2 => Just(Step::Commit),
        1 => Just(Step::CommitRefused),
        1 => Just(Step::Reopen),
        1 => Just(Step::Fail),
        1 => Just(Step::Crash),
        1 => Just(Step::CommitAndCrash),
        1 => Just(Step::CrashWithRubbish),
    ]
}

/// An engine that reads rows again from what was delivered.
struct Run {
    sink: Box<dyn Sink>,
    rows: u64,
    next: u64,
}

impl Run {
    async fn start(path: &Path, records: &Arc<Memory>, rows: u64) -> Self {
        let mut sink = opened(path, records).await.unwrap();
        let ends = sink.open(context(records)).await.unwrap();
        let next = ends.first().map_or(0, |delivered| delivered.end);
        assert_eq!(lines_of(path).len() as u64, next, "the start did not mend the file");
        sink.close().await;
        let mut run = Self { sink, rows, next };
        run.replay().await;
        run
    }

    async fn replay(&mut self) {
        let lines: Vec<_> = (self.next..self.rows).map(|row| row.to_string()).collect();
        if !lines.is_empty() {
            self.sink.write(&messages(&lines)).await.unwrap();
        }
        self.next = self.rows;
    }

    /// What a kill would leave.
    fn crash(self, path: &Path) {
        let left = fs::read(path).unwrap();
        drop(self);
        fs::write(path, left).unwrap();
    }
}

async fn survives(steps: Vec<Step>) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.parquet");
    let records = Arc::new(Memory::default());
    let mut run = Run::start(&path, &records, 0).await;
    for step in steps {
        let rows = run.rows;
        let end = [delivered(run.next)];
        match step {
            Step::Write(more) => {
                run.rows += more as u64;
                run.replay().await;
                continue;
            }
            Step::Commit => {
                run.sink.commit(&end).await.unwrap();
                assert_eq!(lines_of(&path).len() as u64, rows);
                continue;
            }
            Step::CommitRefused => {
                records.next_save(Save::Refused);
                let error = run.sink.commit(&end).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Disconnected);
                continue;
            }
            Step::Reopen => {
                run.sink.open(context(&records)).await.unwrap();
                continue;
            }
            Step::Fail => {
                drop(run);
                assert!(read(&path).is_ok(), "a run that failed left half a file");
            }
            Step::Crash => run.crash(&path),
            Step::CommitAndCrash => {
                records.next_save(Save::DiesAfter);
                run.sink.commit(&end).await.unwrap_err();
                run.crash(&path);
            }
            Step::CrashWithRubbish => {
                let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
                file.write_all(b"half of a row group").unwrap();
                run.crash(&path);
            }
        }
        run = Run::start(&path, &records, rows).await;
    }
    run.sink.commit(&[delivered(run.next)]).await.unwrap();
    let expected: Vec<_> = (0..run.rows).map(|row| row.to_string()).collect();
    assert_eq!(lines_of(&path), expected);
    drop(run);
    assert_eq!(lines_of(&path), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_row_is_there_once_whatever_happens(steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(survives(steps));
    }
}
