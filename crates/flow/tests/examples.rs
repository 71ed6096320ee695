//! What the examples show is true: each one's `run` gives the outcome that it promises.

#![expect(dead_code, reason = "each example's `main` prints for people; its `run` is called here")]

#[path = "../examples/parallel_requests.rs"]
pub mod parallel_requests;
#[path = "../examples/pitfalls.rs"]
pub mod pitfalls;
#[path = "../examples/ranges_and_fibonacci.rs"]
pub mod ranges_and_fibonacci;
#[path = "../examples/rate_limited_work.rs"]
pub mod rate_limited_work;
#[path = "../examples/reconnecting_source.rs"]
pub mod reconnecting_source;
#[path = "../examples/recovery_with_fallback.rs"]
pub mod recovery_with_fallback;
#[path = "../examples/slow_consumer.rs"]
pub mod slow_consumer;

use std::error::Error;
use std::time::Duration;

use tidegate_flow::{Ended, WhenFull};

#[tokio::test(start_paused = true)]
async fn ranges_and_fibonacci_are_the_same_both_ways() {
    let outcome = ranges_and_fibonacci::run().await;
    let range = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]];
    assert_eq!(outcome.range.by_hand, range);
    assert_eq!(outcome.range.by_hand, outcome.range.with_async_stream);

    let numbers = &outcome.fibonacci.by_hand;
    assert_eq!(numbers[..8], [0, 1, 1, 2, 3, 5, 8, 13]);
    assert!(numbers.windows(3).all(|three| three[0] + three[1] == three[2]));
    let [.., before, last] = numbers[..] else {
        panic!("there are more than two");
    };
    assert_eq!((numbers.len(), last.checked_add(before)), (94, None));
    assert_eq!(*numbers, outcome.fibonacci.with_async_stream);
}

#[tokio::test(start_paused = true)]
async fn rate_limited_work_starts_with_the_burst_and_goes_on_at_the_rate() {
    let outcome = rate_limited_work::run().await;
    let (burst, rest) = outcome.jobs.split_at(10);
    assert!(burst.iter().all(|start| *start < Duration::from_millis(50)), "{burst:?}");
    let expected = (1..=20).map(|job| job * 50);
    let late = rest.iter().zip(expected).map(|(start, due)| start.as_millis().abs_diff(due));
    assert_eq!((rest.len(), late.max()), (20, Some(0)), "{rest:?}");

    let uploads: Vec<_> = outcome.uploads.iter().map(Duration::as_millis).collect();
    assert_eq!(uploads, [0, 0, 50, 550, 600]);
}

