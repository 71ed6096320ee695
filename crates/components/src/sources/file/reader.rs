//! All files of a source: looked up, kept open as far as that is allowed, read in turns.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use tidegate_model::{Error, Expected, Permit, Result, SourceBatch};
use tracing::{info, warn};

use super::find::{Findings, Found, Wanted, find_in};
use super::list::{List, Opened};
use super::mark::{Id, Known, Progress, Stamp, by_inode};
use super::rotated;
use super::tail::{Tail, Trouble, Work};
use crate::codecs::{Cutter, Pool};

/// How many turns wait for the disk after one found that it has to: what is read ahead meanwhile
/// would be read for nothing where it is not enough.
const WAITS: u32 = 16;

/// How much of a list is opened ahead: to be read within milliseconds, so that little changes
/// meanwhile.
const AHEAD_BYTES: u64 = 4 << 20;

/// After how many looks in vain a file that does not grow is let go: who rotates gives writers a
/// moment to notice.
const MISSED_MAX: u32 = 10;

/// The files. What is known of one stays as long as it is found; of one that is gone, what its
/// position says stays, one for each inode.
pub(super) struct Reader {
    wanted: Wanted,
    work: Work,
    cutter: Cutter,
    pool: Pool,
    files_open_max: usize,
    from_end: bool,
    expected: Expected,
    tails: HashMap<Id, Tail>,
    known: HashMap<Id, Known>,
    /// Who has something to read, next one first.
    queue: VecDeque<Id>,
    list: List,
    /// Who is open, longest unused first.
    open: VecDeque<Id>,
    problems: BTreeMap<PathBuf, String>,
    unmatched: BTreeSet<String>,
    scanned: bool,
    /// How many of the next turns wait for the disk.
    waits: u32,
}

/// How a [`Reader`] is to be.
pub(super) struct Plan {
    pub(super) wanted: Wanted,
    /// What is read besides, once.
    pub(super) list: List,
    pub(super) work: Work,
    pub(super) cutter: Cutter,
    pub(super) files_open_max: usize,
    /// Whether files that are there at the very beginning are read from their end.
    pub(super) from_end: bool,
    pub(super) expected: Expected,
    pub(super) known: Vec<Progress>,
}

