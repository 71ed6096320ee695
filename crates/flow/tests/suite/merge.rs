//! `FairMerge` against queues, and how it treats what is told to it from elsewhere.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use futures::{FutureExt, StreamExt, stream};
use proptest::prelude::*;
use tidegate_flow::{FairMerge, Merged};
use tokio_stream::wrappers::UnboundedReceiverStream;

#[test]
fn a_handle_keeps_nothing_for_a_merge_that_is_gone() {
    let alive = Arc::new(());
    let source = || stream::iter([Arc::clone(&alive)]);
    let merge = FairMerge::new();
    let handle = merge.handle();
    handle.insert(1, source());
    drop(merge);
    handle.insert(2, source());
    assert_eq!(Arc::strong_count(&alive), 1);
}

/// A task that, when it is woken, wakes something else.
struct Relay(Mutex<Option<Waker>>);

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        let next = self.0.lock().unwrap().take();
        next.unwrap().wake();
    }
}

#[test]
fn a_new_source_wakes_the_task_without_a_lock() {
    let (told, wakers) = mpsc::channel();
    let source = stream::poll_fn(move |cx| {
        told.send(cx.waker().clone()).unwrap();
        Poll::<Option<()>>::Pending
    });
    let mut merge = FairMerge::new();
    merge.insert(1, source.boxed());
    let task = Arc::new(Relay(Mutex::default()));
    let waker = Waker::from(Arc::clone(&task));
    assert!(merge.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
    *task.0.lock().unwrap() = wakers.recv().ok();
    merge.insert(2, stream::pending().boxed()); // with the lock held, it would stand here
    assert_eq!(merge.len(), 2);
}

proptest! {
    /// Sends, closes, inserts, removes and reads at random: per key nothing is lost, repeated
    /// or reordered, and every end is told once.
    #[test]
    fn agrees_with_queues(steps in prop::collection::vec((0_usize..6, 0_u8..10), 0..300)) {
        let mut merge = FairMerge::new();
        let mut senders: HashMap<usize, tokio::sync::mpsc::UnboundedSender<u32>> = HashMap::new();
        let mut owed: HashMap<usize, VecDeque<Option<u32>>> = HashMap::new();
        for (counter, (key, action)) in steps.into_iter().enumerate() {
            match action {
                0 => {
                    let (sender, source) = tokio::sync::mpsc::unbounded_channel();
                    merge.insert(key, UnboundedReceiverStream::new(source));
                    senders.insert(key, sender);
                    owed.insert(key, VecDeque::new());
                }
                1 => {
                    if senders.remove(&key).is_some() {
                        owed.get_mut(&key).unwrap().push_back(None);
                    }
                }
                2 => {
                    merge.remove(&key);
                    senders.remove(&key);
                    owed.remove(&key);
                }
                3..=6 => {
                    if let Some(sender) = senders.get(&key) {
                        sender.send(counter as u32).unwrap();
                        owed.get_mut(&key).unwrap().push_back(Some(counter as u32));
                    }
                }
                _ => {
                    let expected = owed.values().any(|queue| !queue.is_empty());
                    match merge.next().now_or_never() {
                        Some(Some(Merged::Item(key, item))) => {
                            prop_assert_eq!(owed.get_mut(&key).unwrap().pop_front(), Some(Some(item)));
                        }
                        Some(Some(Merged::Ended(key))) => {
                            prop_assert_eq!(owed.remove(&key), Some(VecDeque::from([None])));
                        }
                        Some(None) => prop_assert!(merge.is_empty() && owed.is_empty()),
                        None => prop_assert!(!expected && !merge.is_empty()),
                    }
                }
            }
        }
    }
}
