//! The file source on what files hold: odd text, long lines, many files, unreadable ones.

use std::fs::{self, File};
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures::StreamExt;
use tidegate_components::sources::SOURCES;
use tidegate_components::sources::file::{Unread, files};
use tidegate_model::{ErrorKind, OFFSET, Settings};

#[cfg(target_os = "linux")]
use super::support::open_logs;
use super::support::{Probe, columns};

fn include(path: &Path) -> String {
    format!("include = [{:?}]\n", path.display().to_string())
}

/// The messages of a file with this content, read once.
async fn lines(content: &[u8]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    fs::write(&path, content).unwrap();
    let mut probe = Probe::once("file", include(&path));
    probe.drain().await.unwrap();
    assert_eq!(probe.expected.get(), content.len() as u64);
    assert!(probe.rows.iter().all(|row| row.source == path.to_str().unwrap()));
    assert_eq!(probe.budget.usage().used, 0, "all is given back");
    let rows = probe.messages();

    probe.drain().await.unwrap();
    assert_eq!(probe.messages(), [""; 0], "there is nothing new");
    rows
}

#[tokio::test]
async fn odd_text_comes_as_it_is() {
    assert_eq!(lines(b"").await, [""; 0]);
    assert_eq!(lines(b"\n").await, [""]);
    assert_eq!(lines(b"one\ntwo").await, ["one", "two"]);
    assert_eq!(lines(b"one\r\n\r\ntwo\r\n").await, ["one", "", "two"]);
    assert_eq!(lines(b"a\0b, with NUL inside\n\0\n").await, ["a\0b, with NUL inside", "\0"]);
    assert_eq!(lines("größer\n日本語\n".as_bytes()).await, ["größer", "日本語"]);
    let repaired = lines(b"good and long enough\nb\xffd and long enough\n\xc3\n").await;
    assert_eq!(repaired, ["good and long enough", "b\u{fffd}d and long enough", "\u{fffd}"]);
}

#[tokio::test]
async fn a_line_of_100_mb_is_left_out_and_needs_no_100_mb() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let size = 100 << 20;
    let file = File::create(&path).unwrap();
    file.write_all_at(b"before\n", 0).unwrap();
    file.write_all_at(b"\nafter\n", size).unwrap();
    let mut probe = Probe::once("file", include(&path));
    probe.drain().await.unwrap();
    assert_eq!(probe.messages(), ["before", "after"]);
    assert_eq!(probe.refused, 1);
    let peak = probe.budget.usage().peak;
    assert!(peak <= 4 << 20, "{peak} bytes were held");
}

#[tokio::test]
async fn a_line_that_is_longer_than_a_batch_comes_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let long = "x".repeat(300_000);
    fs::write(&path, format!("a\n{long}\nb\nc\n{long}y\nd")).unwrap();
    let settings = include(&path) + "line_bytes_max = 300_000";
    let mut probe = Probe { bytes_max: 10_000, ..Probe::once("file", settings) };
    probe.drain().await.unwrap();
    assert_eq!(probe.messages(), ["a", &long, "b", "c", "d"]);
    assert_eq!(probe.refused, 1);
}

#[tokio::test(start_paused = true)]
async fn a_line_waits_until_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let mut file = File::create(&path).unwrap();
    let mut probe = Probe::follow("file", include(&path));
    let mut stream = probe.open().await;
    for (written, lines) in [
        ("one\ntw", &["one"][..]),
        ("", &[]),
        ("o", &[]),
        ("\n", &["two"]),
        ("three\r", &[]),
        ("\nfour\n", &["three", "four"]),
    ] {
        file.write_all(written.as_bytes()).unwrap();
        probe.settle(&mut stream).await;
        assert_eq!(probe.messages(), lines, "after {written:?}");
        assert_eq!(probe.budget.usage().used, 0, "nothing is held while there is nothing to read");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_line_that_grows_slowly_is_passed_over_even_if_reading_stops_within() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let mut file = File::create(&path).unwrap();
    let mut probe = Probe::follow("file", include(&path) + "line_bytes_max = \"100KiB\"");
    for round in 0..4 {
        let mut stream = probe.open().await;
        file.write_all(&b"0123456789".repeat(5_000)).unwrap();
        probe.settle(&mut stream).await;
        assert_eq!((probe.messages(), probe.refused), (vec![], 0), "round {round}");
    }
    let mut stream = probe.open().await;
    file.write_all(b"\nnext\n").unwrap();
    probe.settle(&mut stream).await;
    assert_eq!((probe.messages(), probe.refused), (vec!["next".to_owned()], 1));
}