impl Reader {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            wanted: plan.wanted,
            work: plan.work,
            cutter: plan.cutter,
            pool: Pool::default(),
            files_open_max: plan.files_open_max.max(1),
            from_end: plan.from_end && plan.known.is_empty(),
            expected: plan.expected,
            tails: HashMap::new(),
            known: by_inode(plan.known),
            queue: VecDeque::new(),
            list: plan.list,
            open: VecDeque::new(),
            problems: BTreeMap::new(),
            unmatched: BTreeSet::new(),
            scanned: false,
            waits: 0,
        }
    }

    /// Looks which files there are, and whether they have changed.
    pub(super) fn scan(&mut self) {
        let Findings { files, problems, unmatched } = self.wanted.find();
        for tail in self.tails.values_mut() {
            tail.missed += 1;
        }
        let since = if self.scanned { self.replaced(&files) } else { self.find_renamed(&files) };
        let between = self.rotated_since(&since, &files);
        let order = between.iter().chain(&files).map(|file| file.id).collect::<Vec<_>>();
        for file in files {
            self.see(file);
        }
        self.search_missed();
        self.tell(problems, unmatched);
        order.into_iter().for_each(|id| self.enqueue(id));
        self.expected.set(self.tails.values().map(|tail| tail.stamp().size).sum());
        self.scanned = true;
    }

    /// Whether files of the list are still to be opened.
    pub(super) fn has_list(&self) -> bool {
        !self.list.is_done()
    }

    /// Opens files of the list that are read soon, and at most as many as may be open.
    pub(super) fn go_down_the_list(&mut self) {
        let unread = |id: &Id| self.tails.get(id).map_or(0, Tail::unread);
        let mut bytes = self.queue.iter().map(unread).fold(0, u64::saturating_add);
        while bytes < AHEAD_BYTES && self.open.len() < self.files_open_max {
            match self.list.open_next() {
                None => break,
                Some(Ok(Opened { found, file })) => {
                    let (id, stamp) = (found.id, found.stamp);
                    self.see(found);
                    let Some(tail) = self.tails.get_mut(&id) else { continue };
                    tail.opened(file, stamp);
                    if tail.has_more(self.work.once) {
                        bytes = bytes.saturating_add(tail.unread());
                        self.open.push_back(id);
                        self.enqueue(id);
                    } else {
                        self.tails.remove(&id);
                    }
                }
                Some(Err((path, why))) => self.problem(path, why),
            }
        }
        self.expected.set(self.list.expected());
    }

    /// Looks whether those that are open have changed.
    pub(super) fn look(&mut self) {
        for index in 0..self.open.len() {
            let Some(id) = self.open.get(index).copied() else { break };
            let Some(tail) = self.tails.get_mut(&id) else { continue };
            let changed = tail.look().unwrap_or(true);
            if changed && tail.missed > 0 {
                tail.missed = 1;
            }
            self.enqueue(id);
        }
    }

    /// How many bytes the files whose turn is next want to read: the first one, and as many others
    /// as fit a chunk with it.
    pub(super) fn wants(&self) -> Option<usize> {
        let tails = self.queue.iter().map_while(|id| self.tails.get(id));
        let mut wants = tails.map(|tail| tail.wants(&self.work));
        let first = wants.next()?;
        let all = wants.scan(first, |all, bytes| {
            *all += bytes;
            (*all <= self.work.chunk_bytes).then_some(*all)
        });
        Some(all.last().unwrap_or(first))
    }

    /// Files read in turns, each into a part of what there is a permit for, until the next one needs
    /// more than is left. Batches are given even where an error follows.
    pub(super) fn turns(
        &mut self,
        mut permit: Permit,
        given: &mut VecDeque<SourceBatch>,
    ) -> Result<()> {
        self.waits = self.waits.saturating_sub(1);
        while let Some(tail) = self.queue.front().and_then(|id| self.tails.get(id))
            && let Some(part) = permit.split(tail.wants(&self.work))
        {
            given.extend(self.turn(part, true)?);
        }
        Ok(())
    }

    /// Whether the file whose turn it is may be read without waiting for the disk.
    pub(super) fn is_at_hand(&self) -> bool {
        let tail = self.queue.front().and_then(|id| self.tails.get(id));
        self.waits == 0 && tail.is_some_and(Tail::is_at_hand)
    }

    /// The same of what the system has in memory. Where it has not, nothing is given, and the next
    /// turns will wait for the disk.
    pub(super) fn turns_now(
        &mut self,
        mut permit: Permit,
        given: &mut VecDeque<SourceBatch>,
    ) -> Result<()> {
        while self.is_at_hand()
            && let Some(tail) = self.queue.front().and_then(|id| self.tails.get(id))
            && let Some(part) = permit.split(tail.wants(&self.work))
        {
            given.extend(self.turn(part, false)?);
        }
        Ok(())
    }

    fn turn(&mut self, permit: Permit, wait: bool) -> Result<Option<SourceBatch>> {
        let Some(id) = self.queue.pop_front() else { return Ok(None) };
        let read = match self.open(id) {
            Ok(()) => self.read(id, permit, wait),
            Err(error) => Err(Trouble::Unreadable(error)),
        };
        match read {
            Ok(batch) => {
                self.next_turn(id);
                Ok(batch)
            }
            Err(Trouble::Fatal(error)) => Err(error),
            Err(Trouble::Unreadable(_) | Trouble::NotNow) if !wait => {
                self.queue.push_front(id);
                self.waits = WAITS;
                Ok(None)
            }
            Err(Trouble::NotNow) => {
                self.next_turn(id);
                Ok(None)
            }
            Err(Trouble::Unreadable(error)) => {
                self.close(id);
                self.unreadable(id, &error);
                Ok(None)
            }
        }
    }

    /// Gives back what is kept for reading; called when there is nothing to read.
    pub(super) fn rest(&self) {
        self.pool.clear();
    }

    /// What could not be read, where all had to be.
    pub(super) fn failure(&self) -> Option<Error> {
        let unread = self.problems.iter().map(|(path, why)| format!("{}: {why}", path.display()));
        let unmatched = self.unmatched.iter().map(|pattern| format!("nothing matches {pattern:?}"));
        let (count, first) = (self.problems.len() + self.unmatched.len(), unread.chain(unmatched));
        let first: Vec<String> = first.take(FAILURES_NAMED_MAX).collect();
        let more = match count - first.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (count > 0).then(|| {
            let named = first.join("; ");
            Error::fatal(format!(
                "include: not all could be read, the rest was: {named}{more}; mend or exclude it"
            ))
        })
    }

    /// Each of what could not be read, and why.
    pub(super) fn unread(&mut self) -> Vec<(PathBuf, String)> {
        let unmatched = std::mem::take(&mut self.unmatched).into_iter();
        let gone = unmatched.map(|path| (PathBuf::from(path), "there is no such file".to_owned()));
        std::mem::take(&mut self.problems).into_iter().chain(gone).collect()
    }

    fn read(&mut self, id: Id, permit: Permit, wait: bool) -> Result<Option<SourceBatch>, Trouble> {
        let Some(tail) = self.tails.get_mut(&id) else { return Ok(None) };
        let batch = tail.turn(self.pool.space(permit), wait, &mut self.work)?;
        self.problems.remove(tail.path());
        Ok(batch)
    }

    /// In turns while following; to the end, one after the other, where that is all there is: then
    /// it is forgotten.
    fn next_turn(&mut self, id: Id) {
        let Some(tail) = self.tails.get_mut(&id) else { return };
        tail.queued = tail.has_more(self.work.once);
        match (tail.queued, self.work.once) {
            (true, true) => self.queue.push_front(id),
            (true, false) => self.queue.push_back(id),
            (false, true) => {
                self.close(id);
                self.tails.remove(&id);
            }
            (false, false) => {}
        }
    }

    fn enqueue(&mut self, id: Id) {
        let Some(tail) = self.tails.get_mut(&id) else { return };
        if tail.has_more(self.work.once) && !tail.queued {
            tail.queued = true;
            self.queue.push_back(id);
        }
    }

    /// Opens a file, or marks it as used just now.
    fn open(&mut self, id: Id) -> io::Result<()> {
        if let Some(index) = self.open.iter().position(|open| *open == id) {
            self.open.remove(index);
            self.open.push_back(id);
            return Ok(());
        }
        while self.open.len() >= self.files_open_max {
            self.close_one();
        }
        let Some(tail) = self.tails.get_mut(&id) else { return Ok(()) };
        tail.open()?;
        self.open.push_back(id);
        Ok(())
    }

    /// Closes the one that was not used for longest; of those that can't be found again, only
    /// where there are no others.
    fn close_one(&mut self) {
        let found = |id: &&Id| self.tails.get(id).is_some_and(|tail| tail.missed == 0);
        let id = self.open.iter().find(found).or(self.open.front()).copied();
        if let Some(id) = id {
            self.close(id);
        }
    }

    fn close(&mut self, id: Id) {
        self.open.retain(|open| *open != id);
        if let Some(tail) = self.tails.get_mut(&id) {
            tail.close();
        }
    }

    fn unreadable(&mut self, id: Id, error: &io::Error) {
        let Some(tail) = self.tails.get_mut(&id) else { return };
        tail.queued = false;
        let gone = error.kind() == io::ErrorKind::NotFound;
        let path = tail.path().to_owned();
        if gone && !self.work.once {
            // The next scan sees what became of it.
            return;
        }
        if gone && self.search(&[id]).contains(&id) {
            self.enqueue(id);
            return;
        }
        self.problem(path, error.to_string());
    }

    /// A file that what is included has led to.
    fn see(&mut self, file: Found) {
        let Found { id, stamp, .. } = file;
        match self.tails.get_mut(&id) {
            Some(tail) => {
                tail.ours = true;
                tail.found(file.path, stamp);
            }
            None => {
                let mut tail = self.recognise(file);
                tail.ours = true;
                self.tails.insert(id, tail);
            }
        }
    }

    fn recognise(&mut self, file: Found) -> Tail {
        let cutter = self.cutter.clone();
        let before = self.known.remove(&file.id).or_else(|| self.known_elsewhere(&file));
        match before {
            Some(before) => Tail::resume(file, cutter, before),
            None if self.from_end && !self.scanned => Tail::new(file, cutter).at_end(),
            None => Tail::new(file, cutter),
        }
    }

    /// Devices may be numbered differently after a start of the machine.
    fn known_elsewhere(&mut self, file: &Found) -> Option<Known> {
        if self.scanned {
            return None;
        }
        let same = |last: &Progress| last.id.inode == file.id.inode && last.path == file.path;
        let id = self.known.values().find(|known| same(&known.last))?.last.id;
        self.known.remove(&id)
    }

    /// Files that were renamed while nobody looked, so that no pattern leads to them: they are read
    /// to their end, and before the others, which are newer. Gives for each log when the first of
    /// them was written to; all that rotated away later is known, or nobody has committed any of it.
    fn find_renamed(&mut self, files: &[Found]) -> HashMap<PathBuf, Stamp> {
        let found: HashSet<Id> = files.iter().map(|file| file.id).collect();
        let mut folders: BTreeMap<&Path, HashSet<Id>> = BTreeMap::new();
        for known in self.known.values().map(|known| &known.last) {
            if found.contains(&known.id) {
                continue;
            }
            let folder = known.path.parent().unwrap_or(Path::new(""));
            folders.entry(folder).or_default().insert(known.id);
        }
        let renamed: Vec<Found> =
            folders.iter().flat_map(|(folder, ids)| find_in(folder, ids)).collect();
        let mut since: HashMap<PathBuf, Stamp> = HashMap::new();
        for file in renamed {
            let (id, stamp) = (file.id, file.stamp);
            let Some(known) = self.known.get(&id).map(|known| &known.last) else { continue };
            let first = since.entry(known.path.clone()).or_insert(stamp);
            if stamp.written < first.written {
                *first = stamp;
            }
            // What is ours may have been cut before it was renamed; what is not may be a stranger.
            let ours = rotated::is_rotation_of(&file.path, &known.path);
            if (ours || known.offset < stamp.size)
                && let Some(before) = self.known.remove(&id)
            {
                let mut tail = Tail::resume(file, self.cutter.clone(), before);
                (tail.missed, tail.ours) = (1, ours);
                self.tails.insert(id, tail);
                self.enqueue(id);
            }
        }
        since
    }

    /// Logs whose place another file has taken since the last look, and when they were written to.
    fn replaced(&self, files: &[Found]) -> HashMap<PathBuf, Stamp> {
        let new = files.iter().filter(|file| !self.tails.contains_key(&file.id));
        let new: HashSet<&Path> = new.map(|file| &*file.path).collect();
        if new.is_empty() {
            return HashMap::new();
        }
        let tails = self.tails.values().filter(|tail| new.contains(tail.path()));
        tails.map(|tail| (tail.path().to_owned(), tail.stamp())).collect()
    }

    /// Files that were logs for a while that nobody saw, or of which nothing was committed.
    fn rotated_since(&mut self, since: &HashMap<PathBuf, Stamp>, files: &[Found]) -> Vec<Found> {
        let mut all = Vec::new();
        for (log, since) in since {
            let known = |id: &Id| {
                let listed = files.iter().any(|file| file.id == *id);
                listed || self.tails.contains_key(id) || self.known.contains_key(id)
            };
            let mut between = rotated::between(log, *since, known);
            between.retain(|rotated| !self.wanted.excludes(&rotated.path));
            for rotated in &between {
                info!(path = %rotated.path.display(), was = %log.display(),
                      "was rotated away before it was read; it is read as well");
                let mut tail = Tail::new(rotated.clone(), self.cutter.clone()).was(log);
                (tail.missed, tail.ours) = (1, true);
                self.tails.insert(rotated.id, tail);
            }
            all.append(&mut between);
        }
        all
    }

    /// Those that no pattern led to this time: deleted, or renamed. What is open is read to its
    /// end; what is not is searched by its identity where it was.
    fn search_missed(&mut self) {
        let missed = self.tails.iter().filter(|(_, tail)| tail.missed > 0);
        let missed: Vec<Id> = missed.map(|(id, _)| *id).collect();
        let closed = |id: &&Id| self.tails.get(id).is_some_and(|tail| !tail.is_open());
        let closed: Vec<Id> = missed.iter().filter(closed).copied().collect();
        let found = self.search(&closed);
        for id in missed {
            let Some(tail) = self.tails.get_mut(&id) else { continue };
            let there = tail.is_open() || found.contains(&id);
            let waits = tail.queued || tail.missed <= MISSED_MAX;
            // Nobody will complete the last line of what has waited long enough.
            if there && (waits || tail.conclude()) {
                self.enqueue(id);
                continue;
            }
            self.close(id);
            let Some(tail) = self.tails.remove(&id) else { continue };
            self.queue.retain(|queued| *queued != id);
            if tail.unread() > 0 {
                let (path, unread) = (tail.path().display(), tail.unread());
                warn!(%path, unread, "is gone before it was read to its end");
            }
            self.known.extend(tail.into_known().map(|known| (id, known)));
        }
    }

    /// Searches files by their identity where they were; says which are still there.
    fn search(&mut self, ids: &[Id]) -> HashSet<Id> {
        let mut folders: BTreeMap<PathBuf, HashSet<Id>> = BTreeMap::new();
        for id in ids {
            if let Some(tail) = self.tails.get(id) {
                let folder = tail.path().parent().unwrap_or(Path::new(""));
                folders.entry(folder.to_owned()).or_default().insert(*id);
            }
        }
        let found = folders.iter().flat_map(|(folder, ids)| find_in(folder, ids));
        let mut there = HashSet::new();
        for file in found.collect::<Vec<_>>() {
            if let Some(tail) = self.tails.get_mut(&file.id) {
                let missed = tail.missed.max(1);
                tail.found(file.path, file.stamp);
                tail.missed = missed;
                there.insert(file.id);
            }
        }
        there
    }

    /// Tells what is new among problems, and forgets what has healed.
    fn tell(&mut self, problems: Vec<(PathBuf, String)>, unmatched: Vec<String>) {
        let old = std::mem::take(&mut self.unmatched);
        for pattern in unmatched {
            if !self.work.once && !old.contains(&pattern) {
                warn!("include: nothing matches {pattern:?} yet");
            }
            self.unmatched.insert(pattern);
        }
        let files: HashSet<&Path> = self.tails.values().map(Tail::path).collect();
        // Those of files that were found heal when they can be read.
        self.problems.retain(|path, _| {
            files.contains(&**path) || problems.iter().any(|(problem, _)| problem == path)
        });
        for (path, why) in problems {
            self.problem(path, why);
        }
    }

    fn problem(&mut self, path: PathBuf, why: String) {
        if self.problems.get(&path) != Some(&why) {
            warn!(path = %path.display(), "can't be read: {why}");
            self.problems.insert(path, why);
        }
    }
}

/// How many of the files that could not be read an error names.
const FAILURES_NAMED_MAX: usize = 5;
