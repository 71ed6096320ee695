//! `mode = "connect"`: one connection, which the engine opens again when it is lost.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use arrow_schema::SchemaRef;
use futures::StreamExt;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_model::{
    ByteSize, Error, Mistake, Result, Settings, Source, SourceBatch, SourceContext, SourceStream,
    Spanned, TimeSpan, log_schema,
};
use tidegate_net::websocket::{Failure, Message};

use super::rows::{Peer, Rows};
use super::socket::Socket;
use super::{MessageFields, Reading};
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
    /// What to say after each connect, before anything is read.
    #[serde(default)]
    subscribe: Vec<String>,
    /// What to offer; the server must take it.
    subprotocol: Option<Spanned<String>>,
    /// Headers to send.
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, Spanned<String>>,
    /// How records are read: `text` (default), `json`, `auto`, …
    codec: Option<Spanned<String>>,
    /// What a record is: a `message` (default), or a line of one (`newline`).
    framing: Option<Spanned<String>>,
    /// The longest message: 1 MiB.
    message_bytes_max: Option<Spanned<ByteSize>>,
    /// The longest frame: as long as a message.
    frame_bytes_max: Option<Spanned<ByteSize>>,
    /// How long the rest of a message may take: 30 s.
    message_timeout: Option<Spanned<TimeSpan>>,
    /// After so long a silence the server is asked whether it is there; gone after as long again:
    /// 20 s, and 0 for never.
    ping_interval: Option<Spanned<TimeSpan>>,
    /// How long connecting may take: 10 s.
    connect_timeout: Option<Spanned<TimeSpan>>,
    /// TLS, for `wss://`.
    tls: Option<ConnectTls>,
    /// Who we are.
    auth: Option<Spanned<Credentials>>,
}

pub(super) fn build(settings: &Settings<'_>) -> Result<Box<dyn Source>, Mistake> {
    let config: Config = settings.parse()?;
    let connecting = ConnectFields {
        url: config.url,
        subprotocol: config.subprotocol,
        headers: config.headers,
        auth: config.auth,
        connect_timeout: config.connect_timeout,
        tls: config.tls,
    }
    .understood()?;
    let reading = MessageFields {
        codec: config.codec,
        framing: config.framing,
        message_bytes_max: config.message_bytes_max,
        frame_bytes_max: config.frame_bytes_max,
        message_timeout: config.message_timeout,
        ping_interval: config.ping_interval,
    }
    .understood()?;
    let subscribe = config.subscribe.into_iter().map(Message::text).collect();
    Ok(Box::new(ConnectSource { connecting, reading, subscribe, left: Arc::default(), rows: None }))
}

/// See the module.
struct ConnectSource {
    connecting: Connecting,
    reading: Reading,
    subscribe: Vec<Message>,
    left: Arc<Leaving>,
    rows: Option<Arc<Mutex<Rows>>>,
}

/// The connection whose stream is gone, until it is closed.
type Leaving = Mutex<Option<Socket>>;

impl Source for ConnectSource {
    fn schema(&self) -> Option<SchemaRef> {
        Some(log_schema())
    }

    fn replayable(&self) -> bool {
        false
    }

    fn bytes_min(&self) -> usize {
        self.reading.bytes_min()
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        Box::pin(async move {
            // Its rows are numbered on, whatever the connection.
            let rows = self
                .rows
                .get_or_insert_with(|| Arc::new(Mutex::new(Rows::new(&self.reading, &context))));
            let rows = Arc::clone(rows);
            let stream = self.connecting.connect(self.reading.options, &self.subscribe).await?;
            let stream = stream.budgeted(Arc::clone(&context.holder));
            let peer = Peer::new(self.connecting.name.clone());
            let socket = Some(Socket::new(stream, peer, None));
            let (once, left) = (context.once, Arc::clone(&self.left));
            Ok(Connected { socket, rows, once, left }.boxed())
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let left = lock(&self.left).take();
            if let Some(socket) = left {
                Box::pin(socket).close().await;
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stream at work.
struct Connected {
    socket: Option<Socket>,
    rows: Arc<Mutex<Rows>>,
    once: bool,
    left: Arc<Leaving>,
}

impl Stream for Connected {
    type Item = Result<SourceBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let mut rows = lock(&this.rows);
            if let Some(batch) = rows.next().transpose() {
                return Poll::Ready(Some(batch));
            }
            let Some(socket) = &mut this.socket else { return Poll::Ready(None) };
            match ready!(socket.poll_next_unpin(cx)) {
                Some(Ok((messages, peer))) => rows.take(&messages, peer),
                ended if this.once && !matches!(ended, Some(Err(_))) => {
                    this.socket = None;
                    return Poll::Ready(None);
                }
                Some(Err(failure)) => return Poll::Ready(Some(Err(lost(socket, failure)))),
                None => return Poll::Ready(Some(Err(closed(socket)))),
            }
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        *lock(&self.left) = self.socket.take();
    }
}

fn lost(socket: &Socket, failure: Failure) -> Error {
    let name = &*socket.peer.name;
    match failure {
        Failure::TooBig { .. } | Failure::FrameTooBig { .. } => Error::disconnected(format!(
            "{name} sent more than message_bytes_max or frame_bytes_max allow; raise them"
        )),
        _ => Error::disconnected(format!("the connection to {name} was lost")),
    }
    .because(failure)
}

fn closed(socket: &Socket) -> Error {
    let ended = socket.stream.ended();
    let code = ended.and_then(|ended| ended.code).map(|code| format!(" with the code {code}"));
    let reason = ended.map(|ended| &*ended.reason).filter(|reason| !reason.is_empty());
    let reason = reason.map(|reason| format!(": {reason:?}"));
    let name = &*socket.peer.name;
    let (code, reason) = (code.unwrap_or_default(), reason.unwrap_or_default());
    Error::disconnected(format!("{name} closed the connection{code}{reason}"))
}
