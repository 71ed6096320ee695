//! What sinks are tested with: records in memory that fail when told to, and rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow_array::{ArrayRef, RecordBatch, StringViewArray};
use arrow_schema::SchemaRef;
use tidegate_components::sinks::SINKS;
use tidegate_model::{Delivered, Error, Records, Result, Settings, Sink, SinkContext};

/// How a save goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Save {
    /// The disk is full: nothing is saved.
    Refused,
    /// Everything is saved, and then there is nobody left to be told.
    DiesAfter,
}

/// Records that outlive their sinks.
#[derive(Default)]
pub(crate) struct Memory {
    values: Mutex<BTreeMap<String, Vec<u8>>>,
    delivered: Mutex<Vec<Delivered>>,
    next_save: Mutex<Option<Save>>,
    saves: AtomicUsize,
}

impl Memory {
    /// Decides how the next save goes, if it is not to go well.
    pub(crate) fn next_save(&self, save: Save) {
        *self.next_save.lock().unwrap() = Some(save);
    }

    /// How many times something was saved.
    pub(crate) fn saves(&self) -> usize {
        self.saves.load(Ordering::Relaxed)
    }

    /// Damages what was saved.
    pub(crate) fn damage(&self) {
        for value in self.values.lock().unwrap().values_mut() {
            value.truncate(3);
        }
    }
}

impl Records for Memory {
    fn load(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.values.lock().unwrap().get(key).cloned())
    }

    fn delivered(&self) -> Result<Vec<Delivered>> {
        Ok(self.delivered.lock().unwrap().clone())
    }

    fn save(&self, key: &str, value: &[u8], delivered: &[Delivered]) -> Result<()> {
        let fate = self.next_save.lock().unwrap().take();
        if fate == Some(Save::Refused) {
            return Err(Error::disconnected("data_dir: no space left"));
        }
        self.values.lock().unwrap().insert(key.to_owned(), value.to_vec());
        let mut all = self.delivered.lock().unwrap();
        for moved in delivered {
            all.retain(|known| known.partition != moved.partition);
            all.push(moved.clone());
        }
        self.saves.fetch_add(1, Ordering::Relaxed);
        match fate {
            Some(_) => Err(Error::fatal("killed")),
            None => Ok(()),
        }
    }
}

/// A sink of the table, from its settings.
pub(crate) fn sink(kind: &str, settings: &str) -> Box<dyn Sink> {
    let spec = SINKS.iter().find(|(known, _)| *known == kind).unwrap().1;
    (spec.build)(&Settings::from_toml(settings).unwrap()).unwrap()
}

/// A file sink, as it comes up.
pub(crate) fn file_sink(path: &Path) -> Box<dyn Sink> {
    sink("file", &format!("path = '{}'", path.display()))
}

pub(crate) fn context(records: &Arc<Memory>) -> SinkContext {
    context_of(records, &messages(&[""]).schema())
}

/// A context of rows with these columns.
pub(crate) fn context_of(records: &Arc<Memory>, columns: &SchemaRef) -> SinkContext {
    let records: Arc<dyn Records> = records.clone();
    SinkContext { name: "out".into(), columns: Arc::clone(columns), records }
}

pub(crate) fn messages<T: AsRef<str>>(lines: &[T]) -> RecordBatch {
    let lines: StringViewArray = lines.iter().map(|line| Some(line.as_ref())).collect();
    RecordBatch::try_from_iter([("message", Arc::new(lines) as ArrayRef)]).unwrap()
}

pub(crate) fn delivered(end: u64) -> Delivered {
    let (input, source) = ("lines".into(), "lines".into());
    Delivered { input, source, partition: "p".into(), end }
}
