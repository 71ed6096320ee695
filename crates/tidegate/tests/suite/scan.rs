//! `tidegate scan` as people call it: against what grep and plain counting say, and what it does
//! where files, pipes and queries are not as they should be.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tidegate_testkit::process::{Ended, Program};

use crate::support::{DEADLINE, Folder, TIDEGATE};

const WORDS: [&str; 5] = ["ERROR", "INFO", "WARN", "DEBUG", "TRACE"];

/// Lines of very different length, some with CRLF, some no UTF-8.
fn text(seed: u64, lines: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut text = Vec::new();
    for line in 0..lines {
        let word = WORDS[random.usize(..WORDS.len())];
        let filler = "x".repeat(random.usize(..200));
        text.extend(format!("2026-11-25 10:00:00 {word} line {line} {filler}").into_bytes());
        if random.u8(..10) == 0 {
            text.extend(b"\xff\xfe");
        }
        text.extend_from_slice(if random.bool() { b"\n" } else { b"\r\n" });
    }
    text
}

/// Twelve files of very different size in folders, and all their lines in order.
fn logs() -> (Folder, Vec<String>) {
    let folder = Folder::new();
    let mut all = Vec::new();
    for (index, name) in
        ["a/x", "a/y", "b", "c/d/e", "c/d/f", "g", "h", "i", "j", "k", "l", "m"].iter().enumerate()
    {
        let lines = if index % 3 == 0 { 12_000 } else { 7 };
        let text = text(index as u64, lines);
        let path = folder.path().join(format!("{name}.log"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &text).unwrap();
        all.extend(
            text.split_inclusive(|byte| *byte == b'\n').map(|line| {
                String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).to_owned()
            }),
        );
    }
    (folder, all)
}

fn scan(folder: &Folder, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Ended { status, stdout, stderr } = folder.run(&[&["scan"], arguments].concat());
    (status.code(), stdout, stderr)
}

/// What it prints, where all is well.
fn printed(folder: &Folder, arguments: &[&str]) -> String {
    let (code, out, said) = scan(folder, arguments);
    assert_eq!((code, &*said), (Some(0), ""), "{arguments:?}");
    out
}

fn shell(folder: &Folder, script: &str) -> Ended {
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(folder.path()).env("TIDEGATE", TIDEGATE);
    Program::of(command).ended(DEADLINE)
}

#[test]
fn rows_come_in_the_order_of_files_however_many_threads_there_are() {
    let (folder, all) = logs();
    for threads in ["1", "2", "5", "16"] {
        let out = printed(&folder, &[".", "--threads", threads]);
        assert!(out.lines().eq(&all), "{threads} threads");
        let errors = ["--where", "message LIKE '%ERROR%'", "--threads", threads];
        let out = printed(&folder, &[&["."], &errors[..]].concat());
        assert!(out.lines().eq(all.iter().filter(|line| line.contains("ERROR"))));
    }
}

#[test]
fn it_finds_what_grep_finds_and_counts_it() {
    let (folder, all) = logs();
    for (condition, grep) in [
        ("message LIKE '%ERROR%'", "grep -a ERROR"),
        ("message LIKE '%ERROR%' OR message LIKE '%WARN%'", "grep -a -e ERROR -e WARN"),
        ("message ~ 'line [0-9]*7 '", "grep -a -E 'line [0-9]*7 '"),
        ("message NOT LIKE '%INFO%'", "grep -a -v INFO"),
        ("message LIKE '%nobody says this%'", "grep -a 'nobody says this'"),
        ("message LIKE '%ERROR%' AND message LIKE '%1%'", "grep -a ERROR | grep -a 1"),
    ] {
        let script = format!("LC_ALL=C; cat $(find . -name '*.log' | sort) | {grep} | wc -l");
        let expected = shell(&folder, &script).stdout.trim().to_owned();
        for threads in ["1", "3"] {
            let arguments = [".", "--count", "--where", condition, "--threads", threads];
            assert_eq!(printed(&folder, &arguments).trim(), expected, "{condition}");
        }
    }
    assert_eq!(printed(&folder, &[".", "--count"]).trim(), all.len().to_string());
    assert_eq!(
        printed(&folder, &[".", "--count", "--format", "ndjson"]),
        format!("{{\"count\":{}}}\n", all.len())
    );
}

