//! One request: whether it may come in, its rows, and what became of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tidegate_model::{Ack, SourceBatch, Verdict};
use tidegate_net::auth::Secrets;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::warn;

use super::body::{Packing, Room, Unusable};
use super::rows::{Kind, Rows, Wrong, tell};
use crate::blocking::blocking;
use crate::codecs::Codec;

/// Bodies of at least so many bytes are worked on where that holds up nobody.
const LONG_BYTES: usize = 64 << 10;

/// So many seconds a client is asked to wait where there is no room.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// What a client is answered.
pub(super) type Answer = Response<Full<Bytes>>;

/// Why it gets nothing in.
type Refusal = Box<Answer>;

/// When a client is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Respond {
    /// When every sink has made its rows durable.
    #[default]
    Delivered,
    /// When its rows have been taken.
    Received,
}

/// Which codecs read bodies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codecs {
    /// What is configured, for all lines.
    pub(super) lines: Option<Codec>,
    pub(super) text: Codec,
    pub(super) json: Codec,
}

impl Codecs {
    /// What a body of this type is, and how it is read.
    fn kind(&self, headers: &HeaderMap) -> Kind {
        let said = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let said = String::from_utf8_lossy(said.split(|byte| *byte == b';').next().unwrap_or(said));
        let said = said.trim().to_ascii_lowercase();
        match &*said {
            "application/json" => Kind::Array(self.json),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines" => Kind::Lines(self.lines.unwrap_or(self.json)),
            _ => Kind::Lines(self.lines.unwrap_or(self.text)),
        }
    }
}

/// What all requests meet.
pub(super) struct Api {
    pub(super) path: Box<str>,
    pub(super) secrets: Secrets,
    pub(super) respond: Respond,
    pub(super) body_timeout: Duration,
    pub(super) codecs: Codecs,
    pub(super) room: Room,
    pub(super) rows: Rows,
    /// To the pipeline: all batches of a body at once, so that a client that leaves leaves none
    /// behind.
    pub(super) sender: mpsc::Sender<Vec<SourceBatch>>,
    /// Whether the pipeline takes no more.
    pub(super) stopping: watch::Receiver<bool>,
    /// Whether it was told that there is no room.
    pub(super) full: AtomicBool,
}

