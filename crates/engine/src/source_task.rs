//! One source at work: reads, runs the transforms behind it, and hands the rows to edges.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, StreamExt, stream};
use tidegate_flow::{Backoff, BudgetHolder, Delays, FlowExt, Meter};
use tidegate_model::{
    Batch, Error, ErrorKind, Moment, Partition, Position, Result, Source, SourceBatch,
    SourceContext, SourceStream, Verdict,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::edge::{EdgeSender, Offer};
use crate::gauges::Gauge;
use crate::graph::{Role, place};
use crate::ledger::Ledger;
use crate::route::{Next, Route, Work, Worker};
use crate::stop::Stop;

/// One source and all that it feeds.
pub(crate) struct SourceTask {
    pub(crate) source: Box<dyn Source>,
    /// What it is given when it opens, but for the positions, which are the committed ones here.
    pub(crate) context: SourceContext,
    pub(crate) path: Arc<Path>,
    /// The most that its transforms may have.
    pub(crate) workers: NonZeroUsize,
    pub(crate) stop: Stop,
    pub(crate) backoff: Backoff,
}

/// What the rows of a source meet on their way.
pub(crate) struct Path {
    pub(crate) route: Route,
    pub(crate) edges: Vec<EdgeSender>,
    pub(crate) holder: Arc<BudgetHolder>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) began: Instant,
}

impl SourceTask {
    /// Runs to the source's end, a stop, or an error that waiting does not mend.
    pub(crate) async fn run(self) -> Result<()> {
        let Self { source, context, path, workers, stop, backoff } = self;
        let read = context.positions.iter().map(|p| (p.partition.clone(), p.clone())).collect();
        let delays = backoff.delays();
        let gauge = Arc::clone(&path.gauge);
        let ledger = Arc::clone(&path.ledger);
        let reader =
            Reader { source, context, read, stream: None, gauge, ledger, stop, backoff, delays };
        // Where the reader is put when it has read all it will.
        let (leave, left) = oneshot::channel();
        let batches = stream::unfold((reader, leave), |(mut reader, leave)| async {
            match reader.next().await {
                Some(batch) => Some((batch, (reader, leave))),
                None => {
                    let _ = leave.send(reader);
                    None
                }
            }
        });
        let admitting = Arc::clone(&path);
        let entered = batches.map(move |read| admitting.enter(read?));
        let workers = path.route.workers(workers);
        if workers.get() > 1 {
            let pool = Arc::new(Pool::new(&path, workers));
            let made = entered.concurrent_map(workers, move |works| {
                let pool = Arc::clone(&pool);
                async move { pool.run(works?) }
            });
            path.deliver(made).await?;
        } else {
            let mut worker = path.route.worker();
            let running = Arc::clone(&path);
            let made = entered.map(move |works| running.run(&mut worker, works?));
            path.deliver(made).await?;
        }
        drop(path); // and with it the edges: their sinks finish
        if let Ok(reader) = left.await {
            reader.close().await;
        }
        Ok(())
    }
}

/// Opens a source, again where it was disconnected, and reads.
struct Reader {
    source: Box<dyn Source>,
    context: SourceContext,
    // Where reading goes on in each partition: it may be far ahead of what is committed.
    read: HashMap<Partition, Position>,
    stream: Option<SourceStream>,
    gauge: Arc<Gauge>,
    ledger: Arc<Ledger>,
    stop: Stop,
    backoff: Backoff,
    delays: Delays,
}

impl Reader {
    /// The next batch; `None` at the source's end, or after a stop.
    async fn next(&mut self) -> Option<Result<SourceBatch>> {
        loop {
            let ledger = Arc::clone(&self.ledger);
            self.stop.clone().unless(ledger.has_room()).await?;
            let failed = match self.step().await? {
                Ok(batch) => {
                    let position = batch.position.clone();
                    self.read.insert(position.partition.clone(), position);
                    self.delays = self.backoff.delays();
                    self.gauge.set_trouble(None);
                    return Some(Ok(batch));
                }
                Err(error) => error,
            };
            self.stream = None;
            if failed.kind() != ErrorKind::Disconnected {
                return Some(Err(failed.within(place(Role::Source, &self.context.name))));
            }
            // The policy has no end; if it had one, this would be it.
            let Some(delay) = self.delays.next() else {
                return Some(Err(failed.within(place(Role::Source, &self.context.name))));
            };
            if self.gauge.set_trouble(Some(failed.to_string())) {
                tracing::warn!(source = &*self.context.name, "{failed}; trying again");
            }
            self.stop.clone().unless(sleep(delay)).await?;
        }
    }

    /// Lets the source end what waits for verdicts.
    async fn close(mut self) {
        self.stream = None;
        self.ledger.is_settled().await;
        self.source.close().await;
    }

    async fn step(&mut self) -> Option<Result<SourceBatch>> {
        let stop = self.stop.clone();
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let context = SourceContext {
                    positions: self.read.values().cloned().collect(),
                    ..self.context.clone()
                };
                match stop.clone().unless(self.source.open(context)).await? {
                    Ok(stream) => none.insert(stream),
                    Err(error) => return Some(Err(error)),
                }
            }
        };
        stop.unless(stream.next()).await?
    }
}

/// Workers that wait for work.
struct Pool {
    path: Arc<Path>,
    idle: Mutex<Vec<Worker>>,
}

