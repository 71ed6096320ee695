//! `ByteBudget` under random use: its books, its promises to waiters, and no standstill.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use proptest::prelude::*;
use tidegate_flow::{Acquire, BudgetHolder, ByteBudget, FlowExt, Permit, TooLarge};
use tidegate_testkit::wakes::Wakes;

const CAPACITY: usize = 100;
const MINIMUMS: [usize; 3] = [0, 10, 25];
const SHARED: usize = CAPACITY - 35;
/// What a holder that comes later wants for itself.
const LATE_MINIMUM: usize = 20;

struct Request<'a> {
    future: Pin<Box<Acquire<'a>>>,
    wakes: Wakes,
    holder: usize,
    bytes: usize,
    asleep: bool,
}

/// The requests in the order they came, the permits, and what the rules say about both.
struct World<'a> {
    budget: &'a ByteBudget,
    holders: &'a [BudgetHolder],
    waiting: VecDeque<Request<'a>>,
    permits: Vec<(usize, Permit)>,
    /// Holders that came later; they ask for nothing.
    late: Vec<BudgetHolder>,
    /// Whether anyone has taken what there was no room for.
    charged: bool,
}

impl<'a> World<'a> {
    fn used(&self, holder: usize) -> usize {
        let of = self.permits.iter().filter(|(index, _)| *index == holder);
        of.map(|(_, permit)| permit.bytes()).sum()
    }

    fn over(&self, holder: usize) -> usize {
        self.used(holder).saturating_sub(MINIMUMS[holder])
    }

    fn shared(&self) -> usize {
        SHARED - self.late.len() * LATE_MINIMUM
    }

    fn free(&self) -> usize {
        let over: usize = (0..MINIMUMS.len()).map(|holder| self.over(holder)).sum();
        self.shared().saturating_sub(over)
    }

    /// Whether a request can never be granted, since a holder came.
    fn too_large(&self, at: usize) -> bool {
        let request = &self.waiting[at];
        request.bytes > MINIMUMS[request.holder] + self.shared()
    }

    /// What a request would take of what is shared; `None` if its holder is over its threshold.
    fn wants(&self, holder: usize, bytes: usize) -> Option<usize> {
        let over = (self.used(holder) + bytes).saturating_sub(MINIMUMS[holder]);
        let wanted = over - self.over(holder);
        (wanted == 0 || self.over(holder) < self.free()).then_some(wanted)
    }

    /// Whether the rules let a request wait: over the threshold, too little, or one ahead that is
    /// entitled and still polled.
    fn may_wait(&self, at: usize) -> bool {
        let request = &self.waiting[at];
        match self.wants(request.holder, request.bytes) {
            None => true,
            Some(0) => false,
            Some(wanted) => {
                let ahead = self.waiting.iter().take(at).filter(|ahead| !ahead.asleep);
                let ahead: usize =
                    ahead.filter_map(|ahead| self.wants(ahead.holder, ahead.bytes)).sum();
                wanted + ahead > self.free()
            }
        }
    }

    /// Polls one request; a grant must not pass by anyone ahead who is entitled and polled.
    fn poll(&mut self, at: usize) -> Result<bool, TestCaseError> {
        let free = self.free();
        let may_wait = self.may_wait(at);
        let too_large = self.too_large(at);
        let request = &mut self.waiting[at];
        let waker = request.wakes.waker();
        let Poll::Ready(granted) = request.future.as_mut().poll(&mut Context::from_waker(&waker))
        else {
            prop_assert!(!too_large, "waits for what there is not");
            return Ok(false);
        };
        prop_assert_eq!(granted.is_err(), too_large);
        let Ok(permit) = granted else {
            self.waiting.remove(at);
            return Ok(false);
        };
        prop_assert!(!may_wait, "jumped the queue, with {} free", free);
        let (holder, bytes) = (request.holder, request.bytes);
        prop_assert_eq!(permit.bytes(), bytes);
        self.waiting.remove(at);
        self.permits.push((holder, permit));
        Ok(true)
    }

