//! Small components for tests: a source of numbered rows, a sink that does as it is told. What they
//! wait for is virtual: those who use them run with `start_paused`.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use futures::future::BoxFuture;
use futures::stream;
use tidegate_model::{
    Ack, Commit, Delivered, Error, Mistake, Moment, Output, Position, Records, Result, Sink,
    SinkContext, Source, SourceBatch, SourceContext, SourceStream, Stage, Transform, Verdict,
    Written,
};

/// The columns of a [`Numbers`] source.
pub(crate) fn columns(names: &[&str]) -> SchemaRef {
    let fields = names.iter().map(|name| Field::new(*name, DataType::UInt64, false));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// So many batches of so many rows, one every so often; every column holds the row's number.
#[derive(Clone)]
pub(crate) struct Numbers {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: u64,
    pub(crate) rows: u64,
    pub(crate) pace: Duration,
    /// Whether it can look for texts and for severe rows.
    pub(crate) searched: bool,
    /// What it was told when it opened.
    pub(crate) opened: Arc<Mutex<Option<SourceContext>>>,
    /// What it was told of its batches, in the order they were settled.
    pub(crate) verdicts: Arc<Mutex<Vec<Verdict>>>,
    /// Of how many it had been told each time it was closed.
    pub(crate) closed: Arc<Mutex<Vec<usize>>>,
}

impl Numbers {
    pub(crate) fn new(batches: u64, rows: u64) -> Self {
        let schema = columns(&["a", "b", "c"]);
        Self {
            schema,
            batches,
            rows,
            pace: Duration::ZERO,
            searched: false,
            opened: Arc::default(),
            verdicts: Arc::default(),
            closed: Arc::default(),
        }
    }
}

impl Source for Numbers {
    fn schema(&self) -> Option<SchemaRef> {
        Some(Arc::clone(&self.schema))
    }

    fn replayable(&self) -> bool {
        true
    }

    fn bytes_min(&self) -> usize {
        4_096
    }

    fn searched(&self) -> Option<&'static str> {
        self.searched.then_some("a")
    }

    fn severity_searched(&self) -> bool {
        self.searched
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        *self.opened.lock().unwrap() = Some(context.clone());
        let this = self.clone();
        let first = context.positions.first().map_or(0, |position| position.sequence / this.rows);
        Box::pin(async move {
            let batches = stream::unfold(first, move |batch| {
                let (this, context) = (this.clone(), context.clone());
                async move {
                    tokio::time::sleep(this.pace).await;
                    (batch < this.batches).then(|| (Ok(this.batch(batch, &context)), batch + 1))
                }
            });
            Ok(Box::pin(batches) as SourceStream)
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.closed.lock().unwrap().push(self.verdicts.lock().unwrap().len());
        Box::pin(async {})
    }
}

impl Numbers {
    fn batch(&self, batch: u64, context: &SourceContext) -> SourceBatch {
        let (start, end) = (batch * self.rows, (batch + 1) * self.rows);
        let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(start..end));
        let arrays = vec![numbers; context.columns.fields().len()];
        let verdicts = Arc::clone(&self.verdicts);
        let told = Ack::new(move |verdict| verdicts.lock().unwrap().push(verdict));
        SourceBatch {
            rows: RecordBatch::try_new(Arc::clone(&context.columns), arrays).unwrap(),
            start,
            position: Position { partition: "all".into(), sequence: end, state: Vec::new().into() },
            read_at: 0,
            bytes: self.rows,
            refused: 0,
            skipped: 0,
            told: Some(told),
        }
    }
}

/// What a [`Told`] sink does when it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Write,
    Stall,
    Panic,
    Fail,
    FailCommit,
    Close,
}

/// A sink that counts rows and does as it is told.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) does: Does,
    pub(crate) wants: Vec<&'static str>,
    pub(crate) rows: Arc<Mutex<Vec<u64>>>,
    pub(crate) columns: Arc<Mutex<Option<SchemaRef>>>,
    pub(crate) to: Option<String>,
    pub(crate) commit_bytes_max: usize,
    pub(crate) commit_age: Duration,
    pub(crate) commit_when: Commit,
    /// Rows whose number this divides are not taken.
    pub(crate) rejects: Option<u64>,
    pub(crate) same_rejects: bool,
    pub(crate) records: Option<Arc<dyn Records>>,
    /// How many rows it had at each commit.
    pub(crate) commits: Arc<Mutex<Vec<usize>>>,
}

impl Told {
    pub(crate) fn to(does: Does) -> Self {
        let (rows, columns, commits) = Default::default();
        let (wants, to, commit_bytes_max) = (vec!["a"], None, usize::MAX);
        Self {
            does,
            wants,
            rows,
            columns,
            to,
            commit_bytes_max,
            commit_age: Duration::from_millis(200),
            commit_when: Commit::Grouped,
            rejects: None,
            same_rejects: true,
            records: None,
            commits,
        }
    }
}

