//! Real PostgreSQL servers: started in a moment, each with a folder and a port of its own, broken in
//! every way there is, and never left behind.
//!
//! ```no_run
//! use tidegate_testkit::postgres::{Postgres, Version};
//!
//! for version in Version::all() {
//!     let mut server = Postgres::of(version).setting("statement_timeout", "1s").start();
//!     server.psql("CREATE TABLE t (id bigint PRIMARY KEY)");
//!     println!("a client may connect to {}", server.url());
//!     server.kill();
//!     server.restart(); // at the same address, with the same rows
//! }
//! ```

/// The files of a server.
mod cluster;

/// Where the programs are, and who runs them.
mod installed;

/// Tables of random types.
pub mod random;

use std::env;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates::Issued;
use crate::process::{Ended, Program, wait_for};
use crate::rows::{self, Row};
use installed::Installed;

pub use installed::Version;

/// How long a server may take to start, to recover, or to stop.
const DEADLINE: Duration = Duration::from_secs(120);

/// How long statements may take: benchmarks make large tables.
const STATEMENTS_DEADLINE: Duration = Duration::from_secs(600);

/// How long a backend may take to end.
const TERMINATE_MS: u32 = 20_000;

/// Servers listen below the ports that the system gives to outgoing connections: one that is down
/// finds its own free when it comes back.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// How many ports are tried; others may take one between our look and the server's.
const PORTS_TRIED: usize = 20;

/// The superuser, and a database.
const POSTGRES: &str = "postgres";

/// A PostgreSQL server on 127.0.0.1 and on a Unix socket. When it is dropped it is killed, and its
/// folder removed.
#[derive(Debug)]
pub struct Postgres {
    installed: Installed,
    // Before the folder, to be gone when that is removed.
    server: Running,
    folder: TempDir,
    port: u16,
    /// Who clients are, and the password where they need one.
    login: (String, Option<String>),
}

/// How a server is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    version: Version,
    settings: Vec<(String, String)>,
    logins: Vec<(String, String)>,
    method: &'static str,
    tls: Option<Issued>,
    tls_only: bool,
}

/// The postmaster, while there is one; it and its backends are killed when this is dropped.
#[derive(Debug)]
struct Running(Option<Program>);

impl Builder {
    fn new(version: Version) -> Self {
        let settings = Vec::new();
        let (logins, method) = (Vec::new(), "scram-sha-256");
        // It survives a kill, and need not survive a power cut.
        Self { version, settings, logins, method, tls: None, tls_only: false }
            .setting("fsync", "off")
            .setting("full_page_writes", "off")
            .setting("shared_buffers", "16MB")
    }

    /// A setting of `postgresql.conf`, such as `max_connections`, `wal_level` or
    /// `statement_timeout`; the last of a name counts.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits for the disk as a server does that is in earnest.
    #[must_use]
    pub fn durable(self) -> Self {
        self.setting("fsync", "on").setting("full_page_writes", "on")
    }

    /// Whoever comes by TCP needs a password; this is that of a user, who is made where there is
    /// none and may log in. [`Postgres::url`] names the first.
    #[must_use]
    pub fn password(mut self, user: &str, password: &str) -> Self {
        self.logins.push((user.to_owned(), password.to_owned()));
        self
    }

    /// How the password is asked for, where it is not `scram-sha-256`: `md5` or `password`. What is
    /// kept of passwords is the setting `password_encryption`.
    #[must_use]
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Offers TLS with this certificate. The package of [`Version::V18`] can't: it does not start.
    #[must_use]
    pub fn tls(mut self, issued: &Issued) -> Self {
        self.tls = Some(issued.clone());
        self
    }

    /// Refuses whoever comes by TCP without TLS.
    #[must_use]
    pub fn tls_only(mut self) -> Self {
        self.tls_only = true;
        self
    }

