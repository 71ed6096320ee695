//! The queue between what a source feeds and a sink: bounded in bytes, with a policy for being
//! full.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tidegate_model::{Batch, Verdict};

use crate::graph::WhenFull;

/// Both ends of an edge. A batch that is bigger than the bound passes alone.
pub(crate) fn edge(when_full: WhenFull, bytes_max: usize) -> (EdgeSender, EdgeReceiver) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::default()),
        when_full,
        bytes_max,
        dropped: AtomicU64::new(0),
    });
    (EdgeSender(Arc::clone(&shared)), EdgeReceiver(shared))
}

/// What became of a batch that was offered.
#[derive(Debug)]
pub(crate) enum Offer {
    /// Queued, or dropped and counted by the policy.
    Taken,
    /// There is no room, and the policy is to wait.
    Full(Batch),
}

struct Shared {
    state: Mutex<State>,
    when_full: WhenFull,
    bytes_max: usize,
    dropped: AtomicU64,
}

/// A batch, or an end; wakers are woken, and batches dropped, after the lock is released.
#[derive(Default)]
struct State {
    queue: VecDeque<(Batch, usize)>,
    bytes: usize,
    ended: bool,
    abandoned: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

impl State {
    fn has_room(&self, bytes: usize, max: usize) -> bool {
        self.queue.is_empty() || self.bytes.saturating_add(bytes) <= max
    }

    fn push(&mut self, batch: Batch, bytes: usize) {
        self.bytes += bytes;
        self.queue.push_back((batch, bytes));
    }

    fn pop(&mut self) -> Option<Batch> {
        let (batch, bytes) = self.queue.pop_front()?;
        self.bytes -= bytes;
        Some(batch)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_by_policy(&self, batch: Batch) {
        self.dropped.fetch_add(batch.rows.num_rows() as u64, Ordering::Relaxed);
        batch.ack.settle(Verdict::Dropped);
    }
}

/// The source's end.
pub(crate) struct EdgeSender(Arc<Shared>);

impl EdgeSender {
    /// Queues a batch, or does what the policy says. Where the sink is gone the batch is dropped,
    /// and its ack with it: failed.
    pub(crate) fn offer(&self, batch: Batch) -> Offer {
        let bytes = batch.bytes();
        let mut over = Vec::new();
        let mut state = self.0.lock();
        if state.abandoned {
            drop(state);
            drop(batch);
            return Offer::Taken;
        }
        if !state.has_room(bytes, self.0.bytes_max) {
            match self.0.when_full {
                WhenFull::Block => return Offer::Full(batch),
                WhenFull::DropNewest => {
                    drop(state);
                    self.0.drop_by_policy(batch);
                    return Offer::Taken;
                }
                WhenFull::DropOldest => {
                    while !state.has_room(bytes, self.0.bytes_max) {
                        over.extend(state.pop());
                    }
                }
            }
        }
        state.push(batch, bytes);
        let receiver = state.receiver.take();
        drop(state);
        wake(receiver);
        over.into_iter().for_each(|batch| self.0.drop_by_policy(batch));
        Offer::Taken
    }

    /// Waits for room, and queues the batch. Cancel-safe but for the batch, which goes with the
    /// future.
    pub(crate) async fn send(&self, batch: Batch) {
        let bytes = batch.bytes();
        let mut batch = Some(batch);
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if !state.abandoned && !state.has_room(bytes, self.0.bytes_max) {
                let replaced = state.sender.replace(cx.waker().clone());
                drop(state);
                drop(replaced);
                return Poll::Pending;
            }
            let receiver = match batch.take() {
                Some(batch) if !state.abandoned => {
                    state.push(batch, bytes);
                    state.receiver.take()
                }
                gone => {
                    drop(state);
                    drop(gone);
                    return Poll::Ready(());
                }
            };
            drop(state);
            wake(receiver);
            Poll::Ready(())
        })
        .await;
    }

    pub(crate) fn gauge(&self) -> EdgeGauge {
        EdgeGauge(Arc::clone(&self.0))
    }
}

impl Drop for EdgeSender {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        let receiver = state.receiver.take();
        drop(state);
        wake(receiver);
    }
}

/// The sink's end: a stream of batches, in order.
pub(crate) struct EdgeReceiver(Arc<Shared>);

impl Stream for EdgeReceiver {
    type Item = Batch;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        let mut state = self.0.lock();
        let batch = state.pop();
        let ended = state.ended;
        let (woken, replaced) = match &batch {
            Some(_) => (state.sender.take(), None),
            None if ended => (None, None),
            None => (None, state.receiver.replace(cx.waker().clone())),
        };
        drop(state);
        drop(replaced);
        wake(woken);
        match batch {
            Some(batch) => Poll::Ready(Some(batch)),
            None if ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl Drop for EdgeReceiver {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        state.bytes = 0;
        let queue = std::mem::take(&mut state.queue);
        let sender = state.sender.take();
        drop(state);
        wake(sender);
        drop(queue);
    }
}

/// What is in an edge, readable from anywhere.
#[derive(Clone)]
pub(crate) struct EdgeGauge(Arc<Shared>);

impl EdgeGauge {
    pub(crate) fn queued_bytes(&self) -> usize {
        self.0.lock().bytes
    }

