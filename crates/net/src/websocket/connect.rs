//! Connections that go out, and those that come back by themselves.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, TryStreamExt};
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tidegate_flow::{Backoff, Reconnecting, reconnect};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Failure, Message, MessageStream, Options, Role};
use crate::auth::basic_header;
use crate::connect::Target;
use crate::listen::Connection;

/// The most that the head of an answer may have.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Where a WebSocket is, and what is said to be let in.
#[derive(Clone, Debug)]
pub struct Address {
    /// The path, and the query where there is one.
    pub path: Box<str>,
    /// What the header `Host` says.
    pub authority: Box<str>,
    /// Further headers.
    pub headers: HeaderMap,
    /// Subprotocols to offer, the best first; the server must take one of them.
    pub protocols: Vec<Box<str>>,
}

/// Why a text is no address of a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressError(&'static str);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for AddressError {}

impl Address {
    /// Takes `ws://host:port/path` or `wss://…` apart: the host, the port, whether there is TLS, and
    /// the rest. A name and a password (`wss://name:password@host`) become a header.
    ///
    /// # Errors
    ///
    /// Says what is missing.
    pub fn parse(url: &str) -> Result<(Box<str>, u16, bool, Self), AddressError> {
        let whole = AddressError("write it as ws://host:port/path, or wss:// for TLS");
        let uri: Uri = url.parse().map_err(|_| whole)?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(whole),
        };
        let authority = uri.authority().ok_or(whole)?;
        let host = authority.host();
        if host.is_empty() {
            return Err(whole);
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let mut headers = HeaderMap::new();
        let mut shown = authority.as_str();
        if let Some((user, rest)) = shown.rsplit_once('@') {
            shown = rest;
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let header = basic_header(name, password);
            headers.insert(AUTHORIZATION, header.map_err(|_| whole)?);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
        let address = Self { path, authority: shown.into(), headers, protocols: Vec::new() };
        // A version 6 address has brackets there, and none where it is connected to.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok((host.into(), port, tls, address))
    }
}

/// Connects: TCP, TLS, and the handshake, within the target's time each.
///
/// # Errors
///
/// There is no connection, or what answered is no WebSocket, or wants something else.
///
/// # Cancellation
///
/// Dropping it closes what there is.
pub async fn connect(
    target: &Target,
    address: &Address,
    options: Options,
) -> Result<MessageStream, ConnectError> {
    let connection = target.connect().await.map_err(ConnectError::Io)?;
    let late = |_| ConnectError::Io(io::ErrorKind::TimedOut.into());
    timeout(target.timeout, shake(connection, address, options)).await.map_err(late)?
}

/// A stream of messages that [comes back by itself](reconnecting).
pub type Reconnected = Reconnecting<Connect, Attempt, Connected, Message, ConnectError, ()>;

type Connect = Box<dyn FnMut(Option<()>) -> Attempt + Send>;
type Attempt = BoxFuture<'static, Result<Connected, ConnectError>>;
type Connected = BoxStream<'static, Result<Message, ConnectError>>;

/// Connects whenever there is no connection, with waits in between, and says `subscribe` each time
/// before it reads.
///
/// What comes between two connections is lost, unless the subscription makes the server say it
/// again.
pub fn reconnecting(
    target: Target,
    address: Address,
    options: Options,
    subscribe: Vec<Message>,
    backoff: Backoff,
) -> Reconnected {
    let all = Arc::new((target, address, subscribe));
    let connect = move |_: Option<()>| -> Attempt {
        let all = Arc::clone(&all);
        Box::pin(async move {
            let (target, address, subscribe) = &*all;
            let mut stream = connect(target, address, options).await?;
            for message in subscribe {
                stream.feed(message.clone()).await.map_err(ConnectError::Lost)?;
            }
            stream.flush().await.map_err(ConnectError::Lost)?;
            Ok(stream.map_err(ConnectError::Lost).boxed())
        })
    };
    reconnect(Box::new(connect) as Connect, backoff)
}

async fn shake(
    connection: Connection,
    address: &Address,
    options: Options,
) -> Result<MessageStream, ConnectError> {
    let key = generate_key();
    let request = request(address, &key)?;
    let broken = |error: hyper::Error| ConnectError::Io(io::Error::other(error));
    let builder = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).clone();
    let (mut sender, mut spoken) =
        builder.handshake(TokioIo::new(connection)).await.map_err(broken)?;
    let mut answering = pin!(sender.send_request(request));
    let mut over = false;
    let answer = poll_fn(|cx| {
        // It is the connection that speaks; what it gives in the end is in the answer, too.
        over = over || spoken.poll_without_shutdown(cx).is_ready();
        answering.as_mut().poll(cx)
    })
    .await
    .map_err(broken)?;
    let protocol = judge(&answer, address, &key)?;
    drop(answer);
    // Until it has understood that HTTP is over.
    if !over {
        poll_fn(|cx| spoken.poll_without_shutdown(cx)).await.map_err(broken)?;
    }
    let parts = spoken.into_parts();
    let wire = parts.io.into_inner();
    let stream = MessageStream::new(wire, Role::Client, options, &parts.read_buf);
    Ok(stream.speaking(protocol))
}

