//! Server-sent events over real connections, cut and stalled.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures::StreamExt;
use http::HeaderMap;
use reqwest::Client;
use tidegate_flow::{Backoff, nz};
use tidegate_net::connect;
use tidegate_net::sse::{Broadcaster, EventSource, EventStream, Limits, StreamError};
use tidegate_net::tls::ClientTls;
use tidegate_testkit::proxy::FaultProxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(60);

fn client() -> Client {
    connect::http(&ClientTls::default().load(&[]).unwrap()).no_proxy().build().unwrap()
}

/// A server of axum with a broadcaster.
async fn served(limits: Limits) -> (SocketAddr, Broadcaster) {
    let news = Broadcaster::new(limits);
    let to_all = news.clone();
    let handler = get(move |headers: HeaderMap| async move { to_all.respond(&headers) });
    let app = Router::new().route("/events", handler);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, news)
}

fn source(address: SocketAddr) -> EventSource {
    let url = format!("http://{address}/events").parse().unwrap();
    let quick = Backoff::constant(Duration::from_millis(1));
    EventSource::new(client(), url).backoff(quick)
}

async fn next(events: &mut EventStream) -> Option<Result<String, StreamError>> {
    let event = timeout(DEADLINE, events.next()).await.unwrap()?;
    Some(event.map(|event| event.data))
}

/// Publishes an event once the stream is there for it, as its client of that number; it is the
/// first it gets.
async fn begun(mut events: EventStream, news: &Broadcaster, clients: usize) -> EventStream {
    let first = tokio::spawn(async move { (next(&mut events).await, events) });
    let there = async {
        while news.clients() < clients {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, there).await.unwrap();
    news.publish(None, "first");
    let (event, events) = first.await.unwrap();
    assert_eq!(event.unwrap().unwrap(), "first");
    events
}

/// A server that answers each connection with the next of these, and closes it.
async fn scripted(answers: Vec<String>) -> (SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&asked);
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            heard.lock().unwrap().push(String::from_utf8(request).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, asked)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn fifty_cuts_over_ten_thousand_ids_lose_nothing_and_keep_the_order() {
    let (address, news) = served(Limits { events: nz!(20_000), ..Limits::default() }).await;
    let proxy = FaultProxy::to(address);
    let mut events = begun(source(proxy.address()).stream(""), &news, 1).await;
    for round in 0..50 {
        for number in round * 200..(round + 1) * 200 {
            news.publish(None, &number.to_string());
        }
        for number in round * 200..(round + 1) * 200 {
            let data = next(&mut events).await.unwrap().unwrap();
            assert_eq!(data, number.to_string());
            if number % 200 == 100 {
                proxy.cut();
            }
        }
    }
    assert!(proxy.connections() >= 50, "{} connections", proxy.connections());
}

#[tokio::test]
async fn a_server_that_asks_for_no_wait_is_not_spun_on_and_the_last_id_is_shown() {
    let answer = |rest: &str| format!("{OK}retry: 0\n{rest}");
    let (address, asked) = scripted(vec![
        answer("id: 1\ndata: a\n\nid: 2\ndata: cut of"),
        answer(""),
        answer("id: ä\ndata: b\n\n"),
        "HTTP/1.1 503 No\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            .into(),
        "HTTP/1.1 204 Over\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
    ])
    .await;
    let began = Instant::now();
    let mut events = source(address).stream("0");
    assert_eq!(next(&mut events).await.unwrap().unwrap(), "a");
    assert_eq!(next(&mut events).await.unwrap().unwrap(), "b");
    assert!(next(&mut events).await.is_none(), "204 says that it is over");
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    let asked = asked.lock().unwrap();
    let ids = asked.iter().map(|head| {
        let id = head.lines().find_map(|line| line.strip_prefix("last-event-id: "));
        id.unwrap_or_default().to_owned()
    });
    assert_eq!(ids.collect::<Vec<_>>(), ["0", "1", "1", "ä", "ä"]);
    assert!(asked[0].contains("accept: text/event-stream"));
}

#[tokio::test]
async fn what_trying_again_does_not_mend_is_the_last_item() {
    for (answer, said) in [
        ("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "it answers 401"),
        ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "it answers 404"),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n",
            "\"text/html\", not text/event-stream",
        ),
    ] {
        let (address, _) = scripted(vec![answer.to_owned()]).await;
        let mut events = source(address).stream("");
        let error = next(&mut events).await.unwrap().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(next(&mut events).await.is_none());
    }
}

#[tokio::test]
async fn a_long_event_is_told_and_the_stream_goes_on() {
    let long = "x".repeat(200_000);
    let (address, _) = scripted(vec![format!("{OK}data: {long}\n\ndata: a\n\n")]).await;
    let mut events = source(address).event_bytes_max(1_000).stream("");
    let error = next(&mut events).await.unwrap().unwrap_err();
    assert!(matches!(error, StreamError::TooLong(_)), "{error}");
    assert_eq!(next(&mut events).await.unwrap().unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_without_a_word_is_found_out() {
    let limits = Limits { heartbeat: Duration::from_millis(20), ..Limits::default() };
    let (address, news) = served(limits).await;
    let proxy = FaultProxy::to(address);
    let events = source(proxy.address()).silence(Duration::from_millis(400)).stream("");
    news.publish(None, "too early");
    let mut events = begun(events, &news, 1).await;
    proxy.half_open(true);
    let waiting = tokio::spawn(async move { next(&mut events).await });
    // Only a new connection gets this.
    while proxy.connections() < 2 {
        tokio::task::yield_now().await;
    }
    proxy.half_open(false);
    proxy.cut();
    news.publish(None, "b");
    assert_eq!(timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap().unwrap(), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_are_told_and_hold_nobody_up() {
    let limits = Limits { events: nz!(100), ..Limits::default() };
    let (address, news) = served(limits).await;
    let mut slow = source(address).connect("").await.unwrap();
    let mut quick = begun(source(address).stream(""), &news, 2).await;
    let text = "x".repeat(10_000);
    // More than the kernel's buffers, and the client's own, can have.
    for number in 0..5_000 {
        news.publish(None, &format!("{number} {text}"));
        let data = next(&mut quick).await.unwrap().unwrap();
        assert!(data.starts_with(&format!("{number} ")), "{}", &data[..20]);
    }
    let mut missed = 0;
    let mut seen = 0;
    loop {
        let event = timeout(DEADLINE, slow.next()).await.unwrap().unwrap().unwrap();
        if event.event == "lagged" {
            let number = event.data.strip_prefix("{\"missed\":").unwrap();
            missed += number.strip_suffix('}').unwrap().parse::<usize>().unwrap();
        } else {
            seen += 1;
        }
        if event.data.starts_with("4999 ") {
            break;
        }
    }
    assert_eq!(missed + seen, 5_001);
    assert!(missed > 1_000, "{missed} missed");
}
