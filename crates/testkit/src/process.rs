//! A program under test: started, watched, stopped in every way there is, and never left behind.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at that nothing tells about.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until a condition gives something.
///
/// # Panics
///
/// After the deadline, with what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(began.elapsed() < deadline, "waited {deadline:?} in vain for {what}");
        thread::park_timeout(LOOK_EVERY);
    }
}

/// A running program; killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdout: Option<Output>,
    stderr: Option<Output>,
}

/// What it has written so far, and word of the end.
#[derive(Debug)]
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

/// What a program left when it had ended.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to its standard output, with what is no UTF-8 replaced.
    pub stdout: String,
    /// All it wrote to its standard error.
    pub stderr: String,
}

impl Ended {
    /// The exit code; `None` where a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Program {
    /// Starts a program with these arguments, in a folder; both its outputs are kept.
    ///
    /// # Panics
    ///
    /// Where it can't be started.
    #[track_caller]
    pub fn start(
        program: impl AsRef<OsStr>,
        folder: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        let mut command = Command::new(program.as_ref());
        command.args(arguments).current_dir(folder);
        Self::of(command)
    }

    /// Starts a command; what it says is kept, its input is empty unless it has one.
    ///
    /// # Panics
    ///
    /// Where it can't be started.
    #[track_caller]
    pub fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = command.spawn();
        let mut child = started.unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
        let stdout = child.stdout.take().map(Output::of);
        let stderr = child.stderr.take().map(Output::of);
        Self { child, stdout, stderr }
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The running child, to write to its input.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it is still running after so long; it is not disturbed.
    pub fn runs_for(&mut self, time: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < time {
            if !self.is_running() {
                return false;
            }
            thread::park_timeout(LOOK_EVERY.min(time));
        }
        self.is_running()
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.as_ref().map(Output::text).unwrap_or_default()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by its name, such as `TERM`, `INT`, `STOP`, `CONT`.
    ///
    /// # Panics
    ///
    /// Where it can't be sent.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.id())]).status();
        assert!(sent.is_ok_and(|status| status.success()), "can't send {name}");
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.kill_now();
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// Where it does not end in time; it is killed then.
    #[track_caller]
    pub fn ended(mut self, deadline: Duration) -> Ended {
        let status =
            wait_for("a program to end", deadline, || self.child.try_wait().ok().flatten());
        let said = |output: Option<Output>| {
            let Some(output) = output else { return String::new() };
            let ended = output.ended.recv_timeout(deadline);
            assert!(ended != Err(RecvTimeoutError::Timeout), "its output is held open");
            output.text()
        };
        let (stdout, stderr) = (said(self.stdout.take()), said(self.stderr.take()));
        Ended { status, stdout, stderr }
    }

    /// A line of `/proc/PID/status` in KiB: `VmHWM` is the most memory it has had, `VmRSS` what it
    /// has. `None` where there is no such thing.
    pub fn memory_kib(&self, line: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|found| found.strip_prefix(line))?;
        line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().ok()
    }

    /// How many bytes it has read through system calls.
    pub fn bytes_read(&self) -> Option<u64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.id())).ok()?;
        io.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()
    }

    fn kill_now(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill_now();
    }
}

impl Output {
    /// Reads to the end in a thread, so that the program never waits for us.
    fn of(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = channel();
        let gathered = Arc::clone(&bytes);
        thread::spawn(move || {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = from.read(&mut piece) {
                lock(&gathered).extend_from_slice(&piece[..count]);
            }
            end.send(()).unwrap_or(());
        });
        Self { bytes, ended }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.bytes)).into_owned()
    }
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Program {
        Program::start("sh", Path::new("/"), ["-c", script])
    }

    #[test]
    fn says_how_it_ended_and_what_it_said() {
        let ended = shell("echo out; echo err >&2; exit 3").ended(DEADLINE);
        assert_eq!(ended.code(), Some(3));
        assert_eq!((&*ended.stdout, &*ended.stderr), ("out\n", "err\n"));
    }

    #[test]
    fn signals_reach_it() {
        let program = shell("trap 'exit 7' TERM; echo; while :; do sleep 0.01; done");
        let mut sent = 0;
        let mut program = program;
        let status = wait_for("the trap", DEADLINE, || {
            if sent < 1_000 && program.is_running() {
                program.signal("TERM");
                sent += 1;
            }
            program.child().try_wait().ok().flatten()
        });
        assert!(status.code() == Some(7) || status.code().is_none(), "{status}");
    }

    #[test]
    fn it_does_not_outlive_us() {
        let program = shell("while :; do sleep 0.01; done");
        assert!(program.memory_kib("VmRSS").is_none_or(|kib| kib > 0));
        let id = program.id();
        drop(program);
        assert!(!Path::new(&format!("/proc/{id}/status")).exists());
    }
}
