//! `tidegate export` that is interrupted, gone on with, and in the way of others.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use tidegate_testkit::process::{Ended, Program, wait_for};
use tidegate_testkit::rows;

use crate::support::{DEADLINE, Folder, TIDEGATE};

/// A table of so many rows.
const TABLE: [&str; 3] = ["sqlite:app.db", "--table", "t"];

fn sqlite(rows: u32) -> Folder {
    let folder = Folder::new();
    let database = rusqlite::Connection::open(folder.path().join("app.db")).unwrap();
    let table = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);";
    database.execute_batch(table).unwrap();
    let insert = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT ?)
        INSERT INTO t SELECT x, hex(randomblob(60)) FROM c";
    database.execute(insert, [rows]).unwrap();
    folder
}

fn start(folder: &Folder, arguments: &[&str]) -> Program {
    Program::start(TIDEGATE, folder.path(), ["export"].iter().chain(&TABLE).chain(arguments))
}

#[track_caller]
fn export(folder: &Folder, arguments: &[&str], code: i32, said: &str) -> Ended {
    let ended = start(folder, arguments).ended(DEADLINE);
    assert_eq!(ended.code(), Some(code), "{arguments:?}: {}", ended.stderr);
    assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    ended
}

/// Begins an export that will not end soon.
fn begun(folder: &Folder, arguments: &[&str]) -> Program {
    let program = start(folder, &[arguments, &["--rate", "100"]].concat());
    let to = arguments.iter().skip_while(|argument| **argument != "--to").nth(1).unwrap();
    let job = folder.path().join(to).with_added_extension("export").join("job.json");
    wait_for("an export to begin", DEADLINE, || job.exists().then_some(()));
    program
}

/// Ends one as Ctrl-C does.
#[track_caller]
fn interrupt(program: Program) {
    program.signal("INT");
    let ended = program.ended(DEADLINE);
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("--resume goes on"), "{}", ended.stderr);
}

#[test]
fn a_folder_of_ones_own_that_is_called_as_ours_is_left_alone() {
    let folder = sqlite(10);
    let mine = folder.path().join("a.csv.export");
    fs::create_dir(&mine).unwrap();
    folder.write("a.csv.export/mine.txt", "mine");
    for more in [&[][..], &["--overwrite"], &["--resume"]] {
        let ended = export(&folder, &[&["--to", "a.csv"], more].concat(), 2, "rename it");
        assert!(ended.stderr.contains("a.csv.export"), "{}", ended.stderr);
        assert_eq!(folder.read("a.csv.export/mine.txt"), "mine");
        assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
    }
    // A link to a folder is no folder of ours either: what it leads to is not ours to empty.
    fs::rename(&mine, folder.path().join("elsewhere")).unwrap();
    symlink("elsewhere", &mine).unwrap();
    export(&folder, &["--to", "a.csv", "--overwrite"], 2, "rename it");
    assert_eq!(folder.read("elsewhere/mine.txt"), "mine");
    fs::remove_file(&mine).unwrap();
    fs::create_dir(&mine).unwrap();
    export(&folder, &["--to", "a.csv"], 0, "exported 10 rows");
    assert!(!mine.exists(), "an empty one is in nobody's way");
}

#[test]
fn while_one_exports_no_other_takes_its_place() {
    let folder = sqlite(3_000);
    let mut first = begun(&folder, &["--to", "a.csv", "--workers", "2"]);
    let owner = format!("another process exports to a.csv, {}", first.id());
    for more in [&[][..], &["--overwrite"], &["--resume"]] {
        export(&folder, &[&["--to", "a.csv"], more].concat(), 1, &owner);
    }
    assert!(first.is_running());
    interrupt(first);
    export(&folder, &["--to", "a.csv", "--resume"], 0, "exported");
    assert_eq!(folder.read("a.csv").lines().count(), 3_001);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
}

#[test]
fn what_is_whole_is_gone_on_with_by_the_same_command_alone() {
    let folder = sqlite(2_000);
    // Something that a part can't replace ends it after the first part was moved.
    let stone = folder.path().join("all/part-0001.csv/stone");
    fs::create_dir_all(&stone).unwrap();
    let what = ["--to", "all/", "--format", "csv", "--workers", "2"];
    export(&folder, &[&what[..], &["--overwrite"]].concat(), 1, "part-0001.csv");
    let first = folder.read("all/part-0000.csv");
    assert!(!first.is_empty() && folder.path().join("all.export/whole.json").exists());
    fs::remove_dir_all(folder.path().join("all/part-0001.csv")).unwrap();

    export(&folder, &["--to", "all/", "--resume"], 2, "the format was");
    export(&folder, &[&what[..], &["--where", "id > 9", "--resume"]].concat(), 2, "--where was");
    assert_eq!(folder.read("all/part-0000.csv"), first);
    // There is nothing left to read: it does not need the database.
    fs::rename(folder.path().join("app.db"), folder.path().join("away.db")).unwrap();
    export(&folder, &[&what[..], &["--resume"]].concat(), 0, "all/ is whole");
    assert_eq!(folder.read("all/part-0000.csv"), first);
    let rows = first.lines().count() + folder.read("all/part-0001.csv").lines().count();
    assert_eq!(rows, 2_002);
}

#[test]
fn another_database_of_the_same_name_is_not_gone_on_with() {
    let (folder, other) = (sqlite(1_000), sqlite(1_000));
    let to = folder.path().join("a.csv").display().to_string();
    interrupt(begun(&folder, &["--to", &to]));
    export(&other, &["--to", &to, "--resume"], 2, "the database was \"sqlite:/");
    export(&folder, &["--to", "a.csv", "--resume"], 0, "exported");
}

