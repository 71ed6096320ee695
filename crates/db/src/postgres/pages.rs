//! Pages: one statement each, read whole, and made into batches while the next one is read.
//!
//! A task that belongs to the stream reads [`PAGES_AHEAD`]. It asks for the budget's leave before it
//! asks the server for anything, and where nobody takes what it has read, it gives its connection
//! back after [`IDLE`]; so nothing is held at the server by a pipeline that stands still.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int16Type, Int32Type, Int64Type, UInt32Type};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use bytes::BytesMut;
use futures::stream::{Stream, try_unfold};
use tidegate_flow::{Delays, Permit};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::Answer;
use super::connection::Connection;
use super::decode::{Decoder, Unfit, key};
use super::statement::{Pages, Statement};
use super::table::Table;
use super::types::Form;
use crate::key::ordered;
use crate::{Error, Options, Range, Result, Rows};

/// So many pages are read ahead: with one, a server waits whenever a page takes longer to be written
/// than the next one to be read, as the last of a row group does.
const PAGES_AHEAD: usize = 2;

/// A page has at most so many bytes, but for its last row, or its last two where the key may repeat
/// itself.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// So long a page may lie about before its reader lets the connection go.
const IDLE: Duration = Duration::from_secs(2);

/// A statement that takes too long for a page of so few rows is not tried with fewer.
const TIMEOUT_ROWS_MIN: usize = 100;

/// A row of a `COPY` has so many bytes beside its values', and each value four more.
const ROW_HEAD: usize = 7;

/// So much of a page is read at once, at most, but for one row.
fn page_bytes(bytes_max: usize) -> usize {
    bytes_max.saturating_mul(2).clamp(1, PAGE_BYTES_MAX)
}

/// The memory for a page: as it comes, and as Arrow.
pub(super) fn memory(bytes_max: usize) -> usize {
    page_bytes(bytes_max) * 2
}

/// A page as it came.
struct Page {
    bytes: BytesMut,
    /// Where its rows are.
    rows: VecDeque<(usize, usize)>,
    permit: Permit,
}

/// Batches of a range, pages of which are read ahead.
pub(super) fn fetched(
    table: Arc<Table>,
    range: Range,
    options: Options,
) -> impl Stream<Item = Result<Rows>> + Send + 'static {
    let shape = Arc::new(Shape::new(&table, &options));
    let (send, pages) = mpsc::channel(PAGES_AHEAD);
    let state = Batches { shape: Arc::clone(&shape), options, pages, page: None, reader: None };
    let start = Some((Fetcher::new(table, shape, range, &state.options), send));
    try_unfold((state, start), |(mut state, mut start)| async move {
        if let Some((fetcher, send)) = start.take() {
            // Not before somebody asks for the first row.
            let mut reader = JoinSet::new();
            reader.spawn(fetcher.run(send));
            state.reader = Some(reader);
        }
        Ok(state.next().await?.map(|rows| (rows, (state, start))))
    })
}

/// What a page's rows are like.
struct Shape {
    schema: SchemaRef,
    // Of all columns that are asked for: those that are given, then what else the key needs, then,
    // where the key may repeat itself, whether it does.
    forms: Vec<Form>,
    names: Vec<String>,
    given: usize,
    key: Vec<usize>,
    pages: Pages,
    place: String,
}

impl Shape {
    fn new(table: &Table, options: &Options) -> Self {
        let mut chosen = options.columns.clone();
        for column in &table.key {
            if !chosen.contains(column) {
                chosen.push(*column);
            }
        }
        let place = |column: &usize| chosen.iter().position(|chosen| chosen == column);
        let key = table.key.iter().filter_map(place).collect();
        let fields: Vec<_> = options
            .columns
            .iter()
            .map(|column| Arc::clone(&table.schema.fields()[*column]))
            .collect();
        let forms = chosen.iter().map(|column| table.forms[*column]);
        let mut pages = table.pages.clone();
        pages.columns = chosen.iter().map(|column| table.pages.columns[*column].clone()).collect();
        Self {
            schema: Arc::new(arrow_schema::Schema::new(fields)),
            forms: forms.chain(table.pages.compares.then_some(Form::Bool)).collect(),
            names: pages.columns.iter().map(|column| column.name.clone()).collect(),
            given: options.columns.len(),
            key,
            pages,
            place: table.config.to_string(),
        }
    }

