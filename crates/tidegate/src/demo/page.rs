//! The demo in a browser: what its pipeline does, each second, as server-sent events.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full};
use serde_json::{Value, json};
use tidegate::engine::{Reading, Role, Snapshot};
use tidegate_net::listen::{Limits, Listener};
use tidegate_net::serve::{HttpOptions, serve};
use tidegate_net::sse::{self, Broadcaster, EventBody};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::failed::Failed;

/// Self-contained: it needs no network but the way to here.
const PAGE: &str = include_str!("page.html");

/// The page runs only what is in it, and speaks with nobody else.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline'; connect-src 'self'";

/// So many browsers may watch.
const VIEWERS_MAX: usize = 64;

/// A minute of states is kept for browsers that come back.
const KEPT: sse::Limits = sse::Limits {
    events: tidegate::flow::nz!(60),
    bytes: 1 << 20,
    heartbeat: Duration::from_secs(15),
};

/// So long browsers may take to get the last state.
const CLOSING: Duration = Duration::from_secs(1);

/// A server of the page; its connections are closed when this is dropped.
pub(super) struct Page {
    address: SocketAddr,
    news: Broadcaster,
    server: JoinSet<()>,
    stop: oneshot::Sender<()>,
}

impl Page {
    /// Listens there; port 0 is a free one.
    pub(super) fn serve(listen: SocketAddr) -> Result<Self, Failed> {
        let limits = Limits { connections_max: VIEWERS_MAX, ..Limits::default() };
        let listener = Listener::bind(listen, limits).and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        let (listener, address) = listener.map_err(|error| {
            Failed::usage(format!("--listen: can't serve the page at {listen}: {error}"))
        })?;
        let news = Broadcaster::new(KEPT);
        let to_all = news.clone();
        let (stop, stopped) = oneshot::channel();
        let serving = serve(
            listener,
            HttpOptions::default(),
            async { stopped.await.unwrap_or(()) },
            move |request, _peer| {
                let answer = answer(request.uri().path(), request.headers(), &to_all);
                async move { answer }
            },
            |_notice| {}, // a browser that leaves is none of the demo's troubles
        );
        let mut server = JoinSet::new();
        server.spawn(serving);
        Ok(Self { address, news, server, stop })
    }

    /// Where to look.
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Shows the time between two snapshots.
    pub(super) fn show(&self, before: &Snapshot, now: &Snapshot) {
        self.news.publish(Some("state"), &state(before, now).to_string());
    }

    /// Lets browsers have the last state, for a moment.
    pub(super) async fn close(mut self) {
        self.news.close();
        let _ = self.stop.send(());
        let _ = timeout(CLOSING, self.server.join_next()).await;
        self.server.shutdown().await;
    }
}

fn answer(
    path: &str,
    headers: &HeaderMap,
    news: &Broadcaster,
) -> Response<Either<EventBody, Full<Bytes>>> {
    let (text, kind, status) = match path {
        "/events" => return news.respond(headers).map(Either::Left),
        "/" => (PAGE, "text/html; charset=utf-8", StatusCode::OK),
        _ => ("there is nothing here; the page is at /\n", "text/plain", StatusCode::NOT_FOUND),
    };
    let mut answer = Response::new(Either::Right(Full::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer
}

/// What the page is told.
fn state(before: &Snapshot, now: &Snapshot) -> Value {
    let seconds = now.elapsed.saturating_sub(before.elapsed).as_secs_f64().max(f64::EPSILON);
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    let components = now.components.iter().zip(&before.components).map(|(now, before)| {
        let share = |now: Duration, before: Duration| {
            (now.saturating_sub(before).as_secs_f64() / seconds).min(1.0)
        };
        json!({
            "name": &*now.name,
            "role": role(now),
            "rows": each(now.rows, before.rows),
            "bytes": each(now.bytes, before.bytes),
            "busy": share(now.busy, before.busy),
            "blocked": share(now.blocked, before.blocked),
            "note": note(now),
        })
    });
    let edges = now.edges.iter().map(|edge| {
        // From the source on: the other way round it says what a sink is fed by.
        let way: Vec<_> = edge.input.rsplit(" < ").collect();
        json!({
            "from": way.join(" → "),
            "to": &*edge.sink,
            "used": edge.queued_bytes,
            "max": edge.queue_bytes_max,
            "dropped": edge.dropped,
        })
    });
    let bottleneck = now.bottleneck(before).map(|bottleneck| {
        let share = bottleneck.busy * 100.0;
        format!("{} holds the others up: it is busy {share:.0} % of the time", bottleneck.name)
    });
    json!({
        "title": "tidegate demo",
        "elapsed": now.elapsed.as_secs(),
        "bottleneck": bottleneck,
        "figures": [
            { "name": "read", "value": each(now.rows_read(), before.rows_read()), "unit": "rows/s" },
            {
                "name": "input", "unit": "MB/s", "digits": 2,
                "value": each(now.bytes_read(), before.bytes_read()) / 1e6,
            },
            {
                "name": "budget in use", "digits": 1,
                "value": mebibytes(now.budget.used),
                "unit": format!("of {:.0} MiB", mebibytes(now.budget.capacity)),
            },
            { "name": "missed by alerts", "value": now.dropped(), "unit": "rows" },
        ],
        "components": components.collect::<Vec<_>>(),
        "edges": edges.collect::<Vec<_>>(),
    })
}

fn role(reading: &Reading) -> &'static str {
    match reading.role {
        Role::Source => "source",
        Role::Transform => "transform",
        Role::Sink => "sink",
    }
}

/// What people should know of a component.
fn note(reading: &Reading) -> String {
    let counts = [(reading.refused, "refused"), (reading.rejected, "rejected")];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts = counts.map(|(count, what)| format!("{count} {what}"));
    let trouble = reading.trouble.iter().map(|trouble| format!("waits: {trouble}"));
    counts.chain(trouble).collect::<Vec<_>>().join(", ")
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