    /// Polls whoever was woken until nobody is.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..1_000 {
            let woken = |request: &Request<'_>| !request.asleep && request.wakes.take() > 0;
            let Some(at) = self.waiting.iter().position(woken) else {
                return self.check();
            };
            self.poll(at)?;
        }
        Err(TestCaseError::fail("requests wake each other without end"))
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let usage = self.budget.usage();
        let used: usize = self.permits.iter().map(|(_, permit)| permit.bytes()).sum();
        prop_assert_eq!((usage.used, usage.waiting), (used, self.waiting.len()));
        prop_assert!(used <= CAPACITY || self.charged);
        prop_assert!(usage.peak >= used);
        let anyone_asleep = self.waiting.iter().any(|request| request.asleep);
        for at in 0..self.waiting.len() {
            let may_wait = self.may_wait(at) && !self.too_large(at);
            let excused = self.waiting[at].asleep || anyone_asleep || may_wait;
            prop_assert!(excused, "request {} of {} was not woken", at, self.waiting.len());
        }
        Ok(())
    }

    fn step(&mut self, action: u8, which: usize, bytes: usize) -> Result<(), TestCaseError> {
        match action {
            0..=3 => {
                let holder = which % MINIMUMS.len();
                let within_minimum = self.used(holder) + bytes <= MINIMUMS[holder];
                let future = Box::pin(self.holders[holder].acquire(bytes));
                let wakes = Wakes::new();
                self.waiting.push_back(Request { future, wakes, holder, bytes, asleep: false });
                let granted = self.poll(self.waiting.len() - 1)?;
                prop_assert!(granted || !within_minimum, "a minimum was not given at once");
            }
            4 => drop(self.waiting.remove(which)),
            5 if which < self.waiting.len() => self.waiting[which].asleep = true,
            6 if which < self.waiting.len() => {
                self.waiting[which].asleep = false;
                self.poll(which)?;
            }
            7 if !self.permits.is_empty() => {
                let at = which % self.permits.len();
                let (holder, permit) = &mut self.permits[at];
                let (holder, part) = (*holder, permit.split(bytes));
                if let Some(part) = part {
                    self.permits.push((holder, part));
                }
            }
            8 => {
                let holder = which % MINIMUMS.len();
                self.charged |= bytes > 0;
                self.permits.push((holder, self.holders[holder].charge(bytes)));
            }
            9 if which.is_multiple_of(2) => {
                let (free, late) = (self.free(), self.budget.holder(LATE_MINIMUM));
                prop_assert_eq!(late.is_ok(), LATE_MINIMUM <= free);
                self.late.extend(late);
            }
            9 => drop(self.late.pop()),
            _ if !self.permits.is_empty() => {
                drop(self.permits.swap_remove(which % self.permits.len()));
            }
            _ => {}
        }
        self.settle()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Requests come, fall asleep, wake, are cancelled, granted and refused; permits are split and
    /// dropped; holders come and go, and some charge what they did not ask for.
    #[test]
    fn keeps_its_promises(
        steps in prop::collection::vec((0_u8..15, 0_usize..8, 0_usize..=SHARED), 0..80),
    ) {
        let budget = ByteBudget::new(CAPACITY);
        let holders: Vec<_> =
            MINIMUMS.iter().map(|minimum| budget.holder(*minimum).unwrap()).collect();
        let (waiting, permits, late) = (VecDeque::new(), Vec::new(), Vec::new());
        let (budget, holders) = (&budget, holders.as_slice());
        let mut world = World { budget, holders, waiting, permits, late, charged: false };
        for (action, which, bytes) in steps {
            world.step(action, which, bytes)?;
        }
        // Sleepers or not: as permits come back, everyone who is polled gets there.
        while !world.permits.is_empty() {
            drop(world.permits.pop());
            world.settle()?;
        }
        prop_assert!(world.waiting.iter().all(|request| request.asleep));
        drop(world.waiting);
        prop_assert_eq!(budget.usage().used, 0);
    }
}

