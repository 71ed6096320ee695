//! The side that reads: one connection at a time, and a stream that outlives them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::{BoxStream, unfold};
use futures::{Stream, StreamExt};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Response, Url};
use rustls::ClientConfig;
use tidegate_flow::Backoff;
use tokio::time::{sleep, timeout};

use super::parser::{Event, Parser, TooLong};
use crate::tls::ClientTls;

/// Nobody is connected to again sooner than this, whatever `retry` says: one that says 0 would have
/// us spin.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// … nor later, whatever it says.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// So long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// After so long a silence the kernel asks whether the server is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long an event may be where nobody says.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// So long a server may say nothing, not even a comment, where nobody says.
const SILENCE: Duration = Duration::from_secs(60);

/// An event stream at some address.
///
/// [`connect`](Self::connect) is one connection, for those who decide themselves what follows its
/// end; [`stream`](Self::stream) connects again by itself.
///
/// ```no_run
/// use futures::StreamExt;
/// use tidegate_net::sse::EventSource;
///
/// # async fn read() -> Result<(), Box<dyn std::error::Error>> {
/// let url = "https://example.com/events".parse()?;
/// let mut events = EventSource::to(url)?.stream("");
/// while let Some(event) = events.next().await {
///     println!("{}", event?.data);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct EventSource {
    client: Client,
    url: Url,
    headers: HeaderMap,
    event_bytes_max: usize,
    silence: Duration,
    backoff: Backoff,
}

/// A client for event streams, which end when they like: HTTP/1.1 and 10 s to connect, keepalive
/// against peers that are gone, and no time limit for an answer.
///
/// # Errors
///
/// reqwest's, where it can't make one.
pub fn client(tls: &Arc<ClientConfig>) -> Result<Client, reqwest::Error> {
    crate::connect::http(tls).connect_timeout(CONNECT).tcp_keepalive(KEEPALIVE).build()
}

impl EventSource {
    /// As [`new`](Self::new), with a [`client`] that trusts the system's authorities; it reads them
    /// from the disk.
    ///
    /// # Errors
    ///
    /// Where the system has none that can be read.
    pub fn to(url: Url) -> Result<Self, ConnectError> {
        let tls = ClientTls::default().load(&["http/1.1"]);
        let tls = tls.map_err(|error| ConnectError::fatal(error.to_string()))?;
        let client = client(&tls).map_err(|error| ConnectError::fatal(cause(&error)))?;
        Ok(Self::new(client, url))
    }

    /// Events of up to 1 MiB; a connection that is silent for 60 s is given up; waits between
    /// connections grow from 1 s to 30 s where the server names none.
    ///
    /// The client's own timeout, if it has one, ends each connection after that time.
    pub fn new(client: Client, url: Url) -> Self {
        Self {
            client,
            url,
            headers: HeaderMap::new(),
            event_bytes_max: EVENT_BYTES_MAX,
            silence: SILENCE,
            backoff: Backoff::exponential(Duration::from_secs(1)..=Duration::from_secs(30)),
        }
    }

    /// Adds headers to each request.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Longer events are left out, and told.
    #[must_use]
    pub fn event_bytes_max(self, bytes: usize) -> Self {
        Self { event_bytes_max: bytes, ..self }
    }

