//! Real sockets, and what comes out of them.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use arrow_array::{ArrayRef, StringViewArray};
use futures::FutureExt;
use tidegate_model::ErrorKind;
use tidegate_testkit::peers;
use tidegate_testkit::process::{Program, wait_for};

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

struct Nothing;

impl tidegate_model::Records for Nothing {
    fn load(&self, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn delivered(&self) -> Result<Vec<Delivered>> {
        Ok(Vec::new())
    }

    fn save(&self, _: &str, _: &[u8], _: &[Delivered]) -> Result<()> {
        Ok(())
    }
}

fn rows(messages: &[&str]) -> RecordBatch {
    let messages: ArrayRef = Arc::new(StringViewArray::from(messages.to_vec()));
    RecordBatch::try_from_iter([("message", messages)]).unwrap()
}

fn context() -> SinkContext {
    let columns = rows(&["a"]).schema();
    SinkContext { name: "out".into(), columns, records: Arc::new(Nothing) }
}

async fn sink(settings: &str) -> Box<dyn Sink> {
    let mut sink = build(&Settings::from_toml(settings).unwrap()).unwrap();
    timeout(DEADLINE, sink.open(context())).await.unwrap().unwrap();
    sink
}

async fn write(sink: &mut Box<dyn Sink>, messages: &[&str]) -> Result<Written> {
    let rows = rows(messages);
    timeout(DEADLINE, sink.write(&rows)).await.unwrap()
}

/// A listener, and the sink's side of its configuration.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = format!("connect = \"{}\"\n", listener.local_addr().unwrap());
    (listener, connect)
}

