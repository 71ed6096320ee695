//! `codec = "parquet"`: row groups to a file that is whole after every commit.
//!
//! A commit ends the row group that is being made, writes what notes it (see
//! [`book`](crate::codecs::parquet)) and a footer behind that, has the disk store all of it, and then
//! saves the length without the footer and how far each input has come, in one transaction. Row
//! groups that are full are written before that already, over the last footer.
//!
//! So the file is whole, and any reader takes it, after each commit until the next row group is
//! written: as long as nothing comes, when the pipeline has ended or was stopped, and when it
//! failed. A kill (-9) or a power cut may leave it without a footer, and readers refuse it by that.
//! Nothing that was committed is lost: the next start cuts the file to the last commit and writes the
//! footer anew.
//!
//! Commits are rare, for each costs a row group that is not full: one every `row_group_age`, so that
//! rows are acked that much later. What waits for it in memory is bounded by the row group's size.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use parquet::errors::ParquetError;
use tidegate_model::{
    Commit, Delivered, Error, Mistake, Records, Result, Sink, SinkContext, Written,
};

use super::disk::{Disk, Mark, REMEDY, recorded};
use super::place::Place;
use super::{closed, failed, is_regular, target};
use crate::blocking::blocking;
use crate::codecs::parquet::{Book, Groups, Layout, MAGIC, Unread, columns, is_end};

/// What `codec` calls it.
pub(super) const NAME: &str = "parquet";

/// A file sink that writes Parquet.
pub(super) struct ParquetSink {
    path: PathBuf,
    layout: Layout,
    /// None until it is open.
    table: Option<Box<Table>>,
}

impl ParquetSink {
    pub(super) fn new(path: PathBuf, layout: Layout) -> Self {
        Self { path, layout, table: None }
    }

    async fn open_table(&mut self, context: SinkContext) -> Result<Vec<Delivered>> {
        if self.table.is_none() {
            let given = (self.path.clone(), self.layout.clone(), context);
            let (_, table) = blocking(given, |(path, layout, context)| {
                Table::open(path, layout, &context.columns, Arc::clone(&context.records))
            })
            .await?;
            self.table = Some(Box::new(table?));
        } else {
            self.on_table(Table::open_again).await?;
        }
        self.on_table(|table| table.disk.delivered()).await
    }

    async fn write_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let table = self.table.as_ref().ok_or_else(closed)?;
        // Rows are taken only when those before have found room, so that none is taken twice.
        if !table.disk.pending.is_empty() {
            self.on_table(|table| table.disk.flush()).await?;
        }
        self.table.as_mut().ok_or_else(closed)?.push(rows)
    }

    /// Does something with the file where it may block.
    async fn on_table<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Table) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let table = self.table.take().ok_or_else(closed)?;
        let (table, done) = blocking(table, |table| work(table)).await?;
        self.table = Some(table);
        done
    }
}

impl Sink for ParquetSink {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        columns(input)
    }

    fn commit_when(&self) -> Commit {
        Commit::Grouped
    }

    /// No matter how many: memory holds one row group of them.
    fn commit_bytes_max(&self) -> usize {
        usize::MAX
    }

    fn commit_age(&self) -> Duration {
        self.layout.age
    }

    fn target(&self) -> Option<String> {
        target(&self.path)
    }

    fn open(&mut self, context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(self.open_table(context))
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async {
            self.write_rows(rows).await?;
            Ok(Written::default())
        })
    }

    fn commit<'a>(&'a mut self, delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        let delivered = delivered.to_vec();
        Box::pin(self.on_table(move |table| table.commit(&delivered)))
    }
}

/// A file, what is written to it next, and what is where in it.
struct Table {
    path: PathBuf,
    disk: Disk,
    groups: Groups,
    book: Book,
    /// Where the last commit ends, and how many row groups there are before.
    committed: (Mark, usize),
    /// How many row groups the footer has, while there is one.
    footed: usize,
}

