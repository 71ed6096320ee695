//! Rows on the standard output, in the order of the files, however many are read at once.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{Schema, SchemaRef};
use futures_core::future::BoxFuture;
use tidegate::model::{
    Commit, Delivered, Error, ErrorKind, Gather, Mistake, Result, Sink, SinkContext, Written,
};
use tokio::sync::{Mutex, watch};

use super::query::FILE;

/// What the sinks of all lanes share.
pub(super) struct Printer {
    output: Mutex<Output>,
    /// Which file each lane is at: it prints nothing of earlier ones any more.
    fronts: watch::Sender<Vec<usize>>,
}

struct Output {
    sink: Box<dyn Sink>,
    open: bool,
    /// How many rows may still be printed.
    left: usize,
}

impl Printer {
    /// Through that sink, for lanes that begin with these files.
    pub(super) fn new(
        sink: Box<dyn Sink>,
        fronts: Vec<usize>,
        limit: Option<NonZeroU64>,
    ) -> Arc<Self> {
        let left = limit.and_then(|limit| usize::try_from(limit.get()).ok());
        let output = Output { sink, open: false, left: left.unwrap_or(usize::MAX) };
        let (fronts, _) = watch::channel(fronts);
        Arc::new(Self { output: Mutex::new(output), fronts })
    }

    /// Waits until all files before this one are printed.
    async fn turn(&self, lane: usize, file: usize) {
        self.at(lane, file);
        let mut fronts = self.fronts.subscribe();
        let others_are_behind = |fronts: &Vec<usize>| {
            fronts.iter().enumerate().all(|(other, front)| other == lane || *front > file)
        };
        // It fails only where the sender is gone, which is `self`.
        let _ = fronts.wait_for(others_are_behind).await;
    }

    fn at(&self, lane: usize, file: usize) {
        self.fronts.send_if_modified(|fronts| match fronts.get_mut(lane) {
            Some(front) if *front < file => {
                *front = file;
                true
            }
            _ => false,
        });
    }
}

/// The sink of one lane.
pub(super) struct PrintSink {
    printer: Arc<Printer>,
    lane: usize,
    /// The lane's files by what rows say of them; of two that say the same, the later one.
    files: HashMap<String, usize>,
}

impl PrintSink {
    pub(super) fn new(printer: &Arc<Printer>, lane: usize, files: HashMap<String, usize>) -> Self {
        Self { printer: Arc::clone(printer), lane, files }
    }

    async fn print(&self, rows: &RecordBatch) -> Result<Written> {
        let mut rows = rows.clone();
        if let Ok(index) = rows.schema().index_of(FILE) {
            // A batch is of one file.
            let file = label(rows.remove_column(index).as_ref());
            if let Some(file) = file.and_then(|label| self.files.get(&label)) {
                self.printer.turn(self.lane, *file).await;
            }
        }
        let mut output = self.printer.output.lock().await;
        let rows = rows.slice(0, rows.num_rows().min(output.left));
        let mut written = Written::default();
        if rows.num_rows() > 0 {
            written = output.sink.write(&rows).await.map_err(lasting)?;
            output.left -= rows.num_rows();
        }
        match output.left {
            0 => Err(Error::closed("--limit is reached")),
            _ => Ok(written),
        }
    }
}

/// Nobody waits in a scan until there is room again.
fn lasting(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Closed => error,
        _ => Error::fatal("can't write to the standard output").because(error),
    }
}

impl Drop for PrintSink {
    /// The lane has ended: nobody waits for it any more.
    fn drop(&mut self) {
        self.printer.at(self.lane, usize::MAX);
    }
}

/// The first row's text.
fn label(column: &dyn Array) -> Option<String> {
    let words = column.as_dictionary_opt::<Int32Type>()?;
    let key = words.key(0)?;
    words.values().as_string_opt::<i32>().map(|names| names.value(key).to_owned())
}

/// The columns but the one that says the file, which is the last one.
fn shown(input: &SchemaRef) -> SchemaRef {
    let fields = input.fields().iter().filter(|field| field.name() != FILE).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl Sink for PrintSink {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        // Nobody writes before all is planned.
        let output = self.printer.output.try_lock();
        let output = output.map_err(|_| Mistake::new("the output is in use already"))?;
        let mut columns = output.sink.columns(&shown(input))?;
        columns.extend(input.index_of(FILE).ok());
        Ok(columns)
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    /// A batch is of one file, and waits for that file's turn.
    fn gather(&self) -> Gather {
        Gather::ALONE
    }

    fn open(&mut self, context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async move {
            let mut output = self.printer.output.lock().await;
            if !output.open {
                let SinkContext { name, columns, records } = context;
                let columns = shown(&columns);
                output.sink.open(SinkContext { name, columns, records }).await?;
                output.open = true;
            }
            Ok(Vec::new())
        })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(self.print(rows))
    }

    fn commit<'a>(&'a mut self, _delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
