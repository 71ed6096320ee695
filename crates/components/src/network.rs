//! Settings that everything on a network has in common: where to listen, how many may come, TLS, who
//! may come in.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use reqwest::Url;
use serde::Deserialize;
use tidegate_model::{Error, Mistake, Result, Spanned, TimeSpan};
use tidegate_net::auth::{Secrets, basic_header, bearer_header};
use tidegate_net::listen::{Limits, Listener, Refused};
use tidegate_net::serve::Notice;
use tidegate_net::tls::{ClientConfig, ClientTls, Identity, ServerTls};

use tracing::{debug, warn};

use crate::blocking::blocking;

/// TLS of a listener.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenTls {
    /// The certificate, and those between it and the authority: a PEM file.
    certificate: PathBuf,
    /// Its private key: a PEM file, not encrypted.
    key: PathBuf,
    /// Authorities one of which must have signed each client's certificate (mutual TLS): a PEM file.
    clients: Option<PathBuf>,
}

/// TLS of a client.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectTls {
    /// Authorities to trust instead of the system's: a PEM file.
    roots: Option<PathBuf>,
    /// What to show a server that asks who we are: a PEM file.
    certificate: Option<Spanned<PathBuf>>,
    /// Its private key: a PEM file, not encrypted.
    key: Option<PathBuf>,
}

/// Who may come in: whoever shows one of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Auth {
    /// Bearer tokens.
    #[serde(default)]
    tokens: Vec<Spanned<String>>,
    /// Names and passwords.
    #[serde(default)]
    users: BTreeMap<Spanned<String>, String>,
}

/// Who we are: a token, or a name and a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    token: Option<String>,
    user: Option<String>,
    password: Option<String>,
}

/// The header that shows who we are.
pub(crate) fn credentials(auth: &Spanned<Credentials>) -> Result<HeaderValue, Mistake> {
    let header = match auth.get_ref() {
        Credentials { token: Some(token), user: None, password: None }
            if !token.trim().is_empty() =>
        {
            bearer_header(token)
        }
        Credentials { token: None, user: Some(user), password: Some(password) } => {
            basic_header(user, password)
        }
        _ => {
            let help = "auth = { token = \"${TOKEN}\" }, or { user = \"…\", password = \"…\" }";
            return Err(Mistake::at(auth.span(), "auth says not who we are").help(help));
        }
    };
    header
        .map_err(|_| Mistake::at(auth.span(), "a secret can't have line ends").help("is it whole?"))
}

