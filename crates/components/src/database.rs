//! What sources of all databases have in common: settings, positions, pages of several ranges merged.
//!
//! **Delivery.** Rows are read in the order of a key, page by page; the position is the key of the last
//! row, so that a restart goes on behind it. A row's offset follows from its key where that is one
//! whole number; else rows are counted. With such a counted key, what was in flight at a crash comes to
//! be the same again only while nobody deletes or adds rows there; sinks that keep ends may then leave
//! out, or take twice, as many rows as were deleted or added.
//!
//! **Going on.** Without `--once` the source asks every `poll_interval` for rows behind the last one.
//! That suits tables that only grow by greater keys. A transaction that commits a lesser key later than
//! others a greater one is not seen, as with every reader that goes by a key; nor is a row that gets a
//! null for its key, or one without uniqueness whose key is that of the last row read.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use futures_core::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tidegate_db::{
    self as db, Consistency, Estimate, Key, Kind, Options, Range, Reading, Relation, Rows, What,
};
use tidegate_flow::{FairMerge, Merged};
use tidegate_model::{
    Error, Mistake, OFFSET, Partition, Position, Result, Source, SourceBatch, SourceContext,
    SourceStream, Spanned, TimeSpan,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::clock;
use crate::network::span;

/// The columns that a configuration declares.
mod declared;

pub(crate) use declared::Declared;

/// A page has at most so many rows where nothing is said.
const PAGE_ROWS: usize = 20_000;

/// The memory that a range needs: a page as it comes, and as columns.
const RANGE_BYTES: usize = 4 << 20;

/// A batch has at most so many bytes.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// More ranges than this at a time are no help.
const WORKERS_MAX: usize = 64;

/// How often it is asked whether there is more.
const POLL: Duration = Duration::from_secs(1);

/// Settings that sources of all databases have; their meaning stands in the sources' own.
pub(crate) struct Fields {
    pub(crate) table: Option<Spanned<String>>,
    pub(crate) query: Option<Spanned<String>>,
    pub(crate) filter: Option<Spanned<String>>,
    pub(crate) key: Option<Spanned<Vec<String>>>,
    pub(crate) page_rows: Option<Spanned<usize>>,
    pub(crate) workers: Option<Spanned<usize>>,
    pub(crate) poll_interval: Option<Spanned<TimeSpan>>,
    pub(crate) snapshot: bool,
    pub(crate) schema: Option<Declared>,
}

/// A database that can be asked for a table or a query.
pub(crate) trait Database: Send + 'static {
    /// Connects and looks.
    fn describe(
        &self,
        reading: &Reading,
        consistency: Consistency,
    ) -> BoxFuture<'_, db::Result<Arc<dyn Relation>>>;
}

impl Database for db::postgres::Database {
    fn describe(
        &self,
        reading: &Reading,
        consistency: Consistency,
    ) -> BoxFuture<'_, db::Result<Arc<dyn Relation>>> {
        let reading = reading.clone();
        Box::pin(async move { Ok(self.describe(&reading, consistency).await? as _) })
    }
}

impl Database for db::sqlite::Database {
    fn describe(
        &self,
        reading: &Reading,
        consistency: Consistency,
    ) -> BoxFuture<'_, db::Result<Arc<dyn Relation>>> {
        let reading = reading.clone();
        Box::pin(async move { Ok(self.describe(&reading, consistency).await? as _) })
    }
}

/// A source that reads a table or query of a database.
pub(crate) struct DatabaseSource<D> {
    database: D,
    reading: Reading,
    consistency: Consistency,
    workers: NonZeroUsize,
    pace: Pace,
    declared: Option<SchemaRef>,
    relation: Option<Arc<dyn Relation>>,
}

/// How fast rows are read, and how many by a statement.
#[derive(Clone, Copy)]
struct Pace {
    page_rows: usize,
    // How often it is asked for more.
    poll: Duration,
    // At most so many rows a second.
    rate: Option<NonZeroU64>,
}

