//! One message to many: framed once, and written to each as fast as it reads.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures_core::{FusedStream, Stream};

use super::frame::{Kind, append, framed};
use super::ring::{self, Ring, Taken};
use super::stream::{MessageStream, Wire};
use super::{CloseCode, Ended, Failure, Message, Role};
use crate::listen::Connection;

/// A client is given so many frames at once.
const FRAMES_AT_ONCE: usize = 64;

/// And so many bytes, but one frame at least.
const BYTES_AT_ONCE: usize = 64 << 10;

/// Frames made together share memory of this size.
const BLOCK_BYTES: usize = 32 << 10;

/// What a [`Broadcast`] keeps for clients that are not so fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BroadcastOptions {
    /// At most so many messages.
    pub messages_max: usize,
    /// At most so many bytes; a longer message is kept alone.
    pub bytes_max: usize,
}

impl Default for BroadcastOptions {
    /// 1,024 messages and 4 MiB.
    fn default() -> Self {
        Self { messages_max: 1_024, bytes_max: 4 << 20 }
    }
}

/// What is done about a client that is slower than what is kept for it.
#[derive(Clone)]
pub enum Slow {
    /// It misses the oldest messages, and is told how many by what this makes of their number.
    Skip(Arc<dyn Fn(u64) -> Message + Send + Sync>),
    /// It is told to go, with this code, at the first message that it would miss.
    Disconnect(CloseCode),
    /// It is waited for, by whoever publishes, for as long as it takes.
    Block,
}

impl Slow {
    /// [`Skip`](Self::Skip), told by the text `{"missed":N}`.
    pub fn skip() -> Self {
        Self::Skip(Arc::new(|missed| Message::text(format!("{{\"missed\":{missed}}}"))))
    }

    /// [`Disconnect`](Self::Disconnect) with the code 1013, "try again later".
    pub fn disconnect() -> Self {
        Self::Disconnect(CloseCode::Again)
    }
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skip(_) => f.write_str("Skip"),
            Self::Disconnect(code) => write!(f, "Disconnect({code})"),
            Self::Block => f.write_str("Block"),
        }
    }
}

/// Sends the same messages to many clients, each in its own time.
///
/// A message is made a frame once, and all clients are written from the same memory, several frames
/// at once where a client has fallen behind. What is kept for those behind is bounded for all of
/// them together; what becomes of who falls further behind is [its own matter](Slow).
///
/// - **Ordering**: that of publishing, the same for every client.
/// - **Buffering**: [as much as is said](BroadcastOptions). A client whose connection takes no more
///   holds on to the rest of the message it is in the middle of, up to 4 KiB copied, else to that
///   message's memory.
/// - **Cancellation**: a `publish` that is dropped has published its message to all or to none.
/// - **End**: [`close`](Self::close), or when the last handle is dropped; clients get what is left,
///   and a close (1001).
#[derive(Debug)]
pub struct Broadcast {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ring: Ring,
    handles: AtomicUsize,
}

impl Broadcast {
    /// To nobody, yet.
    pub fn new(options: BroadcastOptions) -> Self {
        let ring = Ring::new(options.messages_max, options.bytes_max);
        Self { shared: Arc::new(Shared { ring, handles: 1.into() }) }
    }

    /// Sends a message to all. It waits only for clients that are to be [waited for](Slow::Block).
    pub async fn publish(&self, message: &Message) {
        self.put(&mut VecDeque::from([frame_of(message)])).await;
    }

    /// Sends many, waking everybody once. Where this is dropped, a part of them may be published.
    pub async fn publish_all(&self, messages: impl IntoIterator<Item = &Message>) {
        self.put(&mut messages.into_iter().map(frame_of).collect()).await;
    }

    /// Sends what was framed before, and takes it from `frames` as it goes.
    pub async fn publish_frames(&self, frames: &mut Frames) {
        frames.settle();
        self.put(&mut frames.done).await;
    }

    async fn put(&self, frames: &mut VecDeque<Bytes>) {
        poll_fn(|cx| self.shared.ring.poll_put(frames, cx)).await;
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.shared.ring.readers()
    }

    /// Gives a client what is published from now on.
    ///
    /// # Panics
    ///
    /// Where the stream is not a server's: a client's frames are masked, each for itself.
    pub fn subscribe<W: Wire>(&self, stream: MessageStream<W>, slow: Slow) -> Subscriber<W> {
        assert!(stream.role() == Role::Server, "only servers can broadcast");
        let kind = match slow {
            Slow::Skip(_) => ring::Kind::Whatever,
            Slow::Disconnect(_) => ring::Kind::Told,
            Slow::Block => ring::Kind::Nothing,
        };
        let (key, next) = self.shared.ring.read(kind);
        let shared = Arc::clone(&self.shared);
        Subscriber { stream, shared, slow, key, next, missed: 0 }
    }

    /// Waits until nothing more is published.
    pub async fn closed(&self) {
        poll_fn(|cx| self.shared.ring.poll_closed(cx)).await;
    }

    /// No more is published; clients get what there is, and a close.
    pub fn close(&self) {
        self.shared.ring.close();
    }
}

impl Clone for Broadcast {
    fn clone(&self) -> Self {
        self.shared.handles.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        if self.shared.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.ring.close();
        }
    }
}

