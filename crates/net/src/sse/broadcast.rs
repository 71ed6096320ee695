//! The side that serves: one stream of events, any number of clients, each at its own speed.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body, Frame};
use tidegate_flow::{Lagged, Replay, Subscription, nz};
use tokio::time::{Instant, Sleep, sleep_until};

/// How much is remembered, and how often silence is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many events are kept for clients that come back, …
    pub events: NonZeroUsize,
    /// … of at most so many bytes together.
    pub bytes: usize,
    /// After so long a silence clients get a comment, so that they, and whatever is in between, know
    /// that the connection lives.
    pub heartbeat: Duration,
}

impl Default for Limits {
    /// 1,000 events of 16 MiB together, and a comment every 15 s.
    fn default() -> Self {
        Self { events: nz!(1_000), bytes: 16 << 20, heartbeat: Duration::from_secs(15) }
    }
}

/// Events for many clients, who come and go, and come back.
///
/// Each event is encoded once and shared. A client that reads too slowly never holds up the others,
/// nor whoever publishes: it is told by an event `lagged` (`{"missed":12}`) how many it will never
/// see, and goes on with what there is. One that comes back with `Last-Event-ID` gets what it has
/// missed, as far as that is kept; an id that is not known here, such as one from before a restart,
/// is answered by `lagged` with `{"missed":null}` and all that is kept.
///
/// Clones publish to the same clients. When the last one is dropped, or one of them is
/// [closed](Self::close), responses end behind what is left of them.
///
/// - **Ordering**: as published, for every client.
/// - **Buffering**: [`Limits`] for all clients together; for each 64 KiB of events (or one that is
///   longer) that it has taken and not sent, and what its connection buffers.
/// - **Cancellation**: a body that is dropped is forgotten.
/// - **Time**: one timer a client, that fires at most once a heartbeat; no polling.
///
/// As a handler of axum:
///
/// ```
/// use axum::{Router, routing::get};
/// use http::HeaderMap;
/// use tidegate_net::sse::{Broadcaster, Limits};
///
/// let news = Broadcaster::new(Limits::default());
/// let to_all = news.clone();
/// let app: Router = Router::new()
///     .route("/events", get(move |headers: HeaderMap| async move { to_all.respond(&headers) }));
/// news.publish(Some("greeting"), "hello\nyou");
/// # drop(app);
/// ```
#[derive(Clone, Debug)]
pub struct Broadcaster {
    // Locked while an id is chosen, encoded and published; gone once it is closed.
    news: Arc<Mutex<Option<Replay<Bytes>>>>,
    run: Arc<str>,
    heartbeat: Duration,
}

impl Broadcaster {
    /// Without clients yet. Ids begin with letters that tell this run from others.
    pub fn new(limits: Limits) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let run = format!("{:x}", since.unwrap_or_default().as_nanos());
        Self {
            news: Arc::new(Mutex::new(Some(Replay::weighing(
                limits.events,
                limits.bytes,
                Bytes::len,
            )))),
            run: run.into(),
            heartbeat: limits.heartbeat,
        }
    }

    /// Sends an event to all; never waits. What would end a line of `event` early is left out of it.
    pub fn publish(&self, event: Option<&str>, data: &str) {
        if let Some(news) = &*self.news() {
            news.publish(encode(&self.run, news.next_id(), event, data));
        }
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.news().as_ref().map_or(0, Replay::subscribers)
    }

    /// Ends the responses, each behind what is left of it, whatever clones there are: for a server
    /// that stops. Nothing is published any more, and whoever comes gets an empty stream.
    pub fn close(&self) {
        let news = self.news().take();
        drop(news); // not under the lock: it wakes
    }

    fn news(&self) -> MutexGuard<'_, Option<Replay<Bytes>>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The response to a client that shows these headers.
    pub fn respond(&self, headers: &HeaderMap) -> Response<EventBody> {
        let last_id = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty());
        let mut response = Response::new(self.body(last_id.map(HeaderValue::as_bytes)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Proxies that gather answers would hold events back.
        headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
        response
    }

    fn body(&self, last_id: Option<&[u8]>) -> EventBody {
        let mut first = Some(Bytes::from_static(BEGIN));
        let news = self.news().as_ref().map(|news| match last_id.map(|id| self.number(id)) {
            None => news.subscribe(),
            Some(number) => {
                let known = number.and_then(|number| news.subscribe_after(number).ok());
                known.unwrap_or_else(|| {
                    first = Some(Bytes::from_static(UNKNOWN));
                    news.subscribe_from_oldest()
                })
            }
        });
        let beat = Instant::now() + self.heartbeat;
        EventBody {
            news,
            first,
            heartbeat: self.heartbeat,
            beat,
            timer: Box::pin(sleep_until(beat)),
        }
    }

    /// The number of an event of this run.
    fn number(&self, id: &[u8]) -> Option<u64> {
        let (run, number) = std::str::from_utf8(id).ok()?.trim().split_once('-')?;
        (run == &*self.run).then(|| number.parse().ok()).flatten()
    }
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A comment at once shows a client that the connection works.
const BEGIN: &[u8] = b":\n\n";

const UNKNOWN: &[u8] = b"event: lagged\ndata: {\"missed\":null}\n\n";

fn encode(run: &str, number: u64, event: Option<&str>, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 64);
    // Writing to a string does not fail.
    let _ = writeln!(text, "id: {run}-{number}");
    if let Some(event) = event {
        text.push_str("event: ");
        text.extend(event.chars().filter(|letter| !matches!(letter, '\r' | '\n')));
        text.push('\n');
    }
    // CR, LF and CRLF end a line for the other side, so each begins a field of its own.
    let mut rest = data;
    loop {
        let end = rest.find(['\r', '\n']);
        text.push_str("data: ");
        text.push_str(&rest[..end.unwrap_or(rest.len())]);
        text.push('\n');
        let Some(end) = end else { break };
        let ended = &rest[end..];
        rest = ended.strip_prefix("\r\n").unwrap_or(&ended[1..]);
    }
    text.push('\n');
    text.into()
}

