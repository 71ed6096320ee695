//! Settings that WebSockets have in common, whether rows come by them or go.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tidegate_model::{Error, Mistake, Result, Settings, Spanned, TimeSpan};
use tidegate_net::connect::Target;
use tidegate_net::listen::Keepalive;
use tidegate_net::tls::ClientTls;
use tidegate_net::websocket::{
    Address, ConnectError, Message, MessageStream, NotAccepted, Options, Rules, Server, connect,
};
use tracing::{debug, warn};

use crate::network::{
    ConnectTls, Credentials, Listening, Troubles, credentials, header, load_client, span,
};

/// Connections beyond `connections_max` that are told so; those beyond them are closed at once.
const TOLD_MAX: usize = 64;

/// How long connecting may take where nobody says.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Which side a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Listen,
    Connect,
}

#[derive(Deserialize)]
struct ModeField {
    mode: Option<Spanned<String>>,
}

impl Mode {
    /// What the settings say; the other fields depend on it.
    pub(crate) fn of(settings: &Settings<'_>) -> Result<Self, Mistake> {
        let help = "mode = \"listen\" for those who come here, or \"connect\" to go there";
        let Some(mode) = settings.parse::<ModeField>()?.mode else {
            return Err(Mistake::new("mode is missing").help(help));
        };
        match mode.get_ref().as_str() {
            "listen" => Ok(Self::Listen),
            "connect" => Ok(Self::Connect),
            other => Err(Mistake::at(mode.span(), format!("{other:?} is no mode")).help(help)),
        }
    }
}

/// One path, or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Paths {
    One(String),
    Many(Vec<String>),
}

/// The fields that say who may come in.
pub(crate) struct RuleFields {
    pub(crate) path: Option<Spanned<Paths>>,
    pub(crate) subprotocol: Option<Spanned<String>>,
    pub(crate) headers: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(crate) origins: Vec<String>,
}

impl RuleFields {
    pub(crate) fn understood(self, listening: &Listening) -> Result<Rules, Mistake> {
        let mut rules = Rules { secrets: listening.secrets.clone(), ..Rules::default() };
        if let Some(path) = self.path {
            let span = path.span();
            let all = match path.into_inner() {
                Paths::One(path) => vec![path],
                Paths::Many(paths) => paths,
            };
            if let Some(wrong) = all.iter().find(|path| !path.starts_with('/')) {
                let message = format!("a path begins with a slash, {wrong:?} does not");
                return Err(Mistake::at(span, message).help(format!("\"/{wrong}\"")));
            }
            rules.paths = all.into_iter().map(Into::into).collect();
        }
        rules.protocols = self.subprotocol.iter().map(protocol).collect::<Result<_, _>>()?;
        rules.headers = headers(&self.headers)?;
        rules.origins = self.origins.into_iter().map(Into::into).collect();
        Ok(rules)
    }
}

fn headers(
    fields: &BTreeMap<Spanned<String>, Spanned<String>>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Mistake> {
    fields.iter().map(|(name, value)| header(name, value)).collect()
}

fn protocol(name: &Spanned<String>) -> Result<Box<str>, Mistake> {
    let is_token = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    match is_token(name.get_ref()) {
        true => Ok(name.get_ref().as_str().into()),
        false => Err(Mistake::at(name.span(), "that is no name of a subprotocol")
            .help("letters, digits, dots and dashes")),
    }
}

/// Accepts WebSockets where it is configured.
pub(crate) async fn serve(
    listening: &Listening,
    rules: &Rules,
    options: Options,
) -> Result<Server> {
    let listener = listening.bind_with(&["http/1.1"], TOLD_MAX).await?;
    let server = Server::new(listener, rules.clone(), options, listening.handshake());
    Ok(server.clients_max(listening.connections_max()))
}

/// Tells of one that did not come in.
pub(crate) fn turned_away(troubles: &mut Troubles, component: &str, error: NotAccepted) {
    match error {
        NotAccepted::Refused(refused) => {
            troubles.tell(&tidegate_net::serve::Notice::Refused(refused));
        }
        NotAccepted::Broken(error) => troubles.failed(&error),
        answered @ NotAccepted::Answered { .. } => debug!(component, %answered, "turned away"),
    }
}

/// The fields that say where to connect.
pub(crate) struct ConnectFields {
    pub(crate) url: Spanned<String>,
    pub(crate) subprotocol: Option<Spanned<String>>,
    pub(crate) headers: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(crate) auth: Option<Spanned<Credentials>>,
    pub(crate) connect_timeout: Option<Spanned<TimeSpan>>,
    pub(crate) tls: Option<ConnectTls>,
}

/// Where to connect, once understood.
#[derive(Debug)]
pub(crate) struct Connecting {
    target: Target,
    address: Address,
    tls: Option<ClientTls>,
    /// The address as rows say it: without a name and a password.
    pub(crate) name: String,
}

impl ConnectFields {
    pub(crate) fn understood(self) -> Result<Connecting, Mistake> {
        let parsed = Address::parse(self.url.get_ref());
        let wrong = |error| {
            Mistake::at(self.url.span(), "that is no address of a WebSocket")
                .help(format!("{error}"))
        };
        let (host, port, secure, mut address) = parsed.map_err(wrong)?;
        if let Some(tls) = self.tls.as_ref().filter(|_| !secure) {
            let _: &ConnectTls = tls;
            return Err(Mistake::at(self.url.span(), "tls without wss://").help("write wss://"));
        }
        let tls = secure.then(|| self.tls.unwrap_or_default().understood()).transpose()?;
        let mut all: HeaderMap = headers(&self.headers)?.into_iter().collect();
        all.extend(address.headers.drain().filter_map(|(name, value)| Some((name?, value))));
        if let Some(auth) = &self.auth {
            all.insert(http::header::AUTHORIZATION, credentials(auth)?);
        }
        address.headers = all;
        address.protocols = self.subprotocol.iter().map(protocol).collect::<Result<_, _>>()?;
        let timeout = self.connect_timeout.as_ref().map_or(Ok(CONNECT_TIMEOUT), span)?;
        let scheme = if secure { "wss" } else { "ws" };
        let path = address.path.split('?').next().unwrap_or_default();
        let name = format!("{scheme}://{}{path}", address.authority);
        let target = Target { host, port, tls: None, timeout, keepalive: Keepalive::default() };
        Ok(Connecting { target, address, tls, name })
    }
}

impl Connecting {
    /// Connects once, and says this first.
    pub(crate) async fn connect(
        &self,
        options: Options,
        first: &[Message],
    ) -> Result<MessageStream> {
        let mut target = self.target.clone();
        if let Some(tls) = self.tls.clone() {
            target.tls = Some(load_client(tls, &["http/1.1"]).await?);
        }
        let failed = |error: ConnectError| {
            let said = format!("url: {} can't be read from", self.name);
            match error.is_final() {
                true => Error::fatal(said).because(error),
                false => Error::disconnected(said).because(error),
            }
        };
        let mut stream = connect(&target, &self.address, options).await.map_err(failed)?;
        for message in first {
            let sent = futures::SinkExt::send(&mut stream, message.clone()).await;
            sent.map_err(|error| failed(ConnectError::Lost(error)))?;
        }
        Ok(stream)
    }
}

/// Tells, once for each connection, that nobody read it for long.
pub(crate) fn tell_pauses(peer: &str, told: &mut u64, pauses: u64) {
    if pauses > *told {
        if *told == 0 {
            warn!(
                peer,
                "was not read for long, as the pipeline was full: a peer that pings may end \
                   the connection for that; further pauses are only counted"
            );
        }
        *told = pauses;
    }
}
