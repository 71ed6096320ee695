//! `socket`: rows over TCP, UDP and Unix sockets.
//!
//! **Delivery.** A row counts as delivered when the kernel has taken it: these protocols say nothing
//! of what became of it. What is in the kernel's buffers when the other side dies is lost; a
//! connection that the other side has closed is noticed before the next write. After a broken write
//! all of it is written again on a new connection, so that rows may come twice, and the last one on
//! the old connection may be cut. A reader that does not read holds the sink up, over TCP and Unix
//! sockets: for as long as it likes, or for `write_timeout`. UDP loses what the network or the
//! reader has no room for.
//!
//! A row is a record: a line, or a frame; over UDP and `unixgram` a datagram.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_model::{
    Commit, Delivered, Error, Mistake, Result, Settings, Sink, SinkContext, SinkSpec, Spanned,
    TimeSpan, Written,
};
use tidegate_net::connect::Target;
use tidegate_net::listen::{Connection, Keepalive};
use tidegate_net::tls::ClientTls;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{UdpSocket, UnixDatagram, UnixStream};
use tokio::time::timeout;

use crate::codecs::Framing;
use crate::codecs::encode::Encoder;
use crate::network::{ConnectTls, load_client, span};

/// See the module.
pub const SPEC: SinkSpec = SinkSpec {
    summary: "sends rows over TCP, UDP and Unix sockets: lines, counted frames",
    example: r#"connect = "logs.example.com:5140"
codec = "ndjson"               # or "text", the default
framing = "newline"            # the default, or "octet_counting", "length_prefix"
# mode = "udp"                 # or "tcp", the default
# tls = { roots = "ca.pem" }   # or tls = {}, with the system's
# mode = "unix"                # or "unixgram": with path instead of connect
# path = "/run/logs.sock""#,
    build,
};

/// Rows are encoded in pieces of so many bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// So long the other side may take to end a connection that we have ended.
const LINGER: Duration = Duration::from_secs(1);

/// So long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `tcp` (default), `udp`, `unix` or `unixgram`.
    mode: Option<Spanned<String>>,
    /// Where to, over a network: a name or an address, and a port.
    connect: Option<Spanned<String>>,
    /// Where to, on this machine: the socket's path.
    path: Option<Spanned<PathBuf>>,
    /// How records are told apart: `newline` (default), `octet_counting` or `length_prefix`.
    framing: Option<Spanned<String>>,
    /// How rows are written: `text` (default) or `ndjson`.
    codec: Option<Spanned<String>>,
    /// TLS, over TCP.
    tls: Option<Spanned<ConnectTls>>,
    /// How long connecting may take: 20 s.
    connect_timeout: Option<Spanned<TimeSpan>>,
    /// A connection whose other side takes nothing for so long is given up, and what was being
    /// written is written again on a new one. Where it is not set, that is waited for.
    write_timeout: Option<Spanned<TimeSpan>>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Sink>, Mistake> {
    let config: Config = settings.parse()?;
    let mode = config.mode.as_ref().map_or("tcp", |mode| mode.get_ref());
    let needed = |name: &str| Mistake::new(format!("mode {mode:?} needs `{name}`"));
    let end = match mode {
        "tcp" | "udp" => {
            let connect = config.connect.as_ref().ok_or_else(|| needed("connect"))?;
            let (host, port) = host_and_port(connect)?;
            if mode == "tcp" { End::Tcp { host, port } } else { End::Udp { host, port } }
        }
        "unix" | "unixgram" => {
            let path = config.path.as_ref().ok_or_else(|| needed("path"))?.get_ref().clone();
            if mode == "unix" { End::Unix(path) } else { End::Unixgram(path) }
        }
        other => {
            let span = config.mode.as_ref().map_or(0..0, Spanned::span);
            return Err(Mistake::at(span, format!("there is no mode {other:?}"))
                .help("one of \"tcp\", \"udp\", \"unix\", \"unixgram\""));
        }
    };
    let network = matches!(mode, "tcp" | "udp");
    let datagrams = matches!(mode, "udp" | "unixgram");
    for (span, wrong, name) in [
        (config.connect.as_ref().map(Spanned::span), !network, "connect"),
        (config.path.as_ref().map(Spanned::span), network, "path"),
        (config.tls.as_ref().map(Spanned::span), mode != "tcp", "tls"),
        (config.write_timeout.as_ref().map(Spanned::span), datagrams, "write_timeout"),
    ] {
        if let (Some(span), true) = (span, wrong) {
            let message = format!("`{name}` means nothing in mode {mode:?}");
            return Err(Mistake::at(span, message).help("take it out, or choose another mode"));
        }
    }
    Ok(Box::new(SocketSink {
        end,
        framing: Framing::named(config.framing.as_ref())?,
        encoder: Encoder::named(config.codec.as_ref())?,
        timeout: config.connect_timeout.as_ref().map_or(Ok(CONNECT_TIMEOUT), span)?,
        write_timeout: config.write_timeout.as_ref().map(span).transpose()?,
        tls: config.tls.map(|tls| tls.into_inner().understood()).transpose()?,
        line: Vec::new(),
        buffer: Vec::new(),
        wire: None,
        broken: false,
    }))
}