impl Sink for Told {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        let wanted = self.wants.iter().map(|name| input.index_of(name));
        let wanted: Result<Vec<usize>, _> = wanted.collect();
        wanted.map_err(|error| Mistake::new(error.to_string()))
    }

    fn commit_when(&self) -> Commit {
        self.commit_when
    }

    fn commit_bytes_max(&self) -> usize {
        self.commit_bytes_max
    }

    fn commit_age(&self) -> Duration {
        self.commit_age
    }

    fn same_rejects(&self) -> bool {
        self.same_rejects
    }

    fn target(&self) -> Option<String> {
        self.to.clone()
    }

    fn open(&mut self, context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        *self.columns.lock().unwrap() = Some(Arc::clone(&context.columns));
        self.records = Some(Arc::clone(&context.records));
        Box::pin(async move { context.records.delivered() })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async move {
            match self.does {
                Does::Write | Does::FailCommit => {}
                Does::Stall => std::future::pending().await,
                Does::Panic => panic!("told to"),
                Does::Fail => return Err(Error::fatal("told to")),
                Does::Close => return Err(Error::closed("told to")),
            }
            let numbers: &UInt64Array = rows.column(0).as_any().downcast_ref().unwrap();
            let numbers = numbers.values().iter().enumerate();
            let (rejected, taken): (Vec<_>, Vec<_>) = numbers
                .partition(|(_, number)| self.rejects.is_some_and(|by| number.is_multiple_of(by)));
            self.rows.lock().unwrap().extend(taken.into_iter().map(|(_, number)| number));
            let rejected = rejected.into_iter().map(|(row, _)| (row, "divided".to_owned()));
            Ok(Written { rejected: rejected.collect(), ..Written::default() })
        })
    }

    fn commit<'a>(&'a mut self, delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            if self.does == Does::FailCommit {
                return Err(Error::fatal("told to"));
            }
            self.commits.lock().unwrap().push(self.rows.lock().unwrap().len());
            match &self.records {
                Some(records) => records.save("", b"", delivered),
                None => Ok(()),
            }
        })
    }
}

/// A transform that reads some columns and gives one of them, or passes all through.
#[derive(Clone)]
pub(crate) struct Picks {
    pub(crate) reads: Vec<usize>,
    pub(crate) gives: Option<&'static str>,
    pub(crate) panics: bool,
    pub(crate) workers: Option<NonZeroUsize>,
    /// What it says that rows must have.
    pub(crate) texts: Option<BTreeSet<String>>,
    pub(crate) severity_min: Option<u8>,
    /// How many of it were made for workers.
    pub(crate) forks: Arc<AtomicUsize>,
}

impl Picks {
    /// One that passes everything through.
    pub(crate) fn nothing() -> Self {
        let (texts, severity_min, forks) = Default::default();
        let (reads, gives, panics, workers) = (vec![0], None, false, None);
        Self { reads, gives, panics, workers, texts, severity_min, forks }
    }
}

impl Transform for Picks {
    fn workers(&self) -> Option<NonZeroUsize> {
        self.workers
    }

    fn columns(&self, _: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        Ok(self.reads.clone())
    }

    fn passes_through(&self) -> bool {
        self.gives.is_none()
    }

    fn required(&self, input: &SchemaRef, column: &str) -> Option<BTreeSet<String>> {
        assert!(input.column_with_name(column).is_some());
        self.texts.clone()
    }

    fn severity_min(&self, _: &SchemaRef) -> Option<u8> {
        self.severity_min
    }

    fn plan(&self, input: &SchemaRef) -> Result<Box<dyn Stage>, Mistake> {
        let (panics, forks) = (self.panics, Arc::clone(&self.forks));
        let Some(gives) = self.gives else {
            let schema = Arc::clone(input);
            return Ok(Box::new(Picked { keep: None, schema, panics, forks }));
        };
        let mut keep = vec![input.index_of(gives).map_err(|e| Mistake::new(e.to_string()))?];
        keep.extend(input.index_of(tidegate_model::OFFSET));
        let schema = Arc::new(input.project(&keep).unwrap());
        Ok(Box::new(Picked { keep: Some(keep), schema, panics, forks }))
    }
}

#[derive(Clone)]
struct Picked {
    keep: Option<Vec<usize>>,
    schema: SchemaRef,
    panics: bool,
    forks: Arc<AtomicUsize>,
}

impl Stage for Picked {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn fork(&self) -> Option<Box<dyn Stage>> {
        self.forks.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(self.clone()))
    }

    fn apply(&mut self, rows: RecordBatch, _: Moment) -> Result<Output> {
        assert!(!self.panics, "told to");
        Ok(Output::rows(match &self.keep {
            Some(keep) => rows.project(keep).unwrap(),
            None => rows,
        }))
    }
}
