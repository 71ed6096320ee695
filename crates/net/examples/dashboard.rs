//! A live dashboard: a page, and a server that tells everybody who looks at it what is going on, by
//! server-sent events. A viewer that is slow, or away for a while, is told what it missed and holds
//! nobody up.
//!
//! `cargo run -p tidegate-net --example dashboard`, and open the address that it prints. Its numbers
//! are this process's own.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use http::HeaderMap;
use tidegate_net::sse::{Broadcaster, Limits};
use tokio::net::TcpListener;
use tokio::time::{Instant, interval};

const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8"><title>Dashboard</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
  body { max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }
  dl { display: grid; grid-template-columns: auto 1fr; gap: .3rem 1.5rem; }
  dd { margin: 0; font-variant-numeric: tabular-nums; }
  meter { width: 100%; }
</style>
<h1>Dashboard</h1>
<p id="state">connecting …</p>
<dl>
  <dt>running for</dt><dd id="seconds">–</dd>
  <dt>viewers</dt><dd id="viewers">–</dd>
  <dt>memory</dt><dd id="memory">–</dd>
  <dt>late by</dt><dd><meter id="late" max="20" high="10" optimum="0"></meter></dd>
</dl>
<script>
  const by = id => document.getElementById(id);
  const events = new EventSource("/events");
  let missed = 0;
  events.addEventListener("numbers", ({ data }) => {
    const now = JSON.parse(data);
    by("state").textContent = missed ? `live; ${missed} updates were missed` : "live";
    by("seconds").textContent = `${now.seconds} s`;
    by("viewers").textContent = now.viewers;
    by("memory").textContent = `${now.memory_kib} KiB`;
    by("late").value = now.late_ms;
  });
  events.addEventListener("lagged", ({ data }) => { missed += JSON.parse(data).missed ?? 0; });
  events.onerror = () => { by("state").textContent = "gone; trying again …"; };
</script>
"#;

/// The page, and its events.
pub(crate) fn app(news: Broadcaster) -> Router {
    let events = get(move |headers: HeaderMap| async move { news.respond(&headers) });
    Router::new().route("/", get(|| async { Html(PAGE) })).route("/events", events)
}

/// Tells everybody, again and again.
pub(crate) async fn tell(news: Broadcaster, every: Duration) {
    let began = Instant::now();
    let mut ticks = interval(every);
    loop {
        let late = ticks.tick().await.elapsed();
        let numbers = serde_json::json!({
            "seconds": began.elapsed().as_secs(),
            "viewers": news.clients(),
            "memory_kib": memory_kib(),
            "late_ms": late.as_millis() as u64,
        });
        news.publish(Some("numbers"), &numbers.to_string());
    }
}

/// What this process has of memory, where the system tells.
fn memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[tokio::main]
#[allow(dead_code, reason = "its test begins elsewhere")]
async fn main() -> Result<(), Box<dyn Error>> {
    let news = Broadcaster::new(Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    let telling = tell(news.clone(), Duration::from_secs(1));
    tokio::select! {
        () = telling => Ok(()),
        served = axum::serve(listener, app(news)) => Ok(served?),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
