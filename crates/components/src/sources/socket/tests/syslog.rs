//! What `logger` and rsyslog really send.

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt8Type;
use tidegate_testkit::peers;
use tidegate_testkit::process::{Program, wait_for};

use super::*;

/// How often each peer says something.
const TIMES: usize = 200;

async fn open_logs(settings: &str) -> Open {
    let settings = format!("codec = \"syslog\"\n{settings}");
    open_with(16 << 20, &settings, None, &[1, 2, 4, 5]).await.unwrap()
}

/// Each row's severity, level, application and message.
fn rows(batch: &SourceBatch) -> Vec<(u8, String, String, String)> {
    let severities = batch.rows.column(0).as_primitive::<UInt8Type>();
    let (levels, messages) = (batch.rows.column(1), batch.rows.column(2));
    let (levels, messages) = (levels.as_string::<i32>(), messages.as_string_view());
    let metadata = batch.rows.column(3).as_map();
    let row = |row: usize| {
        let pairs = metadata.value(row);
        let keys = pairs.column(0).as_string::<i32>();
        let app = keys.iter().position(|key| key == Some("app"));
        let app = app.map_or("", |app| pairs.column(1).as_string::<i32>().value(app));
        let (level, message) = (levels.value(row), messages.value(row));
        (severities.value(row), level.to_owned(), app.to_owned(), message.to_owned())
    };
    (0..batch.rows.num_rows()).map(row).collect()
}

/// Sees to it that all came, in their order: each as an error of `app`.
async fn assert_heard(mut open: Open, how: &str) {
    let mut found = Vec::new();
    while found.len() < TIMES {
        let batch = open.next().await.unwrap_or_else(|| panic!("{how}: {} came", found.len()));
        assert_eq!(batch.refused, 0, "{how}");
        found.extend(rows(&batch));
    }
    for (number, row) in found.into_iter().enumerate() {
        // rsyslog takes the space before an old message for a part of it, and sends that on.
        let space = if how.contains("SyslogProtocol23") { " " } else { "" };
        let said = format!("{space}line {number}: [a] <b> é");
        assert_eq!(row, (17, "err".to_owned(), "app".to_owned(), said), "{how}");
    }
}

/// What each peer says, a line each time.
fn lines(folder: &Path) -> String {
    let file = folder.join("lines");
    let lines: String = (0..TIMES).map(|line| format!("line {line}: [a] <b> é\n")).collect();
    fs::write(&file, lines).unwrap();
    file.display().to_string()
}

/// `logger` saying all lines.
fn logger(file: &str, to: &[&str]) -> Program {
    let mut logger = peers::logger();
    logger.args(["--priority", "user.err", "--tag", "app", "--file", file]).args(to);
    Program::of(logger)
}

#[tokio::test]
#[ignore = "needs bsdutils; run by cargo xtask test"]
async fn logger_is_understood_in_all_that_it_speaks() {
    let folder = tempfile::tempdir().unwrap();
    let file = lines(folder.path());
    let path = folder.path().join("logs.sock").display().to_string();
    for (settings, speaks) in [
        ("mode = \"udp\"", &["--udp", "--rfc3164"][..]),
        ("mode = \"udp\"\nframing = \"octet_counting\"", &["--udp", "--rfc5424"]),
        ("", &["--tcp", "--rfc3164"]),
        ("", &["--tcp", "--rfc5424"]),
        ("framing = \"octet_counting\"", &["--tcp", "--rfc3164", "--octet-count"]),
        ("framing = \"octet_counting\"", &["--tcp", "--rfc5424", "--octet-count"]),
        // Lines on a port for counted frames: senders mix them.
        ("framing = \"octet_counting\"", &["--tcp", "--rfc5424"]),
    ] {
        let address = free_address();
        let open = open_logs(&format!("listen = \"{address}\"\n{settings}")).await;
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let to = [&["--server", &host, "--port", &port], speaks].concat();
        let logger = logger(&file, &to);
        assert_heard(open, &format!("{settings} {speaks:?}")).await;
        assert_eq!(logger.ended(DEADLINE).code(), Some(0), "{speaks:?}");
    }
    for (mode, speaks) in [("unixgram", "--udp"), ("unix", "--tcp")] {
        let open = open_logs(&format!("mode = \"{mode}\"\npath = '{path}'")).await;
        let to = ["--socket", &path, "--socket-errors=on", speaks];
        let logger = logger(&file, &to);
        assert_heard(open, mode).await;
        assert_eq!(logger.ended(DEADLINE).code(), Some(0), "{mode}");
    }
}

/// rsyslogd that passes on what it hears at a socket of its own.
fn rsyslog(folder: &Path, action: &str) -> Program {
    let (socket, configuration) = (folder.join("rsyslog.sock"), folder.join("rsyslog.conf"));
    let text = format!(
        "global(workDirectory=\"{}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{}\")\n\
         if $programname == \"app\" then action(type=\"omfwd\" {action})\n",
        folder.display(),
        socket.display()
    );
    fs::write(&configuration, text).unwrap();
    let _ = fs::remove_file(&socket);
    let rsyslog = Program::of(peers::rsyslogd(&configuration));
    wait_for("rsyslog's socket", DEADLINE, || socket.exists().then_some(()));
    rsyslog
}

#[tokio::test]
#[ignore = "needs rsyslog and bsdutils; run by cargo xtask test"]
async fn rsyslog_is_understood_in_all_that_it_speaks() {
    let folder = tempfile::tempdir().unwrap();
    let file = lines(folder.path());
    let socket = folder.path().join("rsyslog.sock").display().to_string();
    for (settings, speaks) in [
        ("mode = \"udp\"", "protocol=\"udp\" template=\"RSYSLOG_TraditionalForwardFormat\""),
        ("mode = \"udp\"", "protocol=\"udp\" template=\"RSYSLOG_SyslogProtocol23Format\""),
        ("", "protocol=\"tcp\" template=\"RSYSLOG_ForwardFormat\""),
        (
            "framing = \"octet_counting\"",
            "protocol=\"tcp\" TCP_Framing=\"octet-counted\" \
             template=\"RSYSLOG_SyslogProtocol23Format\"",
        ),
        (
            "framing = \"octet_counting\"",
            "protocol=\"tcp\" TCP_Framing=\"traditional\" \
             template=\"RSYSLOG_SyslogProtocol23Format\"",
        ),
    ] {
        let address = free_address();
        let open = open_logs(&format!("listen = \"{address}\"\n{settings}")).await;
        let (host, port) = (address.ip(), address.port());
        let action = format!("target=\"{host}\" port=\"{port}\" {speaks}");
        let rsyslog = rsyslog(folder.path(), &action);
        let logger = logger(&file, &["--socket", &socket, "--socket-errors=on", "--udp"]);
        assert_heard(open, &format!("{settings} {speaks}")).await;
        assert_eq!(logger.ended(DEADLINE).code(), Some(0), "{speaks}");
        drop(rsyslog);
    }
}