#[tokio::test]
async fn only_the_columns_asked_for_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    fs::write(&path, "one\ntwo and more of it\n").unwrap();
    for names in [
        &["timestamp", "severity", "level", "source", "message", "metadata", OFFSET][..],
        &["timestamp", "metadata"],
        &["level"],
        &[OFFSET],
        &[],
    ] {
        let mut probe = Probe { columns: columns(names), ..Probe::once("file", include(&path)) };
        probe.drain().await.unwrap();
        assert_eq!(probe.rows.len(), 2, "{names:?}");
        assert_eq!(probe.budget.usage().used, 0, "{names:?}");
    }
}

#[tokio::test]
async fn a_thousand_files_are_read_in_order_of_path_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for number in 0..1_000 {
        let name = format!("{number:04}.log");
        fs::write(folder.path().join(&name), format!("{name} 1\n{name} 2\n")).unwrap();
        expected.extend([format!("{name} 1"), format!("{name} 2")]);
    }
    let mut probe = Probe::once("file", include(folder.path()));
    probe.drain().await.unwrap();
    assert_eq!(probe.messages(), expected);
    assert_eq!(probe.positions.len(), 1_000);
    assert_eq!(probe.expected.get(), 22_000);
    // Small files are read together, as many as fit a chunk.
    let peak = probe.budget.usage().peak;
    assert!((500 << 10..=2 << 20).contains(&peak), "{peak} bytes were held");
}

/// Big ones, of which a turn reads a part, among small ones, of which a turn reads many.
#[tokio::test]
async fn all_that_is_listed_is_read_in_order_and_what_cannot_be_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = |number: usize| folder.path().join(format!("{number:03}.log"));
    let lines = |number: usize| match number {
        10 | 11 | 199 => 40_000,
        number if number % 7 == 0 => 0,
        number => number,
    };
    let none = folder.path().join("none.log");
    let (mut listed, mut expected, mut bytes) = (vec![none.clone()], Vec::new(), 0);
    for number in 0..200 {
        let text = format!("{}\n", "x".repeat(150)).repeat(lines(number)) + "the end";
        let text = if lines(number) == 0 { "" } else { &text };
        fs::write(path(number), text).unwrap();
        listed.push(path(number));
        bytes += text.len() as u64;
        if !text.is_empty() {
            expected.push((path(number).display().to_string(), lines(number) + 1));
        }
    }
    listed.reverse();
    let unread = Unread::default();
    let mut probe = Probe::once("file", "");
    let mut stream = probe.open_source(files(listed, None, unread.clone()).unwrap()).await;
    while let Some(batch) = stream.next().await {
        probe.take(&batch.unwrap());
    }
    let mut read: Vec<(String, usize)> = Vec::new();
    for row in &probe.rows {
        match read.last_mut() {
            Some((source, lines)) if *source == row.source => *lines += 1,
            _ => read.push((row.source.clone(), 1)),
        }
    }
    assert_eq!(read, expected);
    assert_eq!(probe.expected.get(), bytes);
    assert_eq!(unread.take(), [(none, "there is no such file".to_owned())]);
}

#[tokio::test]
async fn a_last_line_that_was_completed_since_the_file_was_opened_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("1.log"), folder.path().join("2.log"));
    fs::write(&first, format!("{}\n", "x".repeat(99)).repeat(20_000)).unwrap();
    fs::write(&second, "one\npart").unwrap();
    let mut probe = Probe::once("file", "");
    let listed = vec![first, second.clone()];
    let mut stream = probe.open_source(files(listed, None, Unread::default()).unwrap()).await;
    probe.take(&stream.next().await.unwrap().unwrap());
    // The second one was opened ahead.
    File::options().append(true).open(&second).unwrap().write_all(b"ial\ntwo\nend").unwrap();
    while let Some(batch) = stream.next().await {
        probe.take(&batch.unwrap());
    }
    let read = probe.messages();
    assert_eq!(read[read.len() - 4..], ["one", "partial", "two", "end"]);
}

