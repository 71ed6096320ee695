//! `ByteBudget`: one number of bytes for everything that holds data, without deadlock.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::sync::{Mutex, MutexGuard, lock};

/// A budget in bytes, shared by holders that each have a guaranteed minimum.
///
/// What a holder acquires comes as a [`Permit`] that travels with the data, through queues and
/// tasks, and is given back when it is dropped.
///
/// # Who gets what
///
/// - **Within its minimum** a holder never waits. The minimums together fit the budget, so a chain
///   of holders of which each needs at most its minimum to go on cannot come to a standstill.
/// - **Above it** a holder may take more only while it holds less above its minimum than is free:
///   the dynamic threshold of shared-memory switches (Choudhury & Hahne, *Dynamic Queue Length
///   Thresholds for Shared-Memory Packet Switches*, IEEE/ACM ToN 6(2), 1998, with α = 1). One busy
///   holder can have half of what is shared, two a third each, and a new one always finds room.
/// - **Waiters are served in the order they came** among those entitled now. One that is over its
///   threshold delays nobody; one that is entitled and needs more than is free is waited for, so
///   that small requests do not starve a large one.
/// - **Nothing is set aside for a future that is not polled.** A waiter that is woken takes its
///   bytes when it is polled. Others give way to it once; if it still has not been polled by then
///   (it sits in an array or a `select!` whose task is busy elsewhere), they go first, and it keeps
///   its place.
///
/// ```
/// use tidegate_flow::ByteBudget;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let budget = ByteBudget::new(1_000);
/// let (reader, writer) = (budget.holder(200)?, budget.holder(200)?);
///
/// let mut chunk = reader.acquire(450).await?; // 200 of its own, 250 of the 600 shared
/// let line = chunk.split(50).expect("there are 450");
/// drop(chunk);
/// assert_eq!((line.bytes(), budget.usage().used, budget.usage().peak), (50, 50, 450));
///
/// assert!(writer.try_acquire(801).is_none());
/// assert!(writer.acquire(801).await.is_err()); // could never be had: 200 + 600 is all
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ByteBudget {
    state: Arc<Mutex<State>>,
}

/// A reading of a [`ByteBudget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The size of the budget.
    pub capacity: usize,
    /// What is held in permits; above the capacity only by [`BudgetHolder::charge`].
    pub used: usize,
    /// The most that was ever held.
    pub peak: usize,
    /// The sum of the holders' minimums.
    pub reserved: usize,
    /// How many requests wait.
    pub waiting: usize,
}

impl ByteBudget {
    /// A budget of so many bytes.
    pub fn new(capacity: usize) -> Self {
        let state = State {
            capacity,
            used: 0,
            peak: 0,
            reserved: 0,
            over: 0,
            holders: Slab::new(),
            waiters: BTreeMap::new(),
            next_ticket: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Adds a holder that is guaranteed `minimum` bytes from now until it is dropped.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] where the minimum is more than what is neither reserved nor held above other
    /// holders' minimums at this moment. Add holders before data flows.
    pub fn holder(&self, minimum: usize) -> Result<BudgetHolder, NoRoom> {
        let mut state = lock(&self.state);
        let free = state.free();
        if minimum > free {
            return Err(NoRoom { minimum, free });
        }
        state.reserved += minimum;
        let index = state.holders.insert(Account {
            minimum,
            used: 0,
            closed: false,
        });
        Ok(BudgetHolder {
            state: Arc::clone(&self.state),
            index,
        })
    }

    /// Use, peak and waiters at this moment.
    pub fn usage(&self) -> Usage {
        let state = lock(&self.state);
        let State {
            capacity,
            used,
            peak,
            reserved,
            ..
        } = *state;
        Usage {
            capacity,
            used,
            peak,
            reserved,
            waiting: state.waiters.len(),
        }
    }
}

/// One holder of a [`ByteBudget`]. Dropping it gives its minimum back; its permits stay valid.
#[derive(Debug)]
pub struct BudgetHolder {
    state: Arc<Mutex<State>>,
    index: usize,
}

impl BudgetHolder {
    /// Waits until so many bytes may be had. Cancel-safe: dropping the future gives up its place in
    /// line and nothing else.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] where that many can never be had: split the request.
    pub fn acquire(&self, bytes: usize) -> Acquire<'_> {
        Acquire {
            claim: Claim::default(),
            holder: self,
            bytes,
        }
    }

