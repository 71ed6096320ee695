//! Starts and ends: stops, deadlines, failures by name, a second process, what is left for the next
//! run.

use std::num::NonZeroUsize;
use std::time::Duration;

use tidegate_engine::{Failure, Pipeline, RunOptions, SinkOptions, Store, Summary, WhenFull};
use tokio::time::{sleep, timeout};

use crate::parts::{Does, Numbers, Picks, Told};

fn options(store: &Store) -> RunOptions {
    RunOptions {
        once: true,
        workers: NonZeroUsize::MIN,
        store: Some(store.clone()),
        ..RunOptions::default()
    }
}

/// A source of 100 batches of ten rows, 10 ms apart, and these sinks.
fn pipeline(sinks: &[(&str, Told)]) -> Pipeline {
    let numbers = Numbers { pace: Duration::from_millis(10), ..Numbers::new(100, 10) };
    let mut builder = Pipeline::builder().source("numbers", Box::new(numbers) as Box<_>);
    for (name, sink) in sinks {
        let options = SinkOptions { queue_bytes_max: Some(100), ..SinkOptions::default() };
        builder = builder.sink(name, &["numbers"], options, Box::new(sink.clone()) as Box<_>);
    }
    builder.build().unwrap()
}

async fn run(pipeline: Pipeline, store: &Store) -> Result<Summary, Failure> {
    let running = pipeline.start(options(store)).await.unwrap();
    let finished = timeout(Duration::from_secs(3_600), running.finish()).await;
    finished.unwrap_or_else(|_| panic!("it stands still"))
}

