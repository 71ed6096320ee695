//! `sse`: a server of events, a row each, for browsers and whoever else reads event streams.
//!
//! **Delivery.** A row is delivered when it is published: when it is in the ring that clients read
//! from. A broadcast can't wait for its clients, so a row that nobody listens to is gone once the
//! ring has turned. A client that comes back with `Last-Event-ID`, as browsers do by themselves, gets
//! what it missed, as far as the ring has it. One that was too slow gets an event `lagged` with
//! `{"missed":12}` and goes on with the oldest that is kept; one whose id is of another run, or of
//! none, gets `{"missed":null}` and all that is kept. After a crash some rows are published twice.
//!
//! **Memory.** Beside the budget: the ring, of at most `replay_bytes` (16 MiB), whose events all
//! clients share; for each connection buffers of 16 KiB, and what it has taken out of the ring and
//! not sent, at most 64 KiB or one event that is longer.
//!
//! **Stop.** When all is written, clients get what is left of it within five seconds, and their
//! streams end; browsers then try to come back.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use http::HeaderValue;
use serde::Deserialize;
use tidegate_model::{
    ByteSize, Commit, Delivered, Error, Gather, Mistake, Result, Settings, Sink, SinkContext,
    SinkSpec, Spanned, TimeSpan, Written,
};
use tidegate_net::serve::{HttpOptions, serve};
use tidegate_net::sse::{Broadcaster, Limits};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use crate::codecs::encode::Encoder;
use crate::codecs::values::{Column, Style, writable};
use crate::network::{Auth, ListenFields, ListenTls, Listening, Troubles, not_zero, span};

/// Who gets the stream.
mod door;

use door::{Door, origin};

/// See the module.
pub const SPEC: SinkSpec = SinkSpec {
    summary: "serves rows as server-sent events, to browsers and others",
    example: r#"listen = "127.0.0.1:8080"   # or "0.0.0.0:8080", for other machines
# path = "/events"
# event_column = "kind"         # its text is the event's type
# codec = "text"                # or "ndjson", the default: all columns
# heartbeat = "15s"
# replay_events = 65536         # kept for clients that come back, ...
# replay_bytes = "16MiB"        # ... of at most so many bytes
# allow_origin = "*"            # pages of other sites may read it
# auth = { tokens = ["${TOKEN}"] }
# tls = { certificate = "cert.pem", key = "key.pem" }"#,
    build,
};

/// So many events are kept where nobody says: what a sink writes at once is a part of it.
const REPLAY_EVENTS: NonZeroUsize = tidegate_flow::nz!(65_536);

/// … and so many bytes.
const REPLAY_BYTES: usize = 16 << 20;

/// So much is encoded before clients have a turn.
const STEP_BYTES: usize = 64 << 10;

