//! Killed at any moment, the program loses nothing, repeats nothing and keeps the order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidegate_testkit::process::{Program, wait_for};
use tidegate_testkit::rows::of_parquet;

use crate::support::{DEADLINE, Folder, TIDEGATE, times};

/// Grows files line by line, in pieces that end anywhere, until it is stopped.
struct Feed {
    stop: Arc<AtomicBool>,
    writing: Option<JoinHandle<()>>,
    files: Vec<PathBuf>,
}

impl Feed {
    fn new(folder: &Path, count: usize, seed: u64) -> Self {
        let files: Vec<PathBuf> =
            (0..count).map(|index| folder.join(format!("in{index}.log"))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, paths) = (Arc::clone(&stop), files.clone());
        let writing = thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut open: Vec<File> =
                paths.iter().map(|path| File::create(path).unwrap()).collect();
            let mut numbers = vec![0_u64; open.len()];
            while !stopped.load(Ordering::Relaxed) {
                let index = random.usize(0..open.len());
                let mut text = String::new();
                for _ in 0..random.usize(1..400) {
                    let padding = "·".repeat(random.usize(0..60));
                    text += &format!("{index} {} {padding}\n", numbers[index]);
                    numbers[index] += 1;
                }
                // What is written in one call may end in the middle of a line, or of a letter.
                let cut = random.usize(0..=text.len());
                open[index].write_all(&text.as_bytes()[..cut]).unwrap();
                thread::park_timeout(Duration::from_millis(random.u64(0..4)));
                open[index].write_all(&text.as_bytes()[cut..]).unwrap();
            }
        });
        Self { stop, writing: Some(writing), files }
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(writing) = self.writing.take() {
            writing.join().unwrap();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How a run is cut short.
#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    Term,
}

/// Runs the configuration again and again, cut short at random moments while its input grows, and
/// once more to the end.
fn survive(config: &str, files: usize, outputs: &[&str], end: End) {
    let seed = fastrand::u64(..);
    let folder = Folder::new();
    folder.write("pipeline.toml", config);
    let mut feed = Feed::new(folder.path(), files, seed);
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..times() {
        let mut program = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
        let time = Duration::from_millis(random.u64(0..250));
        assert!(program.runs_for(time), "seed {seed}: {:?}", program.ended(DEADLINE));
        match end {
            End::Kill => program.kill(),
            End::Term => {
                program.signal("TERM");
                let ended = program.ended(DEADLINE);
                assert!(
                    ended.code() == Some(0) || ended.status.code().is_none(),
                    "seed {seed}: {ended:?}"
                );
                // There is none where it was ended before it began.
                let tables = outputs.iter().filter(|output| output.ends_with(".parquet"));
                for left in tables.flat_map(|table| fs::read(folder.path().join(table))) {
                    assert!(left.ends_with(b"PAR1"), "seed {seed}: it has no footer: {ended:?}");
                }
            }
        }
    }
    feed.finish();
    let program = Program::start(TIDEGATE, folder.path(), ["run", "--once", "pipeline.toml"]);
    let ended = program.ended(DEADLINE);
    assert_eq!(ended.code(), Some(0), "seed {seed}: {ended:?}");
    for output in outputs {
        assert_same(&feed.files, &folder.path().join(output), seed);
    }
}

/// Every line of every file is in the output once, those of one file in its order.
fn assert_same(files: &[PathBuf], output: &Path, seed: u64) {
    let output = lines_of(output);
    if let [file] = files {
        let input = fs::read_to_string(file).unwrap();
        let same = input == output;
        assert!(same, "seed {seed}: {}", first_difference(&input, &output));
        return;
    }
    let mut by_file: BTreeMap<&str, String> = BTreeMap::new();
    for line in output.lines() {
        let text = by_file.entry(line.split(' ').next().unwrap()).or_default();
        text.push_str(line);
        text.push('\n');
    }
    for (index, file) in files.iter().enumerate() {
        let input = fs::read_to_string(file).unwrap();
        let output = by_file.remove(&*index.to_string()).unwrap_or_default();
        let same = input == output;
        assert!(same, "seed {seed}, file {index}: {}", first_difference(&input, &output));
    }
    assert_eq!(by_file.keys().collect::<Vec<_>>(), Vec::<&&str>::new());
}

/// What was written, whatever the codec.
fn lines_of(output: &Path) -> String {
    match output.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => {
            let rows = of_parquet(output).rows;
            rows.iter().map(|row| format!("{}\n", row[0].as_deref().unwrap())).collect()
        }
        Some("csv") => {
            // None of the lines needs quotes, so each is as it was.
            let text = fs::read_to_string(output).unwrap();
            assert_eq!(text.matches("message\n").count(), 1, "a header, once");
            text.strip_prefix("message\n").unwrap().to_owned()
        }
        _ => fs::read_to_string(output).unwrap(),
    }
}