    fn unfit(&self, unfit: &Unfit) -> Error {
        let name = |place: usize| self.names.get(place).map_or("", String::as_str);
        let place = &self.place;
        match unfit {
            Unfit::Malformed => {
                Error::connection(format!("{place}: a row that the server sent makes no sense"))
            }
            Unfit::Value(column, why) => Error::refused(format!(
                "{place}: a value of {:?} {why}: write {:?}::text in a query, or leave such rows out",
                name(*column),
                name(*column)
            )),
            Unfit::Text(column) => Error::refused(format!(
                "{place}: a text of {:?} is no UTF-8: the database's encoding is SQL_ASCII: convert \
                 it in a query: convert_from({}::bytea, 'LATIN1')",
                name(*column),
                name(*column)
            )),
        }
    }
}

/// Makes batches of pages.
struct Batches {
    shape: Arc<Shape>,
    options: Options,
    pages: mpsc::Receiver<Result<Page>>,
    page: Option<Page>,
    // Ends with the stream.
    reader: Option<JoinSet<()>>,
}

impl Batches {
    async fn next(&mut self) -> Result<Option<Rows>> {
        loop {
            match self.page.take() {
                Some(page) if !page.rows.is_empty() => return self.batch(page).map(Some),
                _ => match self.pages.recv().await {
                    Some(page) => self.page = Some(page?),
                    None => return self.ended().await,
                },
            }
        }
    }

    /// The reader is done, unless it fell over.
    async fn ended(&mut self) -> Result<Option<Rows>> {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        match reader.join_next().await {
            Some(Err(error)) => Err(Error::refused("the reader of pages failed").because(error)),
            _ => Ok(None),
        }
    }

    /// The front of a page.
    fn batch(&mut self, mut page: Page) -> Result<Rows> {
        let Shape { forms, key: places, given, .. } = &*self.shape;
        let mut bytes = 0;
        let mut count = 0;
        for (start, end) in page.rows.iter().take(self.options.rows_max.max(1)) {
            if count > 0 && bytes + (end - start) > self.options.bytes_max {
                break;
            }
            bytes += end - start;
            count += 1;
        }
        let unfit = |unfit| self.shape.unfit(&unfit);
        let mut decoder = Decoder::new(forms, count, bytes.saturating_sub(count * ROW_HEAD));
        let mut last = &[][..];
        for (start, end) in page.rows.drain(..count) {
            last = page.bytes.get(start..end).unwrap_or_default();
            decoder.push(last).map_err(unfit)?;
        }
        let last = key(last, forms, places).map_err(unfit)?;
        // What is left of the page keeps its part.
        let kept = match page.rows.is_empty() {
            true => 0,
            false => page.bytes.capacity().min(page.permit.bytes()),
        };
        let permit = page.permit.split(page.permit.bytes() - kept);
        let mut columns = decoder.finish(permit, &self.options.holder).map_err(unfit)?;
        let numbers = match places[..] {
            [place] => numbers(forms[place], &columns[place]),
            _ => Vec::new(),
        };
        columns.truncate(*given);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = Arc::clone(&self.shape.schema);
        let batch = RecordBatch::try_new_with_options(schema, columns, &options);
        let batch = batch.map_err(|error| Error::refused(&self.shape.place).because(error))?;
        if !page.rows.is_empty() {
            self.page = Some(page);
        }
        Ok(Rows { batch, numbers, last, bytes: bytes as u64 })
    }
}

/// The place of each row, where the key is a whole number.
fn numbers(form: Form, column: &ArrayRef) -> Vec<u64> {
    fn each<T: ArrowPrimitiveType<Native: Into<i64>>>(column: &ArrayRef) -> Vec<u64> {
        let values = column.as_primitive::<T>().values();
        values.iter().map(|value| ordered((*value).into())).collect()
    }
    match form {
        Form::Int2 => each::<Int16Type>(column),
        Form::Int4 => each::<Int32Type>(column),
        Form::Int8 => each::<Int64Type>(column),
        Form::Oid => each::<UInt32Type>(column),
        _ => Vec::new(),
    }
}

/// Reads pages of a range.
struct Fetcher {
    table: Arc<Table>,
    shape: Arc<Shape>,
    range: Range,
    options: Options,
    connection: Option<Connection>,
    /// How many rows the next page has.
    rows: usize,
    delays: Option<Delays>,
}

impl Fetcher {
    fn new(table: Arc<Table>, shape: Arc<Shape>, range: Range, options: &Options) -> Self {
        let width = table.width.max(1) as usize + ROW_HEAD + 4 * shape.forms.len();
        let rows = (page_bytes(options.bytes_max) / width).clamp(1, options.page_rows_max.max(1));
        let delays = options.backoff.map(|backoff| backoff.delays());
        Self { table, shape, range, options: options.clone(), connection: None, rows, delays }
    }

