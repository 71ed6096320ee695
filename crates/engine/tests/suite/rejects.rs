//! Rows that a sink does not take: who gets them, what becomes of their batch, and what waits for
//! whom.

use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::{Failure, Pipeline, RunOptions, SinkOptions, Store, Summary, WhenFull};
use tidegate_model::{Commit, Verdict};
use tokio::time::{Instant, sleep, timeout};

use crate::parts::{Does, Numbers, Told};

/// A sink that does not take what this divides.
fn picky(rejects: u64) -> Told {
    Told { rejects: Some(rejects), ..Told::to(Does::Write) }
}

/// numbers -> out, and the rejects of each sink to the next one.
fn pipeline(numbers: Numbers, sinks: &[Told], options: SinkOptions) -> Pipeline {
    let mut builder = Pipeline::builder().memory(1 << 20);
    builder = builder.source("numbers", Box::new(numbers) as Box<_>);
    let mut input = "numbers".to_owned();
    for (name, sink) in ["out", "dead", "last"].into_iter().zip(sinks) {
        builder = builder.sink(name, &[&input], options, Box::new(sink.clone()) as Box<_>);
        input = format!("{name}.rejects");
    }
    builder.build().unwrap()
}

fn options(store: &Store) -> RunOptions {
    RunOptions { once: true, store: Some(store.clone()), ..RunOptions::default() }
}

async fn run(pipeline: Pipeline, store: &Store) -> Result<Summary, Failure> {
    let running = pipeline.start(options(store)).await.unwrap();
    let finished = timeout(Duration::from_secs(3_600), running.finish()).await;
    finished.unwrap_or_else(|_| panic!("it stands still"))
}