/// What one client gets: a body without an end but that of all [`Broadcaster`]s.
#[derive(Debug)]
#[must_use = "bodies do nothing unless polled"]
pub struct EventBody {
    // None of a broadcaster that was closed.
    news: Option<Subscription<Bytes>>,
    first: Option<Bytes>,
    heartbeat: Duration,
    // When a comment is due, unless something is sent before.
    beat: Instant,
    // May be set to earlier than that, and is moved when it fires: not for each event.
    timer: Pin<Box<Sleep>>,
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(news) = &mut this.news else { return Poll::Ready(None) };
        if let Poll::Ready(next) = news.poll_next_unpin(cx) {
            this.beat = Instant::now() + this.heartbeat;
            return Poll::Ready(next.map(|next| {
                Ok(Frame::data(match next {
                    Ok((_, event)) => event,
                    Err(Lagged { missed }) => {
                        format!("event: lagged\ndata: {{\"missed\":{missed}}}\n\n").into()
                    }
                }))
            }));
        }
        while this.timer.as_mut().poll(cx).is_ready() {
            let due = this.beat <= Instant::now();
            if due {
                this.beat = Instant::now() + this.heartbeat;
            }
            this.timer.as_mut().reset(this.beat);
            if due {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(BEGIN)))));
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;

    use super::super::parser::{Event, Parser};
    use super::*;

    impl EventBody {
        async fn text(&mut self) -> Option<String> {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await?;
            let data = frame.unwrap().into_data().unwrap();
            Some(String::from_utf8(data.to_vec()).unwrap())
        }

        fn all(&mut self) -> Vec<Event> {
            let mut parser = Parser::new(1 << 20);
            let mut events = Vec::new();
            while let Some(Some(text)) = self.text().now_or_never() {
                parser.push(text.into());
                events.extend(std::iter::from_fn(|| parser.next_event()).map(Result::unwrap));
            }
            events
        }
    }

    fn headers(last_id: &str) -> HeaderMap {
        HeaderMap::from_iter([(LAST_EVENT_ID, last_id.parse().unwrap())])
    }

    fn limits(events: usize, bytes: usize) -> Limits {
        let events = NonZeroUsize::new(events).unwrap();
        Limits { events, bytes, ..Limits::default() }
    }

    fn data(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| &*event.data).collect()
    }

    #[tokio::test]
    async fn what_is_published_is_what_a_parser_reads() {
        let news = Broadcaster::new(Limits::default());
        let mut body = news.respond(&HeaderMap::new()).into_body();
        let texts =
            ["", "a", "a\nb", "a\r\nb\r", "\n\n", "ä: b", " a", "id: 1\n\ndata: 2", "\u{feff}"];
        for text in texts {
            news.publish(Some("na\nme"), text);
        }
        let events = body.all();
        let expected: Vec<_> =
            texts.iter().map(|text| text.replace("\r\n", "\n").replace('\r', "\n")).collect();
        assert_eq!(data(&events), expected);
        assert!(events.iter().all(|event| event.event == "name"));
        news.publish(None, "x");
        assert_eq!(body.all()[0].event, "message");
    }

    #[tokio::test]
    async fn who_comes_back_gets_what_it_missed_and_who_is_unknown_is_told() {
        let news = Broadcaster::new(limits(3, 1 << 20));
        let mut first = news.respond(&HeaderMap::new()).into_body();
        for text in ["a", "b", "c"] {
            news.publish(None, text);
        }
        let seen = first.all();
        drop(first);
        let back = |last_id: &str| news.respond(&headers(last_id)).into_body().all();
        assert_eq!(data(&back(&seen[0].id)), ["b", "c"]);
        assert_eq!(data(&back(&seen[2].id)), Vec::<&str>::new());
        news.publish(None, "d");
        news.publish(None, "e");
        let late = back(&seen[0].id);
        assert_eq!((&*late[0].event, &*late[0].data), ("lagged", "{\"missed\":1}"));
        assert_eq!(late[0].id, "", "it does not move the id on");
        assert_eq!(data(&late[1..]), ["c", "d", "e"]);
        let number = seen[0].id.split_once('-').unwrap().1;
        for id in [format!("other-{number}"), "7".into(), format!("{}9", seen[2].id), "-".into()] {
            let unknown = back(&id);
            assert_eq!(data(&unknown), ["{\"missed\":null}", "c", "d", "e"], "{id}");
        }
    }

    #[tokio::test]
    async fn a_slow_client_is_told_and_holds_nobody_up() {
        let news = Broadcaster::new(limits(1_000, 1_000));
        let mut slow = news.respond(&HeaderMap::new()).into_body();
        let mut quick = news.respond(&HeaderMap::new()).into_body();
        let mut seen = 0;
        for number in 0..100 {
            news.publish(None, &format!("{number} {}", "x".repeat(100)));
            seen += quick.all().len();
        }
        assert_eq!(seen, 100);
        let events = slow.all();
        let Some(("{\"missed\":", missed)) = events[0].data.split_at_checked(10) else {
            panic!("{:?}", events[0]);
        };
        let missed: usize = missed.trim_end_matches('}').parse().unwrap();
        assert_eq!(missed + events.len() - 1, 100);
        assert!(events.len() < 10, "{} events of 100 bytes are kept", events.len());
        assert!(events.last().unwrap().data.starts_with("99 "));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_a_comment_and_nothing_is_polled_in_between() {
        let news = Broadcaster::new(Limits::default());
        let mut body = news.respond(&HeaderMap::new()).into_body();
        assert_eq!(body.text().await.unwrap(), ":\n\n");
        let began = Instant::now();
        for beats in 1..=3 {
            assert_eq!(body.text().await.unwrap(), ":\n\n");
            assert_eq!(began.elapsed().as_secs(), 15 * beats);
        }
        // An event moves the next one on.
        advance(Duration::from_secs(10)).await;
        news.publish(None, "a");
        assert_eq!(body.all().len(), 1);
        let polls = tokio::spawn(async move {
            let mut polls = 0;
            let next = std::future::poll_fn(|cx| {
                polls += 1;
                Pin::new(&mut body).poll_frame(cx)
            });
            next.await.unwrap().unwrap();
            (polls, Instant::now())
        });
        let (polls, at) = polls.await.unwrap();
        assert_eq!(at - began, Duration::from_secs(45 + 10 + 15));
        assert!(polls <= 3, "{polls} polls for one comment");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_idle_clients_are_polled_for_their_heartbeats_alone() {
        let news = Broadcaster::new(Limits::default());
        let polls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let (mut body, polls) = (news.respond(&HeaderMap::new()).into_body(), polls.clone());
            clients.spawn(async move {
                let next = |body: &mut EventBody, cx: &mut Context<'_>| {
                    polls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Pin::new(body).poll_frame(cx)
                };
                while std::future::poll_fn(|cx| next(&mut body, cx)).await.is_some() {}
            });
        }
        tokio::time::sleep(Duration::from_secs(10 * 60 + 1)).await;
        let (polls, beats) = (polls.load(std::sync::atomic::Ordering::Relaxed), 10 * 60 / 15);
        // For each comment one that gives it and one that waits again.
        assert!(polls <= 1_000 * (2 * beats + 3), "{polls} polls for {beats} heartbeats each");
        assert_eq!(news.clients(), 1_000);
    }

    #[tokio::test]
    async fn responses_end_with_the_last_publisher() {
        let news = Broadcaster::new(Limits::default());
        let mut body = news.respond(&HeaderMap::new()).into_body();
        assert_eq!(news.clients(), 1);
        let other = news.clone();
        news.publish(None, "a");
        drop(news);
        other.publish(None, "b");
        drop(other);
        assert_eq!(data(&body.all()), ["a", "b"]);
        assert_eq!(body.text().await, None);
    }

    #[tokio::test]
    async fn a_broadcaster_that_is_closed_ends_responses_behind_what_is_left() {
        let news = Broadcaster::new(Limits::default());
        let handler = news.clone();
        let mut body = handler.respond(&HeaderMap::new()).into_body();
        news.publish(None, "a");
        news.close();
        handler.publish(None, "nobody hears it");
        assert_eq!(data(&body.all()), ["a"]);
        assert_eq!(body.text().await, None);
        let mut late = handler.respond(&headers("1-1")).into_body();
        assert_eq!(late.text().await.unwrap(), ":\n\n");
        assert_eq!((late.text().await, handler.clients()), (None, 0));
    }
}
