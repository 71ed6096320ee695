//! Connections that come in and go out, over real sockets: limits, TLS, and what is wrong with it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::error::Error;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use socket2::SockRef;
use tempfile::TempDir;
use tidegate_net::connect::Target;
use tidegate_net::listen::{Connection, Incoming, Keepalive, Limits, Listener, Refused};
use tidegate_net::tls::{ClientConfig, ClientTls, Identity, ServerConfig, ServerTls};
use tidegate_net::wake::wake_at;
use tidegate_testkit::certificates::{Authority, Issued};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);

fn listening(limits: Limits) -> (Listener, SocketAddr) {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), limits).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn accept(listener: &mut Listener) -> Result<Incoming, Refused> {
    timeout(DEADLINE, listener.accept()).await.unwrap()
}

fn target(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Target {
    Target {
        host: address.ip().to_string().into(),
        port: address.port(),
        tls,
        timeout: DEADLINE,
        keepalive: Keepalive::default(),
    }
}

/// What both sides make of a connection by TLS.
async fn met(
    listener: &mut Listener,
    target: &Target,
) -> (Result<Incoming, Refused>, io::Result<Connection>) {
    tokio::join!(accept(listener), target.connect())
}

fn identity(issued: &Issued) -> Identity {
    Identity { certificate: issued.certificate.clone(), key: issued.key.clone() }
}

fn server(issued: &Issued, clients: Option<&Path>) -> Limits {
    let tls = ServerTls { identity: identity(issued), clients: clients.map(Path::to_owned) };
    Limits { tls: Some(tls.load(&[]).unwrap()), ..Limits::default() }
}

fn client(roots: &Path, issued: Option<&Issued>) -> Arc<ClientConfig> {
    let tls = ClientTls { roots: Some(roots.to_owned()), identity: issued.map(identity) };
    tls.load(&[]).unwrap()
}

/// Each cause, after what it caused.
fn chain(error: &dyn Error) -> String {
    let cause = error.source().map(chain).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

async fn exchange(one: &mut Connection, other: &mut Connection) {
    one.write_all(b"some words").await.unwrap();
    one.flush().await.unwrap();
    let mut read = [0; 10];
    timeout(DEADLINE, other.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"some words");
}

#[tokio::test]
async fn beyond_the_cap_connections_are_closed_at_once_and_a_place_comes_free() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let (mut listener, address) = listening(limits);
    let mut clients = Vec::new();
    let mut taken = Vec::new();
    for _ in 0..2 {
        clients.push(TcpStream::connect(address).await.unwrap());
        taken.push(accept(&mut listener).await.unwrap());
    }
    assert_eq!(listener.connections(), 2);
    for _ in 0..1_000 {
        let mut beyond = TcpStream::connect(address).await.unwrap();
        let refused = accept(&mut listener).await.unwrap_err();
        let peer = beyond.local_addr().unwrap();
        assert!(matches!(refused, Refused::TooMany(refused) if refused == peer), "{refused}");
        let read = timeout(DEADLINE, beyond.read(&mut [0])).await.unwrap();
        assert_eq!(read.unwrap(), 0);
    }
    let Incoming { stream, slot, .. } = taken.pop().unwrap();
    drop(stream);
    assert_eq!(listener.connections(), 2, "the place is not free before the slot is given back");
    drop(slot);
    assert_eq!(listener.connections(), 1);
    let mut again = TcpStream::connect(address).await.unwrap();
    let mut incoming = accept(&mut listener).await.unwrap();
    again.write_all(b"hello").await.unwrap();
    let mut read = [0; 5];
    incoming.stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");
    // Those that were there before notice nothing.
    taken[0].stream.write_all(b"hello").await.unwrap();
    clients[0].read_exact(&mut read).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_was_reset_before_it_was_accepted_takes_no_place() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let (mut listener, address) = listening(limits);
    for _ in 0..10 {
        let gone = TcpStream::connect(address).await.unwrap();
        SockRef::from(&gone).set_linger(Some(Duration::ZERO)).unwrap();
        drop(gone);
        // The kernel gives it all the same, or passes over it.
        let _given = timeout(Duration::from_millis(50), listener.accept()).await;
    }
    assert_eq!(listener.connections(), 0);
    let _client = TcpStream::connect(address).await.unwrap();
    accept(&mut listener).await.unwrap();
}

#[tokio::test]
async fn both_sides_ask_a_silent_peer_whether_it_is_there() {
    let unsent = Some(Duration::from_secs(7));
    let keepalive = Keepalive { unsent, ..Keepalive::default() };
    let (mut listener, address) = listening(Limits { keepalive, ..Limits::default() });
    let (incoming, outgoing) = met(&mut listener, &target(address, None)).await;
    let (incoming, outgoing) = (incoming.unwrap(), outgoing.unwrap());
    for (connection, unsent) in [(&incoming.stream, unsent), (&outgoing, None)] {
        let socket = SockRef::from(connection.tcp());
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive.idle);
        let gone = socket.tcp_keepalive_interval().unwrap() * 4;
        assert_eq!((gone, socket.tcp_keepalive_retries().unwrap()), (keepalive.timeout, 4));
        assert_eq!(socket.tcp_user_timeout().unwrap(), unsent);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_reader_sleeps_until_enough_has_come_or_the_connection_has_ended() {
    let (mut listener, address) = listening(Limits::default());
    let (incoming, outgoing) = met(&mut listener, &target(address, None)).await;
    let (mut peer, mut ours) = (incoming.unwrap().stream, outgoing.unwrap());
    wake_at(ours.tcp(), 10).unwrap();
    peer.write_all(b"too few").await.unwrap();
    let mut read = [0; 100];
    let has_come = |ours: &Connection| {
        let mut few = [MaybeUninit::uninit(); 100];
        SockRef::from(ours.tcp()).peek(&mut few).unwrap_or(0)
    };
    timeout(DEADLINE, async {
        while has_come(&ours) < 7 {
            yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(ours.read(&mut read).now_or_never().is_none(), "it was woken for seven bytes");
    peer.write_all(b", no more").await.unwrap();
    assert_eq!(timeout(DEADLINE, ours.read(&mut read)).await.unwrap().unwrap(), 16);
    peer.write_all(b"few").await.unwrap();
    // What is there may be enough now.
    wake_at(ours.tcp(), 1).unwrap();
    assert_eq!(timeout(DEADLINE, ours.read(&mut read)).await.unwrap().unwrap(), 3);
    wake_at(ours.tcp(), 10).unwrap();
    drop(peer);
    assert_eq!(timeout(DEADLINE, ours.read(&mut read)).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_slow_handshake_ends_while_others_come_in_and_gives_its_place_back() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let mut limits = server(&authority.issue("server"), None);
    limits.connections_max = 2;
    let (mut listener, address) = listening(limits);
    let slow = TcpStream::connect(address).await.unwrap();
    let good = target(address, Some(client(authority.file(), None)));
    let (incoming, outgoing) = met(&mut listener, &good).await;
    let (mut incoming, mut outgoing) = (incoming.unwrap(), outgoing.unwrap());
    exchange(&mut outgoing, &mut incoming.stream).await;
    exchange(&mut incoming.stream, &mut outgoing).await;

    assert_eq!(listener.connections(), 2, "one that shakes hands has a place");
    let _beyond = TcpStream::connect(address).await.unwrap();
    assert!(matches!(accept(&mut listener).await, Err(Refused::TooMany(_))));
    tokio::time::pause(); // from now on, time passes where nothing else happens
    let Err(Refused::Failed(error)) = accept(&mut listener).await else { panic!("it waits on") };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let peer = slow.local_addr().unwrap();
    assert_eq!(error.to_string(), format!("TLS handshake with {peer} took too long"));
    assert_eq!(listener.connections(), 1);
}

#[tokio::test]
async fn who_speaks_no_tls_is_refused_by_name_and_the_rest_goes_on() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let (mut listener, address) = listening(server(&authority.issue("server"), None));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16; 100], &[0xff; 20_000]] {
        let mut rude = TcpStream::connect(address).await.unwrap();
        rude.write_all(garbage).await.unwrap();
        let Err(Refused::Failed(error)) = accept(&mut listener).await else { panic!("no TLS") };
        let peer = rude.local_addr().unwrap().to_string();
        assert!(error.to_string().contains(&peer), "{error}");
        assert_eq!(listener.connections(), 0);
    }
    // One that goes in the middle of it.
    drop(TcpStream::connect(address).await.unwrap());
    assert!(matches!(accept(&mut listener).await, Err(Refused::Failed(_))));
    let good = target(address, Some(client(authority.file(), None)));
    let (incoming, outgoing) = met(&mut listener, &good).await;
    exchange(&mut outgoing.unwrap(), &mut incoming.unwrap().stream).await;
}

#[tokio::test]
async fn a_tls_client_says_so_where_the_server_speaks_none() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let (mut listener, address) = listening(Limits::default());
    let target = target(address, Some(client(authority.file(), None)));
    let plain = async {
        let mut incoming = accept(&mut listener).await.unwrap();
        incoming.stream.write_all(b"220 welcome\r\n").await.unwrap();
        incoming
    };
    let (_incoming, outgoing) = tokio::join!(plain, target.connect());
    assert_eq!(outgoing.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn mutual_tls_refuses_clients_without_a_certificate_or_with_a_foreign_one() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let foreign = Authority::new(folder.path(), "foreign");
    let limits = server(&authority.issue("server"), Some(authority.file()));
    let (mut listener, address) = listening(limits);

    let known = client(authority.file(), Some(&authority.issue("client")));
    let (incoming, outgoing) = met(&mut listener, &target(address, Some(known))).await;
    exchange(&mut outgoing.unwrap(), &mut incoming.unwrap().stream).await;

    let expired = authority.issue_expired("expired");
    let stranger = foreign.issue("stranger");
    for (shown, said) in [
        (None, "peer sent no certificates"),
        (Some(&stranger), "UnknownIssuer"),
        (Some(&expired), "certificate expired"),
    ] {
        let unknown = target(address, Some(client(authority.file(), shown)));
        let (refused, outgoing) = met(&mut listener, &unknown).await;
        let Err(Refused::Failed(error)) = refused else { panic!("{said}: it came in") };
        assert!(error.to_string().contains(said), "{error}");
        // With TLS 1.3, a client learns it with the first answer.
        if let Ok(mut connection) = outgoing {
            let read = timeout(DEADLINE, connection.read(&mut [0])).await.unwrap();
            assert!(read.is_err(), "{said}");
        }
    }
    assert_eq!(listener.connections(), 0);
}

#[tokio::test]
async fn a_client_refuses_a_server_that_is_expired_unknown_or_another() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let foreign = Authority::new(folder.path(), "foreign");
    let roots = client(authority.file(), None);
    for (issued, host, said) in [
        (authority.issue_expired("expired"), "localhost", "expired"),
        (foreign.issue("stranger"), "localhost", "UnknownIssuer"),
        (authority.issue("another"), "127.0.0.2", "not valid for name"),
    ] {
        let limits = server(&issued, None);
        let any = (Ipv4Addr::UNSPECIFIED, 0).into();
        let mut listener = Listener::bind(any, limits).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut target = target((Ipv4Addr::LOCALHOST, port).into(), Some(Arc::clone(&roots)));
        target.host = host.into();
        let (refused, outgoing) = met(&mut listener, &target).await;
        let error = outgoing.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(matches!(refused, Err(Refused::Failed(_))), "{said}");
    }
}

#[tokio::test]
async fn connecting_ends_after_its_time_and_says_where_to() {
    // The kernel takes the connection, and nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let mut target = target(address, Some(client(authority.file(), None)));
    target.timeout = Duration::from_millis(50);
    let error = timeout(DEADLINE, target.connect()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(error.to_string(), format!("{address} did not answer within 50ms"));

    drop(silent);
    (target.tls, target.timeout) = (None, DEADLINE);
    let error = target.connect().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_name_that_no_certificate_has_is_refused_before_anything_is_connected() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let mut target = target(([127, 0, 0, 1], 1).into(), Some(client(authority.file(), None)));
    target.host = "no name".into();
    let error = target.connect().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("\"no name\""), "{error}");
}

#[test]
fn an_address_that_is_taken_is_not_listened_at_twice() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _context = runtime.enter();
    let (_listener, address) = listening(Limits::default());
    let error = Listener::bind(address, Limits::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

/// Files that are good, and others.
struct Files {
    folder: TempDir,
    authority: Authority,
    issued: Issued,
    other: Issued,
}

impl Files {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let (issued, other) = (authority.issue("server"), authority.issue("other"));
        Self { folder, authority, issued, other }
    }

    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let file = self.folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    /// What a server and a client that show this certificate and key are told.
    fn refused(&self, identity: Identity) -> [String; 2] {
        let server = ServerTls { identity: identity.clone(), clients: None };
        let roots = Some(self.authority.file().to_owned());
        let client = ClientTls { roots, identity: Some(identity) };
        [chain(&server.load(&[]).unwrap_err()), chain(&client.load(&[]).unwrap_err())]
    }
}

#[test]
fn a_wrong_certificate_or_key_is_named_with_what_is_wrong() {
    let files = Files::new();
    let Issued { certificate, key } = &files.issued;
    let missing = files.folder.path().join("missing.pem");
    let folder = files.folder.path().to_owned();
    let garbage = files.write("garbage.pem", "no certificate at all");
    let empty = files.write("empty.pem", "");
    let base64 = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    let damaged = files.write("damaged.pem", base64);
    let label = "ENCRYPTED PRIVATE KEY";
    let encrypted = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let encrypted = files.write("encrypted.key", &encrypted);
    let label = "PRIVATE KEY";
    let nonsense = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let nonsense = files.write("nonsense.key", &nonsense);
    let cut = fs::read_to_string(certificate).unwrap();
    let cut = files.write("cut.pem", &cut[..cut.len() / 2]);
    for (certificate, key, named, said) in [
        (&missing, key, &missing, "is not there: "),
        (&folder, key, &folder, "can't be read: "),
        (&garbage, key, &garbage, "holds no certificate"),
        (&empty, key, &empty, "holds no certificate"),
        (&damaged, key, &damaged, "is no PEM file: "),
        (&cut, key, &cut, "is no PEM file: "),
        (certificate, &missing, &missing, "is not there: "),
        (certificate, &garbage, &garbage, "holds no private key"),
        (certificate, certificate, certificate, "holds no private key"),
        (certificate, &encrypted, &encrypted, "not encrypted"),
        (certificate, &nonsense, &nonsense, ""),
        (certificate, &files.other.key, certificate, "does not go with the key "),
        (certificate, &files.other.key, &files.other.key, "does not go with the key "),
    ] {
        let identity = Identity { certificate: certificate.clone(), key: key.clone() };
        for error in files.refused(identity) {
            assert!(error.contains(&*named.to_string_lossy()), "{} in {error}", named.display());
            assert!(error.contains(said), "{said} in {error}");
        }
    }
}

#[test]
fn wrong_authorities_are_named_with_what_is_wrong() {
    let files = Files::new();
    let garbage = files.write("garbage.pem", "no certificate at all");
    let label = "CERTIFICATE";
    let nonsense = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let nonsense = files.write("nonsense.pem", &nonsense);
    let missing = files.folder.path().join("missing.pem");
    for (file, said) in [
        (&garbage, "holds no certificate"),
        (&nonsense, "holds a certificate that can't be trusted: "),
        (&missing, "is not there: "),
    ] {
        let named = format!("{} {said}", file.display());
        let clients = Some(file.clone());
        let server = ServerTls { identity: identity(&files.issued), clients };
        let error = chain(&server.load(&[]).unwrap_err());
        assert!(error.starts_with(&named), "{error}");
        let client = ClientTls { roots: Some(file.clone()), identity: None };
        let error = chain(&client.load(&[]).unwrap_err());
        assert!(error.starts_with(&named), "{error}");
    }
}

#[test]
fn protocols_are_offered_in_their_order() {
    let files = Files::new();
    let tls = ServerTls { identity: identity(&files.issued), clients: None };
    let server: Arc<ServerConfig> = tls.load(&["h2", "http/1.1"]).unwrap();
    assert_eq!(server.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    let roots = Some(files.authority.file().to_owned());
    let client = ClientTls { roots, identity: None }.load(&["http/1.1"]).unwrap();
    assert_eq!(client.alpn_protocols, [b"http/1.1".to_vec()]);
}
