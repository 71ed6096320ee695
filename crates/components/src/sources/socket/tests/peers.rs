//! Peers that stall, drip, break off, or speak something else: the others don't notice.

use std::path::Path;

use tidegate_net::connect::Target;
use tidegate_net::listen::{Connection, Keepalive};
use tidegate_net::tls::{ClientTls, Identity};
use tidegate_testkit::certificates::{Authority, Issued};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;

/// Most of a record.
const HALF: usize = 700 << 10;

/// One that has no more memory than it needs at least.
async fn narrow(more: &str) -> (Open, SocketAddr) {
    let address = free_address();
    (open_within(0, &format!("listen = \"{address}\"\n{more}"), None).await.unwrap(), address)
}

/// Peers that send most of a line, and the rest once they may.
fn stalled(peers: usize, address: SocketAddr, go_on: &Arc<Semaphore>) -> JoinSet<()> {
    (0..peers)
        .map(|_| {
            let go_on = Arc::clone(go_on);
            async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(&vec![b'x'; HALF]).await.unwrap();
                go_on.acquire().await.unwrap().forget();
                stream.write_all(b"!\n").await.unwrap();
            }
        })
        .collect()
}

/// Lets the source read, though it has no row yet, until it holds so much.
async fn until_it_holds(open: &mut Open, bytes: usize) {
    let began = Instant::now();
    while open.budget.usage().used < bytes {
        assert!(open.stream.next().now_or_never().is_none(), "there is no whole line yet");
        assert!(began.elapsed() < DEADLINE, "{:?}", open.budget.usage());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn peers_that_stall_in_the_middle_leave_room_for_others_and_end_their_lines_later() {
    let (mut open, address) = narrow("").await;
    let go_on = Arc::new(Semaphore::new(0));
    let mut peers = stalled(40, address, &go_on);
    until_it_holds(&mut open, 2 * HALF).await;
    for number in 0..10 {
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(format!("{number}\n").as_bytes()).await.unwrap();
        assert_eq!(messages(&open.next().await.unwrap()), [number.to_string()]);
    }
    go_on.add_permits(40);
    let whole = "x".repeat(HALF) + "!";
    for number in 0..40 {
        let batch = open.next().await.unwrap_or_else(|| panic!("only {number} lines came"));
        assert_eq!(messages(&batch), [&*whole]);
        let usage = open.budget.usage();
        assert!(usage.peak <= usage.capacity, "{usage:?}");
    }
    while peers.join_next().await.transpose().unwrap().is_some() {}
    assert!(open.next().await.is_none());
    assert_eq!(open.budget.usage().used, 0);
}

#[tokio::test]
async fn who_stalls_in_the_middle_while_others_wait_for_room_is_given_up() {
    let (mut open, address) = narrow("framing = \"length_prefix\"").await;
    let mut frame = 1_000_000_u32.to_be_bytes().to_vec();
    frame.resize(HALF, b'x');
    let mut peers = Vec::new();
    for _ in 0..10 {
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(&frame).await.unwrap();
        peers.push(peer);
    }
    until_it_holds(&mut open, 2 * HALF).await;
    tokio::time::pause(); // from now on, time passes where nothing else happens
    let mut refused = 0;
    while refused == 0 {
        // None of it is a row.
        let batch = open.stream.next().await.unwrap().unwrap();
        assert_eq!(batch.rows.num_rows(), 0);
        refused += batch.refused;
    }
}

#[tokio::test]
async fn a_long_record_may_come_in_drips_however_records_are_told_apart() {
    let most = 300_000;
    let record = "r".repeat(most);
    for (framing, head, end) in [
        ("newline", Vec::new(), "\r\n"),
        ("octet_counting", format!("{most} ").into_bytes(), ""),
        ("octet_counting", b"<1>".to_vec(), "\n"),
        ("length_prefix", 300_000_u32.to_be_bytes().to_vec(), ""),
    ] {
        let more = format!("framing = \"{framing}\"\nline_bytes_max = {}", most + 3);
        let (mut open, address) = narrow(&more).await;
        let line = [&*head, record.as_bytes(), end.as_bytes()].concat();
        let mut dripping = JoinSet::new();
        dripping.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in [&*line, &*line].concat().chunks(700) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let begin = if head == b"<1>" { "<1>" } else { "" };
        for _ in 0..2 {
            let batch = open.next().await.unwrap();
            let [message] = &*messages(&batch) else { panic!("{framing}: not one row") };
            assert!(*message == format!("{begin}{record}"), "{framing}: {}", message.len());
        }
        assert!(open.next().await.is_none());
        assert_eq!(open.budget.usage().used, 0);
    }
}

#[tokio::test]
async fn records_far_too_long_are_passed_over_without_being_held() {
    let long = vec![b'y'; 3 << 20];
    let length = u32::try_from(long.len()).unwrap();
    for (framing, head, end, after) in [
        ("newline", Vec::new(), "\n", "ok\n"),
        ("octet_counting", format!("{length} ").into_bytes(), "", "2 ok"),
        ("octet_counting", b"<1>".to_vec(), "\n", "2 ok"),
        ("length_prefix", length.to_be_bytes().to_vec(), "", "\0\0\0\u{2}ok"),
    ] {
        let more = format!("framing = \"{framing}\"\nline_bytes_max = 100000");
        let (open, address) = narrow(&more).await;
        let bytes = [&*head, &long, end.as_bytes(), after.as_bytes()].concat();
        let sender = std::thread::spawn(move || drop(sent(address, &bytes)));
        assert_eq!(open.all().await, (vec!["ok".to_owned()], 1), "{framing}");
        sender.join().unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_is_reset_gives_its_place_back_and_others_go_on() {
    let (mut open, address) = listening("connections_max = 2").await;
    let mut steady = TcpStream::connect(address).await.unwrap();
    for number in 0..20 {
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(b"whole\nhal").await.unwrap();
        assert_eq!(messages(&open.next().await.unwrap()), ["whole"]);
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        // What its end cuts in two is a line all the same.
        assert_eq!(messages(&open.next().await.unwrap()), ["hal"]);
        steady.write_all(format!("{number}\n").as_bytes()).await.unwrap();
        assert_eq!(messages(&open.next().await.unwrap()), [number.to_string()]);
    }
    drop(steady);
    assert!(open.next().await.is_none());
}

fn identity(issued: &Issued) -> Identity {
    Identity { certificate: issued.certificate.clone(), key: issued.key.clone() }
}

async fn secured(address: SocketAddr, roots: &Path, shows: Option<&Issued>) -> Result<Connection> {
    let tls = ClientTls { roots: Some(roots.to_owned()), identity: shows.map(identity) };
    let tls = Some(tls.load(&[]).unwrap());
    let (host, port, keepalive) = ("localhost".into(), address.port(), Keepalive::default());
    let target = Target { host, port, tls, timeout: DEADLINE, keepalive };
    target.connect().await.map_err(|error| Error::disconnected("connect").because(error))
}

#[tokio::test]
async fn with_tls_the_known_come_in_and_the_rest_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let foreign = Authority::new(folder.path(), "foreign");
    let (server, client) = (authority.issue("server"), authority.issue("client"));
    let settings = format!(
        "tls = {{ certificate = '{}', key = '{}', clients = '{}' }}",
        server.certificate.display(),
        server.key.display(),
        authority.file().display()
    );
    let (mut open, address) = listening(&settings).await;
    let roots = authority.file().to_owned();
    let stranger = foreign.issue("stranger");
    let mut peers = JoinSet::new();
    peers.spawn(async move {
        // Neither is TLS.
        for garbage in [&b"<13>no TLS at all\n"[..], &[0x16, 3, 1, 255, 255, 1, 0, 0]] {
            let mut rude = TcpStream::connect(address).await.unwrap();
            rude.write_all(garbage).await.unwrap();
            rude.shutdown().await.unwrap();
            let _answer = rude.read_to_end(&mut Vec::new()).await;
        }
        for unknown in [None, Some(&stranger)] {
            if let Ok(mut refused) = secured(address, &roots, unknown).await {
                let _sent = refused.write_all(b"who is this\n").await;
                assert!(refused.read(&mut [0]).await.is_err());
            }
        }
        let mut known = secured(address, &roots, Some(&client)).await.unwrap();
        let text: String = (0..50_000).map(|line| format!("line {line}\n")).collect();
        known.write_all(b"first\nhal").await.unwrap();
        known.flush().await.unwrap();
        known.write_all(b"f\n").await.unwrap();
        known.write_all(text.as_bytes()).await.unwrap();
        known.shutdown().await.unwrap();
    });
    let mut found = Vec::new();
    while let Some(batch) = open.next().await {
        found.extend(messages(&batch));
    }
    peers.join_next().await.unwrap().unwrap();
    let expected = ["first".to_owned(), "half".to_owned()].into_iter();
    let expected = expected.chain((0..50_000).map(|line| format!("line {line}")));
    let (count, last) = (found.len(), found.last().cloned());
    assert!(found.into_iter().eq(expected), "{count} lines, at last {last:?}");
    assert_eq!(open.budget.usage().used, 0);
}

#[tokio::test]
async fn a_wrong_certificate_is_named_when_it_opens() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let (server, other) = (authority.issue("server"), authority.issue("other"));
    let settings = format!(
        "listen = \"127.0.0.1:0\"\ntls = {{ certificate = '{}', key = '{}' }}",
        server.certificate.display(),
        other.key.display(),
    );
    let error = open(&settings, None).await.err().unwrap();
    assert_eq!(error.kind(), tidegate_model::ErrorKind::Fatal);
    let said = error.to_string();
    for part in ["tls", &*server.certificate.to_string_lossy(), "does not go with the key"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[tokio::test]
async fn tls_on_a_port_without_it_is_noise_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let (mut open, address) = listening("framing = \"octet_counting\"").await;
    let roots = authority.file().to_owned();
    let mut peers = JoinSet::new();
    peers.spawn(async move {
        let gone = timeout(Duration::from_millis(100), secured(address, &roots, None)).await;
        assert!(gone.is_err(), "nobody answers");
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(b"5 other").await.unwrap();
    });
    let mut found = Vec::new();
    while let Some(batch) = open.next().await {
        found.extend(messages(&batch));
    }
    peers.join_next().await.unwrap().unwrap();
    assert!(found.contains(&"other".to_owned()), "{found:?}");
}

#[tokio::test]
async fn a_unix_socket_has_its_cap_too_and_leaves_the_path_of_another_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.sock");
    let settings = format!("mode = \"unix\"\npath = '{}'\nconnections_max = 2", path.display());
    let mut stream = open(&settings, None).await.unwrap();
    let first: Vec<_> = (0..2).map(|_| StdUnix::connect(&path).unwrap()).collect();
    // The kernel has no room for more that wait.
    for _ in 0..50 {
        let mut beyond = StdUnix::connect(&path).unwrap();
        assert!(stream.stream.next().now_or_never().is_none());
        beyond.set_read_timeout(Some(DEADLINE)).unwrap();
        let began = Instant::now();
        let closed = loop {
            beyond.set_nonblocking(true).unwrap();
            match beyond.read(&mut [0]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                read => break read,
            }
            assert!(began.elapsed() < DEADLINE);
            assert!(stream.stream.next().now_or_never().is_none());
            tokio::task::yield_now().await;
        };
        assert!(matches!(closed, Ok(0) | Err(_)));
    }
    drop(first);
    assert!(stream.next().await.is_none());

    fs::remove_file(&path).unwrap();
    let another = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(stream);
    assert!(path.exists());
    drop(another);
}

#[tokio::test]
async fn a_datagram_that_is_longer_than_what_is_read_of_one_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.sock");
    let settings =
        format!("mode = \"unixgram\"\npath = '{}'\nline_bytes_max = 1000", path.display());
    let mut stream = open(&settings, None).await.unwrap();
    let sender = StdDatagram::unbound().unwrap();
    let long = format!("one\r\ntwo\n{}\n", "z\n".repeat(40_000));
    sender.send_to(long.as_bytes(), &path).unwrap();
    let batch = stream.next().await.unwrap();
    let found = messages(&batch);
    assert_eq!((&*found[0], &*found[1], batch.refused), ("one", "two", 1));
    assert!(found[2..].iter().all(|line| line == "z"));
}
