//! Real sockets, and what is sent through them.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram as StdDatagram, UnixStream as StdUnix};

use arrow_array::cast::AsArray;
use futures::FutureExt;
use tidegate_flow::ByteBudget;
use tidegate_model::Expected;
use tokio::time::timeout;

use super::*;

/// Peers that do what they should not.
mod peers;

/// `logger` and rsyslog.
mod syslog;

const DEADLINE: Duration = Duration::from_secs(30);

struct Open {
    stream: SourceStream,
    budget: ByteBudget,
}

/// A source of rows with `source` and `message`.
async fn open(settings: &str, required: Option<Arc<[Box<str>]>>) -> Result<Open> {
    open_within(16 << 20, settings, required).await
}

/// One that has so many bytes, or as many as it needs at least.
async fn open_within(
    bytes: usize,
    settings: &str,
    required: Option<Arc<[Box<str>]>>,
) -> Result<Open> {
    open_with(bytes, settings, required, &[3, 4]).await
}

/// One that gives some of the columns of logs.
async fn open_with(
    bytes: usize,
    settings: &str,
    required: Option<Arc<[Box<str>]>>,
    columns: &[usize],
) -> Result<Open> {
    let mut source = build(&Settings::from_toml(settings).unwrap()).unwrap();
    let budget = ByteBudget::new(bytes.max(source.bytes_min()));
    let context = SourceContext {
        name: "in".into(),
        positions: Vec::new(),
        holder: Arc::new(budget.holder(source.bytes_min()).unwrap()),
        columns: Arc::new(log_schema().project(columns).unwrap()),
        required,
        severity_min: None,
        offsets: false,
        once: true,
        batch_bytes_max: 1 << 20,
        batch_rows_max: 1_000,
        expected: Expected::default(),
    };
    Ok(Open { stream: source.open(context).await?, budget })
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// One that listens at a free port, and its address.
async fn listening(more: &str) -> (Open, SocketAddr) {
    let address = free_address();
    (open(&format!("listen = \"{address}\"\n{more}"), None).await.unwrap(), address)
}

impl Open {
    async fn next(&mut self) -> Option<SourceBatch> {
        timeout(DEADLINE, self.stream.next()).await.unwrap().map(Result::unwrap)
    }

    /// All rows to the end of the last connection, and how many were refused.
    async fn all(mut self) -> (Vec<String>, u64) {
        let (mut found, mut refused) = (Vec::new(), 0);
        while let Some(batch) = self.next().await {
            found.extend(messages(&batch));
            refused += batch.refused;
        }
        let Self { stream, budget } = self;
        drop(stream);
        assert_eq!(budget.usage().used, 0);
        (found, refused)
    }
}

fn messages(batch: &SourceBatch) -> Vec<String> {
    let messages = batch.rows.column(1).as_string_view();
    messages.iter().map(|message| message.unwrap().to_owned()).collect()
}

fn source_of(batch: &SourceBatch) -> String {
    let column = batch.rows.column(0).as_any_dictionary();
    column.values().as_string::<i32>().value(0).to_owned()
}

fn sent(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

#[tokio::test]
async fn lines_and_frames_come_from_many_connections_to_their_ends() {
    for (more, bytes, expected, refused) in [
        ("", &b"one\r\ntwo\n\nthree"[..], &["one", "two", "", "three"][..], 0),
        ("framing = \"octet_counting\"", b"3 one5 two\nx2 cut", &["one", "two\nx"], 0),
        ("framing = \"octet_counting\"", b"3 one<1>line\n9 cut", &["one", "<1>line"], 1),
        ("framing = \"length_prefix\"", b"\0\0\0\x03one\0\0\0\0\0\0", &["one", ""], 1),
        ("line_bytes_max = 5", b"short\ntoo long\nend", &["short", "end"], 1),
        ("codec = \"json\"", b"{\"msg\":\"a\"}\nno\n{\"msg\":\"b\"}\n", &["a", "b"], 1),
        ("", b"not \xff utf8\n", &["not \u{fffd} utf8"], 0),
        ("", b"", &[], 0),
    ] {
        let bytes = if more.contains("octet") && refused == 0 { &bytes[..12] } else { bytes };
        let (open, address) = listening(more).await;
        let senders = std::thread::spawn(move || {
            let bytes = bytes.to_vec();
            let one = sent(address, &bytes);
            let other = sent(address, &bytes);
            drop((one, other));
        });
        let (found, bad) = open.all().await;
        senders.join().unwrap();
        let mut all: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        let mut found = found;
        // It ends when the last connection has; the second may have come too late for that.
        assert!(bad == refused || bad == 2 * refused);
        if found.len() != all.len() {
            all.extend(all.clone());
        }
        all.sort();
        found.sort();
        assert_eq!(found, all, "{more}");
    }
}

#[tokio::test]
async fn a_record_may_come_in_pieces_and_idle_connections_hold_nothing() {
    let (mut open, address) = listening("").await;
    let mut idle = Vec::new();
    let mut sender = TcpStream::connect(address).unwrap();
    sender.set_nodelay(true).unwrap();
    for _ in 0..100 {
        idle.push(TcpStream::connect(address).unwrap());
    }
    for (piece, rows) in [("one\ntw", &["one"][..]), ("o\nthr", &["two"]), ("ee\n", &["three"])] {
        sender.write_all(piece.as_bytes()).unwrap();
        let batch = open.next().await.unwrap();
        assert_eq!(messages(&batch), rows);
        assert_eq!(source_of(&batch), sender.local_addr().unwrap().to_string());
        drop(batch);
        assert!(open.stream.next().now_or_never().is_none());
        let used = open.budget.usage().used;
        assert!(used < 10, "{used} bytes are held by nothing but a part of a line");
    }
}

#[tokio::test]
async fn while_nobody_reads_the_sender_waits_and_then_all_comes() {
    let (mut open, address) = listening("").await;
    let text: String = (0..3_000_000).map(|line| format!("{line}\n")).collect();
    let length = text.len();
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let sender = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        for piece in text.as_bytes().chunks(64 << 10) {
            stream.write_all(piece).unwrap();
            count.fetch_add(piece.len(), std::sync::atomic::Ordering::SeqCst);
        }
    });
    let mut found = messages(&open.next().await.unwrap());
    let written = || written.load(std::sync::atomic::Ordering::SeqCst);
    let mut before = 0;
    // Until it has filled what the kernel holds, it goes on.
    let still = tidegate_testkit::process::wait_for("a sender that waits", DEADLINE, || {
        let now = written();
        let same = now == before && now > 0;
        before = now;
        std::thread::park_timeout(Duration::from_millis(100));
        same.then_some(now)
    });
    assert!(still < length, "all of {length} bytes were taken by nobody");
    while let Some(batch) = open.next().await {
        found.extend(messages(&batch));
        assert!(open.budget.usage().used <= 16 << 20);
    }
    sender.join().unwrap();
    assert!(
        found.iter().map(String::as_str).eq((0..3_000_000)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str))
    );
}

