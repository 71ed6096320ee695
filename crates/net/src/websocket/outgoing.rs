//! What is to be written: whole frames in order, several at once, so that nothing ever comes between
//! the parts of one.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::frame::{Kind, Masks, append, append_head};
use super::{Message, Role};

/// A payload that is longer is not copied behind its head.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// So many pieces are given to the kernel at once.
const PIECES_MAX: usize = 64;

/// What is left of a frame that was begun is copied out of the memory it shares, up to this.
const UNSHARED_BYTES_MAX: usize = 4 << 10;

/// Frames that wait to be written, and the one writer of a connection.
///
/// Bounded by whoever puts frames in: of pings and pongs there is one each.
#[derive(Debug)]
pub(super) struct Outgoing {
    // A client's.
    masks: Option<Box<Masks>>,
    // Whole frames, but that what is written of the first is gone from it.
    queue: VecDeque<Piece>,
    bytes: usize,
    begun: bool,
    // Small frames on their way into the queue.
    small: Vec<u8>,
    // The latest, behind what is queued.
    pong: Option<Bytes>,
    written: bool,
}

/// What is written as it is: a frame, several, or the head or the payload of one.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    // A frame that others are sent, too.
    shared: bool,
}

impl Outgoing {
    pub(super) fn new(role: Role) -> Self {
        Self {
            masks: (role == Role::Client).then(Box::default),
            queue: VecDeque::new(),
            bytes: 0,
            begun: false,
            small: Vec::new(),
            pong: None,
            written: true,
        }
    }

    /// How much waits.
    pub(super) fn waiting(&self) -> usize {
        self.bytes + self.small.len()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.waiting() == 0 && self.pong.is_none() && self.written
    }

    pub(super) fn message(&mut self, message: Message) {
        let (kind, payload) = match message {
            Message::Text(text) => (Kind::Text, Bytes::from(text)),
            Message::Binary(bytes) => (Kind::Binary, bytes),
        };
        if self.masks.is_some() || payload.len() <= COPIED_BYTES_MAX {
            append(&mut self.small, kind, &payload, self.masks.as_deref_mut());
            return;
        }
        append_head(&mut self.small, kind, payload.len(), None);
        self.settle();
        self.push(payload, false);
    }

    pub(super) fn control(&mut self, kind: Kind, payload: &[u8]) {
        append(&mut self.small, kind, payload, self.masks.as_deref_mut());
    }

    /// Answers a ping; an answer that is not on its way yet is replaced ([RFC 6455, 5.5.3]).
    ///
    /// [RFC 6455, 5.5.3]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.3
    pub(super) fn pong(&mut self, payload: &[u8]) {
        self.pong = Some(Bytes::copy_from_slice(payload));
    }

    /// A frame that is made already, for the peers of a server.
    pub(super) fn frame(&mut self, frame: Bytes) {
        self.settle();
        self.push(frame, true);
    }

    /// Takes back the last frames of those [put in](Self::frame) that are not begun, `many` at most,
    /// and says how many. What is left of one that is begun no longer holds on to the memory that
    /// it shares with others, where it is small.
    pub(super) fn take_back(&mut self, many: usize) -> usize {
        let mut taken = 0;
        while taken < many && self.queue.len() > usize::from(self.begun) {
            let Some(frame) = self.queue.pop_back_if(|piece| piece.shared) else { break };
            self.bytes -= frame.bytes.len();
            taken += 1;
        }
        if let Some(first) = self.queue.front_mut().filter(|piece| piece.shared)
            && first.bytes.len() <= UNSHARED_BYTES_MAX
        {
            first.bytes = Bytes::copy_from_slice(&first.bytes);
            first.shared = false;
        }
        taken
    }

    fn push(&mut self, bytes: Bytes, shared: bool) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.queue.push_back(Piece { bytes, shared });
        }
    }

    fn settle(&mut self) {
        if !self.small.is_empty() {
            let small = mem::take(&mut self.small);
            self.push(small.into(), false);
        }
    }

    /// Writes all there is.
    pub(super) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.settle();
        loop {
            ready!(self.poll_queue(wire, cx))?;
            let Some(pong) = self.pong.take() else { break };
            self.control(Kind::Pong, &pong);
            self.settle();
        }
        if !self.written {
            ready!(Pin::new(&mut *wire).poll_flush(cx))?;
            self.written = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_queue<W: AsyncWrite + Unpin>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(first) = self.queue.front() {
            self.written = false;
            let written = if self.queue.len() == 1 {
                ready!(Pin::new(&mut *wire).poll_write(cx, &first.bytes))?
            } else {
                let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
                let mut count = 0;
                for (piece, queued) in pieces.iter_mut().zip(&self.queue) {
                    *piece = IoSlice::new(&queued.bytes);
                    count += 1;
                }
                let pieces = pieces.get(..count).unwrap_or_default();
                ready!(Pin::new(&mut *wire).poll_write_vectored(cx, pieces))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.queue.front_mut() {
            if written < first.bytes.len() {
                first.bytes.advance(written);
                self.begun |= written > 0;
                break;
            }
            written -= first.bytes.len();
            self.queue.pop_front();
            self.begun = false;
        }
        if self.queue.is_empty() && self.queue.capacity() > PIECES_MAX {
            self.queue = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::frame::framed;
    use super::*;

    /// Takes so many bytes at a time, and so many in all.
    struct Narrow {
        got: Vec<u8>,
        step: usize,
        left: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.step).min(self.left);
            if count == 0 {
                return Poll::Pending;
            }
            self.left -= count;
            self.got.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn frames_leave_whole_and_in_order_however_narrow_the_way() {
        for step in 1..20 {
            let mut out = Outgoing::new(Role::Server);
            let mut wire = Narrow { got: Vec::new(), step, left: usize::MAX };
            let long = "l".repeat(5_000);
            out.message(Message::text("one"));
            out.message(Message::text(&*long));
            out.frame(framed(Kind::Text, b"two"));
            out.pong(b"old");
            out.pong(b"new");
            out.control(Kind::Ping, b"");
            let mut cx = Context::from_waker(Waker::noop());
            assert!(out.poll_flush(&mut wire, &mut cx).is_ready());
            let expected = [
                framed(Kind::Text, b"one"),
                framed(Kind::Text, long.as_bytes()),
                framed(Kind::Text, b"two"),
                framed(Kind::Ping, b""),
                framed(Kind::Pong, b"new"),
            ];
            assert_eq!(wire.got, expected.concat(), "{step} bytes at a time");
            assert!(out.is_empty());
        }
    }

    #[test]
    fn only_frames_that_are_not_begun_are_taken_back() {
        let frames: Vec<_> = (0..10).map(|n| framed(Kind::Text, &[b'0' + n; 10])).collect();
        for left in 0..120 {
            let mut out = Outgoing::new(Role::Server);
            let mut wire = Narrow { got: Vec::new(), step: 7, left };
            frames.iter().for_each(|frame| out.frame(frame.clone()));
            let mut cx = Context::from_waker(Waker::noop());
            let _ = out.poll_flush(&mut wire, &mut cx);
            let back = out.take_back(10);
            assert_eq!(back, 10 - left.div_ceil(12));
            wire.left = usize::MAX;
            assert!(out.poll_flush(&mut wire, &mut cx).is_ready());
            assert_eq!(wire.got, frames[..10 - back].concat());
        }
    }
}
