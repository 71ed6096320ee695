//! How far an export is: rows, how many there are about, how fast, how long.

use std::time::Duration;

use tidegate::engine::{Role, Snapshot};
use tidegate::model::ExpectedRows;

use crate::progress::{count, rates, trouble};

/// How many letters the bar has.
const BAR: usize = 20;

/// A line of progress. How many rows there are is known by statistics alone, and said so.
pub(super) fn line(before: &Snapshot, now: &Snapshot) -> String {
    let rows: u64 = now.of(Role::Sink).map(|sink| sink.rows).sum();
    let rates = format!("{}{}{}", rates(before, now), by_range(now), trouble(now));
    let known = now.rows_expected.filter(|known| known.rows > 0);
    let Some(ExpectedRows { rows: expected, is_exact }) = known else {
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
    use super::*;
    use crate::progress::example;

    /// At so many seconds so many rows were written, of as many as are expected.
    fn snapshot(seconds: u64, rows: u64, expected: Option<(u64, bool)>) -> Snapshot {
        let mut snapshot = example::snapshot(seconds, rows, 0);
        snapshot.components.retain(|component| component.role != Role::Transform);
        snapshot.rows_expected = expected.map(|(rows, is_exact)| ExpectedRows { rows, is_exact });
        for sink in snapshot.components.iter_mut().filter(|one| one.role == Role::Sink) {
            (sink.name, sink.rows) = ("part-0".into(), rows);
        }
        snapshot
    }

    #[test]
    fn it_says_how_far_it_is_and_that_this_is_an_estimate() {
        let before = snapshot(1, 10_000, None);
        let said = |rows, is_exact| line(&before, &snapshot(2, 30_000, Some((rows, is_exact))));
        let rates = "   20,000 rows/s     2.00 MB/s";
        assert_eq!(
            said(120_000, false),
            format!(
                "[=====               ]  25 %  30,000 of about 120,000 rows  {rates}  about 6s left"
            )
        );
        assert!(said(120_000, true).ends_with("  6s left"));
        let mut two = snapshot(2, 30_000, None);
        let mut other = two.components[1].clone();
        (other.rows, other.ended) = (5_000, true);
        two.components.push(other);
        let two = line(&before, &two);
        assert!(two.ends_with("  by range: 30,000 + 5,000 (done)"), "{two}");
        let mut full = snapshot(2, 30_000, Some((120_000, true)));
        full.components[1].trouble = Some("the disk is full".into());
        let waits = line(&before, &full);
        assert!(waits.contains("sinks.part-0 waits: the disk is full"), "{waits}");
        let more = said(20_000, false);
        assert!(more.starts_with("30,000 rows, more than the about 20,000 expected"), "{more}");
        assert_eq!(line(&before, &snapshot(2, 30_000, None)), format!("30,000 rows  {rates}"));
        let nothing = line(&snapshot(0, 0, None), &snapshot(0, 0, Some((9, true))));
        assert!(!nothing.contains("left"), "{nothing}");
    }
}