fn request(address: &Address, key: &str) -> Result<Request<Empty<Bytes>>, ConnectError> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = address.path.parse().map_err(ConnectError::unsayable)?;
    let headers = request.headers_mut();
    headers.clone_from(&address.headers);
    let value = |text: &str| HeaderValue::from_str(text).map_err(ConnectError::unsayable);
    headers.insert(HOST, value(&address.authority)?);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, value(key)?);
    if !address.protocols.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value(&address.protocols.join(", "))?);
    }
    Ok(request)
}

/// The subprotocol that the server took, where its answer is a proper one.
fn judge(
    answer: &Response<Incoming>,
    address: &Address,
    key: &str,
) -> Result<Option<Box<str>>, ConnectError> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(ConnectError::Answered(answer.status()));
    }
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    if !header(UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return Err(ConnectError::NoWebSocket("it upgrades to something else"));
    }
    if header(SEC_WEBSOCKET_ACCEPT) != Some(&derive_accept_key(key.as_bytes())) {
        return Err(ConnectError::NoWebSocket("it did not take the key it was given"));
    }
    if header(SEC_WEBSOCKET_EXTENSIONS).is_some() {
        return Err(ConnectError::NoWebSocket("it uses an extension that nobody asked for"));
    }
    match header(SEC_WEBSOCKET_PROTOCOL) {
        None if address.protocols.is_empty() => Ok(None),
        Some(taken) if address.protocols.iter().any(|offered| **offered == *taken) => {
            Ok(Some(taken.into()))
        }
        _ => Err(ConnectError::NoWebSocket("it takes none of the subprotocols offered")),
    }
}

/// Why there is no connection, or no more.
#[derive(Debug)]
pub enum ConnectError {
    /// Connecting failed, or took too long.
    Io(io::Error),
    /// The server answered something other than 101.
    Answered(StatusCode),
    /// Its answer is none of a WebSocket's.
    NoWebSocket(&'static str),
    /// A header can't have such a text.
    Unsayable(Box<str>),
    /// There was a connection, and it was lost.
    Lost(Failure),
}

impl ConnectError {
    fn unsayable(error: impl fmt::Display) -> Self {
        Self::Unsayable(error.to_string().into())
    }

    /// Whether it is no use to try again before a person has changed something.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Io(error) => {
                matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
            }
            Self::Answered(status) => {
                status.is_client_error()
                    && *status != StatusCode::TOO_MANY_REQUESTS
                    && *status != StatusCode::REQUEST_TIMEOUT
            }
            Self::NoWebSocket(_) | Self::Unsayable(_) => true,
            Self::Lost(_) => false,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "can't connect: {error}"),
            Self::Answered(status) => {
                let why = match *status {
                    StatusCode::UNAUTHORIZED => ": it wants a token or a password",
                    StatusCode::FORBIDDEN => ": it lets us not in",
                    StatusCode::NOT_FOUND => ": there is nothing at this path",
                    _ => "",
                };
                write!(f, "the server answered {status}{why}")
            }
            Self::NoWebSocket(what) => write!(f, "the server speaks no WebSocket: {what}"),
            Self::Unsayable(what) => write!(f, "a header can't have this: {what}"),
            Self::Lost(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Lost(failure) => Some(failure),
            _ => None,
        }
    }
}