    /// Reads page by page, for as long as somebody takes them.
    async fn run(mut self, pages: mpsc::Sender<Result<Page>>) {
        loop {
            let Ok(slot) = self.idle_for(pages.reserve()).await else { return };
            match self.page().await {
                Ok(Some(page)) => slot.send(Ok(page)),
                Ok(None) => return,
                Err(error) => {
                    slot.send(Err(error));
                    return;
                }
            }
        }
    }

    /// Waits, and after a while no longer with a connection.
    async fn idle_for<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        if let Ok(come) = timeout(IDLE, wait.as_mut()).await {
            return come;
        }
        self.let_go().await;
        wait.await
    }

    /// Leaves the server, unless a moment is held there.
    async fn let_go(&mut self) {
        if self.table.snapshot.is_none()
            && let Some(connection) = self.connection.take()
        {
            connection.close().await;
        }
    }

    /// The next page, however often it takes; none at the end.
    async fn page(&mut self) -> Result<Option<Page>> {
        if self.rows == 0 {
            return Ok(None);
        }
        let holder = Arc::clone(&self.options.holder);
        let bytes = memory(self.options.bytes_max);
        let permit = self.idle_for(holder.acquire(bytes)).await;
        let mut permit = permit.map_err(|error| Error::refused("memory").because(error))?;
        loop {
            let failed = match self.attempt(permit).await {
                Ok(page) => {
                    self.delays = self.options.backoff.map(|backoff| backoff.delays());
                    return Ok(page);
                }
                Err((error, back)) => {
                    permit = back;
                    error
                }
            };
            // A transaction that failed takes no other statement.
            let goes_on =
                |connection: &Connection| connection.is_usable() && !connection.has_failed();
            self.connection = self.connection.take().filter(goes_on);
            if self.is_given_another_way(&failed) {
                continue;
            }
            if !failed.may_heal() {
                return Err(failed);
            }
            self.connection = None;
            match self.delays.as_mut().and_then(Iterator::next) {
                Some(delay) => sleep(delay).await,
                None => return Err(failed),
            }
        }
    }

    /// Whether there is another way to ask for a page.
    fn is_given_another_way(&mut self, failed: &Error) -> bool {
        let Some(fault) = failed.fault() else { return false };
        if fault.is_timeout() && self.rows > TIMEOUT_ROWS_MIN {
            self.rows = (self.rows / 4).max(1);
            return true;
        }
        // What is like Postgres but has no such COPY, or a query that is none for it.
        let no_copy = matches!(fault.code.as_str(), "0A000" | "42601");
        no_copy && !self.table.without_copy.swap(true, Ordering::Relaxed)
    }

    async fn attempt(&mut self, permit: Permit) -> Result<Option<Page>, (Error, Permit)> {
        match self.read().await {
            Ok(Some((bytes, rows))) => Ok(Some(Page { bytes, rows, permit })),
            Ok(None) => Ok(None),
            Err(error) => Err((error, permit)),
        }
    }

    async fn read(&mut self) -> Result<Option<(BytesMut, VecDeque<(usize, usize)>)>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.table.connect().await?,
        };
        // One more shows whether the next row has the same key as the last.
        let asked = self.rows + usize::from(!self.table.is_unique);
        let with_copy = !self.table.without_copy.load(Ordering::Relaxed);
        match with_copy {
            true => {
                let page = self.shape.pages.inlined(&self.range, asked);
                connection.ask(&format!("COPY ({page}) TO STDOUT (FORMAT binary)")).await?;
            }
            false => {
                let Statement { sql, parameters } = self.shape.pages.bound(&self.range, asked);
                let parameters: Vec<_> = parameters.iter().map(String::as_str).collect();
                connection.ask_with(&sql, &parameters).await?;
            }
        }
        let rows_min = asked - self.rows + 1;
        let answer = connection.answer(page_bytes(self.options.bytes_max), asked, rows_min).await;
        self.connection = Some(connection);
        let Answer { bytes, mut rows, whole } = answer?;
        if !whole {
            // The rest is on its way still, and nobody wants it.
            self.connection = None;
        }
        let received = rows.len();
        if !self.table.is_unique {
            self.check_unique(&bytes, &rows)?;
            // The last one was read only to know that the one before is not the same.
            if !whole || received == asked {
                rows.pop_back();
            }
        }
        let Some((start, end)) = rows.back().copied() else {
            self.rows = 0;
            return Ok(None);
        };
        let last = bytes.get(start..end).unwrap_or_default();
        let last = key(last, &self.shape.forms, &self.shape.key);
        self.range.after = Some(last.map_err(|unfit| self.shape.unfit(&unfit))?);
        self.rows = match whole {
            true if received < asked => 0,
            _ => self.next_rows(rows.len(), bytes.len(), whole),
        };
        Ok(Some((bytes, rows)))
    }

    /// How many rows the next page should have, after one of so many rows and bytes: as many as fit,
    /// but not many more than this time.
    fn next_rows(&self, rows: usize, bytes: usize, whole: bool) -> usize {
        let fit = page_bytes(self.options.bytes_max) / 5 * 4 / (bytes / rows.max(1)).max(1);
        let most = if whole { rows.saturating_mul(2) } else { rows.div_ceil(2) };
        fit.min(most).clamp(1, self.options.page_rows_max.max(1))
    }

    fn check_unique(&self, bytes: &[u8], rows: &VecDeque<(usize, usize)>) -> Result<()> {
        let row = |(start, end): &(usize, usize)| bytes.get(*start..*end).unwrap_or_default();
        let Some(twice) = rows.iter().find(|place| row(place).last() == Some(&1)) else {
            return Ok(());
        };
        let value = key(row(twice), &self.shape.forms, &self.shape.key);
        let value = value.map_err(|unfit| self.shape.unfit(&unfit))?;
        let (place, names) = (&self.shape.place, &self.shape.pages.key);
        Err(Error::refused(format!(
            "{place}: key: two rows have the same {names:?}: {value:?}: some could be left out between \
             two pages: name more columns, so that no two rows are the same in all"
        )))
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use tidegate_flow::ByteBudget;
    use tidegate_testkit::postgres::Postgres;

    use super::*;
    use crate::postgres::{Config, Database};
    use crate::{Consistency, Key, KeyValue, Reading, Relation, What};

    const DEADLINE: Duration = Duration::from_secs(60);

    #[tokio::test]
    #[ignore = "needs PostgreSQL; run by cargo xtask test"]
    async fn a_page_that_has_less_to_come_than_it_seemed_is_read_to_its_end() {
        let server = Postgres::start();
        server.psql(
            "CREATE TABLE t (n int PRIMARY KEY, v text NOT NULL);
             INSERT INTO t SELECT g, repeat('x', CASE WHEN g < 900 THEN 1000 ELSE 1 END)
                 FROM generate_series(1, 2000) AS g;",
        );
        let database = Database::new(Config::parse(&server.url()).unwrap());
        let reading = Reading { what: What::Table("t".into()), filter: None, key: None };
        let table = database.describe(&reading, Consistency::Pages).await.unwrap();
        let budget = ByteBudget::new(16 << 20);
        let options = Options {
            columns: vec![0, 1],
            rows_max: 10_000,
            bytes_max: 1 << 20,
            page_rows_max: 2_000,
            holder: Arc::new(budget.holder(table.bytes_min(1 << 20)).unwrap()),
            backoff: None,
        };
        let mut rows = 0;
        let mut pages = pin!(table.stream(Range::default(), options));
        while let Some(page) = timeout(DEADLINE, pages.try_next()).await.unwrap().unwrap() {
            rows += page.batch.num_rows();
        }
        assert_eq!(rows, 2_000);
    }

    #[tokio::test]
    #[ignore = "needs PostgreSQL; run by cargo xtask test"]
    async fn a_server_without_copy_gives_the_same_rows() {
        let server = Postgres::start();
        server.psql(
            "CREATE TABLE t (a text, b int, v numeric(9, 3), i interval, PRIMARY KEY (a, b));
             INSERT INTO t SELECT 'it''s \\ ' || g % 7, g, g / 8.0, g * interval '1 s'
                 FROM generate_series(1, 1000) AS g;
             ANALYZE t;",
        );
        let database = Database::new(Config::parse(&server.url()).unwrap());
        let what = What::Table("t".into());
        let reading = Reading { what, filter: None, key: None };
        let budget = ByteBudget::new(16 << 20);
        let after = Some(Key(vec![KeyValue::Text("it's \\ 2".into()), KeyValue::Int(9)]));
        let mut both = Vec::new();
        for without_copy in [false, true] {
            let table = database.describe(&reading, Consistency::Pages).await.unwrap();
            table.without_copy.store(without_copy, Ordering::Relaxed);
            let options = Options {
                columns: vec![3, 2, 0, 1],
                rows_max: 100,
                bytes_max: 1 << 20,
                page_rows_max: 70,
                holder: Arc::new(budget.holder(table.bytes_min(1 << 20)).unwrap()),
                backoff: None,
            };
            let range = Range { after: after.clone(), until: None };
            let rows: Vec<_> = table.stream(range, options).try_collect().await.unwrap();
            both.push(rows.into_iter().map(|rows| rows.batch).collect::<Vec<_>>());
        }
        assert_eq!(both[0], both[1]);
        assert_eq!(both[0].iter().map(RecordBatch::num_rows).sum::<usize>(), 713);
    }
}
