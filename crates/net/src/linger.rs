//! An end that the other side hears of: what is closed while it still sends answers with a reset, and
//! a reset takes the last answer with it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// So long what still comes is read, and thrown away.
const LINGER: Duration = Duration::from_secs(2);

/// How much of it at once, on the stack.
const PIECE_BYTES: usize = 4 << 10;

/// A stream that reads on a little when it has been shut down, where there may be more to come: until
/// its peer closes it, 2 s at most.
pub(crate) struct Lingering<S> {
    stream: S,
    /// Whether there may be more to come than anyone wants.
    unread: Arc<AtomicBool>,
    /// Whether the peer has closed it.
    ended: bool,
    /// From when its own end is closed.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(crate) fn new(stream: S, unread: Arc<AtomicBool>) -> Self {
        Self { stream, unread, ended: false, until: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (filled, room) = (buffer.filled().len(), buffer.remaining());
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        self.ended |= read.is_err() || (room > 0 && buffer.filled().len() == filled);
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Open => Lingering => Closed
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // ## Open => (Lingering | Closed)
        if self.until.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if self.ended || !self.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            self.until = Some(Box::pin(sleep(LINGER)));
        }
        // ## Lingering => Closed
        while !self.ended {
            if let Some(until) = &mut self.until
                && until.as_mut().poll(cx).is_ready()
            {
                break;
            }
            let mut piece = [0; PIECE_BYTES];
            // What it says is of no interest; its error is an end too.
            let _ = ready!(self.as_mut().poll_read(cx, &mut ReadBuf::new(&mut piece)));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    fn lingering<S>(stream: S, unread: bool) -> Lingering<S> {
        Lingering::new(stream, Arc::new(AtomicBool::new(unread)))
    }

    #[tokio::test(start_paused = true)]
    async fn who_still_sends_is_read_until_it_closes_and_hears_the_last_word() {
        let (ours, mut theirs) = duplex(100);
        let mut ours = lingering(ours, true);
        ours.write_all(b"no").await.unwrap();
        let sending = async {
            theirs.write_all(&[0; 100_000]).await.unwrap();
            let mut heard = String::new();
            theirs.read_to_string(&mut heard).await.unwrap();
            drop(theirs);
            heard
        };
        let began = Instant::now();
        let (heard, closed) = tokio::join!(sending, ours.shutdown());
        closed.unwrap();
        assert_eq!((&*heard, began.elapsed()), ("no", Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_closes_is_left_in_the_end_and_who_owes_nothing_at_once() {
        for (unread, spent) in [(true, LINGER), (false, Duration::ZERO)] {
            let (ours, _theirs) = duplex(100);
            let began = Instant::now();
            lingering(ours, unread).shutdown().await.unwrap();
            assert_eq!(began.elapsed(), spent);
        }
        // One that has closed its end already.
        let (ours, theirs) = duplex(100);
        let mut ours = lingering(ours, true);
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 9]).await.unwrap(), 0);
        let began = Instant::now();
        let _ = ours.shutdown().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