/// Where to connect by HTTP; the example is for whoever wrote something else.
pub(crate) fn url(text: &Spanned<String>, example: &str) -> Result<Url, Mistake> {
    let wrong =
        |message: String| Mistake::at(text.span(), message).help(format!("such as {example:?}"));
    let url = Url::parse(text.get_ref()).map_err(|error| wrong(format!("no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("an http:// or https:// URL is needed".to_owned()));
    }
    Ok(url)
}

/// A header of a configuration.
pub(crate) fn header(
    name: &Spanned<String>,
    value: &Spanned<String>,
) -> Result<(HeaderName, HeaderValue), Mistake> {
    let no_name = |_| {
        let message = format!("no header has the name {:?}", name.get_ref());
        Mistake::at(name.span(), message).help("letters, digits and dashes")
    };
    let no_value = |_| {
        let message = format!("{:?} can't be the value of a header", value.get_ref());
        Mistake::at(value.span(), message).help("text without line ends")
    };
    let found = name.get_ref().parse::<HeaderName>().map_err(no_name)?;
    Ok((found, value.get_ref().parse().map_err(no_value)?))
}

/// What a listening component is configured with, once understood.
#[derive(Debug)]
pub(crate) struct Listening {
    address: SocketAddr,
    limits: Limits,
    tls: Option<ServerTls>,
    /// Who may come in.
    pub(crate) secrets: Secrets,
}

/// The fields of a listening component's configuration that all have.
pub(crate) struct ListenFields {
    pub(crate) listen: Spanned<String>,
    pub(crate) connections_max: Option<Spanned<usize>>,
    pub(crate) handshake_timeout: Option<Spanned<TimeSpan>>,
    pub(crate) tls: Option<ListenTls>,
    pub(crate) auth: Option<Spanned<Auth>>,
}

impl ListenFields {
    pub(crate) fn understood(self) -> Result<Listening, Mistake> {
        let mut limits = Limits::default();
        if let Some(max) = &self.connections_max {
            limits.connections_max = *not_zero(max, "no connection would ever be taken")?;
        }
        if let Some(timeout) = &self.handshake_timeout {
            limits.handshake = span(timeout)?;
        }
        let tls = self.tls.map(|tls| ServerTls {
            identity: Identity { certificate: tls.certificate, key: tls.key },
            clients: tls.clients,
        });
        let secrets = self.auth.map_or(Ok(Secrets::none()), secrets)?;
        Ok(Listening { address: address(&self.listen)?, limits, tls, secrets })
    }
}

impl Listening {
    /// A connection is given up where its peer takes nothing of what is sent for so long.
    pub(crate) fn give_up_after(&mut self, unsent: Duration) {
        self.limits.keepalive.unsent = Some(unsent);
    }

    /// Where it listens, as it is configured.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many may come.
    pub(crate) fn connections_max(&self) -> usize {
        self.limits.connections_max
    }

    /// How long a handshake may take.
    pub(crate) fn handshake(&self) -> Duration {
        self.limits.handshake
    }

    /// Reads certificates and listens. `protocols`: see [`ServerTls::load`].
    pub(crate) async fn bind(&self, protocols: &'static [&'static str]) -> Result<Listener> {
        self.bind_with(protocols, 0).await
    }

    /// The same, with places left for such as are told that there are too many.
    pub(crate) async fn bind_with(
        &self,
        protocols: &'static [&'static str],
        spare: usize,
    ) -> Result<Listener> {
        let mut limits = self.limits.clone();
        limits.connections_max = limits.connections_max.saturating_add(spare);
        if let Some(tls) = self.tls.clone() {
            let (_, loaded) = blocking((), move |()| tls.load(protocols)).await?;
            limits.tls = Some(loaded.map_err(|error| Error::fatal("tls").because(error))?);
        }
        let address = self.address;
        Listener::bind(address, limits).map_err(|error| not_bound(address, error))
    }
}

/// Why an address can't be listened at.
pub(crate) fn not_bound(address: SocketAddr, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => Error::disconnected(format!(
            "listen: another program listens at {address}; stop it, or take another port"
        )),
        io::ErrorKind::AddrNotAvailable => Error::fatal(format!(
            "listen: {address} is no address of this machine; \"0.0.0.0\" means all it has"
        )),
        io::ErrorKind::PermissionDenied => Error::fatal(format!(
            "listen: this user may not listen at {address}; take a port from 1024"
        )),
        _ => Error::fatal(format!("listen: can't listen at {address}")).because(error),
    }
}

impl ConnectTls {
    /// What the fields mean together.
    pub(crate) fn understood(self) -> Result<ClientTls, Mistake> {
        let identity = match (self.certificate, self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some(Identity { certificate: certificate.into_inner(), key })
            }
            (Some(certificate), None) => {
                let message = "a certificate without its key";
                return Err(Mistake::at(certificate.span(), message).help("add key = \"…\""));
            }
            (None, Some(_)) => {
                let message = "tls: a key without its certificate";
                return Err(Mistake::new(message).help("add certificate = \"…\""));
            }
        };
        Ok(ClientTls { roots: self.roots, identity })
    }
}

/// Reads certificates, off the runtime. `protocols`: see [`ClientTls::load`].
pub(crate) async fn load_client(
    tls: ClientTls,
    protocols: &'static [&'static str],
) -> Result<Arc<ClientConfig>> {
    let (_, loaded) = blocking((), move |()| tls.load(protocols)).await?;
    loaded.map_err(|error| Error::fatal("tls").because(error))
}

