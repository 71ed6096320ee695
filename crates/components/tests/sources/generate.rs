//! The source of made-up lines: its numbers, its pace, its end.

use std::time::Duration;

use futures::StreamExt;
use tidegate_components::sources::SOURCES;
use tidegate_model::{OFFSET, Settings};
use tokio::time::Instant;

use super::support::{Probe, columns};

const LINES: &str = "lines = [\"{level} {user} {ip} {n}\", \"{n}: {path} {status} {ms}\"]\n";

#[tokio::test]
async fn it_ends_after_its_count_and_numbers_its_lines() {
    let mut probe = Probe::once("generate", format!("{LINES}count = 20_000"));
    probe.drain().await.unwrap();
    assert_eq!(probe.rows.len(), 20_000);
    assert!(probe.rows.iter().zip(0..).all(|(row, number)| row.offset == number));
    assert!(probe.rows.iter().all(|row| row.message.contains(&row.offset.to_string())));
    assert_eq!(probe.budget.usage().used, 0);
    probe.rows.clear();
    probe.drain().await.unwrap();
    assert_eq!(probe.messages(), [""; 0], "there is nothing new");
}

#[tokio::test]
async fn lines_are_the_same_after_a_restart_anywhere() {
    let settings = format!("{LINES}count = 2_000\nseed = 7");
    let mut whole = Probe::once("generate", &settings);
    whole.drain().await.unwrap();
    let mut pieces = Probe { rows_max: 99, ..Probe::once("generate", &settings) };
    loop {
        let mut stream = pieces.open().await;
        let Some(batch) = stream.next().await else { break };
        pieces.take(&batch.unwrap());
    }
    assert_eq!(pieces.rows, whole.rows);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_and_what_is_missed_is_not_made_up_for() {
    for rate in [1, 7, 1_000, 50_000] {
        let mut probe = Probe::follow("generate", format!("rate = {rate}"));
        let mut stream = probe.open().await;
        let (begun, mut batches) = (Instant::now(), 0);
        let ten_seconds = tokio::time::sleep(Duration::from_secs(10));
        tokio::pin!(ten_seconds);
        while let Some(batch) = tokio::select! {
            biased;
            () = &mut ten_seconds => None,
            batch = stream.next() => batch,
        } {
            probe.take(&batch.unwrap());
            batches += 1;
        }
        let (given, due) = (probe.rows.len() as f64, 10.0 * rate as f64);
        assert!((given - due).abs() <= 1.0 + due * 0.02, "{given} of {due}");
        assert!(begun.elapsed() == Duration::from_secs(10) && batches <= 501, "{batches} batches");

        tokio::time::sleep(Duration::from_secs(60)).await;
        probe.rows.clear();
        let at = Instant::now();
        while at.elapsed() < Duration::from_millis(500) {
            let batch = stream.next().await.unwrap();
            probe.take(&batch.unwrap());
        }
        let (given, due) = (probe.rows.len() as f64, at.elapsed().as_secs_f64() * rate as f64);
        assert!(given <= 2.0 + due + 0.1 * rate as f64, "{given} of {due} after a pause");
    }
}

#[tokio::test]
async fn ready_made_lines_have_times_and_levels() {
    for template in ["app", "web", "database"] {
        let settings = format!("template = {template:?}\ncodec = \"auto\"\ncount = 1_000");
        let names = ["timestamp", "severity", "level", "message", "metadata", OFFSET];
        let mut probe = Probe { columns: columns(&names), ..Probe::once("generate", settings) };
        let mut stream = probe.open().await;
        let mut levels = 0;
        while let Some(batch) = stream.next().await {
            let batch = batch.unwrap();
            let rows = &batch.rows;
            let level = rows.column_by_name("level").unwrap();
            levels += rows.num_rows() - level.null_count();
            probe.take(&batch);
        }
        let all = if template == "database" { 50 } else { 1_000 };
        assert!(levels >= all, "{template}: {levels}");
    }
}

#[test]
fn mistakes_are_told_where_they_are() {
    let spec = SOURCES.iter().find(|(name, _)| *name == "generate").unwrap().1;
    for (text, wrong) in [
        ("template = \"wbe\"", "\"wbe\""),
        ("template = \"web\"\nlines = [\"x\"]", "\"web\""),
        ("lines = [\"x\", \"{no}\"]", "\"{no}\""),
        ("rate = 0", "0"),
        ("codec = \"jsno\"", "\"jsno\""),
    ] {
        let mistake = (spec.build)(&Settings::from_toml(text).unwrap()).err().unwrap();
        assert_eq!(&text[mistake.span.unwrap()], wrong, "{}", mistake.message);
    }
}