    /// So many bytes, if they may be had now and those who wait leave as much.
    pub fn try_acquire(&self, bytes: usize) -> Option<Permit> {
        let mut state = lock(&self.state);
        state
            .may_take(&Claim::default(), self.index, bytes)
            .then(|| {
                state.grow(self.index, bytes);
                self.permit(bytes)
            })
    }

    /// Takes so many bytes without waiting, beyond the budget if need be: for data that is there
    /// already and turned out bigger than what was reserved for it. Until the debt is paid, nobody
    /// gets more than a minimum.
    pub fn charge(&self, bytes: usize) -> Permit {
        lock(&self.state).grow(self.index, bytes);
        self.permit(bytes)
    }

    /// What this holder's permits hold together.
    pub fn held(&self) -> usize {
        lock(&self.state)
            .holders
            .get(self.index)
            .map_or(0, |account| account.used)
    }

    /// The most that one request of this holder can ever get.
    pub fn largest(&self) -> usize {
        lock(&self.state).largest(self.index)
    }

    fn permit(&self, bytes: usize) -> Permit {
        Permit {
            state: Arc::clone(&self.state),
            index: self.index,
            bytes,
        }
    }

    /// For pollers that own their holder; the claim must be [cancelled](Self::cancel) if given up.
    pub(crate) fn poll_acquire(
        &self,
        claim: &mut Claim,
        bytes: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<Permit, TooLarge>> {
        let mut state = lock(&self.state);
        let largest = state.largest(self.index);
        let granted = bytes <= largest && state.may_take(claim, self.index, bytes);
        if bytes <= largest && !granted {
            let (mut woken, replaced) = state.wait(claim, self.index, bytes, cx);
            if claim.asked {
                woken.push(cx.waker().clone());
            }
            drop(state);
            woken.into_iter().for_each(Waker::wake);
            drop(replaced);
            return Poll::Pending;
        }
        if granted {
            state.grow(self.index, bytes);
        }
        State::leave(state, claim);
        let too_large = TooLarge { bytes, largest };
        Poll::Ready(if granted {
            Ok(self.permit(bytes))
        } else {
            Err(too_large)
        })
    }

    pub(crate) fn cancel(&self, claim: &mut Claim) {
        if claim.ticket.is_some() {
            State::leave(lock(&self.state), claim);
        }
    }
}

impl Drop for BudgetHolder {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.close(self.index);
        State::wake_entitled(state);
    }
}

/// Future for [`BudgetHolder::acquire`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<'a> {
    holder: &'a BudgetHolder,
    bytes: usize,
    claim: Claim,
}

impl Future for Acquire<'_> {
    type Output = Result<Permit, TooLarge>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.holder.poll_acquire(&mut this.claim, this.bytes, cx)
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        self.holder.cancel(&mut self.claim);
    }
}

/// So many bytes of a [`ByteBudget`], given back when this is dropped.
#[derive(Debug)]
#[must_use = "dropping the permit gives the bytes back"]
pub struct Permit {
    state: Arc<Mutex<State>>,
    index: usize,
    bytes: usize,
}

impl Permit {
    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Splits so many bytes off; `None` where it holds fewer.
    pub fn split(&mut self, bytes: usize) -> Option<Permit> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(Permit {
            state: Arc::clone(&self.state),
            index: self.index,
            bytes,
        })
    }

    /// Takes the other permit's bytes over.
    ///
    /// # Errors
    ///
    /// The other permit, where it is of another holder: their shares are counted apart.
    pub fn merge(&mut self, mut other: Permit) -> Result<(), Permit> {
        if self.index != other.index || !Arc::ptr_eq(&self.state, &other.state) {
            return Err(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }

    /// Gives back what is above so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(
            self.bytes
                .checked_sub(bytes)
                .and_then(|rest| self.split(rest)),
        );
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut state = lock(&self.state);
        state.shrink(self.index, self.bytes);
        State::wake_entitled(state);
    }
}