    /// So long a server may say nothing, not even a comment. It counts only while one reads.
    #[must_use]
    pub fn silence(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// Waits between connections, where the server names none. Below 100 ms they are 100 ms.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// Connects once, to go on after that id; empty means from now on.
    ///
    /// # Errors
    ///
    /// Where there is no event stream; the error says whether trying again may help.
    pub async fn connect(&self, last_id: &str) -> Result<Events, ConnectError> {
        let mut request = self.client.get(self.url.clone()).headers(self.headers.clone());
        request = request.header(ACCEPT, "text/event-stream").header(CACHE_CONTROL, "no-store");
        if !last_id.is_empty() {
            // As UTF-8, by the standard; an id has no line's end, and here no NUL.
            let value = HeaderValue::from_bytes(last_id.as_bytes());
            let value = value.map_err(|_| {
                ConnectError::fatal(
                    "the last id has control characters, so no header can say it".to_owned(),
                )
            })?;
            request = request.header(LAST_EVENT_ID, value);
        }
        let sent = timeout(self.silence, request.send()).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(ConnectError::again(cause(&error), None)),
            Err(_) => {
                let said = format!("it did not answer within {:?}", self.silence);
                return Err(ConnectError::again(said, None));
            }
        };
        checked(&response)?;
        let parser = Parser::new(self.event_bytes_max).resuming(last_id);
        Ok(Events { response, parser, silence: self.silence })
    }

    /// Connects again and again, each time to go on after the last event that was read; the first
    /// time after this id.
    pub fn stream(self, last_id: &str) -> EventStream {
        let state = Reading {
            last_id: last_id.to_owned(),
            delays: self.backoff.delays(),
            source: self,
            events: None,
            wait: None,
            retry: None,
            over: false,
        };
        EventStream { events: unfold(state, Reading::next).boxed() }
    }
}

const ENDED: &str = "the server ended the stream";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Whether it is an event stream.
fn checked(response: &Response) -> Result<(), ConnectError> {
    let status = response.status();
    if status == StatusCode::NO_CONTENT {
        return Err(ConnectError { kind: Kind::Over, said: "it says that it is over".to_owned() });
    }
    if status != StatusCode::OK {
        let said = format!("it answers {status}");
        let again = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        return Err(match again {
            true => ConnectError::again(said, retry_after(response.headers())),
            false => ConnectError::fatal(said),
        });
    }
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or(kind).trim_ascii();
    if essence.eq_ignore_ascii_case(b"text/event-stream") {
        return Ok(());
    }
    let said = format!("it sends {:?}, not text/event-stream", String::from_utf8_lossy(kind));
    Err(ConnectError::fatal(said))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match said.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(said).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

/// The innermost cause, which says most.
fn cause(error: &reqwest::Error) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        said = error.to_string();
        cause = error.source();
    }
    said
}

/// Why there is no event stream.
#[derive(Clone, Debug)]
pub struct ConnectError {
    kind: Kind,
    said: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Again(Option<Duration>),
    Over,
    Fatal,
}

impl ConnectError {
    fn again(said: String, after: Option<Duration>) -> Self {
        Self { kind: Kind::Again(after), said }
    }

    fn fatal(said: String) -> Self {
        Self { kind: Kind::Fatal, said }
    }

    /// Whether another try may go better.
    pub fn may_heal(&self) -> bool {
        matches!(self.kind, Kind::Again(_))
    }

    /// Whether the server says that the stream is over (204): nobody is to connect again.
    pub fn is_over(&self) -> bool {
        self.kind == Kind::Over
    }

