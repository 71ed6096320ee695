//! `sse`: events of a server (`text/event-stream`), a row each, as a browser's `EventSource` reads
//! them.
//!
//! An event's `data`, all its lines, is one record of the codec; its type and id are the entries
//! `event` and `id` of the metadata, where the record has none of these names itself. The column
//! `source` is the server's name and the path.
//!
//! **Delivery.** At least once, as far as the server remembers: the position is the id of the last
//! event, which the server is told in `Last-Event-ID` when the source connects again, after a
//! restart too. What a server without ids sends while nobody is connected is lost, and so is what
//! was in flight at a crash; one that says how much was missed does so by an event, which is a row.
//! It is one partition, the server's name and path, whose offsets are numbers of events.
//!
//! **Connecting again.** The engine does it, when the stream ends, breaks, or is silent for
//! `silence_timeout`, comments counted, while it is being read; not before the server's `retry` or
//! `Retry-After` is over, nor within 100 ms. 5xx, 408 and 429 may pass; other answers, and such as are
//! no event stream, need a person. 204 says that the stream is over, and ends the source.
//!
//! **Memory.** Rows are within the budget. Beside it: one event and one line that are not complete,
//! of `event_bytes_max` each, and what the HTTP library reads ahead, at most 400 KiB. While the
//! pipeline is full nothing is read, and the server's sends wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_schema::SchemaRef;
use futures::{StreamExt, stream};
use futures_core::future::BoxFuture;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use reqwest::{Client, Url};
use serde::Deserialize;
use tidegate_model::{
    ByteSize, Error, Mistake, Partition, Result, Settings, Source, SourceContext, SourceSpec,
    SourceStream, Spanned, TimeSpan, log_schema,
};
use tidegate_net::sse::{ConnectError, EventSource, client};
use tidegate_net::tls::ClientTls;
use tokio::time::{Instant, sleep_until};

use crate::codecs::{Codec, decoder_named};
use crate::network::{self, ConnectTls, Credentials, load_client, span};

/// Events to rows.
mod reading;

use reading::{Reading, bytes_min};

/// How the source presents itself.
pub const SPEC: SourceSpec = SourceSpec {
    summary: "server-sent events; goes on after the last one when it connects again",
    example: r#"url = "https://example.com/events"
# codec = "json"              # how data is read; or "auto", or "text", the default
# events = ["trade", "quote"] # only these types
# last_event_id = "41"        # where to begin, the first time
# silence_timeout = "1m"      # a server that says nothing, not even a comment, is left
# event_bytes_max = "1MiB"
# auth = { token = "${TOKEN}" }
# headers = { "X-Team" = "shop" }"#,
    build,
};

/// How long an event may be where nobody says.
const EVENT_BYTES: usize = 1 << 20;

/// How long it may be at all.
const EVENT_BYTES_MAX: usize = 256 << 20;

/// So long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// The settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where the stream is.
    url: Spanned<String>,
    /// How an event's data becomes a row: `text` (default), `auto` or `json`.
    codec: Option<Spanned<String>>,
    /// Only events of these types; all, where it is left out.
    events: Option<Spanned<Vec<String>>>,
    /// The id to go on after, where there is none from an earlier run.
    last_event_id: Option<Spanned<String>>,
    /// Longer events are left out and counted: 1 MiB.
    event_bytes_max: Option<Spanned<ByteSize>>,
    /// How long the server may say nothing: 60 s.
    silence_timeout: Option<Spanned<TimeSpan>>,
    /// Headers to send.
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, Spanned<String>>,
    /// Who we are.
    auth: Option<Spanned<Credentials>>,
    /// TLS.
    tls: Option<ConnectTls>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Source>, Mistake> {
    Ok(Box::new(SseSource::new(settings)?))
}

