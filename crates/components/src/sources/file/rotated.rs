//! Files that were the log and rotated away between two looks, so that no look ever met them.
//!
//! When another file has taken a log's place, those in its folder that have its name with a number
//! or a date behind it, nobody knows, and were written to no earlier than one that was the log
//! before, came in between.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::find::{Found, or_here};
use super::mark::{Id, Stamp};

/// The files that `log` was between the one that was written to like `last` and now, in the order
/// in which they were.
pub(super) fn between(log: &Path, last: Stamp, known: impl Fn(&Id) -> bool) -> Vec<Found> {
    let Some((folder, name)) = log.parent().zip(log.file_name()) else { return Vec::new() };
    let entries = fs::read_dir(or_here(folder)).into_iter().flatten().flatten();
    let rotated = entries.filter(|entry| {
        let own = entry.file_name();
        own.as_bytes().strip_prefix(name.as_bytes()).is_some_and(is_rotation)
    });
    let found = rotated.filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(Found { path: entry.path(), id: Id::from(&metadata), stamp: Stamp::from(&metadata) })
    });
    let mut met = HashSet::new();
    let mut between: Vec<Found> = found
        .filter(|file| {
            file.stamp.written >= last.written && !known(&file.id) && met.insert(file.id)
        })
        .collect();
    between.sort_by_key(|file| file.stamp.written);
    between
}

/// Whether a path is what the log is called once it was rotated away.
pub(super) fn is_rotation_of(path: &Path, log: &Path) -> bool {
    let ending = |name: &OsStr| {
        let ending = path.file_name()?.as_bytes().strip_prefix(name.as_bytes())?;
        Some(is_rotation(ending))
    };
    path.parent() == log.parent() && log.file_name().and_then(ending) == Some(true)
}

/// `.1`, `-20260310`, `.2026-03-10T12:00`, `.old`: what rotation adds to a name.
fn is_rotation(ending: &[u8]) -> bool {
    let Some((b'.' | b'-' | b'_', rest)) = ending.split_first() else { return false };
    rest == b"old"
        || rest.iter().any(u8::is_ascii_digit)
            && rest.iter().all(|byte| byte.is_ascii_digit() || b"-_.:T".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_adds_a_number_or_a_date() {
        for ending in [".1", "-20260310", ".2026-03-10T12:00:00", "_7", ".old", ".1.2"] {
            assert!(is_rotation(ending.as_bytes()), "{ending}");
        }
        for ending in ["", ".", "1", ".wf", ".err", "-error.log", ".1.gz", "-", ".-", "s.1"] {
            assert!(!is_rotation(ending.as_bytes()), "{ending}");
        }
    }

    #[test]
    fn a_rotated_log_lies_beside_the_log() {
        let is = |path: &str, log: &str| is_rotation_of(Path::new(path), Path::new(log));
        assert!(is("/a/app.log.1", "/a/app.log") && is("app.log-1", "app.log"));
        assert!(!is("/b/app.log.1", "/a/app.log") && !is("/a/app.log", "/a/app.log"));
        assert!(!is("/a/other.1", "/a/app.log") && !is("/", "/a/app.log"));
    }

    #[test]
    fn only_what_is_new_and_unknown_came_in_between_oldest_first() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("app.log");
        let stamps: Vec<Found> = [".4", ".3", ".2", ".1", ""]
            .iter()
            .enumerate()
            .map(|(minute, ending)| {
                let path = folder.path().join(format!("app.log{ending}"));
                let file = fs::File::create(&path).unwrap();
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(minute as u64);
                file.set_modified(time).unwrap();
                let metadata = file.metadata().unwrap();
                Found { path, id: Id::from(&metadata), stamp: Stamp::from(&metadata) }
            })
            .collect();
        let known = HashSet::from([stamps[1].id, stamps[4].id]);
        let found = between(&log, stamps[1].stamp, |id| known.contains(id));
        assert_eq!(found, stamps[2..4], "not .4, which is older, nor .3, which is known");
    }
}