impl Api {
    /// Answers a request. Dropped half-way, as its client has left, it has either handed all rows
    /// over or none.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Answer {
        match self.taken(request, peer).await {
            Ok(rows) => *said(StatusCode::OK, format!("{{\"accepted\":{rows}}}\n"), None),
            Err(refusal) => *refusal,
        }
    }

    /// How many rows a request had, once they are where they are to be.
    async fn taken(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<usize, Refusal> {
        self.admitted(&request)?;
        let packing = Packing::of(request.headers()).map_err(|error| self.unusable(error))?;
        let kind = self.codecs.kind(request.headers());
        let mut stopping = self.stopping.clone();
        let read = timeout(self.body_timeout, self.room.read(request.into_body(), packing));
        let body = tokio::select! {
            read = read => read.map_err(|_| self.too_slow())?.map_err(|error| self.unusable(error))?,
            _ = stopping.wait_for(|stopping| *stopping) => return Err(unavailable()),
        };
        let (api, peer) = (Arc::clone(self), peer.ip().to_string());
        // Either way the rows alone hold the body from here on: an answer may take long.
        let made = if body.len() < LONG_BYTES {
            let made = self.rows.of(&body, kind, &peer);
            drop(body);
            made
        } else {
            let made = blocking(body, move |body| api.rows.of(body, kind, &peer)).await;
            made.map_err(Wrong::from).and_then(|(_, made)| made)
        };
        let batches = made.map_err(|wrong| match wrong {
            Wrong::Body(reason) => refused(StatusCode::BAD_REQUEST, &reason),
            Wrong::Ours(error) => {
                refused(StatusCode::INTERNAL_SERVER_ERROR, &format!("nothing was taken: {error}"))
            }
        })?;
        self.hand_over(batches).await
    }

    /// Whether its headers let it in.
    fn admitted(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        if !self.secrets.admit(request.headers().get(http::header::AUTHORIZATION)) {
            let challenge = (WWW_AUTHENTICATE, self.secrets.challenge());
            let what = "show a token or a name and password that are known here\n";
            return Err(said(StatusCode::UNAUTHORIZED, what.to_owned(), Some(challenge)));
        }
        if request.uri().path() != &*self.path {
            let what = format!("there is nothing here; rows go to {}", self.path);
            return Err(refused(StatusCode::NOT_FOUND, &what));
        }
        if !matches!(*request.method(), Method::POST | Method::PUT) {
            let allowed = (ALLOW, HeaderValue::from_static("POST, PUT"));
            let what = "send rows with POST\n".to_owned();
            return Err(said(StatusCode::METHOD_NOT_ALLOWED, what, Some(allowed)));
        }
        Ok(())
    }

    async fn hand_over(&self, mut batches: Vec<SourceBatch>) -> Result<usize, Refusal> {
        let count = batches.iter().map(|batch| batch.rows.num_rows()).sum();
        if batches.is_empty() {
            return Ok(0);
        }
        let (tell_it, told) = oneshot::channel();
        if self.respond == Respond::Delivered {
            tell(&mut batches, Ack::new(move |verdict| tell_it.send(verdict).unwrap_or(())));
        }
        self.sender.send(batches).await.map_err(|_| unavailable())?;
        if self.respond == Respond::Received {
            return Ok(count);
        }
        match told.await {
            Ok(Verdict::Delivered | Verdict::Dropped) => Ok(count),
            Ok(Verdict::Failed) | Err(_) => Err(unavailable()),
        }
    }

    fn unusable(&self, error: Unusable) -> Refusal {
        match error {
            Unusable::Full => {
                if !self.full.swap(true, Ordering::Relaxed) {
                    warn!(
                        path = &*self.path,
                        "there is no room for a body: clients are answered \
                           429 until sinks have taken what is in flight"
                    );
                }
                let after = (RETRY_AFTER, RETRY_AFTER_SECONDS);
                let what = "there is no room now; nothing was taken, send it again\n";
                said(StatusCode::TOO_MANY_REQUESTS, what.to_owned(), Some(after))
            }
            Unusable::TooLarge => {
                let max = self.room.bytes_max;
                let what = format!("a body may have {max} bytes, unpacked: send it in parts");
                refused(StatusCode::PAYLOAD_TOO_LARGE, &what)
            }
            Unusable::Unknown(packing) => {
                let what = format!("{packing:?} is not known here: gzip, zstd, or none");
                refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, &what)
            }
            Unusable::Damaged(packing) => {
                let what = format!("the body is no whole {packing}");
                refused(StatusCode::BAD_REQUEST, &what)
            }
            Unusable::FarBack => {
                let what = "it takes too much memory to unpack it: pack it with less, not \"long\"";
                refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, what)
            }
            Unusable::CutOff => refused(StatusCode::BAD_REQUEST, "the body was cut off"),
        }
    }

    fn too_slow(&self) -> Refusal {
        let within = self.body_timeout;
        let what = format!("the body did not come within {within:?}; nothing was taken");
        refused(StatusCode::REQUEST_TIMEOUT, &what)
    }
}

fn unavailable() -> Refusal {
    let after = (RETRY_AFTER, RETRY_AFTER_SECONDS);
    let what = "the pipeline stops; it may be that not all was delivered, send it again\n";
    said(StatusCode::SERVICE_UNAVAILABLE, what.to_owned(), Some(after))
}

fn refused(status: StatusCode, what: &str) -> Refusal {
    said(status, format!("{what}\n"), None)
}

fn said(status: StatusCode, what: String, header: Option<(HeaderName, HeaderValue)>) -> Refusal {
    let kind = match status {
        StatusCode::OK => "application/json",
        _ => "text/plain; charset=utf-8",
    };
    let mut answer = Response::new(Full::from(what));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().extend(header);
    Box::new(answer)
}
