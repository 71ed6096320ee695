//! Records that are not complete yet: kept, charged, and all together no more than so much, or those
//! that never end would leave no room to read the others.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::{Either, select};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where there is no other room, a connection may still keep so much: most records are shorter.
pub(super) const SHORT_BYTES: usize = 1 << 10;
/// All that is kept in this way.
const SHORTS_BYTES: usize = 1 << 20;
/// All else that is kept, but for one record.
const LONGS_BYTES: usize = 2 << 20;

/// Room for the records that are not complete yet, of all connections of a source.
///
/// A connection that has none does not read, and so its peer waits. One of those may go on all the
/// same, however long its record gets, until that ends: so the room never fills up with records of
/// which none can end. Whoever says nothing in the middle of its record while others wait for room
/// is [given up](Parts::wanted).
#[derive(Debug)]
pub(super) struct Parts {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    last: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// What one connection has of it.
#[derive(Debug, Default)]
pub(super) struct Room {
    short: Option<OwnedSemaphorePermit>,
    long: Option<OwnedSemaphorePermit>,
    last: Option<OwnedSemaphorePermit>,
}

impl Parts {
    pub(super) fn new() -> Self {
        Self {
            short: Arc::new(Semaphore::new(SHORTS_BYTES)),
            long: Arc::new(Semaphore::new(LONGS_BYTES)),
            last: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The most that can be kept, where a record has at most so many bytes.
    pub(super) fn bytes_max(record: usize) -> usize {
        record.saturating_add(SHORTS_BYTES + LONGS_BYTES)
    }

    /// Room for a connection that keeps `part` bytes and wants to have so many, or fewer; `None`
    /// where it has to [wait](Self::wait).
    pub(super) fn reserve(&self, room: &mut Room, part: usize, wants: usize) -> Option<usize> {
        let lacks = wants.saturating_sub(room.long());
        if room.last.is_some() || lacks == 0 {
            return Some(wants);
        }
        if let Some(more) = taken(&self.long, lacks) {
            room.add(more);
            return Some(wants);
        }
        // One more byte may be known already.
        if part + 1 >= SHORT_BYTES || wants < SHORT_BYTES {
            return None;
        }
        room.short = room.short.take().or_else(|| taken(&self.short, SHORT_BYTES));
        room.short.as_ref().map(|_| SHORT_BYTES)
    }

    /// Waits until there is as much room, or until it is this connection's turn to have any.
    pub(super) async fn wait(&self, room: &mut Room, wants: usize) {
        let _waiting = Waiting::new(&self.waiting);
        let last = pin!(acquired(&self.last, 1));
        let lacks = wants.saturating_sub(room.long());
        // What is nearly all of it would keep the others from theirs while it comes together.
        if lacks > LONGS_BYTES / 2 {
            room.last = last.await;
            return;
        }
        match select(pin!(acquired(&self.long, lacks)), last).await {
            Either::Left((Some(more), _)) => room.add(more),
            Either::Left((None, _)) => {}
            Either::Right((turn, _)) => room.last = turn,
        }
    }

    /// Whether others wait for room.
    pub(super) fn wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Gives back what is not needed to keep so many bytes.
    pub(super) fn keep(&self, room: &mut Room, bytes: usize) {
        if bytes == 0 {
            *room = Room::default();
            return;
        }
        if room.last.is_some() {
            let lacks = bytes.saturating_sub(room.long());
            match taken(&self.long, lacks) {
                Some(more) => room.add(more),
                None => return,
            }
            room.last = None;
        }
        if room.long() >= bytes {
            room.short = None;
            let more = room.long() - bytes;
            drop(room.long.as_mut().and_then(|long| long.split(more)));
        } else {
            room.long = None;
        }
    }
}

impl Room {
    fn long(&self) -> usize {
        self.long.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.long {
            Some(long) => long.merge(more),
            None => self.long = Some(more),
        }
    }
}

fn taken(from: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).ok()?;
    Arc::clone(from).try_acquire_many_owned(bytes).ok()
}

/// Nothing only where that is closed, which it never is.
fn acquired(
    from: &Arc<Semaphore>,
    bytes: usize,
) -> impl Future<Output = Option<OwnedSemaphorePermit>> + use<> {
    let (from, bytes) = (Arc::clone(from), u32::try_from(bytes).unwrap_or(u32::MAX));
    async move { from.acquire_many_owned(bytes).await.ok() }
}

/// One that waits, counted for as long as it does.
struct Waiting<'p>(&'p AtomicUsize);

impl<'p> Waiting<'p> {
    fn new(waiting: &'p AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
