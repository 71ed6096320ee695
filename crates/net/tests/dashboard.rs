//! The dashboard's example is what it says, for programs and in a real browser.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]
#![expect(dead_code, reason = "the example's `main` is for people; its `run` is called here")]

#[path = "../examples/dashboard.rs"]
pub mod dashboard;

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tidegate_net::sse::EventSource;
use tidegate_testkit::browser::Browser;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);

async fn served() -> (SocketAddr, mpsc::Sender<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, lines) = mpsc::channel(10);
    let often = Duration::from_millis(20);
    tokio::spawn(dashboard::run(listener, lines, often, std::future::pending()));
    (address, sender)
}

#[tokio::test]
async fn it_shows_lines_and_how_many_come() {
    let (address, lines) = served().await;
    let url = format!("http://{address}/events").parse().unwrap();
    let mut events = EventSource::to(url).unwrap().connect("").await.unwrap();
    for line in ["one", "<b>two</b>"] {
        lines.send(line.to_owned()).await.unwrap();
    }
    let (mut found, mut viewers) = (Vec::new(), 0);
    let read = async {
        loop {
            let event = events.next().await.unwrap().unwrap();
            if event.event == "line" {
                found.push(event.data);
                continue;
            }
            assert_eq!(event.event, "state");
            let state: Value = serde_json::from_str(&event.data).unwrap();
            let value = |at: usize| state["figures"][at]["value"].as_u64().unwrap();
            viewers = value(3);
            if value(2) == 2 {
                return;
            }
        }
    };
    timeout(DEADLINE, read).await.unwrap();
    assert_eq!(found, ["one", "<b>two</b>"]);
    assert_eq!(viewers, 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium; run by cargo xtask test"]
async fn a_browser_shows_what_comes_as_text() {
    let (address, lines) = served().await;
    let look = "<script>
        const look = () => {
          const tail = document.getElementById('tail').textContent;
          const link = document.getElementById('link').textContent;
          const cards = document.querySelectorAll('#figures .card').length;
          if (tail.includes('two') && cards) tell(`${link}|${cards}|${tail}`);
          else setTimeout(look, 10);
        };
        look();
        </script>";
    let page = format!("{}{look}", dashboard::PAGE);
    let browser = tokio::task::block_in_place(|| Browser::open(&page, address));
    // The page comes when it likes, and lines from before it are not shown.
    let asking = tokio::spawn(async move {
        let mut again = tokio::time::interval(Duration::from_millis(50));
        while lines.send("<b>two</b>".to_owned()).await.is_ok() {
            again.tick().await;
        }
    });
    let told = tokio::task::block_in_place(|| browser.told(DEADLINE));
    asking.abort();
    assert!(told.starts_with("live|4|<b>two</b>"), "{told}");
}

/// The browser's own `EventSource`, against ours: types, ids, many lines, coming back, and being
/// told what was missed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium; run by cargo xtask test"]
async fn a_browser_reads_events_comes_back_and_is_told_what_it_missed() {
    use axum::Router;
    use axum::routing::get;
    use http::HeaderMap;
    use tidegate_net::sse::{Broadcaster, Limits};

    let news = Broadcaster::new(Limits { events: tidegate_flow::nz!(3), ..Limits::default() });
    let proxied = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxied.local_addr().unwrap();
    let to_all = news.clone();
    let (asked, mut heard) = mpsc::unbounded_channel();
    let cut = std::sync::Arc::new(tokio::sync::Notify::new());
    let cutting = std::sync::Arc::clone(&cut);
    // Each answer ends when the test says so, as a proxy's would.
    let handler = get(move |headers: HeaderMap| async move {
        let id = headers.get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
        asked.send(id).unwrap();
        let ended = async move { cutting.notified().await };
        let body = to_all.respond(&headers).map(axum::body::Body::new);
        body.map(|body| {
            axum::body::Body::from_stream(body.into_data_stream().take_until(Box::pin(ended)))
        })
    });
    let app = Router::new().route("/events", handler);
    tokio::spawn(async move { axum::serve(proxied, app).await });
    let page = "<script>
        const events = new EventSource('/events');
        const all = event => tell(`${event.type}|${event.lastEventId.split('-')[1] ?? ''}|${event.data}`);
        for (const type of ['message', 'alert', 'lagged']) events.addEventListener(type, all);
        </script>";
    let browser = tokio::task::block_in_place(|| Browser::open(page, address));
    let told = || tokio::task::block_in_place(|| browser.told(DEADLINE));
    assert_eq!(timeout(DEADLINE, heard.recv()).await.unwrap(), Some(None));
    while news.clients() == 0 {
        tokio::task::yield_now().await;
    }
    news.publish(None, "one\ntwo");
    news.publish(Some("alert"), "ä");
    assert_eq!(told(), "message|0|one\ntwo");
    assert_eq!(told(), "alert|1|ä");
    cut.notify_waiters();
    while news.clients() > 0 {
        tokio::task::yield_now().await;
    }
    for text in ["a", "b", "c", "d"] {
        news.publish(None, text);
    }
    let id = timeout(DEADLINE, heard.recv()).await.unwrap().unwrap().unwrap();
    assert!(id.ends_with("-1"), "{id}");
    assert_eq!(told(), "lagged|1|{\"missed\":1}");
    for expected in ["message|3|b", "message|4|c", "message|5|d"] {
        assert_eq!(told(), expected);
    }
}