/// A future that is not polled any more keeps nobody from what is free ("futurelock").
#[test]
fn an_unpolled_request_holds_nothing() {
    let budget = ByteBudget::new(100);
    let holder = budget.holder(0).unwrap();
    let all = holder.try_acquire(60).unwrap();
    let mut unpolled = holder.acquire(45);
    assert!((&mut unpolled).now_or_never().is_none());
    drop(all); // it is its turn, but its task awaits the next line
    let wakes = Wakes::new();
    let mut next = Box::pin(holder.acquire(70));
    let waker = wakes.waker();
    assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "gives way once");
    assert_eq!(wakes.take(), 1);
    let Poll::Ready(Ok(permit)) = next.as_mut().poll(&mut Context::from_waker(&waker)) else {
        panic!("waits for a future that nobody polls");
    };
    assert!((&mut unpolled).now_or_never().is_none());
    drop(permit);
    assert_eq!(unpolled.now_or_never().unwrap().unwrap().bytes(), 45);
}

#[test]
fn one_busy_holder_has_half_and_two_have_a_third_each() {
    let budget = ByteBudget::new(900);
    let holders: Vec<_> = (0..3).map(|_| budget.holder(0).unwrap()).collect();
    let fill = |holder: &BudgetHolder| -> Vec<Permit> {
        std::iter::from_fn(|| holder.try_acquire(1)).collect()
    };
    let first = fill(&holders[0]);
    assert_eq!(first.len(), 450);
    let second = fill(&holders[1]);
    assert_eq!(second.len(), 225);
    drop(first);
    let second = second.into_iter().chain(fill(&holders[1])).count();
    assert_eq!(second, 450);
}

#[test]
fn what_cannot_be_is_refused_with_the_numbers() {
    let budget = ByteBudget::new(100);
    let holder = budget.holder(60).unwrap();
    let refused = budget.holder(50).unwrap_err();
    assert_eq!(refused.to_string(), "a minimum of 50 bytes can't be guaranteed: only 40 are free");
    let too_large = holder.acquire(101).now_or_never().unwrap().unwrap_err();
    assert_eq!(too_large, TooLarge { bytes: 101, largest: 100 });
    assert!(holder.acquire(usize::MAX).now_or_never().unwrap().is_err());
    let permit = holder.acquire(80).now_or_never().unwrap().unwrap();
    assert!(budget.holder(30).is_err(), "20 of the 40 are in use");
    drop(holder);
    assert_eq!(budget.usage().used, 80);
    assert!(budget.holder(21).is_err() && budget.holder(20).is_ok());
    drop(permit);
    assert!(budget.holder(100).is_ok());
}

