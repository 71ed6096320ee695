//! The transaction that rows go into: begun when there are some, kept until it is committed, and
//! done again where the connection breaks before that.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use tidegate_db::identifier;
use tidegate_db::postgres::encode::{Encoder, Rows};
use tidegate_db::postgres::{Config, Connection, Target};
use tidegate_model::{Delivered, Error, Result, Written};

use super::columns::ColumnTypes;
use super::ledger::{Entries, Ledger, changed};
use super::nested;
use super::search::Search;
use super::verdict::{Failure, failed};

/// While rows are encoded, the server gets what there is of them after so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Room for what is kept that stays between transactions; an unusually long one gives more back.
const KEPT_BYTES: usize = 16 << 20;

/// Rows on their way into a table.
pub(super) struct Load {
    config: Arc<Config>,
    encoder: Encoder,
    // What the rows are encoded for.
    types: ColumnTypes,
    ledger: Ledger,
    // The statement, and what the server calls the table when it speaks of a line.
    copy: String,
    table: String,
    // In a transaction or not; none when it broke.
    connection: Option<Connection>,
    savepoint: Savepoint,
    // The rows of the transaction, encoded: what the engine was told is written, and what is being
    // written.
    kept: Vec<u8>,
    // How many commits were made, once that was looked up, …
    commits: Option<u64>,
    // … and whether one more was asked for without an answer.
    unclear: bool,
}

/// What the last savepoint of the transaction is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Savepoint {
    /// There is none.
    None,
    /// What came after it went in.
    Good,
    /// What came after it failed.
    Failed,
}

impl Savepoint {
    /// What leads to a new one.
    fn next(self) -> &'static str {
        match self {
            Self::None => "SAVEPOINT tidegate",
            Self::Good => "RELEASE SAVEPOINT tidegate; SAVEPOINT tidegate",
            Self::Failed => "ROLLBACK TO SAVEPOINT tidegate",
        }
    }
}

impl Load {
    /// Into a table, for rows of this schema.
    pub(super) fn new(
        config: Arc<Config>,
        target: &Target,
        schema: &Schema,
        encoder: Encoder,
        types: ColumnTypes,
        ledger: Ledger,
    ) -> Self {
        let columns = schema.fields().iter().map(|field| identifier(field.name()));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let format = encoder.format().name();
        Self {
            config,
            encoder,
            types,
            ledger,
            copy: format!("COPY {} ({columns}) FROM STDIN (FORMAT {format})", target.name),
            table: target.name.table.clone(),
            connection: None,
            savepoint: Savepoint::None,
            kept: Vec::new(),
            commits: None,
            unclear: false,
        }
    }

    /// Connects, and says what is written down. What was kept is written again.
    pub(super) async fn open_again(&mut self) -> Result<Vec<Delivered>> {
        self.connection = None;
        if self.kept.is_empty() && !self.unclear {
            self.commits = None;
        }
        Ok(self.connect().await?.delivered)
    }

