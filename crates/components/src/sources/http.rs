//! `http`: rows that clients post, answered when they are safe.
//!
//! A body is lines (`text/plain`, or any other type), NDJSON (`application/x-ndjson`), or a JSON
//! array of records (`application/json`; one record alone too), plain or packed with gzip or zstd.
//! All of it is taken, or nothing: a bad line is named with 400.
//!
//! **Delivery.** 200 means that every sink has made the rows durable, so a client that sends again
//! what was not answered with 200 loses nothing, and may send some rows twice: those of a client that
//! leaves before its answer go on too. With `respond = "received"` it means only that they were
//! taken: what is in flight at a crash is lost. Rows that an edge drops by its policy, or that a sink
//! rejects, are counted there, and count as delivered here.
//!
//! **Memory.** A body's memory is reserved before it is read, and nothing waits for it: where there
//! is no room the answer is 429 with `Retry-After`. A body that does not come within `body_timeout`
//! gives its memory back, so that slow ones starve nobody for long. What unpacking zstd takes is
//! reserved by what each frame says, 8.5 MiB at most. Connections hold a buffer of 16 KiB each outside
//! the budget, and unpacking gzip 64 KiB.
//!
//! **Text.** What is no UTF-8 becomes U+FFFD; an array must be UTF-8.
//!
//! **Stop.** Requests whose body has not come are answered 503; the others get their answers once
//! sinks have delivered, within the time that a shutdown may take. There is no end of what clients
//! may post, so `--once` does not end it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use arrow_schema::SchemaRef;
use futures::{StreamExt, stream};
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_model::{
    ByteSize, Error, Mistake, Result, Settings, Source, SourceBatch, SourceContext, SourceSpec,
    SourceStream, Spanned, TimeSpan, log_schema,
};
use tidegate_net::serve::{HttpOptions, serve};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::codecs::{Codec, Pool, decoder_named, line_bytes_max};
use crate::network::{Auth, ListenFields, ListenTls, Listening, Troubles, span};

/// What unpacking zstd takes.
mod frames;

/// A body in memory.
mod body;

/// Its rows.
mod rows;

/// From a request to its answer.
mod request;

use body::Room;
use request::{Api, Codecs, Respond};
use rows::Rows;

/// How the source presents itself.
pub const SPEC: SourceSpec = SourceSpec {
    summary: "rows that clients post (NDJSON, JSON, text; gzip, zstd), answered when they are safe",
    example: r#"listen = "127.0.0.1:8080"   # or "0.0.0.0:8080", for other machines
# path = "/"
# codec = "auto"            # of lines; else by Content-Type
# respond = "received"      # 200 before rows are safe
# body_bytes_max = "8MiB"   # unpacked
# auth = { tokens = ["${API_TOKEN}"] }
# tls = { certificate = "cert.pem", key = "key.pem" }"#,
    build,
};

/// How large a body may be where nobody says.
const BODY_BYTES: usize = 8 << 20;

/// How large it may be at all.
const BODY_BYTES_MAX: usize = 1 << 30;

/// How long it may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Bodies that wait for the pipeline to take them; those behind them wait as requests.
const WAITING_MAX: usize = 16;

/// So long answers may take to go out when all is delivered.
const CLOSING: Duration = Duration::from_secs(5);

/// The settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where: an address and a port, or a port of this machine alone.
    listen: Spanned<String>,
    /// Where rows go: `/`.
    path: Option<Spanned<String>>,
    /// How lines are read; by the body's `Content-Type` where it is not set: `json` for NDJSON,
    /// `text` for others.
    codec: Option<Spanned<String>>,
    /// When a client is answered: `delivered` (default) or `received`.
    respond: Option<Spanned<String>>,
    /// The most that a body may have, unpacked: 8 MiB.
    body_bytes_max: Option<Spanned<ByteSize>>,
    /// How long a body may take to come: 30 s.
    body_timeout: Option<Spanned<TimeSpan>>,
    /// The longest record: 1 MiB.
    line_bytes_max: Option<Spanned<ByteSize>>,
    /// So many connections at once: 1,000.
    connections_max: Option<Spanned<usize>>,
    /// How long a TLS handshake may take: 10 s.
    handshake_timeout: Option<Spanned<TimeSpan>>,
    /// How long a connection may be silent, and headers take: 30 s.
    idle_timeout: Option<Spanned<TimeSpan>>,
    /// TLS.
    tls: Option<ListenTls>,
    /// Who may come in.
    auth: Option<Spanned<Auth>>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Source>, Mistake> {
    let config: Config = settings.parse()?;
    let path = match &config.path {
        None => "/".into(),
        Some(path) if path.get_ref().starts_with('/') => path.get_ref().as_str().into(),
        Some(path) => {
            let message = format!("a path begins with a slash, {:?} does not", path.get_ref());
            return Err(Mistake::at(path.span(), message).help(format!("\"/{}\"", path.get_ref())));
        }
    };
    let respond = match &config.respond {
        None => Respond::Delivered,
        Some(word) => match word.get_ref().as_str() {
            "delivered" => Respond::Delivered,
            "received" => Respond::Received,
            other => {
                let message = format!("{other:?} is no time to respond");
                let help = "\"delivered\": when every sink has the rows; \"received\": before that";
                return Err(Mistake::at(word.span(), message).help(help));
            }
        },
    };
    let body_bytes_max = match &config.body_bytes_max {
        None => BODY_BYTES,
        Some(size) => match usize::try_from(size.get_ref().0) {
            Ok(bytes @ 1..=BODY_BYTES_MAX) => bytes,
            _ => {
                let message = "no body can be that long";
                return Err(Mistake::at(size.span(), message).help("1 byte to 1 GiB"));
            }
        },
    };
    let or = |time: &Option<Spanned<TimeSpan>>, otherwise| match time {
        None => Ok(otherwise),
        Some(time) => span(time),
    };
    let mut http = HttpOptions::default();
    http.header_timeout = or(&config.idle_timeout, http.header_timeout)?;
    Ok(Box::new(HttpSource {
        path,
        codec: config.codec.as_ref().map(|name| decoder_named(Some(name))).transpose()?,
        respond,
        body_bytes_max,
        body_timeout: or(&config.body_timeout, BODY_TIMEOUT)?,
        line_bytes_max: line_bytes_max(config.line_bytes_max.as_ref())?,
        http,
        listening: ListenFields {
            listen: config.listen,
            connections_max: config.connections_max,
            handshake_timeout: config.handshake_timeout,
            tls: config.tls,
            auth: config.auth,
        }
        .understood()?,
        server: JoinSet::new(),
    }))
}