#[tokio::test]
async fn many_connections_get_their_turns() {
    let (mut open, address) = listening("").await;
    let mut senders: Vec<_> = (0..8)
        .map(|sender| {
            let text: String = (0..20_000).map(|line| format!("{sender} {line}\n")).collect();
            std::thread::spawn(move || {
                sent(address, text.as_bytes()).shutdown(Shutdown::Write).unwrap();
            })
        })
        .collect();
    let mut next = [0; 8];
    while let Some(batch) = open.next().await {
        for message in messages(&batch) {
            let (sender, line) = message.split_once(' ').unwrap();
            let sender: usize = sender.parse().unwrap();
            assert_eq!(line, next[sender].to_string(), "the order of each is kept");
            next[sender] += 1;
        }
        if next == [20_000; 8] {
            break;
        }
    }
    senders.drain(..).for_each(|sender| sender.join().unwrap());
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_and_silent_ones_after_a_while() {
    let (mut open, address) = listening("connections_max = 3\nidle_timeout = \"200ms\"").await;
    let closed = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        matches!(stream.read(&mut [0]), Ok(0) | Err(_))
    };
    let clients = std::thread::spawn(move || {
        let mut silent: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut beyond: Vec<_> = (0..1_000).map(|_| TcpStream::connect(address).unwrap()).collect();
        beyond.iter_mut().all(closed) && silent.iter_mut().all(closed)
    });
    // The silent ones are the last connections, and `once` is set.
    assert!(open.next().await.is_none());
    drop(open);
    assert!(clients.join().unwrap());
}

#[tokio::test]
async fn datagrams_are_records_and_what_the_kernel_drops_is_counted() {
    let (mut open, address) = listening("mode = \"udp\"\nreceive_buffer = \"8KiB\"").await;
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in ["one", "two\n", "three\nfour\r\n", "", "\n"] {
        udp.send_to(datagram.as_bytes(), address).unwrap();
    }
    let batch = open.next().await.unwrap();
    assert_eq!(messages(&batch), ["one", "two", "three", "four", "", ""]);
    assert_eq!(source_of(&batch), "127.0.0.1");
    let datagram = "x".repeat(1_000);
    for _ in 0..1_000 {
        udp.send_to(datagram.as_bytes(), address).unwrap();
    }
    let (mut rows, mut refused) = (0, 0);
    let looks = tokio::time::Instant::now();
    while rows + refused < 1_000 {
        // The kernel is asked once a second, when something comes.
        udp.send_to(b"more", address).unwrap();
        let batch = open.next().await.unwrap();
        rows += messages(&batch).iter().filter(|message| **message == datagram).count() as u64;
        refused += batch.refused;
        assert!(looks.elapsed() < DEADLINE, "{rows} rows, {refused} refused");
    }
    assert!(refused > 500, "{refused}");
}

