//! One tokio timer, made at its first use and set again after that; and a bell that tells when it
//! went off.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::sync::{Mutex, lock, park, wake};

/// Far enough for every purpose, near enough for every clock to add.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The instant that is `wait` from `now`, or 30 years off where that is later.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(FAR)
}

/// Sets the timer. It is made at the first call, so that no runtime is needed before that.
pub(crate) fn arm(mut timer: Pin<&mut Option<Sleep>>, deadline: Instant) {
    match timer.as_mut().as_pin_mut() {
        Some(sleep) => sleep.reset(deadline),
        None => timer.set(Some(sleep_until(deadline))),
    }
}

/// Stands between a timer and the task that waits for it, and notes when it rang: what passes until
/// then is the timer's lateness, what passes after that is the task's.
#[derive(Debug)]
pub(crate) struct Bell {
    rope: Arc<Rope>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Rope(Mutex<Rung>);

#[derive(Debug, Default)]
struct Rung {
    due: Option<Instant>,
    at: Option<Instant>,
    task: Option<Waker>,
}

impl Bell {
    pub(crate) fn new() -> Self {
        let rope = Arc::new(Rope::default());
        Self { waker: Waker::from(Arc::clone(&rope)), rope }
    }

    /// Says when it will be due: it may be rung before that too, but not by the timer.
    pub(crate) fn set(&self, due: Instant) {
        let mut rung = lock(&self.rope.0);
        rung.due = Some(due);
        rung.at = None;
    }

    /// Waits for what rings: the timer, and when it did. `None`: at this moment.
    pub(crate) fn poll(
        &self,
        timer: Pin<&mut impl Future>,
        cx: &Context<'_>,
    ) -> Poll<Option<Instant>> {
        park(lock(&self.rope.0), |rung| &mut rung.task, cx);
        ready!(timer.poll(&mut Context::from_waker(&self.waker)));
        Poll::Ready(lock(&self.rope.0).at)
    }
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let now = Instant::now();
        let mut rung = lock(&self.0);
        if rung.due.is_some_and(|due| due <= now) {
            rung.at.get_or_insert(now);
        }
        let task = rung.task.take();
        drop(rung);
        wake(task);
    }
}

#[cfg(all(test, flow_loom))]
mod loom_tests {
    use loom::future::block_on;
    use loom::thread;

    use super::*;
    use crate::nz;
    use crate::queue::{Capacity, Queue};

    /// A bell that is rung from another thread, before, during or after a poll, is heard.
    #[test]
    fn loom_bell_is_heard() {
        loom::model(|| {
            let queue = Arc::new(Queue::new(Capacity::fixed(nz!(1))));
            let timer = Arc::clone(&queue);
            let ringing = thread::spawn(move || assert!(timer.try_push(()).is_ok()));
            let bell = Bell::new();
            bell.set(Instant::now());
            let mut timer = Box::pin(std::future::poll_fn(|cx| queue.poll_pop(cx)));
            block_on(std::future::poll_fn(|cx| bell.poll(timer.as_mut(), cx)));
            ringing.join().unwrap();
        });
    }
}
