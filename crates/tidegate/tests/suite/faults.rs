//! What is odd, huge, missing, full or tampered with: each has its outcome, its words and its exit
//! code.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use tidegate_testkit::process::{Program, wait_for};

use crate::support::{DEADLINE, Folder, TIDEGATE};

/// A file to a file, as text.
fn copy(include: &str, path: &str) -> String {
    format!(
        "data_dir = \"state\"\n[sources.app]\ntype = \"file\"\ninclude = [\"{include}\"]\n\
         [sinks.out]\ntype = \"file\"\ninputs = [\"app\"]\npath = \"{path}\"\ncodec = \"text\"\n"
    )
}

const ONCE: [&str; 3] = ["run", "--once", "pipeline.toml"];

#[test]
fn odd_text_comes_out_as_lines() {
    let folder = Folder::new();
    folder.write("pipeline.toml", copy("in.log", "out.log"));
    folder
        .write("in.log", b"crlf\r\nnul \0 in it\n\ninvalid \xff\xfe here\r\n\rnot an end\nno end");
    let ended = folder.run(&ONCE);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let expected = "crlf\nnul \0 in it\n\ninvalid \u{fffd}\u{fffd} here\n\rnot an end\nno end\n";
    assert_eq!(folder.read("out.log"), expected);
}

#[test]
fn an_empty_file_is_nothing_and_no_failure() {
    let folder = Folder::new();
    folder.write("pipeline.toml", copy("in.log", "out.log"));
    folder.write("in.log", "");
    assert_eq!(folder.run(&ONCE).code(), Some(0));
    assert_eq!(folder.read("out.log"), "");
}

#[test]
fn a_line_of_100_mb_is_left_out_named_and_counted() {
    let folder = Folder::new();
    folder.write("pipeline.toml", copy("in.log", "out.log"));
    let mut log = File::create(folder.path().join("in.log")).unwrap();
    log.write_all(b"before\n").unwrap();
    for _ in 0..100 {
        log.write_all(&vec![b'x'; 1_000_000]).unwrap();
    }
    log.write_all(b"\nafter\n").unwrap();
    let ended = folder.run(&ONCE);
    assert_eq!((ended.code(), &*folder.read("out.log")), (Some(0), "before\nafter\n"));
    assert!(ended.stderr.contains("1 refused"), "{}", ended.stderr);
    for named in ["in.log", "100000001", "line_bytes_max"] {
        assert!(ended.stderr.contains(named), "{named} is not in: {}", ended.stderr);
    }
}

#[test]
fn what_can_not_be_read_is_named_and_the_rest_is_read() {
    let folder = Folder::new();
    folder.write("pipeline.toml", copy("logs/*.log", "out.log"));
    fs::create_dir_all(folder.path().join("logs/folder.log")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("logs/dangling.log")).unwrap();
    folder.write("logs/good.log", "good\n");
    let ended = folder.run(&ONCE);
    assert_eq!((ended.code(), &*folder.read("out.log")), (Some(1), "good\n"), "{ended:?}");
    assert!(ended.stderr.contains("sources.app: include: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("logs/dangling.log"), "{}", ended.stderr);

    folder.write("pipeline.toml", copy("nothing-like-it-*.log", "out.log"));
    let ended = folder.run(&ONCE);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("nothing-like-it-*.log"), "{}", ended.stderr);
}

#[test]
fn a_directory_in_place_of_the_output_or_no_folder_for_it() {
    for path in [".", "no/such/folder/out.log"] {
        let folder = Folder::new();
        folder.write("pipeline.toml", copy("in.log", path));
        folder.write("in.log", "one\n");
        let ended = folder.run(&ONCE);
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains("sinks.out: path: "), "{}", ended.stderr);
    }
}

#[test]
fn an_output_that_was_cut_behind_our_back_stops_the_start_by_name() {
    let folder = Folder::new();
    folder.write("pipeline.toml", copy("in.log", "out.log"));
    folder.write("in.log", "one\ntwo\n");
    assert_eq!(folder.run(&ONCE).code(), Some(0));
    folder.write("out.log", "one\n");
    let ended = folder.run(&ONCE);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("out.log") && ended.stderr.contains('8'), "{}", ended.stderr);
    fs::remove_file(folder.path().join("out.log")).unwrap();
    let ended = folder.run(&ONCE);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
}