#[tokio::test(start_paused = true)]
async fn a_stop_delivers_what_is_in_flight_and_the_next_run_goes_on() {
    let store = Store::in_memory().unwrap();
    let sink = Told::to(Does::Write);
    let running = pipeline(&[("out", sink.clone())]).start(options(&store)).await.unwrap();
    let handle = running.handle();
    let stopping = tokio::spawn(async move {
        sleep(Duration::from_millis(505)).await;
        handle.stop();
    });
    let summary = running.finish().await.unwrap();
    stopping.await.unwrap();
    let first = sink.rows.lock().unwrap().clone();
    assert_eq!(first, (0..500).collect::<Vec<_>>());
    assert_eq!((summary.snapshot.rows_read(), summary.resumed), (500, false));

    let summary = run(pipeline(&[("out", sink.clone())]), &store).await.unwrap();
    assert_eq!((summary.snapshot.rows_read(), summary.resumed), (500, true));
    assert_eq!(*sink.rows.lock().unwrap(), (0..1_000).collect::<Vec<_>>());

    let summary = run(pipeline(&[("out", sink)]), &store).await.unwrap();
    assert_eq!((summary.snapshot.bytes_read(), summary.resumed), (0, true), "nothing new");
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_a_sink_holds_up_ends_at_the_deadline_and_says_what_is_left() {
    let store = Store::in_memory().unwrap();
    let sink = Told::to(Does::Stall);
    let running = pipeline(&[("out", sink)]).start(options(&store)).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let began = tokio::time::Instant::now();
    running.handle().stop();
    let failure = running.finish().await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 30);
    assert!(failure.unacked > 0);
    let said = failure.error.to_string();
    assert!(said.contains("not delivered") && said.contains("shutdown_timeout is 30 s"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_second_word_stops_at_once() {
    let store = Store::in_memory().unwrap();
    let running = pipeline(&[("out", Told::to(Does::Stall))]).start(options(&store)).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let began = tokio::time::Instant::now();
    running.handle().stop();
    running.handle().abort();
    assert!(running.finish().await.unwrap_err().unacked > 0);
    assert!(began.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_failure_names_who_failed_and_others_deliver_what_they_have() {
    for (does, said) in [
        (Does::Fail, "sinks.bad: told to"),
        (Does::Panic, "sinks.bad: panicked, please report this: told to"),
    ] {
        let store = Store::in_memory().unwrap();
        let good = Told::to(Does::Write);
        let failed =
            run(pipeline(&[("good", good.clone()), ("bad", Told::to(does))]), &store).await;
        assert_eq!(failed.unwrap_err().error.to_string(), said);
        assert!(!good.rows.lock().unwrap().is_empty());

        // Nothing was acked that the bad one had not.
        let bad = Told::to(Does::Write);
        run(pipeline(&[("good", good), ("bad", bad.clone())]), &store).await.unwrap();
        assert_eq!(*bad.rows.lock().unwrap(), (0..1_000).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_transform_is_named_with_and_without_workers() {
    for workers in [1, 4] {
        let picks = Picks { panics: true, ..Picks::nothing() };
        let builder = Pipeline::builder().source("numbers", Box::new(Numbers::new(9, 9)) as Box<_>);
        let builder = builder.transform("picks", &["numbers"], Box::new(picks) as Box<_>);
        let sink = Box::new(Told::to(Does::Write)) as Box<_>;
        let pipeline = builder.sink("out", &["picks"], SinkOptions::default(), sink).build();
        let store = Store::in_memory().unwrap();
        let workers = NonZeroUsize::new(workers).unwrap();
        let options = RunOptions { workers, ..options(&store) };
        let running = pipeline.unwrap().start(options).await.unwrap();
        let said = running.finish().await.unwrap_err().error.to_string();
        assert_eq!(said, "transforms.picks: panicked, please report this: told to");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_has_seen_enough_ends_the_run_as_a_success() {
    let store = Store::in_memory().unwrap();
    let summary = run(pipeline(&[("out", Told::to(Does::Close))]), &store).await.unwrap();
    assert!(summary.snapshot.rows_read() < 1_000);

    // But not where others fail, after that or before.
    for does in [Does::Fail, Does::FailCommit] {
        let store = Store::in_memory().unwrap();
        let sinks = [("out", Told::to(Does::Close)), ("bad", Told::to(does))];
        let failed = run(pipeline(&sinks), &store).await.unwrap_err();
        assert_eq!(failed.error.to_string(), "sinks.bad: told to");
    }
}

#[tokio::test(start_paused = true)]
async fn workers_keep_the_order() {
    let picks = Picks::nothing();
    let builder = Pipeline::builder().source("numbers", Box::new(Numbers::new(500, 10)) as Box<_>);
    let builder = builder.transform("picks", &["numbers"], Box::new(picks) as Box<_>);
    let sink = Told::to(Does::Write);
    let boxed = Box::new(sink.clone()) as Box<_>;
    let pipeline = builder.sink("out", &["picks"], SinkOptions::default(), boxed).build();
    let store = Store::in_memory().unwrap();
    let options = RunOptions { workers: NonZeroUsize::new(4).unwrap(), ..options(&store) };
    pipeline.unwrap().start(options).await.unwrap().finish().await.unwrap();
    assert_eq!(*sink.rows.lock().unwrap(), (0..5_000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_stalled_sink_that_may_lose_rows_holds_nobody_up() {
    for when_full in [WhenFull::DropNewest, WhenFull::DropOldest] {
        let good = Told::to(Does::Write);
        let numbers = Box::new(Numbers::new(2_000, 100)) as Box<_>;
        let lossy = SinkOptions { when_full, queue_bytes_max: None };
        let stalled = Box::new(Told::to(Does::Stall)) as Box<_>;
        let pipeline = Pipeline::builder()
            .memory(64 * 1024)
            .shutdown_timeout(Duration::from_secs(1))
            .source("numbers", numbers)
            .sink("good", &["numbers"], SinkOptions::default(), Box::new(good.clone()) as Box<_>)
            .sink("stalled", &["numbers"], lossy, stalled)
            .build()
            .unwrap();
        let running = pipeline.start(options(&Store::in_memory().unwrap())).await.unwrap();
        let handle = running.handle();
        while good.rows.lock().unwrap().len() < 200_000 {
            sleep(Duration::from_millis(1)).await;
        }
        handle.stop();
        let snapshot = running.finish().await.unwrap_err().snapshot;
        assert!(snapshot.dropped() > 190_000, "{}", snapshot.dropped());
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_says_after_how_many_bytes_it_commits() {
    // Ten rows of two numbers each, one by one, and all of it within one commit's time.
    let batch = 10 * 2 * 8;
    for (commit_bytes_max, expected) in [
        (usize::MAX, vec![500]),
        (batch * 20, vec![200, 400, 500]),
        (batch * 20 + 1, vec![210, 420, 500]),
        (1, Vec::from_iter((1..=50).map(|batches| batches * 10))),
    ] {
        let sink = Told { commit_bytes_max, ..Told::to(Does::Write) };
        let numbers = Numbers { pace: Duration::from_millis(1), ..Numbers::new(50, 10) };
        let builder = Pipeline::builder().source("numbers", Box::new(numbers) as Box<_>);
        let boxed = Box::new(sink.clone()) as Box<_>;
        let builder = builder.sink("out", &["numbers"], SinkOptions::default(), boxed);
        run(builder.build().unwrap(), &Store::in_memory().unwrap()).await.unwrap();
        let commits = sink.commits.lock().unwrap().clone();
        assert_eq!(commits, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_says_after_which_time_it_commits() {
    // Ten rows every 100 ms, for two seconds.
    for (commit_age, expected) in [(450, vec![50, 100, 150, 200]), (60_000, vec![200])] {
        let commit_age = Duration::from_millis(commit_age);
        let sink = Told { commit_age, ..Told::to(Does::Write) };
        let numbers = Numbers { pace: Duration::from_millis(100), ..Numbers::new(20, 10) };
        let builder = Pipeline::builder().source("numbers", Box::new(numbers) as Box<_>);
        let boxed = Box::new(sink.clone()) as Box<_>;
        let builder = builder.sink("out", &["numbers"], SinkOptions::default(), boxed);
        run(builder.build().unwrap(), &Store::in_memory().unwrap()).await.unwrap();
        assert_eq!(*sink.commits.lock().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_data_dir_is_for_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        let builder = Pipeline::builder().data_dir(folder.path());
        let builder = builder.source("numbers", Box::new(Numbers::new(1, 1)) as Box<_>);
        let sink = Box::new(Told::to(Does::Write)) as Box<_>;
        let pipeline = builder.sink("out", &["numbers"], SinkOptions::default(), sink).build();
        pipeline.unwrap().start(RunOptions { once: true, ..RunOptions::default() }).await
    };
    let first = start().await.unwrap();
    let said = start().await.err().unwrap().to_string();
    assert!(said.contains("is in use by process"), "{said}");
    first.finish().await.unwrap();
    assert!(start().await.unwrap().finish().await.unwrap().resumed);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_path_leaves_another_source_its_rate() {
    /// Rows that one source has delivered after ten seconds, beside a stuck one or alone.
    async fn delivered(stuck: bool) -> usize {
        let numbers = || Numbers { pace: Duration::from_millis(10), ..Numbers::new(10_000, 100) };
        let free = Told::to(Does::Write);
        let options_of = SinkOptions::default;
        let mut builder = Pipeline::builder()
            .memory(64 * 1024)
            .source("free", Box::new(numbers()) as Box<_>)
            .sink("out", &["free"], options_of(), Box::new(free.clone()) as Box<_>);
        if stuck {
            let sink = Box::new(Told::to(Does::Stall)) as Box<_>;
            builder = builder.source("held", Box::new(numbers()) as Box<_>).sink(
                "stuck",
                &["held"],
                options_of(),
                sink,
            );
        }
        let store = Store::in_memory().unwrap();
        let running = builder.build().unwrap().start(options(&store)).await.unwrap();
        sleep(Duration::from_secs(10)).await;
        let rows = free.rows.lock().unwrap().len();
        running.handle().abort();
        let _ = running.finish().await;
        rows
    }
    let (alone, beside) = (delivered(false).await, delivered(true).await);
    assert!(alone > 90_000 && beside * 10 >= alone * 9, "{beside} beside it, {alone} alone");
}

#[tokio::test(start_paused = true)]
async fn a_chain_runs_on_as_many_workers_as_each_of_its_transforms_allows() {
    /// How many stages were made for workers, of a chain of two of which the second allows so many.
    async fn made(allowed: Option<usize>) -> usize {
        let (first, second) = (Picks::nothing(), Picks::nothing());
        let forks = std::sync::Arc::clone(&second.forks);
        let second = Picks { workers: allowed.and_then(NonZeroUsize::new), ..second };
        let builder = Pipeline::builder()
            .source("numbers", Box::new(Numbers::new(1, 1)) as Box<_>)
            .transform("first", &["numbers"], Box::new(first) as Box<_>)
            .transform("second", &["first"], Box::new(second) as Box<_>);
        let sink = Box::new(Told::to(Does::Write)) as Box<_>;
        let pipeline = builder.sink("out", &["second"], SinkOptions::default(), sink).build();
        let workers = NonZeroUsize::new(8).unwrap();
        let options = RunOptions { workers, ..options(&Store::in_memory().unwrap()) };
        pipeline.unwrap().start(options).await.unwrap().finish().await.unwrap();
        forks.load(std::sync::atomic::Ordering::Relaxed)
    }
    let alone = made(Some(1)).await;
    // One more than alone for each but the first, which then is the source's task itself.
    assert_eq!(
        [made(Some(3)).await, made(None).await, made(Some(99)).await],
        [3, 8, 8].map(|n| alone + n - 1)
    );
}

#[tokio::test(start_paused = true)]
async fn all_edges_together_hold_half_of_the_memory() {
    let memory = 1_000_000;
    let mut builder = Pipeline::builder().memory(memory);
    let names: Vec<String> = (0..10).map(|index| format!("source{index}")).collect();
    for name in &names {
        builder = builder.source(name, Box::new(Numbers::new(1, 1)) as Box<_>);
    }
    let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
    let sink = || Box::new(Told::to(Does::Write)) as Box<_>;
    let pipeline = builder
        .transform("all", &inputs, Box::new(Picks::nothing()) as Box<_>)
        .sink("one", &["all"], SinkOptions::default(), sink())
        .sink("two", &["all", "source0"], SinkOptions::default(), sink())
        .build();
    let running = pipeline.unwrap().start(options(&Store::in_memory().unwrap())).await.unwrap();
    let edges = running.handle().snapshot().edges;
    assert_eq!(edges.len(), 21);
    let most: usize = edges.iter().map(|edge| edge.queue_bytes_max).sum();
    assert!(most <= memory / 2 && most > memory * 2 / 5, "{most}");
    running.finish().await.unwrap();
}