fn read(stream: &mut TcpStream, bytes: usize) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut read = vec![0; bytes];
    io::Read::read_exact(stream, &mut read).unwrap();
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn rows_are_lines_or_frames() {
    let (listener, connect) = listener();
    for (more, expected) in [
        ("", "one\ntwo\nlines\n"),
        ("codec = \"ndjson\"", "{\"message\":\"one\"}\n{\"message\":\"two\\nlines\"}\n"),
        ("framing = \"octet_counting\"", "3 one9 two\nlines"),
        ("framing = \"length_prefix\"", "\0\0\0\u{3}one\0\0\0\ttwo\nlines"),
    ] {
        let mut sink = sink(&format!("{connect}{more}")).await;
        let mut stream = listener.accept().unwrap().0;
        assert_eq!(write(&mut sink, &["one", "two\nlines"]).await.unwrap(), Written::default());
        assert_eq!(read(&mut stream, expected.len()), expected);
        let mut closing = sink.close();
        assert!((&mut closing).now_or_never().is_none());
        assert_eq!(io::Read::read(&mut stream, &mut [0]).unwrap(), 0);
        drop(stream);
        timeout(DEADLINE, closing).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_is_noticed_before_rows_are_lost_in_it() {
    let (listener, connect) = listener();
    let mut sink = sink(&connect).await;
    let mut first = listener.accept().unwrap().0;
    write(&mut sink, &["a"]).await.unwrap();
    assert_eq!(read(&mut first, 2), "a\n");
    io::Write::write_all(&mut first, b"what it says is of no use").unwrap();
    drop(first);
    let error = loop {
        // Its end is on its way.
        if let Err(error) = write(&mut sink, &["b"]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(error.to_string().starts_with("connect: 127.0.0.1:"), "{error}");
    let accepting = std::thread::spawn(move || listener.accept().unwrap().0);
    write(&mut sink, &["b", "c"]).await.unwrap();
    assert_eq!(read(&mut accepting.join().unwrap(), 4), "b\nc\n");
}

#[tokio::test]
async fn what_was_sent_last_arrives_though_the_other_side_said_something() {
    let (listener, connect) = listener();
    let mut sink = sink(&connect).await;
    let mut stream = listener.accept().unwrap().0;
    let line = "x".repeat(100_000);
    write(&mut sink, &[&*line]).await.unwrap();
    io::Write::write_all(&mut stream, b"we have read nothing of it yet").unwrap();
    let mut closing = sink.close();
    assert!((&mut closing).now_or_never().is_none(), "it waits for the other side");
    let reading = std::thread::spawn(move || {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut all = Vec::new();
        io::Read::read_to_end(&mut stream, &mut all).map(|_| all.len())
    });
    timeout(DEADLINE, closing).await.unwrap();
    assert_eq!(reading.join().unwrap().unwrap(), 100_001);
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_it_up_and_gets_all_in_the_end() {
    let (listener, connect) = listener();
    let mut sink = sink(&connect).await;
    let mut stream = listener.accept().unwrap().0;
    let line = "x".repeat(1 << 20);
    let lines = vec![&*line; 32];
    let batch = rows(&lines);
    let mut writing = sink.write(&batch);
    let stuck = timeout(Duration::from_millis(100), &mut writing).await;
    assert!(stuck.is_err(), "32 MiB are more than the kernel holds");
    let reading = std::thread::spawn(move || read(&mut stream, 32 * ((1 << 20) + 1)).len());
    timeout(DEADLINE, writing).await.unwrap().unwrap();
    assert_eq!(reading.join().unwrap(), 32 * ((1 << 20) + 1));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_for_the_time_it_has_is_given_up() {
    let (listener, connect) = listener();
    for mode in [connect.clone(), format!("{connect}tls = {{}}\nwrite_timeout = \"0s\"")] {
        let settings = Settings::from_toml(&mode).unwrap();
        assert_eq!(build(&settings).is_err(), mode.contains("0s"));
    }
    let mut sink = sink(&format!("{connect}write_timeout = \"50ms\"")).await;
    let stuck = listener.accept().unwrap().0;
    let line = "x".repeat(1 << 20);
    let error = write(&mut sink, &[&*line; 32]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    let said = format!("{error:?}");
    assert!(said.contains("it took nothing for write_timeout, 50ms"), "{said}");
    // The next attempt has a connection of its own.
    let accepting = std::thread::spawn(move || listener.accept().unwrap().0);
    write(&mut sink, &["again"]).await.unwrap();
    assert_eq!(read(&mut accepting.join().unwrap(), 6), "again\n");
    drop(stuck);
}

#[tokio::test]
async fn datagrams_are_rows_and_one_that_is_too_large_is_rejected() {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(DEADLINE)).unwrap();
    let connect = format!("mode = \"udp\"\nconnect = \"{}\"", udp.local_addr().unwrap());
    let mut sink = sink(&connect).await;
    let long = "x".repeat(70_000);
    let written = write(&mut sink, &["a", &long, "b"]).await.unwrap();
    assert_eq!(written.rejected, [(1, "70001 bytes are no datagram".to_owned())]);
    let mut datagram = [0; 100];
    for expected in ["a\n", "b\n"] {
        let count = udp.recv(&mut datagram).unwrap();
        assert_eq!(&datagram[..count], expected.as_bytes());
    }
    drop(udp);
    // The kernel says so with the next one.
    let refused = loop {
        match write(&mut sink, &["c"]).await {
            Ok(written) => assert_eq!(written, Written::default()),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn unix_sockets_are_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let settings = format!("mode = \"unix\"\npath = \"{}\"", path.display());
    let mut closed = build(&Settings::from_toml(&settings).unwrap()).unwrap();
    let error = closed.open(context()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut sink = sink(&settings).await;
    let mut stream = listener.accept().unwrap().0;
    write(&mut sink, &["a"]).await.unwrap();
    let mut read = [0; 2];
    io::Read::read_exact(&mut stream, &mut read).unwrap();
    assert_eq!(&read, b"a\n");

    let path = folder.path().join("b.sock");
    let unix = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let settings = format!("mode = \"unixgram\"\npath = \"{}\"", path.display());
    let mut sink = self::sink(&settings).await;
    write(&mut sink, &["a"]).await.unwrap();
    assert_eq!(unix.recv(&mut read).unwrap(), 2);
}

#[test]
fn mistakes_are_shown_where_they_are() {
    for (text, at, said) in [
        ("mode = \"sctp\"", "\"sctp\"", "no mode"),
        ("connect = \"here\"", "\"here\"", "can't connect to"),
        ("connect = \":1\"", "\":1\"", "can't connect to"),
        ("connect = \"a:0\"", "\"a:0\"", "can't connect to"),
        ("connect = \"a:1\"\npath = \"b\"", "\"b\"", "means nothing in mode \"tcp\""),
        ("mode = \"udp\"\nconnect = \"a:1\"\ntls = {}", "{}", "means nothing in mode \"udp\""),
        ("connect = \"a:1\"\nframing = \"x\"", "\"x\"", "no framing"),
        ("connect = \"a:1\"\ncodec = \"x\"", "\"x\"", "no codec"),
    ] {
        let Err(mistake) = build(&Settings::from_toml(text).unwrap()) else { panic!("{text}") };
        assert!(mistake.message.contains(said), "{mistake:?}");
        assert_eq!(&text[mistake.span.clone().unwrap()], at, "{mistake:?}");
    }
    let Err(missing) = build(&Settings::from_toml("mode = \"unix\"").unwrap()) else { panic!() };
    assert_eq!(missing.message, "mode \"unix\" needs `path`");
}

#[tokio::test]
#[ignore = "needs rsyslog; run by cargo xtask test"]
async fn rsyslog_understands_lines_and_counted_frames() {
    let folder = tempfile::tempdir().unwrap();
    let (configuration, log) = (folder.path().join("rsyslog.conf"), folder.path().join("log"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "global(workDirectory=\"{}\")\nmodule(load=\"imtcp\")\nmodule(load=\"imudp\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         input(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         template(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
         *.* action(type=\"omfile\" file=\"{}\" template=\"raw\")\n",
        folder.path().display(),
        log.display()
    );
    std::fs::write(&configuration, text).unwrap();
    let rsyslog = Program::of(peers::rsyslogd(&configuration));
    wait_for("rsyslog's port", DEADLINE, || TcpStream::connect(("127.0.0.1", port)).ok());
    let mut expected = Vec::new();
    for settings in ["", "framing = \"octet_counting\"", "mode = \"udp\""] {
        let mut sink = sink(&format!("connect = \"localhost:{port}\"\n{settings}")).await;
        let how = settings.split('"').nth(1).unwrap_or("newline");
        let lines: Vec<String> =
            (0..100).map(|line| format!("<13>1 - host app - - - {how} {line}")).collect();
        let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
        assert_eq!(write(&mut sink, &lines).await.unwrap(), Written::default());
        let mut closing = sink.close();
        expected.extend(lines.iter().map(|line| (*line).to_owned()));
        timeout(DEADLINE, &mut closing).await.unwrap();
        let heard = || std::fs::read_to_string(&log).unwrap_or_default();
        wait_for(how, DEADLINE, || {
            let heard = heard().lines().filter(|line| line.contains("<13>1")).count();
            (heard == expected.len()).then_some(())
        });
    }
    let heard = std::fs::read_to_string(&log).unwrap();
    let heard: Vec<&str> = heard.lines().filter(|line| line.contains("<13>1")).collect();
    assert_eq!(heard, expected);
    drop(rsyslog);
}
