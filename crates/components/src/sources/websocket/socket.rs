//! One connection's messages, as they are read, and who sent them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tidegate_net::listen::Slot;
use tidegate_net::websocket::{CloseCode, Failure, MessageStream, Messages};
use tracing::debug;

use super::rows::Peer;
use crate::websocket::tell_pauses;

/// See the module.
pub(super) struct Socket {
    pub(super) stream: MessageStream,
    pub(super) peer: Arc<Peer>,
    pauses: u64,
    // Its place among the listener's.
    _slot: Option<Slot>,
}

impl Socket {
    pub(super) fn new(stream: MessageStream, peer: Arc<Peer>, slot: Option<Slot>) -> Self {
        Self { stream, peer, pauses: 0, _slot: slot }
    }

    /// Says that we are going, and waits for a while until the peer knows.
    pub(super) async fn close(mut self: Pin<Box<Self>>) {
        self.stream.close(CloseCode::Away, "").await;
    }
}

impl Stream for Socket {
    type Item = Result<(Messages, Arc<Peer>), Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = ready!(self.stream.poll_messages(cx));
        let this = &mut *self;
        tell_pauses(&this.peer.name, &mut this.pauses, this.stream.pauses());
        if polled.is_none() {
            let (peer, ended) = (&*this.peer.name, this.stream.ended());
            debug!(peer, ?ended, pauses = this.pauses, "the connection is closed");
        }
        Poll::Ready(polled.map(|read| read.map(|messages| (messages, Arc::clone(&this.peer)))))
    }
}
