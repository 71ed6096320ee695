//! A proxy that does to connections what networks do: stalls, cuts, delays, silence, damage.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

/// How often a pump looks whether something has changed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How much is passed on at a time.
const PIECE_BYTES: usize = 16 << 10;

/// A TCP proxy on a free port of this machine, in front of a server. Everything that is set acts on
/// all connections, those that are there and those to come, until it is set otherwise.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What is wrong with the network.
#[derive(Clone, Debug, Default)]
struct Faults {
    stalled: bool,
    half_open: bool,
    refusing: bool,
    delay: Duration,
    bytes_per_second: Option<u64>,
    cut_after: Option<u64>,
    flip_one_in: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    faults: Mutex<Faults>,
    open: Mutex<Vec<TcpStream>>,
    accepted: AtomicU64,
    ended: AtomicBool,
}

impl FaultProxy {
    /// A proxy that passes on everything as it is.
    ///
    /// # Panics
    ///
    /// Where this machine has no port left.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.unwrap_or_else(|error| panic!("no port for a proxy: {error}"));
        let address = listener.local_addr();
        let address = address.unwrap_or_else(|error| panic!("a proxy without address: {error}"));
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            faults: Mutex::default(),
            open: Mutex::default(),
            accepted: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let accepting = Some(thread::spawn(move || accepting.accept(&listener)));
        Self { address, shared, accepting }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go there.
    pub fn set_target(&self, target: SocketAddr) {
        *lock(&self.shared.target) = target;
    }

    /// How many connections it has accepted, those it refused not counted.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Whether to stop reading, both ways: whoever sends fills the buffers in between, and waits.
    pub fn stall(&self, stalled: bool) {
        lock(&self.shared.faults).stalled = stalled;
    }

    /// Whether to swallow everything, ends of connections too, and keep them open: a peer that is
    /// gone without a word.
    pub fn half_open(&self, half_open: bool) {
        lock(&self.shared.faults).half_open = half_open;
    }

    /// Whether to close new connections at once.
    pub fn refuse(&self, refusing: bool) {
        lock(&self.shared.faults).refusing = refusing;
    }

    /// Each piece is passed on so much later.
    pub fn delay(&self, delay: Duration) {
        lock(&self.shared.faults).delay = delay;
    }

    /// So many bytes pass each way in a second; `None` is as many as there are.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        lock(&self.shared.faults).bytes_per_second = bytes_per_second;
    }

    /// Each connection, of those to come, is cut after so many bytes from the server.
    pub fn cut_after(&self, bytes: Option<u64>) {
        lock(&self.shared.faults).cut_after = bytes;
    }

    /// One bit is turned over in about every so many bytes from the server.
    pub fn flip_bits(&self, one_in_bytes: Option<u64>) {
        lock(&self.shared.faults).flip_one_in = one_in_bytes;
    }

    /// Cuts all connections now, with a reset.
    pub fn cut(&self) {
        lock(&self.shared.open).drain(..).for_each(|stream| reset(&stream));
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut();
        drop(TcpStream::connect(self.address)); // wakes it
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut();
    }
}

impl Shared {
    fn faults(&self) -> Faults {
        lock(&self.faults).clone()
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.ended() {
                return;
            }
            let Ok(client) = client else { continue };
            if self.faults().refusing {
                reset(&client);
                continue;
            }
            self.accepted.fetch_add(1, Ordering::SeqCst);
            let target = *lock(&self.target);
            match TcpStream::connect(target) {
                Ok(server) => self.join(client, server),
                Err(_) => reset(&client),
            }
        }
    }

    /// Two pumps, one each way.
    fn join(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let ends = (client.try_clone(), server.try_clone(), client.try_clone(), server.try_clone());
        let (Ok(to_client), Ok(to_server), Ok(one), Ok(other)) = ends else { return };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_read_timeout(Some(LOOK_EVERY));
            let _ = stream.set_write_timeout(Some(LOOK_EVERY));
        }
        lock(&self.open).extend([one, other]);
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || up.pump(client, to_server, false));
        thread::spawn(move || down.pump(server, to_client, true));
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, from_server: bool) {
        let mut piece = vec![0; PIECE_BYTES];
        let left = self.faults().cut_after.filter(|_| from_server);
        let mut left = left.unwrap_or(u64::MAX);
        while !self.ended() {
            if self.faults().stalled {
                thread::park_timeout(LOOK_EVERY);
                continue;
            }
            let read = from.read(&mut piece);
            let faults = self.faults(); // as they are now, and not when it began to wait
            let count = match read {
                Ok(0) if faults.half_open => {
                    thread::park_timeout(LOOK_EVERY);
                    continue;
                }
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) => count,
                Err(error) if is_only_late(&error) => continue,
                Err(_) => {
                    if !faults.half_open {
                        reset(&to);
                    }
                    return;
                }
            };
            if faults.half_open {
                continue;
            }
            let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= count as u64;
            if from_server {
                flip(&mut piece[..count], faults.flip_one_in);
            }
            wait(faults.delay);
            if let Some(speed) = faults.bytes_per_second {
                wait(Duration::from_secs_f64(count as f64 / speed.max(1) as f64));
            }
            if !self.pass(&mut to, &piece[..count]) || left == 0 {
                reset(&to);
                reset(&from);
                return;
            }
        }
    }

    /// Writes everything, however long the other side takes; tells whether it could.
    fn pass(&self, to: &mut TcpStream, mut piece: &[u8]) -> bool {
        while !piece.is_empty() && !self.ended() {
            match to.write(piece) {
                Ok(count) => piece = &piece[count..],
                Err(error) if is_only_late(&error) => {}
                Err(_) => return false,
            }
        }
        piece.is_empty()
    }
}