/// A holder's minimum did not fit: see [`ByteBudget::holder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// The minimum that was asked for.
    pub minimum: usize,
    /// What could have been guaranteed.
    pub free: usize,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { minimum, free } = self;
        write!(
            f,
            "a minimum of {minimum} bytes can't be guaranteed: only {free} are free"
        )
    }
}

impl Error for NoRoom {}

/// A request was for more than its holder can ever get: see [`BudgetHolder::acquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// The bytes that were asked for.
    pub bytes: usize,
    /// The most that can be asked for.
    pub largest: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, largest } = self;
        write!(
            f,
            "{bytes} bytes at once can never be had: at most {largest} fit the budget"
        )
    }
}

impl Error for TooLarge {}

/// Where a request stands between two polls.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    ticket: Option<u64>,
    // It gave way to those ahead, after waking them; they had their chance at the next poll.
    asked: bool,
}

/// The books. Pure: it is told who polls, and says whom to wake.
#[derive(Debug)]
struct State {
    capacity: usize,
    used: usize,
    peak: usize,
    reserved: usize,
    // What holders have above their minimums.
    over: usize,
    holders: Slab<Account>,
    // By ticket, so in the order they came.
    waiters: BTreeMap<u64, Waiter>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Account {
    minimum: usize,
    used: usize,
    closed: bool,
}

#[derive(Debug)]
struct Waiter {
    index: usize,
    bytes: usize,
    waker: Waker,
    // Woken, and not polled since: it may be one that nobody polls any more.
    woken: bool,
}

/// What a request would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Guaranteed,
    Shared { bytes: usize, fits: bool },
    OverThreshold,
}

impl Account {
    fn over(&self) -> usize {
        self.used.saturating_sub(self.minimum)
    }
}

impl State {
    fn free(&self) -> usize {
        self.capacity
            .saturating_sub(self.reserved)
            .saturating_sub(self.over)
    }

    fn largest(&self, index: usize) -> usize {
        let shared = self.capacity - self.reserved;
        self.holders
            .get(index)
            .map_or(0, |account| account.minimum.saturating_add(shared))
    }

    fn need(&self, index: usize, bytes: usize) -> Need {
        let Some(account) = self.holders.get(index) else {
            return Need::OverThreshold;
        };
        let over = account
            .used
            .saturating_add(bytes)
            .saturating_sub(account.minimum);
        let free = self.free();
        match over.saturating_sub(account.over()) {
            0 => Need::Guaranteed,
            _ if account.over() >= free => Need::OverThreshold,
            bytes => Need::Shared {
                bytes,
                fits: bytes <= free,
            },
        }
    }

    /// Those who came before and want of what is shared: how much, and whether they were woken.
    fn ahead(&self, ticket: Option<u64>) -> impl Iterator<Item = (u64, usize, bool)> {
        let range = self.waiters.range(..ticket.unwrap_or(u64::MAX));
        range.filter_map(
            |(ticket, waiter)| match self.need(waiter.index, waiter.bytes) {
                Need::Shared { bytes, .. } => Some((*ticket, bytes, waiter.woken)),
                _ => None,
            },
        )
    }

    /// Whether a request that is polled may take its bytes now.
    fn may_take(&self, claim: &Claim, index: usize, bytes: usize) -> bool {
        match self.need(index, bytes) {
            Need::Guaranteed => true,
            Need::Shared { bytes, fits: true } => {
                let mut left = Some(self.free() - bytes);
                for (_, wanted, woken) in self.ahead(claim.ticket) {
                    if !(claim.asked && woken) {
                        left = left.and_then(|left| left.checked_sub(wanted));
                    }
                    if left.is_none() {
                        return false;
                    }
                }
                true
            }
            _ => false,
        }
    }