/// See the module.
struct HttpSource {
    path: Box<str>,
    codec: Option<Codec>,
    respond: Respond,
    body_bytes_max: usize,
    body_timeout: Duration,
    line_bytes_max: usize,
    http: HttpOptions,
    listening: Listening,
    // One task: the server, whose connections are its own. Answers go out after the stream is gone.
    server: JoinSet<()>,
}

impl Source for HttpSource {
    fn schema(&self) -> Option<SchemaRef> {
        Some(log_schema())
    }

    fn replayable(&self) -> bool {
        false
    }

    fn bytes_min(&self) -> usize {
        Room::bytes_min(self.body_bytes_max)
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        Box::pin(async move {
            self.server.shutdown().await;
            let listener = self.listening.bind(&["http/1.1"]).await?;
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            let (stop, stopping) = watch::channel(false);
            let api = Arc::new(self.api(&context, sender, stopping.clone())?);
            let mut stopped = stopping;
            let stopped = async move {
                // A sender that is gone is a stop too.
                let _ = stopped.wait_for(|stopping| *stopping).await;
            };
            let answer = move |request, peer| Arc::clone(&api).answer(request, peer);
            let mut troubles = Troubles::new(context.name);
            let notice = move |notice| troubles.tell(&notice);
            self.server.spawn(serve(listener, self.http, stopped, answer, notice));
            let posted = Posted { receiver, _stop: stop };
            let batches = stream::unfold(posted, |mut posted| async {
                let batches = match posted.receiver.recv().await {
                    Some(batches) => batches.into_iter().map(Ok).collect(),
                    None => vec![Err(Error::fatal("the server ended; please report this"))],
                };
                Some((stream::iter(batches), posted))
            });
            Ok(batches.flatten().boxed())
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let answers = async { while self.server.join_next().await.is_some() {} };
            let _ = timeout(CLOSING, answers).await;
            self.server.shutdown().await;
        })
    }
}

/// What was posted and not read; dropped, it stops the server.
struct Posted {
    receiver: mpsc::Receiver<Vec<SourceBatch>>,
    _stop: watch::Sender<bool>,
}

impl HttpSource {
    fn api(
        &self,
        context: &SourceContext,
        sender: mpsc::Sender<Vec<SourceBatch>>,
        stopping: watch::Receiver<bool>,
    ) -> Result<Api> {
        let named = |name: &str| {
            let name = Spanned::new(0..0, name.to_owned());
            decoder_named(Some(&name)).map_err(|mistake| Error::fatal(mistake.message))
        };
        Ok(Api {
            path: self.path.clone(),
            secrets: self.listening.secrets.clone(),
            respond: self.respond,
            body_timeout: self.body_timeout,
            codecs: Codecs { lines: self.codec, text: named("text")?, json: named("json")? },
            room: Room {
                holder: Arc::clone(&context.holder),
                pool: Pool::default(),
                bytes_max: self.body_bytes_max,
            },
            rows: Rows {
                columns: Arc::clone(&context.columns),
                holder: Arc::clone(&context.holder),
                line_bytes_max: self.line_bytes_max,
                rows_max: context.batch_rows_max.max(1),
                bytes_max: context.batch_bytes_max,
                sequence: AtomicU64::new(0),
            },
            sender,
            stopping,
            full: AtomicBool::new(false),
        })
    }
}

#[cfg(test)]
mod tests;
