//! `socket`: records over TCP, UDP and Unix sockets.
//!
//! **Delivery.** What a socket gave can't be read again: what was in flight at a crash is lost, and
//! TCP tells no sender of that. While the pipeline is full nothing is read: a sender over TCP or a
//! Unix socket waits, and datagrams of UDP are dropped by the kernel, which is counted as refused.
//! A datagram is a record, or with `framing = "newline"` one or more lines.
//!
//! **Memory.** A connection that says nothing holds nothing; one in the middle of a record holds
//! that much, and all of these together 3 MiB and a record at most. Where that is not enough, who
//! sends long records waits for others to end theirs, and one of those who says nothing for 30 s
//! meanwhile is given up. Nothing is read without room for it.
//!
//! **End.** It listens until it is stopped; with `--once` until the last connection has ended, of at
//! least one. Records that the end of a connection cuts in two: a line is a row all the same, a
//! frame that says how long it is is refused.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_schema::SchemaRef;
use futures::StreamExt;
use futures::stream::{BoxStream, poll_fn, try_unfold};
use futures_core::future::BoxFuture;
use serde::Deserialize;
use socket2::{Domain, Socket, Type};
use tidegate_flow::{FairMerge, MergeHandle, Merged};
use tidegate_model::{
    ByteSize, Error, Mistake, Result, Settings, Source, SourceBatch, SourceContext, SourceSpec,
    SourceStream, Spanned, TimeSpan, log_schema,
};
use tidegate_net::listen::Limits;
use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep};

use crate::codecs::{Codec, Framer, Framing, decoder_named, line_bytes_max, rounded};
use crate::network::{self, ListenFields, ListenTls, Listening, Troubles, not_zero, span};

/// Datagrams.
mod datagram;

/// Where connections come in.
mod door;

/// One connection.
mod link;

/// Records that are not complete yet.
mod parts;

/// What it is read from.
mod wire;

use datagram::{Datagrams, Port};
use door::{Door, UnixDoor, datagrams};
use link::{CHUNK_BYTES_MAX, Link, Shared};
use parts::Parts;

/// How the source presents itself.
pub const SPEC: SourceSpec = SourceSpec {
    summary: "records over TCP, UDP and Unix sockets: lines, counted frames, syslog; they can't be \
              read again after a crash",
    example: r#"listen = "127.0.0.1:5140"      # or "0.0.0.0:5140", for other machines
codec = "syslog"               # or "text", the default, "auto", "json"
framing = "octet_counting"     # or "newline", the default, "length_prefix"
# mode = "udp"                 # or "tcp", the default
# tls = { certificate = "cert.pem", key = "key.pem", clients = "ca.pem" }
# mode = "unix"                # or "unixgram": with path instead of listen
# path = "/run/tidegate.sock""#,
    build,
};

/// The longest path of a Unix socket.
const PATH_BYTES_MAX: usize = 107;

/// The settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `tcp` (default), `udp`, `unix` or `unixgram`.
    mode: Option<Spanned<String>>,
    /// Where, over a network: an address and a port, or a port of this machine alone.
    listen: Option<Spanned<String>>,
    /// Where, on this machine: the socket's path.
    path: Option<Spanned<PathBuf>>,
    /// How records are told apart: `newline` (default), `octet_counting` or `length_prefix`.
    framing: Option<Spanned<String>>,
    /// How records become rows: `text` (default), `auto`, `json`, `syslog`.
    codec: Option<Spanned<String>>,
    /// Longer records are left out and counted: 1 MiB.
    line_bytes_max: Option<Spanned<ByteSize>>,
    /// So many connections at once: 1,000.
    connections_max: Option<Spanned<usize>>,
    /// How long a TLS handshake may take: 10 s.
    handshake_timeout: Option<Spanned<TimeSpan>>,
    /// A connection that says nothing for so long is closed; it counts only while there is room to
    /// read. Never, where it is not set.
    idle_timeout: Option<Spanned<TimeSpan>>,
    /// How much the kernel keeps of datagrams that are not read yet.
    receive_buffer: Option<Spanned<ByteSize>>,
    /// Who may write to a Unix socket, such as `"0660"`.
    permissions: Option<Spanned<String>>,
    /// TLS, over TCP.
    tls: Option<ListenTls>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Source>, Mistake> {
    let mut config: Config = settings.parse()?;
    let mode = config.mode.as_ref().map_or("tcp", |mode| mode.get_ref()).to_owned();
    let place = match &*mode {
        "tcp" => Place::Tcp(tcp(&mut config)?),
        "udp" => Place::Udp(network::address(needed(&config.listen, "listen", &mode)?)?),
        "unix" => Place::Unix(unix_path(&config, &mode)?),
        "unixgram" => Place::Unixgram(unix_path(&config, &mode)?),
        other => {
            let span = config.mode.as_ref().map_or(0..0, Spanned::span);
            return Err(Mistake::at(span, format!("there is no mode {other:?}"))
                .help("one of \"tcp\", \"udp\", \"unix\", \"unixgram\""));
        }
    };
    refuse_others(&config, &place)?;
    let connections_max = match &config.connections_max {
        Some(max) => *not_zero(max, "no connection would ever be taken")?,
        None => Limits::default().connections_max,
    };
    let receive_buffer = config.receive_buffer.map(|size| size.get_ref().0);
    Ok(Box::new(SocketSource {
        place,
        framing: Framing::named(config.framing.as_ref())?,
        codec: decoder_named(config.codec.as_ref())?,
        line_bytes_max: line_bytes_max(config.line_bytes_max.as_ref())?,
        idle_timeout: config.idle_timeout.as_ref().map(span).transpose()?,
        receive_buffer: receive_buffer.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        permissions: config.permissions.as_ref().map(permissions).transpose()?,
        connections_max,
    }))
}

