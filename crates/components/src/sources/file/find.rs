//! Which files there are: patterns, directories and plain names, looked up on disk.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, Metadata};
use std::io;
use std::os::unix::fs::{DirEntryExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};
use rustix::fs::OFlags;

use super::mark::{Id, Stamp};

/// As shells have it: `*` stops at a slash and doesn't see hidden names.
const NAMES: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// An exclusion sees hidden names.
const EXCLUDED: MatchOptions = MatchOptions { require_literal_leading_dot: false, ..NAMES };

/// Endings of compressed files, which can't be read yet.
const COMPRESSED: [&str; 9] = ["gz", "tgz", "zst", "bz2", "xz", "lz4", "br", "Z", "zip"];

/// What is said of them.
pub(super) const COMPRESSED_SAID: &str = "it is compressed, unpack it first";

/// What to read.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    include: Vec<Include>,
    exclude: Vec<Pattern>,
}

/// A path whose parts may be patterns.
#[derive(Clone, Debug)]
struct Include {
    text: String,
    root: PathBuf,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Name(PathBuf),
    Match(Pattern),
    /// `**`: any number of directories.
    Deep,
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) id: Id,
    pub(super) stamp: Stamp,
}

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// In the order of their paths, each file once, however many names it has.
    pub(super) files: Vec<Found>,
    /// What can't be read, and why.
    pub(super) problems: Vec<(PathBuf, String)>,
    /// What is included and matches nothing.
    pub(super) unmatched: Vec<String>,
}

impl Wanted {
    /// Of what a configuration says; gives the index of what is no pattern, and why, where one of
    /// the two lists has such a thing.
    pub(super) fn new(include: &[String], exclude: &[String]) -> Result<Self, Unclear> {
        let parsed = include.iter().enumerate().map(|(index, text)| {
            Include::new(text).map_err(|reason| Unclear { excluded: false, index, reason })
        });
        let include = parsed.collect::<Result<_, _>>()?;
        let parsed = exclude.iter().enumerate().map(|(index, text)| {
            let reason = |error: glob::PatternError| error.msg.to_owned();
            Pattern::new(text).map_err(|e| Unclear { excluded: true, index, reason: reason(e) })
        });
        Ok(Self { include, exclude: parsed.collect::<Result<_, _>>()? })
    }

    /// Whether it is not to be read, whatever leads to it.
    pub(super) fn excludes(&self, path: &Path) -> bool {
        is_excluded(&self.exclude, path)
    }

    /// Looks.
    pub(super) fn find(&self) -> Findings {
        let mut findings = Findings::default();
        for include in &self.include {
            let before = findings.files.len() + findings.problems.len();
            let mut walk = Walk { exclude: &self.exclude, findings: &mut findings };
            walk.follow(include.root.clone(), &include.parts, true);
            if findings.files.len() + findings.problems.len() == before {
                findings.unmatched.push(include.text.clone());
            }
        }
        findings.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let mut met = HashSet::with_capacity(findings.files.len());
        findings.files.retain(|file| met.insert(file.id));
        findings.problems.sort_unstable();
        findings.problems.dedup();
        findings
    }
}

/// A pattern that is none.
#[derive(Debug)]
pub(super) struct Unclear {
    pub(super) excluded: bool,
    pub(super) index: usize,
    pub(super) reason: String,
}

impl Include {
    fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("there is nothing in it".to_owned());
        }
        let (mut root, mut parts) = (PathBuf::new(), Vec::new());
        for component in Path::new(text).components() {
            let Component::Normal(name) = component else {
                match parts.is_empty() {
                    true => root.push(component),
                    false => parts.push(Part::Name(component.as_os_str().into())),
                }
                continue;
            };
            let name = name.to_string_lossy();
            parts.push(match &*name {
                "**" => Part::Deep,
                name if name.contains(['*', '?', '[']) => {
                    Part::Match(Pattern::new(name).map_err(|error| error.msg.to_owned())?)
                }
                name => Part::Name(name.into()),
            });
        }
        if matches!(parts.last(), Some(Part::Deep)) {
            parts.push(Part::Match(Pattern::new("*").map_err(|error| error.msg.to_owned())?));
        }
        Ok(Self { text: text.to_owned(), root, parts })
    }
}

/// A file of this directory that has that identity, whatever it is called now.
pub(super) fn find_in(directory: &Path, ids: &HashSet<Id>) -> Vec<Found> {
    let entries = fs::read_dir(or_here(directory)).into_iter().flatten().flatten();
    let likely = entries.filter(|entry| ids.iter().any(|id| id.inode == entry.ino()));
    let found = likely.filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(Metadata::is_file)?;
        Some(Found { path: entry.path(), id: Id::from(&metadata), stamp: Stamp::from(&metadata) })
    });
    found.filter(|file| ids.contains(&file.id)).collect()
}