impl Table {
    fn open(
        path: &Path,
        layout: &Layout,
        schema: &SchemaRef,
        records: Arc<dyn Records>,
    ) -> Result<Self> {
        let groups = Groups::new(schema, layout).map_err(|error| unwritable(path, error))?;
        let mut book = groups.book();
        if !is_regular(path)? {
            return Err(Error::fatal(format!(
                "path: {path:?} is a pipe or a device, and Parquet needs a file: change `path`, or \
                 write another codec"
            )));
        }
        match recorded(path, &*records)? {
            None => refuse_foreign(path)?,
            Some(place) if place.length > 0 && !is_table(&place) => {
                return Err(other_codec(path, "not Parquet"));
            }
            Some(_) => {}
        }
        // Until it is known that it can be gone on with, it stays as it is, footer and all.
        let mut disk = Disk::open_uncut(path, records)?;
        if disk.end() > 0 {
            let read = book.read(disk.end(), |at, bytes| disk.read_at(at, bytes));
            read.map_err(|unread| refused(path, unread))?;
        } else {
            disk.pending.extend_from_slice(MAGIC);
        }
        disk.flush()?;
        let (path, count) = (path.to_path_buf(), book.len());
        let committed = (disk.mark(), count);
        let mut table = Self { path, disk, groups, book, committed, footed: 0 };
        table.end_file(count)?;
        Ok(table)
    }

    /// Opens it again after trouble, with all that was written since the last commit.
    fn open_again(&mut self) -> Result<()> {
        let trailed = self.disk.trails();
        self.disk.open_again()?;
        if trailed { self.end_file(self.footed) } else { Ok(()) }
    }

    /// Takes rows. What row groups they make full is pending then.
    fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut row = 0;
        while row < rows.num_rows() {
            let pushed = self.groups.push(rows, row);
            row = pushed.map_err(|error| unwritable(&self.path, error))?;
            if self.groups.is_full() {
                self.end_group()?;
            }
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        let path = &self.path;
        let index = self.book.next_index().ok_or_else(|| {
            Error::fatal(format!(
                "path: {path:?} has as many row groups as Parquet allows, {}: change `path` to go \
                 on in a new file, and make row groups larger: row_group_age, row_group_rows",
                self.book.len()
            ))
        })?;
        let ended = self.groups.end(self.disk.end(), index, &mut self.disk.pending);
        self.book.push(ended.map_err(|error| unwritable(path, error))?);
        Ok(())
    }

    /// Writes a footer behind the row groups that are written, which are so many.
    fn end_file(&mut self, count: usize) -> Result<()> {
        let footer = self.book.footer(count).map_err(|error| unwritable(&self.path, error))?;
        self.footed = count;
        self.disk.trail(&footer)
    }

    fn commit(&mut self, delivered: &[Delivered]) -> Result<()> {
        if !self.groups.is_empty() {
            self.end_group()?;
        }
        if let Some(note) = self.book.note().map_err(|error| unwritable(&self.path, error))? {
            self.disk.pending.extend_from_slice(&note);
        }
        self.disk.flush()?;
        if !self.disk.trails() {
            self.end_file(self.book.len())?;
        }
        self.disk.commit(delivered)?;
        self.committed = (self.disk.mark(), self.book.len());
        Ok(())
    }
}

impl Drop for Table {
    /// A run that fails leaves a whole file too, as of its last commit; unless somebody else has
    /// changed it, for then it is theirs.
    fn drop(&mut self) {
        if self.disk.trails() || self.disk.check().is_err() {
            return;
        }
        let (mark, count) = self.committed.clone();
        self.disk.back_to(mark);
        if let Err(error) = self.end_file(count) {
            tracing::warn!("{error}; it has no footer until the next start");
        }
    }
}

/// Whether it is an end of a file that this codec wrote.
pub(super) fn is_table(place: &Place) -> bool {
    is_end(place.length, place.tail())
}

/// The refusal of a file that another codec wrote.
pub(super) fn other_codec(path: &Path, what: &str) -> Error {
    Error::fatal(format!(
        "path: {path:?} was written with another codec and is {what}: change `path`, or put the \
         codec back"
    ))
}

/// What no commit is known of can't be gone on with.
fn refuse_foreign(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > 0 => Err(Error::fatal(format!(
            "path: {path:?} has {} bytes already that are not this pipeline's, and Parquet can't \
             be appended to: change `path`, or remove the file",
            metadata.len()
        ))),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("look at", path, error))
        }
        _ => Ok(()),
    }
}

fn unwritable(path: &Path, error: ParquetError) -> Error {
    Error::fatal(format!("path: {path:?} can't take these rows as Parquet")).because(error)
}

fn refused(path: &Path, unread: Unread) -> Error {
    match unread {
        Unread::Failed(error) => failed("read", path, error),
        Unread::Damaged(what) => Error::fatal(format!(
            "path: {path:?} is not the file that was written, {what}: {REMEDY}"
        )),
        Unread::Other(what) => Error::fatal(format!(
            "path: {path:?} has other columns than these rows, {what}: change `path` to go on in a \
             new file, or put the columns back"
        )),
    }
}
