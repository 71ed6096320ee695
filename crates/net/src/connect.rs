//! Connections that go out: names to addresses, a time limit, TLS.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::listen::{Connection, Keepalive, prepare};

/// An HTTP client with this TLS: HTTP/1.1, a connection for each request that is under way.
///
/// It has no time limit of its own; set what fits. Proxies are taken from the environment
/// (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`).
pub fn http(tls: &ClientConfig) -> reqwest::ClientBuilder {
    let name = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .http1_only()
        .user_agent(name)
        .connect_timeout(CONNECT_TIMEOUT)
}

/// So long a connection may take to come about, TLS and all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Where to connect, and how.
#[derive(Clone)]
pub struct Target {
    /// A name or an address, without brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// TLS, if there is any; the server must prove to be `host`.
    pub tls: Option<Arc<ClientConfig>>,
    /// So long finding, connecting and shaking hands may take together.
    pub timeout: Duration,
    /// How a silent peer is asked whether it is still there.
    pub keepalive: Keepalive,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, tls, timeout, .. } = self;
        write!(f, "{host}:{port} (tls: {}, timeout: {timeout:?})", tls.is_some())
    }
}

impl Target {
    /// Connects.
    ///
    /// # Errors
    ///
    /// The last address's, where none of the name's took the connection; of kind `InvalidInput`
    /// where the name is none, and `InvalidData` where the server's certificate is refused.
    ///
    /// # Cancellation
    ///
    /// Dropping it closes what there is.
    pub async fn connect(&self) -> io::Result<Connection> {
        let late = |_| {
            let said =
                format!("{}:{} did not answer within {:?}", self.host, self.port, self.timeout);
            io::Error::new(io::ErrorKind::TimedOut, said)
        };
        timeout(self.timeout, self.reach()).await.map_err(late)?
    }

    async fn reach(&self) -> io::Result<Connection> {
        // Known before anything is asked of the network.
        let secured = self.tls.as_ref().map(|tls| Ok::<_, io::Error>((tls, self.name()?)));
        let secured = secured.transpose()?;
        let tcp = TcpStream::connect((&*self.host, self.port)).await?;
        prepare(&tcp, self.keepalive)?;
        let Some((tls, name)) = secured else { return Ok(Connection::Plain(tcp)) };
        let tls = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?;
        Ok(Connection::Tls(Box::new(tls.into())))
    }

    /// Who the server must prove to be.
    fn name(&self) -> io::Result<ServerName<'static>> {
        ServerName::try_from(self.host.to_string()).map_err(|_| {
            let said = format!("{:?} is no name that a certificate could have", self.host);
            io::Error::new(io::ErrorKind::InvalidInput, said)
        })
    }
}
