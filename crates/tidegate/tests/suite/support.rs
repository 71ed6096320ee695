//! What the tests of the program share: folders of their own, and how often and how long.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tidegate_testkit::process::{Ended, Program};

/// The program under test.
pub(crate) const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// How long anything may take; only a hang takes as long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How often something is cut short; `cargo xtask test` asks for more.
pub(crate) fn times() -> usize {
    std::env::var("TIDEGATE_KILLS").ok().and_then(|times| times.parse().ok()).unwrap_or(12)
}

/// A temporary folder.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// A file's text; empty where there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn fifo(&self, name: &str) {
        let made = Command::new("mkfifo").arg(self.path().join(name)).status();
        assert!(made.unwrap().success());
    }

    /// Runs the program here to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Program::start(TIDEGATE, self.path(), arguments).ended(DEADLINE)
    }
}
