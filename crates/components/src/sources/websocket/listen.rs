//! `mode = "listen"`: many connections, in turns.

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use arrow_schema::SchemaRef;
use futures::StreamExt;
use futures::future::join_all;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_flow::{FairMerge, Merged};
use tidegate_model::{
    BudgetHolder, ByteSize, Mistake, Result, Settings, Source, SourceBatch, SourceContext,
    SourceStream, Spanned, TimeSpan, log_schema,
};
use tidegate_net::websocket::{Client, Failure, Rules, Server};
use tracing::{debug, warn};

use super::rows::{Peer, Rows};
use super::socket::Socket;
use super::{MessageFields, Reading};
use crate::network::{Auth, ListenFields, ListenTls, Listening, Troubles};
use crate::websocket::{Paths, RuleFields, serve, turned_away};

/// The settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `listen`.
    #[serde(rename = "mode")]
    _mode: String,
    /// Where: an address and a port, or a port of this machine alone.
    listen: Spanned<String>,
    /// Which paths there are, `*` at the end for all that begin so: all.
    path: Option<Spanned<Paths>>,
    /// What a client must offer.
    subprotocol: Option<Spanned<String>>,
    /// Headers that a client must send, with these values.
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, Spanned<String>>,
    /// Where pages may be from whose scripts connect: anywhere.
    #[serde(default)]
    origins: Vec<String>,
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
    /// After so long a silence a client is asked whether it is there; gone after as long again: 20 s,
    /// and 0 for never.
    ping_interval: Option<Spanned<TimeSpan>>,
    /// So many connections at once: 1,000.
    connections_max: Option<Spanned<usize>>,
    /// How long a handshake may take, that of TLS and that of the WebSocket each: 10 s.
    handshake_timeout: Option<Spanned<TimeSpan>>,
    /// TLS.
    tls: Option<ListenTls>,
    /// Who may come in.
    auth: Option<Spanned<Auth>>,
}

pub(super) fn build(settings: &Settings<'_>) -> Result<Box<dyn Source>, Mistake> {
    let config: Config = settings.parse()?;
    let listening = ListenFields {
        listen: config.listen,
        connections_max: config.connections_max,
        handshake_timeout: config.handshake_timeout,
        tls: config.tls,
        auth: config.auth,
    }
    .understood()?;
    let rules = RuleFields {
        path: config.path,
        subprotocol: config.subprotocol,
        headers: config.headers,
        origins: config.origins,
    }
    .understood(&listening)?;
    let reading = MessageFields {
        codec: config.codec,
        framing: config.framing,
        message_bytes_max: config.message_bytes_max,
        frame_bytes_max: config.frame_bytes_max,
        message_timeout: config.message_timeout,
        ping_interval: config.ping_interval,
    }
    .understood()?;
    Ok(Box::new(ListenSource { listening, rules, reading, left: Arc::default() }))
}

/// See the module.
pub(super) struct ListenSource {
    listening: Listening,
    rules: Rules,
    reading: Reading,
    left: Arc<Leaving>,
}

/// Connections whose stream is gone, until they are closed.
type Leaving = Mutex<Vec<Pin<Box<Socket>>>>;

impl ListenSource {
    /// The stream, and what it listens with.
    pub(super) async fn start(&mut self, context: SourceContext) -> Result<Listened> {
        let server = serve(&self.listening, &self.rules, self.reading.options).await?;
        Ok(Listened {
            server,
            rows: Rows::new(&self.reading, &context),
            holder: Arc::clone(&context.holder),
            merge: FairMerge::new(),
            keys: HashSet::new(),
            next_key: 0,
            once: context.once,
            troubles: Troubles::new(Arc::clone(&context.name)),
            component: context.name,
            left: Arc::clone(&self.left),
        })
    }
}

impl Source for ListenSource {
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
        Box::pin(async { Ok(self.start(context).await?.boxed()) })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let left = std::mem::take(&mut *lock(&self.left));
            join_all(left.into_iter().map(Socket::close)).await;
        })
    }
}

fn lock(left: &Leaving) -> std::sync::MutexGuard<'_, Vec<Pin<Box<Socket>>>> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stream at work.
pub(super) struct Listened {
    pub(super) server: Server,
    rows: Rows,
    holder: Arc<BudgetHolder>,
    merge: FairMerge<u64, Socket>,
    keys: HashSet<u64>,
    next_key: u64,
    once: bool,
    troubles: Troubles,
    component: Arc<str>,
    left: Arc<Leaving>,
}

impl Listened {
    fn welcome(&mut self, client: Client) {
        let Client { stream, request, peer, slot } = client;
        debug!(component = &*self.component, %peer, path = request.path(), "a client came");
        let peer = Peer::new(format!("{peer}{}", request.path()));
        let stream = stream.budgeted(Arc::clone(&self.holder));
        self.keys.insert(self.next_key);
        self.merge.insert(self.next_key, Socket::new(stream, peer, Some(slot)));
        self.next_key += 1;
    }

    fn failed(&self, failure: &Failure) {
        let component = &*self.component;
        match failure {
            Failure::Io(_) | Failure::Cut => debug!(component, %failure, "a client is gone"),
            _ => warn!(component, %failure, "a client was closed"),
        }
    }
}

impl Stream for Listened {
    type Item = Result<SourceBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(batch) = this.rows.next().transpose() {
                return Poll::Ready(Some(batch));
            }
            while let Poll::Ready(came) = this.server.poll_accept(cx) {
                match came {
                    Ok(client) => this.welcome(client),
                    Err(error) => turned_away(&mut this.troubles, &this.component, error),
                }
            }
            match this.merge.poll_next_unpin(cx) {
                Poll::Ready(Some(Merged::Item(_, Ok((messages, peer))))) => {
                    this.rows.take(&messages, peer);
                }
                Poll::Ready(Some(Merged::Item(_, Err(failure)))) => this.failed(&failure),
                Poll::Ready(Some(Merged::Ended(key))) => {
                    this.keys.remove(&key);
                    if this.once && this.keys.is_empty() {
                        return Poll::Ready(None);
                    }
                }
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Listened {
    fn drop(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        lock(&self.left).extend(keys.iter().filter_map(|key| self.merge.remove(key)));
    }
}
