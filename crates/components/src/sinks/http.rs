//! `http`: rows posted to an API, many in a request.
//!
//! **Delivery.** At least once: a row counts as delivered when the server answered 2xx, and what it
//! did not answer is sent again. 429, 5xx and broken connections are tried again, after
//! `Retry-After` where the server named a time; so are 401, 403, 404 and others that say nothing of
//! the rows, until somebody has mended the cause. Other 4xx refuse rows: a request that is refused
//! is halved until it is known which, and these are rejected, with the reason.
//!
//! **Rate.** `requests_per_second` and `rows_per_second` make it wait, and never drop.
//!
//! **Memory.** One request at a time: its rows as bytes, at most `batch_bytes_max` and a row, and
//! those packed, beside the budget.

use std::io::Write;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_core::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde::Deserialize;
use tidegate_flow::{Rate, TokenBucket};
use tidegate_model::{
    ByteSize, Commit, Delivered, Error, Gather, Mistake, Result, Settings, Sink, SinkContext,
    SinkSpec, Spanned, TimeSpan, Written,
};
use tidegate_net::tls::ClientTls;
use tokio::time::{Instant, sleep};

use crate::codecs::encode::Encoder;
use crate::network::{self, ConnectTls, Credentials, load_client, not_zero, span};

/// What an answer means.
mod verdict;

use verdict::{Meaning, meaning, said};

/// See the module.
pub const SPEC: SinkSpec = SinkSpec {
    summary: "posts rows to an API: NDJSON, JSON arrays or text, many in a request",
    example: r#"url = "https://api.example.com/rows"
# codec = "json"                # an array; "ndjson" is the default, or "text"
# compression = "gzip"          # or "zstd"
# auth = { token = "${API_TOKEN}" }
# headers = { "X-Team" = "shop" }
# batch_rows_max = 1000
# batch_age = "1s"              # so long a row waits for others
# requests_per_second = 10"#,
    build,
};

/// A request has at most so many rows, where nobody says.
const ROWS_MAX: usize = 8_192;
/// … and bytes, before they are packed.
const BYTES_MAX: usize = 1 << 20;
/// So long rows wait for others.
const AGE: Duration = Duration::from_millis(200);
/// So long a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// So much of an answer is read.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// So many redirections are followed.
const REDIRECTIONS_MAX: usize = 5;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where rows go.
    url: Spanned<String>,
    /// `POST` (default), `PUT` or `PATCH`.
    method: Option<Spanned<String>>,
    /// How rows are written: `ndjson` (default), `json` (an array) or `text`.
    codec: Option<Spanned<String>>,
    /// How a body is packed: `none` (default), `gzip` or `zstd`.
    compression: Option<Spanned<String>>,
    /// Headers to send, those of the body's type among them.
    #[serde(default)]
    headers: std::collections::BTreeMap<Spanned<String>, Spanned<String>>,
    /// Who we are.
    auth: Option<Spanned<Credentials>>,
    /// TLS.
    tls: Option<ConnectTls>,
    /// How long a request may take: 30 s.
    timeout: Option<Spanned<TimeSpan>>,
    /// The most rows of a request: 8,192.
    batch_rows_max: Option<Spanned<usize>>,
    /// The most bytes of a request, before they are packed: 1 MiB.
    batch_bytes_max: Option<Spanned<ByteSize>>,
    /// How long a row waits for others: 200 ms.
    batch_age: Option<TimeSpan>,
    /// So many requests a second.
    requests_per_second: Option<Spanned<u64>>,
    /// So many rows a second.
    rows_per_second: Option<Spanned<u64>>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Sink>, Mistake> {
    let config: Config = settings.parse()?;
    let (encoder, format) = format(config.codec.as_ref())?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    let packing = packing(config.compression.as_ref())?;
    headers.extend(packing.header());
    for (name, value) in &config.headers {
        let (name, value) = network::header(name, value)?;
        headers.insert(name, value);
    }
    if let Some(auth) = &config.auth {
        headers.insert(AUTHORIZATION, network::credentials(auth)?);
    }
    let bytes_max = match &config.batch_bytes_max {
        None => BYTES_MAX,
        Some(size) => match usize::try_from(size.get_ref().0) {
            Ok(bytes @ 1..) => bytes,
            _ => return Err(Mistake::at(size.span(), "no request can have that size")),
        },
    };
    let rows_max = match &config.batch_rows_max {
        None => ROWS_MAX,
        Some(rows) => *not_zero(rows, "no row would ever be sent")?,
    };
    let age = config.batch_age.map_or(AGE, |age| age.0);
    Ok(Box::new(HttpSink {
        url: network::url(&config.url, "https://api.example.com/rows")?,
        method: method(config.method.as_ref())?,
        encoder,
        format,
        packing,
        headers,
        tls: config.tls.unwrap_or_default().understood()?,
        timeout: config.timeout.as_ref().map_or(Ok(TIMEOUT), span)?,
        gather: Gather { rows_max, bytes_max, age },
        requests: bucket(config.requests_per_second.as_ref())?,
        rows: bucket(config.rows_per_second.as_ref())?,
        client: None,
    }))
}

