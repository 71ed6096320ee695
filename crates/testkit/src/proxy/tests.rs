//! Each fault, between two real sockets.

use super::*;
use crate::process::wait_for;

const DEADLINE: Duration = Duration::from_secs(20);

/// A server that is told what to do by the test, and a proxy in front of it.
struct Net {
    listener: TcpListener,
    proxy: FaultProxy,
}

impl Net {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = FaultProxy::to(listener.local_addr().unwrap());
        Self { listener, proxy }
    }

    /// The client's and the server's end of a new connection.
    fn pair(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.address()).unwrap();
        let (server, _) = self.listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.set_write_timeout(Some(DEADLINE)).unwrap();
        }
        (client, server)
    }
}

/// What arrives of something that is sent.
fn sent(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    thread::scope(|scope| {
        scope.spawn(move || from.write_all(bytes).unwrap());
        let mut arrived = vec![0; bytes.len()];
        to.read_exact(&mut arrived).unwrap();
        arrived
    })
}

/// Whether nothing comes for a little while, no end either.
fn is_silent(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let read = stream.read(&mut [0]);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    read.is_err_and(|error| is_only_late(&error))
}

/// Whether the connection ends by a reset and not by a goodbye.
fn is_reset(mut stream: &TcpStream) -> bool {
    stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// Sends until nobody takes any more; gives how much that was.
fn fill(mut stream: &TcpStream) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let block = vec![b'x'; 1 << 20];
    let mut sent = 0;
    wait_for("full buffers", DEADLINE, || {
        let count = write_some(stream, &block).unwrap();
        sent += count;
        (count == 0).then_some(())
    });
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.flush().unwrap();
    sent
}

#[test]
fn without_faults_everything_passes_ends_too() {
    let net = Net::new();
    let (mut client, mut server) = net.pair();
    let text: Vec<u8> = (0..3_000_000u32).map(|number| number.to_le_bytes()[1]).collect();
    assert!(sent(&client, &server, &text) == text);
    assert!(sent(&server, &client, &text) == text);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    assert_eq!(sent(&server, &client, b"the other half is open"), b"the other half is open");
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(net.proxy.connections(), 1);
}

#[test]
fn the_end_of_one_peer_by_a_reset_is_a_reset_for_the_other() {
    let net = Net::new();
    let (client, server) = net.pair();
    reset_on_close(&client);
    drop(client);
    assert!(is_reset(&server));
}

