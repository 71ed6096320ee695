//! From a planned pipeline to running tasks.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_flow::{BudgetHolder, ByteBudget};
use tidegate_model::{Error, Result, SinkContext, SourceContext};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::checkpoint::Checkpoints;
use crate::edge::{EdgeReceiver, EdgeSender, edge};
use crate::gauges::{Gauge, NamedEdge};
use crate::graph::{Builder, Role, place};
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::rejects::{Hurry, Outlet};
use crate::route::{EdgePlan, Route, Router, StageCounts};
use crate::run::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Handle, RunOptions, Running, Shared};
use crate::sink_task::{Inlet, SinkTask};
use crate::source_task::{Path, SourceTask};
use crate::stop::{Phase, Stop};
use crate::store::Store;

/// Makes the tasks of a pipeline.
pub(crate) struct Starter {
    builder: Builder,
    plan: Plan,
    options: RunOptions,
    store: Store,
    budget: ByteBudget,
    began: Instant,
    settled: Arc<Notify>,
    failed: Arc<Notify>,
    // Both ends of every edge that is made and not handed to its task yet.
    inlets: Vec<Vec<Inlet>>,
    // Of each sink, for those whose rejects it takes.
    hurries: Vec<Arc<Hurry>>,
    edges: Vec<NamedEdge>,
}

/// Where the rows of an edge come from.
#[derive(Clone, Copy)]
struct Upstream<'a> {
    source: usize,
    holder: &'a Arc<BudgetHolder>,
    // What each edge may hold.
    share: usize,
    // Whether the same rows come again after a restart, with the same offsets.
    same_offsets: bool,
}

/// What the pieces are named in errors and counts.
struct Gauges {
    sources: Vec<Arc<Gauge>>,
    transforms: Vec<Arc<StageCounts>>,
    sinks: Vec<Arc<Gauge>>,
}

impl Starter {
    pub(crate) fn new(builder: Builder, plan: Plan, options: RunOptions, store: Store) -> Self {
        let budget = ByteBudget::new(builder.memory);
        let inlets = builder.sinks.iter().map(|_| Vec::new()).collect();
        let hurries = builder.sinks.iter().map(|_| Arc::default()).collect();
        let (settled, failed) = (Arc::default(), Arc::default());
        let (began, edges) = (Instant::now(), Vec::new());
        Self {
            builder,
            plan,
            options,
            store,
            budget,
            began,
            settled,
            failed,
            inlets,
            hurries,
            edges,
        }
    }

    pub(crate) async fn start(mut self) -> Result<Running> {
        let builder = &self.builder;
        let gauges = Gauges {
            sources: Vec::from_iter(
                builder.sources.iter().map(|node| Gauge::new(Role::Source, &node.name)),
            ),
            transforms: builder.transforms.iter().map(|_| Arc::default()).collect(),
            sinks: Vec::from_iter(
                builder.sinks.iter().map(|node| Gauge::new(Role::Sink, &node.name)),
            ),
        };
        let (phase, stopped) = watch::channel(Phase::Run);
        let paths = self.paths(&gauges)?;
        let mut resumed = false;
        let mut tasks = JoinSet::new();
        let mut names = HashMap::new();
        let ledgers: Vec<_> = paths
            .iter()
            .map(|path| (Arc::clone(&path.gauge.name), Arc::clone(&path.ledger)))
            .collect();
        for task in self.sink_tasks(&gauges) {
            let name = place(Role::Sink, &task.context.name);
            names.insert(tasks.spawn(task.run()).id(), name);
        }
        for task in self.source_tasks(paths, &Stop(stopped.clone())).await? {
            resumed |= !task.context.positions.is_empty();
            let name = place(Role::Source, &task.context.name);
            names.insert(tasks.spawn(task.run()).id(), name);
        }
        let (last_commit, last) = oneshot::channel();
        let mut checkpoints = JoinSet::new();
        let commits = Checkpoints {
            store: self.store.clone(),
            ledgers: ledgers.clone(),
            settled: Arc::clone(&self.settled),
            backoff: self.options.backoff,
        };
        checkpoints.spawn(commits.run(last));
        let transforms = self.builder.transforms.iter();
        let transforms = transforms.map(|node| Arc::clone(&node.name));
        let shared = Shared {
            phase,
            began: self.began,
            budget: self.budget,
            sources: gauges.sources,
            transforms: transforms.zip(gauges.transforms).collect(),
            sinks: gauges.sinks,
            edges: self.edges,
            ledgers,
        };
        Ok(Running {
            tasks,
            names,
            handle: Handle { shared: Arc::new(shared) },
            phase: stopped,
            failed: self.failed,
            checkpoints,
            last_commit,
            shutdown_timeout: self.builder.shutdown_timeout,
            resumed,
        })
    }