#[test]
fn while_ranges_are_sought_a_signal_ends_it() {
    let folder = sqlite(10);
    // The ends of the key are found only after all of this.
    let slow = "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000000000)
        SELECT count(*) FROM c) > id";
    for signal in ["INT", "TERM"] {
        let what = ["--to", "a.csv", "--workers", "2", "--where", slow];
        let program = start(&folder, &what);
        let stat = format!("/proc/{}/stat", program.id());
        wait_for("the database to be asked", DEADLINE, || {
            // In hundredths of a second: of the time in user mode, far more than all before takes.
            let stat = fs::read_to_string(&stat).unwrap();
            let ticks: u64 = stat.rsplit(')').next()?.split_whitespace().nth(11)?.parse().ok()?;
            (ticks > 50).then_some(())
        });
        program.signal(signal);
        let ended = program.ended(DEADLINE);
        assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("stopped before"), "{}", ended.stderr);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing has begun");
    }
}

#[test]
fn while_parts_are_joined_a_signal_ends_it() {
    let folder = sqlite(3_000);
    let what = ["--to", "a.csv", "--workers", "2"];
    interrupt(begun(&folder, &what));
    // All parts as one go to a pipe that is full before they are through.
    let whole = "a.csv.export/whole";
    folder.fifo(whole);
    for _ in 0..2 {
        // It is empty each time, and stays open for the next to come.
        let pipe = File::options().read(true).write(true).open(folder.path().join(whole)).unwrap();
        let program = start(&folder, &[&what[..], &["--resume"]].concat());
        // That something comes: how much of it is read here is no matter.
        Program::start("head", folder.path(), ["-c", "2", whole]).ended(DEADLINE);
        export(&folder, &[&what[..], &["--overwrite"]].concat(), 1, "another process");
        interrupt(program);
        drop(pipe);
    }
    fs::remove_file(folder.path().join(whole)).unwrap();
    export(&folder, &[&what[..], &["--resume"]].concat(), 0, "exported");
    assert_eq!(folder.read("a.csv").lines().count(), 3_001);
}

#[test]
fn what_makes_no_sense_is_overwritten_unread() {
    let folder = sqlite(1_000);
    interrupt(begun(&folder, &["--to", "a.csv"]));
    folder.write("a.csv.export/job.json", "{");
    export(&folder, &["--to", "a.csv", "--resume"], 1, "add --overwrite");
    export(&folder, &["--to", "a.csv", "--overwrite"], 0, "exported 1,000 rows");
}

#[test]
#[ignore = "needs DuckDB; run by cargo xtask test"]
fn parquet_that_is_killed_goes_on_in_the_middle() {
    let folder = sqlite(20_000);
    let what = ["--to", "a.parquet", "--page-rows", "1"];
    let part = folder.path().join("a.parquet.export/part-0000.parquet");
    let length = || fs::metadata(&part).map_or(0, |metadata| metadata.len());
    let mut more: &[&str] = &["--rate", "4000"];
    for _ in 0..2 {
        // Each page is a batch, of which a sink has about a thousand before it commits them. Once it
        // writes for a second time, the first is safe.
        let (program, before) = (start(&folder, &[&what[..], more].concat()), length());
        wait_for("two commits", DEADLINE, || (length() > before + 150_000).then_some(()));
        program.kill();
        more = &["--resume", "--rate", "4000"];
    }
    let ended = export(&folder, &[&what[..], &["--resume"]].concat(), 0, "exported");
    let said = ended.stderr.rsplit("exported ").next().unwrap();
    let rest: usize = said.split(' ').next().unwrap().replace(',', "").parse().unwrap();
    assert!((1..=18_000).contains(&rest), "{rest}");
    let expected = rows::of_sqlite(&folder.path().join("app.db"), "SELECT * FROM t ORDER BY id");
    assert!(rows::of_parquet(&folder.path().join("a.parquet")).rows == expected.rows);
}

#[test]
fn a_folder_of_another_file_system_is_refused_before_anything_is_read() {
    let folder = sqlite(10);
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let shared = Path::new("/dev/shm");
    if device(shared).is_none_or(|shared| device(folder.path()) == Some(shared)) {
        return;
    }
    let Ok(other) = tempfile::tempdir_in(shared) else { return };
    symlink(other.path(), folder.path().join("link")).unwrap();
    export(&folder, &["--to", "link/"], 2, "--to link/NAME/");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing has begun");
    export(&folder, &["--to", "link/all/"], 0, "exported 10 rows");
    assert_eq!(fs::read_dir(other.path().join("all")).unwrap().count(), 1);
}

#[test]
fn there_are_no_more_ranges_than_rows_a_second() {
    let folder = sqlite(3_000);
    let found = || {
        let job = folder.read("a.csv.export/job.json");
        let job: serde_json::Value = serde_json::from_str(&job).ok()?;
        Some(job["ranges"].as_array()?.len())
    };
    for (rate, ranges) in [("4", 4), ("100", 8)] {
        let what = ["--to", "a.csv", "--workers", "8", "--overwrite", "--rate", rate];
        let program = start(&folder, &what);
        wait_for("so many ranges", DEADLINE, || (found() == Some(ranges)).then_some(()));
        interrupt(program);
    }
    export(&folder, &["--to", "a.csv", "--rate", "7", "--resume"], 2, "--rate 8");
    export(&folder, &["--to", "a.csv", "--resume"], 0, "exported");
}
