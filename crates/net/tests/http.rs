//! What the examples of HTTP show is true, against a server that does as the test says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]
#![expect(dead_code, reason = "each example's `main` is for people; its `run` is called here")]

#[path = "../examples/forward.rs"]
pub mod forward;
#[path = "../examples/parallel_http.rs"]
pub mod parallel_http;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use futures::{StreamExt, stream};
use http::{Response, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use reqwest::Client;
use tidegate_flow::nz;
use tidegate_net::listen::{Limits, Listener};
use tidegate_net::serve::{HttpOptions, serve};
use tidegate_net::tls::ClientTls;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(60);

/// A server that answers so; it ends with its set.
fn server<A, F>(answer: A) -> (SocketAddr, JoinSet<()>)
where
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<String>> + Send + 'static,
{
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Limits::default()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    let answer = move |request, _peer| answer(request);
    serving.spawn(serve(listener, HttpOptions::default(), std::future::pending(), answer, drop));
    (address, serving)
}

fn client() -> Client {
    let tls = ClientTls::default().load(&["http/1.1"]).unwrap();
    tidegate_net::connect::http(&tls).no_proxy().timeout(DEADLINE).build().unwrap()
}

fn answer(status: u16, text: impl Into<String>) -> Response<String> {
    let mut answer = Response::new(text.into());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer.headers_mut().insert("retry-after", "0".parse().unwrap());
    answer
}

#[tokio::test]
async fn parallel_requests_use_the_limit_keep_to_it_and_are_tried_again_where_that_helps() {
    let at_a_time = nz!(6);
    let first = Arc::new(Barrier::new(at_a_time.get()));
    let asked = Arc::new(Mutex::new(BTreeMap::<u32, u32>::new()));
    let (working, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let (asked_of, most_at_once) = (Arc::clone(&asked), Arc::clone(&most));
    let (address, _serving) = server(move |request| {
        let (asked, first) = (Arc::clone(&asked), Arc::clone(&first));
        let (working, most) = (Arc::clone(&working), Arc::clone(&most));
        async move {
            let here = working.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(here, Ordering::SeqCst);
            let number: u32 = request.uri().path()[1..].parse().unwrap();
            let tries = {
                let mut asked = asked.lock().unwrap();
                let tries = asked.entry(number).or_default();
                *tries += 1;
                *tries
            };
            // The first ones are answered when there are as many as there may be.
            if number < 6 && tries == 1 {
                first.wait().await;
            }
            working.fetch_sub(1, Ordering::SeqCst);
            match number {
                7 => answer(404, "there is no seven"),
                9 => answer(503, "never"),
                13 => answer(200, "x".repeat((1 << 20) + 1)),
                _ if number.is_multiple_of(5) && tries < 3 => {
                    answer([429, 500][tries as usize - 1], "later")
                }
                _ => answer(200, number.to_string()),
            }
        }
    });
    let urls = stream::iter((0..20).map(move |number| format!("http://{address}/{number}")));
    let answers = parallel_http::run(client(), urls, at_a_time).collect::<Vec<_>>();
    let answers = timeout(DEADLINE, answers).await.unwrap();
    let asked = asked_of.lock().unwrap().clone();
    assert_eq!((answers.len(), most_at_once.load(Ordering::SeqCst)), (20, 6));
    for ((url, answer), number) in answers.into_iter().zip(0..) {
        assert_eq!(url, format!("http://{address}/{number}"), "they are not in order");
        let (said, tries) = match number {
            7 => ("it answers 404 Not Found".to_owned(), 1),
            9 => ("it answers 503 Service Unavailable".to_owned(), 5),
            13 => ("the answer has more than 1048576 bytes".to_owned(), 1),
            _ => (number.to_string(), if number % 5 == 0 { 3 } else { 1 }),
        };
        let answer = answer.map(|body| String::from_utf8(body.to_vec()).unwrap());
        assert_eq!(answer.unwrap_or_else(|failed| failed.to_string()), said);
        assert_eq!(asked[&number], tries, "{number}");
    }
}

#[tokio::test]
async fn a_file_is_forwarded_at_its_rate_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.log");
    let lines: Vec<String> = (0..1_000).map(|line| format!("line {line}\n")).collect();
    std::fs::write(&file, lines.concat()).unwrap();
    let (got, requests) = <(Arc<Mutex<String>>, Arc<AtomicUsize>)>::default();
    let mended = Arc::new(AtomicUsize::new(0));
    let (taken, is_mended) = (Arc::clone(&got), Arc::clone(&mended));
    let (address, _serving) = server(move |request| {
        let (got, mended) = (Arc::clone(&got), Arc::clone(&mended));
        let number = requests.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = to_bytes(Body::new(request.into_body()), 1 << 20).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            match number {
                2 => answer(503, "not now"),
                4 => answer(429, "slowly"),
                _ if body.contains("line 650\n") && mended.load(Ordering::SeqCst) == 0 => {
                    answer(400, "no")
                }
                _ => {
                    got.lock().unwrap().push_str(&body);
                    answer(204, "")
                }
            }
        }
    });
    let (client, url) = (client(), format!("http://{address}/"));
    let began = Instant::now();
    let forwarded = forward::run(&client, &file, 0, &url, nz!(2_000));
    let stopped = timeout(DEADLINE, forwarded).await.unwrap().unwrap_err();
    assert_eq!(stopped.to_string(), "600 lines are there; then it answers 400 Bad Request");
    // A hundred go at once.
    assert!(began.elapsed() >= Duration::from_millis(240), "{:?}", began.elapsed());
    assert_eq!(*taken.lock().unwrap(), lines[..600].concat());
    is_mended.store(1, Ordering::SeqCst);
    let forwarded = forward::run(&client, &file, stopped.lines, &url, nz!(100_000));
    assert_eq!(timeout(DEADLINE, forwarded).await.unwrap().unwrap(), 1_000);
    assert_eq!(*taken.lock().unwrap(), lines.concat());
}

#[tokio::test]
async fn a_file_that_is_not_there_or_has_an_endless_line_is_named() {
    let (address, _serving) = server(async |_| answer(200, ""));
    let (client, url) = (client(), format!("http://{address}/"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.log");
    for said in ["No such file", "more than 1048576 bytes"] {
        let forwarded = forward::run(&client, &file, 0, &url, nz!(1_000));
        let stopped = timeout(DEADLINE, forwarded).await.unwrap().unwrap_err();
        assert!(stopped.to_string().contains(said), "{stopped}");
        std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
    }
}