/// How rows are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Lines,
    Json,
    Array,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Lines => "text/plain; charset=utf-8",
            Self::Json => "application/x-ndjson",
            Self::Array => "application/json",
        }
    }
}

fn format(codec: Option<&Spanned<String>>) -> Result<(&'static Encoder, Format), Mistake> {
    let ndjson = |span| Encoder::named(Some(&Spanned::new(span, "ndjson".to_owned())));
    match codec {
        None => Ok((ndjson(0..0)?, Format::Json)),
        Some(name) => match name.get_ref().as_str() {
            "json" => Ok((ndjson(name.span())?, Format::Array)),
            "ndjson" => Ok((Encoder::named(codec)?, Format::Json)),
            "text" => Ok((Encoder::named(codec)?, Format::Lines)),
            other => {
                let message = format!("there is no codec {other:?} for a request");
                Err(Mistake::at(name.span(), message).help("one of \"ndjson\", \"json\", \"text\""))
            }
        },
    }
}

/// How bodies are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    fn header(self) -> Option<(HeaderName, HeaderValue)> {
        let name = match self {
            Self::None => return None,
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        };
        Some((CONTENT_ENCODING, HeaderValue::from_static(name)))
    }

    fn pack(self, body: Vec<u8>) -> std::io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(body),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&body)?;
                encoder.finish()
            }
            Self::Zstd => ::zstd::encode_all(&*body, 1),
        }
    }
}

fn packing(compression: Option<&Spanned<String>>) -> Result<Packing, Mistake> {
    let Some(name) = compression else { return Ok(Packing::None) };
    match name.get_ref().as_str() {
        "none" => Ok(Packing::None),
        "gzip" => Ok(Packing::Gzip),
        "zstd" => Ok(Packing::Zstd),
        other => Err(Mistake::at(name.span(), format!("there is no compression {other:?}"))
            .help("one of \"none\", \"gzip\", \"zstd\"")),
    }
}

fn method(name: Option<&Spanned<String>>) -> Result<Method, Mistake> {
    let Some(name) = name else { return Ok(Method::POST) };
    match name.get_ref().as_str() {
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        other => Err(Mistake::at(name.span(), format!("rows can't be sent with {other:?}"))
            .help("one of \"POST\", \"PUT\", \"PATCH\"")),
    }
}

/// Lets so many pass a second, and a tenth of that at once.
fn bucket(rate: Option<&Spanned<u64>>) -> Result<Option<TokenBucket>, Mistake> {
    let Some(rate) = rate else { return Ok(None) };
    let zero = || Mistake::at(rate.span(), "at a rate of 0 nothing would ever pass");
    let units = NonZeroU64::new(*rate.get_ref()).ok_or_else(zero)?;
    let burst = NonZeroU64::new(units.get() / 10).unwrap_or(NonZeroU64::MIN);
    Ok(Some(TokenBucket::new(Rate::per_second(units), burst)))
}

struct HttpSink {
    url: Url,
    method: Method,
    encoder: &'static Encoder,
    format: Format,
    packing: Packing,
    headers: HeaderMap,
    tls: ClientTls,
    timeout: Duration,
    gather: Gather,
    requests: Option<TokenBucket>,
    rows: Option<TokenBucket>,
    client: Option<Open>,
}

/// When there is a client.
struct Open {
    client: Client,
    /// Since when the buckets count.
    began: Instant,
}

/// What became of one request.
enum Sent {
    Delivered,
    Again { after: Option<Duration>, why: String },
    Refused(String),
}

impl Sink for HttpSink {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        (self.encoder.columns)(input)
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    /// The server decides, which may have changed its mind.
    fn same_rejects(&self) -> bool {
        false
    }

