//! Who gets the stream, and what others are answered.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    AUTHORIZATION, CONTENT_TYPE, HeaderName, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use tidegate_model::{Mistake, Result, Spanned};
use tidegate_net::auth::Secrets;
use tidegate_net::sse::{Broadcaster, EventBody};

/// The stream, or a word on why there is none.
pub(super) type Answer = Response<Either<EventBody, Full<Bytes>>>;

/// What all requests meet.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) news: Broadcaster,
    pub(super) path: Box<str>,
    pub(super) secrets: Secrets,
    pub(super) allow_origin: Option<HeaderValue>,
}

impl Door {
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Answer {
        let mut answer = self.let_in(request);
        if let Some(origin) = &self.allow_origin {
            let headers = answer.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(VARY, HeaderValue::from_static("Origin"));
        }
        answer
    }

    fn let_in<B>(&self, request: &Request<B>) -> Answer {
        // A browser asks without credentials whether it may send them.
        if request.method() == Method::OPTIONS && self.allow_origin.is_some() {
            return preflight();
        }
        if !self.secrets.admit(request.headers().get(AUTHORIZATION)) {
            let challenge = (WWW_AUTHENTICATE, self.secrets.challenge());
            let what = "show a token or a name and password that are known here\n";
            return said(StatusCode::UNAUTHORIZED, what.to_owned(), Some(challenge));
        }
        if request.uri().path() != &*self.path {
            let what = format!("there is nothing here; events are at {}\n", self.path);
            return said(StatusCode::NOT_FOUND, what, None);
        }
        if request.method() != Method::GET {
            let allowed = (ALLOW, HeaderValue::from_static("GET"));
            let what = "read events with GET\n".to_owned();
            return said(StatusCode::METHOD_NOT_ALLOWED, what, Some(allowed));
        }
        self.news.respond(request.headers()).map(Either::Left)
    }
}

fn preflight() -> Answer {
    let mut answer = said(StatusCode::NO_CONTENT, String::new(), None);
    let headers = answer.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
    let allowed = HeaderValue::from_static("Authorization, Cache-Control, Last-Event-ID");
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    answer
}

fn said(status: StatusCode, what: String, header: Option<(HeaderName, HeaderValue)>) -> Answer {
    let mut answer = Response::new(Either::Right(Full::from(what)));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer.headers_mut().extend(header.map(|(name, value)| (Some(name), value)));
    answer
}

/// Whose pages may read the stream, as a browser is told.
pub(super) fn origin(text: &Spanned<String>) -> Result<HeaderValue, Mistake> {
    let origin = text.get_ref().trim();
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let is_site = rest.is_some_and(|site| !site.is_empty() && !site.contains(['/', ' ', ',', '*']));
    let value = HeaderValue::from_str(origin).ok().filter(|_| origin == "*" || is_site);
    value.ok_or_else(|| {
        let message = format!("{origin:?} is the name of no site");
        Mistake::at(text.span(), message)
            .help("such as \"https://example.com\", without a path, or \"*\" for all")
    })
}