fn needed<'s, T>(
    field: &'s Option<Spanned<T>>,
    name: &str,
    mode: &str,
) -> Result<&'s Spanned<T>, Mistake> {
    let missing = || Mistake::new(format!("mode {mode:?} needs `{name}`"));
    field.as_ref().ok_or_else(missing)
}

fn tcp(config: &mut Config) -> Result<Listening, Mistake> {
    let listen = needed(&config.listen, "listen", "tcp")?;
    ListenFields {
        listen: listen.clone(),
        connections_max: config.connections_max.clone(),
        handshake_timeout: config.handshake_timeout.clone(),
        tls: config.tls.take(),
        auth: None,
    }
    .understood()
}

fn unix_path(config: &Config, mode: &str) -> Result<PathBuf, Mistake> {
    let path = needed(&config.path, "path", mode)?;
    let length = path.get_ref().as_os_str().len();
    if !(1..=PATH_BYTES_MAX).contains(&length) {
        let message = format!("a socket's path has 1 to {PATH_BYTES_MAX} bytes, this one {length}");
        return Err(Mistake::at(path.span(), message).help("take a shorter one"));
    }
    Ok(path.get_ref().clone())
}

/// Fields that mean nothing in this mode.
fn refuse_others(config: &Config, place: &Place) -> Result<(), Mistake> {
    let network = matches!(place, Place::Tcp(_) | Place::Udp(_));
    let datagrams = matches!(place, Place::Udp(_) | Place::Unixgram(_));
    let (tcp, handshake) = (matches!(place, Place::Tcp(_)), config.handshake_timeout.as_ref());
    let spans = [
        (config.listen.as_ref().map(Spanned::span), !network, "listen"),
        (config.path.as_ref().map(Spanned::span), network, "path"),
        (config.permissions.as_ref().map(Spanned::span), network, "permissions"),
        (config.receive_buffer.as_ref().map(Spanned::span), !datagrams, "receive_buffer"),
        (config.idle_timeout.as_ref().map(Spanned::span), datagrams, "idle_timeout"),
        (config.connections_max.as_ref().map(Spanned::span), datagrams, "connections_max"),
        (handshake.map(Spanned::span), !tcp, "handshake_timeout"),
    ];
    for (span, wrong, name) in spans {
        if let (Some(span), true) = (span, wrong) {
            let message = format!("`{name}` means nothing in mode {:?}", place.mode());
            return Err(Mistake::at(span, message).help("take it out, or choose another mode"));
        }
    }
    if config.tls.is_some() {
        let message = format!("`tls` means nothing in mode {:?}", place.mode());
        return Err(Mistake::new(message).help("take it out, or choose mode = \"tcp\""));
    }
    Ok(())
}

fn permissions(text: &Spanned<String>) -> Result<u32, Mistake> {
    match u32::from_str_radix(text.get_ref(), 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(Mistake::at(text.span(), format!("{:?} are no permissions", text.get_ref()))
            .help("three octal digits, such as \"0660\"")),
    }
}

/// Where it listens.
#[derive(Debug)]
enum Place {
    Tcp(Listening),
    Udp(SocketAddr),
    Unix(PathBuf),
    Unixgram(PathBuf),
}

impl Place {
    fn mode(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Unix(_) => "unix",
            Self::Unixgram(_) => "unixgram",
        }
    }
}

/// See the module.
struct SocketSource {
    place: Place,
    framing: Framing,
    codec: Codec,
    line_bytes_max: usize,
    idle_timeout: Option<Duration>,
    receive_buffer: Option<usize>,
    permissions: Option<u32>,
    /// Of a Unix socket; a listener has its own.
    connections_max: usize,
}

impl Source for SocketSource {
    fn schema(&self) -> Option<SchemaRef> {
        Some(log_schema())
    }

    fn replayable(&self) -> bool {
        false
    }

    /// A datagram; or what is read at once, of at least a record, and all that waits for its rest.
    fn bytes_min(&self) -> usize {
        if self.datagrams() {
            let udp = matches!(self.place, Place::Udp(_));
            let datagram = Datagrams::datagram_bytes_max(udp, self.line_bytes_max);
            return rounded(datagram.max(CHUNK_BYTES_MAX));
        }
        let record = Framer::new(self.framing, self.line_bytes_max).chunk_bytes_min();
        rounded(record.max(CHUNK_BYTES_MAX)).saturating_add(Parts::bytes_max(record))
    }

