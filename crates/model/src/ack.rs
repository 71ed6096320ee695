//! `Ack`: travels with a batch and says, in the end, what became of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// What became of a batch. Of several parts the greatest counts: failed wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Every sink has made it durable, or no sink was to have it.
    Delivered = 0,
    /// A policy dropped some of it, and counted that; positions move on.
    Dropped = 1,
    /// Some of it is not safe; it must be read again.
    Failed = 2,
}

/// The duty to say what became of a batch.
///
/// [`split`](Ack::split) makes another part of the same duty; the whole is settled once every part
/// is, with the worst of their verdicts. An ack that is dropped without a verdict has
/// [failed](Verdict::Failed): forgetting is never success.
///
/// ```
/// use std::sync::mpsc;
/// use tidegate_model::{Ack, Verdict};
///
/// let (say, said) = mpsc::channel();
/// let whole = Ack::new(move |verdict| say.send(verdict).unwrap());
/// let part = whole.split();
/// whole.settle(Verdict::Delivered);
/// assert!(said.try_recv().is_err(), "a part is still open");
/// drop(part);
/// assert_eq!(said.recv(), Ok(Verdict::Failed));
/// ```
#[must_use = "an ack that is dropped without a verdict has failed"]
pub struct Ack {
    // Taken when this part is settled, so that `drop` knows.
    duty: Option<Arc<Duty>>,
}

struct Duty {
    open: AtomicUsize,
    worst: AtomicU8,
    settled: Box<dyn Fn(Verdict) + Send + Sync>,
}

impl Ack {
    /// A duty of one part; `settled` is called once, by whoever settles the last part.
    pub fn new(settled: impl FnOnce(Verdict) + Send + 'static) -> Self {
        let settled = std::sync::Mutex::new(Some(settled));
        Self {
            duty: Some(Arc::new(Duty {
                open: AtomicUsize::new(1),
                worst: AtomicU8::new(Verdict::Delivered as u8),
                settled: Box::new(move |verdict| {
                    let settled = match settled.lock() {
                        Ok(mut settled) => settled.take(),
                        Err(poisoned) => poisoned.into_inner().take(),
                    };
                    if let Some(settled) = settled {
                        settled(verdict);
                    }
                }),
            })),
        }
    }

    /// Another part of the same duty.
    pub fn split(&self) -> Self {
        if let Some(duty) = &self.duty {
            duty.open.fetch_add(1, Ordering::Relaxed);
        }
        Self { duty: self.duty.clone() }
    }

    /// Says what became of this part.
    pub fn settle(mut self, verdict: Verdict) {
        self.give(verdict);
    }

    fn give(&mut self, verdict: Verdict) {
        let Some(duty) = self.duty.take() else { return };
        duty.worst.fetch_max(verdict as u8, Ordering::Relaxed);
        if duty.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let worst = match duty.worst.load(Ordering::Relaxed) {
                0 => Verdict::Delivered,
                1 => Verdict::Dropped,
                _ => Verdict::Failed,
            };
            (duty.settled)(worst);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        self.give(Verdict::Failed);
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.duty.as_ref().map(|duty| duty.open.load(Ordering::Relaxed));
        f.debug_struct("Ack").field("open", &open).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn ack() -> (Ack, Receiver<Verdict>) {
        let (say, said) = channel();
        (Ack::new(move |verdict| say.send(verdict).unwrap()), said)
    }

    #[test]
    fn the_worst_part_decides_in_any_order() {
        use Verdict::{Delivered, Dropped, Failed};
        for (verdicts, whole) in [
            ([Delivered, Delivered, Delivered], Delivered),
            ([Dropped, Delivered, Delivered], Dropped),
            ([Delivered, Failed, Dropped], Failed),
        ] {
            for turn in 0..3 {
                let (ack, said) = ack();
                let mut parts = vec![ack.split(), ack.split(), ack];
                parts.rotate_left(turn);
                for (part, verdict) in parts.into_iter().zip(verdicts) {
                    assert!(said.try_recv().is_err());
                    part.settle(verdict);
                }
                assert_eq!(said.try_iter().collect::<Vec<_>>(), [whole]);
            }
        }
    }

    #[test]
    fn parts_of_parts_settled_by_threads_are_told_once() {
        let (ack, said) = ack();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let part = ack.split();
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        part.split().settle(Verdict::Delivered);
                    }
                    part.settle(Verdict::Dropped);
                });
            }
            ack.settle(Verdict::Delivered);
        });
        assert_eq!(said.try_iter().collect::<Vec<_>>(), [Verdict::Dropped]);
    }

    #[test]
    fn an_ack_that_is_dropped_has_failed() {
        let (ack, said) = ack();
        let part = ack.split();
        drop(ack);
        part.settle(Verdict::Delivered);
        assert_eq!(said.try_iter().collect::<Vec<_>>(), [Verdict::Failed]);
    }
}
