//! A proxy that does to connections what networks do: stalls, cuts, delays, silence, damage.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use socket2::SockRef;

/// How long a write, or a read while something is due, may keep a pump from looking at the faults.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How much is read at a time; a stall holds back so much that was read when it began.
const PIECE_BYTES: usize = 16 << 10;

/// How much of a delayed connection is under way in each direction; more is not read.
const UNDER_WAY_BYTES_MAX: usize = 1 << 20;

/// How long the server may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A TCP proxy on a free port of this machine, in front of a server. Everything that is set acts on
/// all connections, those that are there and those to come, until it is set otherwise. When it is
/// dropped all connections are reset, and its threads have ended.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What is wrong with the network.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    stalled: Ways,
    half_open: bool,
    refusing: bool,
    delay: Duration,
    bytes_per_second: Option<u64>,
    cut_after: Option<u64>,
    flips: Option<Flips>,
}

/// Something that may be so in one direction only.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    from_client: bool,
    from_server: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flips {
    one_in_bytes: u64,
    seed: u64,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    faults: Mutex<Faults>,
    /// That faults changed, or that a link was cut.
    changed: Condvar,
    links: Mutex<Vec<(Weak<Link>, JoinHandle<()>)>>,
    accepted: AtomicU64,
    ended: AtomicBool,
}

/// A client and the server that it is joined with.
#[derive(Debug)]
struct Link {
    number: u64,
    client: TcpStream,
    server: OnceLock<TcpStream>,
    cut: AtomicBool,
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
            changed: Condvar::new(),
            links: Mutex::default(),
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
        self.shared.set(|faults| {
            faults.stalled = Ways { from_client: stalled, from_server: stalled };
        });
    }

    /// Whether to stop reading from clients; servers are heard.
    pub fn stall_clients(&self, stalled: bool) {
        self.shared.set(|faults| faults.stalled.from_client = stalled);
    }

    /// Whether to stop reading from the server; clients are heard.
    pub fn stall_server(&self, stalled: bool) {
        self.shared.set(|faults| faults.stalled.from_server = stalled);
    }

    /// Whether to swallow everything, ends of connections too, and keep them open: a peer that is
    /// gone without a word. Afterwards those go on without what was swallowed, or end.
    pub fn half_open(&self, half_open: bool) {
        self.shared.set(|faults| faults.half_open = half_open);
    }

    /// Whether to reset new connections at once.
    pub fn refuse(&self, refusing: bool) {
        self.shared.set(|faults| faults.refusing = refusing);
    }

    /// Everything, ends too, is passed on so much later. What is under way at a time is at most
    /// 1 MiB of each connection and direction.
    pub fn delay(&self, delay: Duration) {
        self.shared.set(|faults| faults.delay = delay);
    }

    /// So many bytes pass of each connection, each way, in a second; `None` is as many as there are.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        self.shared.set(|faults| faults.bytes_per_second = bytes_per_second);
    }

    /// Each connection is reset after so many bytes from the server, counted from its begin.
    pub fn cut_after(&self, bytes: Option<u64>) {
        self.shared.set(|faults| faults.cut_after = bytes);
    }

    /// One bit is turned over in about every so many bytes from the server: always the same ones of
    /// a connection with the same number, bytes and seed.
    pub fn flip_bits(&self, one_in_bytes: Option<u64>, seed: u64) {
        let flips = one_in_bytes.map(|one_in_bytes| Flips { one_in_bytes, seed });
        self.shared.set(|faults| faults.flips = flips);
    }

    /// Resets all connections now.
    pub fn cut(&self) {
        let links: Vec<_> =
            lock(&self.shared.links).iter().filter_map(|(link, _)| link.upgrade()).collect();
        links.iter().for_each(|link| self.shared.cut(link));
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)); // wakes it
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut();
        let links = std::mem::take(&mut *lock(&self.shared.links));
        for (_, thread) in links {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.faults));
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else {
                thread::park_timeout(LOOK_EVERY); // no files left, perhaps
                continue;
            };
            if lock(&self.faults).refusing {
                reset_on_close(&client);
                continue;
            }
            let mut links = lock(&self.links);
            links.retain(|(_, thread)| !thread.is_finished());
            // Under the lock: who has seen the number, or the server's end, finds the link to cut.
            let number = self.accepted.fetch_add(1, Ordering::SeqCst);
            let cut = AtomicBool::new(false);
            let link = Arc::new(Link { number, client, server: OnceLock::new(), cut });
            let known = Arc::downgrade(&link);
            let shared = Arc::clone(self);
            links.push((known, thread::spawn(move || shared.join(&link))));
        }
    }

    /// Connects to the server, and pumps both ways until both have ended.
    fn join(&self, link: &Link) {
        let target = *lock(&self.target);
        let Ok(server) = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) else {
            return self.cut(link);
        };
        let server = link.server.get_or_init(|| server);
        for stream in [&link.client, server] {
            let _ = stream.set_nodelay(true);
            let _ = stream.set_write_timeout(Some(LOOK_EVERY));
        }
        if link.is_cut() {
            return self.cut(link); // it came too early to know of the server
        }
        thread::scope(|scope| {
            scope.spawn(|| Pump::new(self, link, &link.client, server).run());
            Pump::new(self, link, server, &link.client).run();
        });
    }

    /// Makes the pumps of a link end; then its sockets are closed without a goodbye.
    fn cut(&self, link: &Link) {
        link.cut.store(true, Ordering::SeqCst);
        for stream in [Some(&link.client), link.server.get()].into_iter().flatten() {
            reset_on_close(stream);
            let _ = stream.shutdown(Shutdown::Read); // wakes who reads; the peer hears nothing
        }
        // Whoever waits has looked before it had the lock, or is woken.
        drop(lock(&self.faults));
        self.changed.notify_all();
    }
}

