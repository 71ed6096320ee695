//! Texts and what is said of them, word for word, in files that people read.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Where this is set, what is said is written anew, to be read before it is committed.
const UPDATE: &str = "UPDATE_CASES";

/// Holds what `say` makes of each case's text against what its file says, and gives the names of all
/// cases of a folder.
///
/// A case is a name after `=== `, a text, and after a line `---` what is said of it.
///
/// # Panics
///
/// Where it says something else, where two cases have one name, and where files can't be read.
#[track_caller]
pub fn check(folder: &Path, say: impl Fn(&str) -> String) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    for path in entries.map_while(|entry| Some(entry.ok()?.path())) {
        let file = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let mut anew = String::new();
        for case in file.split("=== ").filter(|case| !case.trim().is_empty()) {
            let (name, rest) = case.split_once('\n').unwrap_or((case, ""));
            let Some((text, expected)) = rest.split_once("---\n") else {
                panic!("{path:?}: `{name}` has no line `---`")
            };
            let said = say(text);
            let said = said.trim_end();
            if std::env::var_os(UPDATE).is_none() {
                assert_eq!(said, expected.trim_end(), "`{name}` of {path:?}; see {UPDATE}");
            }
            assert!(names.insert(name.to_owned()), "two cases are called `{name}`");
            // Writing to a text can't fail.
            let _ = write!(anew, "=== {name}\n{text}---\n{said}\n\n");
        }
        if std::env::var_os(UPDATE).is_some() {
            let written = fs::write(&path, anew.trim_end().to_owned() + "\n");
            written.unwrap_or_else(|error| panic!("{path:?}: {error}"));
        }
    }
    names
}