fn rows(sink: &Told) -> Vec<u64> {
    sink.rows.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn each_gets_what_the_one_before_does_not_take_and_the_last_drops_it() {
    for commit_when in [Commit::Grouped, Commit::EachWrite] {
        let [out, dead, last] = [2, 3, 5].map(|by| Told { commit_when, ..picky(by) });
        let numbers = Numbers { pace: Duration::from_millis(1), ..Numbers::new(50, 2) };
        let verdicts = Arc::clone(&numbers.verdicts);
        let sinks = [out.clone(), dead.clone(), last.clone()];
        let pipeline = pipeline(numbers, &sinks, SinkOptions::default());
        let summary = run(pipeline, &Store::in_memory().unwrap()).await.unwrap();
        let of = |keep: fn(&u64) -> bool| (0..100).filter(keep).collect::<Vec<_>>();
        assert_eq!(rows(&out), of(|n| n % 2 > 0));
        assert_eq!(rows(&dead), of(|n| n % 2 == 0 && n % 3 > 0));
        assert_eq!(rows(&last), of(|n| n % 6 == 0 && n % 5 > 0));
        let columns = dead.columns.lock().unwrap().take().unwrap();
        assert_eq!(columns.fields().len(), 1, "it asked for no more");
        let rejected: Vec<_> = summary.snapshot.components.iter().map(|c| c.rejected).collect();
        assert_eq!(rejected, [0, 50, 17, 4]);
        let ways: Vec<_> = summary.snapshot.edges.iter().map(|edge| &*edge.input).collect();
        let expected = ["dead.rejects < out.rejects < numbers", "out.rejects < numbers", "numbers"];
        assert_eq!(ways, expected);
        let most: usize = summary.snapshot.edges.iter().map(|edge| edge.queue_bytes_max).sum();
        assert!(most <= 1 << 19 && most > (1 << 19) - 3, "they share half of the memory: {most}");
        let verdicts = verdicts.lock().unwrap();
        let dropped = verdicts.iter().filter(|verdict| **verdict == Verdict::Dropped).count();
        assert_eq!((verdicts.len(), dropped), (50, 4), "only what nobody takes is dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_dropped_where_the_queue_of_its_rejects_drops_it() {
    let numbers = Numbers { pace: Duration::from_millis(1), ..Numbers::new(100, 10) };
    let lossy = SinkOptions { when_full: WhenFull::DropNewest, queue_bytes_max: Some(1 << 10) };
    let sinks = [picky(2), Told::to(Does::Stall)];
    let pipeline = pipeline(numbers, &sinks, lossy);
    let running = pipeline.start(options(&Store::in_memory().unwrap())).await.unwrap();
    let handle = running.handle();
    // `dead` has the first batch for ever, and `out` waits for that before its first commit.
    sleep(Duration::from_secs(10)).await;
    let snapshot = handle.snapshot();
    assert!(snapshot.dropped() > 0 && sinks[0].commits.lock().unwrap().is_empty());
    handle.stop();
    let failure = running.finish().await.unwrap_err();
    assert!(failure.error.to_string().contains("not delivered"), "{}", failure.error);
}

#[tokio::test(start_paused = true)]
async fn who_fails_to_take_rejects_is_named_and_all_is_read_again() {
    for (does, said) in [
        (Does::Fail, "sinks.dead: told to"),
        (Does::Panic, "sinks.dead: panicked, please report this: told to"),
    ] {
        let store = Store::in_memory().unwrap();
        let out = picky(2);
        let numbers = || Numbers { pace: Duration::from_millis(1), ..Numbers::new(100, 10) };
        let failing = pipeline(numbers(), &[out.clone(), Told::to(does)], SinkOptions::default());
        let failure = run(failing, &store).await.unwrap_err();
        assert_eq!(failure.error.to_string(), said);
        assert!(failure.unacked > 0 && out.commits.lock().unwrap().is_empty());

        let dead = Told::to(Does::Write);
        let again = pipeline(numbers(), &[picky(2), dead.clone()], SinkOptions::default());
        run(again, &store).await.unwrap();
        assert_eq!(rows(&dead), (0..500).map(|number| number * 2).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_rejects_are_dropped_where_they_are_the_same_and_come_twice_elsewhere() {
    for same_rejects in [true, false] {
        let store = Store::in_memory().unwrap();
        let dead = Told::to(Does::Write);
        let numbers = || Numbers { pace: Duration::from_millis(1), ..Numbers::new(10, 10) };
        let out = |does, by| Told { does, same_rejects, ..picky(by) };
        let sinks = [out(Does::FailCommit, 20), dead.clone()];
        let failed = run(pipeline(numbers(), &sinks, SinkOptions::default()), &store).await;
        assert_eq!(failed.unwrap_err().error.to_string(), "sinks.out: told to");
        assert_eq!(rows(&dead), [0, 20, 40, 60, 80], "they were safe before the commit");

        // What is rejected now depends on more than the row.
        let by = if same_rejects { 20 } else { 10 };
        let sinks = [out(Does::Write, by), dead.clone()];
        run(pipeline(numbers(), &sinks, SinkOptions::default()), &store).await.unwrap();
        let again: Vec<u64> = if same_rejects { vec![] } else { (0..10).map(|n| n * 10).collect() };
        assert_eq!(rows(&dead)[5..], again);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_commits_time_to_have_rejects_made_safe() {
    for commit_when in [Commit::Grouped, Commit::EachWrite] {
        // Each batch is a commit of its own, and has rejects.
        let out = Told { commit_bytes_max: 1, commit_when, ..picky(2) };
        let sinks = [out.clone(), picky(4), Told::to(Does::Write)];
        let numbers = Numbers { pace: Duration::from_millis(1), ..Numbers::new(200, 10) };
        let began = Instant::now();
        let pipeline = pipeline(numbers, &sinks, SinkOptions::default());
        run(pipeline, &Store::in_memory().unwrap()).await.unwrap();
        let took = began.elapsed();
        assert_eq!(out.commits.lock().unwrap().len(), 200);
        assert!(took < Duration::from_millis(500), "{commit_when:?} took {took:?}");
        assert_eq!(rows(&sinks[2]).len(), 500);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_commits_nothing_before_its_rejects_are_safe() {
    let out = picky(100);
    let dead = Told::to(Does::Stall);
    let numbers = Numbers { pace: Duration::from_millis(1), ..Numbers::new(100, 10) };
    let pipeline = pipeline(numbers, &[out.clone(), dead], SinkOptions::default());
    let running = pipeline.start(options(&Store::in_memory().unwrap())).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(out.commits.lock().unwrap().is_empty() && !rows(&out).is_empty());
    let handle = running.handle();
    let began = Instant::now();
    handle.stop();
    assert!(running.finish().await.unwrap_err().unacked > 0);
    assert_eq!(began.elapsed().as_secs(), 30, "a stop does not wait for it longer than it may");
}
