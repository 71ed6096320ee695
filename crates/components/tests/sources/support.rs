//! A source, what it gave, and where it would go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use tidegate_components::sources::SOURCES;
use tidegate_flow::ByteBudget;
use tidegate_model::{
    Error, Expected, OFFSET, Position, Settings, Source, SourceBatch, SourceContext, SourceStream,
    log_schema,
};

/// A source of a kind and its settings, and what it has been given and has given.
pub(crate) struct Probe {
    pub(crate) kind: &'static str,
    pub(crate) settings: String,
    pub(crate) budget: ByteBudget,
    pub(crate) once: bool,
    pub(crate) rows_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) columns: SchemaRef,
    /// What rows must have one of.
    pub(crate) required: Option<Arc<[Box<str>]>>,
    /// How severe rows must be.
    pub(crate) severity_min: Option<u8>,
    pub(crate) expected: Expected,
    /// Where it would go on, as an engine has it that commits all that was given.
    pub(crate) positions: BTreeMap<String, Position>,
    /// What was given since the last look.
    pub(crate) rows: Vec<Row>,
    pub(crate) refused: u64,
    pub(crate) skipped: u64,
}

/// A row that a source gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) partition: String,
    pub(crate) offset: u64,
    pub(crate) source: String,
    pub(crate) message: String,
}

/// The names of columns as a schema, `_offset` included.
pub(crate) fn columns(names: &[&str]) -> SchemaRef {
    let logs = log_schema();
    let field = |name: &&str| match *name {
        OFFSET => Field::new(OFFSET, DataType::UInt64, false),
        name => logs.field_with_name(name).unwrap().clone(),
    };
    Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()))
}

impl Probe {
    /// Reads what there is and stops.
    pub(crate) fn once(kind: &'static str, settings: impl Into<String>) -> Self {
        Self {
            kind,
            settings: settings.into(),
            budget: ByteBudget::new(64 << 20),
            once: true,
            rows_max: 8_192,
            bytes_max: 1 << 20,
            columns: columns(&["source", "message", OFFSET]),
            expected: Expected::default(),
            positions: BTreeMap::new(),
            rows: Vec::new(),
            refused: 0,
            skipped: 0,
            required: None,
            severity_min: None,
        }
    }

    /// Told that rows must have one of these.
    pub(crate) fn searching(self, texts: &[&str]) -> Self {
        Self { required: Some(texts.iter().map(|text| (*text).into()).collect()), ..self }
    }

    /// Waits for more.
    pub(crate) fn follow(kind: &'static str, settings: impl Into<String>) -> Self {
        Self { once: false, ..Self::once(kind, settings) }
    }

    /// Opens it, or opens it again, where it would go on.
    pub(crate) async fn open(&self) -> SourceStream {
        let spec = SOURCES.iter().find(|(name, _)| *name == self.kind).unwrap().1;
        let settings = Settings::from_toml(&self.settings).unwrap();
        self.open_source((spec.build)(&settings).unwrap()).await
    }

    /// The same with a source that is made elsewhere.
    pub(crate) async fn open_source(&self, mut source: Box<dyn Source>) -> SourceStream {
        let holder = self.budget.holder(source.bytes_min()).unwrap();
        let context = SourceContext {
            name: "probe".into(),
            positions: self.positions.values().cloned().collect(),
            holder: Arc::new(holder),
            columns: Arc::clone(&self.columns),
            required: self.required.clone(),
            severity_min: self.severity_min,
            offsets: self.columns.column_with_name(OFFSET).is_some(),
            once: self.once,
            batch_bytes_max: self.bytes_max,
            batch_rows_max: self.rows_max,
            expected: self.expected.clone(),
        };
        source.open(context).await.unwrap()
    }

    /// Remembers a batch as an engine does, and checks what a source promises of each.
    pub(crate) fn take(&mut self, batch: &SourceBatch) {
        assert_eq!(batch.rows.schema(), self.columns);
        let many = batch.rows.num_rows() > 1;
        assert!(batch.rows.num_rows() <= self.rows_max);
        // What was skipped does not count.
        let small = batch.skipped > 0 || batch.bytes <= self.bytes_max as u64;
        assert!(!many || small, "{} bytes", batch.bytes);
        let partition = batch.position.partition.to_string();
        let before = self.positions.get(&partition).map_or(0, |position| position.sequence);
        assert_eq!(batch.start, before, "of {partition}");
        assert!(batch.position.sequence >= batch.start);
        self.refused += batch.refused;
        self.skipped += batch.skipped;
        let rows = rows(batch);
        let mut last = None;
        for row in &rows {
            assert!(Some(row.offset) > last && row.offset >= batch.start, "{row:?}");
            assert!(row.offset < batch.position.sequence, "{row:?}");
            last = Some(row.offset);
        }
        self.positions.insert(partition, batch.position.clone());
        self.rows.extend(rows);
    }

    /// Takes what the stream gives until it ends; how it ended.
    pub(crate) async fn drain(&mut self) -> Result<(), Error> {
        let mut stream = self.open().await;
        while let Some(batch) = stream.next().await {
            self.take(&batch?);
        }
        Ok(())
    }

    /// Takes what the stream gives until it gives nothing for a while, by a paused clock.
    pub(crate) async fn settle(&mut self, stream: &mut SourceStream) {
        const QUIET: Duration = Duration::from_secs(5);
        while let Ok(batch) = tokio::time::timeout(QUIET, stream.next()).await {
            self.take(&batch.expect("it goes on").unwrap());
        }
    }

    /// The messages since the last look.
    pub(crate) fn messages(&mut self) -> Vec<String> {
        self.rows.drain(..).map(|row| row.message).collect()
    }
}

/// The rows of a batch that has these columns; empty texts and 0 for what it has not.
fn rows(batch: &SourceBatch) -> Vec<Row> {
    let column = |name| batch.rows.column_by_name(name);
    let row = |index: usize| Row {
        partition: batch.position.partition.to_string(),
        offset: column(OFFSET)
            .map_or(batch.start + index as u64, |c| c.as_primitive::<UInt64Type>().value(index)),
        source: column("source").map_or(String::new(), |column| {
            let names = column.as_dictionary::<Int32Type>();
            names.values().as_string::<i32>().value(names.key(index).unwrap()).to_owned()
        }),
        message: column("message")
            .map_or(String::new(), |c| c.as_string_view().value(index).to_owned()),
    };
    (0..batch.rows.num_rows()).map(row).collect()
}

/// How many logs of a folder this process has open.
#[cfg(target_os = "linux")]
pub(crate) fn open_logs(folder: &std::path::Path) -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let paths = all.filter_map(|open| std::fs::read_link(open.path()).ok());
    // The folder itself is open for a moment while it is looked through.
    paths.filter(|path| path.starts_with(folder) && path != folder).count()
}