    fn searched(&self) -> Option<&'static str> {
        let lines = self.framing == Framing::Newline && !self.datagrams();
        lines.then_some("message")
    }

    fn severity_searched(&self) -> bool {
        self.searched().is_some() && self.codec.severe.is_some()
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        Box::pin(async {
            let troubles = Troubles::new(Arc::clone(&context.name));
            let once = context.once;
            let (codec, framing, idle) = (self.codec, self.framing, self.idle_timeout);
            let shared = Shared::new(context, codec, framing, self.line_bytes_max, idle);
            let door = match &self.place {
                Place::Tcp(listening) => Door::Tcp(listening.bind(&[]).await?),
                Place::Unix(path) => {
                    Door::Unix(UnixDoor::open(path, self.permissions, self.connections_max)?)
                }
                Place::Udp(address) => {
                    let udp = self.udp(*address)?;
                    let name = address.to_string();
                    let port = Datagrams::new(shared, Port::Udp(udp), name);
                    return Ok(try_unfold(port, Datagrams::next).boxed());
                }
                Place::Unixgram(path) => {
                    let (unix, bound) = datagrams(path, self.permissions)?;
                    self.widen(&socket2::SockRef::from(&unix))?;
                    let name = path.display().to_string();
                    let port = Datagrams::new(shared, Port::Unix(unix, bound), name);
                    return Ok(try_unfold(port, Datagrams::next).boxed());
                }
            };
            let merge = FairMerge::new();
            let handle = merge.handle();
            let (next, seen) = (0, false);
            let mut links = Links {
                shared,
                door,
                merge,
                _handle: handle,
                troubles,
                next,
                seen,
                once,
                idle: Idle::No,
            };
            Ok(poll_fn(move |cx| links.poll_next(cx)).boxed())
        })
    }
}

impl SocketSource {
    fn datagrams(&self) -> bool {
        matches!(self.place, Place::Udp(_) | Place::Unixgram(_))
    }

    fn udp(&self, address: SocketAddr) -> Result<UdpSocket> {
        let bind = || {
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let socket = bind().map_err(|error| network::not_bound(address, error))?;
        self.widen(&socket2::SockRef::from(&socket))?;
        let udp = UdpSocket::from_std(socket.into());
        udp.map_err(|error| Error::fatal("listen: no UDP here").because(error))
    }

    /// The kernel gives no more than its own limit, and doubles what is asked for.
    fn widen(&self, socket: &socket2::SockRef<'_>) -> Result<()> {
        let Some(bytes) = self.receive_buffer else { return Ok(()) };
        let said = |error| Error::fatal("receive_buffer: can't be set").because(error);
        socket.set_recv_buffer_size(bytes).map_err(said)?;
        let given = socket.recv_buffer_size().map_err(said)? / 2;
        if given < bytes {
            tracing::warn!(
                given,
                "receive_buffer is more than the system allows; raise \
                            net.core.rmem_max to get all of it"
            );
        }
        Ok(())
    }
}

type Records = BoxStream<'static, Result<SourceBatch>>;

/// All connections, fairly.
struct Links {
    shared: Arc<Shared>,
    door: Door,
    merge: FairMerge<u64, Records>,
    // Keeps the merge from ending while there is no connection.
    _handle: MergeHandle<u64, Records>,
    troubles: Troubles,
    next: u64,
    /// Whether anybody has connected.
    seen: bool,
    once: bool,
    idle: Idle,
}

/// Whether there is nothing to read, and what was done about it.
enum Idle {
    No,
    /// Memory that is free is kept until then: between two reads there is often a moment.
    Since(Pin<Box<Sleep>>),
    /// It was given back.
    Cleared,
}

/// So long free memory is kept.
const KEPT: Duration = Duration::from_millis(100);

impl Links {
    /// Gives back free memory once nothing came for a while.
    fn poll_idle(&mut self, cx: &mut Context<'_>) {
        if let Idle::No = self.idle {
            self.idle = Idle::Since(Box::pin(sleep(KEPT)));
        }
        if let Idle::Since(timer) = &mut self.idle
            && timer.as_mut().poll(cx).is_ready()
        {
            self.shared.pool.clear();
            self.idle = Idle::Cleared;
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<SourceBatch>>> {
        while let Poll::Ready((wire, name)) = self.door.poll_accept(cx, &mut self.troubles) {
            let link = Link::new(Arc::clone(&self.shared), wire, name);
            self.merge.insert(self.next, try_unfold(link, Link::next).boxed());
            (self.next, self.seen) = (self.next + 1, true);
        }
        loop {
            if self.once && self.seen && self.merge.is_empty() {
                return Poll::Ready(None);
            }
            match self.merge.poll_next_unpin(cx) {
                Poll::Pending => {
                    self.poll_idle(cx);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Merged::Item(_, batch))) => {
                    self.idle = Idle::No;
                    return Poll::Ready(Some(batch));
                }
                Poll::Ready(Some(Merged::Ended(_))) => {}
                Poll::Ready(None) => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests;
