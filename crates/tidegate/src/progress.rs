//! The numbers of a run as lines for people.

use std::time::Duration;

use tidegate::engine::{Role, Snapshot};

/// A run to the end of what there is: how far it is, and how long it will take.
pub(crate) fn once(before: &Snapshot, now: &Snapshot) -> String {
    let read = now.bytes_read();
    let start = match now.bytes_expected.filter(|expected| *expected > 0) {
        Some(expected) => {
            let expected = expected.max(read);
            let percent = read as f64 / expected as f64 * 100.0;
            format!("{:>3.0} %  {} of {}", percent.floor(), bytes(read), bytes(expected))
        }
        None => format!("{} read", bytes(read)),
    };
    let left = now.bytes_expected.and_then(|expected| {
        let rest = expected.saturating_sub(read) as f64;
        let seconds = rest / (read as f64 / now.elapsed.as_secs_f64());
        // Before anything was read, nobody knows.
        (read > 0 && seconds.is_finite()).then(|| Duration::from_secs(seconds.ceil() as u64))
    });
    let left = left
        .map_or_else(String::new, |left| format!("  {} left", humantime::format_duration(left)));
    format!("{start}  {}{left}{}", rates(before, now), trouble(now))
}

/// A run without an end: what passes, what it holds, and what holds it up.
pub(crate) fn live(before: &Snapshot, now: &Snapshot) -> String {
    let budget = now.budget;
    let bottleneck = now.bottleneck(before).map_or_else(String::new, |bottleneck| {
        let (table, name) = (bottleneck.role.table(), bottleneck.name);
        format!("  bottleneck {table}.{name} (busy {:.0} %)", bottleneck.busy * 100.0)
    });
    format!(
        "{:>4} s  {}  budget {:.1} of {:.0} MiB{bottleneck}{}",
        now.elapsed.as_secs(),
        rates(before, now),
        mebibytes(budget.used),
        mebibytes(budget.capacity),
        trouble(now)
    )
}

/// What came of a run, in its last line.
pub(crate) fn sum(now: &Snapshot) -> String {
    let refused = now.of(Role::Source).map(|source| source.refused).sum();
    let rejected = now.components.iter().map(|component| component.rejected).sum();
    format!(
        "{} rows read, {} written, {} refused, {} rejected, {} dropped",
        count(now.rows_read()),
        count(now.rows_written()),
        count(refused),
        count(rejected),
        count(now.dropped())
    )
}

/// Rows and bytes of the time between two snapshots, each second.
pub(crate) fn rates(before: &Snapshot, now: &Snapshot) -> String {
    let seconds = now.elapsed.saturating_sub(before.elapsed).as_secs_f64().max(f64::EPSILON);
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    let rows = each(now.rows_read(), before.rows_read());
    let megabytes = each(now.bytes_read(), before.bytes_read()) / 1e6;
    format!("{:>9} rows/s  {megabytes:>7.2} MB/s", count(rows.round() as u64))
}

/// Who waits before trying again, and why.
pub(crate) fn trouble(now: &Snapshot) -> String {
    let waiting = now.components.iter().find_map(|component| {
        let trouble = component.trouble.as_ref()?;
        Some(format!("  {}.{} waits: {trouble}", component.role.table(), component.name))
    });
    let line = waiting.unwrap_or_default();
    line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// A number of bytes with three digits: 1.23 GB.
pub(crate) fn bytes(bytes: u64) -> String {
    let (mut number, mut unit) = (bytes as f64, "B");
    for larger in ["kB", "MB", "GB", "TB", "PB"] {
        if number < 999.5 {
            break;
        }
        (number, unit) = (number / 1000.0, larger);
    }
    let digits = match number {
        _ if unit == "B" => 0,
        0.0..9.995 => 2,
        9.995..99.95 => 1,
        _ => 0,
    };
    format!("{number:.digits$} {unit}")
}

/// A count with its thousands apart: 1,234,567.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A run in the middle of its work, for tests.
#[cfg(test)]
pub(crate) mod example {
    use std::sync::Arc;

    use tidegate::engine::{EdgeReading, Reading};
    use tidegate::flow::Usage;

    use super::*;

    fn reading(role: Role, name: &str, rows: u64, busy: u64) -> Reading {
        Reading {
            role,
            name: Arc::from(name),
            rows,
            bytes: rows * 100,
            idle: Duration::ZERO,
            busy: Duration::from_millis(busy),
            blocked: Duration::ZERO,
            refused: 0,
            skipped: 0,
            rejected: 0,
            reason: None,
            trouble: None,
            ended: false,
        }
    }

    /// At so many seconds so many rows were read, half of which were written.
    pub(crate) fn snapshot(seconds: u64, rows: u64, busy: u64) -> Snapshot {
        let edge = EdgeReading {
            source: "app".into(),
            input: "app".into(),
            sink: "out".into(),
            queued_bytes: 0,
            queue_bytes_max: 1,
            dropped: 4,
        };
        let mut source = reading(Role::Source, "app", rows, 0);
        source.refused = 2;
        let mut transform = reading(Role::Transform, "errors", rows, 0);
        transform.rejected = 3;
        Snapshot {
            elapsed: Duration::from_secs(seconds),
            budget: Usage { capacity: 256 << 20, used: 3 << 19, peak: 0, reserved: 0, waiting: 0 },
            bytes_expected: None,
            rows_expected: None,
            components: vec![source, transform, reading(Role::Sink, "out", rows / 2, busy)],
            edges: vec![edge],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::example::snapshot;
    use super::*;

    #[test]
    fn a_run_to_the_end_says_how_far_it_is() {
        let (before, mut now) = (snapshot(1, 10_000, 0), snapshot(2, 30_000, 0));
        assert_eq!(once(&before, &now), "3.00 MB read     20,000 rows/s     2.00 MB/s");
        now.bytes_expected = Some(12_000_000);
        let line = once(&before, &now);
        assert_eq!(line, " 25 %  3.00 MB of 12.0 MB     20,000 rows/s     2.00 MB/s  6s left");
    }

    #[test]
    fn a_run_without_an_end_names_what_holds_it_up() {
        let (before, mut now) = (snapshot(1, 10_000, 0), snapshot(2, 30_000, 970));
        let expected = "   2 s     20,000 rows/s     2.00 MB/s  budget 1.5 of 256 MiB  \
                        bottleneck sinks.out (busy 97 %)";
        assert_eq!(live(&before, &now), expected);
        now.components[2].trouble = Some("disk is\nfull".to_owned());
        assert!(live(&before, &now).ends_with("  sinks.out waits: disk is full"));
    }

    #[test]
    fn a_snapshot_of_no_time_makes_no_wild_numbers() {
        let now = snapshot(0, 0, 0);
        let line = once(&now, &Snapshot { bytes_expected: Some(100), ..now.clone() });
        assert_eq!(line, "  0 %  0 B of 100 B          0 rows/s     0.00 MB/s");
    }

    #[test]
    fn the_last_line_counts_everything() {
        let said = sum(&snapshot(2, 1_234_568, 0));
        assert_eq!(said, "1,234,568 rows read, 617,284 written, 2 refused, 3 rejected, 4 dropped");
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (9_999, "10.0 kB"),
            (99_960, "100 kB"),
            (999_600, "1.00 MB"),
            (12_345_678_901, "12.3 GB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }
}