fn first_difference(input: &str, output: &str) -> String {
    let lines = input.lines().zip(output.lines()).zip(1..);
    let (read, written) = (input.lines().count(), output.lines().count());
    let found = lines.filter(|((a, b), _)| a != b).map(|((a, b), n)| format!("{n}: {a:?}, {b:?}"));
    let found = found.take(1).next().unwrap_or_else(|| "one is longer".to_owned());
    format!("{read} lines in, {written} out, line {found}")
}

fn one_sink(inputs: &str) -> String {
    format!(
        "data_dir = \"state\"\nmemory = \"16MiB\"\n\
         [sources.app]\ntype = \"file\"\ninclude = [{inputs}]\nrescan = \"20ms\"\n\
         [sinks.out]\ntype = \"file\"\ninputs = [\"app\"]\npath = \"out.log\"\ncodec = \"text\"\n"
    )
}

#[test]
fn killed_with_one_sink() {
    survive(&one_sink("\"in0.log\""), 1, &["out.log"], End::Kill);
}

#[test]
fn killed_with_three_files_into_one_sink() {
    survive(&one_sink("\"in*.log\""), 3, &["out.log"], End::Kill);
}

#[test]
fn killed_with_two_sinks_of_different_speed() {
    let slow = "[transforms.limit]\ntype = \"rate_limit\"\ninputs = [\"app\"]\n\
                bytes_per_second = \"6MiB\"\n\
                [transforms.sql]\ntype = \"sql\"\ninputs = [\"limit\"]\n\
                query = \"SELECT message FROM input WHERE length(message) > 0\"\n\
                [sinks.slow]\ntype = \"file\"\ninputs = [\"sql\"]\npath = \"slow.log\"\n\
                codec = \"text\"\n";
    let config = one_sink("\"in*.log\"") + slow;
    survive(&config, 2, &["out.log", "slow.log"], End::Kill);
}

/// Messages alone, of all files, to a file of another codec.
fn messages_to(output: &str, codec: &str) -> String {
    let columns = "[transforms.lines]\ntype = \"sql\"\ninputs = [\"app\"]\n\
                   query = \"SELECT message FROM input\"\n";
    let config = one_sink("\"in*.log\"").replace("out.log", output).replace("\"text\"", codec);
    let config = config.replace("inputs = [\"app\"]", "inputs = [\"lines\"]");
    config.replace("[sinks.out]", &format!("{columns}[sinks.out]"))
}

#[test]
fn killed_and_terminated_while_it_writes_csv() {
    let config = messages_to("out.csv", "\"csv\"");
    survive(&config, 2, &["out.csv"], End::Kill);
    survive(&config, 2, &["out.csv"], End::Term);
}

#[test]
#[ignore = "needs Python with DuckDB; run by cargo xtask test"]
fn killed_and_terminated_while_it_writes_parquet() {
    // Row groups of all sizes, and many commits.
    let codec = "\"parquet\"\nparquet = { row_group_rows = 700, row_group_age = \"20ms\" }";
    let config = messages_to("out.parquet", codec);
    survive(&config, 2, &["out.parquet"], End::Kill);
    survive(&config, 2, &["out.parquet"], End::Term);
}

#[test]
fn terminated_at_any_moment() {
    survive(&one_sink("\"in*.log\""), 2, &["out.log"], End::Term);
}

#[test]
fn a_stop_that_comes_while_all_is_well_exits_0_and_one_that_leaves_something_1() {
    let folder = Folder::new();
    folder.write("pipeline.toml", one_sink("\"in0.log\""));
    folder.write("in0.log", "one\ntwo\n");
    let program = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
    wait_for("the output", DEADLINE, || (folder.read("out.log") == "one\ntwo\n").then_some(()));
    program.signal("TERM");
    assert_eq!(program.ended(DEADLINE).code(), Some(0));

    let fifo = "shutdown_timeout = \"1s\"\n".to_owned() + &one_sink("\"in0.log\"");
    let fifo = fifo.replace("out.log", "fifo");
    folder.write("pipeline.toml", &fifo);
    folder.write("in0.log", "three\n");
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    folder.fifo("fifo");
    let mut program = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
    wait_for("it to read", DEADLINE, || program.bytes_read().filter(|bytes| *bytes > 0));
    assert!(program.runs_for(Duration::from_millis(500)));
    program.signal("TERM");
    let ended = program.ended(DEADLINE);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("not delivered"), "{ended:?}");
}
