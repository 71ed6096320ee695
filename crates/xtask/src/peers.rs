//! What tests and benchmarks need besides cargo: programs of the system, and packages of languages.
//!
//! Where they are found again, `crates/testkit/src/peers.rs` says.

use crate::step::{Step, target_dir};

/// Programs that live streams are tested with: what shows that one is there, and its package.
const PROGRAMS: [(&str, &str); 8] = [
    ("curl --version", "curl"),
    ("socat -V", "socat"),
    ("logger --version", "bsdutils"),
    ("rsyslogd -v", "rsyslog"),
    ("chromium --version", "chromium"),
    ("node --version", "nodejs"),
    ("npm --version", "npm"),
    ("python3 -m pip --version", "python3-pip"),
];

/// Packages of languages: what shows that one is there, below the target folder, and what gets it
/// there. What is young and may change how it is called has its version.
const PACKAGES: [(&str, &str); 3] = [
    (
        "peers/python/websockets",
        "python3 -m pip install -q --upgrade --target peers/python websockets",
    ),
    (
        "peers/python/kosoku",
        "python3 -m pip install -q --upgrade --target peers/python kosoku==0.1.0",
    ),
    ("peers/node/node_modules/ws", "npm install --no-audit --no-fund --prefix peers/node ws"),
];

/// Gets what the tests of live streams need: peers that nobody here wrote.
pub(crate) fn fetch() -> Result<(), String> {
    fetch_programs("the tests", &PROGRAMS)?;
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
    let packages = missing.join(" ");
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
    fn what_is_there_is_not_fetched() {
        assert_eq!(fetch_programs("the tests", &[("true", "a-package-that-nobody-has")]), Ok(()));
    }
}
