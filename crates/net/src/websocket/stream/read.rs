//! How a connection is read: into memory that was asked for, as far as messages are whole.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tidegate_flow::Permit;
use tokio::io::ReadBuf;

use super::super::frame::{Head, Kind, apply_mask, close_payload, close_reason};
use super::super::messages::Gathering;
use super::super::partial::Partial;
use super::super::{Failure, Messages};
use super::{Ended, MessageStream, READ_BYTES, SCRATCH, State, Wire};

impl<W: Wire> MessageStream<W> {
    /// Waits until there is room.
    fn poll_room(
        &mut self,
        bytes: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Permit>, Failure>> {
        let Some(holder) = &self.holder else { return Poll::Ready(Ok(None)) };
        if self.asking.is_none()
            && let Some(permit) = holder.try_acquire(bytes)
        {
            return Poll::Ready(Ok(Some(permit)));
        }
        let asking = self.asking.get_or_insert_with(|| {
            let holder = Arc::clone(holder);
            Box::pin(async move { holder.acquire(bytes).await })
        });
        let asked = ready!(asking.as_mut().poll(cx));
        self.asking = None;
        Poll::Ready(asked.map(Some).map_err(Failure::NoRoom))
    }

    /// Reads once: messages, or nothing whole.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Messages>, Failure>> {
        if let Some(messages) = self.next.take() {
            return Poll::Ready(Ok(Some(messages)));
        }
        if let Some(failure) = self.failed.take() {
            return Poll::Ready(Err(failure));
        }
        if let Some((head, needs)) = self.wants {
            let permit = ready!(self.poll_room(needs, cx))?;
            self.wants = None;
            self.begin(&head, permit)?;
        }
        if let Some(partial) = &mut self.partial {
            if partial.rest() > 0 {
                return self.poll_body(cx);
            }
            if partial.last && partial.filled > 0 {
                return Poll::Ready(Ok(Some(self.complete())));
            }
        }
        self.poll_frames(cx)
    }

    /// There is room for the message whose first frame the tail begins with.
    fn begin(&mut self, head: &Head, permit: Option<Permit>) -> Result<(), Failure> {
        let tail = mem::take(&mut self.tail);
        let mut partial = Partial::new(head.kind == Kind::Text, permit);
        let at_hand = tail.get(head.bytes..).unwrap_or_default();
        partial.frame(head, at_hand, self.options.message_bytes_max);
        self.tail = at_hand.get(head.payload..).unwrap_or_default().to_vec();
        self.parse_tail = !self.tail.is_empty();
        let checked = if partial.rest() == 0 { partial.check() } else { Ok(()) };
        self.partial = Some(Box::new(partial));
        self.clock.message_begins();
        checked
    }

