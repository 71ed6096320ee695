//! Who waits for an answer is told once what became of its rows: when the last sink has made them
//! durable, and not before, or when nobody answers for them any more.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::future::BoxFuture;
use tidegate_engine::{Pipeline, RunOptions, Running, SinkOptions, Store};
use tidegate_model::{Commit, Delivered, Mistake, Result, Sink, SinkContext, Verdict, Written};
use tokio::time::{Instant, sleep, timeout};

use crate::parts::{Does, Numbers, Told};

/// A sink whose commits take so long; keeps how many rows each made durable, and when.
#[derive(Clone)]
struct Keeps {
    kind: Commit,
    commit: Duration,
    written: u64,
    durable: Arc<Mutex<Vec<(u64, Instant)>>>,
}

impl Keeps {
    fn new(kind: Commit, commit: Duration) -> Self {
        Self { kind, commit, written: 0, durable: Arc::default() }
    }

    /// How many rows are durable.
    fn rows(&self) -> u64 {
        self.durable.lock().unwrap().last().map_or(0, |(rows, _)| *rows)
    }
}

impl Sink for Keeps {
    fn columns(&self, _: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        Ok(vec![0])
    }

    fn commit_when(&self) -> Commit {
        self.kind
    }

    fn open(&mut self, _: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        self.written += rows.num_rows() as u64;
        Box::pin(async { Ok(Written::default()) })
    }

    fn commit<'a>(&'a mut self, _: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            sleep(self.commit).await;
            self.durable.lock().unwrap().push((self.written, Instant::now()));
            Ok(())
        })
    }
}

async fn start(source: Numbers, sinks: Vec<Box<dyn Sink>>) -> Running {
    let mut builder = Pipeline::builder().source("numbers", Box::new(source) as Box<_>);
    for (index, sink) in sinks.into_iter().enumerate() {
        let name = format!("sink{index}");
        builder = builder.sink(&name, &["numbers"], SinkOptions::default(), sink);
    }
    let store = Some(Store::in_memory().unwrap());
    let options = RunOptions { once: true, store, ..RunOptions::default() };
    builder.shutdown_timeout(Duration::from_secs(5)).build().unwrap().start(options).await.unwrap()
}

const DEADLINE: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn a_batch_is_told_of_once_when_the_slowest_sink_has_it() {
    let quick = Keeps::new(Commit::EachWrite, Duration::ZERO);
    let slow = Keeps::new(Commit::Grouped, Duration::from_millis(70));
    let source = Numbers { pace: Duration::from_millis(10), ..Numbers::new(100, 3) };
    let verdicts = Arc::clone(&source.verdicts);
    let running = start(source, vec![Box::new(quick.clone()), Box::new(slow.clone())]).await;
    let watching = async {
        let mut ahead = 0;
        while verdicts.lock().unwrap().len() < 100 {
            let told = verdicts.lock().unwrap().len() as u64 * 3;
            assert!(told <= slow.rows(), "{told} rows are told of, {} are durable", slow.rows());
            ahead = ahead.max(quick.rows() - told);
            sleep(Duration::from_millis(1)).await;
        }
        ahead
    };
    let both = async { tokio::join!(watching, running.finish()) };
    let (ahead, finished) = timeout(DEADLINE, both).await.unwrap();
    finished.unwrap();
    assert!(ahead > 30, "the quick one is hardly ahead: {ahead}");
    assert_eq!(*verdicts.lock().unwrap(), [Verdict::Delivered; 100]);
}

#[tokio::test(start_paused = true)]
async fn what_a_sink_could_not_take_has_failed_though_another_has_it() {
    for does in [Does::Fail, Does::Panic, Does::Stall] {
        let keeps = Keeps::new(Commit::EachWrite, Duration::ZERO);
        let source = Numbers { pace: Duration::from_millis(1), ..Numbers::new(20, 3) };
        let verdicts = Arc::clone(&source.verdicts);
        let running = start(source, vec![Box::new(keeps.clone()), Box::new(Told::to(does))]).await;
        if does == Does::Stall {
            sleep(Duration::from_millis(100)).await;
            assert_eq!((keeps.rows(), &*verdicts.lock().unwrap()), (60, &vec![]));
            running.handle().stop();
        }
        let finished = timeout(DEADLINE, running.finish()).await.unwrap();
        let told = verdicts.lock().unwrap().clone();
        assert!(!told.is_empty() && told.iter().all(|told| *told == Verdict::Failed), "{told:?}");
        match does {
            // All that was given is told of, and none of it twice.
            Does::Stall => assert_eq!(told.len(), 20, "{finished:?}"),
            _ => assert!(finished.is_err() && told.len() <= 20),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_tells_that_it_failed() {
    let source = Numbers { pace: Duration::from_millis(1), ..Numbers::new(20, 3) };
    let verdicts = Arc::clone(&source.verdicts);
    let running = start(source, vec![Box::new(Told::to(Does::Stall))]).await;
    sleep(Duration::from_millis(100)).await;
    drop(running);
    let told = async {
        while verdicts.lock().unwrap().len() < 20 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, told).await.unwrap();
    assert_eq!(*verdicts.lock().unwrap(), [Verdict::Failed; 20]);
}

/// A sink that asks for time so often before it takes anything; keeps when it was asked.
#[derive(Clone)]
struct Busy {
    after: Option<Duration>,
    refuses: usize,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Sink for Busy {
    fn columns(&self, _: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        Ok(vec![0])
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    fn open(&mut self, _: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        let mut asked = self.asked.lock().unwrap();
        asked.push(Instant::now());
        let again =
            if asked.len() <= self.refuses { (0..rows.num_rows()).collect() } else { vec![] };
        let written = Written { again, after: self.after, ..Written::default() };
        Box::pin(async { Ok(written) })
    }

    fn commit<'a>(&'a mut self, _: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_asks_for_time_gets_it_and_one_that_asks_for_none_is_not_hammered() {
    let floor = Duration::from_millis(100);
    for (after, least) in [
        (Some(Duration::from_secs(7)), Duration::from_secs(7)),
        (Some(Duration::ZERO), floor),
        (None, floor),
    ] {
        let asked = Arc::default();
        let busy = Busy { after, refuses: 20, asked: Arc::clone(&asked) };
        let source = Numbers::new(1, 3);
        let verdicts = Arc::clone(&source.verdicts);
        let running = start(source, vec![Box::new(busy)]).await;
        timeout(DEADLINE, running.finish()).await.unwrap().unwrap();
        assert_eq!(*verdicts.lock().unwrap(), [Verdict::Delivered]);
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 21);
        let waits = asked.windows(2).map(|two| two[1] - two[0]);
        assert!(waits.clone().all(|wait| wait >= least), "{:?}", waits.collect::<Vec<_>>());
        if after.is_some() {
            // Not longer, either; a timer has a grain of a millisecond.
            let most = least + Duration::from_millis(2);
            assert!(waits.clone().all(|wait| wait <= most), "{:?}", waits.collect::<Vec<_>>());
        }
    }
}