    /// Puts a request that was polled in vain (back) in line. Where only those ahead are in its
    /// way, wakes them, to see at its next poll whether they still want it; the caller wakes itself.
    fn wait(
        &mut self,
        claim: &mut Claim,
        index: usize,
        bytes: usize,
        cx: &Context<'_>,
    ) -> (Vec<Waker>, Option<Waiter>) {
        let fits = matches!(self.need(index, bytes), Need::Shared { fits: true, .. });
        claim.asked = fits && !claim.asked;
        let asked: Vec<u64> = match claim.asked {
            true => self
                .ahead(claim.ticket)
                .map(|(ticket, ..)| ticket)
                .collect(),
            false => Vec::new(),
        };
        let mut woken = Vec::new();
        for ticket in asked {
            woken.extend(self.waiters.get_mut(&ticket).and_then(Waiter::wake));
        }
        let ticket = *claim.ticket.get_or_insert_with(|| {
            self.next_ticket += 1;
            self.next_ticket
        });
        let waker = cx.waker();
        let waiter = Waiter {
            index,
            bytes,
            waker: waker.clone(),
            woken: claim.asked,
        };
        (woken, self.waiters.insert(ticket, waiter))
    }

    /// Takes a request out of the line, and lets those behind it move up.
    fn leave(mut state: MutexGuard<'_, Self>, claim: &mut Claim) {
        let waiter = std::mem::take(claim)
            .ticket
            .and_then(|ticket| state.waiters.remove(&ticket));
        Self::wake_entitled(state);
        drop(waiter);
    }

    /// Wakes, in order, whoever may find room at its next poll: all for whom there is enough, up to
    /// the first one who is entitled and needs more than is free.
    fn wake_entitled(mut state: MutexGuard<'_, Self>) {
        let woken = state.entitled();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn entitled(&mut self) -> Vec<Waker> {
        let mut chosen = Vec::new();
        let mut open = true;
        for (ticket, waiter) in &self.waiters {
            let chance = match self.need(waiter.index, waiter.bytes) {
                Need::Guaranteed => true,
                Need::Shared { fits, .. } => {
                    open &= fits || waiter.woken;
                    open && fits
                }
                Need::OverThreshold => false,
            };
            if chance && !waiter.woken {
                chosen.push(*ticket);
            }
        }
        chosen
            .iter()
            .filter_map(|ticket| self.waiters.get_mut(ticket)?.wake())
            .collect()
    }

    fn grow(&mut self, index: usize, bytes: usize) {
        if let Some(account) = self.holders.get_mut(index) {
            let before = account.over();
            account.used += bytes;
            self.over += account.over() - before;
            self.used += bytes;
            self.peak = self.peak.max(self.used);
        }
    }

    fn shrink(&mut self, index: usize, bytes: usize) {
        if let Some(account) = self.holders.get_mut(index) {
            let before = account.over();
            account.used -= bytes;
            self.over -= before - account.over();
            self.used -= bytes;
        }
        self.forget_closed(index);
    }

    /// The minimum goes back to all; what the holder's permits still hold counts as shared.
    fn close(&mut self, index: usize) {
        if let Some(account) = self.holders.get_mut(index) {
            let before = account.over();
            self.reserved -= std::mem::take(&mut account.minimum);
            self.over += account.over() - before;
            account.closed = true;
        }
        self.forget_closed(index);
    }

    fn forget_closed(&mut self, index: usize) {
        if self
            .holders
            .get(index)
            .is_some_and(|account| account.closed && account.used == 0)
        {
            self.holders.remove(index);
        }
    }
}

impl Waiter {
    fn wake(&mut self) -> Option<Waker> {
        (!std::mem::replace(&mut self.woken, true)).then(|| self.waker.clone())
    }
}