impl<D: Database> DatabaseSource<D> {
    /// Of its settings. Does no I/O.
    pub(crate) fn new(fields: Fields, database: D) -> Result<Self, Mistake> {
        let what = match (fields.table, fields.query) {
            (Some(table), None) => What::Table(filled(&table, "\"public.events\"")?),
            (None, Some(query)) => What::Query(filled(&query, "\"SELECT id, name FROM users\"")?),
            (Some(_), Some(query)) => {
                return Err(Mistake::at(query.span(), "there is a table as well")
                    .help("leave one of table and query out"));
            }
            (None, None) => {
                return Err(Mistake::new("it says not what to read")
                    .help("add table = \"…\", or query = \"SELECT …\""));
            }
        };
        if let Some(key) = fields.key.as_ref().filter(|key| key.get_ref().is_empty()) {
            return Err(Mistake::at(key.span(), "a key has at least one column")
                .help("such as [\"id\"]; left out, it is found from the primary key"));
        }
        let filter = fields.filter.map(|filter| filled(&filter, "\"id > 1000\"")).transpose()?;
        let key = fields.key.map(Spanned::into_inner);
        Ok(Self {
            database,
            reading: Reading { what, filter, key },
            consistency: Consistency::of_snapshot(fields.snapshot),
            workers: within(fields.workers.as_ref(), 1, 1..=WORKERS_MAX)?,
            pace: Pace {
                page_rows: within(fields.page_rows.as_ref(), PAGE_ROWS, 1..=1_000_000)?.get(),
                poll: fields.poll_interval.as_ref().map_or(Ok(POLL), span)?,
                rate: None,
            },
            declared: fields.schema.map(Declared::into_schema).transpose()?,
            relation: None,
        })
    }

    async fn relation(&mut self) -> Result<Arc<dyn Relation>> {
        if let Some(relation) = &self.relation {
            return Ok(Arc::clone(relation));
        }
        let relation = self.database.describe(&self.reading, self.consistency).await;
        let relation = relation.map_err(failed)?;
        check_names(&*relation)?;
        let schema = relation.schema();
        for wanted in self.declared.iter().flat_map(|declared| declared.fields()) {
            let (name, declared) = (wanted.name(), wanted.data_type());
            match schema.field_with_name(name).map(Field::data_type) {
                Ok(found) if found == declared => {}
                Ok(found) => {
                    return Err(Error::fatal(format!(
                        "schema: the column {name:?} is declared as {declared}, and is {found}: \
                         write {name} = \"{}\"",
                        declared::shown(found)
                    )));
                }
                Err(_) => {
                    return Err(Error::fatal(format!(
                        "schema: the column {name:?} is declared, and there is none: remove it"
                    )));
                }
            }
        }
        Ok(Arc::clone(self.relation.insert(relation)))
    }

    async fn stream(&mut self, context: SourceContext) -> Result<SourceStream> {
        let relation = self.relation().await?;
        let name = name_of(&self.reading);
        let known = State::known(&context, &name);
        let cuts = match (known.first(), self.workers.get()) {
            (Some(state), _) => state.cuts.clone(),
            (None, 1) => Vec::new(),
            (None, workers) => relation.split(workers).await.map_err(failed)?,
        };
        expect(&context, relation.estimate(), &known);
        let states = Range::between(&cuts).into_iter().map(|range| {
            let state = known.iter().find(|state| state.range == range).cloned();
            state.unwrap_or_else(|| State::new(range, cuts.clone()))
        });
        read(relation, self.pace, &context, &name, states.collect())
    }
}

impl<D: Database> Source for DatabaseSource<D> {
    fn schema(&self) -> Option<SchemaRef> {
        let described = || self.relation.as_ref().map(|relation| own(&**relation));
        self.declared.clone().or_else(described)
    }

    fn prepare(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            match self.declared {
                // What is declared need not be learnt: the database may come later.
                Some(_) => Ok(()),
                None => self.relation().await.map(drop),
            }
        })
    }

    /// A moment that was seen is over.
    fn replayable(&self) -> bool {
        self.consistency == Consistency::Pages
    }

    fn bytes_min(&self) -> usize {
        RANGE_BYTES * self.workers.get()
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        Box::pin(self.stream(context))
    }
}

/// One range of a table or query that was looked at: its rows in the order of the key.
pub struct RangeSource {
    /// What was looked at.
    pub relation: Arc<dyn Relation>,
    /// Which part of it.
    pub range: Range,
    /// About how many rows that has.
    pub estimate: Option<Estimate>,
    /// A page has at most so many rows.
    pub page_rows: NonZeroUsize,
    /// At most so many rows are read a second.
    pub rate: Option<NonZeroU64>,
}

/// The partition of a [`RangeSource`] is called after this, and its range.
const RANGE: &str = "rows";

impl Source for RangeSource {
    fn schema(&self) -> Option<SchemaRef> {
        Some(own(&*self.relation))
    }

    fn replayable(&self) -> bool {
        true
    }

