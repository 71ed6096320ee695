//! Where the result goes, and what lies beside it meanwhile.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::join::join;
use super::lock::{self, Lock};
use crate::failed::Failed;

/// At least so long it is, together, from one row group that is not full to the next.
const ROW_GROUP_SECONDS: usize = 60;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values
    Csv,
    /// A JSON object a line
    Ndjson,
    /// Columns, compressed
    Parquet,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
        }
    }

    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// A file or folder to be, and the folder of what there is until then.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) to: PathBuf,
    pub(crate) format: Format,
    /// Whether the parts stay parts, in a folder.
    pub(crate) is_folder: bool,
    work: PathBuf,
}

impl Place {
    /// Of a path that was given: a folder where it ends in `/` or is one.
    pub(crate) fn of(to: &Path, format: Option<Format>) -> Result<Self, Failed> {
        let is_folder = to.as_os_str().as_encoded_bytes().ends_with(b"/") || to.is_dir();
        let format = match (format.or_else(|| Format::of(to)), is_folder) {
            (Some(format), _) => format,
            (None, true) => Format::Parquet,
            (None, false) => {
                return Err(Failed::usage(format!(
                    "error: --to {}: its name says not how rows are to be written: end it in .csv, \
                     .ndjson or .parquet, or add --format",
                    to.display()
                )));
            }
        };
        if to.file_name().is_none() {
            return Err(Failed::usage(format!("error: --to {} names no file", to.display())));
        }
        if to.to_str().is_none() {
            return Err(Failed::usage(format!(
                "error: --to {}: it is no UTF-8: choose another name",
                to.display()
            )));
        }
        // What takes the name would take the place of a device or a pipe too.
        if fs::metadata(to).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            return Err(Failed::usage(format!(
                "error: --to {}: it is no regular file: choose another name",
                to.display()
            )));
        }
        let work = to.with_added_extension("export");
        let folder = folder_of(to);
        if !folder.is_dir() {
            return Err(Failed::usage(format!(
                "error: --to {}: there is no folder {}: create it",
                to.display(),
                folder.display()
            )));
        }
        if to.is_dir() && !can_move(folder, to) {
            return Err(Failed::usage(format!(
                "error: --to {}: parts are made beside it, and can't be moved into it, for it is on \
                 another file system: name a folder inside it: --to {}",
                to.display(),
                to.join("NAME/").display()
            )));
        }
        Ok(Self { to: to.to_path_buf(), format, is_folder, work })
    }

    /// Where positions are kept.
    pub(crate) fn state(&self) -> PathBuf {
        self.work.join("state")
    }

    /// What is exported, to know it again.
    pub(crate) fn job(&self) -> PathBuf {
        self.work.join("job.json")
    }

    /// The file of a range.
    pub(crate) fn part(&self, index: usize) -> PathBuf {
        self.work.join(self.part_name(index))
    }

    fn part_name(&self, index: usize) -> String {
        format!("part-{index:04}.{}", self.format.name())
    }

    /// The settings of the sink that writes a part.
    pub(crate) fn settings(
        &self,
        index: usize,
        ranges: usize,
        header: bool,
        options: &str,
    ) -> String {
        let path = serde_json::to_string(&self.part(index).display().to_string());
        let path = path.unwrap_or_default();
        let more = match self.format {
            Format::Csv => format!("\ncsv = {{ header = {header}{options} }}"),
            Format::Ndjson => String::new(),
            // A file has room for 32,767 row groups, those of all ranges together: of what comes
            // slowly, one a minute.
            Format::Parquet => {
                format!("\nparquet = {{ row_group_age = \"{}s\" }}", ROW_GROUP_SECONDS * ranges)
            }
        };
        format!("path = {path}\ncodec = \"{}\"{more}", self.format.name())
    }

    /// What is exported, once every row is: all that is left is to put it in its place.
    pub(crate) fn whole_job(&self) -> PathBuf {
        self.work.join("whole.json")
    }

    /// Keeps other exports away from what lies beside the result.
    pub(crate) fn lock(&self) -> Result<Lock, Failed> {
        if !self.is_ours().map_err(|error| failed("look at", &self.work, &error))? {
            return Err(Failed::usage(format!(
                "error: --to {}: what there is until it is whole would be kept in {}, which is there \
                 and of no export: rename it, or choose another name",
                self.to.display(),
                self.work.display()
            )));
        }
        Lock::of(&self.work, &self.to)
    }

    /// Whether what is called as our folder is that, or not there yet.
    fn is_ours(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.work) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
            Ok(found) if !found.is_dir() => return Ok(false),
            Ok(_) => {}
        }
        let marks = [lock::path(&self.work), self.job(), self.whole_job()];
        Ok(marks.iter().any(|mark| mark.exists()) || fs::read_dir(&self.work)?.next().is_none())
    }

    /// Whether an export may write here.
    pub(crate) fn is_free(&self, resume: bool, overwrite: bool) -> Result<(), Failed> {
        let to = self.to.display();
        let interrupted = self.job().exists() || self.whole_job().exists();
        if resume && !interrupted {
            return Err(Failed::usage(format!(
                "error: --resume: no interrupted export of {to} is known here: there is no {}",
                self.job().display()
            )));
        }
        if overwrite || resume {
            return Ok(());
        }
        if interrupted {
            return Err(Failed::usage(format!(
                "error: an export to {to} was interrupted: add --resume to go on with it, or \
                 --overwrite to begin anew"
            )));
        }
        let is_taken = match self.is_folder {
            true => fs::read_dir(&self.to).is_ok_and(|mut entries| entries.next().is_some()),
            false => self.to.exists(),
        };
        if is_taken {
            return Err(Failed::usage(format!(
                "error: --to {to}: it is there already: add --overwrite to replace it, or choose \
                 another name"
            )));
        }
        Ok(())
    }

    /// Makes the result of so many parts, each of which is whole.
    pub(crate) fn finish(&self, parts: usize) -> Result<(), Failed> {
        let all: Vec<_> = (0..parts).map(|part| self.part(part)).collect();
        if self.is_folder || parts == 1 {
            all.iter().try_for_each(|part| durable(part))?;
        } else {
            let whole = self.joined();
            join(self.format, &all, &whole).map_err(|error| failed("join", &whole, &error))?;
            durable(&whole)?;
        }
        // From here on there is nothing to read, whatever comes.
        let job = self.job();
        fs::rename(&job, self.whole_job()).map_err(|error| failed("rename", &job, &error))?;
        durable(&self.work)?;
        self.put(parts)
    }

    /// Puts what is whole in its place, or what of it is not there yet.
    pub(crate) fn put(&self, parts: usize) -> Result<(), Failed> {
        if self.is_folder {
            self.put_parts(parts)?;
            durable(&self.to)?;
        } else {
            let whole = if parts == 1 { self.part(0) } else { self.joined() };
            moved(&whole, &self.to)?;
        }
        // Nothing is left to go on with once the names are said to be there.
        durable(folder_of(&self.to))
    }

    fn put_parts(&self, parts: usize) -> Result<(), Failed> {
        if !self.to.is_dir() {
            fs::create_dir(&self.to).map_err(|error| failed("create", &self.to, &error))?;
        }
        let to: Vec<_> = (0..parts).map(|part| self.to.join(self.part_name(part))).collect();
        // Those of an export before, of which there were more, would be read as if they were ours.
        let entries = fs::read_dir(&self.to).map_err(|error| failed("read", &self.to, &error))?;
        for entry in entries {
            let path = entry.map_err(|error| failed("read", &self.to, &error))?.path();
            if is_part(&path) && !to.contains(&path) {
                fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
            }
        }
        to.iter().enumerate().try_for_each(|(part, to)| moved(&self.part(part), to))
    }

    /// All parts as one file.
    fn joined(&self) -> PathBuf {
        self.work.join("whole")
    }

    /// Removes what lies beside the result, but for the lock.
    pub(crate) fn clean(&self) -> Result<(), Failed> {
        // First what would be gone on with, for a part of the rest can't be.
        for job in [self.job(), self.whole_job()] {
            match fs::remove_file(&job) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &job, &error));
                }
                _ => {}
            }
        }
        let entries = fs::read_dir(&self.work);
        for entry in entries.map_err(|error| failed("read", &self.work, &error))? {
            let entry = entry.map_err(|error| failed("read", &self.work, &error))?;
            let path = entry.path();
            if path == lock::path(&self.work) {
                continue;
            }
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            removed.map_err(|error| failed("remove", &path, &error))?;
        }
        Ok(())
    }

    /// How long the result is, where it is one file.
    pub(crate) fn size(&self) -> Option<u64> {
        fs::metadata(&self.to).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
    }
}