#[test]
fn groups_are_counted_exactly() {
    let (folder, all) = logs();
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &all {
        let word = WORDS.iter().find(|word| line.contains(**word)).unwrap();
        *expected.entry(word).or_default() += 1;
    }
    let out = printed(&folder, &[".", "--by", "level", "--threads", "3", "--format", "ndjson"]);
    let mut lines: Vec<_> = expected.iter().map(|(word, count)| (*count, *word)).collect();
    lines.sort_by_key(|(count, word)| (std::cmp::Reverse(*count), *word));
    let mut wanted = String::new();
    for (count, word) in lines {
        writeln!(wanted, "{{\"level\":\"{word}\",\"count\":{count}}}").unwrap();
    }
    assert_eq!(out, wanted);
    let top = printed(&folder, &["b.log", "--by", "octet_length(message) > 0", "--limit", "1"]);
    assert_eq!(top, "count  octet_length(message) > 0\n    7  true\n");
}

#[test]
fn standard_input_is_read_where_nothing_or_a_dash_is_named() {
    let folder = Folder::new();
    folder.write("a.log", "ERROR one\nINFO two\nERROR three");
    for script in [
        "$TIDEGATE scan --where \"message LIKE '%ERROR%'\" < a.log",
        "cat a.log | $TIDEGATE scan - --where \"message LIKE '%ERROR%'\"",
    ] {
        let ended = shell(&folder, script);
        assert_eq!((&*ended.stdout, &*ended.stderr), ("ERROR one\nERROR three\n", ""), "{script}");
    }
    folder.write("b.log", "four\n");
    // Rows of a file of that name say the same of where they are from.
    folder.write("stdin", "five\n");
    for threads in 1..5 {
        let script = format!("echo piped | $TIDEGATE scan a.log - b.log stdin --threads {threads}");
        let expected = "piped\nERROR one\nINFO two\nERROR three\nfour\nfive\n";
        assert_eq!(shell(&folder, &script).stdout, expected, "{threads} threads");
        assert_eq!(shell(&folder, &format!("{script} --count")).stdout, "6\n");
    }
    let ended = shell(&folder, "$TIDEGATE scan --count < /dev/null");
    assert_eq!((&*ended.stdout, &*ended.stderr), ("0\n", ""));
}

#[test]
fn what_can_not_be_read_is_told_at_the_end_and_the_rest_is_done() {
    let (folder, all) = logs();
    symlink("nowhere", folder.path().join("lost.log")).unwrap();
    symlink("circle.log", folder.path().join("circle.log")).unwrap();
    folder.write("old.log.gz", "x");
    folder.fifo("pipe");
    let paths = [".", "gone.log", "old.log.gz", "pipe", "none/**/*.log"];
    for threads in ["1", "4"] {
        let arguments = [&paths[..], &["--count", "--threads", threads]].concat();
        let (code, out, said) = scan(&folder, &arguments);
        assert_eq!((code, out.trim()), (Some(1), &*all.len().to_string()), "{said}");
        for expected in [
            "error: can't read ./circle.log: ",
            "error: can't read ./lost.log: there is no such file\n",
            "error: can't read gone.log: there is no such file\n",
            "error: can't read none/**/*.log: no file matches\n",
            "error: can't read old.log.gz: it is compressed, unpack it first\n",
            "error: can't read pipe: it is neither a file nor a directory",
        ] {
            assert!(said.contains(expected), "{expected} is missing in {said}");
        }
        assert_eq!(said.lines().count(), 6, "{said}");
    }
    let (code, out, said) = scan(&folder, &["gone.log", "--count"]);
    assert_eq!((code, &*out), (Some(1), ""), "{said}");
}