#[tokio::test]
async fn a_datagram_is_one_record_where_it_is_no_lines() {
    let (mut open, address) = listening("mode = \"udp\"\nframing = \"octet_counting\"").await;
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let largest = "y".repeat(65_507);
    for datagram in ["one\ntwo\n", &largest] {
        udp.send_to(datagram.as_bytes(), address).unwrap();
    }
    let mut found = Vec::new();
    while found.len() < 2 {
        found.extend(messages(&open.next().await.unwrap()));
    }
    assert_eq!(found, ["one\ntwo\n", &*largest]);
}

#[tokio::test]
async fn unix_sockets_are_cleared_away_and_guarded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.sock");
    let settings = |mode: &str| {
        format!("mode = \"{mode}\"\npath = \"{}\"\npermissions = \"0600\"", path.display())
    };
    // Left behind by one that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut stream = open(&settings("unix"), None).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let taken = open(&settings("unix"), None).await.err().unwrap().to_string();
    assert!(taken.contains("another program listens"), "{taken}");
    let mut sender = StdUnix::connect(&path).unwrap();
    sender.write_all(b"one\ntwo").unwrap();
    drop(sender);
    let mut found = Vec::new();
    while let Some(batch) = stream.next().await {
        found.extend(messages(&batch));
        assert_eq!(source_of(&batch), path.display().to_string());
    }
    assert_eq!(found, ["one", "two"]);
    drop(stream);
    assert!(!path.exists());

    let mut stream = open(&settings("unixgram"), None).await.unwrap();
    let sender = StdDatagram::unbound().unwrap();
    sender.send_to(b"one\ntwo\n", &path).unwrap();
    assert_eq!(messages(&stream.next().await.unwrap()), ["one", "two"]);
    drop(stream);
    fs::write(&path, "no socket").unwrap();
    let there = open(&settings("unixgram"), None).await.err().unwrap().to_string();
    assert!(there.contains("is there and no socket"), "{there}");
}

#[tokio::test]
async fn lines_that_nobody_wants_are_passed_over() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let required = Some(["ERROR".into()].into());
    let mut open = open(&format!("listen = \"{address}\""), required).await.unwrap();
    drop(sent(address, b"one\nan ERROR\ntwo\nthree"));
    let (mut found, mut skipped) = (Vec::new(), 0);
    while let Some(batch) = open.next().await {
        found.extend(messages(&batch));
        skipped += batch.skipped;
    }
    assert_eq!((found, skipped), (vec!["an ERROR".to_owned()], 3));
}

#[tokio::test]
async fn a_port_that_is_taken_may_become_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = open(&format!("listen = \"{address}\""), None).await.err().unwrap();
    assert_eq!(error.kind(), tidegate_model::ErrorKind::Disconnected);
    assert!(error.to_string().contains("another program listens at"), "{error}");
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let long = format!("mode = \"unix\"\npath = \"{}\"", "p".repeat(108));
    for (text, at, said) in [
        ("mode = \"sctp\"", "\"sctp\"", "no mode"),
        ("listen = \"1\"\npath = \"a\"", "\"a\"", "means nothing in mode \"tcp\""),
        ("listen = \"1\"\nreceive_buffer = 1", "1", "means nothing in mode \"tcp\""),
        ("mode = \"udp\"\nlisten = \"1\"\nidle_timeout = \"1s\"", "\"1s\"", "means nothing"),
        ("mode = \"unix\"\npath = \"a\"\npermissions = \"999\"", "\"999\"", "no permissions"),
        (&long, &long[21..], "this one 108"),
        ("listen = \"1\"\nframing = \"tabs\"", "\"tabs\"", "no framing"),
    ] {
        let Err(mistake) = build(&Settings::from_toml(text).unwrap()) else { panic!("{text}") };
        assert!(mistake.message.contains(said), "{mistake:?}");
        assert_eq!(&text[mistake.span.clone().unwrap()], at, "{mistake:?}");
    }
    for (text, said) in [
        ("mode = \"unix\"", "mode \"unix\" needs `path`"),
        ("", "mode \"tcp\" needs `listen`"),
        (
            "mode = \"udp\"\nlisten = \"1\"\ntls = { certificate = \"a\", key = \"b\" }",
            "`tls` means",
        ),
    ] {
        let Err(mistake) = build(&Settings::from_toml(text).unwrap()) else { panic!("{text}") };
        assert!(mistake.message.contains(said), "{mistake:?}");
    }
}
