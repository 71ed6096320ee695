//! Which files a scan reads: those that are named, those of directories, and what patterns match.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tidegate::components::sources::file::{Matching, matching, reason};
use walkdir::{DirEntry, DirEntryExt, WalkDir};

use crate::failed::Failed;
use crate::screen::printable;

/// How the names of logs end.
const ENDS: [&str; 6] = ["log", "out", "err", "txt", "jsonl", "ndjson"];

/// What a scan reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// As the column `source` names it.
    pub(super) fn label(&self) -> String {
        match self {
            Input::Stdin => "stdin".to_owned(),
            Input::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// All that there is to read.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Standard input first, then files in the order of their paths, each once.
    pub(super) inputs: Vec<Input>,
    /// What can't be read, and why.
    pub(super) problems: Vec<(PathBuf, String)>,
}

/// Looks. Nothing named is standard input, unless somebody sits there.
pub(super) fn find(paths: &[PathBuf], ends: &[String]) -> Result<Files, Failed> {
    if paths.is_empty() && io::stdin().is_terminal() {
        return Err(Failed::usage(
            "error: nothing to scan: name a file, a directory or a pattern, or pipe lines into it; \
             see tidegate scan --help",
        ));
    }
    if ends.iter().any(|end| end.trim_matches([' ', '.']).is_empty()) {
        return Err(Failed::usage(
            "error: --ext: there is nothing in it: write how names end, such as log,txt, or \"*\"",
        ));
    }
    let mut search = Search { ends, stdin: paths.is_empty(), ..Search::default() };
    for path in paths {
        search.path(path)?;
    }
    let Search { stdin, mut files, mut problems, .. } = search;
    if let Some(output) = output() {
        let is_output = |file: &Found| {
            let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
            file.inode == output.1 && fs::metadata(&file.path).map(identity).ok() == Some(output)
        };
        for file in files.extract_if(.., |file| is_output(file)) {
            problems.push((file.path, "what is printed goes there".to_owned()));
        }
    }
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    once(&mut files);
    let files = files.into_iter().map(|file| Input::File(file.path));
    let inputs = stdin.then_some(Input::Stdin).into_iter().chain(files).collect();
    Ok(Files { inputs, problems })
}

/// The device and number of the file that standard output goes to, if it is one: reading it would
/// have no end.
fn output() -> Option<(u64, u64)> {
    let output = File::from(io::stdout().as_fd().try_clone_to_owned().ok()?);
    let metadata = output.metadata().ok().filter(Metadata::is_file)?;
    Some((metadata.dev(), metadata.ino()))
}

/// Leaves each file once, under its first name. Only those whose number comes twice are looked at:
/// they may be of different devices.
fn once(files: &mut Vec<Found>) {
    let mut met = HashSet::with_capacity(files.len());
    let twice: HashSet<u64> =
        files.iter().map(|file| file.inode).filter(|inode| !met.insert(*inode)).collect();
    let mut met = HashSet::new();
    files.retain(|Found { path, inode }| {
        let device = || fs::metadata(path).map(|metadata| metadata.dev()).ok();
        !twice.contains(inode) || met.insert((device(), *inode))
    });
}

/// A file, and its number on its device.
struct Found {
    path: PathBuf,
    inode: u64,
}

#[derive(Default)]
struct Search<'s> {
    ends: &'s [String],
    stdin: bool,
    files: Vec<Found>,
    problems: Vec<(PathBuf, String)>,
}