    fn bytes_min(&self) -> usize {
        RANGE_BYTES
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        let known = State::known(&context, RANGE);
        expect(&context, self.estimate, &known);
        let state = known.into_iter().find(|state| state.range == self.range);
        let state = state.unwrap_or_else(|| State::new(self.range.clone(), Vec::new()));
        let pace = Pace { page_rows: self.page_rows.get(), poll: POLL, rate: self.rate };
        let stream = read(Arc::clone(&self.relation), pace, &context, RANGE, vec![state]);
        Box::pin(async { stream })
    }
}

/// Says how many rows are still to be read, about.
fn expect(context: &SourceContext, estimate: Option<Estimate>, known: &[State]) {
    let Some(Estimate { rows, is_exact }) = estimate else { return };
    let read: u64 = known.iter().map(|state| state.rows).sum();
    context.expected.set_rows(rows.saturating_sub(read), is_exact);
}

/// Reads on in ranges, each from its state, all at the same time.
fn read(
    relation: Arc<dyn Relation>,
    pace: Pace,
    context: &SourceContext,
    name: &str,
    states: Vec<State>,
) -> Result<SourceStream> {
    let columns = context.columns.fields().iter().filter(|field| field.name() != OFFSET);
    let columns: Result<Vec<usize>, _> =
        columns.map(|field| relation.schema().index_of(field.name())).collect();
    let options = Options {
        columns: columns.map_err(|error| Error::fatal("columns").because(error))?,
        rows_max: pace.rate.map_or(context.batch_rows_max, |rate| {
            // In small pieces, so that it is about as fast in every tenth of a second.
            let piece = usize::try_from(rate.get() / 10).unwrap_or(usize::MAX).max(1);
            piece.min(context.batch_rows_max)
        }),
        bytes_max: context.batch_bytes_max.min(BATCH_BYTES_MAX),
        page_rows_max: pace.page_rows,
        holder: Arc::clone(&context.holder),
        backoff: None,
    };
    let setting = Arc::new(Setting {
        relation,
        options,
        schema: Arc::clone(&context.columns),
        offsets: context.offsets,
        poll: (!context.once).then_some(pace.poll),
        rate: pace.rate,
    });
    let mut merge = FairMerge::new();
    for (index, state) in states.into_iter().enumerate() {
        let partition = Partition::from(format!("{name} {}", state.shown()));
        merge.insert(index, part(Arc::clone(&setting), partition, state));
    }
    let items = merge.filter_map(|merged| async {
        match merged {
            Merged::Item(_, item) => Some(item),
            Merged::Ended(_) => None,
        }
    });
    Ok(items.boxed())
}

/// What is read, in short, and different for whatever else there is to read.
fn name_of(reading: &Reading) -> String {
    let Reading { what, filter, key } = reading;
    let short = match what {
        What::Table(name) => name.as_str(),
        What::Query(_) => "query",
    };
    let whole = format!("{what:?} {filter:?} {key:?}");
    // FNV-1a, which stays the same from build to build.
    let hash = whole.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{short}#{hash:016x}")
}

/// Whether a relation has no column that is called as one of ours.
///
/// # Errors
///
/// Where it has, with the remedy.
pub fn check_names(relation: &dyn Relation) -> Result<()> {
    match own(relation).field_with_name(OFFSET) {
        Err(_) => Ok(()),
        Ok(_) => Err(Error::fatal(format!(
            "a column is called {OFFSET:?}, as a hidden one of Tidegate's is: read it by a query that \
             gives it another name, with AS"
        ))),
    }
}

/// A relation's own columns.
pub fn own(relation: &dyn Relation) -> SchemaRef {
    let fields = relation.schema().fields().iter().take(relation.own_columns());
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}

/// What all ranges have in common.
struct Setting {
    relation: Arc<dyn Relation>,
    options: Options,
    // What is given, the hidden column included.
    schema: SchemaRef,
    offsets: bool,
    poll: Option<Duration>,
    rate: Option<NonZeroU64>,
}

/// How far a range has been read: what a position keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    range: Range,
    // Where all rows are cut into ranges.
    cuts: Vec<Key>,
    /// The last row's key.
    at: Option<Key>,
    /// How many rows that were.
    rows: u64,
    /// The offset behind the last row.
    next: u64,
}

impl State {
    /// Of a range that nothing was read of.
    fn new(range: Range, cuts: Vec<Key>) -> Self {
        Self { range, cuts, at: None, rows: 0, next: 0 }
    }

    /// Those that positions of partitions of a name keep.
    fn known(context: &SourceContext, name: &str) -> Vec<Self> {
        let known = context.positions.iter().filter_map(|position| {
            let rest = position.partition.as_str().strip_prefix(name)?;
            rest.starts_with(' ').then(|| serde_json::from_slice(&position.state).ok())?
        });
        known.collect()
    }