/// So long clients may take to get the last events.
const CLOSING: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where: an address and a port, or a port of this machine alone.
    listen: Spanned<String>,
    /// Where the stream is: `/events`.
    path: Option<Spanned<String>>,
    /// The column whose text is the event's type; null is `message`.
    event_column: Option<Spanned<String>>,
    /// How rows are written: `ndjson` (default) or `text`.
    codec: Option<Spanned<String>>,
    /// After so long a silence a comment is sent: 15 s.
    heartbeat: Option<Spanned<TimeSpan>>,
    /// So many events are kept for clients that come back: 65,536.
    replay_events: Option<Spanned<usize>>,
    /// … of at most so many bytes: 16 MiB.
    replay_bytes: Option<Spanned<ByteSize>>,
    /// The site whose pages may read the stream beside its own; `*` is all.
    allow_origin: Option<Spanned<String>>,
    /// So many connections at once: 1,000.
    connections_max: Option<Spanned<usize>>,
    /// How long a TLS handshake may take: 10 s.
    handshake_timeout: Option<Spanned<TimeSpan>>,
    /// How long headers may take: 30 s.
    idle_timeout: Option<Spanned<TimeSpan>>,
    /// TLS.
    tls: Option<ListenTls>,
    /// Who may come in.
    auth: Option<Spanned<Auth>>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Sink>, Mistake> {
    let config: Config = settings.parse()?;
    let path = match &config.path {
        None => "/events".into(),
        Some(path) if path.get_ref().starts_with('/') => path.get_ref().as_str().into(),
        Some(path) => {
            let message = format!("a path begins with a slash, {:?} does not", path.get_ref());
            return Err(Mistake::at(path.span(), message).help(format!("\"/{}\"", path.get_ref())));
        }
    };
    let by_default = Spanned::new(0..0, "ndjson".to_owned());
    let codec = config.codec.unwrap_or(by_default);
    let mut limits = Limits { events: REPLAY_EVENTS, bytes: REPLAY_BYTES, ..Limits::default() };
    if let Some(events) = &config.replay_events {
        let events = not_zero(events, "clients get what is kept, and so nothing")?;
        limits.events = NonZeroUsize::new(*events).unwrap_or(limits.events);
    }
    if let Some(size) = &config.replay_bytes {
        limits.bytes = match usize::try_from(size.get_ref().0) {
            Ok(bytes @ 1..) => bytes,
            _ => return Err(Mistake::at(size.span(), "no events can have that size")),
        };
    }
    if let Some(heartbeat) = &config.heartbeat {
        limits.heartbeat = span(heartbeat)?;
    }
    let mut http = HttpOptions::default();
    if let Some(timeout) = &config.idle_timeout {
        http.header_timeout = span(timeout)?;
    }
    Ok(Box::new(SseSink {
        path,
        encoder: Encoder::named(Some(&codec))?,
        // Texts may have line ends, and so may quoted values; a row of JSON is a line.
        lines: codec.get_ref() == "ndjson",
        event_column: config.event_column,
        allow_origin: config.allow_origin.as_ref().map(origin).transpose()?,
        limits,
        http,
        listening: ListenFields {
            listen: config.listen,
            connections_max: config.connections_max,
            handshake_timeout: config.handshake_timeout,
            tls: config.tls,
            auth: config.auth,
        }
        .understood()?,
        open: None,
    }))
}

struct SseSink {
    path: Box<str>,
    encoder: &'static Encoder,
    /// Whether each row is one line.
    lines: bool,
    event_column: Option<Spanned<String>>,
    allow_origin: Option<HeaderValue>,
    limits: Limits,
    http: HttpOptions,
    listening: Listening,
    open: Option<Open>,
}

