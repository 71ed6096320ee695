//! The way of a source's rows through its fused transforms to the edges of sinks: synchronous, on
//! any worker, order kept.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use tidegate_flow::BudgetHolder;
use tidegate_model::{Batch, Error, Moment, OFFSET, Output, Rejects, Result, Stage, Verdict};
use tokio::sync::Mutex;

use crate::graph::{Builder, Port, Role, place};
use crate::memory::{compacted, made_bytes};
use crate::plan::Plan;
use crate::rejects::{rejects_schema, with_reasons};
use crate::stop::panicked;

/// A worker hands over what it has made once it is this much; the rest is made when that is gone.
const MADE_BYTES_MAX: usize = 1024 * 1024;

/// Where rows go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Into an edge, by its index among the route's edges.
    Edge(usize),
    /// Through a transform, by its node's index.
    Stage(usize),
}

/// A batch and where it goes next.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) next: Next,
    pub(crate) batch: Batch,
}

/// One of those who read an output.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    /// Indices of the columns it gets; `None` where it gets them all.
    pub(crate) columns: Option<Vec<usize>>,
    pub(crate) next: Next,
}

/// An edge of a route: from the source by this way to a sink, and on from there.
#[derive(Clone, Debug)]
pub(crate) struct EdgePlan {
    /// The sink's index.
    pub(crate) sink: usize,
    /// The way: the input's name, and behind it those it came through, where there are several.
    pub(crate) input: Arc<str>,
    /// Who takes what the sink rejects of these rows, by the edges below.
    pub(crate) rejects: Vec<Branch>,
    /// From the sink to those.
    pub(crate) edges: Vec<EdgePlan>,
}

impl EdgePlan {
    /// How many edges these are, with those behind them.
    pub(crate) fn count(edges: &[EdgePlan]) -> usize {
        edges.iter().map(|edge| 1 + Self::count(&edge.edges)).sum()
    }
}

/// What transforms count; shared with snapshots.
#[derive(Debug, Default)]
pub(crate) struct StageCounts {
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) rejected: AtomicU64,
    /// Why the first of them was.
    pub(crate) reason: OnceLock<String>,
    pub(crate) busy_ns: AtomicU64,
}

/// All that one source feeds: a tree from its output to edges.
pub(crate) struct Route {
    roots: Vec<Branch>,
    nodes: Vec<Node>,
    pub(crate) edges: Vec<EdgePlan>,
}

struct Node {
    name: Arc<str>,
    stage: Staged,
    // The most workers it may run on; `None` for as many as there are.
    workers: Option<NonZeroUsize>,
    counts: Arc<StageCounts>,
    rows: Vec<Branch>,
    rejects: Vec<Branch>,
    rejects_schema: SchemaRef,
}

/// How a node runs: each worker its own, or all rows of all sources through one.
enum Staged {
    Free(std::sync::Mutex<Box<dyn Stage>>),
    Shared(SharedStage),
}

/// A stage that all rows go through, in turn.
pub(crate) type SharedStage = Arc<Mutex<Box<dyn Stage>>>;

/// The stages of one worker; `None` where all rows go through a shared one.
pub(crate) struct Worker {
    stages: Vec<Option<Box<dyn Stage>>>,
}

/// Makes the routes of all sources.
pub(crate) struct Router<'a> {
    builder: &'a Builder,
    plan: &'a Plan,
    counts: &'a [Arc<StageCounts>],
    // Of each transform that can't be forked: the one there is.
    shared: Vec<Option<SharedStage>>,
}

impl<'a> Router<'a> {
    pub(crate) fn new(
        builder: &'a Builder,
        plan: &'a Plan,
        counts: &'a [Arc<StageCounts>],
    ) -> Self {
        let shared = vec![None; builder.transforms.len()];
        Self { builder, plan, counts, shared }
    }

    /// The route of a source.
    pub(crate) fn route(&mut self, source: usize) -> Result<Route> {
        let mut route = Route { roots: Vec::new(), nodes: Vec::new(), edges: Vec::new() };
        let columns = &self.plan.sources[source];
        route.roots = self.branches(&mut route, Port::Source(source), columns, "")?;
        Ok(route)
    }