/// The folder that something is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives a file its name, unless it has it already.
fn moved(from: &Path, to: &Path) -> Result<(), Failed> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => Ok(()),
        done => done.map_err(|error| failed("create", to, &error)),
    }
}

/// Whether files can be moved from one folder to another without being copied.
fn can_move(from: &Path, to: &Path) -> bool {
    let device = |path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    if device(from) != device(to) {
        return false;
    }
    // Two mounts of one file system are two to rename, which Linux tells before it looks for the file.
    let none = format!("{}.none", std::process::id());
    let moved = fs::rename(from.join(&none), to.join(&none));
    !moved.is_err_and(|error| error.kind() == io::ErrorKind::CrossesDevices)
}

/// Whether it is called as parts are.
fn is_part(path: &Path) -> bool {
    let number = path.file_stem().and_then(|name| name.to_str()?.strip_prefix("part-"));
    let is_number = number.is_some_and(|number| {
        number.len() == 4 && number.bytes().all(|digit| digit.is_ascii_digit())
    });
    is_number && Format::of(path).is_some()
}

/// Has the disk store a file.
fn durable(path: &Path) -> Result<(), Failed> {
    let synced = fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| failed("store", path, &error))
}

pub(super) fn failed(verb: &str, path: &Path, error: &io::Error) -> Failed {
    Failed::data(format!("can't {verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate::components::sinks::file;
    use tidegate::model::Settings;

    use super::*;

    #[test]
    fn names_say_how_rows_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let format = |name: &str| Place::of(&at(name), None).map(|place| place.format);
        assert_eq!(format("a.csv").unwrap(), Format::Csv);
        assert_eq!(format("a.JSONL").unwrap(), Format::Ndjson);
        assert_eq!(format("a.b.parquet").unwrap(), Format::Parquet);
        assert_eq!(format("parts/").unwrap(), Format::Parquet);
        assert!(matches!(format("a.txt"), Err(Failed::Usage(said)) if said.contains("--format")));
        assert!(
            matches!(format("no/a.csv"), Err(Failed::Usage(said)) if said.contains("create it"))
        );
        let place = Place::of(&at("events/"), None).unwrap();
        assert_eq!(place.job(), at("events.export/job.json"));
    }

    #[test]
    fn row_groups_of_all_parts_fit_into_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let settings = |name: &str, ranges| {
            let place = Place::of(&folder.path().join(name), None).unwrap();
            let settings = place.settings(0, ranges, true, "");
            (file::SPEC.build)(&Settings::from_toml(&settings).unwrap()).unwrap().commit_age()
        };
        assert_eq!(settings("a.parquet", 1), Duration::from_secs(60));
        assert_eq!(settings("parts/", 64), Duration::from_secs(64 * 60));
        assert!(settings("a.csv", 64) < Duration::from_secs(1));
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::of(&folder.path().join("a.csv"), None).unwrap();
        place.is_free(false, false).unwrap();
        assert!(place.is_free(true, false).is_err(), "there is nothing to go on with");
        fs::write(&place.to, "mine").unwrap();
        assert!(place.is_free(false, false).is_err());
        place.is_free(false, true).unwrap();
        fs::remove_file(&place.to).unwrap();
        let lock = place.lock().unwrap();
        fs::write(place.job(), "{}").unwrap();
        assert!(place.is_free(false, false).is_err());
        place.is_free(true, false).unwrap();
        fs::write(place.part(0), "rows").unwrap();
        place.finish(1).unwrap();
        assert!(place.whole_job().exists());
        assert!(place.is_free(false, false).is_err(), "it is to be gone on with");
        place.is_free(true, false).unwrap();
        place.put(1).unwrap();
        place.clean().unwrap();
        drop(lock);
        assert_eq!(fs::read_to_string(&place.to).unwrap(), "rows");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_whole_is_put_in_its_place_whenever_that_was_interrupted() {
        for (name, parts) in [("a.csv", 1), ("a.csv", 2), ("a/", 2)] {
            let folder = tempfile::tempdir().unwrap();
            let place = Place::of(&folder.path().join(name), Some(Format::Csv)).unwrap();
            if place.is_folder {
                fs::create_dir(&place.to).unwrap();
                for old in ["part-0000.csv", "part-0002.csv", "part-0000.parquet", "mine.csv"] {
                    fs::write(place.to.join(old), "old").unwrap();
                }
            } else {
                fs::write(&place.to, "old").unwrap();
            }
            let _lock = place.lock().unwrap();
            assert!(!place.whole_job().exists(), "what was there before is not ours");
            fs::write(place.job(), "{}").unwrap();
            for part in 0..parts {
                fs::write(place.part(part), format!("{part}\n")).unwrap();
            }
            place.finish(parts).unwrap();
            // As if it had ended before the last of them was moved.
            let last = place.to.join(place.part_name(1));
            if place.is_folder {
                fs::rename(last, place.part(1)).unwrap();
            }
            place.put(parts).unwrap();
            place.clean().unwrap();
            let read = |name: &str| fs::read_to_string(place.to.join(name)).ok();
            if place.is_folder {
                let found = ["part-0000.csv", "part-0001.csv", "mine.csv"].map(read);
                assert_eq!(found, ["0\n", "1\n", "old"].map(|text| Some(text.to_owned())));
                assert_eq!(fs::read_dir(&place.to).unwrap().count(), 3);
            } else {
                let whole = ["0\n", "0\n1\n"][parts - 1];
                assert_eq!(fs::read_to_string(&place.to).unwrap(), whole);
            }
        }
    }
}