#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn no_more_files_are_open_than_allowed_and_all_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |number: usize| folder.path().join(format!("{number}.log"));
    let append = |number: usize, line: &str| {
        let file = File::options().create(true).append(true).open(path(number));
        file.unwrap().write_all(line.as_bytes()).unwrap();
    };
    (0..50).for_each(|number| append(number, "first\n"));
    let mut probe = Probe::follow("file", include(folder.path()) + "files_open_max = 4");
    let mut stream = probe.open().await;
    for round in 0..3 {
        probe.settle(&mut stream).await;
        assert_eq!(probe.messages().len(), 50, "round {round}");
        assert_eq!(open_logs(folder.path()), 4, "round {round}");
        (0..50).for_each(|number| append(number, "more\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn files_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.log", "b.log", "c.log"] {
        fs::write(folder.path().join(name), format!("{name}, a line\n").repeat(10_000)).unwrap();
    }
    let mut probe = Probe { rows_max: 100, ..Probe::follow("file", include(folder.path())) };
    let mut stream = probe.open().await;
    for round in 0..20 {
        for _ in 0..3 {
            let batch = stream.next().await.unwrap().unwrap();
            probe.take(&batch);
        }
        let mut given: Vec<String> = probe.messages();
        given.dedup();
        given.sort();
        assert_eq!(given, ["a.log, a line", "b.log, a line", "c.log, a line"], "round {round}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_named_after_the_rest_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("good.log"), "good\n").unwrap();
    fs::create_dir(path("empty")).unwrap();
    symlink("nowhere", path("dangling.log")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    for (name, cause) in [
        ("dangling.log", "No such file"),
        ("good.log/within", "Not a directory"),
        ("socket", "neither a file nor a directory"),
        ("empty", "nothing matches"),
        ("*.none", "nothing matches"),
    ] {
        let both = [path(name), path("good.log")].map(|path| path.display().to_string());
        let mut probe = Probe::once("file", format!("include = {both:?}"));
        let error = probe.drain().await.unwrap_err();
        assert_eq!((error.kind(), probe.messages()), (ErrorKind::Fatal, vec!["good".to_owned()]));
        let said = error.to_string();
        assert!(said.contains(name) && said.contains(cause), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_without_permission_is_named_and_read_once_it_is_granted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    fs::write(&path, "secret\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&path).is_ok() {
        eprintln!("left out: permissions don't bind this user");
        return;
    }
    let error = Probe::once("file", include(&path)).drain().await.unwrap_err();
    assert!(error.to_string().contains("denied"), "{error}");
    let mut probe = Probe::follow("file", include(&path));
    let mut stream = probe.open().await;
    probe.settle(&mut stream).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    probe.settle(&mut stream).await;
    assert_eq!(probe.messages(), ["secret"]);
}

#[tokio::test(start_paused = true)]
async fn files_that_appear_later_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut probe = Probe::follow("file", include(&folder.path().join("*.log")));
    let mut stream = probe.open().await;
    probe.settle(&mut stream).await;
    fs::write(folder.path().join("a.log"), "here\n").unwrap();
    symlink("nowhere", folder.path().join("b.log")).unwrap();
    probe.settle(&mut stream).await;
    assert_eq!(probe.messages(), ["here"]);
    fs::write(folder.path().join("nowhere"), "now somewhere\n").unwrap();
    probe.settle(&mut stream).await;
    assert_eq!(probe.messages(), ["now somewhere"]);
}

#[tokio::test(start_paused = true)]
async fn from_the_end_what_was_there_is_left_out_and_later_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.log"), "old\nincomp").unwrap();
    fs::write(path("empty.log"), "").unwrap();
    let mut probe = Probe::follow("file", include(folder.path()) + "from = \"end\"");
    let mut stream = probe.open().await;
    probe.settle(&mut stream).await;
    assert_eq!(probe.messages(), [""; 0]);
    let append = |name: &str, text: &str| {
        let file = File::options().create(true).append(true).open(path(name));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    };
    append("a.log", "lete\nnew\n");
    append("later.log", "whole\n");
    append("empty.log", "first\n");
    probe.settle(&mut stream).await;
    let mut messages = probe.messages();
    messages.sort();
    assert_eq!(messages, ["first", "incomplete", "new", "whole"]);
    drop(stream);

    append("while_stopped.log", "missed\n");
    let mut stream = probe.open().await;
    probe.settle(&mut stream).await;
    assert_eq!(probe.messages(), ["missed"]);
}

/// Polls a stream at most so many times, drops it in the middle, and opens it again: whatever
/// moment it was, nothing is lost and nothing comes twice.
#[tokio::test]
async fn dropped_at_any_moment_it_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for name in ["a", "b"] {
        let lines: Vec<String> = (0..300).map(|n| format!("{name}, line number {n}")).collect();
        fs::write(folder.path().join(name), lines.join("\n") + "\n").unwrap();
        expected.extend(lines);
    }
    for polls in 0..12 {
        let mut probe = Probe { rows_max: 64, ..Probe::once("file", include(folder.path())) };
        let mut ended = false;
        while !ended {
            let mut stream = probe.open().await;
            // The first batch in each life is waited for, or there would be no way forward.
            match stream.next().await {
                Some(batch) => probe.take(&batch.unwrap()),
                None => ended = true,
            }
            let mut next = pin!(stream.next());
            for _ in 0..polls {
                let waker = Waker::noop();
                match next.as_mut().poll(&mut Context::from_waker(waker)) {
                    Poll::Ready(Some(batch)) => {
                        probe.take(&batch.unwrap());
                        break;
                    }
                    Poll::Ready(None) => break,
                    Poll::Pending => tokio::task::yield_now().await,
                }
            }
        }
        let mut messages = probe.messages();
        messages.sort();
        expected.sort();
        assert_eq!(messages, expected, "dropped after {polls} polls");
    }
}

#[tokio::test]
async fn with_little_memory_it_reads_little_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    fs::write(&path, "a line of some length\n".repeat(20_000)).unwrap();
    let mut probe = Probe::once("file", include(&path) + "line_bytes_max = 1000");
    probe.budget = tidegate_flow::ByteBudget::new(64 << 10);
    probe.drain().await.unwrap();
    assert_eq!(probe.messages().len(), 20_000);
}

#[test]
fn mistakes_are_told_where_they_are() {
    let spec = SOURCES.iter().find(|(name, _)| *name == "file").unwrap().1;
    for (settings, wrong, remedy) in [
        ("exclude = []", "", "include"),
        ("include = []", "", "name a file"),
        ("include = [\"a\", \"b[\"]", "\"b[\"", "stand for parts of a name"),
        ("include = [\"a\"]\nexclude = [\"***\"]", "\"***\"", "stand for parts of a name"),
        ("include = [\"a\"]\ncodec = \"jsno\"", "\"jsno\"", "\"text\""),
        ("include = [\"a\"]\nfrom = \"start\"", "\"start\"", "`beginning`"),
        ("include = [\"a\"]\nline_bytes_max = 0", "0", "1 byte"),
        ("include = [\"a\"]\nline_bytes_max = \"1GiB\"", "\"1GiB\"", "256 MiB"),
        ("include = [\"a\"]\nrescan = \"1ms\"", "\"1ms\"", "10ms"),
        ("include = [\"a\"]\nfiles_open_max = 0", "0", "nonzero"),
    ] {
        let mistake = (spec.build)(&Settings::from_toml(settings).unwrap()).err().unwrap();
        let said = format!("{} {}", mistake.message, mistake.help.unwrap_or_default());
        assert!(said.contains(remedy), "{settings}: {said}");
        if !wrong.is_empty() {
            assert_eq!(&settings[mistake.span.unwrap()], wrong, "{said}");
        }
    }
}
