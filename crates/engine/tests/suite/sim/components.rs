//! Components of the simulation: sources that stall and break, transforms of every kind, sinks that
//! keep what they have over crashes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use tidegate_flow::Permit;
use tidegate_model::{
    Commit, Delivered, Error, Gather, Mistake, Moment, OFFSET, Output, Position, Rejects, Result,
    Sink, SinkContext, Source, SourceBatch, SourceContext, SourceStream, Stage, Transform, Written,
};
use tokio::time::sleep;

use super::graph::{Kind, Plan};

/// Offsets of neighbouring rows are this far apart.
const STEP: u64 = 10;

/// What outlives a crash: sinks' contents. And whether things still break.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) sinks: Arc<Vec<Mutex<Vec<String>>>>,
    seeds: Arc<Mutex<fastrand::Rng>>,
    healed: Arc<AtomicBool>,
}

impl World {
    pub(crate) fn new(plan: &Plan, seed: u64) -> Self {
        Self {
            sinks: Arc::new(plan.sinks.iter().map(|_| Mutex::default()).collect()),
            seeds: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed ^ 0x5eed))),
            healed: Arc::default(),
        }
    }

    /// From now on nothing breaks; it may still be slow.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    fn random(&self) -> fastrand::Rng {
        self.seeds.lock().unwrap().fork()
    }

    /// Whether something breaks now, once in so many times.
    fn breaks(&self, random: &mut fastrand::Rng, times: u32) -> bool {
        !self.healed.load(Ordering::Relaxed) && random.u32(0..times) == 0
    }
}

/// The number in a row's text, `source/partition/number/padding`.
pub(crate) fn number(text: &str) -> u64 {
    text.split('/').nth(2).and_then(|number| number.parse().ok()).unwrap()
}

pub(crate) fn row(source: usize, partition: usize, number: u64) -> String {
    let padding = "x".repeat((number as usize * 37 + source) % 90);
    format!("{source}/{partition}/{number}/{padding}")
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]))
}

#[derive(Clone)]
pub(crate) struct SimSource {
    index: usize,
    rows: Vec<u64>,
    chunk_bytes: usize,
    world: World,
}

impl SimSource {
    pub(crate) fn new(plan: &Plan, world: &World, index: usize) -> Self {
        let rows = plan.sources[index].partitions.clone();
        Self { index, rows, chunk_bytes: plan.chunk_bytes, world: world.clone() }
    }
}

