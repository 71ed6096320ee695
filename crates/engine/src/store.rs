//! What survives a crash: positions of sources, records of sinks, how far sinks have come. One
//! file in `data_dir`, every change a transaction that is on the disk when it returns.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, StorageError, TableDefinition};
use tidegate_model::{Delivered, Error, Position, Records, Result};

/// (source, partition) -> (sequence, state).
const POSITIONS: TableDefinition<'_, (&str, &str), (u64, &[u8])> =
    TableDefinition::new("positions");
/// (sink, key) -> what the sink wants to remember.
const RECORDS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("records");
/// (sink, input, source, partition) -> the end of what is delivered.
const DELIVERED: TableDefinition<'_, (&str, &str, &str, &str), u64> =
    TableDefinition::new("delivered");

/// The store's file in `data_dir`.
const FILE: &str = "positions.redb";
/// The lock's file in `data_dir`; it holds the process's number.
const LOCK: &str = "lock";
/// What the store may keep of itself in memory.
const CACHE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where a pipeline keeps what survives a crash. A pipeline opens its own in its `data_dir`; this is
/// for those who run one without, or start it again with what it left. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    // Nothing after a failed write: redb refuses any other until it is opened again.
    database: Arc<RwLock<Option<Database>>>,
    // Its file, where it has one.
    path: Option<Arc<Path>>,
    // Whether positions are kept at all.
    keeps: bool,
    // Held as long as the store is used; released by the kernel, however the process ends.
    _lock: Option<Arc<File>>,
}

impl Store {
    /// Opens the store in a folder, which is made where it does not exist, and locks it.
    pub(crate) fn open(data_dir: &Path) -> Result<Self> {
        let shown = data_dir.display();
        fs::create_dir_all(data_dir).map_err(|error| {
            Error::fatal(format!("data_dir: can't make the folder {shown}")).because(error)
        })?;
        let lock = lock(data_dir)?;
        let path = data_dir.join(FILE);
        let database = open(&path).map_err(|error| {
            let path = path.display();
            let context = format!(
                "data_dir: can't open {path}; if it is damaged, put it aside: all input is read again"
            );
            Error::fatal(context).because(error)
        })?;
        Self::with(database, Some(path.into()), Some(Arc::new(lock)))
    }

    /// A store that is gone when its last clone is.
    ///
    /// # Errors
    ///
    /// Where there is no memory for it.
    pub fn in_memory() -> Result<Self> {
        let database = Database::builder().create_with_backend(InMemoryBackend::new());
        let database =
            database.map_err(|error| Error::fatal("can't make a store").because(error))?;
        Self::with(database, None, None)
    }

    /// A store that forgets positions at once, for a run that nobody goes on with.
    ///
    /// # Errors
    ///
    /// As [`in_memory`](Self::in_memory).
    pub fn forgetful() -> Result<Self> {
        Ok(Self { keeps: false, ..Self::in_memory()? })
    }

    fn with(database: Database, path: Option<Arc<Path>>, lock: Option<Arc<File>>) -> Result<Self> {
        let database = Arc::new(RwLock::new(Some(database)));
        let store = Self { database, path, keeps: true, _lock: lock };
        // All tables exist from here on, so that reading finds them.
        store.change(|write| {
            write.open_table(POSITIONS)?;
            write.open_table(RECORDS)?;
            write.open_table(DELIVERED)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// Runs what blocks on the disk where that hurts nobody.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.path.is_none() {
            return work(self);
        }
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|error| Err(Error::fatal("the store failed").because(error)))
    }

    /// The committed positions of a source.
    pub(crate) fn positions(&self, source: &str) -> Result<Vec<Position>> {
        self.look(|read| {
            let table = read.open_table(POSITIONS)?;
            let mut positions = Vec::new();
            for entry in table.range((source, "")..)? {
                let (key, value) = entry?;
                let (name, partition) = key.value();
                if name != source {
                    break;
                }
                let (sequence, state) = value.value();
                let state = state.to_vec().into();
                positions.push(Position { partition: partition.into(), sequence, state });
            }
            Ok(positions)
        })
    }

    /// Commits positions of sources, by the source's name.
    pub(crate) fn commit(&self, positions: &[(Arc<str>, Position)]) -> Result<()> {
        if !self.keeps {
            return Ok(());
        }
        self.change(|write| {
            let mut table = write.open_table(POSITIONS)?;
            for (source, position) in positions {
                let key = (&**source, position.partition.as_str());
                table.insert(key, (position.sequence, &*position.state))?;
            }
            Ok(())
        })
    }

    /// A sink's own part of the store.
    pub(crate) fn records(&self, sink: &Arc<str>) -> Arc<dyn Records> {
        Arc::new(SinkRecords { store: self.clone(), sink: Arc::clone(sink) })
    }

    fn look<T>(
        &self,
        look: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T> {
        let looked = self.with_database(|database| look(&database.begin_read()?));
        looked.map_err(|error| Error::fatal("data_dir: can't read the store").because(error))
    }

    fn change(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<()> {
        let changed = self.with_database(|database| {
            let write = database.begin_write()?;
            change(&write)?;
            Ok(write.commit()?)
        });
        if changed.is_err() && self.path.is_some() {
            self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        }
        changed.map_err(|error| {
            Error::disconnected("data_dir: can't write to the store").because(error)
        })
    }

    fn with_database<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*database {
            return work(database);
        }
        drop(database);
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(path)) = (&*database, &self.path) {
            *database = Some(open(path)?);
        }
        database.as_ref().map_or(Err(redb::Error::DatabaseClosed), work)
    }
}