    /// Those who read an output; `way` is how its rows came, from the last transform back.
    fn branches(
        &mut self,
        route: &mut Route,
        port: Port,
        columns: &SchemaRef,
        way: &str,
    ) -> Result<Vec<Branch>> {
        let name = self.name(port);
        let way = if way.is_empty() { name } else { format!("{name} < {way}") };
        let mut branches = Vec::new();
        for (index, inputs) in self.plan.wiring.transforms.iter().enumerate() {
            if inputs.contains(&port) {
                let wanted = &self.plan.transforms[index];
                let node = self.node(route, index, &way)?;
                let columns = projection(columns, wanted)?;
                branches.push(Branch { columns, next: Next::Stage(node) });
            }
        }
        branches.extend(self.sinks(&mut route.edges, port, columns, &way)?);
        Ok(branches)
    }

    /// The sinks that read an output, and those that take what they reject.
    fn sinks(
        &self,
        edges: &mut Vec<EdgePlan>,
        port: Port,
        columns: &SchemaRef,
        way: &str,
    ) -> Result<Vec<Branch>> {
        let mut branches = Vec::new();
        for (sink, inputs) in self.plan.wiring.sinks.iter().enumerate() {
            if inputs.contains(&port) {
                // Sinks don't see offsets, but their tasks do.
                let wanted = with_offset(&self.plan.sinks[sink], columns);
                let columns = projection(columns, &wanted)?;
                branches.push(Branch { columns, next: Next::Edge(edges.len()) });
                let mut behind = Vec::new();
                let port = Port::SinkRejects(sink);
                let further = format!("{} < {way}", self.name(port));
                let columns = rejects_schema(&wanted);
                let rejects = self.sinks(&mut behind, port, &columns, &further)?;
                edges.push(EdgePlan { sink, input: way.into(), rejects, edges: behind });
            }
        }
        Ok(branches)
    }

    fn node(&mut self, route: &mut Route, index: usize, way: &str) -> Result<usize> {
        let transform = &self.builder.transforms[index];
        let input = &self.plan.transforms[index];
        let stage = self.stage(index)?;
        let output = match &stage {
            Staged::Free(stage) => guard(stage).schema(),
            Staged::Shared(stage) => match stage.try_lock() {
                Ok(stage) => stage.schema(),
                Err(_) => Arc::clone(input), // in use already: it passed this check before
            },
        };
        let hidden =
            |schema: &SchemaRef| schema.fields().last().is_some_and(|f| f.name() == OFFSET);
        if hidden(input) && !hidden(&output) {
            let said = format!("it does not carry the last column, {OFFSET}, along");
            return Err(Error::fatal(said).within(place(Role::Transform, &transform.name)));
        }
        let node = route.nodes.len();
        route.nodes.push(Node {
            name: Arc::clone(&transform.name),
            stage,
            workers: transform.transform.workers(),
            counts: Arc::clone(&self.counts[index]),
            rows: Vec::new(),
            rejects: Vec::new(),
            rejects_schema: rejects_schema(input),
        });
        let rejects = rejects_schema(input);
        route.nodes[node].rows = self.branches(route, Port::Transform(index), &output, way)?;
        route.nodes[node].rejects = self.branches(route, Port::Rejects(index), &rejects, way)?;
        Ok(node)
    }

    fn stage(&mut self, index: usize) -> Result<Staged> {
        if let Some(shared) = &self.shared[index] {
            return Ok(Staged::Shared(Arc::clone(shared)));
        }
        let transform = &self.builder.transforms[index];
        let planned = transform.transform.plan(&self.plan.transforms[index]);
        let stage = planned.map_err(|mistake| {
            Error::invalid(mistake.message).within(place(Role::Transform, &transform.name))
        })?;
        if stage.fork().is_some() {
            return Ok(Staged::Free(std::sync::Mutex::new(stage)));
        }
        let shared = Arc::new(Mutex::new(stage));
        self.shared[index] = Some(Arc::clone(&shared));
        Ok(Staged::Shared(shared))
    }

    fn name(&self, port: Port) -> String {
        match port {
            Port::Source(index) => self.builder.sources[index].name.to_string(),
            Port::Transform(index) => self.builder.transforms[index].name.to_string(),
            Port::Rejects(index) => format!("{}.rejects", self.builder.transforms[index].name),
            Port::SinkRejects(index) => format!("{}.rejects", self.builder.sinks[index].name),
        }
    }
}

