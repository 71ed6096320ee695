//! Pitfalls of streams: each one fallen into, and the way around it, both run and watched.
//!
//! One module each, with a `wrong` and a `right` that differ in little but the mistake. The wrong
//! versions compile without a warning, and pass a quick look with a few items on an idle machine.
//!
//! Run it: `cargo run -p tidegate-flow --example pitfalls`

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{Stream, StreamExt, stream};
use tokio::task::{JoinError, yield_now};

/// What was seen of the wrong version and of the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed<T> {
    /// Of the wrong version.
    pub wrong: T,
    /// Of the right version.
    pub right: T,
}

/// What was seen of all pitfalls.
#[derive(Debug)]
pub struct Outcome {
    /// The greatest number of rows alive at a time, of [`ROWS`].
    pub unbounded_buffer: Observed<usize>,
    /// The greatest number of rows alive at a time, of [`ROWS`].
    pub collecting_everything: Observed<usize>,
    /// Turns that a neighbour in the same runtime got while the work was done.
    pub blocking_in_poll: Observed<usize>,
    /// Items got from a stream that has three.
    pub poll_after_end: Observed<usize>,
    /// Rings of the bell that were heard; `None` where the listener sat there for ever.
    pub lost_waker: Observed<Option<usize>>,
    /// Steps that the work made while the consumer was busy.
    pub buffered_stands_still: Observed<usize>,
}

/// Falls into every pitfall, and goes around it.
///
/// # Errors
///
/// Where a task panicked, which none does.
pub async fn run() -> Result<Outcome, JoinError> {
    Ok(Outcome {
        unbounded_buffer: Observed {
            wrong: unbounded_buffer::wrong().await,
            right: unbounded_buffer::right().await,
        },
        collecting_everything: Observed {
            wrong: collecting_everything::wrong().await,
            right: collecting_everything::right().await,
        },
        blocking_in_poll: Observed {
            wrong: blocking_in_poll::wrong().await,
            right: blocking_in_poll::right().await?,
        },
        poll_after_end: Observed {
            wrong: poll_after_end::wrong().await,
            right: poll_after_end::right().await,
        },
        lost_waker: Observed {
            wrong: lost_waker::wrong().await?,
            right: lost_waker::right().await?,
        },
        buffered_stands_still: Observed {
            wrong: buffered_stands_still::wrong().await,
            right: buffered_stands_still::right().await,
        },
    })
}

/// How many rows the sources have that fill memory.
pub const ROWS: usize = 1_000;

/// Counts rows alive, wherever they are: in a queue, in a `Vec`, in somebody's hand.
#[derive(Clone, Debug, Default)]
struct Census(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    alive: AtomicUsize,
    most: AtomicUsize,
}

impl Census {
    /// Always ready, as a file or a fast peer is.
    fn rows(&self) -> impl Stream<Item = Row> + Send + use<> {
        let census = self.clone();
        stream::iter(0..ROWS).map(move |_| census.row())
    }

    fn row(&self) -> Row {
        let alive = self.0.alive.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.most.fetch_max(alive, Ordering::Relaxed);
        Row(self.clone())
    }