/// Opens the store's file. One that is not there yet is made under another name, and gets its own
/// when it is whole: a kill meanwhile would leave one that can't be opened.
fn open(path: &Path) -> Result<Database, redb::DatabaseError> {
    if !path.try_exists().map_err(StorageError::from)? {
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(StorageError::from(error))?,
            _ => drop(Database::create(&new)?),
        }
        let named = fs::rename(&new, path).and_then(|()| match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        });
        named.map_err(StorageError::from)?;
    }
    Database::builder().set_cache_size(CACHE_BYTES_MAX).create(path)
}

/// Locks the folder for this process.
fn lock(data_dir: &Path) -> Result<File> {
    let path = data_dir.join(LOCK);
    let shown = data_dir.display();
    let failed = |error: std::io::Error| {
        Error::fatal(format!("data_dir: can't lock {shown}")).because(error)
    };
    let mut options = File::options();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            file.read_to_string(&mut owner).map_err(failed)?;
            return Err(Error::fatal(format!(
                "data_dir: {shown} is in use by process {}; stop it, or give this run another \
                 data_dir",
                owner.trim()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

struct SinkRecords {
    store: Store,
    sink: Arc<str>,
}

impl Records for SinkRecords {
    fn load(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.store.look(|read| {
            let table = read.open_table(RECORDS)?;
            Ok(table.get((&*self.sink, key))?.map(|value| value.value().to_vec()))
        })
    }

    fn delivered(&self) -> Result<Vec<Delivered>> {
        self.store.look(|read| {
            let table = read.open_table(DELIVERED)?;
            let mut all = Vec::new();
            for entry in table.range((&*self.sink, "", "", "")..)? {
                let (key, value) = entry?;
                let (sink, input, source, partition) = key.value();
                if sink != &*self.sink {
                    break;
                }
                let (input, source) = (input.into(), source.into());
                let partition = partition.into();
                all.push(Delivered { input, source, partition, end: value.value() });
            }
            Ok(all)
        })
    }

    fn save(&self, key: &str, value: &[u8], delivered: &[Delivered]) -> Result<()> {
        self.store.change(|write| {
            write.open_table(RECORDS)?.insert((&*self.sink, key), value)?;
            let mut table = write.open_table(DELIVERED)?;
            for Delivered { input, source, partition, end } in delivered {
                table.insert((&*self.sink, &**input, &**source, partition.as_str()), end)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(partition: &str, sequence: u64) -> Position {
        Position { partition: partition.into(), sequence, state: vec![7; 3].into() }
    }

    #[test]
    fn one_that_was_half_made_when_the_process_was_killed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("positions.new"), [0; 4_096]).unwrap();
        drop(Store::open(folder.path()).unwrap());
        assert!(!folder.path().join("positions.new").exists());
        drop(Store::open(folder.path()).unwrap());
    }

    #[test]
    fn what_is_committed_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (app, web): (Arc<str>, Arc<str>) = ("app".into(), "web".into());
        let first = [(Arc::clone(&app), position("a", 1)), (web, position("a", 9))];
        store.commit(&first).unwrap();
        store.commit(&[(Arc::clone(&app), position("b", 3)), (app, position("a", 2))]).unwrap();
        let out = store.records(&"out".into());
        let delivered =
            |end| Delivered { input: "i".into(), source: "s".into(), partition: "p".into(), end };
        out.save("path", b"one", &[delivered(1)]).unwrap();
        out.save("path", b"two", &[delivered(2)]).unwrap();
        out.save("path", b"three", &[]).unwrap();
        drop((store, out));

        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.positions("app").unwrap(), [position("a", 2), position("b", 3)]);
        assert_eq!(store.positions("ap").unwrap(), []);
        let out = store.records(&"out".into());
        assert_eq!(out.load("path").unwrap().as_deref(), Some(&b"three"[..]));
        assert_eq!(out.load("other").unwrap(), None);
        assert_eq!(out.delivered().unwrap(), [delivered(2)]);
        assert_eq!(store.records(&"ou".into()).delivered().unwrap(), []);
    }

    #[test]
    fn what_is_to_be_forgotten_is_forgotten() {
        let app: Arc<str> = "app".into();
        for (store, kept) in [(Store::in_memory(), 1), (Store::forgetful(), 0)] {
            let store = store.unwrap();
            store.commit(&[(Arc::clone(&app), position("a", 1))]).unwrap();
            assert_eq!(store.positions("app").unwrap().len(), kept);
        }
    }

    #[test]
    fn a_second_user_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Store::open(folder.path()).unwrap();
        let error = Store::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    }

    #[test]
    fn what_is_no_store_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "not a store at all").unwrap();
        let error = Store::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("positions.redb") && error.contains("put it aside"), "{error}");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Store::open(&file).err().unwrap().to_string().contains("can't make the folder"));
    }
}