    pub(crate) fn queue_bytes_max(&self) -> usize {
        self.0.bytes_max
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
    use futures::{FutureExt, StreamExt};
    use proptest::prelude::*;
    use tidegate_model::Ack;

    use super::*;

    /// A batch of so many rows of 8 bytes, and what became of it.
    fn batch(rows: usize) -> (Batch, Receiver<Verdict>) {
        let (say, said) = channel();
        let column: ArrayRef = Arc::new(UInt64Array::from(vec![0; rows]));
        let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let ack = Ack::new(move |verdict| say.send(verdict).unwrap_or(()));
        let partition = "p".into();
        let (start, end, read_at, holds) = (0, 0, 0, Vec::new());
        (Batch { rows, partition, start, end, read_at, ack, holds }, said)
    }

    fn taken(receiver: &mut EdgeReceiver) -> Option<usize> {
        let batch = receiver.next().now_or_never()??;
        let rows = batch.rows.num_rows();
        batch.ack.settle(Verdict::Delivered);
        Some(rows)
    }

    #[test]
    fn each_policy_does_what_its_name_says() {
        for (when_full, left, verdicts) in [
            (WhenFull::DropNewest, [1, 2], [None, None, Some(Verdict::Dropped)]),
            (WhenFull::DropOldest, [2, 3], [Some(Verdict::Dropped), None, None]),
        ] {
            let (sender, mut receiver) = edge(when_full, 5 * 8);
            let mut said = Vec::new();
            for rows in 1..=3 {
                let (batch, verdict) = batch(rows);
                assert!(matches!(sender.offer(batch), Offer::Taken));
                said.push(verdict);
            }
            let dropped = 6 - left[0] - left[1];
            assert_eq!(sender.gauge().dropped(), dropped as u64);
            let said: Vec<_> = said.iter().map(|said| said.try_recv().ok()).collect();
            assert_eq!(said, verdicts);
            assert_eq!([taken(&mut receiver), taken(&mut receiver)], left.map(Some));
        }
    }

    #[tokio::test]
    async fn a_blocked_sender_goes_on_when_there_is_room() {
        let (sender, mut receiver) = edge(WhenFull::Block, 8);
        assert!(matches!(sender.offer(batch(1).0), Offer::Taken));
        let Offer::Full(back) = sender.offer(batch(1).0) else { panic!("it is full") };
        let mut sending = std::pin::pin!(sender.send(back));
        assert!(sending.as_mut().now_or_never().is_none());
        assert_eq!(taken(&mut receiver), Some(1));
        sending.await;
        assert_eq!(taken(&mut receiver), Some(1));
        assert_eq!(taken(&mut receiver), None);
    }

    #[tokio::test]
    async fn a_sink_that_leaves_fails_what_was_for_it() {
        let (sender, receiver) = edge(WhenFull::Block, 8);
        let ((queued, first), (waiting, second), (late, third)) = (batch(1), batch(1), batch(1));
        assert!(matches!(sender.offer(queued), Offer::Taken));
        let mut sending = std::pin::pin!(sender.send(waiting));
        assert!(sending.as_mut().now_or_never().is_none());
        drop(receiver);
        sending.await;
        assert!(matches!(sender.offer(late), Offer::Taken));
        assert!([first, second, third].iter().all(|said| said.recv() == Ok(Verdict::Failed)));
    }

    #[test]
    fn the_end_comes_after_what_is_queued() {
        let (sender, mut receiver) = edge(WhenFull::Block, 1);
        assert!(matches!(sender.offer(batch(100).0), Offer::Taken), "alone it passes");
        drop(sender);
        assert_eq!(taken(&mut receiver), Some(100));
        assert!(matches!(receiver.next().now_or_never(), Some(None)));
    }

    proptest! {
        /// Against a plain list: order, bound and counts, for every policy.
        #[test]
        fn keeps_order_bound_and_counts(
            policy in 0_usize..3,
            max in 1_usize..6,
            steps in proptest::collection::vec((1_usize..4, any::<bool>()), 1..100),
        ) {
            let when_full =
                [WhenFull::Block, WhenFull::DropNewest, WhenFull::DropOldest][policy];
            let (sender, mut receiver) = edge(when_full, max * 8);
            let mut model: VecDeque<usize> = VecDeque::new();
            let mut dropped = 0;
            for (rows, take) in steps {
                if take {
                    prop_assert_eq!(taken(&mut receiver), model.pop_front());
                    continue;
                }
                let fits = |model: &VecDeque<usize>| {
                    model.is_empty() || model.iter().sum::<usize>() + rows <= max
                };
                match sender.offer(batch(rows).0) {
                    Offer::Full(_) => prop_assert!(policy == 0 && !fits(&model)),
                    Offer::Taken if fits(&model) => model.push_back(rows),
                    Offer::Taken if policy == 1 => dropped += rows,
                    Offer::Taken => {
                        prop_assert_eq!(policy, 2);
                        while !fits(&model) {
                            dropped += model.pop_front().unwrap();
                        }
                        model.push_back(rows);
                    }
                }
                prop_assert_eq!(sender.gauge().dropped(), dropped as u64);
                prop_assert_eq!(sender.gauge().queued_bytes(), model.iter().sum::<usize>() * 8);
            }
        }
    }
}
