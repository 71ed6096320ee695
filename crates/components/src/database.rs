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
//! others a greater one is not seen, as with every reader that goes by a key.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use futures_core::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tidegate_db::{self as db, Key, Kind, Options, Range, Reading, Relation, Rows, What};
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
    pub(crate) schema: Option<Declared>,
}

/// A database that can be asked for a table or a query.
pub(crate) trait Database: Send + 'static {
    /// Connects and looks.
    fn describe(&self, reading: &Reading) -> BoxFuture<'_, db::Result<Arc<dyn Relation>>>;

    /// Whether reading can go on later from where it came to.
    fn is_resumable(&self) -> bool {
        true
    }
}

/// A source that reads a table or query of a database.
pub(crate) struct DatabaseSource<D> {
    database: D,
    reading: Reading,
    page_rows: usize,
    workers: NonZeroUsize,
    poll: Duration,
    declared: Option<SchemaRef>,
    relation: Option<Arc<dyn Relation>>,
    // Only this range, where it is not all.
    range: Option<Range>,
    // At most so many rows a second.
    rate: Option<NonZeroU64>,
}

/// One range of a table or query that was looked at: its rows in the order of the key, at most so many
/// a second. Its partition is named after the range alone.
pub fn of_range(
    relation: Arc<dyn Relation>,
    range: Range,
    page_rows: usize,
    rate: Option<NonZeroU64>,
) -> Box<dyn Source> {
    let what = What::Table(String::new());
    Box::new(DatabaseSource {
        database: Known,
        reading: Reading { what, filter: None, key: None },
        page_rows: page_rows.max(1),
        workers: NonZeroUsize::MIN,
        poll: POLL,
        declared: None,
        relation: Some(relation),
        range: Some(range),
        rate,
    })
}

/// A database that was asked already.
struct Known;

impl Database for Known {
    fn describe(&self, _reading: &Reading) -> BoxFuture<'_, db::Result<Arc<dyn Relation>>> {
        Box::pin(async { Err(db::Error::refused("it was not looked at")) })
    }
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
            page_rows: within(fields.page_rows.as_ref(), PAGE_ROWS, 1..=1_000_000)?.get(),
            workers: within(fields.workers.as_ref(), 1, 1..=WORKERS_MAX)?,
            poll: fields.poll_interval.as_ref().map_or(Ok(POLL), span)?,
            declared: fields.schema.map(Declared::into_schema).transpose()?,
            relation: None,
            range: None,
            rate: None,
        })
    }

    async fn relation(&mut self) -> Result<Arc<dyn Relation>> {
        if let Some(relation) = &self.relation {
            return Ok(Arc::clone(relation));
        }
        let relation = self.database.describe(&self.reading).await.map_err(failed)?;
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
        let name = self.name();
        let known = context.positions.iter().filter_map(|position| {
            let rest = position.partition.as_str().strip_prefix(name.as_str())?;
            rest.starts_with(' ').then(|| serde_json::from_slice(&position.state).ok())?
        });
        let known: Vec<State> = known.collect();
        if let Some(estimate) = relation.estimate().filter(|_| self.range.is_none()) {
            let read: u64 = known.iter().map(|state| state.rows).sum();
            context.expected.set_rows(estimate.rows.saturating_sub(read), estimate.is_exact);
        }
        let cuts = match (known.first(), self.workers.get()) {
            (Some(state), _) => state.cuts.clone(),
            (None, 1) => Vec::new(),
            (None, workers) => relation.split(workers).await.map_err(failed)?,
        };
        let columns = context.columns.fields().iter().filter(|field| field.name() != OFFSET);
        let columns: Result<Vec<usize>, _> =
            columns.map(|field| relation.schema().index_of(field.name())).collect();
        let options = Options {
            columns: columns.map_err(|error| Error::fatal("columns").because(error))?,
            rows_max: self.rate.map_or(context.batch_rows_max, |rate| {
                // In small pieces, so that it is about as fast in every tenth of a second.
                let piece = usize::try_from(rate.get() / 10).unwrap_or(usize::MAX).max(1);
                piece.min(context.batch_rows_max)
            }),
            bytes_max: context.batch_bytes_max.min(BATCH_BYTES_MAX),
            page_rows_max: self.page_rows,
            holder: Arc::clone(&context.holder),
            backoff: None,
        };
        let setting = Arc::new(Setting {
            relation,
            options,
            schema: Arc::clone(&context.columns),
            offsets: context.offsets,
            poll: (!context.once).then_some(self.poll),
            rate: self.rate,
        });
        let ends = cuts.iter().cloned().map(Some).chain([None]);
        let mut after = None;
        let mut merge = FairMerge::new();
        for (index, until) in ends.enumerate() {
            let range = Range { after: after.clone(), until: until.clone() };
            let range = self.range.clone().unwrap_or(range);
            let state = known.iter().find(|state| state.range == range).cloned();
            let state = state.unwrap_or_else(|| State {
                range,
                cuts: cuts.clone(),
                at: None,
                rows: 0,
                next: 0,
            });
            let partition = Partition::from(format!("{name} {}", state.shown()));
            merge.insert(index, part(Arc::clone(&setting), partition, state));
            after = until;
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
    fn name(&self) -> String {
        let Reading { what, filter, key } = &self.reading;
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

    fn replayable(&self) -> bool {
        self.database.is_resumable()
    }

    fn bytes_min(&self) -> usize {
        RANGE_BYTES * self.workers.get()
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        Box::pin(self.stream(context))
    }
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