#[test]
fn without_a_server_clients_are_reset() {
    let net = Net::new();
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    net.proxy.set_target(gone);
    let client = TcpStream::connect(net.proxy.address()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(is_reset(&client));
    net.proxy.set_target(net.listener.local_addr().unwrap());
    let (client, server) = net.pair();
    assert_eq!(sent(&client, &server, b"there"), b"there");
}

#[test]
fn a_stall_holds_up_whoever_sends_and_loses_nothing() {
    let net = Net::new();
    let (mut client, mut server) = net.pair();
    net.proxy.stall(true);
    client.write_all(b"first").unwrap();
    assert!(is_silent(&server));
    let (up, down) = (fill(&client), fill(&server));
    assert!(is_silent(&server) && is_silent(&client));
    net.proxy.stall(false);
    let mut arrived = vec![0; "first".len() + up];
    server.read_exact(&mut arrived).unwrap();
    assert!(arrived.starts_with(b"firstx"));
    client.read_exact(&mut vec![0; down]).unwrap();
    assert!(is_silent(&server) && is_silent(&client));
}

#[test]
fn a_stall_of_one_side_leaves_the_other_way_open() {
    let net = Net::new();
    let (mut client, mut server) = net.pair();
    net.proxy.stall_server(true);
    server.write_all(b"down").unwrap();
    assert!(is_silent(&client));
    assert_eq!(sent(&client, &server, b"up"), b"up");
    net.proxy.stall_server(false);
    client.read_exact(&mut [0; 4]).unwrap();
    net.proxy.stall_clients(true);
    client.write_all(b"up").unwrap();
    assert!(is_silent(&server));
    assert_eq!(sent(&server, &client, b"down"), b"down");
}

#[test]
fn a_cut_is_a_reset_for_both_even_when_nothing_moves() {
    let net = Net::new();
    let (client, server) = net.pair();
    net.proxy.stall(true);
    assert!(fill(&server) > 0);
    net.proxy.cut();
    assert!(is_reset(&client) && is_reset(&server));
    net.proxy.stall(false);
    let (client, server) = net.pair();
    assert_eq!(sent(&client, &server, b"again"), b"again");
}

#[test]
fn a_cut_comes_after_so_many_bytes_from_the_server() {
    let net = Net::new();
    let (mut old, mut old_server) = net.pair();
    assert_eq!(sent(&old_server, &old, b"abc"), b"abc");
    net.proxy.cut_after(Some(5));
    old_server.write_all(b"defgh").unwrap();
    old.read_exact(&mut [0; 2]).unwrap();
    assert!(is_reset(&old));
    for _ in 0..2 {
        let (mut client, mut server) = net.pair();
        assert_eq!(sent(&client, &server, b"clients count not"), b"clients count not");
        server.write_all(b"hello, world").unwrap();
        let mut arrived = [0; 5];
        client.read_exact(&mut arrived).unwrap();
        assert_eq!(&arrived, b"hello");
        assert!(is_reset(&client));
    }
    net.proxy.cut_after(None);
    let (client, server) = net.pair();
    assert_eq!(sent(&server, &client, b"hello, world"), b"hello, world");
}

#[test]
fn a_delay_is_kept_by_bytes_and_ends_until_it_is_undone() {
    let net = Net::new();
    let (mut client, mut server) = net.pair();
    let delay = Duration::from_millis(60);
    net.proxy.delay(delay);
    let began = Instant::now();
    assert_eq!(sent(&client, &server, b"late"), b"late");
    assert!(began.elapsed() >= delay);
    net.proxy.delay(Duration::from_secs(3_600));
    client.write_all(b"much later").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(is_silent(&server));
    net.proxy.delay(Duration::ZERO);
    let mut arrived = String::new();
    server.read_to_string(&mut arrived).unwrap();
    assert_eq!(arrived, "much later");
}

#[test]
fn a_delay_bounds_what_is_under_way() {
    let net = Net::new();
    let (client, mut server) = net.pair();
    net.proxy.delay(Duration::from_secs(3_600));
    let sent = fill(&client);
    net.proxy.delay(Duration::ZERO);
    server.read_exact(&mut vec![0; sent]).unwrap();
    assert!(is_silent(&server));
}

#[test]
fn a_throttle_spreads_bytes_until_it_is_undone() {
    let net = Net::new();
    let (client, server) = net.pair();
    net.proxy.throttle(Some(20_000));
    let began = Instant::now();
    let text = vec![b'x'; 4_000];
    assert_eq!(sent(&client, &server, &text), text);
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
    net.proxy.throttle(Some(1));
    (&client).write_all(&text).unwrap();
    (&server).read_exact(&mut [0]).unwrap();
    net.proxy.throttle(None);
    (&server).read_exact(&mut vec![0; text.len() - 1]).unwrap(); // within the deadline
}

#[test]
fn half_open_is_silence_without_an_end() {
    let net = Net::new();
    let (mut client, mut server) = net.pair();
    let (other, other_server) = net.pair();
    net.proxy.half_open(true);
    client.write_all(b"lost").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(is_silent(&server));
    server.write_all(b"lost").unwrap();
    assert!(is_silent(&client));
    reset_on_close(&other_server);
    drop(other_server);
    assert!(is_silent(&other));
    assert!(fill_takes(&other, 16 << 20), "who sends is never held up");
    let (new, new_server) = net.pair();
    drop(new_server);
    assert!(is_silent(&new));

    net.proxy.half_open(false);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    assert_eq!(sent(&server, &client, b"heard again"), b"heard again");
    assert!(is_reset(&other));
}

/// Whether so much can be sent.
fn fill_takes(mut stream: &TcpStream, bytes: usize) -> bool {
    stream.write_all(&vec![0; bytes]).is_ok()
}

#[test]
fn refused_ones_are_reset_and_others_are_not() {
    let net = Net::new();
    let (client, server) = net.pair();
    net.proxy.refuse(true);
    let refused = TcpStream::connect(net.proxy.address());
    assert!(refused.is_err() || refused.is_ok_and(|stream| is_reset(&stream)));
    assert_eq!(sent(&client, &server, b"still"), b"still");
    assert_eq!(net.proxy.connections(), 1);
    net.proxy.refuse(false);
    net.pair();
    assert_eq!(net.proxy.connections(), 2);
}

#[test]
fn the_same_seed_turns_the_same_bits_over() {
    let damaged = |seed| {
        let net = Net::new();
        net.proxy.flip_bits(Some(10), seed);
        let (client, server) = net.pair();
        let text = vec![0; 10_000];
        assert!(sent(&client, &server, &text) == text, "what clients send is not damaged");
        let arrived = sent(&server, &client, &text);
        net.proxy.flip_bits(None, 0);
        assert!(sent(&server, &client, &text) == text, "nor is anything afterwards");
        arrived
    };
    let arrived = damaged(1);
    let flipped = arrived.iter().filter(|byte| **byte != 0);
    assert!(flipped.clone().all(|byte| byte.count_ones() == 1));
    let count = flipped.count();
    assert!((800..1_200).contains(&count), "{count} of about 1,000");
    assert!(damaged(1) == arrived);
    assert!(damaged(2) != arrived);
}

#[test]
fn nothing_is_left_when_it_is_dropped() {
    let net = Net::new();
    let pairs: Vec<_> = (0..20).map(|_| net.pair()).collect();
    net.proxy.stall(true);
    fill(&pairs[0].0);
    let shared = Arc::downgrade(&net.proxy.shared);
    drop(net.proxy);
    assert_eq!(shared.strong_count(), 0, "a thread is left");
    assert!(pairs.iter().all(|(client, server)| is_reset(client) && is_reset(server)));
}