    fn shown(&self) -> String {
        serde_json::to_string(&self.range).unwrap_or_default()
    }
}

/// Batches of a range.
fn part(
    setting: Arc<Setting>,
    partition: Partition,
    state: State,
) -> BoxStream<'static, Result<SourceBatch>> {
    let due = Instant::now();
    let reader = Reader { setting, partition, state, rows: None, due };
    stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|batch| (batch, reader)))
    })
    .into_stream()
    .boxed()
}

struct Reader {
    setting: Arc<Setting>,
    partition: Partition,
    state: State,
    rows: Option<db::CursorStream>,
    // When the next rows may come, by the rate.
    due: Instant,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        if self.setting.rate.is_some() {
            sleep_until(self.due).await;
        }
        loop {
            let rows = match &mut self.rows {
                Some(rows) => rows,
                none => {
                    let after = self.state.at.clone().or_else(|| self.state.range.after.clone());
                    let range = Range { after, until: self.state.range.until.clone() };
                    let relation = Arc::clone(&self.setting.relation);
                    none.insert(relation.stream(range, self.setting.options.clone()))
                }
            };
            if let Some(rows) = rows.next().await {
                return self.batch(rows.map_err(failed)?).map(Some);
            }
            self.rows = None;
            match self.setting.poll {
                // Only behind the last range there will be more.
                Some(poll) if self.state.range.until.is_none() => sleep(poll).await,
                _ => return Ok(None),
            }
        }
    }

    fn batch(&mut self, rows: Rows) -> Result<SourceBatch> {
        let Rows { batch, numbers, last, bytes } = rows;
        let count = batch.num_rows();
        if let Some(rate) = self.setting.rate {
            // What a slow consumer leaves is not made up for.
            let each = Duration::from_secs_f64(count as f64 / rate.get() as f64);
            self.due = self.due.max(Instant::now()) + each;
        }
        let (start, first) = (self.state.next, self.state.rows);
        self.state.rows += count as u64;
        self.state.at = Some(last);
        let is_numbered = numbers.len() == count;
        let last = numbers.last().filter(|_| is_numbered);
        self.state.next = last.map_or(self.state.rows, |last| last.saturating_add(1));
        let is_passed = first > 0 && self.state.next <= start;
        if is_passed || matches!(numbers[..], [one, other, ..] if one == other) {
            // A sink would take one for the other.
            let least = i64::MIN;
            return Err(Error::fatal(format!(
                "key: {least} and the next greater number have the same offset: leave one of them \
                 out, with `where`, or have it in a query with another key"
            )));
        }
        let mut columns = batch.columns().to_vec();
        if self.setting.offsets {
            let numbers = match is_numbered {
                true => UInt64Array::from(numbers),
                false => UInt64Array::from_iter_values(first..self.state.rows),
            };
            columns.push(Arc::new(numbers) as ArrayRef);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = Arc::clone(&self.setting.schema);
        let rows = RecordBatch::try_new_with_options(schema, columns, &options);
        let state = serde_json::to_vec(&self.state);
        Ok(SourceBatch {
            rows: rows.map_err(|error| Error::fatal("columns").because(error))?,
            start,
            position: Position {
                partition: self.partition.clone(),
                sequence: self.state.next,
                state: state.map_err(|error| Error::fatal("key").because(error))?.into(),
            },
            read_at: clock::now(),
            bytes,
            refused: 0,
            skipped: 0,
            told: None,
        })
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("state", &self.state).finish_non_exhaustive()
    }
}

fn failed(error: db::Error) -> Error {
    let said = error.to_string();
    match error.kind() {
        Kind::Connection => Error::disconnected(said),
        Kind::Refused | Kind::Data => Error::fatal(said),
    }
}

fn filled(text: &Spanned<String>, like: &str) -> Result<String, Mistake> {
    match text.get_ref().trim() {
        "" => Err(Mistake::at(text.span(), "it is empty").help(format!("such as {like}"))),
        some => Ok(some.to_owned()),
    }
}

fn within(
    given: Option<&Spanned<usize>>,
    otherwise: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<NonZeroUsize, Mistake> {
    let Some(given) = given else {
        return Ok(NonZeroUsize::new(otherwise).unwrap_or(NonZeroUsize::MIN));
    };
    let number = Some(*given.get_ref()).filter(|number| range.contains(number));
    number.and_then(NonZeroUsize::new).ok_or_else(|| {
        let (least, most) = range.into_inner();
        Mistake::at(given.span(), "no such number is taken").help(format!("{least} to {most}"))
    })
}

#[cfg(test)]
mod tests;