    /// How long the server asks to wait; at least 100 ms.
    pub fn after(&self) -> Option<Duration> {
        match self.kind {
            Kind::Again(after) => after.map(|after| after.clamp(WAIT_MIN, WAIT_MAX)),
            Kind::Over | Kind::Fatal => None,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for ConnectError {}

/// The events of one connection.
///
/// It reads only while [`next`](Self::next) is polled, so that a slow reader slows the server through
/// TCP. The HTTP library reads ahead by up to 400 KiB.
#[derive(Debug)]
pub struct Events {
    response: Response,
    parser: Parser,
    silence: Duration,
}

/// A connection ended, by its end or an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    said: String,
    ended: bool,
}

impl Broken {
    fn because(said: String) -> Self {
        Self { said, ended: false }
    }

    /// Whether the server ended its answer as it should, rather than breaking off.
    pub fn is_end(&self) -> bool {
        self.ended
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for Broken {}

impl Events {
    /// The next event, or word of one that was left out. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// The connection broke, ended, or was silent for too long.
    pub async fn next(&mut self) -> Result<Result<Event, TooLong>, Broken> {
        loop {
            if let Some(event) = self.parser.next_event() {
                return Ok(event);
            }
            let chunk: Bytes = match timeout(self.silence, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return Err(Broken { said: ENDED.to_owned(), ended: true }),
                Ok(Err(error)) => return Err(Broken::because(cause(&error))),
                Err(_) => {
                    let said = format!("the server said nothing for {:?}", self.silence);
                    return Err(Broken::because(said));
                }
            };
            self.parser.push(chunk);
        }
    }

    /// The next event of those that are there already.
    pub fn next_ready(&mut self) -> Option<Result<Event, TooLong>> {
        self.parser.next_event()
    }

    /// What the next connection is to go on after.
    pub fn last_id(&self) -> &str {
        self.parser.last_id()
    }

    /// How long the server asks to wait before the next connection; at least 100 ms.
    pub fn retry(&self) -> Option<Duration> {
        self.parser.retry().map(|retry| retry.clamp(WAIT_MIN, WAIT_MAX))
    }
}

/// Events over any number of connections.
///
/// - **Ordering**: as the server sends them. After a connection broke it asks for what comes after
///   the last id; what a server does not keep is lost, and what it sends again comes again.
/// - **Buffering**: one event, as [`Parser`] says, and what the HTTP library reads ahead.
/// - **Cancellation**: dropping a future that waits for the next event loses nothing.
/// - **End, error**: the server ends it by 204, or gives an answer that trying again does not mend,
///   which is the last item. [`StreamError::TooLong`] is told and the stream goes on.
/// - **Time**: waits as the server says (`retry`, `Retry-After`), at least 100 ms, else by its
///   backoff, which begins anew with each event.
#[must_use = "streams do nothing unless polled"]
pub struct EventStream {
    events: BoxStream<'static, Result<Event, StreamError>>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

impl Stream for EventStream {
    type Item = Result<Event, StreamError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(cx)
    }
}

/// What an [`EventStream`] tells beside events.
#[derive(Clone, Debug)]
pub enum StreamError {
    /// An event was left out; the stream goes on.
    TooLong(TooLong),
    /// There is no event stream, and trying again won't help; the stream ends.
    Connect(ConnectError),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(error) => error.fmt(f),
            Self::Connect(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StreamError {}

struct Reading {
    source: EventSource,
    last_id: String,
    delays: tidegate_flow::Delays,
    events: Option<Events>,
    // Before the next connection.
    wait: Option<Duration>,
    // What a server asked for.
    retry: Option<Duration>,
    over: bool,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<Event, StreamError>, Self)> {
        while !self.over {
            let Some(events) = &mut self.events else {
                if let Some(wait) = self.wait {
                    sleep(wait.clamp(WAIT_MIN, WAIT_MAX)).await;
                }
                match self.source.connect(&self.last_id).await {
                    Ok(events) => self.events = Some(events),
                    Err(error) if error.may_heal() => {
                        let longer = self.delays.next().max(self.retry);
                        self.wait = Some(error.after().or(longer).unwrap_or(WAIT_MAX));
                    }
                    Err(error) if error.is_over() => break,
                    Err(error) => {
                        self.over = true;
                        return Some((Err(StreamError::Connect(error)), self));
                    }
                }
                continue;
            };
            match events.next().await {
                Ok(event) => {
                    events.last_id().clone_into(&mut self.last_id);
                    self.retry = events.retry().or(self.retry);
                    self.delays = self.source.backoff.delays();
                    return Some((event.map_err(StreamError::TooLong), self));
                }
                Err(_) => {
                    self.retry = events.retry().or(self.retry);
                    self.events = None;
                    self.wait = Some(self.retry.or_else(|| self.delays.next()).unwrap_or(WAIT_MAX));
                }
            }
        }
        None
    }
}