struct Walk<'w> {
    exclude: &'w [Pattern],
    findings: &'w mut Findings,
}

impl Walk<'_> {
    /// Takes the parts one after the other; `named` is whether the path so far is literal since
    /// its last pattern, so that what it leads to was meant.
    fn follow(&mut self, mut path: PathBuf, parts: &[Part], named: bool) {
        let Some((part, rest)) = parts.split_first() else { return self.take(path, named) };
        match part {
            Part::Name(name) => {
                path.push(name);
                self.follow(path, rest, true);
            }
            Part::Match(pattern) => {
                for entry in self.entries(&path) {
                    let name = entry.file_name();
                    if pattern.matches_with(&name.to_string_lossy(), NAMES)
                        && (rest.is_empty() || entry.path().is_dir())
                    {
                        self.follow(path.join(name), rest, false);
                    }
                }
            }
            Part::Deep => {
                for entry in self.entries(&path) {
                    // Links to directories are not followed, so that there is an end.
                    let deeper = entry.file_type().is_ok_and(|kind| kind.is_dir());
                    if deeper && !is_hidden(&entry.file_name()) {
                        self.follow(entry.path(), parts, false);
                    }
                }
                self.follow(path, rest, named);
            }
        }
    }

    fn entries(&mut self, directory: &Path) -> Vec<DirEntry> {
        match fs::read_dir(or_here(directory)) {
            Ok(entries) => entries.flatten().collect(),
            Err(error) => {
                let gone = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
                if !gone.contains(&error.kind()) {
                    self.problem(directory, error.to_string());
                }
                Vec::new()
            }
        }
    }

    /// What the parts lead to: a file; a directory, if it was named; anything else, to complain.
    fn take(&mut self, path: PathBuf, named: bool) {
        if is_excluded(self.exclude, &path) {
            return;
        }
        let metadata = match fs::metadata(or_here(&path)) {
            Ok(metadata) => metadata,
            Err(error) => {
                // A link that leads nowhere is there; what is not there at all was not matched.
                let missing = error.kind() == io::ErrorKind::NotFound;
                if !missing || fs::symlink_metadata(&path).is_ok() {
                    self.problem(&path, error.to_string());
                }
                return;
            }
        };
        if metadata.is_file() {
            match (is_compressed(&path), named) {
                (false, _) => self.add(path, &metadata),
                (true, true) => self.problem(&path, COMPRESSED_SAID.to_owned()),
                (true, false) => {}
            }
        } else if metadata.is_dir() && named {
            for entry in self.entries(&path) {
                // Most file systems say what an entry is; where a link leads has to be looked up.
                let is_file = entry.file_type().is_ok_and(|kind| {
                    kind.is_file() || kind.is_symlink() && entry.path().is_file()
                });
                if is_hidden(&entry.file_name()) || !is_file {
                    continue;
                }
                self.take(path.join(entry.file_name()), false);
            }
        } else if named {
            self.problem(&path, "it is neither a file nor a directory".to_owned());
        }
    }

    fn add(&mut self, path: PathBuf, metadata: &Metadata) {
        let (id, stamp) = (Id::from(metadata), Stamp::from(metadata));
        self.findings.files.push(Found { path, id, stamp });
    }

    fn problem(&mut self, path: &Path, reason: String) {
        self.findings.problems.push((path.to_owned(), reason));
    }
}

/// An exclusion without a slash is about the name alone.
fn is_excluded(exclude: &[Pattern], path: &Path) -> bool {
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    exclude.iter().any(|pattern| match pattern.as_str().contains('/') {
        true => pattern.matches_path_with(path, EXCLUDED),
        false => pattern.matches_with(&name, EXCLUDED),
    })
}

/// The empty path is the directory we are in.
pub(super) fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.')
}

/// Opens a file to read. What is none by now must not hold us up, as a pipe without a writer would.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(path)
}

