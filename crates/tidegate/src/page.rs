//! A page of a running pipeline: its numbers each second, as server-sent events. Nothing on it comes
//! from elsewhere, and a viewer that reads slowly holds nothing up.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use serde_json::{Value, json};
use tidegate::engine::{Reading, Snapshot};
use tidegate::net::listen::{Limits, Listener};
use tidegate::net::serve::{HttpOptions, serve};
use tidegate::net::sse::{self, Broadcaster, EventBody};
use tokio::task::JoinSet;

use crate::failed::Failed;

const PAGE: &str = include_str!("page/page.html");

/// What the page may load: itself, and what it asks for here.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
);

/// So many may look at it at once.
const VIEWERS_MAX: usize = 100;

/// The page, for as long as this lives.
pub(crate) struct Page {
    address: SocketAddr,
    news: Broadcaster,
    // One task: the server, whose connections are its own.
    _server: JoinSet<()>,
}

impl Page {
    /// Serves it at this address; port 0 takes a free one.
    pub(crate) fn serve(address: SocketAddr) -> Result<Self, Failed> {
        let limits = Limits { connections_max: VIEWERS_MAX, ..Limits::default() };
        let listener = Listener::bind(address, limits).map_err(|error| {
            let said = format!("can't serve the page at {address}: {error}");
            Failed::data(said + "; take another address with --page")
        })?;
        let address = listener.local_addr().map_err(Failed::data)?;
        // A viewer that comes later sees the last seconds at once.
        let news = Broadcaster::new(sse::Limits::default());
        let to_all = news.clone();
        let answer = move |request, _peer| std::future::ready(answer(&to_all, &request));
        let mut server = JoinSet::new();
        let forever = std::future::pending();
        server.spawn(serve(listener, HttpOptions::default(), forever, answer, |_| {}));
        Ok(Self { address, news, _server: server })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows what the last second brought.
    pub(crate) fn show(&self, before: &Snapshot, now: &Snapshot) {
        self.news.publish(Some("snapshot"), &numbers(before, now).to_string());
    }
}

type Answer = Response<Either<Full<Bytes>, EventBody>>;

fn answer<B>(news: &Broadcaster, request: &Request<B>) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/" => text(StatusCode::OK, "text/html; charset=utf-8", PAGE),
        "/events" => news.respond(request.headers()).map(Either::Right),
        _ => text(StatusCode::NOT_FOUND, "text/plain", "there is nothing here; the page is /\n"),
    }
}

fn text(status: StatusCode, kind: &'static str, text: &'static str) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(text)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    answer
}

/// What the page shows.
fn numbers(before: &Snapshot, now: &Snapshot) -> Value {
    let seconds = now.elapsed.saturating_sub(before.elapsed).as_secs_f64().max(1e-3);
    let components = now.components.iter().zip(&before.components);
    let components: Vec<Value> =
        components.map(|(now, then)| component(now, then, seconds)).collect();
    let edges = now.edges.iter().zip(&before.edges).map(|(now, then)| {
        json!({
            "source": *now.source,
            "input": *now.input,
            "sink": *now.sink,
            "queued": now.queued_bytes,
            "room": now.queue_bytes_max,
            "dropped": now.dropped.saturating_sub(then.dropped) as f64 / seconds,
        })
    });
    let bottleneck = now.bottleneck(before);
    json!({
        "elapsed": now.elapsed.as_secs_f64(),
        "rows": now.rows_read().saturating_sub(before.rows_read()) as f64 / seconds,
        "read": now.rows_read(),
        "written": now.rows_written(),
        "dropped": now.dropped(),
        "used": now.budget.used,
        "capacity": now.budget.capacity,
        "bottleneck": bottleneck.map(|found| format!("{}.{}", found.role.table(), found.name)),
        "components": components,
        "edges": edges.collect::<Vec<_>>(),
    })
}

fn component(now: &Reading, then: &Reading, seconds: f64) -> Value {
    let share = |now: std::time::Duration, then: std::time::Duration| {
        (now.saturating_sub(then).as_secs_f64() / seconds).min(1.0)
    };
    json!({
        "name": format!("{}.{}", now.role.table(), now.name),
        "rows": now.rows.saturating_sub(then.rows) as f64 / seconds,
        "bytes": now.bytes.saturating_sub(then.bytes) as f64 / seconds,
        "busy": share(now.busy, then.busy),
        "blocked": share(now.blocked, then.blocked),
        "trouble": now.trouble,
    })
}
