//! Servers of each version: started, asked, broken, started again.

use super::*;
use crate::certificates::Authority;
use crate::proxy::FaultProxy;

/// Runs a query by a client of its own, and gives what it printed, or its error.
fn asked(server: &Postgres, url: &str, sql: &str) -> Result<String, String> {
    let mut command = server.psql_to(url);
    command.args(["-q", "-A", "-t", "-c", sql]);
    let ended = Program::of(command).ended(DEADLINE);
    if ended.status.success() { Ok(ended.stdout.trim().to_owned()) } else { Err(ended.stderr) }
}

#[test]
fn texts_are_escaped() {
    assert_eq!(escaped("a b/ü@"), "a%20b%2F%C3%BC%40");
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn each_version_starts_and_answers() {
    for version in Version::all() {
        let server = Postgres::of(version).setting("statement_timeout", "77s").start();
        assert_eq!(server.psql("SHOW statement_timeout; SHOW fsync"), "77s\noff");
        assert_eq!(asked(&server, &server.url(), "SELECT 6 * 7"), Ok("42".to_owned()));
        let major = server.psql("SHOW server_version_num").parse::<u32>().unwrap() / 10_000;
        assert_eq!(major == 18, version == Version::V18, "{version:?} is {major}");
        let rows = server.rows("SELECT 1, NULL, '' UNION ALL SELECT 2, E'a\\tb', 'é'");
        assert_eq!(rows[0], [Some("1".to_owned()), None, Some(String::new())]);
        assert_eq!(rows[1].concat_texts(), "2a\tbé");
        assert_eq!(server.rows("SELECT ''"), [[Some(String::new())]]);
        let said = server.try_psql("SELECT 1; SELECT 1 / 0; SELECT 2").unwrap_err();
        assert!(said.contains("division by zero"), "{said}");
    }
}

trait ConcatTexts {
    fn concat_texts(&self) -> String;
}

impl ConcatTexts for Row {
    fn concat_texts(&self) -> String {
        self.iter().flatten().map(String::as_str).collect()
    }
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn what_was_committed_is_there_after_a_kill_and_a_stop() {
    for version in Version::all() {
        let mut server = Postgres::of(version).start();
        let (url, first) = (server.url(), server.id().unwrap());
        server.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
        let mut sleeping = server.psql_to(&url);
        sleeping.args(["-c", "INSERT INTO t SELECT 0 FROM pg_sleep(600)"]);
        let sleeping = Program::of(sleeping);
        wait_for("the client", DEADLINE, || (server.clients() == 1).then_some(()));
        let backends = children(first);
        server.kill();
        assert!(backends.len() > 1 && backends.iter().all(|backend| is_gone(*backend)));
        assert!(!sleeping.ended(DEADLINE).status.success());
        assert_eq!(server.id(), None);
        assert!(asked(&server, &url, "SELECT 1").is_err());

        server.restart();
        assert_ne!(server.id(), Some(first));
        assert_eq!(asked(&server, &url, "SELECT count(*) FROM t"), Ok("1000".to_owned()));
        assert!(server.log().contains("redo"), "it recovers: {}", server.log());
        server.stop_cleanly();
        server.restart();
        assert_eq!(server.psql("SELECT count(*) FROM t"), "1000");
        assert!(!server.log().contains("redo"), "it had stopped cleanly: {}", server.log());
    }
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn nothing_is_left_of_a_server_that_is_dropped() {
    let server = Postgres::start();
    let (id, folder) = (server.id().unwrap(), server.socket_folder().to_owned());
    assert!(folder.join(format!(".s.PGSQL.{}", server.port())).exists());
    let backends = children(id);
    drop(server);
    assert!(is_gone(id) && backends.iter().all(|backend| is_gone(*backend)));
    assert!(!folder.exists());
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn backends_are_terminated() {
    let server = Postgres::start();
    assert_eq!(server.terminate_backends(), 0);
    let mut sleeping = server.psql_to(&server.url());
    sleeping.args(["-c", "SELECT pg_sleep(600)"]);
    let sleeping = Program::of(sleeping);
    wait_for("the client", DEADLINE, || (server.clients() == 1).then_some(()));
    assert_eq!((server.terminate_backends(), server.clients()), (1, 0));
    let said = sleeping.ended(DEADLINE).stderr;
    assert!(said.contains("terminating connection due to administrator command"), "{said}");
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn who_has_no_password_is_refused() {
    for version in Version::all() {
        let server = Postgres::of(version).password("o'brien \"x\"", "p@ss/word").start();
        assert_eq!(asked(&server, &server.url(), "SELECT 1"), Ok("1".to_owned()));
        let wrong = server.url_as(server.address(), "o'brien \"x\"", Some("wrong"), POSTGRES);
        let said = asked(&server, &wrong, "SELECT 1").unwrap_err();
        assert!(said.contains("password authentication failed"), "{said}");
        let kept = server.psql("SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'o%'");
        assert!(kept.starts_with("SCRAM-SHA-256$"), "{kept}");
    }
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn a_password_is_asked_for_as_told() {
    let builder = Postgres::of(Version::V18).setting("password_encryption", "md5");
    let server = builder.method("md5").password(POSTGRES, "secret").start();
    assert_eq!(asked(&server, &server.url(), "SELECT 1"), Ok("1".to_owned()));
    assert!(server.psql("SELECT rolpassword FROM pg_authid").contains("md5"));
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn tls_is_offered_and_demanded() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let builder = Postgres::of(Version::System).tls(&authority.issue("server")).tls_only();
    let server = builder.password("ann", "secret").start();
    let file = authority.file().display();
    let tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let verified = format!("{}?sslmode=verify-full&sslrootcert={file}", server.url());
    assert_eq!(asked(&server, &verified, tls), Ok("t".to_owned()));
    let said = asked(&server, &format!("{}?sslmode=disable", server.url()), tls).unwrap_err();
    assert!(said.contains("no encryption"), "{said}");

    let elsewhere = authority.issue_for("other", "else.test");
    let other = Postgres::of(Version::System).tls(&elsewhere).start();
    let verified = format!("{}?sslmode=verify-full&sslrootcert={file}", other.url());
    let said = asked(&other, &verified, tls).unwrap_err();
    assert!(said.contains("does not match host name"), "{said}");
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn a_client_is_cut_off_by_the_network() {
    let server = Postgres::start();
    let proxy = FaultProxy::to(server.address());
    let url = server.url_through(proxy.address());
    assert_eq!(asked(&server, &url, "SELECT 1"), Ok("1".to_owned()));
    proxy.cut_after(Some(100_000));
    let mut reading = server.psql_to(&url);
    reading.args(["-c", "COPY (SELECT generate_series(1, 1000000)) TO STDOUT"]);
    let ended = Program::of(reading).ended(DEADLINE);
    assert!(!ended.status.success() && !ended.stdout.ends_with("1000000\n"), "{}", ended.stderr);
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn servers_start_beside_one_another() {
    let starting: Vec<_> = (0..4).map(|_| thread::spawn(Postgres::start)).collect();
    let servers: Vec<_> = starting.into_iter().map(|server| server.join().unwrap()).collect();
    for server in &servers {
        assert_eq!(server.psql("SELECT 1"), "1");
    }
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
#[should_panic(expected = "no_such_setting")]
fn a_server_that_does_not_start_says_why() {
    Postgres::of(Version::V18).setting("no_such_setting", "1").start();
}
