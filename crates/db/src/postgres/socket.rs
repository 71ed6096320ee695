//! The way to a server: TCP, TLS or a Unix socket.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tidegate_net::listen::{Keepalive, prepare};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::{Config, Host, SslMode};
use crate::{Error, Result};

/// Asks a server for TLS ([protocol], "SSLRequest").
///
/// [protocol]: https://www.postgresql.org/docs/current/protocol-message-formats.html
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Bytes in and out, by whatever they go.
pub(super) type Socket = Box<dyn Stream>;

/// What a connection reads from and writes to.
pub(super) trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Sync + Unpin {
    /// What is below, if it is TCP.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Stream for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Stream for TlsStream<TcpStream> {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0)
    }
}

impl Stream for UnixStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

/// Connects, with TLS where the configuration wants it.
pub(super) async fn connect(config: &Config, tls: Option<Arc<ClientConfig>>) -> Result<Socket> {
    let unreachable = |error| {
        let said = format!("{config}: can't connect: is the server running, and the port right?");
        Error::connection(said).because(error)
    };
    let host = match &config.host {
        Host::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{}", config.port));
            let unix = UnixStream::connect(path).await.map_err(unreachable)?;
            return Ok(Box::new(unix));
        }
        Host::Tcp(host) => host,
    };
    let tcp = TcpStream::connect((host.as_str(), config.port)).await;
    let tcp = tcp.map_err(|error| named(config, host, error, unreachable))?;
    prepare(&tcp, Keepalive::default()).map_err(unreachable)?;
    match tls {
        None => Ok(Box::new(tcp)),
        Some(tls) => secure(config, host, tcp, tls).await,
    }
}

async fn secure(
    config: &Config,
    host: &str,
    mut tcp: TcpStream,
    tls: Arc<ClientConfig>,
) -> Result<Socket> {
    let broken = |error| Error::connection(format!("{config}: no TLS")).because(error);
    tcp.write_all(&SSL_REQUEST).await.map_err(broken)?;
    // What comes behind this byte must be read by TLS alone (CVE-2021-23222).
    match tcp.read_u8().await.map_err(broken)? {
        b'S' => {}
        _ if config.ssl_mode == SslMode::Prefer => return Ok(Box::new(tcp)),
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
    let secured = secured.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Error::refused(format!(
            "{config}: the server's certificate is not accepted: see sslmode and sslrootcert"
        ))
        .because(error),
        _ => broken(error),
    })?;
    Ok(Box::new(secured))
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
