//! Connections that come in: how many, from whom, with or without TLS, and for how long they may
//! take to begin.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

/// Connections that wait to be accepted, in the kernel.
const BACKLOG: u32 = 1024;

/// So long accepting rests when there is no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// What a listener allows.
#[derive(Clone)]
pub struct Limits {
    /// So many connections at once, those that are still shaking hands among them; what comes
    /// beyond that is closed at once.
    pub connections_max: usize,
    /// So long a TLS handshake may take.
    pub handshake: Duration,
    /// How a connection that says nothing is asked whether it is still there.
    pub keepalive: Keepalive,
    /// TLS, if there is any.
    pub tls: Option<Arc<ServerConfig>>,
}

/// When the kernel gives up a peer that is gone without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// After so long a silence it is asked whether it is still there.
    pub idle: Duration,
    /// So long may pass without an answer to that: then it is gone.
    pub timeout: Duration,
    /// So long may pass without word of what was sent, or without room for it at the other side
    /// (`TCP_USER_TIMEOUT`, [RFC 5482]). A peer that is alive and does not read is given up by this
    /// too, so that who waits for slow readers has none; the kernel then takes about a quarter of an
    /// hour to give up one that is gone while something is unsent.
    ///
    /// [RFC 5482]: https://www.rfc-editor.org/rfc/rfc5482
    pub unsent: Option<Duration>,
}

impl Default for Keepalive {
    /// Asked after 30 s, gone after 60 s without an answer, waited for as long as it does not read.
    fn default() -> Self {
        let (idle, timeout) = (Duration::from_secs(30), Duration::from_secs(60));
        Self { idle, timeout, unsent: None }
    }
}

impl Default for Limits {
    /// 1,000 connections, 10 s for a handshake, no TLS.
    fn default() -> Self {
        let handshake = Duration::from_secs(10);
        Self { connections_max: 1_000, handshake, keepalive: Keepalive::default(), tls: None }
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("connections_max", &self.connections_max)
            .field("handshake", &self.handshake)
            .field("keepalive", &self.keepalive)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

/// Accepts TCP connections within [`Limits`].
///
/// - **Buffering**: at most `connections_max` connections, whose TLS handshakes go on side by side
///   while [`accept`](Self::accept) is polled, and only then.
/// - **Cancellation**: a dropped `accept` loses nothing.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    limits: Limits,
    slots: Arc<Semaphore>,
    shaking: FuturesUnordered<Handshake>,
    // After the kernel had no descriptor left.
    resting: Option<Pin<Box<Sleep>>>,
}

type Handshake = Pin<Box<dyn HandshakeFuture>>;

/// Named so that a listener is `Debug`.
trait HandshakeFuture: Future<Output = io::Result<Incoming>> + Send {}

impl<F: Future<Output = io::Result<Incoming>> + Send> HandshakeFuture for F {}

impl fmt::Debug for dyn HandshakeFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handshake")
    }
}

/// A connection that came in, ready to be spoken on. It counts as one of its listener's until it is
/// dropped.
#[derive(Debug)]
pub struct Incoming {
    /// What to read and write.
    pub stream: Connection,
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// Its place among the listener's connections; it is to live as long as the stream.
    pub slot: Slot,
}

/// A place among a listener's connections, free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

impl Listener {
    /// Listens at an address. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// Those of the system: the address is in use, or not one of this machine's.
    pub fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // So that a restart need not wait for old connections to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let tcp = socket.listen(BACKLOG)?;
        let slots = Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS)));
        let shaking = FuturesUnordered::new();
        Ok(Self { tcp, limits, slots, shaking, resting: None })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.limits.connections_max - self.slots.available_permits()
    }

    /// The next connection, after its handshake.
    ///
    /// # Errors
    ///
    /// One did not come about; the listener goes on.
    pub async fn accept(&mut self) -> Result<Incoming, Refused> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept).
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Refused>> {
        loop {
            if let Poll::Ready(Some(shaken)) = self.shaking.poll_next_unpin(cx) {
                return Poll::Ready(shaken.map_err(Refused::Failed));
            }
            if let Some(rest) = &mut self.resting {
                ready!(rest.as_mut().poll(cx));
                self.resting = None;
            }
            match ready!(self.tcp.poll_accept(cx)) {
                Ok((tcp, peer)) => {
                    if !self.admit(tcp, peer) {
                        return Poll::Ready(Err(Refused::TooMany(peer)));
                    }
                }
                // One that was gone before it was accepted.
                Err(error) if is_of_one(&error) => {}
                Err(error) => {
                    self.resting = Some(Box::pin(sleep(EXHAUSTED)));
                    return Poll::Ready(Err(Refused::Failed(error)));
                }
            }
        }
    }

    /// Begins the handshake, if there is a place.
    fn admit(&mut self, tcp: TcpStream, peer: SocketAddr) -> bool {
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else { return false };
        let slot = Slot { _permit: permit };
        let (keepalive, tls) = (self.limits.keepalive, self.limits.tls.clone());
        let patience = self.limits.handshake;
        self.shaking.push(Box::pin(async move {
            prepare(&tcp, keepalive)?;
            let stream = match tls {
                None => Connection::Plain(tcp),
                Some(config) => {
                    let accepting = TlsAcceptor::from(config).accept(tcp);
                    let shaken = timeout(patience, accepting).await;
                    let late = |_| said(io::ErrorKind::TimedOut, peer, "took too long", None);
                    let tls = shaken
                        .map_err(late)?
                        .map_err(|error| said(error.kind(), peer, "failed", Some(error)))?;
                    Connection::Tls(Box::new(tls.into()))
                }
            };
            Ok(Incoming { stream, peer, slot })
        }));
        true
    }
}

fn said(kind: io::ErrorKind, peer: SocketAddr, what: &str, cause: Option<io::Error>) -> io::Error {
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    io::Error::new(kind, format!("TLS handshake with {peer} {what}{cause}"))
}

/// Why a connection did not come about. The listener goes on.
#[derive(Debug)]
pub enum Refused {
    /// There are [as many as may be](Limits::connections_max): it was closed at once.
    TooMany(SocketAddr),
    /// The handshake failed, or the kernel has no descriptor left.
    Failed(io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(peer) => write!(f, "{peer} was turned away: too many connections"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What every connection is told, in and out: small writes leave at once, and a peer that is gone
/// without a word is found out.
///
/// # Errors
///
/// Where the socket does not take an option.
pub fn prepare(tcp: &TcpStream, keepalive: Keepalive) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let Keepalive { idle, timeout, unsent } = keepalive;
    let socket = SockRef::from(tcp);
    let probes = TcpKeepalive::new().with_time(idle).with_interval((timeout / 4).max(SECOND));
    socket.set_tcp_keepalive(&probes.with_retries(4))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(unsent)?;
    Ok(())
}

/// The finest interval that the kernel takes.
const SECOND: Duration = Duration::from_secs(1);

/// Bytes in and out, with TLS or without.
#[derive(Debug)]
pub enum Connection {
    /// Without TLS.
    Plain(TcpStream),
    /// With it; boxed, as it is ten times as large.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