    /// Writes rows; after an error nothing of them is kept.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> Result<Written> {
        let rows = nested::flat(rows)?;
        self.begin().await?;
        let start = self.kept.len();
        let written = self.write_from(start, &rows).await;
        if written.is_err() {
            self.kept.truncate(start);
            self.connection = None;
        }
        written
    }

    /// Makes everything durable, together with how far it has come.
    pub(super) async fn commit(&mut self, delivered: &[Delivered]) -> Result<()> {
        let done = self.try_commit(delivered).await;
        if done.is_err() {
            self.connection = None;
        }
        done
    }

    /// Tells the server that we go.
    pub(super) async fn close(self) {
        if let Some(connection) = self.connection {
            connection.close().await;
        }
    }

    /// Has a connection in a transaction that has all that is kept.
    async fn begin(&mut self) -> Result<&mut Connection> {
        if self.connection.is_none() {
            self.connect().await?;
        }
        let Some(connection) = &mut self.connection else { return Err(closed()) };
        if !connection.is_in_transaction() {
            let begun = match self.ledger.begin(connection, self.commits.unwrap_or(0)).await {
                Ok(()) => self.types.check(connection).await,
                failed => failed,
            };
            if let Err(error) = begun {
                self.connection = None;
                return Err(error);
            }
            self.savepoint = Savepoint::None;
        }
        self.connection.as_mut().ok_or_else(closed)
    }

    /// Connects, finds out what became of the last commit, and writes what is kept again.
    async fn connect(&mut self) -> Result<Entries> {
        let mut connection = Connection::connect(&self.config).await.map_err(failed("url"))?;
        let entries = self.ledger.take(&mut connection).await?;
        self.types.check(&mut connection).await?;
        match (self.commits, entries.commits) {
            (None, found) => self.commits = Some(found),
            (Some(made), found) if made == found => {}
            (Some(made), found) if self.unclear && found == made + 1 => {
                self.commits = Some(found);
                self.forget();
            }
            (Some(made), found) => return Err(changed(found, made)),
        }
        self.unclear = false;
        self.savepoint = Savepoint::None;
        self.connection = Some(connection);
        if let Err(error) = self.replay().await {
            self.connection = None;
            return Err(error);
        }
        Ok(entries)
    }

    /// Writes what is kept into a new transaction, or ends that where there is nothing.
    async fn replay(&mut self) -> Result<()> {
        if self.kept.is_empty() {
            let connection = self.connection.as_mut().ok_or_else(closed)?;
            return connection.simple("COMMIT").await.map(drop).map_err(failed("url"));
        }
        match self.copy(0..self.kept.len()).await {
            Ok(()) => Ok(()),
            Err(Failure::Sink(error)) => Err(error),
            Err(Failure::Rows { reason, .. }) => Err(Error::fatal(format!(
                "table: it does not take any more what it took before the connection broke: \
                 {reason}; nothing is lost: start again"
            ))),
        }
    }

    /// Begins anew with nothing kept.
    fn forget(&mut self) {
        self.kept.clear();
        self.kept.shrink_to(KEPT_BYTES);
        self.unclear = false;
    }

    async fn write_from(&mut self, start: usize, rows: &RecordBatch) -> Result<Written> {
        let mut refused = Vec::new();
        let mut ends = Vec::with_capacity(rows.num_rows());
        let sent = self.send(rows, &mut ends, &mut refused).await;
        let (line, reason) = match sent {
            Ok(()) => return Ok(Written { rejected: refused, ..Written::default() }),
            Err(Failure::Sink(error)) => return Err(error),
            Err(Failure::Rows { line, reason }) => (line, reason),
        };
        let place = |row: usize| match row.checked_sub(1) {
            None => start,
            Some(before) => ends.get(before).copied().unwrap_or(start),
        };
        let mut search = Search::new(ends.len());
        if let Some(all) = search.next() {
            search.refused(all, line, reason);
        }
        while let Some(tried) = search.next() {
            match self.copy(place(tried.start)..place(tried.end)).await {
                Ok(()) => search.taken(),
                Err(Failure::Rows { line, reason }) => search.refused(tried, line, reason),
                Err(Failure::Sink(error)) => return Err(error),
            }
        }
        let found = search.into_rejected();
        self.keep_but(found.iter().map(|(row, _)| place(*row)..place(*row + 1)));
        // Rows that could not be encoded were left out before any were sent.
        let encoded: Vec<_> = match refused.as_slice() {
            [] => Vec::new(),
            refused => {
                let mut left_out = refused.iter().map(|(row, _)| *row).peekable();
                let rows = 0..rows.num_rows();
                rows.filter(|row| left_out.next_if_eq(row).is_none()).collect()
            }
        };
        let found = found
            .into_iter()
            .map(|(row, reason)| (encoded.get(row).copied().unwrap_or(row), reason));
        refused.extend(found);
        refused.sort_unstable_by_key(|(row, _)| *row);
        Ok(Written { rejected: refused, ..Written::default() })
    }

    /// Encodes rows, keeps them, and sends them meanwhile. Gives the end of each row that could be
    /// encoded, and why others could not.
    async fn send(
        &mut self,
        rows: &RecordBatch,
        ends: &mut Vec<usize>,
        refused: &mut Vec<(usize, String)>,
    ) -> Result<(), Failure> {
        let Self { encoder, connection, kept, copy, table, savepoint, .. } = self;
        let connection = connection.as_mut().ok_or_else(|| Failure::Sink(closed()))?;
        let encoded: Rows<'_> =
            encoder.rows(rows).map_err(|error| Failure::Sink(failed("table")(error)))?;
        let statement = format!("{}; {copy}", savepoint.next());
        // Until it is known to be good.
        *savepoint = Savepoint::Failed;
        let mut copying = connection.copy_in(&statement).await.map_err(Failure::before)?;
        copying.send(encoder.format().head()).await.map_err(Failure::between)?;
        let mut sent = kept.len();
        for row in 0..rows.num_rows() {
            match encoded.write(row, kept) {
                Ok(()) => ends.push(kept.len()),
                Err(reason) => refused.push((row, reason)),
            }
            if kept.len() - sent >= PIECE_BYTES {
                let piece = kept.get(sent..).unwrap_or_default();
                copying.send(piece).await.map_err(Failure::between)?;
                sent = kept.len();
            }
        }
        for piece in [kept.get(sent..).unwrap_or_default(), encoder.format().tail()] {
            copying.send(piece).await.map_err(Failure::between)?;
        }
        copying.finish().await.map_err(|error| Failure::of(error, table))?;
        *savepoint = Savepoint::Good;
        Ok(())
    }

    /// Copies what is kept in these bytes.
    async fn copy(&mut self, bytes: Range<usize>) -> Result<(), Failure> {
        let Self { encoder, connection, kept, copy, table, savepoint, .. } = self;
        let connection = connection.as_mut().ok_or_else(|| Failure::Sink(closed()))?;
        let statement = format!("{}; {copy}", savepoint.next());
        *savepoint = Savepoint::Failed;
        let format = encoder.format();
        let mut copying = connection.copy_in(&statement).await.map_err(Failure::before)?;
        for piece in [format.head(), kept.get(bytes).unwrap_or_default(), format.tail()] {
            copying.send(piece).await.map_err(Failure::between)?;
        }
        copying.finish().await.map_err(|error| Failure::of(error, table))?;
        *savepoint = Savepoint::Good;
        Ok(())
    }

    /// Takes ranges, ascending, out of what is kept.
    fn keep_but(&mut self, ranges: impl Iterator<Item = Range<usize>>) {
        let mut end = None;
        let mut from = 0;
        for Range { start, end: after } in ranges {
            let to = end.unwrap_or(start);
            if end.is_some() {
                self.kept.copy_within(from..start, to);
                end = Some(to + (start - from));
            } else {
                end = Some(start);
            }
            from = after;
        }
        if let Some(to) = end {
            self.kept.copy_within(from.., to);
            self.kept.truncate(to + (self.kept.len() - from));
        }
    }

    async fn try_commit(&mut self, delivered: &[Delivered]) -> Result<()> {
        let number = self.commits.unwrap_or(0) + 1;
        if self.unclear {
            self.connect().await?;
            if self.commits == Some(number) {
                return Ok(());
            }
        }
        if delivered.is_empty() && self.kept.is_empty() {
            // All rows were rejected, and nobody keeps ends: nothing is to be remembered.
            if let Some(connection) = self.connection.as_mut().filter(|it| it.is_in_transaction()) {
                connection.simple("ROLLBACK").await.map_err(failed("url"))?;
            }
            return Ok(());
        }
        self.begin().await?;
        let (savepoint, ledger) = (self.savepoint, &self.ledger);
        let connection = self.connection.as_mut().ok_or_else(closed)?;
        if savepoint == Savepoint::Failed {
            connection.simple(savepoint.next()).await.map_err(failed("table"))?;
            self.savepoint = Savepoint::Good;
        }
        // The rows that went in hold a lock of the table, which changes no more.
        self.types.check(connection).await?;
        ledger.record(connection, delivered, number).await?;
        self.unclear = true;
        connection.simple("COMMIT").await.map_err(failed("table"))?;
        self.commits = Some(number);
        self.forget();
        Ok(())
    }
}

fn closed() -> Error {
    Error::disconnected("url: there is no connection")
}
