//! The way to a server: TCP, TLS or a Unix socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tidegate_net::listen::{Keepalive, prepare};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::{Config, Host, SslMode};
use crate::{Error, Result};

/// Asks a server for TLS ([protocol], "SSLRequest").
///
/// [protocol]: https://www.postgresql.org/docs/current/protocol-message-formats.html
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Bytes in and out.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Socket {
    /// Connects, with TLS where the configuration wants it.
    pub(super) async fn connect(config: &Config, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let unreachable = |error| {
            let said =
                format!("{config}: can't connect: is the server running, and the port right?");
            Error::connection(said).because(error)
        };
        let host = match &config.host {
            Host::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{}", config.port));
                return UnixStream::connect(path).await.map(Self::Unix).map_err(unreachable);
            }
            Host::Tcp(host) => host,
        };
        let tcp = TcpStream::connect((host.as_str(), config.port)).await;
        let tcp = tcp.map_err(|error| named(config, host, error, unreachable))?;
        prepare(&tcp, Keepalive::default()).map_err(unreachable)?;
        match tls {
            None => Ok(Self::Tcp(tcp)),
            Some(tls) => Self::secure(config, host, tcp, tls).await,
        }
    }

    async fn secure(
        config: &Config,
        host: &str,
        mut tcp: TcpStream,
        tls: Arc<ClientConfig>,
    ) -> Result<Self> {
        let broken = |error| Error::connection(format!("{config}: no TLS")).because(error);
        tcp.write_all(&SSL_REQUEST).await.map_err(broken)?;
        // What comes behind this byte must be read by TLS alone (CVE-2021-23222).
        match tcp.read_u8().await.map_err(broken)? {
            b'S' => {}
            _ if config.ssl_mode == SslMode::Prefer => return Ok(Self::Tcp(tcp)),
            _ => {
                return Err(Error::refused(format!(
                    "{config}: the server has no TLS: switch it on there (ssl = on), or write \
                     sslmode=disable"
                )));
            }
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::refused(format!("url: {host:?} is no name that a certificate could have"))
        })?;
        let secured = TlsConnector::from(tls).connect(name, tcp).await;
        secured.map(|tls| Self::Tls(Box::new(tls))).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Error::refused(format!(
                "{config}: the server's certificate is not accepted: see sslmode and sslrootcert"
            ))
            .because(error),
            _ => broken(error),
        })
    }
}

/// A host that nobody knows will hardly be known later.
fn named(
    config: &Config,
    host: &str,
    error: io::Error,
    otherwise: impl Fn(io::Error) -> Error,
) -> Error {
    // The resolver's errors have no kind of their own.
    if error.raw_os_error().is_none() && error.to_string().contains("lookup") {
        return Error::refused(format!("{config}: there is no host {host:?}")).because(error);
    }
    otherwise(error)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Unix(unix) => Pin::new(unix).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}
