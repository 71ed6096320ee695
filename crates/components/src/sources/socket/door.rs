//! Where connections come in: a listener's port, or a Unix socket, whose path is kept clean.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram as StdDatagram, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tidegate_model::{Error, Result};
use tidegate_net::listen::{Listener, Refused};
use tidegate_net::serve::Notice;
use tokio::net::{UnixDatagram, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep};

use super::wire::Wire;
use crate::network::Troubles;

/// So long accepting rests when there is no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Where connections come in.
pub(super) enum Door {
    Tcp(Listener),
    Unix(UnixDoor),
}

impl Door {
    /// The next connection, and who is at its other end. What does not come about is told.
    pub(super) fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        troubles: &mut Troubles,
    ) -> Poll<(Wire, String)> {
        let listener = match self {
            Self::Unix(door) => return door.poll_accept(cx, troubles),
            Self::Tcp(listener) => listener,
        };
        loop {
            match ready!(listener.poll_accept(cx)) {
                Ok(incoming) => {
                    let name = incoming.peer.to_string();
                    return Poll::Ready((Wire::Net(incoming.stream, incoming.slot), name));
                }
                Err(refused) => troubles.tell(&Notice::Refused(refused)),
            }
        }
    }
}

/// A Unix socket that takes connections.
pub(super) struct UnixDoor {
    listener: UnixListener,
    bound: Bound,
    slots: Arc<Semaphore>,
    /// After the kernel had no descriptor left.
    resting: Option<Pin<Box<Sleep>>>,
}

impl UnixDoor {
    pub(super) fn open(path: &Path, mode: Option<u32>, connections_max: usize) -> Result<Self> {
        clear(path, || StdStream::connect(path).map(drop))?;
        let listener = UnixListener::bind(path).map_err(|error| unusable(path, error))?;
        let slots = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Ok(Self { listener, bound: Bound::new(path, mode)?, slots, resting: None })
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        troubles: &mut Troubles,
    ) -> Poll<(Wire, String)> {
        loop {
            if let Some(rest) = &mut self.resting {
                ready!(rest.as_mut().poll(cx));
                self.resting = None;
            }
            let name = self.bound.path.display();
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => match Arc::clone(&self.slots).try_acquire_owned() {
                    Ok(slot) => return Poll::Ready((Wire::Unix(stream, slot), name.to_string())),
                    Err(_) => troubles.crowded(name),
                },
                Err(error) => {
                    self.resting = Some(Box::pin(sleep(EXHAUSTED)));
                    troubles.tell(&Notice::Refused(Refused::Failed(error)));
                }
            }
        }
    }
}

/// A Unix socket that takes datagrams, and its path.
pub(super) fn datagrams(path: &Path, mode: Option<u32>) -> Result<(UnixDatagram, Bound)> {
    clear(path, || StdDatagram::unbound()?.connect(path))?;
    let unix = UnixDatagram::bind(path).map_err(|error| unusable(path, error))?;
    Ok((unix, Bound::new(path, mode)?))
}

/// Removes a socket that nobody listens at any more.
fn clear(path: &Path, connect: impl FnOnce() -> io::Result<()>) -> Result<()> {
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        let said = format!("path: {} is there and no socket; remove it", path.display());
        return Err(Error::fatal(said));
    }
    match connect() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| unusable(path, error))
        }
        // It may not be ours to knock at.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(unusable(path, error)),
        _ => {
            let said = format!("path: another program listens at {}", path.display());
            Err(Error::disconnected(said + "; stop it, or take another path"))
        }
    }
}

fn unusable(path: &Path, error: io::Error) -> Error {
    Error::fatal(format!("path: can't listen at {}", path.display())).because(error)
}

/// A socket's path, removed when nobody listens there any more.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    /// Whose path it is, by device and inode: it may be another's by then.
    socket: Option<(u64, u64)>,
}

impl Bound {
    fn new(path: &Path, mode: Option<u32>) -> Result<Self> {
        let bound = Self { path: path.to_owned(), socket: identity(path) };
        if let Some(mode) = mode {
            let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
            set.map_err(|error| Error::fatal("permissions: can't be set").because(error))?;
        }
        Ok(bound)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.socket.is_some() && self.socket == identity(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}