fn is_only_late(error: &std::io::Error) -> bool {
    let kind = error.kind();
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn flip(piece: &mut [u8], one_in: Option<u64>) {
    let Some(one_in) = one_in else { return };
    for byte in piece {
        if fastrand::u64(0..one_in.max(1)) == 0 {
            *byte ^= 1 << fastrand::u8(0..8);
        }
    }
}

fn wait(time: Duration) {
    if !time.is_zero() {
        thread::park_timeout(time);
    }
}

/// Closes without a goodbye.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::wait_for;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// A server that sends back what it gets, and a proxy in front of it.
    fn echo() -> FaultProxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut back = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut stream, &mut back);
                    let _ = back.shutdown(Shutdown::Write);
                });
            }
        });
        FaultProxy::to(address)
    }

    fn connect(proxy: &FaultProxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn echoed(stream: &mut TcpStream, text: &str) -> String {
        stream.write_all(text.as_bytes()).unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).unwrap();
        String::from_utf8_lossy(&back).into_owned()
    }

    /// Whether nothing comes for a little while.
    fn is_silent(stream: &mut TcpStream) -> bool {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let read = stream.read(&mut [0]);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        read.is_err_and(|error| is_only_late(&error))
    }

    #[test]
    fn without_faults_everything_passes_ends_too() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        assert_eq!(echoed(&mut stream, "hello"), "hello");
        proxy.delay(Duration::from_millis(1));
        proxy.throttle(Some(1 << 20));
        assert_eq!(echoed(&mut stream, "slowly"), "slowly");
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert_eq!(proxy.connections(), 1);
    }

    #[test]
    fn a_stall_holds_up_whoever_sends_and_ends() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        proxy.stall(true);
        stream.write_all(b"later").unwrap();
        assert!(is_silent(&mut stream));
        stream.set_nonblocking(true).unwrap();
        let block = vec![b'x'; 1 << 20];
        let mut sent = 0;
        wait_for("full buffers", DEADLINE, || match stream.write(&block) {
            Ok(count) => {
                sent += count;
                None
            }
            Err(_) => Some(()),
        });
        stream.set_nonblocking(false).unwrap();
        proxy.stall(false);
        let mut back = vec![0; 5 + sent];
        stream.read_exact(&mut back).unwrap();
        assert!(back.starts_with(b"laterx"));
    }

    #[test]
    fn cuts_come_at_once_or_after_so_many_bytes() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        assert_eq!(echoed(&mut stream, "hello"), "hello");
        proxy.cut();
        assert!(matches!(stream.read(&mut [0]), Err(_) | Ok(0)));
        proxy.cut_after(Some(3));
        let mut stream = connect(&proxy);
        stream.write_all(b"hello").unwrap();
        let mut back = Vec::new();
        let _ = stream.read_to_end(&mut back);
        assert!(b"hel".starts_with(&back), "{back:?}");
        proxy.cut_after(None);
        assert_eq!(echoed(&mut connect(&proxy), "hello"), "hello");
    }

    #[test]
    fn half_open_is_silence_without_an_end() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        assert_eq!(echoed(&mut stream, "hello"), "hello");
        proxy.half_open(true);
        stream.write_all(b"lost").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(is_silent(&mut stream));
    }

    #[test]
    fn refused_ones_are_closed_and_others_are_not() {
        let proxy = echo();
        let mut open = connect(&proxy);
        assert_eq!(echoed(&mut open, "hello"), "hello");
        proxy.refuse(true);
        let mut refused = connect(&proxy);
        assert!(matches!(refused.read(&mut [0]), Err(_) | Ok(0)));
        assert_eq!(echoed(&mut open, "still"), "still");
        assert_eq!(proxy.connections(), 1);
    }

    #[test]
    fn some_bits_are_turned_over() {
        let proxy = echo();
        proxy.flip_bits(Some(10));
        let text = "x".repeat(1_000);
        let back = echoed(&mut connect(&proxy), &text);
        assert_ne!(back, text);
    }
}
