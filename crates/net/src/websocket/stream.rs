//! One connection: a stream of the messages that come, a sink of those that go.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Sink;
use futures_core::future::BoxFuture;
use futures_core::{FusedStream, Stream};
use tidegate_flow::{BudgetHolder, Permit, TooLarge};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

use super::clock::{Clock, Due};
use super::frame::{Head, Kind, close_payload};
use super::outgoing::Outgoing;
use super::partial::Partial;
use super::{CloseCode, Failure, Message, Messages, Options, Role};
use crate::listen::Connection;

/// Its reading.
mod read;

/// So much is read at once, into memory of the thread's, from which whole messages are copied out as
/// their masks are taken off.
const READ_BYTES: usize = 16 << 10;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a [`MessageStream`] reads from and writes to.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    /// Waits until a read would give something, where that can be told without memory to read into.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn poll_readable(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Wire for DuplexStream {}

impl Wire for TcpStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }
}

impl Wire for Connection {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_read_ready(cx)
    }
}

/// A WebSocket: a stream of the messages that come, and a sink for those that go.
///
/// It reads only while it is polled for messages, so that a peer whose messages nobody takes finds
/// that its own sends wait, once the kernel's buffers are full.
///
/// **Silence** counts only while we read. What says that a peer is gone is a
/// [ping](Options::ping_interval) without any word since, where all that came is read; so who comes
/// back after a pause reads first what came meanwhile. In a pause nobody pings, and TCP's keepalive
/// judges ([`Keepalive`](crate::listen::Keepalive)). Nor does anybody answer the peer's pings, and
/// many peers end a connection for that: long pauses are [counted](Self::pauses).
///
/// **Close.** A peer's close is answered with its code. An error of the peer's is given once, and
/// told to it (1002, 1007, 1008, 1009); the next poll waits, for [a while](Options::close_timeout),
/// until it knows, and ends. [`close`](Self::close) ends a connection from here.
///
/// - **Ordering**: kept.
/// - **Buffering**: messages that were read at once, at most 16 KiB together or one longer message,
///   and as much of what follows. One that is idle holds nothing. What waits to be sent is at most
///   [`send_bytes_max`](Options::send_bytes_max), one message more, and the answer to the latest
///   ping.
/// - **Budget**: with one, all that holds messages is [had from it](Self::budgeted) before it is
///   read into.
/// - **Cancellation**: dropping it cuts the connection; dropping a future that waits for the next
///   message loses nothing.
/// - **End, error**: ends after the close; gives one error before that, where there is one.
#[must_use = "streams do nothing unless polled"]
pub struct MessageStream<W = Connection> {
    wire: W,
    role: Role,
    options: Options,
    holder: Option<Arc<BudgetHolder>>,
    asking: Option<BoxFuture<'static, Result<Permit, TooLarge>>>,
    // The last read found nothing.
    dry: bool,
    // What was read and is not a whole frame yet, or waits for room.
    tail: Vec<u8>,
    // It may have whole frames.
    parse_tail: bool,
    // The frame that the tail begins with, and how much room its message needs.
    wants: Option<(Head, usize)>,
    partial: Option<Box<Partial>>,
    // Messages that follow those that were just given.
    next: Option<Messages>,
    // What was wrong behind those.
    failed: Option<Failure>,
    // Those that are given one by one.
    current: Messages,
    pub(super) out: Outgoing,
    clock: Clock,
    state: State,
    // Nothing more is to be written, and the peer was told.
    shut: bool,
    ended: Option<Ended>,
    protocol: Option<Box<str>>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The code, where one was given.
    pub code: Option<CloseCode>,
    /// The reason that was given with it.
    pub reason: String,
    /// Whether the peer said so first.
    pub by_peer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Our last word is on its way; what comes is thrown away.
    Closing,
    Closed,
}

impl<W: Wire> MessageStream<W> {
    /// Speaks on a connection whose hands were shaken; `read` is what was read behind that.
    pub fn new(wire: W, role: Role, options: Options, read: &[u8]) -> Self {
        Self {
            wire,
            role,
            options,
            holder: None,
            asking: None,
            dry: false,
            tail: read.to_vec(),
            parse_tail: !read.is_empty(),
            wants: None,
            partial: None,
            next: None,
            failed: None,
            current: Messages::default(),
            out: Outgoing::new(role),
            clock: Clock::new(),
            state: State::Open,
            shut: false,
            ended: None,
            protocol: None,
        }
    }

    /// Has the memory of what it reads from a share of a budget: before a read, room for what may
    /// come at once; before the rest of a longer message, room for all of it, and for one in several
    /// frames, for as much as a message may have. Who waits holds none of the budget, so that those
    /// who wait do so for such as can go on; its own are up to 16 KiB of a message that it waits to
    /// have room for.
    pub fn budgeted(self, holder: Arc<BudgetHolder>) -> Self {
        Self { holder: Some(holder), ..self }
    }

    pub(super) fn speaking(self, protocol: Option<Box<str>>) -> Self {
        Self { protocol, ..self }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Writes what waits.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_flush(&mut self.wire, cx)
    }

    /// The subprotocol that was agreed on.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// What it reads from and writes to.
    pub fn wire(&self) -> &W {
        &self.wire
    }

    /// How often nobody read for [long](Options::pause_min).
    pub fn pauses(&self) -> u64 {
        self.clock.pauses()
    }