/// The columns of a sink, and the hidden one where its rows have it.
fn with_offset(wanted: &SchemaRef, columns: &SchemaRef) -> SchemaRef {
    let hidden = columns.fields().last().filter(|field| field.name() == OFFSET).cloned();
    let fields = wanted.fields().iter().cloned().chain(hidden);
    Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()))
}

/// The indices of the wanted columns; `None` where they are all there is.
fn projection(columns: &SchemaRef, wanted: &SchemaRef) -> Result<Option<Vec<usize>>> {
    let indices: Result<Vec<usize>, _> =
        wanted.fields().iter().map(|field| columns.index_of(field.name())).collect();
    let indices = indices.map_err(|error| Error::fatal("a column is missing").because(error))?;
    let all = indices.iter().copied().eq(0..columns.fields().len());
    Ok((!all).then_some(indices))
}

impl Route {
    /// Where the rows of a batch that was just read go first.
    pub(crate) fn enter(&self, batch: Batch, holder: &BudgetHolder) -> Result<Vec<Work>> {
        let mut works = Vec::new();
        spread(batch, &self.roots, holder, &mut works)?;
        Ok(works)
    }

    /// Stages for one more worker.
    pub(crate) fn worker(&self) -> Worker {
        let stages = self.nodes.iter().map(|node| match &node.stage {
            Staged::Free(stage) => guard(stage).fork(),
            Staged::Shared(_) => None,
        });
        Worker { stages: stages.collect() }
    }

    /// How many workers the stages allow, of so many at most: a fused chain runs as a whole, so what
    /// one stage allows holds for all. Where no stage is free, more than one would have nothing to do.
    pub(crate) fn workers(&self, most: NonZeroUsize) -> NonZeroUsize {
        let free = self.nodes.iter().filter(|node| matches!(node.stage, Staged::Free(_)));
        let allowed = free.map(|node| node.workers.unwrap_or(most).min(most));
        allowed.min().unwrap_or(NonZeroUsize::MIN)
    }

    /// The stage that all rows go through, where a node has one.
    pub(crate) fn shared(&self, node: usize) -> Option<SharedStage> {
        match &self.nodes.get(node)?.stage {
            Staged::Shared(stage) => Some(Arc::clone(stage)),
            Staged::Free(_) => None,
        }
    }

    /// One step of a stage: what becomes of the front of a batch, and the rest of the batch. The
    /// works are to be handed on after `wait`.
    pub(crate) fn step(
        &self,
        node: usize,
        stage: &mut dyn Stage,
        mut batch: Batch,
        at: Moment,
        holder: &BudgetHolder,
    ) -> Result<Step> {
        let Some(node) = self.nodes.get(node) else {
            return Err(Error::fatal("a node is missing"));
        };
        let began = Instant::now();
        let rows = batch.rows.num_rows();
        let applied = apply(stage, batch.rows.clone(), at);
        let Output { rows: made, rejects, rest, wait } =
            applied.map_err(|error| error.within(place(Role::Transform, &node.name)))?;
        let rest = match rest.map_or(0, |rest| rest.num_rows()) {
            0 => None,
            left if left < rows => {
                batch.split_front(rows - left).map(|front| std::mem::replace(&mut batch, front))
            }
            _ => {
                return Err(
                    Error::fatal("it took no rows").within(place(Role::Transform, &node.name))
                );
            }
        };
        let mut works = Vec::new();
        if made.num_rows() > 0 {
            let mut out = batch.with_rows(made);
            let made = made_bytes(&batch.rows, &out.rows);
            if made > 0 {
                out.holds.push(Arc::new(holder.charge(made)));
            }
            spread(out, &node.rows, holder, &mut works)?;
        }
        if let Some(rejects) = rejects {
            node.counts.rejected.fetch_add(rejects.rows.num_rows() as u64, Ordering::Relaxed);
            if let Some(reason) = rejects.reasons.first() {
                node.counts.reason.get_or_init(|| reason.clone());
            }
            node.spread_rejects(&batch, rejects, holder, &mut works)?;
        }
        node.counts.rows.fetch_add(batch.rows.num_rows() as u64, Ordering::Relaxed);
        node.counts.bytes.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
        let busy = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        node.counts.busy_ns.fetch_add(busy, Ordering::Relaxed);
        batch.ack.settle(Verdict::Delivered);
        Ok(Step { works, rest, wait })
    }
}

