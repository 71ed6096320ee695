//! The files of a server: a copy of an empty cluster, and what its settings say.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::installed::{Installed, User};
use super::{Builder, DEADLINE, POSTGRES};
use crate::peers;
use crate::process::Program;

/// The longest path of a socket, on Linux; other systems have a little less.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// A folder for a server, its user's, with an empty cluster in it.
#[track_caller]
pub(super) fn folder(installed: &Installed) -> TempDir {
    // Whoever makes another kind of cluster gives it another name.
    let empty = peers::folder(&installed.cluster());
    kept(&empty, |folder| {
        let made = own_folder(installed);
        let mut initdb = installed.command("initdb", made.path());
        initdb.args(["--username", POSTGRES, "--encoding", "UTF8", "--locale", "C.UTF-8"]);
        initdb.args(["--auth", "trust", "--no-sync", "--no-instructions"]);
        initdb.arg("--pgdata").arg(data(made.path()));
        let ended = Program::of(initdb).ended(DEADLINE);
        assert!(ended.status.success(), "initdb: {}{}", ended.stdout, ended.stderr);
        copy(&data(made.path()), folder, None)
    });
    let folder = own_folder(installed);
    done("copy an empty cluster", copy(&empty, &data(folder.path()), installed.user));
    folder
}

/// Where in a server's folder its data is.
pub(super) fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// A new folder that belongs to the user of a server, with a path that a socket's may begin with.
#[track_caller]
fn own_folder(installed: &Installed) -> TempDir {
    let socket = Path::new("pg-random/.s.PGSQL.65535");
    let usual = env::temp_dir();
    let fits = usual.join(socket).as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
    let within = if fits { usual } else { PathBuf::from("/tmp") };
    let folder = done("make a folder for PostgreSQL", TempDir::with_prefix_in("pg-", within));
    done("give it to the server's user", give(folder.path(), installed.user));
    folder
}

/// Says what was to be, in the folder of a server that is not yet started.
#[track_caller]
pub(super) fn configure(installed: &Installed, folder: &Path, builder: &Builder) {
    let data = data(folder);
    let mut settings = format!(
        "\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = {}\ntimezone = 'UTC'\n\
         log_timezone = 'UTC'\nlc_messages = 'C'\n",
        quoted(&folder.display().to_string())
    );
    if let Some(issued) = &builder.tls {
        settings += "ssl = on\n"; // the files have their usual names
        for (from, name) in [(&issued.certificate, "server.crt"), (&issued.key, "server.key")] {
            let to = data.join(name);
            let copied = fs::copy(from, &to)
                .and_then(|_| fs::set_permissions(&to, Permissions::from_mode(0o600)))
                .and_then(|()| give(&to, installed.user));
            done("copy the certificate", copied);
        }
    }
    for (name, value) in &builder.settings {
        // Writing to a text can't fail.
        let _ = writeln!(settings, "{name} = {}", quoted(value));
    }
    let by_tcp = if builder.tls_only { "hostssl" } else { "host" };
    let method = if builder.logins.is_empty() { "trust" } else { builder.method };
    let who = format!("local all all trust\n{by_tcp} all all all {method}\n");
    let file = data.join("postgresql.conf");
    let written = fs::read_to_string(&file).and_then(|usual| fs::write(&file, usual + &settings));
    done(
        "write PostgreSQL's settings",
        written.and_then(|()| fs::write(data.join("pg_hba.conf"), who)),
    );
}

/// What gives a user a password.
pub(super) fn login(user: &str, password: &str) -> String {
    let (text, name) = (quoted(user), user.replace('"', "\"\""));
    let password = quoted(password);
    format!(
        "SELECT format('CREATE ROLE %I', {text})\n\
         WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {text}) \\gexec\n\
         ALTER ROLE \"{name}\" LOGIN PASSWORD {password};\n"
    )
}

/// Whether the postmaster of this number takes connections; it writes so itself.
pub(super) fn is_ready(folder: &Path, postmaster: u32) -> bool {
    let lines = fs::read_to_string(data(folder).join("postmaster.pid")).unwrap_or_default();
    let mut lines = lines.lines().map(str::trim);
    lines.next() == Some(&postmaster.to_string()) && lines.any(|line| line == "ready")
}

/// A text in quotes, for the settings and for SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A folder that is made once, by whoever comes first; it is there with all that is in it, or not
/// at all.
#[track_caller]
pub(super) fn kept(folder: &Path, make: impl FnOnce(&Path) -> io::Result<()>) {
    if folder.is_dir() {
        return;
    }
    let beside = folder.parent().unwrap_or(Path::new("."));
    done("make a folder", fs::create_dir_all(beside));
    let draft = done("make a folder", TempDir::with_prefix_in("draft-", beside));
    let made = draft.path().join("made");
    done("make what is kept", make(&made));
    let renamed = fs::rename(&made, folder);
    assert!(folder.is_dir(), "can't make {}: {renamed:?}", folder.display());
}

/// Copies a folder with all that is in it, and gives the copy to somebody.
pub(super) fn copy(from: &Path, to: &Path, user: Option<User>) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?;
    if kind.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()), user)?;
        }
        fs::set_permissions(to, kind.permissions())?;
    } else if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    } else {
        fs::copy(from, to)?;
    }
    give(to, user)
}

fn give(path: &Path, user: Option<User>) -> io::Result<()> {
    user.map_or(Ok(()), |User { uid, gid }| chown(path, Some(uid), Some(gid)))
}

#[track_caller]
fn done<T>(what: &str, done: io::Result<T>) -> T {
    done.unwrap_or_else(|error| panic!("can't {what}: {error}"))
}