/// Text that holds its permit.
struct Chunk(Vec<u8>, #[expect(dead_code, reason = "held, not read")] Permit);

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

struct Reading {
    source: SimSource,
    context: SourceContext,
    next: Vec<u64>,
    random: fastrand::Rng,
}

impl Source for SimSource {
    fn schema(&self) -> Option<SchemaRef> {
        Some(columns())
    }

    fn replayable(&self) -> bool {
        true
    }

    fn bytes_min(&self) -> usize {
        self.chunk_bytes
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        let mut random = self.world.random();
        let source = self.clone();
        Box::pin(async move {
            if source.world.breaks(&mut random, 6) {
                return Err(Error::disconnected("not now"));
            }
            let mut next = vec![0; source.rows.len()];
            for position in &context.positions {
                let partition: usize = position.partition.as_str().parse().unwrap();
                assert_eq!(position.sequence.to_le_bytes(), *position.state);
                next[partition] = position.sequence / STEP;
            }
            let reading = Reading { source, context, next, random };
            let batches = stream::unfold(reading, |mut reading| async {
                let batch = reading.read().await?;
                Some((batch, reading))
            });
            Ok(Box::pin(batches) as SourceStream)
        })
    }
}

impl Reading {
    async fn read(&mut self) -> Option<Result<SourceBatch>> {
        let left = |partition: &usize| self.next[*partition] < self.source.rows[*partition];
        let left: Vec<usize> = (0..self.next.len()).filter(left).collect();
        let partition = *self.random.choice(&left)?;
        if self.random.u32(0..4) == 0 {
            sleep(Duration::from_millis(self.random.u64(0..500))).await;
        }
        if self.source.world.breaks(&mut self.random, 20) {
            return Some(Err(Error::disconnected("the line is cut")));
        }
        if self.source.world.breaks(&mut self.random, 200) {
            return Some(Err(Error::fatal("the disk is on fire")));
        }
        let mut permit = self.context.holder.acquire(self.source.chunk_bytes).await.unwrap();
        let start = self.next[partition];
        let end = start + self.random.u64(0..20);
        let mut text = Vec::new();
        let mut ends = vec![0];
        for number in start..end.min(self.source.rows[partition]) {
            let row = row(self.source.index, partition, number);
            if text.len() + row.len() > self.source.chunk_bytes {
                break;
            }
            text.extend_from_slice(row.as_bytes());
            ends.push(text.len() as i32);
        }
        let rows = ends.len() as u64 - 1;
        permit.shrink_to(text.len());
        let bytes = text.len() as u64;
        let text = Buffer::from(Bytes::from_owner(Chunk(text, permit)));
        let text = StringArray::new(OffsetBuffer::new(ScalarBuffer::from(ends)), text, None);
        let mut arrays: Vec<ArrayRef> = Vec::new();
        if self.context.columns.column_with_name("text").is_some() {
            arrays.push(Arc::new(text));
        }
        if self.context.offsets {
            let offsets = (start..start + rows).map(|number| number * STEP + 3);
            arrays.push(Arc::new(UInt64Array::from_iter_values(offsets)));
        }
        self.next[partition] = start + rows;
        let sequence = (start + rows) * STEP;
        Some(Ok(SourceBatch {
            rows: RecordBatch::try_new(Arc::clone(&self.context.columns), arrays).unwrap(),
            start: start * STEP,
            position: Position {
                partition: partition.to_string().into(),
                sequence,
                state: sequence.to_le_bytes().to_vec().into(),
            },
            read_at: 0,
            bytes,
            refused: 0,
            skipped: 0,
            told: None,
        }))
    }
}

pub(crate) struct SimTransform {
    pub(crate) kind: Kind,
}

struct SimStage {
    kind: Kind,
    schema: SchemaRef,
}

impl Transform for SimTransform {
    fn columns(&self, _: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        Ok(vec![0])
    }

    fn plan(&self, input: &SchemaRef) -> Result<Box<dyn Stage>, Mistake> {
        Ok(Box::new(SimStage { kind: self.kind, schema: Arc::clone(input) }))
    }
}

impl Stage for SimStage {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn fork(&self) -> Option<Box<dyn Stage>> {
        let same = || Box::new(SimStage { kind: self.kind, schema: self.schema() });
        (!matches!(self.kind, Kind::Limit(..))).then(|| same() as Box<dyn Stage>)
    }

    fn apply(&mut self, rows: RecordBatch, _: Moment) -> Result<Output> {
        let front = |count: usize| {
            let count = count.min(rows.num_rows());
            (rows.slice(0, count), Some(rows.slice(count, rows.num_rows() - count)))
        };
        let divided = |by: u64| {
            let text = rows.column(0).as_string::<i32>();
            BooleanArray::from_iter(
                text.iter().map(|row| Some(number(row.unwrap()).is_multiple_of(by))),
            )
        };
        let without = |mask: &BooleanArray| {
            filter_record_batch(&rows, &BooleanArray::from(!mask.values())).unwrap()
        };
        Ok(match self.kind {
            Kind::Filter(by) => Output::rows(without(&divided(by))),
            Kind::Reject(by) => {
                let mask = divided(by);
                let rejected = filter_record_batch(&rows, &mask).unwrap();
                let reasons = vec!["divided".to_owned(); rejected.num_rows()];
                let rejects = Some(Rejects { rows: rejected, reasons });
                Output { rejects, ..Output::rows(without(&mask)) }
            }
            Kind::Slice(count) => {
                let (rows, rest) = front(count);
                Output { rest, ..Output::rows(rows) }
            }
            Kind::Limit(count, wait) => {
                let (rows, rest) = front(count);
                Output { rest, wait, ..Output::rows(rows) }
            }
        })
    }
}

pub(crate) struct SimSink {
    index: usize,
    exact: bool,
    rejects: Option<u64>,
    same_rejects: bool,
    picky: bool,
    write_ms_max: u64,
    world: World,
    random: fastrand::Rng,
    context: Option<SinkContext>,
    // Written, lost by a crash.
    pending: Vec<String>,
}

impl SimSink {
    pub(crate) fn new(plan: &Plan, world: &World, index: usize) -> Self {
        let sink = &plan.sinks[index];
        Self {
            index,
            exact: sink.exact,
            rejects: sink.rejects,
            same_rejects: sink.same_rejects,
            picky: sink.picky,
            write_ms_max: sink.write_ms_max,
            world: world.clone(),
            random: world.random(),
            context: None,
            pending: Vec::new(),
        }
    }

    async fn trouble(&mut self, times: u32) -> Result<()> {
        sleep(Duration::from_millis(self.random.u64(0..=self.write_ms_max))).await;
        if self.world.breaks(&mut self.random, times) {
            return Err(Error::disconnected("not now"));
        }
        if self.world.breaks(&mut self.random, times * 20) {
            return Err(Error::fatal("never again"));
        }
        Ok(())
    }
}

impl Sink for SimSink {
    fn columns(&self, _: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        Ok(vec![0])
    }

    fn commit_when(&self) -> Commit {
        if self.exact { Commit::Grouped } else { Commit::EachWrite }
    }

    fn same_rejects(&self) -> bool {
        self.same_rejects
    }

    fn gather(&self) -> Gather {
        // Every second one waits for more.
        let age = Duration::from_millis(self.write_ms_max * 4 * (self.index as u64 % 2));
        Gather { rows_max: 1 + self.write_ms_max as usize, bytes_max: 2_000, age }
    }

    fn open(&mut self, context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async move {
            self.trouble(4).await?;
            let delivered = if self.exact { context.records.delivered()? } else { Vec::new() };
            self.context = Some(context);
            Ok(delivered)
        })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async move {
            assert!(rows.num_rows() > 0 && rows.column_by_name(OFFSET).is_none());
            self.trouble(10).await?;
            let mut written = Written::default();
            for (index, text) in rows.column(0).as_string::<i32>().iter().enumerate() {
                let text = text.unwrap();
                if self.rejects.is_some_and(|by| number(text).is_multiple_of(by)) {
                    written.rejected.push((index, "divided".to_owned()));
                } else if self.picky && self.random.u32(0..8) == 0 {
                    written.again.push(index);
                } else {
                    self.pending.push(text.to_owned());
                }
            }
            if !self.exact {
                self.world.sinks[self.index].lock().unwrap().append(&mut self.pending);
            }
            Ok(written)
        })
    }

    fn commit<'a>(&'a mut self, delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.trouble(10).await?;
            if self.exact {
                // One step: nothing can come between the two.
                let context = self.context.as_ref().unwrap();
                context.records.save("", b"", delivered)?;
                self.world.sinks[self.index].lock().unwrap().append(&mut self.pending);
            }
            Ok(())
        })
    }
}