impl Link {
    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }
}

/// One direction of a link.
struct Pump<'a> {
    shared: &'a Shared,
    link: &'a Link,
    from: &'a TcpStream,
    to: &'a TcpStream,
    from_server: bool,
    /// What was read and not passed on: at most [`UNDER_WAY_BYTES_MAX`] and a piece.
    under_way: VecDeque<Piece>,
    under_way_bytes: usize,
    passed_bytes: u64,
    /// Before then nothing passes a throttle.
    free_at: Instant,
    damage: Option<(Flips, Rng)>,
    end: Option<End>,
}

struct Piece {
    came: Instant,
    bytes: Vec<u8>,
    passed: usize,
}

/// How the sender ended.
struct End {
    came: Instant,
    is_reset: bool,
}

impl<'a> Pump<'a> {
    fn new(shared: &'a Shared, link: &'a Link, from: &'a TcpStream, to: &'a TcpStream) -> Self {
        Self {
            shared,
            link,
            from,
            to,
            from_server: !std::ptr::eq(from, &raw const link.client),
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            passed_bytes: 0,
            free_at: Instant::now(),
            damage: None,
            end: None,
        }
    }

    fn run(mut self) {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Some(faults) = self.unstalled() {
            if faults.half_open {
                self.under_way.clear();
                self.under_way_bytes = 0;
            }
            let now = Instant::now();
            let came = self.under_way.front().map(|piece| piece.came);
            let came = came.or(self.end.as_ref().map(|end| end.came));
            let mut due = came.map(|came| came + faults.delay);
            if faults.bytes_per_second.is_some() && !self.under_way.is_empty() {
                due = due.max(Some(self.free_at));
            }
            let left = due.map(|due| due.saturating_duration_since(now));
            match left {
                Some(Duration::ZERO) if !self.under_way.is_empty() => self.pass(faults, now),
                Some(Duration::ZERO) if !faults.half_open => return self.pass_end(),
                _ if self.end.is_some() || self.under_way_bytes >= UNDER_WAY_BYTES_MAX => {
                    self.wait(left.filter(|_| !faults.half_open));
                }
                _ => self.read(&mut buffer, left),
            }
        }
    }

