//! `ByteBudget`: one number of bytes for everything that holds data, without deadlock.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, MutexGuard, lock};

/// The accounts, without locks.
mod books;

use books::Books;
pub(crate) use books::Claim;

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
    books: Arc<Mutex<Books>>,
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
        Self { books: Arc::new(Mutex::new(Books::new(capacity))) }
    }

    /// Adds a holder that is guaranteed `minimum` bytes from now until it is dropped.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] where the minimum is more than what is neither reserved nor held above other
    /// holders' minimums at this moment. Add holders before data flows.
    pub fn holder(&self, minimum: usize) -> Result<BudgetHolder, NoRoom> {
        let mut books = lock(&self.books);
        let free = books.free();
        if minimum > free {
            return Err(NoRoom { minimum, free });
        }
        let index = books.open(minimum);
        wake_entitled(books); // some who waited may be over their thresholds now, or never fit
        Ok(BudgetHolder { books: Arc::clone(&self.books), index })
    }

    /// Use, peak and waiters at this moment.
    pub fn usage(&self) -> Usage {
        let books = lock(&self.books);
        let Books { capacity, used, peak, reserved, .. } = *books;
        Usage { capacity, used, peak, reserved, waiting: books.waiters.len() }
    }
}

/// One holder of a [`ByteBudget`]. Dropping it gives its minimum back; its permits stay valid.
#[derive(Debug)]
pub struct BudgetHolder {
    books: Arc<Mutex<Books>>,
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
        Acquire { claim: Claim::default(), holder: self, bytes }
    }

    /// So many bytes, if they may be had now and those who wait leave as much.
    pub fn try_acquire(&self, bytes: usize) -> Option<Permit> {
        let mut books = lock(&self.books);
        books.may_take(&Claim::default(), self.index, bytes).then(|| {
            books.grow(self.index, bytes);
            self.permit(bytes)
        })
    }

    /// Takes so many bytes without waiting, beyond the budget if need be: for data that is there
    /// already and turned out bigger than what was reserved for it. Until the debt is paid, nobody
    /// gets more than a minimum.
    pub fn charge(&self, bytes: usize) -> Permit {
        let mut books = lock(&self.books);
        let bytes = bytes.min(usize::MAX - books.used); // no memory holds more
        books.grow(self.index, bytes);
        wake_entitled(books); // its own requests may be over the threshold now, and delay nobody
        self.permit(bytes)
    }

    /// What this holder's permits hold together.
    pub fn held(&self) -> usize {
        lock(&self.books).holders.get(self.index).map_or(0, |account| account.used)
    }

    /// The most that one request of this holder can ever get.
    pub fn largest(&self) -> usize {
        lock(&self.books).largest(self.index)
    }

    fn permit(&self, bytes: usize) -> Permit {
        Permit { books: Arc::clone(&self.books), index: self.index, bytes }
    }

    /// For pollers that own their holder; the claim must be [cancelled](Self::cancel) if given up.
    pub(crate) fn poll_acquire(
        &self,
        claim: &mut Claim,
        bytes: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<Permit, TooLarge>> {
        let mut books = lock(&self.books);
        let largest = books.largest(self.index);
        let granted = bytes <= largest && books.may_take(claim, self.index, bytes);
        if bytes <= largest && !granted {
            let (mut woken, replaced) = books.wait(claim, self.index, bytes, cx);
            if claim.asked {
                woken.push(cx.waker().clone());
            }
            drop(books);
            woken.into_iter().for_each(Waker::wake);
            drop(replaced);
            return Poll::Pending;
        }
        if granted {
            books.grow(self.index, bytes);
        }
        leave(books, claim);
        let too_large = TooLarge { bytes, largest };
        Poll::Ready(if granted { Ok(self.permit(bytes)) } else { Err(too_large) })
    }

    pub(crate) fn cancel(&self, claim: &mut Claim) {
        if claim.ticket.is_some() {
            leave(lock(&self.books), claim);
        }
    }
}

impl Drop for BudgetHolder {
    fn drop(&mut self) {
        let mut books = lock(&self.books);
        books.close(self.index);
        wake_entitled(books);
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
    books: Arc<Mutex<Books>>,
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
        Some(Permit { books: Arc::clone(&self.books), index: self.index, bytes })
    }

