//! One process at a time for the folder of an export.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::place::failed;
use crate::failed::Failed;

/// Held as long as it is used; released by the kernel, however the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    folder: PathBuf,
    _file: File,
}

/// The lock's file in a folder; it holds the process's number.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("export.lock")
}

impl Lock {
    /// Locks a folder, which is made where it does not exist, for an export to this path.
    pub(super) fn of(folder: &Path, to: &Path) -> Result<Self, Failed> {
        let path = path(folder);
        // Once more for each export that ends, and removes both, in just this moment.
        loop {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(failed("create", folder, &error));
                }
                _ => {}
            }
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            let mut file = match options.open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(|error| failed("open", &path, &error))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    let read = file.read_to_string(&mut owner);
                    read.map_err(|error| failed("read", &path, &error))?;
                    return Err(Failed::data(format!(
                        "another process exports to {}, {}: wait for its end, or stop it",
                        to.display(),
                        owner.trim()
                    )));
                }
                Err(TryLockError::Error(error)) => return Err(failed("lock", &path, &error)),
            }
            if is_at(&file, &path).map_err(|error| failed("look at", &path, &error))? {
                let written =
                    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                written.map_err(|error| failed("write", &path, &error))?;
                return Ok(Self { folder: folder.to_path_buf(), _file: file });
            }
        }
    }
}

/// Whether the file has its name still.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let named = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        named => named?,
    };
    let file = file.metadata()?;
    Ok((file.dev(), file.ino()) == (named.dev(), named.ino()))
}

impl Drop for Lock {
    /// Of a folder with nothing else in it nothing is left; one that stays is taken for ours.
    fn drop(&mut self) {
        if fs::read_dir(&self.folder).is_ok_and(|entries| entries.count() == 1) {
            let removed = fs::remove_file(path(&self.folder));
            let _ = removed.and_then(|()| fs::remove_dir(&self.folder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_has_it_and_nothing_is_left() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("a.csv.export");
        let of = || Lock::of(&folder, Path::new("a.csv"));
        let first = of().unwrap();
        let Err(Failed::Data(said)) = of() else { panic!("it is locked") };
        assert!(said.contains(&format!("a.csv, {}", std::process::id())), "{said}");
        drop(first);
        assert!(!folder.exists());
        let second = of().unwrap();
        fs::write(folder.join("job.json"), "{}").unwrap();
        drop(second);
        assert!(folder.join("job.json").exists(), "it is to be gone on with");
        drop(of().unwrap());
    }
}