/// Messages made frames one by one, many in one piece of memory, to be
/// [published](Broadcast::publish_frames) together.
#[derive(Debug, Default)]
pub struct Frames {
    block: Vec<u8>,
    // Where each frame in the block ends.
    ends: Vec<usize>,
    done: VecDeque<Bytes>,
}

impl Frames {
    /// Adds a message: text where it is UTF-8, else binary.
    pub fn push(&mut self, payload: &[u8]) {
        let kind = match std::str::from_utf8(payload) {
            Ok(_) => Kind::Text,
            Err(_) => Kind::Binary,
        };
        if self.block.len() + payload.len() > BLOCK_BYTES {
            self.settle();
        }
        append(&mut self.block, kind, payload, None);
        self.ends.push(self.block.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len() + self.done.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn settle(&mut self) {
        let block = Bytes::from(std::mem::take(&mut self.block));
        let mut start = 0;
        for end in self.ends.drain(..) {
            self.done.push_back(block.slice(start..end));
            start = end;
        }
    }
}

fn frame_of(message: &Message) -> Bytes {
    match message {
        Message::Text(text) => framed(Kind::Text, text.as_bytes()),
        Message::Binary(bytes) => framed(Kind::Binary, bytes),
    }
}

/// A client of a [`Broadcast`]: as a stream it gives what the client says, and while that is polled
/// the client is sent what is published, its pings are answered, and its end is seen.
///
/// - **Ordering**: kept.
/// - **Buffering**: as [`MessageStream`] and [`Broadcast`].
/// - **Cancellation**: dropping it cuts the connection.
/// - **End, error**: as [`MessageStream`]; [`ended`](MessageStream::ended) of its
///   [stream](Self::stream) says how.
#[must_use = "streams do nothing unless polled"]
pub struct Subscriber<W = Connection> {
    stream: MessageStream<W>,
    shared: Arc<Shared>,
    slow: Slow,
    key: usize,
    next: u64,
    missed: u64,
}

impl<W: Wire> Subscriber<W> {
    /// The connection.
    pub fn stream(&self) -> &MessageStream<W> {
        &self.stream
    }

    /// How many messages it was too slow for.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Sends what is published until the client is gone, whatever it says.
    pub async fn run(mut self) -> Left {
        let mut failure = None;
        while let Some(said) = self.next().await {
            failure = said.err().or(failure);
        }
        Left { missed: self.missed, failure, ended: self.stream.ended().cloned() }
    }

    /// Ends the connection: see [`MessageStream::close`].
    pub async fn close(mut self, code: CloseCode, reason: &str) {
        self.stream.close(code, reason).await;
    }

    /// Sends what there is, as far as the connection takes it. Errors are found by reading.
    fn poll_send(&mut self, cx: &mut Context<'_>) {
        let ring = &self.shared.ring;
        while self.stream.is_open() {
            if self.stream.out.waiting() == 0 {
                let out = &mut self.stream.out;
                let most = (FRAMES_AT_ONCE, BYTES_AT_ONCE);
                match ring.take(self.key, &mut self.next, most, |frame| out.frame(frame), cx) {
                    Taken::Some(_) => {}
                    Taken::Missed(missed) => {
                        self.missed += missed;
                        match &self.slow {
                            Slow::Skip(say) => out.message(say(missed)),
                            Slow::Disconnect(code) => {
                                self.stream.start_close(*code, "too slow");
                                break;
                            }
                            Slow::Block => {}
                        }
                    }
                    Taken::None => break,
                    Taken::End => self.stream.start_close(CloseCode::Away, ""),
                }
            }
            let flushed = self.stream.poll_out(cx);
            let behind = flushed.is_pending();
            if behind {
                self.next -= self.stream.out.take_back(FRAMES_AT_ONCE) as u64;
            }
            if !matches!(self.slow, Slow::Skip(_)) {
                ring.wrote(self.key, self.next, cx);
            }
            if behind || matches!(flushed, Poll::Ready(Err(_))) {
                break;
            }
        }
    }
}

impl<W: Wire> Stream for Subscriber<W> {
    type Item = Result<Message, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_send(cx);
        self.stream.poll_next_unpin(cx)
    }
}

impl<W: Wire> FusedStream for Subscriber<W> {
    fn is_terminated(&self) -> bool {
        self.stream.is_terminated()
    }
}

// Nothing is pinned in place.
impl<W> Unpin for Subscriber<W> {}

impl<W> Drop for Subscriber<W> {
    fn drop(&mut self) {
        self.shared.ring.gone(self.key);
    }
}

impl<W: fmt::Debug> fmt::Debug for Subscriber<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, slow, next, missed, .. } = self;
        f.debug_struct("Subscriber")
            .field("stream", stream)
            .field("slow", slow)
            .field("next", next)
            .field("missed", missed)
            .finish_non_exhaustive()
    }
}

/// How a [`Subscriber`] left.
#[derive(Debug)]
pub struct Left {
    /// How many messages it was too slow for.
    pub missed: u64,
    /// What was wrong, if anything.
    pub failure: Option<Failure>,
    /// How the connection was closed, if it was.
    pub ended: Option<Ended>,
}