    /// How the connection ended, once it has, or begins to.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Messages as they are read, several at once.
    pub fn poll_messages(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Messages, Failure>>> {
        self.clock.back(&self.options);
        loop {
            match self.state {
                State::Open => {}
                State::Closing => {
                    ready!(self.poll_end(cx));
                    return Poll::Ready(None);
                }
                State::Closed => return Poll::Ready(None),
            }
            let done = match self.poll_read(cx) {
                Poll::Ready(Ok(None)) => continue,
                Poll::Ready(Ok(Some(messages))) => Ok(messages),
                Poll::Ready(Err(failure)) => Err(failure),
                Poll::Pending => Err(ready!(self.poll_idle(cx))),
            };
            match &done {
                Ok(_) => self.clock.gave(),
                Err(failure) => self.fail(failure),
            }
            // Answers to pings leave, if they can, before whoever asked is away for long. Where that
            // fails, what was read is given first, and the next read finds out.
            let _ = self.out.poll_flush(&mut self.wire, cx);
            return Poll::Ready(Some(done));
        }
    }

    /// Ends the connection: tells the peer, and waits [a while](Options::close_timeout) for its end.
    /// What comes meanwhile is thrown away.
    pub async fn close(&mut self, code: CloseCode, reason: &str) {
        self.start_close(code, reason);
        poll_fn(|cx| match self.state {
            State::Closing => self.poll_end(cx),
            State::Open | State::Closed => Poll::Ready(()),
        })
        .await;
    }

    /// Tells the peer that this is the end; polling then waits for it.
    pub fn start_close(&mut self, code: CloseCode, reason: &str) {
        if self.state == State::Open {
            self.out.control(Kind::Close, &close_payload(code, reason));
            self.closing(Ended { code: Some(code), reason: reason.to_owned(), by_peer: false });
        }
    }

    fn closing(&mut self, ended: Ended) {
        self.state = State::Closing;
        self.ended = Some(ended);
        self.clock.message_ends();
        (self.partial, self.asking, self.wants) = (None, None, None);
        self.tail = Vec::new();
    }

    fn fail(&mut self, failure: &Failure) {
        match failure.close_code() {
            Some(code) => self.start_close(code, &failure.to_string()),
            None => self.state = State::Closed,
        }
    }

    /// Nothing is left to be read: what is to be written is, and the clock is looked at.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            let flushed = match self.out.poll_flush(&mut self.wire, cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                flushed => flushed.is_ready(),
            };
            if self.asking.is_some() {
                // Room is waited for, not the peer.
                return Poll::Pending;
            }
            match ready!(self.clock.poll(&self.options, cx)) {
                Err(failure) => return Poll::Ready(failure),
                Ok(Due::Ping) if flushed => {
                    self.out.control(Kind::Ping, &[]);
                    self.clock.asked();
                }
                // Where nothing can be written, the peer does not read: no answer says nothing.
                Ok(Due::Ping) => self.clock.heard(),
            }
        }
    }

    /// Our last word is written; what comes is thrown away, until the peer ends it, too.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state == State::Closed {
            return Poll::Ready(());
        }
        let over = self.clock.poll_close(self.options.close_timeout, cx).is_ready()
            || self.poll_last_word(cx).is_err()
            || self.poll_throw_away(cx).is_ready();
        if over {
            self.state = State::Closed;
            // So that the peer need not wait until this is dropped.
            let _ = Pin::new(&mut self.wire).poll_shutdown(cx);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn poll_last_word(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.shut {
            return Ok(());
        }
        if let Poll::Ready(flushed) = self.out.poll_flush(&mut self.wire, cx) {
            flushed?;
            // It is for the server to end the connection first (RFC 6455, 7.1.1).
            if self.role == Role::Server
                && let Poll::Ready(shut) = Pin::new(&mut self.wire).poll_shutdown(cx)
            {
                shut?;
                self.shut = true;
            }
        }
        Ok(())
    }

    fn poll_throw_away(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = SCRATCH.take();
        scratch.resize(READ_BYTES, 0);
        let ended = loop {
            let mut space = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.wire).poll_read(cx, &mut space) {
                Poll::Ready(Ok(())) if !space.filled().is_empty() => {}
                ended => break ended.map(drop),
            }
        };
        SCRATCH.set(scratch);
        ended
    }
}

impl<W: Wire> Stream for MessageStream<W> {
    type Item = Result<Message, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.current.next() {
                return Poll::Ready(Some(Ok(message)));
            }
            self.current = match ready!(self.poll_messages(cx)) {
                Some(Ok(messages)) => messages,
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                None => return Poll::Ready(None),
            };
        }
    }
}

impl<W: Wire> FusedStream for MessageStream<W> {
    fn is_terminated(&self) -> bool {
        self.state == State::Closed
    }
}

/// Messages leave when they are flushed, or when there are [many](Options::send_bytes_max) of them.
/// A peer that does not read makes `poll_ready` wait. Closing it is
/// [`close`](MessageStream::close) with the code 1000.
impl<W: Wire> Sink<Message> for MessageStream<W> {
    type Error = Failure;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.state != State::Open {
            return Poll::Ready(Err(Failure::Io(io::ErrorKind::BrokenPipe.into())));
        }
        if self.out.waiting() < self.options.send_bytes_max {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Failure> {
        if self.state != State::Open {
            return Err(Failure::Io(io::ErrorKind::BrokenPipe.into()));
        }
        self.out.message(message);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let this = &mut *self;
        this.out.poll_flush(&mut this.wire, cx).map_err(Failure::Io)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.start_close(CloseCode::Normal, "");
        self.poll_end(cx).map(Ok)
    }
}

// Nothing is pinned in place.
impl<W> Unpin for MessageStream<W> {}

impl<W: fmt::Debug> fmt::Debug for MessageStream<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream")
            .field("wire", &self.wire)
            .field("role", &self.role)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
