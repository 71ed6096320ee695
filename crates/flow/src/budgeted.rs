//! `budgeted`: reserves before it pulls.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;

use crate::byte_budget::{BudgetHolder, Claim, Permit};

pin_project! {
    /// Stream for the [`budgeted`](crate::FlowExt::budgeted) method.
    ///
    /// The source is polled only with room for an item of the greatest cost in hand. What the item
    /// does not need is given back at once, and all of it where the source has nothing, so that an
    /// idle stream, or one that is not polled, holds nothing. An item dearer than the greatest cost
    /// is charged in full without waiting, as [`BudgetHolder::charge`] does: it is there already.
    /// Where the greatest cost is more than the budget could ever give this holder, as much as that
    /// is reserved.
    ///
    /// - **Ordering**: kept.
    /// - **Buffering**: none.
    /// - **Cancellation**: dropping it loses nothing and leaves the line; dropping a future that
    ///   waits for the next item keeps the place in line.
    /// - **End, error**: passed on; an error is an item like others, with a cost.
    ///
    /// ```
    /// use futures::{FutureExt, StreamExt, stream};
    /// use tidegate_flow::{ByteBudget, FlowExt};
    ///
    /// # fn main() -> Result<(), tidegate_flow::NoRoom> {
    /// let budget = ByteBudget::new(100);
    /// let lines = stream::iter(["a long line", "a line", "another line"]);
    /// let mut lines = lines.budgeted(budget.holder(100)?, 90, |line| line.len());
    ///
    /// let (line, permit) = lines.next().now_or_never().flatten().expect("there is room");
    /// assert_eq!((line, permit.bytes(), budget.usage().used), ("a long line", 11, 11));
    /// assert!(lines.next().now_or_never().is_none(), "89 bytes are left, a line may need 90");
    /// drop(permit);
    /// assert!(lines.next().now_or_never().is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "streams do nothing unless polled"]
    pub struct Budgeted<S, F> {
        #[pin]
        source: S,
        holder: BudgetHolder,
        claim: Claim,
        max_cost: usize,
        cost: F,
        ended: bool,
    }

    impl<S, F> PinnedDrop for Budgeted<S, F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            this.holder.cancel(this.claim);
        }
    }
}

impl<S: Stream, F: FnMut(&S::Item) -> usize> Budgeted<S, F> {
    pub(crate) fn new(source: S, holder: BudgetHolder, max_cost: usize, cost: F) -> Self {
        Self { source, holder, claim: Claim::default(), max_cost, cost, ended: false }
    }
}

impl<S: Stream, F: FnMut(&S::Item) -> usize> Stream for Budgeted<S, F> {
    type Item = (S::Item, Permit);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        let mut permit = loop {
            let bytes = (*this.max_cost).min(this.holder.largest());
            // Too large only where another holder came in between: then less is asked for.
            if let Ok(permit) = ready!(this.holder.poll_acquire(this.claim, bytes, cx)) {
                break permit;
            }
        };
        let Some(item) = ready!(this.source.poll_next(cx)) else {
            *this.ended = true;
            return Poll::Ready(None);
        };
        let cost = (this.cost)(&item);
        if cost > permit.bytes() {
            let more = this.holder.charge(cost - permit.bytes());
            let merged = permit.merge(more);
            debug_assert!(merged.is_ok(), "both are this holder's");
        }
        permit.shrink_to(cost);
        Poll::Ready(Some((item, permit)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.ended { (0, Some(0)) } else { self.source.size_hint() }
    }
}

impl<S: Stream, F: FnMut(&S::Item) -> usize> FusedStream for Budgeted<S, F> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}
