//! HTTP/1.1 over a [`Listener`](crate::listen::Listener): a task for each connection, small buffers,
//! and an end that lets answers go out.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::linger::Lingering;
use crate::listen::{self, Listener, Refused};

/// How HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// So long the headers of a request may take, from when the connection is free for it: one that
    /// says nothing is closed after this too.
    pub header_timeout: Duration,
    /// The size of a connection's buffer, and the most that a request's headers may have; hyper
    /// needs 8 KiB.
    pub buffer_bytes: usize,
}

impl Default for HttpOptions {
    /// 30 s and 16 KiB.
    fn default() -> Self {
        Self { header_timeout: Duration::from_secs(30), buffer_bytes: 16 << 10 }
    }
}

/// What happened that no request is told of.
#[derive(Debug)]
pub enum Notice {
    /// A connection did not come about.
    Refused(Refused),
    /// A connection broke, or what came was no HTTP.
    Broken(SocketAddr, hyper::Error),
}

/// Accepts connections and answers requests until `stop`; then takes no more, lets the requests that
/// have begun get their answers, and is done.
///
/// `answer` gives the response of a request and of whom it is; `notice` is told the rest, from this
/// task.
///
/// - **Buffering**: `connections_max` connections of the listener, each with a buffer of
///   `buffer_bytes`. A body is read as far as `answer` polls it.
/// - **End**: whoever is answered before its body was read hears the answer: what it still sends is
///   thrown away until it closes the connection, for 2 s at most.
/// - **Cancellation**: dropping it closes all connections at once. It detaches no task.
pub async fn serve<A, F, B>(
    mut listener: Listener,
    options: HttpOptions,
    stop: impl Future<Output = ()>,
    answer: A,
    mut notice: impl FnMut(Notice),
) where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let answer = Arc::new(answer);
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(incoming) => {
                    let (answer, stopped) = (Arc::clone(&answer), stopped.clone());
                    connections.spawn(speak(incoming, options, answer, stopped));
                }
                Err(refused) => notice(Notice::Refused(refused)),
            },
            Some(ended) = connections.join_next() => {
                if let Ok(Some((peer, error))) = ended {
                    notice(Notice::Broken(peer, error));
                }
            }
        }
    }
    drop(listener);
    stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// One connection, to its end.
async fn speak<A, F, B>(
    incoming: listen::Incoming,
    options: HttpOptions,
    answer: Arc<A>,
    mut stopped: watch::Receiver<bool>,
) -> Option<(SocketAddr, hyper::Error)>
where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listen::Incoming { stream, peer, slot: _slot } = incoming;
    let unread = Arc::new(AtomicBool::new(false));
    let stream = Lingering::new(stream, Arc::clone(&unread));
    let service = service_fn(move |request: Request<Incoming>| {
        // It is not known how much of a body will be read.
        unread.store(!request.body().is_end_stream(), Ordering::Relaxed);
        let answer = answer(request, peer);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(options.buffer_bytes.max(HYPER_BYTES_MIN))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = stopped.changed() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.err().map(|error| (peer, error))
}

/// hyper panics below this.
const HYPER_BYTES_MIN: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::{Notify, mpsc, oneshot};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;
    use crate::listen::Limits;

    const DEADLINE: Duration = Duration::from_secs(20);

    struct Served {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        told: mpsc::UnboundedReceiver<Notice>,
        task: JoinHandle<()>,
        go: Arc<Notify>,
    }

    /// A server that answers `/slow` when it is told to, and everything else at once.
    fn served(connections_max: usize, options: HttpOptions) -> Served {
        let limits = Limits { connections_max, ..Limits::default() };
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), limits).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::unbounded_channel();
        let go = Arc::new(Notify::new());
        let waiting = Arc::clone(&go);
        let answer = move |request: Request<Incoming>, _peer| {
            let waiting = Arc::clone(&waiting);
            async move {
                if request.uri().path() == "/slow" {
                    waiting.notified().await;
                }
                Response::new(request.uri().path().to_owned())
            }
        };
        let stopped = async { stopped.await.unwrap_or(()) };
        let task = tokio::spawn(serve(listener, options, stopped, answer, move |notice| {
            tell.send(notice).unwrap_or(());
        }));
        Served { address, stop, told, task, go }
    }

    async fn said(stream: &mut TcpStream, request: &str, end: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        heard(stream, end).await
    }

    async fn heard(stream: &mut TcpStream, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let byte = timeout(DEADLINE, stream.read_u8()).await.unwrap();
            match byte {
                Ok(byte) => text.push(char::from(byte)),
                Err(_) => break,
            }
        }
        text
    }

    async fn ended(stream: &mut TcpStream) -> io::Result<usize> {
        let mut rest = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap()
    }

    const GET: &str = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";

    #[tokio::test]
    async fn a_stop_takes_no_more_and_lets_answers_go_out() {
        let Served { address, stop, task, go, .. } = served(10, HttpOptions::default());
        let mut idle = TcpStream::connect(address).await.unwrap();
        let first = said(&mut idle, "GET /a HTTP/1.1\r\nhost: a\r\n\r\n", "/a").await;
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(GET.as_bytes()).await.unwrap();
        // Whoever comes next is served by a task that the slow one's was spawned before.
        let mut other = TcpStream::connect(address).await.unwrap();
        said(&mut other, "GET /b HTTP/1.1\r\nhost: a\r\n\r\n", "/b").await;
        stop.send(()).unwrap();
        ended(&mut idle).await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
        go.notify_one();
        let last = heard(&mut slow, "/slow").await;
        assert!(last.starts_with("HTTP/1.1 200") && last.ends_with("/slow"), "{last}");
        timeout(DEADLINE, task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_comes_beyond_the_cap_is_closed_and_the_others_go_on() {
        let mut served = served(1, HttpOptions::default());
        let mut first = TcpStream::connect(served.address).await.unwrap();
        said(&mut first, "GET /a HTTP/1.1\r\nhost: a\r\n\r\n", "/a").await;
        for _ in 0..20 {
            let mut beyond = TcpStream::connect(served.address).await.unwrap();
            let _ = ended(&mut beyond).await;
            let told = timeout(DEADLINE, served.told.recv()).await.unwrap().unwrap();
            assert!(matches!(told, Notice::Refused(Refused::TooMany(_))), "{told:?}");
        }
        said(&mut first, "GET /b HTTP/1.1\r\nhost: a\r\n\r\n", "/b").await;
    }

    #[tokio::test]
    async fn what_is_no_http_and_headers_that_are_too_long_are_refused() {
        let mut served = served(10, HttpOptions { buffer_bytes: 0, ..HttpOptions::default() });
        let long = format!("GET / HTTP/1.1\r\na: {}\r\n", "a".repeat(9_000));
        for (request, status) in [("what is this?\r\n\r\n", "400"), (&long, "431")] {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            let answer = said(&mut stream, request, "\r\n\r\n").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            let told = timeout(DEADLINE, served.told.recv()).await.unwrap().unwrap();
            assert!(matches!(told, Notice::Broken(..)), "{told:?}");
        }
    }

    #[tokio::test]
    async fn headers_that_do_not_come_close_the_connection() {
        let header_timeout = Duration::from_millis(20);
        let served = served(10, HttpOptions { header_timeout, ..HttpOptions::default() });
        for begun in ["", "GET / HT"] {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            let _ = ended(&mut stream).await;
        }
    }
}
