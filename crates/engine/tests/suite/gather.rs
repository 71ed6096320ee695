//! Small batches are joined before a write: what there is at once, or what comes within a time that
//! the sink names.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::{RecordBatch, UInt64Array};
use arrow_schema::SchemaRef;
use futures::future::BoxFuture;
use tidegate_engine::{Pipeline, RunOptions, Running, SinkOptions, Store};
use tidegate_model::{
    Commit, Delivered, Gather, Mistake, Result, Sink, SinkContext, Verdict, Written,
};
use tokio::time::{sleep, timeout};

use crate::parts::Numbers;

/// A sink that takes its time for each write, and keeps what each had.
#[derive(Clone)]
struct Slow {
    gather: Gather,
    write: Duration,
    writes: Arc<Mutex<Vec<Vec<u64>>>>,
    /// After how many writes it was closed.
    closed: Arc<Mutex<Vec<usize>>>,
}

impl Sink for Slow {
    fn columns(&self, _: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        Ok(vec![0])
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    fn gather(&self) -> Gather {
        self.gather
    }

    fn open(&mut self, _: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async move {
            sleep(self.write).await;
            let numbers: &UInt64Array = rows.column(0).as_any().downcast_ref().unwrap();
            self.writes.lock().unwrap().push(numbers.values().to_vec());
            // Of those with a 7 one is refused, in a second try.
            let ends_in_7 = |row: &usize| numbers.value(*row) % 10 == 7;
            let sevens = (0..rows.num_rows()).filter(ends_in_7);
            if sevens.clone().count() == rows.num_rows() {
                let rejected = sevens.map(|row| (row, "a seven".to_owned())).collect();
                return Ok(Written { rejected, ..Written::default() });
            }
            Ok(Written { again: sevens.collect(), ..Written::default() })
        })
    }

    fn commit<'a>(&'a mut self, _: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.closed.lock().unwrap().push(self.writes.lock().unwrap().len());
        Box::pin(async {})
    }
}

async fn start(source: Numbers, sink: Slow) -> Running {
    let builder = Pipeline::builder().source("numbers", Box::new(source) as Box<_>);
    let options = SinkOptions::default();
    let builder = builder.sink("out", &["numbers"], options, Box::new(sink) as Box<_>);
    let store = Some(Store::in_memory().unwrap());
    let options = RunOptions { once: true, store, ..RunOptions::default() };
    builder.build().unwrap().start(options).await.unwrap()
}

/// What each write had, and what became of each batch of the source.
async fn run(source: Numbers, gather: Gather, write: Duration) -> (Vec<Vec<u64>>, Vec<Verdict>) {
    let verdicts = Arc::clone(&source.verdicts);
    let sink = Slow { gather, write, writes: Arc::default(), closed: Arc::default() };
    let running = start(source, sink.clone()).await;
    let finished = timeout(Duration::from_secs(3_600), running.finish()).await;
    finished.unwrap_or_else(|_| panic!("it stands still")).unwrap();
    let verdicts = verdicts.lock().unwrap().clone();
    (sink.writes.lock().unwrap().clone(), verdicts)
}

#[tokio::test(start_paused = true)]
async fn each_is_closed_once_a_source_when_all_is_told_and_a_sink_when_all_is_written() {
    for stop in [false, true] {
        let source = Numbers { pace: Duration::from_millis(1), ..Numbers::new(50, 1) };
        let (verdicts, closed) = (Arc::clone(&source.verdicts), Arc::clone(&source.closed));
        let (writes, shut) = (Arc::default(), Arc::default());
        let sink = Slow { gather: LIMITS, write: AGE, writes, closed: shut };
        let running = start(source, sink.clone()).await;
        if stop {
            sleep(Duration::from_millis(20)).await;
            running.handle().stop();
        }
        running.finish().await.unwrap();
        let told = verdicts.lock().unwrap().clone();
        assert_eq!((told.len() == 50, &*closed.lock().unwrap()), (!stop, &vec![told.len()]));
        assert!(told.len() > 10);
        assert_eq!(*sink.closed.lock().unwrap(), [sink.writes.lock().unwrap().len()]);
    }
}

const AGE: Duration = Duration::from_millis(100);
const LIMITS: Gather = Gather { rows_max: 50, bytes_max: 1 << 20, age: Duration::ZERO };

#[tokio::test(start_paused = true)]
async fn what_came_while_it_wrote_is_written_at_once_up_to_the_limits() {
    let source = Numbers { pace: Duration::from_millis(1), ..Numbers::new(200, 2) };
    let (writes, _) = run(source, LIMITS, Duration::from_millis(10)).await;
    assert_eq!(writes[0], [0, 1], "the first is not kept waiting");
    assert!(writes.iter().all(|rows| rows.len() <= 50), "{writes:?}");
    assert!(writes.len() < 50, "{} writes", writes.len());
    let mut rows = writes.concat();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows, (0..400).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_what_comes_within_that_time() {
    let source = Numbers { pace: Duration::from_millis(30), ..Numbers::new(7, 1) };
    let gather = Gather { age: AGE, ..LIMITS };
    let (writes, _) = run(source, gather, Duration::ZERO).await;
    assert_eq!(writes, [&[0, 1, 2, 3][..], &[4, 5, 6]]);
    let source = Numbers { pace: Duration::from_millis(1), ..Numbers::new(100, 5) };
    let gather = Gather { rows_max: 20, age: Duration::from_secs(1_000), ..LIMITS };
    let (writes, _) = run(source, gather, Duration::ZERO).await;
    assert_eq!(writes.iter().filter(|rows| rows.len() > 4).count(), 25, "full ones wait no more");
}

#[tokio::test(start_paused = true)]
async fn each_batch_learns_what_became_of_its_own_rows() {
    let source = Numbers { pace: Duration::from_millis(1), ..Numbers::new(20, 5) };
    let gather = Gather { age: AGE, ..LIMITS };
    let (_, verdicts) = run(source, gather, Duration::ZERO).await;
    let expected = (0..20).map(|batch| [Verdict::Delivered, Verdict::Dropped][batch % 2]);
    assert_eq!(verdicts, expected.collect::<Vec<_>>(), "rows 5 to 9 have a seven");
}