fn secrets(auth: Spanned<Auth>) -> Result<Secrets, Mistake> {
    let span = auth.span();
    let Auth { tokens, users } = auth.into_inner();
    if tokens.is_empty() && users.is_empty() {
        let message = "auth lets nobody in";
        return Err(Mistake::at(span, message)
            .help("name some: tokens = [\"${TOKEN}\"], or users = { name = \"${PASSWORD}\" }"));
    }
    let mut secrets = Secrets::none();
    for token in tokens {
        if token.get_ref().trim().is_empty() {
            return Err(Mistake::at(token.span(), "an empty token would let anybody in")
                .help("is the variable that it comes from set?"));
        }
        secrets = secrets.bearer(token.get_ref());
    }
    for (name, password) in users {
        if name.get_ref().contains(':') || password.is_empty() {
            return Err(Mistake::at(
                name.span(),
                "a name without a colon and a password are needed",
            ));
        }
        secrets = secrets.basic(name.get_ref(), &password);
    }
    Ok(secrets)
}

/// `"9000"`, `"localhost:9000"`, `"0.0.0.0:9000"`, `"[::]:9000"`: only this machine's own programs
/// reach the first two.
pub(crate) fn address(listen: &Spanned<String>) -> Result<SocketAddr, Mistake> {
    let text = listen.get_ref().trim();
    // One colon at most: "::1" is an address without a port.
    let port = ["localhost:", ":"].iter().find_map(|before| text.strip_prefix(before));
    let port = Some(port.unwrap_or(text)).filter(|port| !port.starts_with('+'));
    let local = port.and_then(|port| port.parse::<u16>().ok());
    let local = local.map(|port| (Ipv4Addr::LOCALHOST, port).into());
    local.map_or_else(|| text.parse(), Ok).map_err(|_| {
        Mistake::at(listen.span(), format!("can't listen at {text:?}")).help(
            "write an address and a port, such as \"127.0.0.1:9000\", or \"0.0.0.0:9000\" for \
             whoever reaches this machine",
        )
    })
}

/// Tells what no request is told of: the first of each kind, and then only in detail.
pub(crate) struct Troubles {
    component: Arc<str>,
    crowded: bool,
    broken: bool,
}

impl Troubles {
    pub(crate) fn new(component: Arc<str>) -> Self {
        Self { component, crowded: false, broken: false }
    }

    pub(crate) fn tell(&mut self, notice: &Notice) {
        let component = &*self.component;
        match notice {
            Notice::Refused(Refused::TooMany(peer)) => self.crowded(peer),
            Notice::Refused(Refused::Failed(error)) => self.failed(error),
            Notice::Broken(peer, error) => debug!(component, %peer, %error, "a connection broke"),
        }
    }

    /// A connection beyond those that may be.
    pub(crate) fn crowded(&mut self, peer: impl Display) {
        let component = &*self.component;
        if !std::mem::replace(&mut self.crowded, true) {
            warn!(component, %peer, "there are connections_max connections: those beyond are \
                   closed at once; further ones are not named");
        }
    }

    /// A connection that did not come about.
    pub(crate) fn failed(&mut self, error: &io::Error) {
        let component = &*self.component;
        match std::mem::replace(&mut self.broken, true) {
            false => warn!(component, %error, "a connection failed; further ones are not named"),
            true => debug!(component, %error, "a connection failed"),
        }
    }
}

/// A count that must not be zero.
pub(crate) fn not_zero<'a>(
    count: &'a Spanned<usize>,
    otherwise: &str,
) -> Result<&'a usize, Mistake> {
    match count.get_ref() {
        0 => Err(Mistake::at(count.span(), format!("0: {otherwise}")).help("at least 1")),
        some => Ok(some),
    }
}

/// A time that must not be zero.
pub(crate) fn span(time: &Spanned<TimeSpan>) -> Result<Duration, Mistake> {
    match time.get_ref().0 {
        Duration::ZERO => Err(Mistake::at(time.span(), "no time at all").help("such as \"10s\"")),
        some => Ok(some),
    }
}

#[cfg(test)]
mod tests;