#[test]
fn a_limit_stops_early_and_a_closed_pipe_is_a_success() {
    let (folder, all) = logs();
    for threads in ["1", "4"] {
        let out = printed(&folder, &[".", "--limit", "12005", "--threads", threads]);
        assert!(out.lines().eq(&all[..12_005]), "{threads} threads");
        let out = printed(&folder, &[".", "--count", "--limit", "12005", "--threads", threads]);
        assert_eq!(out, "12005\n");
        let script =
            format!("$TIDEGATE scan . --threads {threads} | head -n 3; echo ${{PIPESTATUS[0]}}");
        let ended = shell(&folder, &script);
        assert_eq!((ended.stdout.lines().last(), &*ended.stderr), (Some("0"), ""));
        assert!(ended.stdout.lines().take(3).eq(&all[..3]));
    }
    // Nobody would ever end this input.
    let ended = shell(&folder, "yes | $TIDEGATE scan --limit 2");
    assert_eq!((&*ended.stdout, &*ended.stderr), ("y\ny\n", ""));
}

#[test]
fn rows_are_printed_as_text_or_json() {
    let folder = Folder::new();
    folder.write(
        "a.log",
        "2026-11-25 10:00:00 WARN disk \"full\"\n{\"level\":\"error\",\"msg\":\"no\"}\n",
    );
    let selected = ["a.log", "--select", "level, message"];
    assert_eq!(
        printed(&folder, &selected),
        "{\"level\":\"WARN\",\"message\":\"2026-11-25 10:00:00 WARN disk \\\"full\\\"\"}\n\
         {\"level\":\"error\",\"message\":\"no\"}\n"
    );
    let joined = ["a.log", "--select", "level || '!'", "--where", "severity >= severity('error')"];
    assert_eq!(printed(&folder, &joined), "error!\n");
    // The line is the message, whatever is in it, unless somebody asks for more.
    let plain = ["a.log", "--where", "message LIKE '%{%'"];
    assert_eq!(printed(&folder, &plain), "{\"level\":\"error\",\"msg\":\"no\"}\n");
    let (code, _, said) = scan(&folder, &[&selected[..], &["--format", "text"]].concat());
    assert!(code == Some(2) && said.contains("--format: text is for one column"), "{said}");
}

#[test]
fn wrong_queries_are_shown_where_they_are_wrong_and_nothing_is_read() {
    let folder = Folder::new();
    folder.write("a.log", "x\n");
    for (arguments, words) in [
        (vec!["--where", "mesage = 'x'"], vec!["--where:1:1", "did you mean `message`?"]),
        (vec!["--where", "message"], vec!["--where:1:", "compare it with something"]),
        (vec!["--where", "message = 'x"], vec!["--where"]),
        (vec!["--where", "true", "--by", "lenght(message)"], vec!["--by:1:1", "`length`?"]),
        (vec!["--select", "message, nope"], vec!["--select:1:10", "no column `nope`"]),
        (vec!["--select", "message,, source"], vec!["--select"]),
        (vec!["--where", "message = 'x' -- and so on", "--count"], vec![]),
        (vec!["--where", "CAST('x' AS INT) = 1"], vec!["--where"]),
        (vec!["--count", "--select", "message"], vec!["cannot be used with"]),
        (vec!["--threads", "0"], vec!["--threads"]),
        (vec!["--threads", "1000000"], vec!["--threads", "1..=64"]),
        (vec!["--where", "-1"], vec!["--where:1:", "compare it with something"]),
        (vec!["--by", "level", "--codec", "text"], vec!["--codec: text finds no level"]),
        (vec!["--select", "message AS _scanned_file"], vec!["--select: the name"]),
        (vec!["--ext", ""], vec!["--ext: there is nothing in it"]),
        (vec!["--codec", "xml"], vec!["possible values: text, auto"]),
    ] {
        let (code, out, said) = scan(&folder, &[&["a.log"], &arguments[..]].concat());
        let fine = words.is_empty();
        assert_eq!(code, Some(if fine { 0 } else { 2 }), "{arguments:?}: {said}");
        assert!(fine || out.is_empty(), "{out}");
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
}

#[test]
fn rows_that_can_not_be_worked_out_and_lines_too_long_are_told() {
    let folder = Folder::new();
    folder.write("a.log", format!("1\n{}\ntwo\n3\n", "x".repeat(3 << 20)));
    let (code, out, said) = scan(&folder, &["a.log", "--where", "CAST(message AS INT) > 0"]);
    assert_eq!((code, &*out), (Some(1), "1\n3\n"), "{said}");
    assert!(said.contains("error: lines longer than 1 MiB were left out: 1\n"), "{said}");
    let rejects = "warning: rows left out, as the SQL can't be worked out for them: 1; the first: \
                   where: cannot cast string 'two' to ";
    assert!(said.contains(rejects), "{said}");
}

#[test]
fn nothing_is_left_behind() {
    let folder = Folder::new();
    folder.write("a.log", "x\n");
    assert_eq!(printed(&folder, &["."]), "x\n");
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["a.log"]);
}