    /// Starts the server, and waits until it takes connections.
    ///
    /// # Panics
    ///
    /// Where PostgreSQL is not installed, with the command that installs it, and where it does not
    /// start, with what it says.
    #[track_caller]
    pub fn start(self) -> Postgres {
        let installed = Installed::find(self.version);
        let folder = cluster::folder(&installed);
        cluster::configure(&installed, folder.path(), &self);
        let login = match self.logins.first() {
            Some((user, password)) => (user.clone(), Some(password.clone())),
            None => (POSTGRES.to_owned(), None),
        };
        let mut postgres = Postgres { installed, server: Running(None), folder, port: 0, login };
        for _ in 0..PORTS_TRIED {
            postgres.port = free_port();
            match postgres.launch() {
                Ok(()) => {
                    for (user, password) in &self.logins {
                        postgres.psql(&cluster::login(user, password));
                    }
                    return postgres;
                }
                Err(said) if said.contains("Address already in use") => {}
                Err(said) => panic!("PostgreSQL does not start: {said}"),
            }
        }
        panic!("of {PORTS_TRIED} ports none stayed free until PostgreSQL had it");
    }
}

impl Postgres {
    /// A server of [`Version::V18`] that trusts everybody.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`].
    #[track_caller]
    pub fn start() -> Self {
        Self::of(Version::V18).start()
    }

    /// A server of a version, to be described further.
    pub fn of(version: Version) -> Builder {
        Builder::new(version)
    }

    /// Which version it is.
    pub fn version(&self) -> Version {
        self.installed.version
    }

    /// What a client connects to, `postgres://USER[:PASSWORD]@127.0.0.1:PORT/postgres`.
    pub fn url(&self) -> String {
        self.url_through(self.address())
    }

    /// The same by another way, a proxy in front of it.
    pub fn url_through(&self, address: SocketAddr) -> String {
        let (user, password) = &self.login;
        self.url_as(address, user, password.as_deref(), POSTGRES)
    }

    /// The same for another user, with the right password or not, and another database.
    pub fn url_as(
        &self,
        address: SocketAddr,
        user: &str,
        password: Option<&str>,
        database: &str,
    ) -> String {
        let password = password.map(|password| format!(":{}", escaped(password)));
        let (user, password) = (escaped(user), password.unwrap_or_default());
        format!("postgres://{user}{password}@{address}/{}", escaped(database))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The port that it listens at; it stays the same when it is started again.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its Unix socket, where everybody is trusted.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The postmaster's process number; `None` where it is stopped.
    pub fn id(&self) -> Option<u32> {
        self.server.0.as_ref().map(Program::id)
    }

    /// What it has written to its log since it was started.
    pub fn log(&self) -> String {
        self.server.0.as_ref().map(Program::stderr).unwrap_or_default()
    }

    /// `psql` of its version, as superuser over the socket: nothing but rows is printed, and the
    /// first error ends it.
    pub fn psql_command(&self) -> Command {
        let mut command = self.psql_to(&format!(
            "host={} port={} user={POSTGRES} dbname={POSTGRES}",
            self.folder.path().display(),
            self.port
        ));
        command.args(["-q", "-A", "-t"]);
        command
    }

    /// `psql` of its version, connected to something else: a URL, perhaps through a proxy.
    pub fn psql_to(&self, connection: &str) -> Command {
        let mut command = Command::new(self.installed.bin.join("psql"));
        command.args(["-X", "-v", "ON_ERROR_STOP=1", "-d", connection]);
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs statements, each a transaction of its own, and gives the rows that they print.
    ///
    /// # Panics
    ///
    /// Where one fails, with what the server says.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        self.try_psql(sql).unwrap_or_else(|said| panic!("psql: {said}\nin: {sql}"))
    }

    /// The same.
    ///
    /// # Errors
    ///
    /// What `psql` says of the first statement that fails.
    #[track_caller]
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        let mut printed = self.printed(sql)?;
        if printed.ends_with('\n') {
            printed.pop();
        }
        Ok(printed)
    }

    #[track_caller]
    fn printed(&self, sql: &str) -> Result<String, String> {
        let Ended { status, stdout, stderr } = fed(self.psql_command(), sql);
        if status.success() { Ok(stdout) } else { Err(stderr) }
    }

    /// What a query gives, each value as the server writes it.
    ///
    /// # Panics
    ///
    /// Where it fails, with what the server says.
    #[track_caller]
    pub fn rows(&self, query: &str) -> Vec<Row> {
        let printed = self.printed(&format!("COPY ({query}) TO STDOUT;"));
        rows::of_copy(&printed.unwrap_or_else(|said| panic!("psql: {said}\nin: {query}")))
    }