impl SseSource {
    fn new(settings: &Settings<'_>) -> Result<Self, Mistake> {
        let config: Config = settings.parse()?;
        let url = network::url(&config.url, "https://example.com/events")?;
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let (name, value) = network::header(name, value)?;
            headers.insert(name, value);
        }
        if let Some(auth) = &config.auth {
            headers.insert(AUTHORIZATION, network::credentials(auth)?);
        }
        let event_bytes_max = match &config.event_bytes_max {
            None => EVENT_BYTES,
            Some(size) => match usize::try_from(size.get_ref().0) {
                Ok(bytes @ 1..=EVENT_BYTES_MAX) => bytes,
                _ => {
                    let message = "no event can be that long";
                    return Err(Mistake::at(size.span(), message).help("1 byte to 256 MiB"));
                }
            },
        };
        if let Some(events) = config.events.as_ref().filter(|events| events.get_ref().is_empty()) {
            let message = "no event would ever be read";
            return Err(Mistake::at(events.span(), message).help("leave it out to read all"));
        }
        if let Some(id) = &config.last_event_id
            && id.get_ref().contains(|letter: char| letter.is_control())
        {
            let message = "an id has no control characters, as it is sent in a header";
            return Err(Mistake::at(id.span(), message));
        }
        Ok(Self {
            codec: decoder_named(config.codec.as_ref())?,
            events: config.events.map(|events| events.into_inner().into()),
            last_event_id: config.last_event_id.map(Spanned::into_inner).unwrap_or_default(),
            event_bytes_max,
            silence: config.silence_timeout.as_ref().map_or(Ok(SILENCE), span)?,
            url,
            headers,
            tls: config.tls.unwrap_or_default().understood()?,
            client: None,
            pause: Pause::default(),
        })
    }
}

/// See the module.
struct SseSource {
    url: Url,
    codec: Codec,
    events: Option<Arc<[String]>>,
    last_event_id: String,
    event_bytes_max: usize,
    silence: Duration,
    headers: HeaderMap,
    tls: ClientTls,
    client: Option<Client>,
    pause: Pause,
}

impl Source for SseSource {
    fn schema(&self) -> Option<SchemaRef> {
        Some(log_schema())
    }

    fn replayable(&self) -> bool {
        true
    }

    /// A server may have forgotten some, or send some again.
    fn same_offsets(&self) -> bool {
        false
    }

    fn bytes_min(&self) -> usize {
        bytes_min(self.event_bytes_max)
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        Box::pin(async move {
            self.pause.over().await;
            let partition = Partition::from(place(&self.url));
            let known = context.positions.iter().find(|known| known.partition == partition);
            let (number, last_id) = match known {
                Some(known) => (known.sequence, String::from_utf8_lossy(&known.state).into_owned()),
                None => (0, self.last_event_id.clone()),
            };
            let client = self.client().await?;
            let source = EventSource::new(client, self.url.clone())
                .headers(self.headers.clone())
                .event_bytes_max(self.event_bytes_max)
                .silence(self.silence);
            let events = match source.connect(&last_id).await {
                Ok(events) => events,
                Err(error) if error.is_over() => return Ok(stream::empty().boxed()),
                Err(error) => return Err(self.refused(&error)),
            };
            let reading = Reading::new(self, context, events, partition, number);
            Ok(stream::try_unfold(reading, Reading::next).boxed())
        })
    }
}

impl SseSource {
    async fn client(&mut self) -> Result<Client> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let tls = load_client(self.tls.clone(), &["http/1.1"]).await?;
        let made = client(&tls).map_err(|error| Error::fatal("no client").because(error))?;
        Ok(self.client.insert(made).clone())
    }

    fn refused(&self, error: &ConnectError) -> Error {
        self.pause.begin(error.after());
        let said = format!("url: {}: {error}", place(&self.url));
        match error.may_heal() {
            true => Error::disconnected(said),
            false => Error::fatal(format!("{said}; are url, auth and headers right?")),
        }
    }
}

/// The server and the path, without what may be secret.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{host}{port}{}", url.path())
}

/// When the server may be connected to again, as it has asked.
#[derive(Clone, Debug, Default)]
struct Pause(Arc<Mutex<Asked>>);

#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    until: Option<Instant>,
    /// What `retry` said last, on any connection.
    retry: Option<Duration>,
}

impl Pause {
    /// A connection failed: it is not to be tried again before `after`, or what `retry` says.
    fn begin(&self, after: Option<Duration>) {
        let mut asked = self.asked();
        asked.until = after.or(asked.retry).and_then(|wait| Instant::now().checked_add(wait));
    }

    fn retry(&self, retry: Option<Duration>) {
        let mut asked = self.asked();
        asked.retry = retry.or(asked.retry);
    }

    /// Waits until it is over.
    async fn over(&self) {
        let until = self.asked().until;
        if let Some(until) = until {
            sleep_until(until).await;
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