    /// Reads the rest of a frame to where it belongs.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Messages>, Failure>> {
        let Some(partial) = &mut self.partial else { return Poll::Ready(Ok(None)) };
        let filled = partial.filled;
        let mut space = ReadBuf::new(partial.payload.get_mut(filled..).unwrap_or_default());
        let read = Pin::new(&mut self.wire).poll_read(cx, &mut space)?;
        self.dry = read.is_pending();
        ready!(read);
        let count = space.filled().len();
        if count == 0 {
            return Poll::Ready(Err(Failure::Cut));
        }
        partial.read(count);
        self.clock.heard();
        if partial.rest() == 0 {
            partial.check()?;
        }
        Poll::Ready(Ok(None))
    }

    /// All of a message is there.
    fn complete(&mut self) -> Messages {
        let Some(partial) = self.partial.take() else { return Messages::default() };
        self.clock.message_ends();
        let Partial { text, mut payload, permit, .. } = *partial;
        if payload.capacity() > payload.len() + payload.len() / 4 {
            payload.shrink_to_fit();
        }
        Gathering::of(payload, text).done(permit)
    }

    /// Reads whatever comes, and takes it apart.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Messages>, Failure>> {
        if self.dry && !self.parse_tail {
            ready!(self.wire.poll_readable(cx))?;
        }
        // A message of which a part is there has its room.
        let permit = match self.partial {
            Some(_) => None,
            None => ready!(self.poll_room(READ_BYTES, cx))?,
        };
        let mut scratch = SCRATCH.take();
        scratch.resize(READ_BYTES.max(self.tail.len()), 0);
        let read = self.poll_scratch(&mut scratch, cx);
        let parsed = match &read {
            Poll::Ready(Ok(filled)) => {
                self.parse_tail = false;
                Some(self.parse(scratch.get(..*filled).unwrap_or_default(), permit))
            }
            _ => None,
        };
        SCRATCH.set(scratch);
        ready!(read)?;
        Poll::Ready(parsed.unwrap_or(Ok(None)))
    }

    /// The tail and what comes behind it.
    fn poll_scratch(
        &mut self,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Failure>> {
        let tail = self.tail.len();
        if !self.parse_tail {
            let mut space = ReadBuf::new(scratch.get_mut(tail..).unwrap_or_default());
            let read = Pin::new(&mut self.wire).poll_read(cx, &mut space)?;
            self.dry = read.is_pending();
            ready!(read);
            let count = space.filled().len();
            if count == 0 {
                return Poll::Ready(Err(Failure::Cut));
            }
            self.clock.heard();
            self.copy_tail(scratch);
            return Poll::Ready(Ok(tail + count));
        }
        self.copy_tail(scratch);
        Poll::Ready(Ok(tail))
    }

    fn copy_tail(&mut self, scratch: &mut [u8]) {
        let tail = mem::take(&mut self.tail);
        if let Some(start) = scratch.get_mut(..tail.len()) {
            start.copy_from_slice(&tail);
        }
    }

    /// Takes whole frames; what is left is the tail.
    fn parse(&mut self, bytes: &[u8], permit: Option<Permit>) -> Result<Option<Messages>, Failure> {
        let mut gathering = Gathering::default();
        let mut used = 0;
        while self.state == State::Open && self.wants.is_none() && self.next.is_none() {
            let rest = bytes.get(used..).unwrap_or_default();
            let begun = self.partial.as_ref().map(|partial| partial.filled);
            let head = match Head::parse(rest, self.role, begun, &self.options) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(failure) => return self.fail_after(gathering, permit, failure),
            };
            let payload = rest.get(head.bytes..).unwrap_or_default();
            match self.take_frame(&head, payload, &mut gathering) {
                Ok(Some(taken)) => used += taken,
                Ok(None) => break,
                Err(failure) => return self.fail_after(gathering, permit, failure),
            }
        }
        if self.state == State::Open {
            self.keep_tail(bytes, used);
        }
        match gathering.is_empty() {
            true => Ok(self.next.take()),
            false => Ok(Some(gathering.done(permit))),
        }
    }

    /// Takes a frame, or as much of it as there is, and says how much that was; nothing where it is
    /// to wait for its rest, or for room. `payload` is what follows its head.
    fn take_frame(
        &mut self,
        head: &Head,
        payload: &[u8],
        gathering: &mut Gathering,
    ) -> Result<Option<usize>, Failure> {
        let whole = payload.get(..head.payload);
        if head.is_control() {
            return whole.map(|body| self.control(head, body)).transpose();
        }
        if let Some(partial) = &mut self.partial {
            partial.frame(head, payload, self.options.message_bytes_max);
            if partial.rest() == 0 {
                partial.check()?;
                if partial.last {
                    self.next = Some(self.complete());
                }
            }
            return Ok(Some(head.bytes + head.payload.min(payload.len())));
        }
        match whole {
            Some(body) if head.last => {
                let from = gathering.bytes.len();
                if from == 0 {
                    // All that is at hand may be messages; often it is one.
                    let one = payload.len() == head.payload;
                    gathering.bytes.reserve_exact(if one { body.len() } else { payload.len() });
                }
                gathering.bytes.extend_from_slice(body);
                let body = gathering.bytes.get_mut(from..).unwrap_or_default();
                if let Some(mask) = head.mask {
                    apply_mask(body, mask, 0);
                }
                let text = head.kind == Kind::Text;
                if text && std::str::from_utf8(body).is_err() {
                    gathering.bytes.truncate(from);
                    return Err(Failure::NotText);
                }
                gathering.end(text);
                Ok(Some(head.frame_bytes()))
            }
            None if head.last && head.frame_bytes() <= READ_BYTES => Ok(None),
            _ => {
                let all = self.options.message_bytes_max;
                self.wants = Some((*head, if head.last { head.payload } else { all }));
                Ok(None)
            }
        }
    }

    fn control(&mut self, head: &Head, body: &[u8]) -> Result<usize, Failure> {
        let mut said = body.to_vec();
        if let Some(mask) = head.mask {
            apply_mask(&mut said, mask, 0);
        }
        match head.kind {
            Kind::Ping => self.out.pong(&said),
            Kind::Close => {
                let (code, reason) = close_reason(&said)?.unzip();
                let answer = code.map(|code| close_payload(code, "")).unwrap_or_default();
                self.out.control(Kind::Close, &answer);
                self.closing(Ended { code, reason: reason.unwrap_or_default(), by_peer: true });
            }
            _ => {}
        }
        Ok(head.frame_bytes())
    }

    /// What was not used waits for its rest, though not for ever.
    fn keep_tail(&mut self, bytes: &[u8], used: usize) {
        self.tail = bytes.get(used..).unwrap_or_default().to_vec();
        self.parse_tail = self.next.is_some() && !self.tail.is_empty();
        if self.partial.is_some() {
            return;
        }
        if used > 0 {
            self.clock.message_ends();
        }
        if !self.tail.is_empty() && !self.parse_tail && self.wants.is_none() {
            self.clock.message_begins();
        }
    }
    /// What came before an error is given before it.
    fn fail_after(
        &mut self,
        gathering: Gathering,
        permit: Option<Permit>,
        failure: Failure,
    ) -> Result<Option<Messages>, Failure> {
        if gathering.is_empty() {
            return Err(failure);
        }
        self.failed = Some(failure);
        Ok(Some(gathering.done(permit)))
    }
}
