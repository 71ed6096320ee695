//! What is kept of an export until it is whole: what was asked for, and the ranges.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidegate::db::{Key, Range};

use super::place::failed;
use crate::failed::Failed;

/// An export that has begun.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    // What was asked for, by what it is called.
    asked: Vec<(String, String)>,
    /// In the order of the key.
    pub(crate) ranges: Vec<Range>,
}

impl Job {
    /// Of what is asked for, cut behind these keys.
    pub(crate) fn new(asked: Vec<(String, String)>, cuts: &[Key]) -> Self {
        Self { asked, ranges: Range::between(cuts) }
    }

    /// The one that was saved, if one was.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, Failed> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", path, &error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Failed::data(format!(
                "{} makes no sense ({error}): add --overwrite to begin anew",
                path.display()
            ))
        })
    }

    /// Saves it: whole, or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failed> {
        let text = serde_json::to_vec_pretty(self).map_err(Failed::data)?;
        let new = path.with_extension("new");
        let saved = File::create(&new)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, path));
        saved.map_err(|error| failed("write", path, &error))
    }

    /// Goes on, where all that is asked for now was asked for when it began.
    pub(crate) fn resumed(self, asked: &[(String, String)]) -> Result<Self, Failed> {
        let other = asked.iter().find(|one| !self.asked.contains(one));
        let Some((name, now)) = other else { return Ok(self) };
        let before = self.asked.iter().find(|(known, _)| known == name);
        let before = before.map_or("", |(_, before)| before.as_str());
        Err(Failed::usage(format!(
            "error: --resume: {name} was {before:?} when the export began, and is {now:?} now: give \
             the same command, or begin anew with --overwrite"
        )))
    }
}

#[cfg(test)]
mod tests {
    use tidegate::db::KeyValue;

    use super::*;

    fn asked(filter: &str) -> Vec<(String, String)> {
        vec![("the database".into(), "a".into()), ("--where".into(), filter.into())]
    }

    #[test]
    fn a_job_is_the_same_when_it_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job.json");
        assert_eq!(Job::load(&path).unwrap(), None);
        let cut = |at| Key(vec![KeyValue::Int(at)]);
        let job = Job::new(asked("x"), &[cut(10), cut(20)]);
        assert_eq!(job.ranges.len(), 3);
        assert_eq!(job.ranges[1], Range { after: Some(cut(10)), until: Some(cut(20)) });
        job.save(&path).unwrap();
        let loaded = Job::load(&path).unwrap().unwrap();
        assert_eq!(loaded, job);
        let loaded = loaded.resumed(&asked("x")[..1]).unwrap().resumed(&asked("x")).unwrap();
        let Err(Failed::Usage(said)) = loaded.resumed(&asked("y")) else { panic!("it is another") };
        assert!(said.contains("--where was \"x\""), "{said}");
        fs::write(&path, "{").unwrap();
        assert!(
            matches!(Job::load(&path), Err(Failed::Data(said)) if said.contains("--overwrite"))
        );
    }
}
