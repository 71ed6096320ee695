//! How far an export is: rows, how many there are about, how fast, how long.

use std::time::Duration;

use tidegate::db::Estimate;
use tidegate::engine::{Role, Snapshot};

use crate::progress::{count, rates, trouble};

/// How many letters the bar has.
const BAR: usize = 20;

/// A line of progress. How many rows there are is known by statistics alone, and said so.
pub(super) fn line(before: &Snapshot, now: &Snapshot, estimate: Option<Estimate>) -> String {
    let rows: u64 = now.of(Role::Sink).map(|sink| sink.rows).sum();
    let rates = format!("{}{}{}", rates(before, now), by_range(now), trouble(now));
    let Some(Estimate { rows: expected, is_exact }) = estimate.filter(|known| known.rows > 0)
    else {
        return format!("{} rows  {rates}", count(rows));
    };
    let about = if is_exact { "" } else { "about " };
    if rows > expected {
        // More came than statistics know of: how many more, nobody knows.
        return format!(
            "{} rows, more than the {about}{} expected  {rates}",
            count(rows),
            count(expected)
        );
    }
    let part = rows as f64 / expected as f64;
    let filled = (part * BAR as f64) as usize;
    let (filled, empty) = ("=".repeat(filled), " ".repeat(BAR - filled));
    let seconds = now.elapsed.as_secs_f64() * (1.0 - part) / part;
    let left = match seconds.is_finite() {
        true => {
            let left = Duration::from_secs(seconds.ceil() as u64);
            format!("  {about}{} left", humantime::format_duration(left))
        }
        false => String::new(),
    };
    format!(
        "[{filled}{empty}] {:>3.0} %  {} of {about}{} rows  {rates}{left}",
        (part * 100.0).floor(),
        count(rows),
        count(expected)
    )
}

/// The rows of each range, where there are several.
fn by_range(now: &Snapshot) -> String {
    let sinks: Vec<_> = now.of(Role::Sink).collect();
    if sinks.len() < 2 {
        return String::new();
    }
    let each = sinks.iter().map(|sink| {
        let done = if sink.ended { " (done)" } else { "" };
        format!("{}{done}", count(sink.rows))
    });
    format!("  by range: {}", Vec::from_iter(each).join(" + "))
}

#[cfg(test)]
mod tests {
    use tidegate::engine::Reading;
    use tidegate::flow::Usage;

    use super::*;

    fn snapshot(seconds: u64, rows: u64) -> Snapshot {
        let reading = |role| Reading {
            role,
            name: "part-0".into(),
            rows,
            bytes: rows * 100,
            idle: Duration::ZERO,
            busy: Duration::ZERO,
            blocked: Duration::ZERO,
            refused: 0,
            skipped: 0,
            rejected: 0,
            reason: None,
            trouble: None,
            ended: false,
        };
        Snapshot {
            elapsed: Duration::from_secs(seconds),
            budget: Usage { capacity: 1, used: 0, peak: 0, reserved: 0, waiting: 0 },
            bytes_expected: None,
            rows_expected: None,
            components: vec![reading(Role::Source), reading(Role::Sink)],
            edges: Vec::new(),
        }
    }

    #[test]
    fn it_says_how_far_it_is_and_that_this_is_an_estimate() {
        let (before, now) = (snapshot(1, 10_000), snapshot(2, 30_000));
        let said = |rows, is_exact| line(&before, &now, Some(Estimate { rows, is_exact }));
        let rates = "   20,000 rows/s     2.00 MB/s";
        assert_eq!(
            said(120_000, false),
            format!(
                "[=====               ]  25 %  30,000 of about 120,000 rows  {rates}  about 6s left"
            )
        );
        assert!(said(120_000, true).ends_with("  6s left"));
        let mut two = now.clone();
        let mut other = two.components[1].clone();
        (other.rows, other.ended) = (5_000, true);
        two.components.push(other);
        let two = line(&before, &two, None);
        assert!(two.ends_with("  by range: 30,000 + 5,000 (done)"), "{two}");
        let mut full = now.clone();
        full.components[1].trouble = Some("the disk is full".into());
        let waits = line(&before, &full, Some(Estimate { rows: 120_000, is_exact: true }));
        assert!(waits.contains("sinks.part-0 waits: the disk is full"), "{waits}");
        assert!(
            said(20_000, false).starts_with("30,000 rows, more than the about 20,000 expected")
        );
        assert_eq!(line(&before, &now, None), format!("30,000 rows  {rates}"));
        let nothing =
            line(&snapshot(0, 0), &snapshot(0, 0), Some(Estimate { rows: 9, is_exact: true }));
        assert!(!nothing.contains("left"), "{nothing}");
    }
}