#[test]
fn state_that_was_deleted_means_to_begin_anew() {
    let folder = Folder::new();
    folder.write("pipeline.toml", copy("in.log", "out.log"));
    folder.write("in.log", "one\ntwo\n");
    assert_eq!(folder.run(&ONCE).code(), Some(0));
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    assert_eq!(folder.run(&ONCE).code(), Some(0));
    assert_eq!(folder.read("out.log"), "one\ntwo\none\ntwo\n", "what is there stays");
    assert!(folder.run(&ONCE).stderr.contains("nothing new"));
}

#[test]
fn a_damaged_store_is_named_with_what_to_do() {
    let folder = Folder::new();
    folder.write("pipeline.toml", copy("in.log", "out.log"));
    folder.write("in.log", "one\n");
    assert_eq!(folder.run(&ONCE).code(), Some(0));
    folder.write("state/positions.redb", "no store");
    let ended = folder.run(&ONCE);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("put it aside"), "{}", ended.stderr);
}

#[test]
fn a_second_process_on_the_same_state_is_told_which_is_first() {
    let folder = Folder::new();
    folder.write("pipeline.toml", copy("in.log", "out.log"));
    folder.write("in.log", "one\n");
    let first = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
    wait_for("the first one", DEADLINE, || (folder.read("out.log") == "one\n").then_some(()));
    let ended = folder.run(&ONCE);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&format!("in use by process {}", first.id())), "{ended:?}");
}

/// A file system of one MiB that is really full.
struct Full<'f>(&'f Folder);

impl<'f> Full<'f> {
    fn mount(folder: &'f Folder, size: &str) -> Self {
        fs::create_dir(folder.path().join("small")).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs", "small"]).current_dir(folder.path());
        assert!(mount.status().unwrap().success(), "mounting needs root");
        Self(folder)
    }
}

impl Drop for Full<'_> {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        let _ = unmount.args(["-l", "small"]).current_dir(self.0.path()).status();
    }
}

/// Fills the small disk, sees the program wait for it by name, makes room, and sees it go on.
#[test]
#[ignore = "mounts a small file system, which needs root"]
fn a_disk_that_is_full_at_the_sink_is_waited_for() {
    let folder = Folder::new();
    let small = Full::mount(&folder, "2m");
    folder.write("pipeline.toml", copy("in.log", "small/out.log"));
    folder.write("small/filler", vec![0; 1_400_000]);
    let lines: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
    folder.write("in.log", &lines);
    let mut program = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
    wait_for("it to notice", DEADLINE, || program.stderr().contains("trying again").then_some(()));
    assert!(program.is_running());
    fs::remove_file(folder.path().join("small/filler")).unwrap();
    let out = "small/out.log";
    wait_for("all lines", DEADLINE, || (folder.read(out) == lines).then_some(()));
    program.signal("TERM");
    let ended = program.ended(DEADLINE);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("No space left"), "{}", ended.stderr);
    let ended = folder.run(&ONCE);
    assert!(ended.stderr.contains("nothing new"), "{ended:?}");
    assert_eq!(folder.read(out), lines);
    drop(small);
}

#[test]
#[ignore = "mounts a small file system, which needs root"]
fn a_disk_that_is_full_at_the_state_is_waited_for() {
    let folder = Folder::new();
    let small = Full::mount(&folder, "8m");
    let config = copy("in.log", "out.log").replace("\"state\"", "\"small/state\"");
    folder.write("pipeline.toml", config);
    folder.write("in.log", "");
    let mut program = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
    let mut log = File::options().append(true).open(folder.path().join("in.log")).unwrap();
    let mut lines = String::new();
    let mut add = |lines: &mut String| {
        let line = format!("line {}\n", lines.len());
        log.write_all(line.as_bytes()).unwrap();
        lines.push_str(&line);
    };
    add(&mut lines);
    wait_for("the first line", DEADLINE, || (folder.read("out.log") == lines).then_some(()));
    let mut filler = File::create(folder.path().join("small/filler")).unwrap();
    while filler.write_all(&[0; 4_096]).is_ok() {}
    wait_for("it to notice", DEADLINE, || {
        add(&mut lines); // each commit takes a little of what the store has left
        program.stderr().contains("trying again").then_some(())
    });
    assert!(program.is_running());
    drop(filler);
    fs::remove_file(folder.path().join("small/filler")).unwrap();
    wait_for("all lines", DEADLINE, || (folder.read("out.log") == lines).then_some(()));
    program.signal("TERM");
    let ended = program.ended(DEADLINE);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(folder.run(&ONCE).stderr.contains("nothing new"));
    assert_eq!(folder.read("out.log"), lines);
    drop(small);
}
