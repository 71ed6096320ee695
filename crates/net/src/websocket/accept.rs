//! Connections that come in, with their handshakes.

use std::convert::Infallible;
use std::fmt;
use std::future::{self, Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::StatusCode;
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::rules::{Request, Rules};
use super::{MessageStream, Options, Role};
use crate::listen::{Connection, Incoming, Listener, Refused, Slot};

/// The most that the head of a request may have.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Accepts WebSockets on a listener.
///
/// Those beyond `clients_max` are told so (503), as long as the listener has places left for them.
///
/// - **Buffering**: connections that shake hands, as many as the listener has places; their
///   handshakes go on side by side while [`accept`](Self::accept) is polled, and only then.
/// - **Cancellation**: a dropped `accept` loses nothing.
pub struct Server {
    listener: Listener,
    rules: Arc<Rules>,
    options: Options,
    patience: Duration,
    clients_max: usize,
    shaking: FuturesUnordered<Handshake>,
}

type Handshake = Pin<Box<dyn Future<Output = Result<Client, NotAccepted>> + Send>>;

/// A WebSocket that came in. It counts as one of its listener's until its slot is dropped.
#[derive(Debug)]
pub struct Client {
    /// The messages.
    pub stream: MessageStream,
    /// What it asked for.
    pub request: Request,
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// Its place among the listener's connections; it is to live as long as the stream.
    pub slot: Slot,
}

impl Server {
    /// Accepts on this listener. A handshake, that of TLS not counted, may take as long as
    /// `patience`.
    pub fn new(listener: Listener, rules: Rules, options: Options, patience: Duration) -> Self {
        let (rules, shaking) = (Arc::new(rules), FuturesUnordered::new());
        let clients_max = usize::MAX;
        Self { listener, rules, options, patience, clients_max, shaking }
    }

    /// At most so many clients: those beyond are answered 503. The listener needs a few places more.
    #[must_use]
    pub fn clients_max(self, clients_max: usize) -> Self {
        Self { clients_max, ..self }
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// How many connections there are, those that shake hands too.
    pub fn connections(&self) -> usize {
        self.listener.connections()
    }

    /// The next client, after its handshake.
    ///
    /// # Errors
    ///
    /// One did not come about; the server goes on.
    pub async fn accept(&mut self) -> Result<Client, NotAccepted> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// As [`accept`](Self::accept).
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Client, NotAccepted>> {
        loop {
            if let Poll::Ready(Some(shaken)) = self.shaking.poll_next_unpin(cx) {
                return Poll::Ready(shaken);
            }
            let incoming = ready!(self.listener.poll_accept(cx)).map_err(NotAccepted::Refused)?;
            let full = self.listener.connections() > self.clients_max;
            let shaking = shake(incoming, Arc::clone(&self.rules), self.options, full);
            let patience = self.patience;
            self.shaking.push(Box::pin(async move {
                let late = |_| NotAccepted::Broken(io::ErrorKind::TimedOut.into());
                timeout(patience, shaking).await.map_err(late)?
            }));
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .field("rules", &self.rules)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

async fn shake(
    incoming: Incoming,
    rules: Arc<Rules>,
    options: Options,
    full: bool,
) -> Result<Client, NotAccepted> {
    let Incoming { stream, peer, slot } = incoming;
    let judged = Mutex::new(None);
    let service = service_fn(|request: http::Request<Body>| {
        let (parts, _) = request.into_parts();
        let (answer, admitted) = rules.judge(&parts, full);
        let verdict = admitted.ok_or((answer.status(), parts.uri));
        *judged.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        future::ready(Ok::<_, Infallible>(answer))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // One answer: whoever was refused connects anew.
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let spoken = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let parts = connection.into_parts();
    let mut stream: Connection = parts.io.into_inner();
    let judged = judged.lock().unwrap_or_else(PoisonError::into_inner).take();
    match judged {
        Some(Ok(request)) => {
            spoken.map_err(|error| NotAccepted::Broken(io::Error::other(error)))?;
            let stream = MessageStream::new(stream, Role::Server, options, &parts.read_buf);
            let stream = stream.speaking(request.protocol.clone());
            Ok(Client { stream, request, peer, slot })
        }
        Some(Err((status, uri))) => {
            // Whether the answer arrives is up to whoever did not shake hands.
            let _ = stream.shutdown().await;
            Err(NotAccepted::Answered { peer, status, path: uri.path().into() })
        }
        None => {
            let error =
                spoken.map_or_else(io::Error::other, |()| io::ErrorKind::UnexpectedEof.into());
            let _ = stream.shutdown().await;
            Err(NotAccepted::Broken(error))
        }
    }
}

/// Why a client did not come about. The server goes on.
#[derive(Debug)]
pub enum NotAccepted {
    /// There was no connection.
    Refused(Refused),
    /// What came was no handshake, or not in time.
    Broken(io::Error),
    /// It was not what the [`Rules`] ask for.
    Answered {
        /// Who it was.
        peer: SocketAddr,
        /// What it was answered.
        status: StatusCode,
        /// What it asked for.
        path: Box<str>,
    },
}

impl fmt::Display for NotAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::Broken(error) => write!(f, "no WebSocket handshake: {error}"),
            Self::Answered { peer, status, path } => {
                write!(f, "{peer} was answered {status} for {path:?}")
            }
        }
    }
}

impl std::error::Error for NotAccepted {}