    /// Takes the other permit's bytes over.
    ///
    /// # Errors
    ///
    /// The other permit, where it is of another holder: their shares are counted apart.
    pub fn merge(&mut self, mut other: Permit) -> Result<(), Permit> {
        if self.index != other.index || !Arc::ptr_eq(&self.books, &other.books) {
            return Err(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }

    /// Gives back what is above so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(self.bytes.checked_sub(bytes).and_then(|rest| self.split(rest)));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut books = lock(&self.books);
        books.shrink(self.index, self.bytes);
        wake_entitled(books);
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
        write!(f, "a minimum of {minimum} bytes can't be guaranteed: only {free} are free")
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
        write!(f, "{bytes} bytes at once can never be had: at most {largest} fit the budget")
    }
}

impl Error for TooLarge {}

/// Takes a request out of the line, and lets those behind it move up.
fn leave(mut books: MutexGuard<'_, Books>, claim: &mut Claim) {
    let waiter = std::mem::take(claim).ticket.and_then(|ticket| books.waiters.remove(&ticket));
    wake_entitled(books);
    drop(waiter);
}

/// Wakes whoever may find room at its next poll, after the lock is released.
fn wake_entitled(mut books: MutexGuard<'_, Books>) {
    let woken = books.entitled();
    drop(books);
    woken.into_iter().for_each(Waker::wake);
}

#[cfg(all(test, flow_loom))]
mod loom_tests {
    use loom::future::block_on;
    use loom::thread;

    use super::*;

    /// Two threads that both want most of the budget, one after the other, both get it.
    #[test]
    fn loom_budget_serves_both() {
        loom::model(|| {
            let budget = ByteBudget::new(100);
            let threads: Vec<_> = (0..2)
                .map(|_| budget.holder(0).unwrap())
                .map(|holder| thread::spawn(move || drop(block_on(holder.acquire(60)).unwrap())))
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!((budget.usage().used, budget.usage().waiting), (0, 0));
        });
    }

    /// A waiter that is cancelled as its turn comes leaves the turn to the next.
    #[test]
    fn loom_budget_cancelled_turn_moves_on() {
        model(|| {
            let budget = ByteBudget::new(100);
            let (first, second) = (budget.holder(0).unwrap(), budget.holder(0).unwrap());
            let held = first.try_acquire(60).unwrap();
            let mut cancelled = Box::pin(first.acquire(70));
            let polled = block_on(std::future::poll_fn(|cx| {
                Poll::Ready(cancelled.as_mut().poll(cx).is_pending())
            }));
            assert!(polled);
            let waiting = thread::spawn(move || drop(block_on(second.acquire(70)).unwrap()));
            drop(held);
            drop(cancelled);
            waiting.join().unwrap();
        });
    }

    fn model(check: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(check);
    }

    /// A request that a new holder makes impossible is refused, however late it hears of it; if it
    /// came first, the new holder is.
    #[test]
    fn loom_budget_tells_a_waiter_of_a_new_holder() {
        model(|| {
            let budget = ByteBudget::new(100);
            let (first, second) = (budget.holder(0).unwrap(), budget.holder(0).unwrap());
            let held = first.try_acquire(40).unwrap();
            let waiting = thread::spawn(move || block_on(second.acquire(80)).map(drop));
            let third = budget.holder(50);
            drop(held);
            let refused = waiting.join().unwrap();
            assert!(third.is_ok(), "60 were free, and none of them promised");
            assert_eq!(refused, Err(TooLarge { bytes: 80, largest: 50 }));
            assert_eq!((budget.usage().used, budget.usage().waiting), (0, 0));
        });
    }

    /// A debt that comes and goes beside waiters leaves nobody asleep.
    #[test]
    fn loom_budget_wakes_waiters_beside_debt() {
        model(|| {
            let budget = ByteBudget::new(100);
            let (first, second) = (budget.holder(0).unwrap(), budget.holder(10).unwrap());
            let held = second.try_acquire(60).unwrap();
            let waiting = thread::spawn(move || drop(block_on(first.acquire(70)).unwrap()));
            let debt = second.charge(100);
            drop(held);
            drop(debt);
            waiting.join().unwrap();
            assert_eq!((budget.usage().used, budget.usage().waiting), (0, 0));
        });
    }
}
