//! `--by`: how many rows there are of each kind, as a table.
//!
//! **Memory.** Groups have at most [`GROUPS_BYTES_MAX`] bytes while rows are counted, and half as much
//! again while they are put in order. Rows of further groups are counted as one, `(other)`, and the
//! table says so: what it shows of the others is exact.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use futures_core::future::BoxFuture;
use rustix::termios::tcgetwinsize;
use tidegate::model::{Commit, Delivered, Error, Result, Sink, SinkContext, Written};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::progress;
use crate::screen::printable;

/// What all groups may have: 64 MiB, half a million groups of short names.
const GROUPS_BYTES_MAX: usize = 64 << 20;

/// What a group has beside its name: a place in a table that may have twice as many, its count, and
/// what the allocator needs.
const GROUP_BYTES: usize = 96;

/// On a terminal a name is cut to this share of the line, one in so many.
const NAME_SHARE: usize = 2;

/// How wide a terminal is taken to be that does not say.
const COLUMNS: usize = 80;

/// Counts by name, in the making.
#[derive(Clone, Debug)]
pub(super) struct Groups(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    named: HashMap<Box<str>, u64>,
    null: u64,
    other: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Counts {
    fn add(&mut self, name: &str, rows: u64) {
        if let Some(count) = self.named.get_mut(name) {
            *count += rows;
        } else if self.bytes + name.len() + GROUP_BYTES <= self.bytes_max {
            self.bytes += name.len() + GROUP_BYTES;
            self.named.insert(name.into(), rows);
        } else {
            self.other += rows;
        }
    }

    /// Adds a name for each row; of rows in a row with the same name, all at once.
    fn add_all<'n>(&mut self, names: impl Iterator<Item = Option<&'n str>>) {
        let mut last: Option<(&str, u64)> = None;
        for name in names {
            let Some(name) = name else {
                self.null += 1;
                continue;
            };
            match &mut last {
                Some((same, rows)) if *same == name => *rows += 1,
                _ => {
                    if let Some((before, rows)) = last.replace((name, 1)) {
                        self.add(before, rows);
                    }
                }
            }
        }
        if let Some((name, rows)) = last {
            self.add(name, rows);
        }
    }
}

impl Groups {
    pub(super) fn new() -> Self {
        Self::within(GROUPS_BYTES_MAX)
    }

    fn within(bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Counts { bytes_max, ..Counts::default() })))
    }

    /// The table, largest group first, at most so many of them; what was left out comes last.
    pub(super) fn table(&self, title: &str, limit: Option<NonZeroU64>) -> Table {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let named = counts.named.into_iter().map(|(name, count)| (Some(String::from(name)), count));
        let null = (counts.null > 0).then_some((None, counts.null));
        let mut groups: Vec<Group> = named.chain(null).collect();
        groups.sort_unstable_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
        let limit = limit.and_then(|limit| usize::try_from(limit.get()).ok());
        groups.truncate(limit.unwrap_or(usize::MAX));
        Table { title: title.to_owned(), groups, other: counts.other }
    }
}

/// A name, or null, and how many.
type Group = (Option<String>, u64);

/// What is shown.
#[derive(Debug)]
pub(super) struct Table {
    title: String,
    groups: Vec<Group>,
    other: u64,
}

impl Table {
    /// As lines for people; on a terminal with bars, and no wider than that is.
    pub(super) fn write_text(&self, terminal: bool, out: &mut dyn Write) -> io::Result<()> {
        let size = tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
        let width = size.filter(|columns| *columns > 0).unwrap_or(COLUMNS);
        self.write_lines(terminal.then_some(width), out)
    }

    fn write_lines(&self, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        let number = |count: u64| match width {
            Some(_) => progress::count(count),
            None => count.to_string(),
        };
        let name_max = width.map_or(usize::MAX, |width| width / NAME_SHARE);
        let shown = |name: &Option<String>| {
            cut(&name.as_deref().map_or_else(|| "NULL".to_owned(), printable), name_max)
        };
        // Twice through all, rather than a list of what is shown.
        let other = (self.other > 0).then(|| (Some("(other)".to_owned()), self.other));
        let all = || self.groups.iter().chain(&other);
        let most = all().map(|(_, count)| *count).max().unwrap_or(0);
        let counts_width = number(most).len().max("count".len());
        let names_width =
            width.map_or(0, |_| all().map(|g| shown(&g.0).width()).max().unwrap_or(0));
        let title = cut(&printable(&self.title), name_max);
        writeln!(out, "{:>counts_width$}  {title}", "count")?;
        for (name, count) in all() {
            let name = shown(name);
            write!(out, "{:>counts_width$}  {name}", number(*count))?;
            if let Some(width) = width {
                let room = width.saturating_sub(counts_width + names_width + 4);
                let pad = names_width - name.width();
                write!(out, "{:pad$}  {}", "", bar(*count, most, room))?;
            }
            writeln!(out)?;
        }
        if self.other > 0 {
            let rows = progress::count(self.other);
            writeln!(
                out,
                "{rows} rows are of groups that came when there was no room for more names: group \
                 by something coarser"
            )?;
        }
        Ok(())
    }