    fn gather(&self) -> Gather {
        self.gather
    }

    fn open(&mut self, _context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async {
            let tls = load_client(self.tls.clone(), &["http/1.1"]).await?;
            let redirect = Policy::custom(|attempt| match attempt.status().as_u16() {
                // Others would have us ask for what is there, without the rows.
                307 | 308 if attempt.previous().len() <= REDIRECTIONS_MAX => attempt.follow(),
                _ => attempt.stop(),
            });
            let client = tidegate_net::connect::http(&tls);
            let client = client.redirect(redirect).timeout(self.timeout).build();
            let client = client.map_err(|error| Error::fatal("no client").because(error))?;
            self.client = Some(Open { client, began: Instant::now() });
            Ok(Vec::new())
        })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async move {
            let mut written = Written::default();
            // Ranges that are still to be sent, the first one last.
            let mut left = vec![(0, rows.num_rows())];
            while let Some((from, until)) = left.pop() {
                if from >= until {
                    continue;
                }
                let (end, body) = self.body(rows, from, until)?;
                left.push((end, until));
                match self.send(body, (end - from) as u64).await? {
                    Sent::Delivered => {}
                    Sent::Again { after, why } => {
                        left.push((from, end));
                        (written.after, written.why) = (after, Some(why));
                        break;
                    }
                    Sent::Refused(reason) if end - from == 1 => {
                        written.rejected.push((from, reason));
                    }
                    Sent::Refused(_) => {
                        let middle = from + (end - from) / 2;
                        left.extend([(middle, end), (from, middle)]);
                    }
                }
            }
            written.again = left.into_iter().rev().flat_map(|(from, until)| from..until).collect();
            Ok(written)
        })
    }

    fn commit<'a>(&'a mut self, _delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

impl HttpSink {
    /// Rows as a body, as many as go into one; and the row to go on with.
    fn body(&self, rows: &RecordBatch, from: usize, until: usize) -> Result<(usize, Vec<u8>)> {
        let until = until.min(from.saturating_add(self.gather.rows_max));
        let rows = rows.slice(0, until);
        let mut body = Vec::new();
        if self.format == Format::Array {
            body.push(b'[');
        }
        let end = (self.encoder.encode)(&rows, from, &mut body, self.gather.bytes_max)?;
        if self.format == Format::Array {
            // A row has no line's end but the last, which is where the comma goes.
            body.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b',');
            if let Some(last) = body.last_mut() {
                *last = b']';
            }
        }
        Ok((end.max(from + 1), body))
    }

    /// Sends a body of so many rows, when its rate lets it.
    async fn send(&mut self, body: Vec<u8>, rows: u64) -> Result<Sent> {
        let Some(Open { client, began }) = &self.client else {
            return Err(Error::fatal("it is not open: open it before writing"));
        };
        for (bucket, cost) in [(&mut self.requests, 1), (&mut self.rows, rows)] {
            if let Some(bucket) = bucket {
                let wait = bucket.pay(cost, began.elapsed());
                if !wait.is_zero() {
                    sleep(wait).await;
                    bucket.settle(began.elapsed());
                }
            }
        }
        let packed = self.packing.pack(body);
        let packed = packed.map_err(|error| Error::fatal("can't pack a body").because(error))?;
        let request = client.request(self.method.clone(), self.url.clone());
        let sent = request.headers(self.headers.clone()).body(Bytes::from(packed)).send().await;
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return Ok(Sent::Again { after: None, why: unreachable(&error) }),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let mut text = Vec::new();
        while text.len() < ANSWER_BYTES_MAX
            && let Ok(Some(piece)) = response.chunk().await
        {
            text.extend_from_slice(&piece);
        }
        Ok(match meaning(status, &headers, SystemTime::now()) {
            Meaning::Delivered => Sent::Delivered,
            Meaning::Again(after) => Sent::Again { after, why: said(status, &headers, &text) },
            Meaning::Refused => Sent::Refused(said(status, &headers, &text)),
        })
    }
}

/// Why there is no answer, from the outside to the cause.
fn unreachable(error: &reqwest::Error) -> String {
    let mut line = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "it does not answer in time".to_owned(),
        (_, true) => "can't connect".to_owned(),
        _ => "the request broke off".to_owned(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        cause = error.source();
        // The outer ones say no more than that there is a cause.
        if cause.is_none() {
            line += &format!(": {error}");
        }
    }
    line
}

#[cfg(test)]
mod tests;
