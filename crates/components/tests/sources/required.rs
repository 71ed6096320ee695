//! The file source told what rows must have: what has none of it is passed over, and nothing else
//! changes.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use futures::StreamExt;

use super::support::Probe;

fn include(path: &Path) -> String {
    format!("include = [{:?}]\n", path.display().to_string())
}

/// A probe of a file that wants lines with one of the texts.
fn searching(path: &Path, texts: &[&str]) -> Probe {
    Probe::once("file", include(path)).searching(texts)
}

#[tokio::test]
async fn lines_that_nobody_wants_are_passed_over_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    fs::write(&path, "one ERROR\r\ntwo\n\nthree ERR\nOR\nb\u{0}ERROR\nlast, an ERROR").unwrap();
    let mut probe = searching(&path, &["ERROR", "none has this"]);
    probe.drain().await.unwrap();
    let rows: Vec<_> = probe.rows.iter().map(|row| (row.offset, &*row.message)).collect();
    assert_eq!(rows, [(0, "one ERROR"), (29, "b\0ERROR"), (37, "last, an ERROR")]);
    assert_eq!(probe.skipped, 4);
    assert_eq!(probe.positions.values().map(|p| p.sequence).collect::<Vec<_>>(), [51]);
    probe.rows.clear();
    probe.drain().await.unwrap();
    assert_eq!((probe.messages(), probe.skipped), (vec![], 4), "there is nothing new");
}

#[tokio::test]
async fn lines_that_can_not_be_severe_are_passed_over_where_the_codec_knows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let text = "2015-10-18 18:01:47 INFO an error\n2015-10-18 18:01:47 ERROR x\nterror\n\n\
        {\"level\":30}\r\n{\"level\":50}\r\nE0314 15:04:05 x\n[warn] x\nlast ERR";
    fs::write(&path, text).unwrap();
    for (codec, severity_min, offsets, skipped) in [
        ("auto", Some(17), &[0, 34, 84, 98, 124][..], 4),
        ("auto", Some(13), &[0, 34, 84, 98, 115, 124], 3),
        ("auto", Some(21), &[], 9),
        ("auto", Some(9), &[0, 34, 62, 69, 70, 84, 98, 115, 124], 0),
        ("text", Some(17), &[0, 34, 62, 69, 70, 84, 98, 115, 124], 0),
    ] {
        let settings = format!("{}codec = {codec:?}\n", include(&path));
        let mut probe = Probe { severity_min, ..Probe::once("file", settings) };
        probe.drain().await.unwrap();
        let found: Vec<_> = probe.rows.iter().map(|row| row.offset).collect();
        assert_eq!((&*found, probe.skipped), (offsets, skipped), "{codec}, {severity_min:?}");
    }
    // Texts come first: a row must have both.
    let settings = format!("{}codec = \"auto\"\n", include(&path));
    let probe = Probe::once("file", settings).searching(&["last"]);
    let mut probe = Probe { severity_min: Some(17), ..probe };
    probe.drain().await.unwrap();
    assert_eq!((probe.messages(), probe.skipped), (vec!["last ERR".to_owned()], 8));
}

#[tokio::test]
async fn where_nobody_wants_any_row_positions_move_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    fs::write(&path, "a line of some length\n".repeat(200_000)).unwrap();
    let mut probe = searching(&path, &[]);
    probe.drain().await.unwrap();
    assert_eq!((probe.messages(), probe.skipped), (vec![], 200_000));
    assert_eq!(probe.positions.values().map(|p| p.sequence).collect::<Vec<_>>(), [4_400_000]);
}

/// Across chunks of 1 MiB and less, stopped after each batch and opened again.
#[tokio::test]
async fn reading_goes_on_from_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let (mut text, mut expected) = (String::new(), Vec::new());
    for number in 0..60_000_usize {
        // Rare, then dense, then rare again; each chunk border falls somewhere else.
        let wanted =
            if (20_000..30_000).contains(&number) { number % 3 > 0 } else { number % 997 == 0 };
        let line =
            format!("line {number} {}", if wanted { "ERROR" } else { "of no interest at all" });
        text += &format!("{line}\n");
        expected.extend(wanted.then_some(line));
    }
    fs::write(&path, text).unwrap();
    for rows_max in [37, 1_000, 8_192] {
        let mut probe = Probe { rows_max, ..searching(&path, &["ERROR"]) };
        let mut stream = probe.open().await;
        let mut count = 0;
        while let Some(batch) = stream.next().await {
            probe.take(&batch.unwrap());
            count += 1;
            if count % 5 == 0 {
                stream = probe.open().await;
            }
        }
        assert_eq!(probe.rows.len() as u64 + probe.skipped, 60_000);
        let mut messages = probe.messages();
        messages.retain(|message| message.contains("ERROR"));
        assert!(messages == expected, "{} of {} lines", messages.len(), expected.len());
        assert!(probe.skipped > 40_000, "{} were skipped", probe.skipped);
        assert_eq!(probe.budget.usage().used, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_that_is_written_in_two_parts_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let mut file = File::create(&path).unwrap();
    let mut probe = Probe::follow("file", include(&path)).searching(&["ERROR"]);
    let mut stream = probe.open().await;
    for (written, lines, skipped) in [
        ("nothing\nan ERR", &[][..], 1),
        ("OR\nnoth", &["an ERROR"], 1),
        ("ing\nER", &[], 2),
        ("ROR", &[], 2),
        ("\r", &[], 2),
        ("\n", &["ERROR"], 2),
    ] {
        file.write_all(written.as_bytes()).unwrap();
        probe.settle(&mut stream).await;
        assert_eq!(
            (&*probe.messages(), probe.skipped),
            (&*lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>(), skipped),
            "after {written:?}"
        );
        assert_eq!(probe.budget.usage().used, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_cut_or_rotated_is_known_again_by_lines_nobody_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    fs::write(&path, "nothing\n".repeat(1_000)).unwrap();
    let mut probe = Probe::follow("file", include(&path)).searching(&["ERROR"]);
    let mut stream = probe.open().await;
    probe.settle(&mut stream).await;
    assert_eq!((probe.messages(), probe.skipped), (vec![], 1_000));
    drop(stream);

    let renamed = folder.path().join("a.log.1");
    fs::rename(&path, &renamed).unwrap();
    File::options().append(true).open(&renamed).unwrap().write_all(b"late ERROR\n").unwrap();
    fs::write(&path, "new ERROR\nnothing\n").unwrap();
    let mut stream = probe.open().await;
    probe.settle(&mut stream).await;
    assert_eq!(
        (probe.messages(), probe.skipped),
        (vec!["late ERROR".into(), "new ERROR".into()], 1_001)
    );

    fs::write(&path, "cut ERROR\n").unwrap();
    probe.settle(&mut stream).await;
    assert_eq!((probe.messages(), probe.skipped), (vec!["cut ERROR".to_owned()], 1_001));
}

#[tokio::test]
async fn a_long_line_is_refused_or_skipped_and_the_rest_comes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let long = "x".repeat(3 << 20);
    fs::write(&path, format!("an ERROR\n{long}\nnothing\n{long} ERROR\nERROR again\n")).unwrap();
    let mut probe = searching(&path, &["ERROR"]);
    probe.drain().await.unwrap();
    assert_eq!(probe.messages(), ["an ERROR", "ERROR again"]);
    assert_eq!((probe.refused, probe.skipped), (2, 1));
}
