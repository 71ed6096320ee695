//! Who may come in, and what the others are answered.

use http::header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use http::{header, request};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use crate::auth::Secrets;

/// Who may come in. Empty lists ask for nothing.
///
/// A browser can't set headers for a WebSocket: it comes in with a name and a password in its
/// address (`wss://name:password@host/`), or a server in front of this one shows the token.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Paths; one that ends with `*` is all that begin so. Others are answered 404.
    pub paths: Vec<Box<str>>,
    /// Subprotocols, the best first. Who offers none of them is answered 400.
    pub protocols: Vec<Box<str>>,
    /// Where a page may be from whose script connects, such as `https://example.org`; other pages are
    /// answered 403. Programs that send no `Origin` are no pages.
    pub origins: Vec<Box<str>>,
    /// Headers that a request must have, with these values; without them it is answered 403.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Who shows none of these is answered 401.
    pub secrets: Secrets,
}

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The path, and the query where there was one.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// The subprotocol that was agreed on.
    pub protocol: Option<Box<str>>,
}

impl Request {
    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.uri.path()
    }
}

impl Rules {
    /// The answer to a request, and what was asked for, where it may come in.
    pub(super) fn judge(
        &self,
        request: &request::Parts,
        full: bool,
    ) -> (Response<String>, Option<Request>) {
        let refused = |status, why: &str| (refusal(status, why), None);
        if !self.paths.is_empty() && !self.paths.iter().any(|path| fits(path, request.uri.path())) {
            return refused(StatusCode::NOT_FOUND, "there is nothing at this path");
        }
        let get = |name: HeaderName| request.headers.get(name);
        if !self.secrets.admit(get(AUTHORIZATION)) {
            let mut answer = refusal(StatusCode::UNAUTHORIZED, "show a token or a password");
            answer.headers_mut().insert(WWW_AUTHENTICATE, self.secrets.challenge());
            return (answer, None);
        }
        if let Some(origin) = get(ORIGIN).filter(|_| !self.origins.is_empty())
            && !self.origins.iter().any(|known| origin.as_bytes() == known.as_bytes())
        {
            return refused(StatusCode::FORBIDDEN, "not from a page of this origin");
        }
        let shown = |(name, value): &(HeaderName, HeaderValue)| {
            request.headers.get_all(name).iter().any(|shown| shown == value)
        };
        if !self.headers.iter().all(shown) {
            return refused(StatusCode::FORBIDDEN, "a header is missing");
        }
        let mut plain = http::Request::new(());
        plain.method_mut().clone_from(&request.method);
        plain.headers_mut().clone_from(&request.headers);
        let Ok(mut answer) = create_response_with_body(&plain, String::new) else {
            return (upgrade_required(request), None);
        };
        let protocol = self.protocol(&request.headers);
        if protocol.is_none() && !self.protocols.is_empty() {
            let known = self.protocols.join(", ");
            return refused(StatusCode::BAD_REQUEST, &format!("a subprotocol is needed: {known}"));
        }
        if full {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "there are too many: come back later");
        }
        if let Some(protocol) = &protocol
            && let Ok(value) = HeaderValue::from_str(protocol)
        {
            answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
        let (uri, headers) = (request.uri.clone(), request.headers.clone());
        (answer, Some(Request { uri, headers, protocol }))
    }

    /// The best that the client offers.
    fn protocol(&self, headers: &HeaderMap) -> Option<Box<str>> {
        let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
        let offered: Vec<_> = offered
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(str::trim))
            .collect();
        self.protocols.iter().find(|known| offered.contains(&&***known)).cloned()
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => path == pattern,
    }
}

pub(super) fn refusal(status: StatusCode, why: &str) -> Response<String> {
    let mut answer = Response::new(format!("{why}\n"));
    *answer.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, text);
    answer
}

/// What is no handshake, or none of this version.
fn upgrade_required(request: &request::Parts) -> Response<String> {
    let asked = request.headers.contains_key(header::UPGRADE) && request.method == Method::GET;
    let version = request.headers.get(header::SEC_WEBSOCKET_VERSION);
    let bad = asked && version.is_some_and(|version| version == "13");
    let mut answer = match bad {
        true => refusal(StatusCode::BAD_REQUEST, "no proper WebSocket handshake"),
        false => refusal(StatusCode::UPGRADE_REQUIRED, "here are WebSockets: upgrade"),
    };
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    answer
}
