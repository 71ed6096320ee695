//! `fan_out` against a model of queues, and what its consumers are told at the end.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::task::Context;

use futures::{FutureExt, StreamExt, stream};
use proptest::prelude::*;
use tidegate_flow::{Consumer, Ended, FanOut, FlowExt, WhenFull, nz};
use tidegate_testkit::script::{Script, Scripted, script};
use tidegate_testkit::wakes::Wakes;

/// One consumer as the docs describe it.
struct Model {
    queue: VecDeque<u32>,
    capacity: usize,
    when_full: WhenFull,
    dropped: u64,
    owed: bool,
    disconnected: bool,
}

impl Model {
    fn offer(&mut self, item: u32) {
        if self.disconnected {
            return;
        }
        if self.queue.len() < self.capacity {
            self.queue.push_back(item);
            self.owed = false;
            return;
        }
        self.owed = self.when_full == WhenFull::Block;
        self.dropped += u64::from(!self.owed);
        self.disconnected = self.when_full == WhenFull::Disconnect;
        if self.when_full == WhenFull::DropOldest {
            self.queue.pop_front();
            self.queue.push_back(item);
        }
    }
}

struct Pair {
    script: Script<u32>,
    fan_out: FanOut<Scripted<u32>>,
    given: VecDeque<u32>,
    held: u32,
    consumers: Vec<(Consumer<u32>, Model)>,
}

impl Pair {
    /// Lets the fan-out and its model do all they can.
    fn drive(&mut self) -> Result<(), TestCaseError> {
        let wakes = Wakes::new();
        loop {
            let waker = wakes.waker();
            prop_assert!(self.fan_out.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
            if wakes.take() == 0 {
                break; // it did not just yield, it waits
            }
        }
        loop {
            let held = self.held;
            let owed = self.consumers.iter_mut().map(|(_, model)| model);
            owed.filter(|model| model.owed).for_each(|model| model.offer(held));
            let open = |model: &Model| !model.disconnected;
            if self.consumers.iter().any(|(_, model)| model.owed)
                || !self.consumers.iter().any(|(_, model)| open(model))
            {
                return Ok(());
            }
            let Some(item) = self.given.pop_front() else {
                return Ok(());
            };
            self.held = item;
            self.consumers.iter_mut().for_each(|(_, model)| model.offer(item));
        }
    }

    fn step(&mut self, action: u8, which: usize, capacity: usize) -> Result<(), TestCaseError> {
        match action {
            0 => {
                let policies = [
                    WhenFull::Block,
                    WhenFull::DropNewest,
                    WhenFull::DropOldest,
                    WhenFull::Disconnect,
                ];
                let when_full = policies[which % 4];
                let room = NonZeroUsize::new(capacity).unwrap();
                let consumer = self.fan_out.handle().subscribe(room, when_full);
                let model = Model {
                    queue: VecDeque::new(),
                    capacity,
                    when_full,
                    dropped: 0,
                    owed: false,
                    disconnected: false,
                };
                self.consumers.push((consumer, model));
                self.drive()?; // it joins when the fan-out is next polled
            }
            1 if which < self.consumers.len() => drop(self.consumers.swap_remove(which)),
            2..=5 => {
                self.script.push(u32::from(action) * 1_000 + which as u32);
                self.given.push_back(u32::from(action) * 1_000 + which as u32);
            }
            6 | 7 => self.drive()?,
            _ => {
                if let Some((consumer, model)) = self.consumers.get_mut(which) {
                    let expected = match model.queue.pop_front() {
                        Some(item) => Some(Some(item)),
                        None => model.disconnected.then_some(None),
                    };
                    prop_assert_eq!(consumer.next().now_or_never(), expected);
                }
            }
        }
        for (consumer, model) in &self.consumers {
            prop_assert_eq!(consumer.dropped(), model.dropped);
            prop_assert_eq!(consumer.queued(), model.queue.len());
            prop_assert_eq!(consumer.ended(), model.disconnected.then_some(Ended::TooSlow));
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn agrees_with_queues(
        steps in prop::collection::vec((0_u8..14, 0_usize..6, 1_usize..5), 0..300),
    ) {
        let (script, source) = script();
        let fan_out = source.fan_out();
        let _open = fan_out.handle();
        let consumers = Vec::new();
        let mut pair = Pair { script, fan_out, given: VecDeque::new(), held: 0, consumers };
        for (action, which, capacity) in steps {
            pair.step(action, which, capacity)?;
        }
    }
}

#[tokio::test]
async fn a_stalled_blocking_consumer_has_cost_the_others_one_item() {
    let fan_out = stream::iter(0..1_000).fan_out();
    let handle = fan_out.handle();
    let stalled = handle.subscribe(nz!(2), WhenFull::Block);
    let screen = handle.subscribe(nz!(10), WhenFull::DropOldest);
    let driving = tokio::spawn(fan_out);
    while screen.queued() < 3 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert_eq!((stalled.queued(), screen.queued(), screen.dropped()), (2, 3, 0));
    drop(stalled);
    drop(handle);
    driving.await.unwrap();
    assert_eq!((screen.count().await), 10);
}

#[tokio::test]
async fn consumers_are_told_why_it_ended() {
    let fan_out = stream::iter(0..3).fan_out();
    let mut finished = fan_out.handle().subscribe(nz!(9), WhenFull::Block);
    let handle = fan_out.handle();
    fan_out.await;
    assert_eq!(finished.by_ref().collect::<Vec<_>>().await, [0, 1, 2]);
    assert_eq!(finished.ended(), Some(Ended::Finished));
    let mut late = handle.subscribe(nz!(9), WhenFull::Block);
    assert_eq!((late.next().await, late.ended()), (None, Some(Ended::Finished)));

    let fan_out = stream::iter(0..).fan_out();
    let mut aborted = fan_out.handle().subscribe(nz!(2), WhenFull::Block);
    assert!(tokio::time::timeout(std::time::Duration::ZERO, fan_out).await.is_err());
    assert_eq!(aborted.by_ref().collect::<Vec<_>>().await, [0, 1]);
    assert_eq!(aborted.ended(), Some(Ended::Aborted));

    let fan_out = stream::iter([0, 1, 2, 3]).map(|n| 1 / (2 - n)).fan_out();
    let mut broken = fan_out.handle().subscribe(nz!(9), WhenFull::Block);
    assert!(tokio::spawn(fan_out).await.unwrap_err().is_panic());
    assert_eq!(broken.by_ref().collect::<Vec<_>>().await, [0, 1]);
    assert_eq!(broken.ended(), Some(Ended::Aborted));
}

#[tokio::test]
async fn without_consumers_it_waits_and_without_handles_it_ends() {
    let (script, source) = script();
    script.extend(0..5);
    let mut fan_out = source.fan_out();
    let handle = fan_out.handle();
    assert!((&mut fan_out).now_or_never().is_none());
    assert_eq!(script.pulled(), 0);
    let consumer = handle.subscribe(nz!(9), WhenFull::Block);
    assert!((&mut fan_out).now_or_never().is_none());
    assert_eq!(consumer.queued(), 5);
    drop(consumer);
    script.push(5);
    assert!((&mut fan_out).now_or_never().is_none());
    assert_eq!(script.pulled(), 5, "nobody is there to take it");
    drop(handle);
    assert!((&mut fan_out).now_or_never().is_some());
}