/// A server at work.
struct Open {
    news: Broadcaster,
    /// The columns that the codec reads, and the one that names events.
    columns: Vec<usize>,
    named: Option<usize>,
    /// One task: the server, whose connections are its own.
    server: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Sink for SseSink {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        let mut columns = (self.encoder.columns)(input)?;
        if let Some(name) = &self.event_column {
            let index = input.index_of(name.get_ref()).map_err(|_| {
                let names: Vec<_> = input.fields().iter().map(|field| &**field.name()).collect();
                let message = format!("there is no column {:?} to name events", name.get_ref());
                Mistake::at(name.span(), message).help(format!("one of {}", names.join(", ")))
            })?;
            if !writable(input.field(index).data_type(), Style::Plain) {
                let message = format!("the column {:?} can't name events", name.get_ref());
                return Err(Mistake::at(name.span(), message).help("take one that has text"));
            }
            columns.push(index);
            columns.sort_unstable();
            columns.dedup();
        }
        Ok(columns)
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    /// Never more at once than clients can have a part of before it is overwritten.
    fn gather(&self) -> Gather {
        let all = Gather::default();
        Gather {
            rows_max: all.rows_max.min(self.limits.events.get().div_ceil(4)),
            bytes_max: all.bytes_max.min(self.limits.bytes.div_ceil(4)),
            ..all
        }
    }

    fn open(&mut self, context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async move {
            if self.open.is_some() {
                return Ok(Vec::new()); // clients go on
            }
            let wrong = |mistake: Mistake| Error::fatal(mistake.message);
            let columns = (self.encoder.columns)(&context.columns).map_err(wrong)?;
            let named =
                self.event_column.as_ref().map(|name| context.columns.index_of(name.get_ref()));
            let named =
                named.transpose().map_err(|error| Error::fatal("event_column").because(error))?;
            let listener = self.listening.bind(&["http/1.1"]).await?;
            let news = Broadcaster::new(self.limits);
            let door = Arc::new(Door {
                news: news.clone(),
                path: self.path.clone(),
                secrets: self.listening.secrets.clone(),
                allow_origin: self.allow_origin.clone(),
            });
            let (stop, mut stopping) = watch::channel(false);
            let stopped = async move {
                // A sender that is gone is a stop too.
                let _ = stopping.wait_for(|stopping| *stopping).await;
            };
            let answer = move |request, _peer: SocketAddr| {
                let answer = door.answer(&request);
                async move { answer }
            };
            let mut troubles = Troubles::new(context.name);
            let notice = move |notice| troubles.tell(&notice);
            let mut server = JoinSet::new();
            server.spawn(serve(listener, self.http, stopped, answer, notice));
            self.open = Some(Open { news, columns, named, server, stop });
            Ok(Vec::new())
        })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async move {
            let Some(open) = &self.open else {
                return Err(Error::fatal("it is not open: open it before writing"));
            };
            let mut row = 0;
            while row < rows.num_rows() {
                row = open.publish(rows, row, self.encoder, self.lines)?;
                yield_now().await;
            }
            Ok(Written::default())
        })
    }

    fn commit<'a>(&'a mut self, _delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Some(Open { news, mut server, stop, .. }) = self.open.take() else { return };
            news.close();
            stop.send_replace(true);
            let ended = async { while server.join_next().await.is_some() {} };
            let _ = timeout(CLOSING, ended).await;
            server.shutdown().await;
        })
    }
}

impl Open {
    /// Publishes some rows, from this one on; gives the one to go on with.
    fn publish(
        &self,
        rows: &RecordBatch,
        from: usize,
        encoder: &Encoder,
        lines: bool,
    ) -> Result<usize> {
        let defect =
            |said: &str| Error::fatal(format!("{said}, which is a defect; please report it"));
        let chosen = rows.project(&self.columns);
        let chosen = chosen.map_err(|error| defect("columns are missing").because(error))?;
        let names = self.named.and_then(|column| Column::new(rows.column(column), Style::Plain));
        let (mut text, mut row, mut bytes) = (Vec::new(), from, 0);
        while row < rows.num_rows() && bytes < STEP_BYTES {
            text.clear();
            let enough = if lines { STEP_BYTES } else { 1 };
            let end = (encoder.encode)(&chosen, row, &mut text, enough)?;
            bytes += text.len();
            let written = String::from_utf8_lossy(&text);
            let written = written.strip_suffix('\n').unwrap_or(&written);
            match lines {
                true => {
                    for (line, row) in written.split('\n').zip(row..end) {
                        self.publish_one(names.as_ref(), row, line);
                    }
                }
                false => self.publish_one(names.as_ref(), row, written),
            }
            row = end.max(row + 1);
        }
        Ok(row)
    }

    fn publish_one(&self, names: Option<&Column<'_>>, row: usize, data: &str) {
        let name = names.filter(|names| !names.is_null(row)).map(|names| {
            let mut name = Vec::new();
            names.write(row, &mut name);
            name
        });
        let name = name.as_deref().map(String::from_utf8_lossy);
        self.news.publish(name.as_deref().filter(|name| !name.is_empty()), data);
    }
}

#[cfg(test)]
pub(crate) mod tests;
