//! A live dashboard: what is piped into it, in any number of browsers.
//!
//! ```sh
//! tail -f app.log | cargo run --example dashboard      # then open the address that it prints
//! ```
//!
//! Each browser gets lines as fast as it can take them; one that can't is told how many it missed,
//! and holds up neither the others nor whoever writes. One that was away comes back by itself and
//! gets what it missed, as far as that is kept.

use std::io::BufRead;
use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use http::HeaderMap;
use serde_json::json;
use tidegate_net::sse::{Broadcaster, Limits};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The same page that `tidegate demo` has.
pub const PAGE: &str = include_str!("../../tidegate/src/demo/page.html");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    eprintln!("http://{}/", listener.local_addr()?);
    // Reading standard input blocks, so it has a thread; it reads no further than lines are taken.
    let (sender, lines) = mpsc::channel(100);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        for line in lines {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
    run(listener, lines, Duration::from_secs(1), ctrl_c).await?;
    Ok(())
}

/// Serves the page, with these lines and how many come, until `stop`.
pub async fn run(
    listener: TcpListener,
    mut lines: mpsc::Receiver<String>,
    every: Duration,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let news = Broadcaster::new(Limits::default());
    let to_all = news.clone();
    let app = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/events", get(move |headers: HeaderMap| async move { to_all.respond(&headers) }));
    let publish = async {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (began, mut counted) = (Instant::now(), Counted::default());
        let mut shown = (began, counted);
        loop {
            tokio::select! {
                Some(line) = lines.recv() => {
                    counted.lines += 1;
                    counted.bytes += line.len() as u64;
                    news.publish(Some("line"), &line);
                }
                now = ticks.tick() => {
                    let seconds = (now - shown.0).as_secs_f64().max(f64::EPSILON);
                    let state = counted.state(&shown.1, seconds, now - began, news.clients());
                    news.publish(Some("state"), &state);
                    shown = (now, counted);
                }
            }
        }
    };
    tokio::select! {
        served = async { axum::serve(listener, app).await } => served,
        () = publish => Ok(()),
        () = stop => Ok(()),
    }
}

/// What has come so far.
#[derive(Clone, Copy, Default)]
struct Counted {
    lines: u64,
    bytes: u64,
}

impl Counted {
    /// As the page has it.
    fn state(&self, before: &Self, seconds: f64, elapsed: Duration, viewers: usize) -> String {
        let each = |now: u64, before: u64| (now - before) as f64 / seconds;
        let kilobytes = each(self.bytes, before.bytes) / 1e3;
        let lines = each(self.lines, before.lines);
        let state = json!({
            "title": "standard input",
            "elapsed": elapsed.as_secs(),
            "figures": [
                { "name": "rate", "value": lines, "unit": "lines/s" },
                { "name": "amount", "value": kilobytes, "unit": "kB/s", "digits": 1 },
                { "name": "so far", "value": self.lines, "unit": "lines" },
                { "name": "viewers", "value": viewers, "unit": "" },
            ],
        });
        state.to_string()
    }
}
