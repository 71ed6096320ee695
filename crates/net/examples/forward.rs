//! A file to an API, line by line, at a rate that the API can bear: many lines in a request, tried
//! again while it is down, and where it refuses for good, word of how far it came.
//!
//! ```sh
//! cargo run -p tidegate-net --example forward -- app.log https://api.example/lines 1000
//! ```

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use reqwest::{Client, StatusCode};
use tidegate_flow::{Backoff, BatchLimits, FlowExt, Rate, nz};
use tidegate_net::connect;
use tidegate_net::tls::ClientTls;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// The longest line.
const LINE_BYTES_MAX: usize = 1 << 20;

/// So many lines are read ahead of what is sent.
const LINES_AHEAD: usize = 64;

/// How far it came, and why no further.
#[derive(Debug)]
pub struct Stopped {
    /// So many lines, from the beginning of the file, are there.
    pub lines: u64,
    /// What is wrong with those behind them.
    pub why: Failed,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lines are there; then {}", self.lines, self.why)
    }
}

impl Error for Stopped {}

/// Why lines were not taken.
#[derive(Debug)]
pub enum Failed {
    /// The API refused them.
    Status(StatusCode),
    /// It did not answer.
    Broken(reqwest::Error),
    /// The file can't be read.
    File(io::Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "it answers {status}"),
            Self::Broken(error) => write!(f, "{error}"),
            Self::File(error) => write!(f, "the file can't be read: {error}"),
        }
    }
}

impl Failed {
    /// Whether it may be otherwise next time.
    fn may_pass(&self) -> bool {
        match self {
            Self::Status(status) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Broken(_) => true,
            Self::File(_) => false,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, url, rate] = &*arguments else {
        return Err("give a file, an address and a number of lines a second".into());
    };
    let tls = ClientTls::default().load(&["http/1.1"])?;
    let client = connect::http(&tls).timeout(Duration::from_secs(30)).build()?;
    let lines = run(&client, Path::new(file), 0, url, rate.parse()?).await?;
    println!("all {lines} lines are there");
    Ok(())
}

/// Sends the lines behind the first `from`; how many there are in all. At least once: lines whose
/// answer was lost are sent again.
///
/// # Errors
///
/// Names the line from which to go on, once the reason is mended.
pub async fn run(
    client: &Client,
    file: &Path,
    from: u64,
    url: &str,
    lines_per_second: NonZeroU64,
) -> Result<u64, Stopped> {
    let limits = BatchLimits::rows(nz!(100)).age(Duration::from_millis(200));
    let limits =
        limits.bytes(256 << 10, |line: &io::Result<Vec<u8>>| line.as_ref().map_or(0, Vec::len));
    let rate = Rate::per_second(lines_per_second);
    let batches = lines(file.to_owned(), from)
        .batch(limits)
        .rate_limit_by(rate, nz!(100), |lines| lines.len() as u64)
        .map(|lines| lines.into_iter().collect::<io::Result<Vec<_>>>().map_err(Failed::File));
    // One request after the other: what is there is always a beginning of the file.
    let backoff = Backoff::exponential(Duration::from_millis(100)..=Duration::from_secs(30));
    let sent = batches.retry(backoff, |lines| post(client, url, lines.concat(), lines.len()));
    let mut sent = pin!(sent.only_if(Failed::may_pass).end_on_failure());
    let mut there = from;
    while let Some(count) = sent.next().await {
        there += count.map_err(|why| Stopped { lines: there, why })?;
    }
    Ok(there)
}

/// One try.
async fn post(client: &Client, url: &str, body: Vec<u8>, lines: usize) -> Result<u64, Failed> {
    let request = client.post(url).header("content-type", "text/plain; charset=utf-8");
    let status = request.body(body).send().await.map_err(Failed::Broken)?.status();
    if status.is_success() { Ok(lines as u64) } else { Err(Failed::Status(status)) }
}

/// A file's lines with their ends, but for the first ones, read in a thread that may block; after an
/// error there are no more.
fn lines(file: PathBuf, from: u64) -> impl Stream<Item = io::Result<Vec<u8>>> {
    let (sender, mut receiver) = mpsc::channel(LINES_AHEAD);
    spawn_blocking(move || {
        let mut file = File::open(file).map(BufReader::new);
        let mut number = 0;
        loop {
            let line = match &mut file {
                Ok(file) => next_line(file),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            let last = line.is_err();
            let Some(line) = line.transpose() else { break };
            number += 1;
            let wanted = last || number > from;
            let gone = wanted && sender.blocking_send(line).is_err();
            if gone || last {
                break;
            }
        }
    });
    stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

fn next_line(file: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    file.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
    match line.len() {
        0 => Ok(None),
        1..=LINE_BYTES_MAX => Ok(Some(line)),
        _ => {
            let said = format!("a line has more than {LINE_BYTES_MAX} bytes");
            Err(io::Error::new(io::ErrorKind::InvalidData, said))
        }
    }
}
