//! One side of a pair of programs: how it is run, and what it must answer.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use super::super::{Cost, machine};
use super::Outcome;

/// How much of two files is compared at a time.
const COMPARED_BYTES: usize = 1 << 20;

/// A program with its arguments, run anew in every round. Its standard input is empty.
#[derive(Debug)]
pub struct Side {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    fresh: Option<PathBuf>,
    may_find_nothing: bool,
    says: Says,
    known: Option<u64>,
    /// How many bytes its file had last time.
    wrote: u64,
}

/// Where the answer is.
#[derive(Debug)]
enum Says {
    /// The sum of the numbers that the lines of the standard output begin with.
    Count,
    /// In a file that the program writes.
    Writes(PathBuf),
    /// In a file that the standard output goes to.
    Prints(PathBuf),
    /// It must have this number somewhere on its standard output.
    Mentions(u64),
    /// There is none.
    Nothing,
}

/// What a side answered.
#[derive(Debug)]
pub(super) enum Answer {
    Number(u64),
    File(PathBuf),
    /// It was looked at already, and is not of the other side's kind.
    Checked,
}

/// One run of a side.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) cost: Cost,
    pub(super) answer: Answer,
}

impl Side {
    fn new(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        says: Says,
    ) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            env: Vec::new(),
            fresh: None,
            may_find_nothing: false,
            says,
            known: None,
            wrote: 0,
        }
    }

    /// A program that prints a count, or one for each file: the first word of each line. No line
    /// at all counts nothing.
    pub fn counts(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        Self::new(program, args, Says::Count)
    }

    /// A program that writes its answer to this file. The file is removed when it was compared.
    pub fn writes(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        file: &Path,
    ) -> Self {
        Self::new(program, args, Says::Writes(file.to_owned()))
    }

    /// A program whose standard output goes to this file, and is its answer. The file is removed
    /// when it was compared.
    pub fn prints(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        file: &Path,
    ) -> Self {
        Self::new(program, args, Says::Prints(file.to_owned()))
    }

    /// A program that prints a table, with this number in it.
    pub fn mentions(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        number: u64,
    ) -> Self {
        Self::new(program, args, Says::Mentions(number))
    }

    /// A program that answers nothing.
    pub fn silent(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        Self::new(program, args, Says::Nothing)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Empties this folder before each run; that is not measured.
    #[must_use]
    pub fn fresh(mut self, folder: &Path) -> Self {
        self.fresh = Some(folder.to_owned());
        self
    }

    /// Exit code 1 says that nothing was found, as `grep` has it, and is no failure.
    #[must_use]
    pub fn may_find_nothing(mut self) -> Self {
        self.may_find_nothing = true;
        self
    }

    /// The count must be this one, and not the other side's.
    #[must_use]
    pub fn known(mut self, count: u64) -> Self {
        self.known = Some(count);
        self
    }

    /// Runs it once, and says what it took.
    ///
    /// # Errors
    ///
    /// Where it can't be run, fails, or answers what it must not.
    pub fn cost(&mut self) -> Outcome<Cost> {
        Ok(self.run()?.cost)
    }

    pub(super) fn run(&mut self) -> Outcome<Ran> {
        self.measured().map_err(|error| format!("`{}`: {error}", self.line()).into())
    }

    fn measured(&mut self) -> Outcome<Ran> {
        if let Some(folder) = &self.fresh {
            removed(fs::remove_dir_all(folder))?;
            fs::create_dir_all(folder)?;
        }
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Says::Prints(path) = &self.says {
            removed(fs::remove_file(path))?;
            command.stdout(File::create_new(path)?);
        } else {
            command.stdout(Stdio::piped());
        }
        touch(self.wrote)?;
        let (cost, ended) = finished(command)?;
        let answer = self.answer(&ended)?;
        if let Answer::File(path) = &answer {
            self.wrote = fs::metadata(path)?.len();
        }
        Ok(Ran { cost, answer })
    }

    fn answer(&self, ended: &Ended) -> Outcome<Answer> {
        let nothing_found = self.may_find_nothing && ended.status.code() == Some(1);
        if !(ended.status.success() || nothing_found) {
            return Err(format!("{}: {}", ended.status, ended.stderr.trim()).into());
        }
        let text = &ended.stdout;
        match &self.says {
            Says::Count => {
                let count = count(text)?;
                match self.known {
                    None => Ok(Answer::Number(count)),
                    Some(known) if known == count => Ok(Answer::Checked),
                    Some(known) => Err(format!("counts {count}, and there are {known}").into()),
                }
            }
            Says::Writes(path) | Says::Prints(path) => Ok(Answer::File(path.clone())),
            Says::Mentions(number) => {
                let digits = |text: &str| text.parse() == Ok(*number);
                let found = text.split(|letter: char| !letter.is_ascii_digit()).any(digits);
                let answer = found.then_some(Answer::Checked);
                answer.ok_or_else(|| format!("{number} is not in what it prints:\n{text}").into())
            }
            Says::Nothing => Ok(Answer::Checked),
        }
    }

    /// The command line, to be read.
    fn line(&self) -> String {
        let words = [&self.program].into_iter().chain(&self.args);
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// Has so much memory used, and given back. A virtual machine may have left what lay idle to its host,
/// and of two programs that write files the first to need it would pay for both. By a process of its
/// own, for what this one has used counts as a child's peak.
fn touch(bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let size = format!("bs={}", bytes.min(1 << 31));
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/zero", "of=/dev/null", "count=1", &size]);
    dd.stderr(Stdio::null()).status().map(drop)
}

/// What a program left when it had ended.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Runs a command to its end. What it prints is held: a count, or a table.
fn finished(mut command: Command) -> io::Result<(Cost, Ended)> {
    let start = Instant::now();
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both at once: whoever is not read from waits for us.
    let (stdout, stderr) = thread::scope(|scope| {
        let stderr = scope.spawn(|| text(stderr));
        (text(stdout), stderr.join())
    });
    let (status, used) = machine::wait(child)?;
    let cost = used.during(start.elapsed());
    let stderr = stderr.unwrap_or_else(|_| Ok(String::new()))?;
    Ok((cost, Ended { status, stdout: stdout?, stderr }))
}

/// All that comes, if anything is to come.
fn text(from: Option<impl Read>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        from.read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn count(text: &str) -> Result<u64, String> {
    let counts = text.lines().map(|line| {
        let word = line.split_whitespace().next().unwrap_or_default();
        word.parse::<u64>().map_err(|_| format!("`{line}` is no count"))
    });
    counts.sum()
}

/// What is not there need not be removed.
fn removed(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Compares two answers, and removes the files they are in.
pub(super) fn compare(ours: &Answer, theirs: &Answer) -> Outcome {
    match (ours, theirs) {
        (Answer::Number(ours), Answer::Number(theirs)) if ours != theirs => {
            Err(format!("ours counts {ours}, theirs {theirs}").into())
        }
        (Answer::File(ours), Answer::File(theirs)) => {
            if let Some(offset) = first_difference(ours, theirs)? {
                let (ours, theirs) = (ours.display(), theirs.display());
                return Err(format!("{ours} and {theirs} differ at byte {offset}").into());
            }
            fs::remove_file(ours)?;
            Ok(fs::remove_file(theirs)?)
        }
        (Answer::Number(_), Answer::File(_)) | (Answer::File(_), Answer::Number(_)) => {
            Err("one side counts and the other writes a file".into())
        }
        _ => Ok(()),
    }
}

/// About where two files begin to differ, if they do.
fn first_difference(ours: &Path, theirs: &Path) -> io::Result<Option<usize>> {
    let (mut ours, mut theirs) = (File::open(ours)?, File::open(theirs)?);
    let (mut our, mut their) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    let mut offset = 0;
    loop {
        let (our, their) = (fill(&mut ours, &mut our)?, fill(&mut theirs, &mut their)?);
        if our != their {
            let same = our.iter().zip(their).take_while(|(our, their)| our == their).count();
            return Ok(Some(offset + same));
        }
        if our.is_empty() {
            return Ok(None);
        }
        offset += our.len();
    }
}

/// Reads until the buffer is full or the file ends.
fn fill<'b>(file: &mut File, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(&buffer[..filled])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Side {
        Side::counts("sh", ["-c", script])
    }

    #[test]
    fn counts_are_added_up() {
        let counted = |script: &str| match shell(script).run().unwrap().answer {
            Answer::Number(count) => count,
            other => panic!("{other:?}"),
        };
        assert_eq!(counted("printf '3 file\\n4\\n'"), 7);
        assert_eq!(counted("true"), 0);
        assert!(shell("echo three").run().is_err());
    }

    #[test]
    fn an_answer_that_is_known_is_checked() {
        assert!(shell("echo 3").known(3).cost().is_ok());
        let error = shell("echo 3").known(4).cost().unwrap_err().to_string();
        assert!(error.ends_with("counts 3, and there are 4"), "{error}");
        let table = |number| Side::mentions("sh", ["-c", "echo 'ERROR  34 ***'"], number).cost();
        assert!(table(34).is_ok() && table(3).is_err());
    }

    #[test]
    fn an_exit_code_is_a_failure_unless_it_says_that_nothing_was_found() {
        let error = shell("echo why >&2; exit 1").cost().unwrap_err().to_string();
        assert!(error.ends_with("exit status: 1: why"), "{error}");
        assert!(shell("exit 1").may_find_nothing().cost().is_ok());
        assert!(shell("exit 2").may_find_nothing().cost().is_err());
    }

    #[test]
    fn files_are_compared_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (left, right) = (folder.path().join("left"), folder.path().join("right"));
        let side = |text: &str, path: &Path| Side::prints("printf", [text], path).run().unwrap();
        let compared = |our: &str, their: &str| {
            let (our, their) = (side(our, &left), side(their, &right));
            compare(&our.answer, &their.answer)
        };
        assert!(compared("same", "same").is_ok() && !left.exists() && !right.exists());
        for (our, their) in [("same", "some"), ("longer", "long"), ("", "x")] {
            let error = compared(our, their).unwrap_err().to_string();
            assert!(error.contains("differ at byte"), "{error}");
        }
        assert!(compare(&Answer::Number(1), &side("", &left).answer).is_err());
    }

    #[test]
    fn a_folder_is_emptied_before_each_run() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let script = format!("ls '{0}' | wc -l; touch '{0}/file'", state.display());
        let mut side = shell(&script).known(0).fresh(&state);
        assert!(side.cost().is_ok() && side.cost().is_ok());
    }
}
