//! Requests side by side: so many at a time and no more, answers in the order of the questions. One
//! that may succeed later is tried again by itself, and one that never will stops no other.
//!
//! ```sh
//! cargo run -p tidegate-net --example parallel_http -- https://a.example/1 https://a.example/2
//! ```

use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode};
use tidegate_flow::{Backoff, FlowExt, nz};
use tidegate_net::connect;
use tidegate_net::tls::ClientTls;
use tokio::time::sleep;

/// The longest answer. So many at a time is what all of it may take.
const BODY_BYTES_MAX: usize = 1 << 20;

/// No server makes us wait longer before a second try.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// The server says so.
    Status(StatusCode),
    /// It has more than we want to keep.
    TooLong,
    /// There was no answer, or not all of it.
    Broken(reqwest::Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "it answers {status}"),
            Self::TooLong => write!(f, "the answer has more than {BODY_BYTES_MAX} bytes"),
            Self::Broken(error) => write!(f, "{error}"),
        }
    }
}

impl Failed {
    /// Whether it may be otherwise next time.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Status(status) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::TooLong => false,
            Self::Broken(_) => true,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let tls = ClientTls::default().load(&["http/1.1"])?;
    let client = connect::http(&tls).timeout(Duration::from_secs(30)).build()?;
    let urls = stream::iter(std::env::args().skip(1));
    let mut answers = pin!(run(client, urls, nz!(8)));
    while let Some((url, answer)) = answers.next().await {
        match answer {
            Ok(body) => println!("{url}: {} bytes", body.len()),
            Err(error) => eprintln!("{url}: {error}"),
        }
    }
    Ok(())
}

/// What is at each address. Addresses are taken as answers are: whoever looks at no answers has at
/// most `at_a_time` of them waiting.
pub fn run(
    client: Client,
    urls: impl Stream<Item = String>,
    at_a_time: NonZeroUsize,
) -> impl Stream<Item = (String, Result<Bytes, Failed>)> {
    let answers = urls.concurrent_map(at_a_time, move |url| {
        let client = client.clone();
        async move {
            let backoff = Backoff::exponential(Duration::from_millis(50)..=Duration::from_secs(5));
            let question = stream::iter([Ok(url.clone())]);
            let tries = question.retry(backoff.retries(4), |url| get(&client, url.clone()));
            let answer = pin!(tries.only_if(Failed::may_pass)).next().await;
            answer.map(|answer| (url, answer))
        }
    });
    // There is one answer to each question.
    answers.filter_map(std::future::ready)
}

/// One try.
async fn get(client: &Client, url: String) -> Result<Bytes, Failed> {
    let mut response = client.get(url).send().await.map_err(Failed::Broken)?;
    let status = response.status();
    if !status.is_success() {
        if let Some(wait) = asked_to_wait(&response) {
            // The slot is kept meanwhile: what else we would ask that server can wait, too.
            sleep(wait).await;
        }
        return Err(Failed::Status(status));
    }
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(Failed::Broken)? {
        if body.len() + piece.len() > BODY_BYTES_MAX {
            return Err(Failed::TooLong);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

fn asked_to_wait(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(WAIT_MAX))
}