#[test]
fn files_with_names_that_are_no_text_are_told_apart() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    for (name, text) in [(&b"a\xfe.log"[..], "one\n"), (b"a\xff.log", "two\n")] {
        fs::write(folder.path().join(OsStr::from_bytes(name)), text).unwrap();
    }
    for threads in ["1", "2"] {
        assert_eq!(printed(&folder, &[".", "--threads", threads]), "one\ntwo\n");
    }
}

#[test]
fn files_that_are_not_as_big_as_they_say_are_read_to_their_end() {
    let folder = Folder::new();
    // What the system makes up while it is read has no size, or a page's.
    let made_up = ["/proc/self/limits", "/proc/kallsyms", "/sys/kernel/mm/lru_gen/enabled"];
    for path in made_up.iter().filter(|path| Path::new(path).exists()) {
        let expected = shell(&folder, &format!("cat {path} | wc -l")).stdout;
        assert_eq!(printed(&folder, &[path, "--count"]).trim(), expected.trim(), "{path}");
    }
    folder.write("empty.log", "");
    assert_eq!(printed(&folder, &["empty.log", "--count"]), "0\n");
}

#[test]
fn output_that_can_not_be_written_ends_it() {
    let folder = Folder::new();
    folder.write("a.log", "x\n".repeat(100_000));
    for option in ["", "--count", "--by message"] {
        let ended = shell(&folder, &format!("$TIDEGATE scan a.log nope.log {option} > /dev/full"));
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains("error: can't read nope.log: there is no such file"));
        assert!(ended.stderr.contains("write to the standard output"), "{ended:?}");
    }
    // It would have no end.
    let ended = shell(&folder, "$TIDEGATE scan . >> a.log");
    assert!(ended.stderr.contains("can't read ./a.log: what is printed goes there"), "{ended:?}");
    assert_eq!(folder.read("a.log").lines().count(), 100_000);
}

#[test]
fn patterns_and_ends_of_names_are_taken_as_people_write_them() {
    let folder = Folder::new();
    for name in ["a.log", "b.log.1", "c.txt", ".hidden.log", "syslog"] {
        folder.write(name, format!("{name}\n"));
    }
    symlink(".", folder.path().join("one")).unwrap();
    symlink(".", folder.path().join("two")).unwrap();
    for (arguments, files) in [
        (vec!["**/*.log"], vec!["a.log"]),
        (vec!["**"], vec!["a.log", "b.log.1", "c.txt", "syslog"]),
        (vec!["[a-b].*"], vec!["a.log", "b.log.1"]),
        (vec![".", "--ext", "log.1"], vec!["b.log.1"]),
        (vec![".", "--ext", "*.log,.txt"], vec!["a.log", "b.log.1", "c.txt"]),
        (vec![".", "--ext", "*"], vec!["a.log", "b.log.1", "c.txt", "syslog"]),
    ] {
        let out = printed(&folder, &arguments);
        assert!(out.lines().eq(files), "{arguments:?}: {out}");
    }
}

#[test]
fn it_can_be_stopped_while_nobody_reads_what_it_prints() {
    let folder = Folder::new();
    folder.write("a.log", "x\n".repeat(2_000_000));
    folder.fifo("pipe");
    // The reader opens the pipe and reads nothing.
    let script = "sleep infinity < pipe & $TIDEGATE scan a.log > pipe & scan=$!; \
                  until grep -q 'wchar: [1-9]' /proc/$scan/io; do :; done; \
                  kill -INT $scan; wait $scan; echo $?; kill %1";
    let ended = shell(&folder, script);
    assert_eq!(ended.stdout.trim(), "1", "{ended:?}");
    assert_eq!(ended.stderr.trim(), "error: stopped before the end: the rest was not read");
}