// Sockets are real here, so time is too; nothing waits for it.
#[tokio::test]
async fn parallel_requests_use_the_limit_and_keep_to_it() -> Result<(), Box<dyn Error>> {
    let outcome = parallel_requests::run().await?;
    assert_eq!(outcome.in_order.most_in_flight, 4);
    assert!(outcome.in_order.order.iter().copied().eq(0..12));

    let as_they_come = outcome.as_they_come;
    assert_eq!(as_they_come.most_in_flight, 4);
    for (group, first) in as_they_come.order.chunks(4).zip([0, 4, 8]) {
        let [quick @ .., slow] = group else {
            panic!("no group is empty");
        };
        let mut quick = quick.to_vec();
        quick.sort_unstable();
        assert_eq!((quick, *slow), (vec![first + 1, first + 2, first + 3], first));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn recovery_retries_what_may_pass_and_falls_back_on_what_does_not() {
    use recovery_with_fallback::Refusal::UnknownCity;
    use recovery_with_fallback::Temperature::{Fresh, LastKnown};

    let outcome = recovery_with_fallback::run().await;
    let expected = [Ok(Fresh(-3)), Ok(Fresh(17)), Err(UnknownCity), Ok(LastKnown(31))];
    assert_eq!(outcome.answers, expected);
    assert_eq!(outcome.calls, 1 + 3 + 1 + 4);
}

#[tokio::test(start_paused = true)]
async fn the_reconnecting_source_misses_nothing_and_repeats_nothing() {
    use tidegate_flow::ConnectionState::{Connected, Connecting, GaveUp, Waiting};
    let connecting = |attempt| Connecting { attempt };
    let wait = |ms, error: &str| {
        let error = Some(error.to_owned());
        Waiting { wait: Duration::from_millis(ms), error }
    };

    let outcome = reconnecting_source::run().await;
    let [messages @ .., Err(last_words)] = &outcome.messages[..] else {
        panic!("{outcome:?}");
    };
    assert!(messages.iter().cloned().eq((0..8).map(Ok)), "{messages:?}");
    assert!(last_words.ends_with("the log is closed"), "{last_words}");
    let (cut, closed) = ("connection reset", "the log is closed");
    let expected = [
        vec![connecting(1), Connected, wait(100, cut)], // 0, 1, 2
        vec![connecting(1), wait(200, "connection refused")],
        vec![connecting(2), Connected, wait(100, cut)], // 3, 4, 5: long enough to be healthy
        vec![connecting(1), Connected, wait(200, cut)], // 6, 7
        vec![connecting(2), GaveUp { error: Some(closed.to_owned()) }],
    ];
    assert_eq!(outcome.changes, expected.concat());
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_pays_as_its_policy_says() {
    const SOURCE_TIME: Duration = Duration::from_millis(10 * slow_consumer::READINGS);

    for outcome in slow_consumer::run().await {
        let got = &outcome.slow_got;
        let lost = slow_consumer::READINGS - got.len() as u64;
        let on_time = outcome.quick_done < SOURCE_TIME + Duration::from_millis(5);
        assert_eq!(outcome.quick_got as u64, slow_consumer::READINGS);
        assert!(got.is_sorted(), "{got:?}");
        assert_eq!(on_time, outcome.policy != WhenFull::Block, "{outcome:?}");
        match outcome.policy {
            WhenFull::Block => assert_eq!((lost, outcome.slow_dropped), (0, 0)),
            WhenFull::DropNewest => {
                assert!(lost > 0 && lost == outcome.slow_dropped, "{outcome:?}");
                assert_eq!(got[..5], [0, 1, 2, 3, 4], "the oldest stay");
            }
            WhenFull::DropOldest => {
                assert!(lost > 0 && lost == outcome.slow_dropped, "{outcome:?}");
                let newest = slow_consumer::READINGS - 4..slow_consumer::READINGS;
                assert!(got[got.len() - 4..].iter().copied().eq(newest), "{got:?}");
            }
            WhenFull::Disconnect => {
                assert!(got.iter().copied().eq(0..got.len() as u64), "no gap: {got:?}");
                assert_eq!((outcome.slow_dropped, outcome.slow_ended), (1, Some(Ended::TooSlow)));
                continue;
            }
        }
        assert_eq!(outcome.slow_ended, Some(Ended::Finished));
    }
}

#[tokio::test(start_paused = true)]
async fn pitfalls_hurt_and_the_right_way_does_not() -> Result<(), Box<dyn Error>> {
    let seen = pitfalls::run().await?;
    assert_eq!(seen.unbounded_buffer.wrong, pitfalls::ROWS);
    // The buffer, one row in its reader's hand, one in the consumer's.
    assert!(seen.unbounded_buffer.right <= 16 + 2, "{seen:?}");
    assert_eq!(seen.collecting_everything.wrong, pitfalls::ROWS);
    assert_eq!(seen.collecting_everything.right, 100);
    assert_eq!(seen.blocking_in_poll.wrong, 0);
    assert!(seen.blocking_in_poll.right > 0, "{seen:?}");
    assert_eq!((seen.poll_after_end.wrong, seen.poll_after_end.right), (6, 3));
    assert_eq!((seen.lost_waker.wrong, seen.lost_waker.right), (None, Some(1)));
    assert_eq!(seen.buffered_stands_still.wrong, 0);
    assert!(seen.buffered_stands_still.right > 0, "{seen:?}");
    Ok(())
}
