//! One command line: printed, run, timed, and repeatable by whoever reads that it failed.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;
use std::{env, fs};

/// The folder of the workspace. Cargo says where it runs us from; where we were built may be another
/// checkout that shares the target folder.
pub(crate) fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| "crates/xtask".into());
    Path::new(&package).join("../..")
}

/// Where builds go: `CARGO_TARGET_DIR`, or a cache that outlives the checkout.
pub(crate) fn target_dir() -> PathBuf {
    match (env::var_os("CARGO_TARGET_DIR"), env::var_os("HOME")) {
        (Some(dir), _) => dir.into(),
        (None, Some(home)) => Path::new(&home).join(".cache/tidegate-target"),
        (None, None) => root().join("target"),
    }
}

/// Environment variables and a command line, as it would be typed.
pub(crate) struct Step<'a> {
    pub(crate) env: &'a [(&'a str, &'a str)],
    pub(crate) command: &'a str,
}

impl Step<'_> {
    /// Runs it in the workspace's folder. What it prints is shown, and given back.
    pub(crate) fn run(&self) -> Result<String, String> {
        println!("\n$ {self}");
        let start = Instant::now();
        let mut child = self.spawn()?;
        let mut output = Vec::new();
        if let Some(from) = child.stdout.take() {
            let shown = show(from, &mut output);
            shown.map_err(|error| format!("cannot read what `{self}` prints: {error}"))?;
        }
        let status = child.wait().map_err(|error| format!("lost `{self}`: {error}"))?;
        println!("({self}: {:.0} s)", start.elapsed().as_secs_f64());
        self.checked(status, output)
    }

    /// Runs it without showing what it prints.
    pub(crate) fn read(&self) -> Result<String, String> {
        let output = self.spawn()?.wait_with_output();
        let output =
            output.map_err(|error| format!("cannot read what `{self}` prints: {error}"))?;
        self.checked(output.status, output.stdout)
    }

    fn spawn(&self) -> Result<Child, String> {
        let mut words = self.command.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).current_dir(root()).stdin(Stdio::null()).stdout(Stdio::piped());
        command.env("CARGO_TARGET_DIR", target_dir()).envs(self.env.iter().copied());
        command.spawn().map_err(|error| format!("cannot run `{self}`: {error}"))
    }

    fn checked(&self, status: ExitStatus, output: Vec<u8>) -> Result<String, String> {
        if status.success() {
            Ok(String::from_utf8_lossy(&output).into_owned())
        } else {
            Err(format!("failed ({status}); to run it again: {self}"))
        }
    }
}

/// Copies to the standard output as it comes, and keeps it.
fn show(mut from: impl Read, output: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4096];
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        io::stdout().write_all(&chunk[..read])?;
        output.extend_from_slice(&chunk[..read]);
    }
}

impl std::fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in self.env {
            write!(f, "{name}='{value}' ")?;
        }
        f.write_str(self.command)
    }
}

/// Writes a file and the folders above it.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