    /// The ways of all sources' rows, with both ends of every edge.
    fn paths(&mut self, gauges: &Gauges) -> Result<Vec<Path>> {
        let builder = &self.builder;
        let mut router = Router::new(builder, &self.plan, &gauges.transforms);
        let routes: Result<Vec<Route>> =
            (0..builder.sources.len()).map(|source| router.route(source)).collect();
        let routes = routes?;
        // By every way of every source there is an edge; together they hold half of the memory.
        let ways: usize = routes.iter().map(|route| EdgePlan::count(&route.edges)).sum();
        let share = builder.memory / 2 / ways.max(1);
        let mut paths = Vec::new();
        for (source, route) in routes.into_iter().enumerate() {
            let holder = self.holder(source)?;
            let same_offsets = self.builder.sources[source].source.same_offsets();
            let from = Upstream { source, holder: &holder, share, same_offsets };
            let edges = self.edges(from, &route.edges);
            let ledger = Ledger::new(Arc::clone(&self.settled), Arc::clone(&self.failed));
            let gauge = Arc::clone(&gauges.sources[source]);
            paths.push(Path { route, edges, holder, ledger, gauge, began: self.began });
        }
        Ok(paths)
    }

    /// The senders of these edges; the other ends go to their sinks, with what is behind them.
    fn edges(&mut self, from: Upstream<'_>, planned: &[EdgePlan]) -> Vec<EdgeSender> {
        let Upstream { source, holder, share, same_offsets } = from;
        let mut senders = Vec::new();
        for EdgePlan { sink, input, rejects, edges } in planned {
            let same = same_offsets && self.builder.sinks[*sink].sink.same_rejects();
            let rejects = Outlet {
                branches: rejects.clone(),
                edges: self.edges(Upstream { same_offsets: same, ..from }, edges),
                holder: Arc::clone(holder),
                takers: edges.iter().map(|edge| Arc::clone(&self.hurries[edge.sink])).collect(),
            };
            let builder = &self.builder;
            let node = &builder.sources[source];
            let options = builder.sinks[*sink].options;
            let (sender, receiver): (EdgeSender, EdgeReceiver) =
                edge(options.when_full, options.queue_bytes_max.unwrap_or(share));
            self.edges.push(NamedEdge {
                source: Arc::clone(&node.name),
                input: Arc::clone(input),
                sink: Arc::clone(&builder.sinks[*sink].name),
                gauge: sender.gauge(),
            });
            self.inlets[*sink].push(Inlet {
                input: Arc::clone(input),
                source: Arc::clone(&node.name),
                same_offsets,
                edge: receiver,
                rejects,
            });
            senders.push(sender);
        }
        senders
    }

    fn holder(&self, source: usize) -> Result<Arc<BudgetHolder>> {
        let node = &self.builder.sources[source];
        let holder = self.budget.holder(node.source.bytes_min());
        // Planning has checked that the minimums fit together.
        holder.map(Arc::new).map_err(|error| {
            Error::fatal("memory").because(error).within(place(Role::Source, &node.name))
        })
    }

    fn sink_tasks(&mut self, gauges: &Gauges) -> Vec<SinkTask> {
        let nodes = std::mem::take(&mut self.builder.sinks).into_iter().zip(&self.plan.sinks);
        let inlets = std::mem::take(&mut self.inlets).into_iter().zip(&self.hurries);
        nodes
            .zip(inlets.zip(&gauges.sinks))
            .map(|((node, columns), ((inlets, hurry), gauge))| SinkTask {
                context: SinkContext {
                    records: self.store.records(&node.name),
                    name: node.name,
                    columns: Arc::clone(columns),
                },
                sink: node.sink,
                inlets,
                hurry: Arc::clone(hurry),
                gauge: Arc::clone(gauge),
                backoff: self.options.backoff,
            })
            .collect()
    }

    async fn source_tasks(&mut self, paths: Vec<Path>, stop: &Stop) -> Result<Vec<SourceTask>> {
        let nodes = std::mem::take(&mut self.builder.sources);
        let plan = &mut self.plan;
        let columns = std::mem::take(&mut plan.sources).into_iter();
        let wanted = std::mem::take(&mut plan.required).into_iter();
        let given = columns.zip(wanted.zip(std::mem::take(&mut plan.severity_min)));
        let mut tasks = Vec::new();
        for ((node, (columns, (required, severity_min))), path) in
            nodes.into_iter().zip(given).zip(paths)
        {
            let name = Arc::clone(&node.name);
            let positions = match node.source.replayable() {
                true => self.store.run(move |store| store.positions(&name)).await?,
                false => Vec::new(),
            };
            let context = SourceContext {
                name: node.name,
                positions,
                holder: Arc::clone(&path.holder),
                columns,
                required,
                severity_min,
                offsets: self.plan.offsets,
                once: self.options.once,
                batch_bytes_max: BATCH_BYTES_MAX,
                batch_rows_max: BATCH_ROWS_MAX,
                expected: path.gauge.expected.clone(),
            };
            tasks.push(SourceTask {
                source: node.source,
                context,
                path: Arc::new(path),
                workers: self.options.workers,
                stop: stop.clone(),
                backoff: self.options.backoff,
            });
        }
        Ok(tasks)
    }
}
