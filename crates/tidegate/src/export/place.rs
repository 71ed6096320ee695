//! Where the result goes, and what lies beside it meanwhile.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::join::join;
use crate::failed::Failed;

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
    // Whether the parts stay parts, in a folder.
    is_folder: bool,
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
        let Some(name) = to.file_name() else {
            return Err(Failed::usage(format!("error: --to {} names no file", to.display())));
        };
        let mut beside = name.to_owned();
        beside.push(".export");
        let work = to.with_file_name(beside);
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Failed::usage(format!(
                "error: --to {}: there is no folder {}: create it",
                to.display(),
                folder.display()
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
    pub(crate) fn settings(&self, index: usize, header: bool, options: &str) -> String {
        let path = serde_json::to_string(&self.part(index).display().to_string());
        let path = path.unwrap_or_default();
        let csv = match self.format {
            Format::Csv => format!("\ncsv = {{ header = {header}{options} }}"),
            Format::Ndjson | Format::Parquet => String::new(),
        };
        format!("path = {path}\ncodec = \"{}\"{csv}", self.format.name())
    }

    /// Whether nothing is left to do but to tidy up.
    pub(crate) fn is_finished(&self, resume: bool) -> bool {
        resume && self.to.exists() && self.work.is_dir() && !self.job().exists()
    }

    /// Whether an export may write here.
    pub(crate) fn is_free(&self, resume: bool, overwrite: bool) -> Result<(), Failed> {
        let to = self.to.display();
        let interrupted = self.job().exists();
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

    /// Makes room for an export from its beginning.
    pub(crate) fn begin(&self) -> Result<(), Failed> {
        self.clean()?;
        fs::create_dir(&self.work).map_err(|error| failed("create", &self.work, &error))
    }

    /// Makes the result of its parts, each of which is whole.
    pub(crate) fn finish(&self, parts: &[PathBuf]) -> Result<(), Failed> {
        if self.is_folder {
            if !self.to.is_dir() {
                fs::create_dir(&self.to).map_err(|error| failed("create", &self.to, &error))?;
            }
            for (index, part) in parts.iter().enumerate() {
                let to = self.to.join(self.part_name(index));
                durable(part)?;
                fs::rename(part, &to).map_err(|error| failed("create", &to, &error))?;
            }
            return self.forget();
        }
        let whole = match parts {
            [only] => only.clone(),
            parts => {
                let whole = self.work.join("whole");
                join(self.format, parts, &whole).map_err(|error| failed("join", &whole, &error))?;
                whole
            }
        };
        durable(&whole)?;
        self.forget()?;
        fs::rename(&whole, &self.to).map_err(|error| failed("create", &self.to, &error))
    }

    /// From here on there is nothing to go on with.
    fn forget(&self) -> Result<(), Failed> {
        fs::remove_file(self.job()).map_err(|error| failed("remove", &self.job(), &error))
    }

    /// Removes what lies beside the result.
    pub(crate) fn clean(&self) -> Result<(), Failed> {
        match fs::remove_dir_all(&self.work) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &self.work, &error))
            }
            _ => Ok(()),
        }
    }

    /// How long the result is, where it is one file.
    pub(crate) fn size(&self) -> Option<u64> {
        fs::metadata(&self.to).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
    }
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
    fn nothing_is_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::of(&folder.path().join("a.csv"), None).unwrap();
        place.is_free(false, false).unwrap();
        assert!(place.is_free(true, false).is_err(), "there is nothing to go on with");
        fs::write(&place.to, "mine").unwrap();
        assert!(place.is_free(false, false).is_err());
        place.is_free(false, true).unwrap();
        fs::remove_file(&place.to).unwrap();
        place.begin().unwrap();
        fs::write(place.job(), "{}").unwrap();
        assert!(place.is_free(false, false).is_err());
        place.is_free(true, false).unwrap();
        fs::write(place.part(0), "rows").unwrap();
        place.finish(&[place.part(0)]).unwrap();
        assert!(place.is_finished(true) && !place.is_finished(false));
        place.clean().unwrap();
        assert_eq!(fs::read_to_string(&place.to).unwrap(), "rows");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