impl Search<'_> {
    /// What was named: a file or directory of that name, else what the pattern matches.
    fn path(&mut self, path: &Path) -> Result<(), Failed> {
        if path.as_os_str() == "-" {
            self.stdin = true;
            return Ok(());
        }
        match fs::metadata(path) {
            Ok(metadata) => self.found(path, &metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_pattern(path) => {
                self.pattern(path)?;
            }
            Err(error) => self.problems.push((path.to_owned(), reason(&error))),
        }
        Ok(())
    }

    fn pattern(&mut self, path: &Path) -> Result<(), Failed> {
        let unclear = |reason: &str| {
            let path = printable(&path.to_string_lossy());
            Failed::usage(format!("error: {path} is no pattern: {reason}"))
        };
        let text = path.to_str().ok_or_else(|| unclear("it is not UTF-8"))?;
        let Matching { files, mut problems } = matching(text).map_err(|reason| unclear(&reason))?;
        if files.is_empty() && problems.is_empty() {
            problems.push((path.to_owned(), "no file matches".to_owned()));
        }
        self.problems.append(&mut problems);
        for path in files {
            match fs::metadata(&path) {
                Ok(metadata) => self.found(&path, &metadata),
                Err(error) => self.problems.push((path, reason(&error))),
            }
        }
        Ok(())
    }

    fn found(&mut self, path: &Path, metadata: &Metadata) {
        if metadata.is_dir() {
            self.directory(path);
        } else if metadata.is_file() {
            self.files.push(Found { path: path.to_owned(), inode: metadata.ino() });
        } else {
            let why = "it is neither a file nor a directory: pipe it in, with `<` or cat";
            self.problems.push((path.to_owned(), why.to_owned()));
        }
    }

    /// All files below, but hidden ones. Links are followed to files only, so that there is an end.
    fn directory(&mut self, directory: &Path) {
        let before = self.files.len() + self.problems.len();
        let visible = |entry: &DirEntry| entry.depth() == 0 || !is_hidden(entry.file_name());
        for entry in WalkDir::new(directory).into_iter().filter_entry(visible) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let path = error.path().unwrap_or(directory).to_owned();
                    let why = error.io_error().map_or_else(|| error.to_string(), reason);
                    self.problems.push((path, why));
                    continue;
                }
            };
            if entry.file_type().is_dir() || !self.is_wanted(entry.file_name()) {
                continue;
            }
            if entry.file_type().is_file() {
                let inode = entry.ino();
                self.files.push(Found { path: entry.into_path(), inode });
                continue;
            }
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_file() => self.found(entry.path(), &metadata),
                Ok(_) => {}
                Err(error) => self.problems.push((entry.into_path(), reason(&error))),
            }
        }
        if self.files.len() + self.problems.len() == before {
            let ends = match self.ends {
                [] => ENDS.join(", "),
                ends => ends.join(", "),
            };
            let why = format!("no file in it ends in {ends}: name other ends with --ext, or \"*\"");
            self.problems.push((directory.to_owned(), why));
        }
    }

    fn is_wanted(&self, name: &OsStr) -> bool {
        let name = name.to_string_lossy();
        let ends = |name: &str, end: &str| {
            name.strip_suffix(end).is_some_and(|before| before.ends_with('.'))
        };
        let wanted = |end: &str| end == "*" || ends(&name, end) || ends(unrotated(&name), end);
        match self.ends {
            [] => ENDS.iter().any(|end| wanted(end)),
            // As people write them: log, .log or *.log.
            given => given
                .iter()
                .any(|end| wanted(end.strip_prefix("*.").or(end.strip_prefix('.')).unwrap_or(end))),
        }
    }
}

/// A name without what rotation has put behind it: `.1`, `-20261125`, `.2026-11-25`.
fn unrotated(name: &str) -> &str {
    let digits = |letter: char| letter.is_ascii_digit() || letter == '-' || letter == '_';
    let short = name.trim_end_matches(digits);
    match (short.len() < name.len(), short.strip_suffix('.')) {
        (true, Some(before)) => before,
        (true, None) if name[short.len()..].starts_with(['-', '_']) => short,
        _ => name,
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn is_pattern(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "b.log",
            "a.log",
            "app.log.1",
            "app.log-20261125",
            "image.png",
            "sub/c.txt",
            ".h.log",
            "sub/deep/d.ndjson",
            ".hidden/e.log",
            "x[1].log",
            "log",
            "v1.2",
        ];
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x\n").unwrap();
        }
        symlink(folder.path(), folder.path().join("sub/loop")).unwrap();
        symlink("a.log", folder.path().join("again.log")).unwrap();
        symlink("nowhere", folder.path().join("lost.log")).unwrap();
        folder
    }

    fn found(folder: &Path, paths: &[&str], ends: &[&str]) -> (Vec<String>, Vec<String>) {
        let paths: Vec<_> = paths.iter().map(|path| folder.join(path)).collect();
        let ends: Vec<_> = ends.iter().map(|end| (*end).to_owned()).collect();
        let Files { inputs, problems } = find(&paths, &ends).unwrap();
        let short = |path: &str| path.replace(&format!("{}/", folder.display()), "");
        let problems =
            problems.iter().map(|(path, why)| format!("{}: {why}", short(&path.to_string_lossy())));
        (inputs.iter().map(|input| short(&input.label())).collect(), problems.collect())
    }

    #[test]
    fn directories_give_logs_in_order_and_each_once() {
        let folder = folder();
        let (files, problems) = found(folder.path(), &["", "a.log"], &[]);
        let expected = [
            "a.log",
            "app.log-20261125",
            "app.log.1",
            "b.log",
            "sub/c.txt",
            "sub/deep/d.ndjson",
            "x[1].log",
        ];
        assert_eq!(files, expected);
        assert_eq!(problems, ["lost.log: there is no such file"]);
        let (files, _) = found(folder.path(), &[""], &["png", ".txt"]);
        assert_eq!(files, ["image.png", "sub/c.txt"]);
        let (files, _) = found(folder.path(), &["sub"], &["*"]);
        assert_eq!(files, ["sub/c.txt", "sub/deep/d.ndjson"]);
    }

    #[test]
    fn names_come_before_patterns() {
        let folder = folder();
        let (files, problems) = found(folder.path(), &["x[1].log", "sub/**/*.ndjson"], &[]);
        assert_eq!((files.len(), problems.len()), (2, 0));
        let (files, problems) = found(folder.path(), &["*.none", "gone.log", "b.log"], &[]);
        assert_eq!(files, ["b.log"]);
        assert_eq!(problems, ["*.none: no file matches", "gone.log: there is no such file"]);
        assert!(find(&["***".into()], &[]).is_err());
    }

    #[test]
    fn a_directory_without_logs_says_what_was_looked_for() {
        let folder = folder();
        let (files, problems) = found(folder.path(), &["sub/deep"], &["gz"]);
        assert!(files.is_empty());
        assert!(problems[0].contains("ends in gz: name other ends with --ext"), "{problems:?}");
    }
}