    fn most(&self) -> usize {
        self.0.most.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Row(Census);

impl Drop for Row {
    fn drop(&mut self) {
        self.0.0.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a consumer does with rows; others get their turn meanwhile.
async fn store(rows: &[Row]) {
    for _ in rows {
        yield_now().await;
    }
}

/// A queue without a bound is a bound set by the machine's memory.
///
/// When the source is quicker than the consumer, all of it ends up in the queue. With a bound, the
/// source waits instead.
pub mod unbounded_buffer {
    use futures::StreamExt;
    use tidegate_flow::{FlowExt, nz};
    use tokio::sync::mpsc;

    use super::{Census, store};

    /// Reads ahead in a task, through an unbounded channel.
    pub async fn wrong() -> usize {
        let census = Census::default();
        let mut rows = census.rows();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(row) = rows.next().await {
                if sender.send(row).is_err() {
                    break;
                }
            }
        });
        while let Some(row) = receiver.recv().await {
            store(&[row]).await;
        }
        census.most()
    }

    /// Reads ahead in a task, up to 16 rows.
    pub async fn right() -> usize {
        let census = Census::default();
        let mut rows = census.rows().adaptive_buffer(nz!(4)..=nz!(16));
        while let Some(row) = rows.next().await {
            store(&[row]).await;
        }
        census.most()
    }
}

/// `collect` holds all there is before the first item is worked on; an endless stream never gets
/// that far.
pub mod collecting_everything {
    use std::pin::pin;

    use futures::StreamExt;
    use tidegate_flow::{BatchLimits, FlowExt, nz};

    use super::{Census, store};

    /// Collects all rows, to store them a hundred at a time.
    pub async fn wrong() -> usize {
        let census = Census::default();
        let rows: Vec<_> = census.rows().collect().await;
        for batch in rows.chunks(100) {
            store(batch).await;
        }
        census.most()
    }

    /// Stores a hundred rows at a time, as they come.
    pub async fn right() -> usize {
        let census = Census::default();
        let mut batches = pin!(census.rows().batch(BatchLimits::rows(nz!(100))));
        while let Some(batch) = batches.next().await {
            store(&batch).await;
        }
        census.most()
    }
}

/// A poll that works or blocks for long holds the thread, and with it every task, timer and socket
/// that the runtime has there.
pub mod blocking_in_poll {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{StreamExt, TryStreamExt, stream};
    use tidegate_flow::{FlowExt, nz};
    use tokio::task::{JoinError, spawn_blocking, yield_now};

    /// Stands for anything that takes long and awaits nothing: compression, a file, a lock.
    fn digest(block: u64) -> u64 {
        (0..100_000).fold(block, |hash: u64, n| hash.rotate_left(5) ^ n)
    }

    /// Digests in `map`, that is in the poll.
    pub async fn wrong() -> usize {
        let digests = stream::iter(0..20).map(digest);
        let (_, turns) = beside_a_neighbour(digests.collect::<Vec<_>>()).await;
        turns
    }

    /// Digests two blocks at a time, on the threads that the runtime has for that.
    ///
    /// # Errors
    ///
    /// Where a digest panicked.
    pub async fn right() -> Result<usize, JoinError> {
        let digests = stream::iter(0..20)
            .concurrent_map(nz!(2), |block| spawn_blocking(move || digest(block)));
        let (digests, turns) = beside_a_neighbour(digests.try_collect::<Vec<_>>()).await;
        digests.map(|_| turns)
    }

    /// Counts how often another task got its turn while the work was done.
    async fn beside_a_neighbour<W: Future>(work: W) -> (W::Output, usize) {
        let turns = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&turns);
        let neighbour = tokio::spawn(async move {
            loop {
                yield_now().await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let done = work.await;
        neighbour.abort();
        (done, turns.load(Ordering::Relaxed))
    }
}

/// After its end a stream may do as it likes when polled: begin again, panic, hang. Whoever polls
/// several streams in one loop must remember which of them ended.
pub mod poll_after_end {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures::{Stream, StreamExt, stream};

    /// Three items, the end; and, where it is asked again, all that once more.
    #[derive(Default)]
    struct Burst {
        given: usize,
    }

    impl Stream for Burst {
        type Item = usize;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<usize>> {
            self.given = (self.given + 1) % 4;
            Poll::Ready((self.given > 0).then_some(self.given))
        }
    }

    /// Polls the burst as it is.
    pub async fn wrong() -> usize {
        got_until_both_end(Burst::default()).await
    }

    /// Polls the burst through `fuse`, which remembers the end. (The operators of this crate do so
    /// by themselves: all are `FusedStream`s.)
    pub async fn right() -> usize {
        got_until_both_end(Burst::default().fuse()).await
    }

    /// Reads two streams in turn, until neither has more.
    async fn got_until_both_end(mut burst: impl Stream + Unpin) -> usize {
        let mut longer = stream::iter(0..5).fuse();
        let mut got = 0;
        loop {
            let (item, other) = (burst.next().await, longer.next().await);
            got += usize::from(item.is_some());
            if item.is_none() && other.is_none() {
                return got;
            }
        }
    }
}

/// Whoever returns `Pending` promises to wake the task later. Without the waker of the last poll
/// that cannot be kept, and the task sleeps for ever, unless something else happens to wake it:
/// which is why this is found in production.
pub mod lost_waker {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use std::time::Duration;

    use futures::task::AtomicWaker;
    use futures::{Stream, StreamExt, stream};
    use tokio::task::{JoinError, yield_now};
    use tokio::time::timeout;

    #[derive(Default)]
    struct Bell {
        rings: AtomicUsize,
        listener: AtomicWaker,
    }

    impl Bell {
        fn ring(&self) {
            self.rings.fetch_add(1, Ordering::Release);
            self.listener.wake();
        }

        fn poll_rings(&self) -> Poll<Option<usize>> {
            match self.rings.swap(0, Ordering::Acquire) {
                0 => Poll::Pending,
                rings => Poll::Ready(Some(rings)),
            }
        }
    }

    /// Looks, and goes to sleep without telling the bell.
    ///
    /// # Errors
    ///
    /// Where the listener panicked.
    pub async fn wrong() -> Result<Option<usize>, JoinError> {
        let bell = Arc::new(Bell::default());
        let heard = Arc::clone(&bell);
        listen(&bell, stream::poll_fn(move |_| heard.poll_rings())).await
    }

    /// Leaves the waker with the bell, and looks after that: a ring in between is not missed.
    ///
    /// # Errors
    ///
    /// Where the listener panicked.
    pub async fn right() -> Result<Option<usize>, JoinError> {
        let bell = Arc::new(Bell::default());
        let heard = Arc::clone(&bell);
        let rings = stream::poll_fn(move |cx| {
            heard.listener.register(cx.waker());
            heard.poll_rings()
        });
        listen(&bell, rings).await
    }

    /// Rings once; `None` where nobody has heard it by the time the patience is at its end.
    async fn listen(
        bell: &Bell,
        mut rings: impl Stream<Item = usize> + Send + Unpin + 'static,
    ) -> Result<Option<usize>, JoinError> {
        // In a task of its own, which only the bell can wake. A timeout around `next` itself would
        // poll that once more when the time is up, find the ring, and hide the mistake.
        let mut listener = tokio::spawn(async move { rings.next().await });
        yield_now().await; // the listener looks, finds nothing and goes to sleep
        bell.ring();
        match timeout(Duration::from_millis(200), &mut listener).await {
            Ok(heard) => heard,
            Err(_) => {
                listener.abort();
                Ok(None)
            }
        }
    }
}

/// The futures in `buffered` are polled only when the stream is: while its consumer is busy with an
/// item, they stand still, with all they hold. A server sees requests that pause half-way.
pub mod buffered_stands_still {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::{Stream, StreamExt, stream};
    use tidegate_flow::{FlowExt, nz};
    use tokio::time::sleep;

    /// Runs three jobs at a time with `buffered`.
    pub async fn wrong() -> usize {
        let steps = Arc::new(AtomicUsize::new(0));
        let results = stream::iter(1..=6).map(|length| job(length, Arc::clone(&steps)));
        steps_while_busy(results.buffered(3), &steps).await
    }

    /// Runs three jobs at a time in tasks.
    pub async fn right() -> usize {
        let steps = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&steps);
        let results = stream::iter(1..=6);
        let results = results.concurrent_map(nz!(3), move |length| job(length, Arc::clone(&count)));
        steps_while_busy(results, &steps).await
    }

    /// Many small steps, as a request over a network is.
    async fn job(length: usize, steps: Arc<AtomicUsize>) {
        for _ in 0..length * 5 {
            sleep(Duration::from_millis(1)).await;
            steps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the steps that are made while the consumer is busy with a result.
    async fn steps_while_busy(results: impl Stream<Item = ()>, steps: &AtomicUsize) -> usize {
        let mut results = pin!(results);
        let mut made = 0;
        while results.next().await.is_some() {
            let before = steps.load(Ordering::Relaxed);
            sleep(Duration::from_millis(20)).await; // busy with the result
            made += steps.load(Ordering::Relaxed) - before;
        }
        made
    }
}

fn show(pitfall: &str, seen: &str, Observed { wrong, right }: Observed<impl Debug>) {
    let wrong = format!("{wrong:?}"); // padded as a whole below, whatever its type
    println!("{pitfall:<24} {seen:<34} wrong: {wrong:<6} right: {right:?}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), JoinError> {
    let seen = run().await?;
    show("unbounded buffer", "most of 1,000 rows in memory", seen.unbounded_buffer);
    show("collecting everything", "most of 1,000 rows in memory", seen.collecting_everything);
    show("blocking in poll", "turns that others got meanwhile", seen.blocking_in_poll);
    show("poll after end", "items from a stream that has 3", seen.poll_after_end);
    show("lost waker", "rings heard (None: it hangs)", seen.lost_waker);
    show("buffered stands still", "steps made while we were busy", seen.buffered_stands_still);
    Ok(())
}
