//! `mode = "connect"`: rows to a server.

use std::collections::BTreeMap;
use std::task::Poll;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::{SinkExt, StreamExt};
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_model::{
    Commit, Delivered, Error, Mistake, Result, Settings, Sink, SinkContext, Spanned, TimeSpan,
    Written,
};
use tidegate_net::websocket::{CloseCode, Failure, Message, MessageStream, Options};

use super::Rows;
use crate::network::{ConnectTls, Credentials};
use crate::websocket::{ConnectFields, Connecting};

/// The settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `connect`.
    #[serde(rename = "mode")]
    _mode: String,
    /// Where: `ws://host:port/path`, or `wss://` for TLS.
    url: Spanned<String>,
    /// What to say after each connect, before any row.
    #[serde(default)]
    greet: Vec<String>,
    /// What to offer; the server must take it.
    subprotocol: Option<Spanned<String>>,
    /// Headers to send.
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, Spanned<String>>,
    /// How rows are written: `ndjson` (default) or `text`.
    codec: Option<Spanned<String>>,
    /// After so long a silence, while it is written to, the server is asked whether it is there; gone
    /// after as long again: 20 s, and 0 for never.
    ping_interval: Option<Spanned<TimeSpan>>,
    /// How long connecting may take: 10 s.
    connect_timeout: Option<Spanned<TimeSpan>>,
    /// TLS, for `wss://`.
    tls: Option<ConnectTls>,
    /// Who we are.
    auth: Option<Spanned<Credentials>>,
}

pub(super) fn build(settings: &Settings<'_>) -> Result<Box<dyn Sink>, Mistake> {
    let config: Config = settings.parse()?;
    let mut options = Options::default();
    if let Some(time) = &config.ping_interval {
        let interval = time.get_ref().0;
        options.ping_interval = (interval > Duration::ZERO).then_some(interval);
    }
    Ok(Box::new(ConnectSink {
        rows: Rows::named(config.codec.as_ref())?,
        connecting: ConnectFields {
            url: config.url,
            subprotocol: config.subprotocol,
            headers: config.headers,
            auth: config.auth,
            connect_timeout: config.connect_timeout,
            tls: config.tls,
        }
        .understood()?,
        greet: config.greet.into_iter().map(Message::text).collect(),
        options,
        stream: None,
    }))
}

/// See the module.
struct ConnectSink {
    rows: Rows,
    connecting: Connecting,
    greet: Vec<Message>,
    options: Options,
    stream: Option<MessageStream>,
}

impl Sink for ConnectSink {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        (self.rows.encoder.columns)(input)
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    fn open(&mut self, _context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async {
            self.stream = Some(self.connecting.connect(self.options, &self.greet).await?);
            Ok(Vec::new())
        })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async {
            let lost = |failure: Failure| {
                let name = &self.connecting.name;
                Error::disconnected(format!("the connection to {name} was lost")).because(failure)
            };
            if self.stream.is_none() {
                self.stream = Some(self.connecting.connect(self.options, &self.greet).await?);
            }
            let Some(stream) = &mut self.stream else { return Ok(Written::default()) };
            let mut messages = Vec::new();
            self.rows.each(rows, |row| messages.push(message(row)))?;
            if let Err(failure) = send(stream, messages).await {
                self.stream = None;
                return Err(lost(failure));
            }
            Ok(Written::default())
        })
    }

    fn commit<'a>(&'a mut self, _delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(mut stream) = self.stream.take() {
                stream.close(CloseCode::Normal, "").await;
            }
        })
    }
}

fn message(row: &[u8]) -> Message {
    match std::str::from_utf8(row) {
        Ok(text) => Message::text(text),
        Err(_) => Message::Binary(row.to_vec().into()),
    }
}

/// Sends all, and meanwhile answers pings and throws away what the server says.
async fn send(stream: &mut MessageStream, messages: Vec<Message>) -> Result<(), Failure> {
    heard(stream)?;
    for message in messages {
        std::future::poll_fn(|cx| {
            while let Poll::Ready(said) = stream.poll_next_unpin(cx) {
                said.ok_or(Failure::Cut)??;
            }
            stream.poll_ready_unpin(cx)
        })
        .await?;
        stream.start_send_unpin(message)?;
    }
    stream.flush().await
}

/// What the server has said since the last write; an end is found here.
fn heard(stream: &mut MessageStream) -> Result<(), Failure> {
    while let Some(said) = futures::FutureExt::now_or_never(stream.next()) {
        said.ok_or(Failure::Cut)??;
    }
    Ok(())
}
