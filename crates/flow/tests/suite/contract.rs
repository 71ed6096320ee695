//! Demand, wakers, cancellation, ends and hints, for every operator of the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tidegate_testkit::script::script;
use tidegate_testkit::wakes::Wakes;

use crate::operators::{LOSSY, OPERATORS, Operator, Outputs};

/// Lets every task and timer of the (paused) runtime come to rest.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(10)).await;
}

fn poll(outputs: &mut Outputs, wakes: &Wakes) -> Poll<Option<Vec<u32>>> {
    outputs.poll_next_unpin(&mut Context::from_waker(&wakes.waker()))
}

/// All items in order where the operator keeps it, else sorted.
fn in_order(operator: &Operator, mut items: Vec<u32>) -> Vec<u32> {
    if operator.name == "concurrent_map_unordered" {
        items.sort_unstable();
    }
    items
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pulled_beyond_demand_and_stated_buffer() {
    for operator in OPERATORS {
        let (script, source) = script();
        script.extend(0..200);
        let mut outputs = (operator.build)(source);
        settle().await;
        let before = if operator.lazy { 0 } else { operator.buffer };
        assert!(script.pulled() <= before, "{} pulled unasked", operator.name);
        let mut handed_out = 0;
        for _ in 0..20 {
            handed_out += outputs.next().await.unwrap().len();
            settle().await;
            let most = operator.buffer.saturating_add(handed_out);
            assert!(script.pulled() <= most, "{}: {} > {most}", operator.name, script.pulled());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_waker_of_the_latest_poll_is_woken() {
    for operator in OPERATORS {
        let (script, source) = script();
        let mut outputs = (operator.build)(source);
        let (first, second) = (Wakes::new(), Wakes::new());
        assert!(poll(&mut outputs, &first).is_pending(), "{}", operator.name);
        settle().await;
        assert!(poll(&mut outputs, &first).is_pending(), "{}", operator.name);
        assert!(poll(&mut outputs, &second).is_pending(), "{}", operator.name);
        settle().await;
        second.take();
        script.extend(0..operator.unit as u32);
        let mut seen = Vec::new();
        for _ in 0..10 {
            settle().await;
            if second.take() > 0
                && let Poll::Ready(Some(output)) = poll(&mut outputs, &second)
            {
                seen.extend(output);
                break;
            }
        }
        assert_eq!(seen.len(), operator.unit, "{}: a wake-up was lost", operator.name);
    }
}

#[tokio::test(start_paused = true)]
async fn spurious_polls_change_nothing() {
    for operator in OPERATORS {
        let (script, source) = script();
        let mut outputs = (operator.build)(source);
        let wakes = Wakes::new();
        let mut seen = Vec::new();
        for item in 0..30 {
            for _ in 0..5 {
                if let Poll::Ready(output) = poll(&mut outputs, &wakes) {
                    seen.extend(output.unwrap());
                }
            }
            script.push(item);
            settle().await;
        }
        script.end();
        seen.extend(outputs.concat().await);
        assert!(in_order(operator, seen).into_iter().eq(0..30), "{}", operator.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_loses_nothing() {
    for operator in OPERATORS {
        for pause_every in [1, 2, 3, 7] {
            let (script, source) = script();
            script.extend(0..30);
            script.end();
            let mut outputs = (operator.build)(source);
            let mut seen = Vec::new();
            for turn in 0.. {
                match outputs.next().now_or_never() {
                    Some(Some(output)) => seen.extend(output),
                    Some(None) => break,
                    None if turn % pause_every == 0 => settle().await,
                    None => tokio::task::yield_now().await,
                }
            }
            assert!(in_order(operator, seen).into_iter().eq(0..30), "{}", operator.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_point_it_drops_its_source_and_repeats_nothing() {
    for operator in OPERATORS {
        for polls in 0..24 {
            let (script, source) = script();
            script.extend(0..12);
            let mut outputs = (operator.build)(source);
            let mut seen = Vec::new();
            for _ in 0..polls {
                match outputs.next().now_or_never() {
                    Some(output) => seen.extend(output.unwrap()),
                    None => tokio::task::yield_now().await,
                }
            }
            drop(outputs);
            if operator.name == "Replay" {
                script.end(); // its publisher is not the subscriber's to stop
            }
            settle().await;
            assert!(script.is_dropped(), "{} keeps its source after {polls}", operator.name);
            let most = operator.buffer.saturating_add(seen.len());
            assert!(script.pulled() <= most, "{} lost items after {polls}", operator.name);
            let seen = in_order(operator, seen);
            assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{}: {seen:?}", operator.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_again_and_the_source_left_alone() {
    for operator in OPERATORS {
        for items in [0, 1, 10] {
            let (script, source) = script();
            script.extend(0..items);
            script.end();
            let mut outputs = (operator.build)(source);
            let all = outputs.by_ref().concat().await;
            assert_eq!(all.len(), items as usize, "{}", operator.name);
            for _ in 0..3 {
                assert_eq!(outputs.next().await, None, "{}", operator.name);
            }
            assert!(!script.polled_after_end(), "{}", operator.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn size_hints_are_honest_at_every_step() {
    for operator in OPERATORS.iter().chain(LOSSY) {
        for known_end in [true, false] {
            let (script, source) = script();
            script.extend(0..20);
            if known_end {
                script.end();
            }
            let mut outputs = (operator.build)(source);
            // Each with the number of outputs before it.
            let mut hints = vec![(0, outputs.size_hint())];
            let mut seen = 0;
            settle().await;
            hints.push((seen, outputs.size_hint()));
            while seen < 5 {
                outputs.next().await.unwrap();
                seen += 1;
                settle().await;
                hints.push((seen, outputs.size_hint()));
            }
            script.extend(20..if known_end { 20 } else { 35 });
            settle().await;
            hints.push((seen, outputs.size_hint()));
            script.end();
            settle().await;
            hints.push((seen, outputs.size_hint()));
            while outputs.next().await.is_some() {
                seen += 1;
                hints.push((seen, outputs.size_hint()));
            }
            for (before, (lower, upper)) in hints {
                let left = seen - before;
                let honest = lower <= left && upper.is_none_or(|upper| left <= upper);
                assert!(honest, "{}: {left} left, {lower}..={upper:?}", operator.name);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn idle_operators_are_never_polled() {
    for operator in OPERATORS {
        let (script, source) = script();
        script.push(0);
        let mut outputs = (operator.build)(source);
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let task = tokio::spawn(std::future::poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::SeqCst);
            while let Poll::Ready(Some(_)) = outputs.poll_next_unpin(cx) {}
            Poll::<()>::Pending
        }));
        settle().await;
        let before = (script.polls(), polls.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_secs(600)).await;
        let after = (script.polls(), polls.load(Ordering::SeqCst));
        assert_eq!(before, after, "{} is busy doing nothing", operator.name);
        assert!(before.0 > 0 && before.1 > 0, "{} was never polled", operator.name);
        task.abort();
    }
}