impl Pool {
    fn new(path: &Arc<Path>, workers: NonZeroUsize) -> Self {
        let idle = (0..workers.get()).map(|_| path.route.worker()).collect();
        Self { path: Arc::clone(path), idle: Mutex::new(idle) }
    }

    fn run(&self, works: Vec<Work>) -> Result<Vec<Work>> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worker = idle().pop().unwrap_or_else(|| self.path.route.worker());
        let made = self.path.run(&mut worker, works);
        idle().push(worker);
        made
    }
}

impl Path {
    /// Registers a batch that was read, and sends it on its way.
    fn enter(&self, read: SourceBatch) -> Result<Vec<Work>> {
        let SourceBatch { rows, start, position, read_at, bytes, refused, skipped, told } = read;
        self.gauge.count(rows.num_rows() as u64 + skipped, bytes);
        self.gauge.skipped.fetch_add(skipped, Ordering::Relaxed);
        self.gauge.refused.fetch_add(refused, Ordering::Relaxed);
        let (partition, end) = (position.partition.clone(), position.sequence);
        let ack = self.ledger.register(position, told);
        if rows.num_rows() == 0 {
            ack.settle(Verdict::Delivered);
            return Ok(Vec::new());
        }
        let batch = Batch { rows, partition, start, end, read_at, ack, holds: Vec::new() };
        self.route.enter(batch, &self.holder)
    }

    fn run(&self, worker: &mut Worker, works: Vec<Work>) -> Result<Vec<Work>> {
        let began = std::time::Instant::now();
        let made = worker.run(&self.route, works, self.began.elapsed(), &self.holder);
        let spent = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.gauge.transforms_ns.fetch_add(spent, Ordering::Relaxed);
        made
    }

    /// Hands over what was made, in order, until the stream ends or fails.
    async fn deliver(&self, made: impl Stream<Item = Result<Vec<Work>>>) -> Result<()> {
        let made = made.meter();
        let meter = made.handle();
        self.gauge.set_meter(meter.clone());
        let mut made = pin!(made);
        let mut worker = self.route.worker();
        while let Some(works) = made.next().await {
            self.hand_over(works?, &mut worker, &meter).await?;
            // The sink gets at it while it is in the processor's cache, and memory that it is done
            // with is read into again, instead of more.
            tokio::task::yield_now().await;
        }
        self.gauge.ended.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// First everything that can be queued at once, so that one full edge does not keep an item from
    /// the others; then, in order, what has to wait.
    async fn hand_over(&self, works: Vec<Work>, worker: &mut Worker, meter: &Meter) -> Result<()> {
        let mut waiting = VecDeque::new();
        self.offer(works, &mut waiting);
        while let Some(Work { next, batch }) = waiting.pop_front() {
            match next {
                Next::Edge(edge) => {
                    if let Some(edge) = self.edges.get(edge) {
                        meter.blocked(edge.send(batch)).await;
                    }
                }
                Next::Stage(node) => {
                    let (made, rest) = self.stage(node, batch, worker, meter).await?;
                    // What comes of a batch goes before what is behind it.
                    let mut ahead = VecDeque::new();
                    self.offer(made, &mut ahead);
                    ahead.extend(rest.map(|batch| Work { next, batch }));
                    while let Some(work) = ahead.pop_back() {
                        waiting.push_front(work);
                    }
                }
            }
        }
        Ok(())
    }

    /// Queues what finds room, edge by edge in order.
    fn offer(&self, works: Vec<Work>, waiting: &mut VecDeque<Work>) {
        let mut full: HashSet<usize> = waiting
            .iter()
            .filter_map(|work| match work.next {
                Next::Edge(edge) => Some(edge),
                Next::Stage(_) => None,
            })
            .collect();
        for Work { next, batch } in works {
            match next {
                Next::Edge(edge) if !full.contains(&edge) => {
                    let offered = self.edges.get(edge).map(|sender| sender.offer(batch));
                    if let Some(Offer::Full(batch)) = offered {
                        full.insert(edge);
                        waiting.push_back(Work { next, batch });
                    }
                }
                _ => waiting.push_back(Work { next, batch }),
            }
        }
    }

    /// A step of a stage that was left for here: a shared one, or more of one that made a lot.
    async fn stage(
        &self,
        node: usize,
        batch: Batch,
        worker: &mut Worker,
        meter: &Meter,
    ) -> Result<(Vec<Work>, Option<Batch>)> {
        let Some(shared) = self.route.shared(node) else {
            let works = vec![Work { next: Next::Stage(node), batch }];
            return Ok((self.run(worker, works)?, None));
        };
        let mut stage = meter.blocked(shared.lock()).await;
        let at = Moment { read_at: batch.read_at, elapsed: self.began.elapsed() };
        let step = self.route.step(node, &mut **stage, batch, at, &self.holder)?;
        if !step.wait.is_zero() {
            // Nobody passes meanwhile: the stage is kept.
            meter.blocked(sleep(step.wait)).await;
        }
        Ok((step.works, step.rest))
    }
}

/// An error of the kind that ends a run, for a batch that nobody answered for.
pub(crate) fn lost(source: &str) -> Error {
    Error::fatal(
        "a batch was given up on its way, without a word; it is read again at the next start",
    )
    .within(source)
}