pub(super) fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|ending| COMPRESSED.iter().any(|known| ending == *known))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory with these files; a name that ends in a slash is a directory.
    fn tree(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            let path = root.path().join(name);
            fs::create_dir_all(if name.ends_with('/') { &path } else { path.parent().unwrap() })
                .unwrap();
            if !name.ends_with('/') {
                fs::write(path, name).unwrap();
            }
        }
        root
    }

    fn find(root: &Path, include: &[&str], exclude: &[&str]) -> Findings {
        let within = |text: &&str| match text.contains('/') || !exclude.contains(text) {
            true => {
                root.join(text).display().to_string() + if text.ends_with('/') { "/" } else { "" }
            }
            false => (*text).to_owned(),
        };
        let include: Vec<String> = include.iter().map(within).collect();
        let exclude: Vec<String> = exclude.iter().map(within).collect();
        Wanted::new(&include, &exclude).unwrap().find()
    }

    fn names(root: &Path, findings: &Findings) -> Vec<String> {
        let within = |found: &Found| found.path.strip_prefix(root).unwrap().display().to_string();
        findings.files.iter().map(within).collect()
    }

    #[test]
    fn patterns_directories_and_names_find_files_in_order_of_path() {
        let tree =
            tree(&["b.log", "a.log", "c.txt", "d/e.log", "d/f/g.log", ".hidden.log", "h.log.gz"]);
        let root = tree.path();
        for (include, exclude, expected) in [
            (&["*.log"][..], &[][..], "a.log b.log"),
            (&["b.log", "*.log"], &[], "a.log b.log"),
            (&["."], &[], "a.log b.log c.txt"),
            (&["./"], &["*.txt"], "a.log b.log"),
            (&["d"], &[], "d/e.log"),
            (&["**/*.log"], &[], "a.log b.log d/e.log d/f/g.log"),
            (&["**"], &["d/f/*"], "a.log b.log c.txt d/e.log"),
            (&["d/**/g.log", "?.txt"], &[], "c.txt d/f/g.log"),
            (&["[!a]*"], &["*.txt"], "b.log"),
            (&["*/e.log"], &[], "d/e.log"),
            (&[".hidden.log"], &[], ".hidden.log"),
        ] {
            let findings = find(root, include, exclude);
            assert_eq!(names(root, &findings).join(" "), expected, "{include:?} {exclude:?}");
            assert!(findings.problems.is_empty(), "{findings:?}");
        }
    }

    #[test]
    fn a_file_with_several_names_is_found_once() {
        let tree = tree(&["b.log"]);
        let root = tree.path();
        fs::hard_link(root.join("b.log"), root.join("c.log")).unwrap();
        symlink("b.log", root.join("a.log")).unwrap();
        assert_eq!(names(root, &find(root, &["*.log", "c.log"], &[])), ["a.log"]);
    }

    #[test]
    fn what_matches_nothing_is_named() {
        let tree = tree(&["empty/"]);
        let root = tree.path();
        let findings = find(root, &["*.log", "none.log", "no/dir/*", "empty"], &[]);
        let named: Vec<&str> =
            findings.unmatched.iter().map(|text| text.rsplit('/').next().unwrap()).collect();
        assert_eq!(named, ["*.log", "none.log", "*", "empty"]);
        assert!(findings.problems.is_empty());
    }

    #[test]
    fn what_was_meant_and_cannot_be_read_is_a_problem_with_its_cause() {
        let tree = tree(&["file", "a.log.gz"]);
        let root = tree.path();
        symlink("nowhere", root.join("dangling.log")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        for (include, cause) in [
            ("*.log", "No such file"),
            ("file/within", "Not a directory"),
            ("socket", "neither a file nor a directory"),
            ("a.log.gz", "compressed"),
        ] {
            let findings = find(root, &[include], &[]);
            assert!(findings.files.is_empty() && findings.unmatched.is_empty(), "{findings:?}");
            assert!(findings.problems[0].1.contains(cause), "{findings:?}");
        }
        assert_eq!(find(root, &["*"], &["dangling*"]).problems, []);
    }

    #[test]
    fn links_to_directories_are_no_way_down() {
        let tree = tree(&["d/a.log"]);
        let root = tree.path();
        symlink(".", root.join("d/loop")).unwrap();
        symlink(".", root.join("d/other")).unwrap();
        assert_eq!(names(root, &find(root, &["**/*.log"], &[])), ["d/a.log"]);
    }

    #[test]
    fn a_renamed_file_is_found_by_its_identity() {
        let tree = tree(&["a.log", "b.log"]);
        let root = tree.path();
        let id = Id::from(&fs::metadata(root.join("a.log")).unwrap());
        fs::rename(root.join("a.log"), root.join("z.old")).unwrap();
        let found = find_in(root, &HashSet::from([id]));
        assert_eq!((found.len(), &found[0].path, found[0].id), (1, &root.join("z.old"), id));
    }

    #[test]
    fn what_is_no_pattern_is_told_by_list_and_index() {
        let text = |text: &str| vec!["a".to_owned(), text.to_owned()];
        let unclear = Wanted::new(&text("b[c"), &[]).unwrap_err();
        assert_eq!((unclear.excluded, unclear.index), (false, 1), "{unclear:?}");
        let unclear = Wanted::new(&text(""), &[]).unwrap_err();
        assert_eq!((unclear.excluded, unclear.index), (false, 1), "{unclear:?}");
        let unclear = Wanted::new(&text("b"), &text("***")).unwrap_err();
        assert_eq!((unclear.excluded, unclear.index), (true, 1), "{unclear:?}");
    }
}