/// `"name:5140"`, `"10.0.0.1:5140"`, `"[::1]:5140"`.
fn host_and_port(connect: &Spanned<String>) -> Result<(Box<str>, u16), Mistake> {
    let text = connect.get_ref().trim();
    let found = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| (host.into(), port))
    });
    found.ok_or_else(|| {
        Mistake::at(connect.span(), format!("can't connect to {text:?}"))
            .help("write a name or an address, and a port, such as \"logs.example.com:5140\"")
    })
}

/// Where rows go.
#[derive(Debug)]
enum End {
    Tcp { host: Box<str>, port: u16 },
    Udp { host: Box<str>, port: u16 },
    Unix(PathBuf),
    Unixgram(PathBuf),
}

/// What is connected.
enum Wire {
    Net(Connection),
    Unix(UnixStream),
    Udp(UdpSocket),
    Unixgram(UnixDatagram),
}

struct SocketSink {
    end: End,
    framing: Framing,
    encoder: &'static Encoder,
    timeout: Duration,
    write_timeout: Option<Duration>,
    tls: Option<ClientTls>,
    // One row, where it goes into a frame of its own.
    line: Vec<u8>,
    // At most BUFFER_BYTES and a row.
    buffer: Vec<u8>,
    wire: Option<Wire>,
    // Whether the connection is of no use any more.
    broken: bool,
}

impl Sink for SocketSink {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        (self.encoder.columns)(input)
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    /// How long a datagram may be is for the system to say.
    fn same_rejects(&self) -> bool {
        false
    }

    fn open(&mut self, _context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async {
            self.connect().await?;
            Ok(Vec::new())
        })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async move {
            if self.broken || self.wire.is_none() {
                self.connect().await?;
            }
            let written = match self.wire {
                Some(Wire::Udp(_) | Wire::Unixgram(_)) => self.write_datagrams(rows).await,
                _ => self.write_stream(rows).await.map(|()| Written::default()),
            };
            self.broken = written.is_err();
            written
        })
    }

    fn commit<'a>(&'a mut self, _delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Says goodbye, so that the other side knows that nothing was cut off.
    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            match self.wire.take() {
                Some(Wire::Net(connection)) => left(connection).await,
                Some(Wire::Unix(unix)) => left(unix).await,
                Some(Wire::Udp(_) | Wire::Unixgram(_)) | None => {}
            }
        })
    }
}

impl SocketSink {
    async fn connect(&mut self) -> Result<()> {
        self.wire = None;
        let wire = match &self.end {
            End::Tcp { host, port } => {
                let tls = match self.tls.clone() {
                    Some(tls) => Some(load_client(tls, &[]).await?),
                    None => None,
                };
                let (host, port, timeout) = (host.clone(), *port, self.timeout);
                let target = Target { host, port, tls, timeout, keepalive: Keepalive::default() };
                target.connect().await.map(Wire::Net)
            }
            End::Udp { host, port } => udp(host, *port).await.map(Wire::Udp),
            End::Unix(path) => UnixStream::connect(path).await.map(Wire::Unix),
            End::Unixgram(path) => unixgram(path).map(Wire::Unixgram),
        };
        self.wire = Some(wire.map_err(|error| self.end.unreachable(error))?);
        self.broken = false;
        Ok(())
    }

    async fn write_stream(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut wire = self.wire.take().ok_or_else(unopened)?;
        let written = self.write_to(&mut wire, rows).await;
        self.wire = Some(wire);
        written
    }

    async fn write_to(&mut self, wire: &mut Wire, rows: &RecordBatch) -> Result<()> {
        let open = match wire {
            Wire::Net(connection) => still_open(connection).await,
            Wire::Unix(unix) => still_open(unix).await,
            Wire::Udp(_) | Wire::Unixgram(_) => Ok(()),
        };
        open.map_err(|error| self.end.unreachable(error))?;
        let mut row = 0;
        while row < rows.num_rows() {
            self.buffer.clear();
            self.buffer.shrink_to(2 * BUFFER_BYTES); // after a row as long as that
            row = match self.framing {
                Framing::Newline => {
                    (self.encoder.encode)(rows, row, &mut self.buffer, BUFFER_BYTES)?
                }
                _ => self.frames(rows, row)?,
            };
            let sent = match wire {
                Wire::Net(connection) => sent(connection, &self.buffer, self.write_timeout).await,
                Wire::Unix(unix) => sent(unix, &self.buffer, self.write_timeout).await,
                Wire::Udp(_) | Wire::Unixgram(_) => Ok(()),
            };
            sent.map_err(|error| self.end.unreachable(error))?;
        }
        Ok(())
    }