    /// What is wrong, once this direction is not stalled; `None` when the link is cut.
    fn unstalled(&self) -> Option<Faults> {
        let stalled = |faults: &mut Faults| {
            let Ways { from_client, from_server } = faults.stalled;
            !self.link.is_cut() && if self.from_server { from_server } else { from_client }
        };
        let faults = lock(&self.shared.faults);
        let faults = self.shared.changed.wait_while(faults, stalled);
        let faults = *faults.unwrap_or_else(PoisonError::into_inner);
        (!self.link.is_cut()).then_some(faults)
    }

    /// Waits so long, or until something has changed.
    fn wait(&self, time: Option<Duration>) {
        let faults = lock(&self.shared.faults);
        if self.link.is_cut() {
            return;
        }
        // A change between the last look and this wait is seen after it.
        let time = time.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        drop(self.shared.changed.wait_timeout(faults, time));
    }

    fn read(&mut self, buffer: &mut [u8], due: Option<Duration>) {
        let timeout = due.map(|due| due.clamp(Duration::from_millis(1), LOOK_EVERY));
        let read = self.from.set_read_timeout(timeout).and_then(|()| self.from.read(buffer));
        let came = Instant::now();
        match read {
            Ok(0) => self.end = Some(End { came, is_reset: false }),
            Ok(count) => {
                let bytes = buffer[..count].to_vec();
                self.under_way.push_back(Piece { came, bytes, passed: 0 });
                self.under_way_bytes += count;
            }
            Err(error) if is_only_late(&error) => {}
            Err(_) => self.end = Some(End { came, is_reset: true }),
        }
    }

    /// Passes on some of the piece that is due, as much as the other side takes.
    fn pass(&mut self, faults: Faults, now: Instant) {
        let left = faults.cut_after.filter(|_| self.from_server);
        let left = left.map_or(u64::MAX, |bytes| bytes.saturating_sub(self.passed_bytes));
        let at_once = match faults.bytes_per_second {
            Some(speed) => (speed / 50).max(1).min(left), // evenly, rather than in big lumps
            None => left,
        };
        let at_once = usize::try_from(at_once).unwrap_or(usize::MAX);
        let Some(piece) = self.under_way.front_mut() else { return };
        if piece.passed == 0 && self.from_server {
            flip(&mut piece.bytes, faults.flips, &mut self.damage, self.link.number);
        }
        let rest = &piece.bytes[piece.passed..];
        let rest = &rest[..rest.len().min(at_once)];
        let count = if rest.is_empty() { Ok(0) } else { write_some(self.to, rest) };
        let Ok(count) = count else { return self.shared.cut(self.link) };
        piece.passed += count;
        self.passed_bytes += count as u64;
        if piece.passed == piece.bytes.len() {
            self.under_way_bytes -= piece.passed;
            self.under_way.pop_front();
        }
        if let Some(speed) = faults.bytes_per_second {
            let time = Duration::from_secs_f64(count as f64 / speed.max(1) as f64);
            self.free_at = self.free_at.max(now) + time;
        }
        if count as u64 == left {
            self.shared.cut(self.link);
        }
    }

    fn pass_end(&self) {
        match self.end {
            Some(End { is_reset: false, .. }) => {
                let _ = self.to.shutdown(Shutdown::Write);
            }
            _ => self.shared.cut(self.link),
        }
    }
}

/// How many bytes the other side takes; none where it does not take any for a while.
fn write_some(mut to: &TcpStream, bytes: &[u8]) -> Result<usize> {
    match to.write(bytes) {
        Err(error) if is_only_late(&error) => Ok(0),
        written => written,
    }
}

fn is_only_late(error: &Error) -> bool {
    let kind = error.kind();
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Turns bits over, where some are to be, by the connection's own row of random numbers.
fn flip(bytes: &mut [u8], flips: Option<Flips>, damage: &mut Option<(Flips, Rng)>, number: u64) {
    if damage.as_ref().map(|(flips, _)| *flips) != flips {
        *damage = flips.map(|flips| (flips, Rng::with_seed(flips.seed.wrapping_add(number))));
    }
    let Some((Flips { one_in_bytes, .. }, random)) = damage else { return };
    for byte in bytes {
        if random.u64(0..(*one_in_bytes).max(1)) == 0 {
            *byte ^= 1 << random.u8(0..8);
        }
    }
}

/// It will be closed without a goodbye.
fn reset_on_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
