//! Files of which the paths are known, read once: each is looked at when its turn comes, and with
//! one call, so that many small ones cost little.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::find::{COMPRESSED_SAID, Found, is_compressed, open_file};
use super::mark::{Id, Stamp};

/// How far a list of paths was gone through, and what was met. Bounded by the list.
///
/// What is read is what is there when its turn comes, as other programs do that read files: of logs
/// that are rotated meanwhile, what has a listed name then, and nothing twice.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    paths: Arc<[PathBuf]>,
    next: usize,
    /// Files, with the time they were made at: a number of one that is gone is given again.
    met: HashSet<(Id, Option<SystemTime>)>,
    bytes: u64,
}

/// A file that was opened just now.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) found: Found,
    pub(super) file: File,
}

impl List {
    /// Of paths in their order.
    pub(super) fn new(paths: &Arc<[PathBuf]>) -> Self {
        let met = HashSet::with_capacity(paths.len());
        Self { paths: Arc::clone(paths), next: 0, met, bytes: 0 }
    }

    /// Whether nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.next >= self.paths.len()
    }

    /// How many bytes there are in all, if those that nobody has looked at are as big as the others.
    pub(super) fn expected(&self) -> u64 {
        let (met, left) = (self.met.len() as u128, (self.paths.len() - self.next) as u128);
        let all = (u128::from(self.bytes) * (met + left)).checked_div(met);
        u64::try_from(all.unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// The next file, each once, however many names it has; or what can't be read, and why.
    pub(super) fn open_next(&mut self) -> Option<Result<Opened, (PathBuf, String)>> {
        let paths = Arc::clone(&self.paths);
        while let Some(path) = paths.get(self.next) {
            self.next += 1;
            match self.open(path) {
                Ok(Some((id, stamp, file))) => {
                    let found = Found { path: path.clone(), id, stamp };
                    return Some(Ok(Opened { found, file }));
                }
                Ok(None) => {}
                Err(why) => return Some(Err((path.clone(), why))),
            }
        }
        None
    }

    /// Nothing, where it was met before.
    fn open(&mut self, path: &Path) -> Result<Option<(Id, Stamp, File)>, String> {
        let file = open_file(path).map_err(|error| reason(&error))?;
        let metadata = file.metadata().map_err(|error| reason(&error))?;
        if !metadata.is_file() {
            return Err("it is no file".to_owned());
        }
        if is_compressed(path) {
            return Err(COMPRESSED_SAID.to_owned());
        }
        let (id, stamp) = (Id::from(&metadata), Stamp::from(&metadata));
        if !self.met.insert((id, metadata.created().ok())) {
            return Ok(None);
        }
        self.bytes = self.bytes.saturating_add(stamp.size);
        Ok(Some((id, stamp, file)))
    }
}

/// Why a file can't be read, in words for people.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn each_file_comes_once_in_order_and_what_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("b"), "12345").unwrap();
        fs::write(path("d.gz"), "").unwrap();
        fs::write(path("g"), "123").unwrap();
        fs::hard_link(path("b"), path("c")).unwrap();
        symlink("b", path("a")).unwrap();
        mknodat(CWD, path("e"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let paths = [".", "a", "b", "c", "d.gz", "e", "f", "g"].map(path);
        let mut list = List::new(&Arc::from(paths.as_slice()));
        assert_eq!(list.expected(), 0, "nobody knows");
        let mut told = Vec::new();
        while let Some(next) = list.open_next() {
            told.push(match next {
                Ok(Opened { found, .. }) => (found.path, found.stamp.size.to_string()),
                Err(why) => why,
            });
        }
        let expected = [
            (".", "it is no file"),
            ("a", "5"),
            ("d.gz", "it is compressed, unpack it first"),
            ("e", "it is no file"),
            ("f", "there is no such file"),
            ("g", "3"),
        ];
        assert_eq!(told, expected.map(|(name, said)| (path(name), said.to_owned())));
        assert!(list.is_done());
    }

    #[test]
    fn a_file_that_got_the_number_of_one_that_is_gone_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "1").unwrap();
        let mut list = List::new(&Arc::from(["a", "b"].map(path).as_slice()));
        let made = fs::metadata(path("a")).unwrap().created().ok();
        let first = list.open_next().unwrap().unwrap().found.id;
        // Most file systems give the number of a file that was removed to the next one. Their clock
        // is a slow one.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let (mut old, mut again) = (path("a"), made);
        while again == made && std::time::Instant::now() < deadline {
            fs::remove_file(old).unwrap();
            fs::write(path("b"), "2").unwrap();
            (old, again) = (path("b"), fs::metadata(path("b")).unwrap().created().ok());
        }
        let second = list.open_next().unwrap().unwrap().found;
        assert_eq!(second.path, path("b"), "{first:?} {second:?}");
        assert!(list.open_next().is_none());
    }

    #[test]
    fn what_nobody_has_looked_at_is_taken_to_be_like_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: &usize| folder.path().join(number.to_string());
        (0..4).for_each(|number| fs::write(path(&number), vec![b'x'; number * 10]).unwrap());
        let mut list = List::new(&(0..4).map(|number| path(&number)).collect());
        let told = [(); 4].map(|()| {
            list.open_next().unwrap().unwrap();
            list.expected()
        });
        assert_eq!(told, [0, 20, 40, 60]);
    }
}