    /// How many connections clients hold, our own not counted.
    ///
    /// # Panics
    ///
    /// Where the server is stopped.
    #[track_caller]
    pub fn clients(&self) -> u32 {
        self.number(&format!("SELECT count(*) {OTHERS}"))
    }

    /// Ends all connections of clients, as an administrator does, waits until they are gone, and
    /// gives how many that were.
    ///
    /// # Panics
    ///
    /// Where the server is stopped.
    #[track_caller]
    pub fn terminate_backends(&self) -> u32 {
        let ended = format!("pg_terminate_backend(pid, {TERMINATE_MS})");
        self.number(&format!("SELECT count(*) FILTER (WHERE {ended}) {OTHERS}"))
    }

    fn number(&self, query: &str) -> u32 {
        let said = self.psql(query);
        said.parse().unwrap_or_else(|_| panic!("`{query}` gives no number: {said}"))
    }

    /// `kill -9` of the postmaster and all that belongs to it, at once. What was committed is found
    /// again by [`restart`](Self::restart).
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops it as an administrator does: clients are told and cut off, the data is written.
    ///
    /// # Panics
    ///
    /// Where it takes too long or fails.
    #[track_caller]
    pub fn stop_cleanly(&mut self) {
        let Some(server) = self.server.0.take() else { return };
        server.signal("INT");
        let ended = server.ended(DEADLINE);
        assert!(ended.status.success(), "PostgreSQL stopped with an error: {}", ended.stderr);
    }

    /// Starts it again at the same address, after it was stopped cleanly if it still runs.
    ///
    /// # Panics
    ///
    /// Where it does not start.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop_cleanly();
        self.launch().unwrap_or_else(|said| panic!("PostgreSQL does not start again: {said}"));
    }

    /// Starts the postmaster and waits until it takes connections, or gives what it says when it
    /// ends instead.
    #[track_caller]
    fn launch(&mut self) -> Result<(), String> {
        let mut command = self.installed.command("postgres", self.folder.path());
        command.arg("-D").arg(cluster::data(self.folder.path()));
        command.args(["-p", &self.port.to_string()]);
        let mut server = Program::of(command);
        let ready = wait_for("PostgreSQL to be ready", DEADLINE, || {
            let is_ready = cluster::is_ready(self.folder.path(), server.id());
            (is_ready || !server.is_running()).then_some(is_ready)
        });
        if !ready {
            return Err(server.ended(DEADLINE).stderr);
        }
        self.server = Running(Some(server));
        Ok(())
    }
}

/// Connections of clients, but for the one that asks.
const OTHERS: &str =
    "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

impl Running {
    /// Kills the postmaster first, so that it starts nothing more, and then what it had started.
    fn kill(&mut self) {
        let Some(server) = self.0.take() else { return };
        // Those of one that is stopped are all there are.
        send("STOP", &[server.id()]);
        let backends = children(server.id());
        server.kill();
        send("KILL", &backends);
        wait_for("backends to be gone", DEADLINE, || {
            backends.iter().all(|backend| is_gone(*backend)).then_some(())
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to those that are still there.
fn send(signal: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    let processes: Vec<String> = processes.iter().map(u32::to_string).collect();
    let script = format!("kill -{signal} {}", processes.join(" "));
    let _ = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
}

/// Runs a command with this input.
#[track_caller]
fn fed(mut command: Command, input: &str) -> Ended {
    command.stdin(Stdio::piped());
    let mut program = Program::of(command);
    let stdin = program.child().stdin.take();
    thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
        program.ended(STATEMENTS_DEADLINE)
    })
}

/// Those that a process has started and that are there.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|id| stat(*id).is_some_and(|(_, of)| of == parent)).collect()
}

/// Whether a process has ended, waited for or not.
fn is_gone(process: u32) -> bool {
    stat(process).is_none_or(|(state, _)| state == "Z")
}

/// The state and the parent of a process.
fn stat(process: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // A name may have anything in it, brackets too.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let tried = || Some(fastrand::u16(PORTS)).filter(is_free);
    wait_for("a free port", DEADLINE, tried)
}

/// A text as a part of a URL.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests;
