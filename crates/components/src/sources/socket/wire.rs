//! What a connection is read from, whatever kind it is: waits without memory, reads without waiting.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tidegate_net::listen::{Connection, Slot};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;

/// A connection.
#[derive(Debug)]
pub(super) enum Wire {
    /// Over a network, and its place among its listener's.
    Net(Connection, #[expect(dead_code, reason = "held, not read")] Slot),
    /// On this machine, and its place.
    Unix(UnixStream, #[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit),
}

impl Wire {
    /// Waits until there is something to read. TLS can't tell without reading: a byte of it is given
    /// then.
    pub(super) async fn readable(&mut self) -> io::Result<Option<u8>> {
        match self {
            Self::Net(Connection::Plain(tcp), _) => tcp.readable().await.map(|()| None),
            Self::Unix(unix, _) => unix.readable().await.map(|()| None),
            Self::Net(Connection::Tls(tls), _) => {
                let mut byte = [0];
                let read = poll_fn(|cx| {
                    let mut buffer = ReadBuf::new(&mut byte);
                    let read = Pin::new(&mut **tls).poll_read(cx, &mut buffer);
                    read.map_ok(|()| buffer.filled().len())
                });
                let read = read.await?;
                Ok((read > 0).then_some(byte[0]))
            }
        }
    }

    /// Reads what there is; `WouldBlock` where that is nothing, 0 at the end.
    pub(super) fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Net(Connection::Plain(tcp), _) => tcp.try_read(into),
            Self::Unix(unix, _) => unix.try_read(into),
            Self::Net(Connection::Tls(tls), _) => {
                let mut buffer = ReadBuf::new(into);
                // Whoever waits next does so by `readable`.
                let mut cx = Context::from_waker(Waker::noop());
                match Pin::new(&mut **tls).poll_read(&mut cx, &mut buffer) {
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                    Poll::Ready(read) => read.map(|()| buffer.filled().len()),
                }
            }
        }
    }
}
