//! The books of a [`ByteBudget`](super::ByteBudget): who holds what, and whose turn it is.

use std::collections::BTreeMap;
use std::task::{Context, Waker};

use slab::Slab;

/// Where a request stands between two polls.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    pub(super) ticket: Option<u64>,
    // It gave way to those ahead, after waking them; they had their chance at the next poll.
    pub(super) asked: bool,
    // When it last asked: once for each change of the books, or they would ask each other forever.
    asked_at: Option<u64>,
}

/// What is held, by whom, and who waits. Pure: it is told who polls, and says whom to wake.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) capacity: usize,
    pub(super) used: usize,
    pub(super) peak: usize,
    pub(super) reserved: usize,
    // What holders have above their minimums.
    over: usize,
    pub(super) holders: Slab<Account>,
    // By ticket, so in the order they came.
    pub(super) waiters: BTreeMap<u64, Waiter>,
    next_ticket: u64,
    // Counts what may let a waiter move up: bytes given back, requests granted or cancelled.
    changes: u64,
}

#[derive(Debug)]
pub(super) struct Account {
    minimum: usize,
    pub(super) used: usize,
    closed: bool,
}

#[derive(Debug)]
pub(super) struct Waiter {
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
    Shared {
        bytes: usize,
        fits: bool,
    },
    OverThreshold,
    /// More than there is for its holder, since another one came.
    TooLarge,
}

impl Account {
    fn over(&self) -> usize {
        self.used.saturating_sub(self.minimum)
    }
}

impl Books {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            used: 0,
            peak: 0,
            reserved: 0,
            over: 0,
            holders: Slab::new(),
            waiters: BTreeMap::new(),
            next_ticket: 0,
            changes: 0,
        }
    }

    /// A new account. Its minimum must fit what is free.
    pub(super) fn open(&mut self, minimum: usize) -> usize {
        self.reserved += minimum;
        self.holders.insert(Account { minimum, used: 0, closed: false })
    }

    pub(super) fn free(&self) -> usize {
        self.capacity.saturating_sub(self.reserved).saturating_sub(self.over)
    }

    pub(super) fn largest(&self, index: usize) -> usize {
        let shared = self.capacity - self.reserved;
        self.holders.get(index).map_or(0, |account| account.minimum.saturating_add(shared))
    }

    fn need(&self, index: usize, bytes: usize) -> Need {
        let Some(account) = self.holders.get(index) else {
            return Need::OverThreshold;
        };
        if bytes > self.largest(index) {
            return Need::TooLarge;
        }
        let over = account.used.saturating_add(bytes).saturating_sub(account.minimum);
        let free = self.free();
        match over.saturating_sub(account.over()) {
            0 => Need::Guaranteed,
            _ if account.over() >= free => Need::OverThreshold,
            bytes => Need::Shared { bytes, fits: bytes <= free },
        }
    }

    /// Those who came before and want of what is shared: how much, and whether they were woken.
    fn ahead(&self, ticket: Option<u64>) -> impl Iterator<Item = (u64, usize, bool)> {
        let range = self.waiters.range(..ticket.unwrap_or(u64::MAX));
        range.filter_map(|(ticket, waiter)| match self.need(waiter.index, waiter.bytes) {
            Need::Shared { bytes, .. } => Some((*ticket, bytes, waiter.woken)),
            _ => None,
        })
    }

    /// Whether a request that is polled may take its bytes now.
    pub(super) fn may_take(&self, claim: &Claim, index: usize, bytes: usize) -> bool {
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
    pub(super) fn wait(
        &mut self,
        claim: &mut Claim,
        index: usize,
        bytes: usize,
        cx: &Context<'_>,
    ) -> (Vec<Waker>, Option<Waiter>) {
        let fits = matches!(self.need(index, bytes), Need::Shared { fits: true, .. });
        claim.asked = fits && claim.asked_at.replace(self.changes) != Some(self.changes);
        let asked: Vec<u64> = match claim.asked {
            true => self.ahead(claim.ticket).map(|(ticket, ..)| ticket).collect(),
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
        let waiter = Waiter { index, bytes, waker: waker.clone(), woken: claim.asked };
        (woken, self.waiters.insert(ticket, waiter))
    }

    /// Wakes, in order, whoever may find room at its next poll: all for whom there is enough, up to
    /// the first one who is entitled and needs more than is free. And whoever never will, to say so.
    pub(super) fn entitled(&mut self) -> Vec<Waker> {
        self.changes += 1;
        let mut chosen = Vec::new();
        let mut open = true;
        for (ticket, waiter) in &self.waiters {
            let chance = match self.need(waiter.index, waiter.bytes) {
                Need::Guaranteed | Need::TooLarge => true,
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
        chosen.iter().filter_map(|ticket| self.waiters.get_mut(ticket)?.wake()).collect()
    }

    pub(super) fn grow(&mut self, index: usize, bytes: usize) {
        if let Some(account) = self.holders.get_mut(index) {
            let before = account.over();
            account.used += bytes;
            self.over += account.over() - before;
            self.used += bytes;
            self.peak = self.peak.max(self.used);
        }
    }

    pub(super) fn shrink(&mut self, index: usize, bytes: usize) {
        if let Some(account) = self.holders.get_mut(index) {
            let before = account.over();
            account.used -= bytes;
            self.over -= before - account.over();
            self.used -= bytes;
        }
        self.forget_closed(index);
    }

    /// The minimum goes back to all; what the holder's permits still hold counts as shared.
    pub(super) fn close(&mut self, index: usize) {
        if let Some(account) = self.holders.get_mut(index) {
            let before = account.over();
            self.reserved -= std::mem::take(&mut account.minimum);
            self.over += account.over() - before;
            account.closed = true;
        }
        self.forget_closed(index);
    }

    fn forget_closed(&mut self, index: usize) {
        if self.holders.get(index).is_some_and(|account| account.closed && account.used == 0) {
            self.holders.remove(index);
        }
    }
}

impl Waiter {
    fn wake(&mut self) -> Option<Waker> {
        (!std::mem::replace(&mut self.woken, true)).then(|| self.waker.clone())
    }
}