    async fn write_datagrams(&mut self, rows: &RecordBatch) -> Result<Written> {
        let mut written = Written::default();
        for row in 0..rows.num_rows() {
            self.line.clear();
            self.line.shrink_to(BUFFER_BYTES);
            (self.encoder.encode)(rows, row, &mut self.line, 1)?;
            let datagram = match self.framing {
                Framing::Newline => &*self.line,
                _ => self.line.strip_suffix(b"\n").unwrap_or(&self.line),
            };
            let sent = match &self.wire {
                Some(Wire::Udp(udp)) => udp.send(datagram).await,
                Some(Wire::Unixgram(unix)) => unix.send(datagram).await,
                _ => return Err(unopened()),
            };
            match sent {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(TOO_LARGE) => {
                    let bytes = datagram.len();
                    written.rejected.push((row, format!("{bytes} bytes are no datagram")));
                }
                Err(error) if row == 0 => return Err(self.end.unreachable(error)),
                Err(error) => {
                    written.why = Some(self.end.unreachable(error).to_string());
                    written.again = (row..rows.num_rows()).collect();
                    break;
                }
            }
        }
        Ok(written)
    }
}

/// EMSGSIZE.
const TOO_LARGE: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();

impl SocketSink {
    /// Rows in frames, as many as there is room for; gives the row to go on with.
    fn frames(&mut self, rows: &RecordBatch, from: usize) -> Result<usize> {
        let mut row = from;
        while row < rows.num_rows() && self.buffer.len() < BUFFER_BYTES {
            self.line.clear();
            row = (self.encoder.encode)(rows, row, &mut self.line, 1)?;
            self.framing.wrap(&self.line, &mut self.buffer);
        }
        self.line.shrink_to(BUFFER_BYTES);
        Ok(row)
    }
}

impl End {
    fn unreachable(&self, error: io::Error) -> Error {
        let said = match self {
            Self::Tcp { host, port } => format!("connect: {host}:{port}, over TCP"),
            Self::Udp { host, port } => format!("connect: {host}:{port}, over UDP"),
            Self::Unix(path) | Self::Unixgram(path) => format!("path: {}", path.display()),
        };
        Error::disconnected(said).because(error)
    }
}

fn unopened() -> Error {
    Error::fatal("it is not open: open it before writing")
}

async fn udp(host: &str, port: u16) -> io::Result<UdpSocket> {
    let mut last = io::ErrorKind::NotFound.into();
    for address in tokio::net::lookup_host((host, port)).await? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let udp = UdpSocket::bind(any).await?;
        match udp.connect(address).await {
            Ok(()) => return Ok(udp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unixgram(path: &std::path::Path) -> io::Result<UnixDatagram> {
    let unix = UnixDatagram::unbound()?;
    unix.connect(path)?;
    Ok(unix)
}

/// Whether the other side still listens. What it says is of no use to us.
async fn still_open(wire: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut heard = [0; 256];
    // Bounded: who sends without an end is looked at again before the next write.
    for _ in 0..16 {
        let mut buffer = ReadBuf::new(&mut heard);
        let read = poll_fn(|cx| {
            Poll::Ready(match Pin::new(&mut *wire).poll_read(cx, &mut buffer) {
                Poll::Pending => None,
                Poll::Ready(read) => Some(read),
            })
        });
        match read.await {
            None => return Ok(()),
            Some(Err(error)) => return Err(error),
            Some(Ok(())) if buffer.filled().is_empty() => {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the other side has closed the connection",
                ));
            }
            Some(Ok(())) => {}
        }
    }
    Ok(())
}

/// Ends our side, and waits a moment for the other one: a connection that is closed with something
/// unread is reset, which takes with it what the other side has not read yet.
async fn left(mut wire: impl AsyncRead + AsyncWrite + Unpin) {
    let parted = async {
        wire.shutdown().await?;
        let mut heard = [0; 256];
        while wire.read(&mut heard).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(LINGER, parted).await;
}

/// Writes all of it, as long as the other side takes some now and then.
async fn sent(
    wire: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    patience: Option<Duration>,
) -> io::Result<()> {
    let Some(patience) = patience else {
        wire.write_all(bytes).await?;
        return wire.flush().await;
    };
    let late = |_| {
        let said = format!("it took nothing for write_timeout, {patience:?}");
        io::Error::new(io::ErrorKind::TimedOut, said)
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        match timeout(patience, wire.write(rest)).await.map_err(late)?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => rest = rest.get(count..).unwrap_or_default(),
        }
    }
    timeout(patience, wire.flush()).await.map_err(late)?
}

#[cfg(test)]
mod tests;
