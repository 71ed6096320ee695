//! `mode = "listen"`: rows to all who are connected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_model::{
    ByteSize, Commit, Delivered, Error, Mistake, Result, Settings, Sink, SinkContext, Spanned,
    TimeSpan, Written,
};
use tidegate_net::websocket::{
    Broadcast, BroadcastOptions, Client, Frames, Left, Options, Rules, Server, Slow,
};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Rows;
use crate::network::{Auth, ListenFields, ListenTls, Listening, Troubles, not_zero};
use crate::websocket::{Paths, RuleFields, serve, turned_away};

/// So long subscribers may take for what is left for them, at the end.
const CLOSING: Duration = Duration::from_secs(5);

/// What a subscriber may send at once; nobody reads it.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

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
    /// How rows are written: `ndjson` (default) or `text`.
    codec: Option<Spanned<String>>,
    /// What becomes of a slow subscriber: `drop_oldest` (default), `disconnect` or `block`.
    when_slow: Option<Spanned<String>>,
    /// What is kept for those who are slow, all together: 4 MiB.
    keep_bytes_max: Option<Spanned<ByteSize>>,
    /// So many messages of it: 8,192.
    keep_messages_max: Option<Spanned<usize>>,
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

pub(super) fn build(settings: &Settings<'_>) -> Result<Box<dyn Sink>, Mistake> {
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
    let mut options = Options {
        message_bytes_max: MESSAGE_BYTES_MAX,
        frame_bytes_max: MESSAGE_BYTES_MAX,
        ..Options::default()
    };
    if let Some(time) = &config.ping_interval {
        let interval = time.get_ref().0;
        options.ping_interval = (interval > Duration::ZERO).then_some(interval);
    }
    let mut keep = BroadcastOptions { messages_max: 8_192, ..BroadcastOptions::default() };
    if let Some(max) = &config.keep_messages_max {
        keep.messages_max = *not_zero(max, "nothing would be kept for anybody")?;
    }
    if let Some(max) = &config.keep_bytes_max {
        keep.bytes_max = usize::try_from(max.get_ref().0).unwrap_or(usize::MAX);
    }
    Ok(Box::new(ListenSink {
        rows: Rows::named(config.codec.as_ref())?,
        slow: slow(config.when_slow.as_ref())?,
        listening,
        rules,
        options,
        keep,
        frames: Frames::default(),
        at_work: None,
    }))
}

fn slow(word: Option<&Spanned<String>>) -> Result<Slow, Mistake> {
    let Some(word) = word else { return Ok(Slow::skip()) };
    match word.get_ref().as_str() {
        "drop_oldest" => Ok(Slow::skip()),
        "disconnect" => Ok(Slow::disconnect()),
        "block" => Ok(Slow::Block),
        other => {
            let message = format!("{other:?} is nothing to do about a slow subscriber");
            let help = "\"drop_oldest\": it is told how many it missed; \"disconnect\"; \"block\": \
                        the pipeline waits for it";
            Err(Mistake::at(word.span(), message).help(help))
        }
    }
}

/// See the module.
struct ListenSink {
    rows: Rows,
    slow: Slow,
    listening: Listening,
    rules: Rules,
    options: Options,
    keep: BroadcastOptions,
    // What is on its way to subscribers, if a write was left half-way.
    frames: Frames,
    at_work: Option<AtWork>,
}

struct AtWork {
    broadcast: Broadcast,
    // The server, whose clients are its own.
    server: JoinSet<()>,
}

impl Sink for ListenSink {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        (self.rows.encoder.columns)(input)
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    fn open(&mut self, context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async move {
            self.at_work = None;
            let server = serve(&self.listening, &self.rules, self.options).await?;
            let broadcast = Broadcast::new(self.keep);
            let subscribers = Subscribers {
                broadcast: broadcast.clone(),
                slow: self.slow.clone(),
                troubles: Troubles::new(context.name.clone()),
                component: context.name,
                clients: JoinSet::new(),
            };
            let mut tasks = JoinSet::new();
            tasks.spawn(subscribers.welcome(server));
            self.at_work = Some(AtWork { broadcast, server: tasks });
            Ok(Vec::new())
        })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async {
            let Some(AtWork { broadcast, .. }) = &self.at_work else {
                return Err(Error::fatal("nobody listens yet: open the sink before writing"));
            };
            if broadcast.clients() == 0 {
                return Ok(Written::default());
            }
            let frames = &mut self.frames;
            self.rows.each(rows, |row| frames.push(row))?;
            broadcast.publish_frames(frames).await;
            Ok(Written::default())
        })
    }

    fn commit<'a>(&'a mut self, _delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let Some(AtWork { broadcast, mut server }) = self.at_work.take() else { return };
            broadcast.close();
            let _ = timeout(CLOSING, async { while server.join_next().await.is_some() {} }).await;
            server.shutdown().await;
        })
    }
}

/// Who is connected.
struct Subscribers {
    broadcast: Broadcast,
    slow: Slow,
    troubles: Troubles,
    component: Arc<str>,
    clients: JoinSet<()>,
}

impl Subscribers {
    /// Takes whoever comes, until the broadcast is closed; then waits until all are gone.
    async fn welcome(mut self, mut server: Server) {
        loop {
            tokio::select! {
                came = server.accept() => match came {
                    Ok(client) => self.subscribe(client),
                    Err(error) => turned_away(&mut self.troubles, &self.component, error),
                },
                Some(_) = self.clients.join_next() => {}
                () = self.broadcast.closed() => break,
            }
        }
        drop(server);
        while self.clients.join_next().await.is_some() {}
    }

    fn subscribe(&mut self, client: Client) {
        let Client { stream, request, peer, slot } = client;
        let component = Arc::clone(&self.component);
        debug!(component = &*component, %peer, path = request.path(), "a subscriber came");
        let subscriber = self.broadcast.subscribe(stream, self.slow.clone());
        self.clients.spawn(async move {
            let Left { missed, failure, ended } = subscriber.run().await;
            let component = &*component;
            match failure {
                Some(failure) if failure.close_code().is_some() => {
                    warn!(component, %peer, %failure, "a subscriber was closed");
                }
                _ => debug!(component, %peer, missed, ?ended, ?failure, "a subscriber is gone"),
            }
            drop(slot);
        });
    }
}