/// A stage's panic is an error like others: whoever runs it knows the stage's name.
fn apply(stage: &mut dyn Stage, rows: RecordBatch, at: Moment) -> Result<Output> {
    let applied = catch_unwind(AssertUnwindSafe(|| stage.apply(rows, at)));
    applied.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// What [`Route::step`] gives.
pub(crate) struct Step {
    pub(crate) works: Vec<Work>,
    pub(crate) rest: Option<Batch>,
    pub(crate) wait: std::time::Duration,
}

impl Node {
    /// Rejected rows go to whoever reads them; where nobody does they are counted and gone.
    fn spread_rejects(
        &self,
        batch: &Batch,
        rejects: Rejects,
        holder: &BudgetHolder,
        works: &mut Vec<Work>,
    ) -> Result<()> {
        let count = rejects.rows.num_rows();
        if count == 0 {
            return Ok(());
        }
        if self.rejects.is_empty() {
            batch.ack.split().settle(Verdict::Dropped);
            return Ok(());
        }
        let rows = with_reasons(&rejects.rows, rejects.reasons, &self.rejects_schema);
        let rows = rows.map_err(|error| {
            Error::fatal("its rejects are not rows of its input")
                .because(error)
                .within(place(Role::Transform, &self.name))
        })?;
        let mut out = batch.with_rows(rows);
        out.holds.push(Arc::new(holder.charge(made_bytes(&batch.rows, &out.rows))));
        spread(out, &self.rejects, holder, works)
    }
}

impl Worker {
    /// Runs a work through every stage that is this worker's, front rows first. What is left is in
    /// order: edges, shared stages, and stages not run because enough was made already.
    pub(crate) fn run(
        &mut self,
        route: &Route,
        works: Vec<Work>,
        elapsed: std::time::Duration,
        holder: &BudgetHolder,
    ) -> Result<Vec<Work>> {
        let mut todo = works;
        todo.reverse();
        let mut done = Vec::new();
        let mut made = 0;
        while let Some(Work { next, batch }) = todo.pop() {
            let own = match next {
                Next::Stage(node) => self.stages.get_mut(node).and_then(Option::as_mut),
                Next::Edge(_) => None,
            };
            match (next, own) {
                (Next::Stage(node), Some(stage)) if made < MADE_BYTES_MAX => {
                    let at = Moment { read_at: batch.read_at, elapsed };
                    let step = route.step(node, &mut **stage, batch, at, holder)?;
                    made += step.works.iter().map(|work| work.batch.bytes()).sum::<usize>();
                    todo.extend(step.rest.map(|batch| Work { next, batch }));
                    todo.extend(step.works.into_iter().rev());
                }
                _ => done.push(Work { next, batch }),
            }
        }
        Ok(done)
    }
}

/// Gives a batch to all who read it; what is to be queued is compacted first.
pub(crate) fn spread(
    batch: Batch,
    branches: &[Branch],
    holder: &BudgetHolder,
    works: &mut Vec<Work>,
) -> Result<()> {
    for branch in branches {
        let rows = match &branch.columns {
            None => batch.rows.clone(),
            Some(columns) => projected(&batch.rows, columns)?,
        };
        let mut share = batch.with_rows(rows);
        if matches!(branch.next, Next::Edge(_))
            && let Some(compact) = compacted(&share.rows, share.bytes())
        {
            let made = made_bytes(&share.rows, &compact);
            share.rows = compact;
            // What the copy was made of is not held any more.
            share.holds = vec![Arc::new(holder.charge(made))];
        }
        works.push(Work { next: branch.next, batch: share });
    }
    batch.ack.settle(Verdict::Delivered);
    Ok(())
}

fn projected(rows: &RecordBatch, columns: &[usize]) -> Result<RecordBatch> {
    let fields = rows.schema().project(columns);
    let columns = columns.iter().map(|index| Arc::clone(rows.column(*index))).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let projected = fields
        .and_then(|schema| RecordBatch::try_new_with_options(Arc::new(schema), columns, &options));
    projected.map_err(|error| Error::fatal("a column is missing").because(error))
}

fn guard<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