    /// As a JSON object a line: the group, under the name of what rows are grouped by, and `count`.
    pub(super) fn write_ndjson(&self, bare: bool, out: &mut dyn Write) -> io::Result<()> {
        let title = if self.title == "count" { "\"group\"" } else { &*quoted(&self.title) };
        for (name, count) in &self.groups {
            let name = match name {
                None => "null".to_owned(),
                Some(name) if bare => name.clone(),
                Some(name) => quoted(name),
            };
            writeln!(out, "{{{title}:{name},\"count\":{count}}}")?;
        }
        if self.other > 0 {
            writeln!(out, "{{\"other\":true,\"count\":{}}}", self.other)?;
        }
        Ok(())
    }
}

/// A bar of at most `room` columns, in eighths of one.
fn bar(count: u64, most: u64, room: usize) -> String {
    const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (count as f64 / most.max(1) as f64 * room as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    let part = if eighths == 0 && room > 0 { Some(0) } else { (eighths % 8).checked_sub(1) };
    bar.extend(part.and_then(|part| PARTS.get(part)));
    bar
}

fn cut(name: &str, columns: usize) -> String {
    if name.width() <= columns {
        return name.to_owned();
    }
    let mut room = columns.saturating_sub(1);
    let fits = |letter: &char| {
        let width = letter.width().unwrap_or(0);
        let fits = width <= room;
        room = room.saturating_sub(width);
        fits
    };
    name.chars().take_while(fits).chain(['…']).collect()
}

/// As a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Counts the names in the first column.
pub(super) struct GroupSink(Groups);

impl GroupSink {
    pub(super) fn new(groups: &Groups) -> Self {
        Self(groups.clone())
    }
}

impl Sink for GroupSink {
    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    fn open(&mut self, _context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        let names = rows.column(0);
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = if let Some(names) = names.as_string_view_opt() {
            counts.add_all(names.iter());
            true
        } else if let Some(names) = names.as_string_opt::<i32>() {
            counts.add_all(names.iter());
            true
        } else {
            false
        };
        drop(counts);
        Box::pin(async move {
            match known {
                true => Ok(Written::default()),
                false => Err(Error::fatal("--by: what it gives is no text, nor made one")),
            }
        })
    }

    fn commit<'a>(&'a mut self, _delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(groups: &Groups, width: Option<usize>, limit: Option<u64>) -> String {
        let mut out = Vec::new();
        let table = groups.table("level", limit.and_then(NonZeroU64::new));
        table.write_lines(width, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn levels() -> Groups {
        let groups = Groups::new();
        let mut counts = groups.0.lock().unwrap();
        let rows = [("INFO", 1_200), ("ERROR", 30), ("a\tb\x1b", 30)];
        rows.iter().for_each(|(name, rows)| counts.add(name, *rows));
        counts.add_all([None, Some("INFO"), Some("INFO"), None, Some("WARN")].into_iter());
        drop(counts);
        groups
    }

    #[test]
    fn groups_are_counted_and_the_largest_comes_first() {
        let expected = "count  level\n 1202  INFO\n   30  ERROR\n   30  a\\tb\\u{1b}\n    2  NULL\n    \
                        1  WARN\n";
        assert_eq!(text(&levels(), None, None), expected);
        assert_eq!(text(&levels(), None, Some(1)), "count  level\n 1202  INFO\n");
    }

    #[test]
    fn a_terminal_gets_bars_that_fit() {
        let shown = text(&levels(), Some(40), None);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1], "1,202  INFO        █████████████████████");
        assert!(lines.iter().all(|line| line.width() <= 40), "{shown}");
        assert!(lines[5].ends_with('▏'), "even one row is seen: {shown}");
    }

    #[test]
    fn long_names_are_cut_on_a_terminal_only() {
        let groups = Groups::new();
        groups.0.lock().unwrap().add(&"日本語 ".repeat(20), 1);
        let cut = text(&groups, Some(30), None);
        assert!(cut.lines().all(|line| line.width() <= 30) && cut.contains('…'), "{cut}");
        let groups = Groups::new();
        groups.0.lock().unwrap().add(&"日本語 ".repeat(20), 1);
        assert!(!text(&groups, None, None).contains('…'));
    }

    #[test]
    fn names_that_find_no_room_are_counted_as_others() {
        let groups = Groups::within(3 * (GROUP_BYTES + 1));
        for name in ["a", "b", "c", "d", "a", "e", "d"] {
            groups.0.lock().unwrap().add(name, 1);
        }
        let shown = text(&groups, None, None);
        assert!(
            shown.starts_with("count  level\n    2  a\n    1  b\n    1  c\n    3  (other)\n3 rows")
        );
    }

    #[test]
    fn json_is_json_whatever_a_name_holds() {
        let groups = Groups::new();
        let name = "say \"hi\"\\\n\u{1}\u{7f}";
        groups.0.lock().unwrap().add(name, 7);
        groups.0.lock().unwrap().add_all([None].into_iter());
        let mut out = Vec::new();
        groups.table("upper(\"x\")", None).write_ndjson(false, &mut out).unwrap();
        let lines = String::from_utf8(out).unwrap();
        let expected = "{\"upper(\\\"x\\\")\":\"say \\\"hi\\\"\\\\\\n\\u0001\u{7f}\",\"count\":7}\n\
                        {\"upper(\\\"x\\\")\":null,\"count\":1}\n";
        assert_eq!(lines, expected);
    }
}