#[test]
fn a_request_that_a_new_holder_made_impossible_is_woken_and_refused() {
    let budget = ByteBudget::new(100);
    let (first, second) = (budget.holder(0).unwrap(), budget.holder(0).unwrap());
    let _some = first.try_acquire(30).unwrap();
    let wakes = Wakes::new();
    let waker = wakes.waker();
    let mut request = Box::pin(second.acquire(90));
    assert!(request.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let third = budget.holder(50).unwrap();
    assert_eq!(wakes.take(), 1, "it would wait for ever");
    assert!(third.try_acquire(60).is_some(), "it delays nobody");
    let refused = request.now_or_never().unwrap().unwrap_err();
    assert_eq!(refused, TooLarge { bytes: 90, largest: 50 });
}

#[test]
fn debt_wakes_those_behind_a_request_that_it_puts_over_the_threshold() {
    let budget = ByteBudget::new(100);
    let holders: Vec<_> = (0..3).map(|_| budget.holder(0).unwrap()).collect();
    let _held = holders[0].try_acquire(50).unwrap();
    let mut big = Box::pin(holders[1].acquire(60));
    assert!((&mut big).now_or_never().is_none(), "waits for 10 more");
    let wakes = Wakes::new();
    let waker = wakes.waker();
    let mut small = Box::pin(holders[2].acquire(10));
    assert!(small.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!((&mut big).now_or_never().is_none(), "asked whether it still wants them: yes");
    assert_eq!(wakes.take(), 1);
    assert!(small.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let _debt = holders[1].charge(25);
    assert_eq!(wakes.take(), 1);
    assert!(small.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
}

#[test]
fn permits_split_merge_shrink_and_stay_with_their_holder() {
    let budget = ByteBudget::new(100);
    let (one, other) = (budget.holder(50).unwrap(), budget.holder(50).unwrap());
    let mut permit = one.try_acquire(50).unwrap();
    assert!(permit.split(51).is_none());
    let part = permit.split(20).unwrap();
    permit.merge(part).unwrap();
    let foreign = permit.merge(other.try_acquire(7).unwrap()).unwrap_err();
    assert_eq!((permit.bytes(), foreign.bytes()), (50, 7));
    permit.shrink_to(60);
    permit.shrink_to(5);
    assert_eq!((one.held(), other.held(), budget.usage().used), (5, 7, 12));
}

#[test]
fn debt_is_shown_and_leaves_the_minimums_alone() {
    let budget = ByteBudget::new(100);
    let (reader, writer) = (budget.holder(20).unwrap(), budget.holder(20).unwrap());
    let huge = reader.charge(500);
    assert_eq!((budget.usage().used, budget.usage().peak), (500, 500));
    let minimum = writer.try_acquire(20).unwrap();
    assert!(writer.try_acquire(1).is_none());
    drop(huge);
    assert!(writer.try_acquire(1).is_some());
    drop(minimum);
    drop((reader.charge(usize::MAX), reader.charge(usize::MAX)));
    assert_eq!(budget.usage().used, 0);
}

#[test]
fn an_idle_stream_holds_nothing_and_an_oversized_item_is_charged() {
    let budget = ByteBudget::new(100);
    let mut idle =
        Box::pin(stream::pending::<u32>().budgeted(budget.holder(10).unwrap(), 40, |_| 1));
    assert!(idle.next().now_or_never().is_none());
    assert_eq!(budget.usage().used, 0);
    let holder = budget.holder(10).unwrap();
    let mut oversized = stream::iter([500_usize, 3]).budgeted(holder, 1_000, |cost| *cost);
    let (item, permit) = oversized.next().now_or_never().unwrap().unwrap();
    assert_eq!((item, permit.bytes(), budget.usage().used), (500, 500, 500));
    assert!(oversized.next().now_or_never().is_none());
    drop(permit);
    assert!(oversized.next().now_or_never().is_some());
}

/// Many readers, a chain of workers and tiny budgets, with stalls at random: all of it ends.
#[tokio::test(start_paused = true)]
async fn a_tiny_budget_never_comes_to_a_standstill() {
    for seed in 0..200 {
        let mut random = proptest::test_runner::TestRng::from_seed(
            proptest::test_runner::RngAlgorithm::XorShift,
            &u128::from(seed + 1_u64).to_le_bytes(),
        );
        let run = run_pipeline(random.next_u32() as usize % 7 + 1, random.next_u64());
        let ended = tokio::time::timeout(Duration::from_secs(100_000), run).await;
        assert!(ended.is_ok(), "seed {seed} stands still");
    }
}

/// `readers` sources of 20 items each, through a bounded channel, to a worker that makes something
/// of each item and holds input and output for a while.
async fn run_pipeline(readers: usize, seed: u64) {
    let budget = ByteBudget::new((readers + 1) * 10 + (seed % 7) as usize);
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1 + seed as usize % 3);
    for reader in 0..readers {
        let holder = budget.holder(10).unwrap();
        let items = stream::iter(0..20).budgeted(holder, 10, |item| item % 10);
        let sender = sender.clone();
        tokio::spawn(items.for_each(move |item| {
            let sender = sender.clone();
            async move {
                let stall = seed.rotate_left(reader as u32 * 7 + item.0 as u32) % 50;
                tokio::time::sleep(Duration::from_millis(stall)).await;
                sender.send(item).await.unwrap();
            }
        }));
    }
    drop(sender);
    let worker = budget.holder(10).unwrap();
    let mut outputs = VecDeque::new();
    while let Some((item, input)) = receiver.recv().await {
        while outputs.len() > (seed % 2) as usize {
            tokio::time::sleep(Duration::from_millis(seed % 13)).await;
            outputs.pop_front(); // delivered
        }
        if outputs.is_empty() {
            outputs.push_back((item, worker.acquire(10).await.unwrap()));
        }
        drop(input);
    }
}
