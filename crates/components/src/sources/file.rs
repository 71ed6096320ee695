//! `file`: lines of files, directories and patterns, once or as they grow; files that are rotated,
//! cut, replaced and removed meanwhile.
//!
//! **Delivery.** Each file is a partition: its device and inode, its first line, and a number where
//! that is not enough. Offsets are bytes. What was in flight at a crash is read again from the last
//! position, at the same offsets. A position also holds marks of the content before it, so that a
//! file is known again after it was renamed, and known to be another one after it was replaced
//! under the same inode, or cut.
//!
//! **Acking** lets the engine move the file's position on; the source itself keeps nothing back.
//!
//! **Order.** While following, files that have something to read take turns, a batch each. With
//! `once` they are read one after the other, in the order of their paths, each to the end that it
//! has when reading gets there; a last line without a line end is a line then, and waits to be
//! completed otherwise.
//!
//! **Rotation.** A renamed file is read to its end, while running and after a start, if it is still
//! in its directory or a pattern leads to it. A file that is cut (copytruncate) begins again at 0;
//! what had not been read of it is lost, and told. It is best to include rotated names too
//! (`app.log*`): then even a file that is rotated twice between two looks is found.
//!
//! **Skipping.** Where every reader wants rows with certain texts in `message`, or with the codec
//! `auto` or `json` rows of some `severity` and above, chunks are searched for these before they are
//! cut into lines; lines that can't be such rows are passed over and counted, and positions move on.
//! Whether those are too long or malformed nobody looks: they count as skipped, not as refused.
//!
//! **Memory.** At most one chunk is being read, 1 MiB or the longest line; files of which several
//! fit a chunk are read together, and each gives its own batch. What is read is charged
//! until the last view into it is gone. A source that has nothing to read holds nothing of the
//! budget, and looks after its files every `rescan`, more often where there was something just now.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_schema::SchemaRef;
use futures::{StreamExt, stream};
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_flow::nz;
use tidegate_model::{
    BudgetHolder, ByteSize, Error, Mistake, Result, Settings, Source, SourceBatch, SourceContext,
    SourceSpec, SourceStream, Spanned, TimeSpan, log_schema,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

pub use self::list::reason;

use self::find::Wanted;
use self::list::List;
use self::mark::Progress;
use self::reader::{Plan, Reader};
use self::tail::Work;
use crate::blocking::blocking;
use crate::codecs::{Codec, Cutter, Prefilter, Shape, decoder_named, line_bytes_max, too_large};

/// Which files there are.
mod find;

/// Files that are read as they are listed.
mod list;

/// How a file is known again.
mod mark;

/// All files.
mod reader;

/// Files that nobody saw while they were the log.
mod rotated;

/// One file.
mod tail;

/// How the file source presents itself.
pub const SPEC: SourceSpec = SourceSpec {
    summary: "lines of files, once or as they grow, through rotation",
    example: r#"include = ["/var/log/app/*.log"]
exclude = ["debug-*"]
codec = "auto""#,
    build,
};

/// How much is read at once, but for a line that is longer.
const CHUNK_BYTES: usize = 1 << 20;

/// Less than this at once would be slow.
const CHUNK_BYTES_MIN: usize = 64 << 10;

/// How often files are looked for.
const RESCAN: Duration = Duration::from_secs(1);

/// The first look after something was read; each one in vain doubles the time to the next.
const LOOK_AFTER: Duration = Duration::from_millis(10);

/// Looking for files takes at most one part in so many of the time.
const SCAN_SHARE: u32 = 50;

/// The settings of a file source.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Files, patterns (`*`, `?`, `[a-z]`, `**` for any directories) and directories, of which all
    /// files are read that are neither hidden nor compressed.
    include: Vec<Spanned<String>>,
    /// Patterns for what is not to be read; one without a slash is about the file's name.
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
    /// How lines become rows: `text` (default), `auto`, `json` or `syslog`.
    codec: Option<Spanned<String>>,
    /// Where reading begins in files that are there at the very first start: `beginning` (default)
    /// or `end`. Files that appear later are read whole.
    #[serde(default)]
    from: Start,
    /// Longer lines are left out and counted: 1 MiB.
    line_bytes_max: Option<Spanned<ByteSize>>,
    /// How often files are looked for: every second.
    rescan: Option<Spanned<TimeSpan>>,
    /// How many files are kept open: 64.
    #[serde(default = "files_open_max")]
    files_open_max: NonZeroUsize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Start {
    #[default]
    Beginning,
    End,
}

fn files_open_max() -> NonZeroUsize {
    nz!(64)
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Source>, Mistake> {
    let config: Config = settings.parse()?;
    if config.include.is_empty() {
        return Err(Mistake::new("include: names nothing to read")
            .help("name a file, a directory or a pattern: include = [\"/var/log/app/*.log\"]"));
    }
    Ok(Box::new(FileSource {
        wanted: wanted(&config)?,
        list: Arc::default(),
        codec: decoder_named(config.codec.as_ref())?,
        from: config.from,
        line_bytes_max: line_bytes_max(config.line_bytes_max.as_ref())?,
        rescan: rescan(config.rescan.as_ref())?,
        files_open_max: config.files_open_max.get(),
        unread: None,
    }))
}

/// What could not be read of [`files`], and why: at most one entry for each.
#[derive(Clone, Debug, Default)]
pub struct Unread(Arc<Mutex<Vec<(PathBuf, String)>>>);

impl Unread {
    /// Takes what there is.
    pub fn take(&self) -> Vec<(PathBuf, String)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, mut problems: Vec<(PathBuf, String)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append(&mut problems);
    }
}

/// A source of these files, for a run to the end of what there is: one that can't be read is left to
/// `unread` rather than fail the run. They are read in the order of their paths, and each is looked
/// at when its turn comes.
///
/// # Errors
///
/// Where there is no codec of that name.
pub fn files(
    mut paths: Vec<PathBuf>,
    codec: Option<&Spanned<String>>,
    unread: Unread,
) -> Result<Box<dyn Source>, Mistake> {
    paths.sort_unstable();
    Ok(Box::new(FileSource {
        wanted: Wanted::default(),
        list: paths.into(),
        codec: decoder_named(codec)?,
        from: Start::Beginning,
        line_bytes_max: line_bytes_max(None)?,
        rescan: RESCAN,
        files_open_max: files_open_max().get(),
        unread: Some(unread),
    }))
}

/// What a pattern matches: see [`matching`].
#[derive(Clone, Debug, Default)]
pub struct Matching {
    /// Files, in the order of their paths.
    pub files: Vec<PathBuf>,
    /// What can't be read, and why.
    pub problems: Vec<(PathBuf, String)>,
}

/// Looks which files a pattern matches, as `include` has them.
///
/// # Errors
///
/// Why it is no pattern.
pub fn matching(pattern: &str) -> Result<Matching, String> {
    let wanted = Wanted::new(&[pattern.to_owned()], &[]).map_err(|unclear| unclear.reason)?;
    let found = wanted.find();
    let files = found.files.into_iter().map(|file| file.path).collect();
    Ok(Matching { files, problems: found.problems })
}

fn wanted(config: &Config) -> Result<Wanted, Mistake> {
    let texts = |list: &[Spanned<String>]| list.iter().map(|text| text.get_ref().clone()).collect();
    let (include, exclude): (Vec<_>, Vec<_>) = (texts(&config.include), texts(&config.exclude));
    Wanted::new(&include, &exclude).map_err(|unclear| {
        let list = if unclear.excluded { &config.exclude } else { &config.include };
        let message = format!("is no pattern: {}", unclear.reason);
        match list.get(unclear.index) {
            Some(text) => Mistake::at(text.span(), message),
            None => Mistake::new(message),
        }
        .help("`*`, `?` and `[a-z]` stand for parts of a name, `**/` for any directories")
    })
}

fn rescan(time: Option<&Spanned<TimeSpan>>) -> Result<Duration, Mistake> {
    let Some(time) = time else { return Ok(RESCAN) };
    match time.get_ref().0 {
        short if short < LOOK_AFTER => Err(Mistake::at(time.span(), "looks for files too often")
            .help("10ms or more; what grows is looked at every 10ms anyway")),
        time => Ok(time),
    }
}

/// See the module.
struct FileSource {
    wanted: Wanted,
    /// What is read besides, once.
    list: Arc<[PathBuf]>,
    codec: Codec,
    from: Start,
    line_bytes_max: usize,
    rescan: Duration,
    files_open_max: usize,
    /// Who is told what can't be read, where that fails no run.
    unread: Option<Unread>,
}

impl Source for FileSource {
    fn schema(&self) -> Option<SchemaRef> {
        Some(log_schema())
    }

    fn replayable(&self) -> bool {
        true
    }

    fn bytes_min(&self) -> usize {
        Cutter::new(self.line_bytes_max).chunk_bytes_min().max(CHUNK_BYTES_MIN)
    }

    fn searched(&self) -> Option<&'static str> {
        Some("message")
    }

    fn severity_searched(&self) -> bool {
        self.codec.severe.is_some()
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        let opened = self.follow(context);
        Box::pin(async move { Ok(stream::try_unfold(opened?, Follow::next).boxed()) })
    }
}

impl FileSource {
    fn follow(&self, context: SourceContext) -> Result<Follow> {
        let known = context.positions.iter().map(Progress::try_from);
        let prefilter = Prefilter::wanted(&context, &self.codec);
        let shape = Shape::new(context.columns, Arc::clone(&context.holder));
        let chunk_bytes = CHUNK_BYTES.min(context.batch_bytes_max).min(context.holder.largest());
        let plan = Plan {
            wanted: self.wanted.clone(),
            list: List::new(&self.list),
            work: Work {
                decoder: (self.codec.decoder)(shape),
                prefilter,
                once: context.once,
                rows_max: context.batch_rows_max,
                batch_bytes_max: context.batch_bytes_max,
                chunk_bytes,
                lines: Vec::new(),
            },
            cutter: Cutter::new(self.line_bytes_max),
            files_open_max: self.files_open_max,
            from_end: self.from == Start::End,
            expected: context.expected,
            known: known.collect::<Result<_>>()?,
        };
        let now = Instant::now();
        Ok(Follow {
            reader: Reader::new(plan),
            unread: self.unread.clone(),
            holder: context.holder,
            once: context.once,
            rescan: self.rescan,
            scan_at: Some(now),
            look_at: now,
            pause: LOOK_AFTER,
            ready: VecDeque::new(),
            failed: None,
        })
    }
}

/// The stream at work. Dropped at any moment it loses nothing: what was read and not given is read
/// again from the position of what was given.
struct Follow {
    reader: Reader,
    unread: Option<Unread>,
    holder: Arc<BudgetHolder>,
    once: bool,
    rescan: Duration,
    /// When files are looked for again, if ever.
    scan_at: Option<Instant>,
    /// When those that are open are looked at again.
    look_at: Instant,
    /// The time to the look after that, should this one be in vain.
    pause: Duration,
    /// What was read and not given yet: of one chunk, a batch for each of the files that share it.
    ready: VecDeque<SourceBatch>,
    /// What went wrong after that.
    failed: Option<Error>,
}

impl Follow {
    async fn next(mut self) -> Result<Option<(SourceBatch, Self)>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some((batch, self)));
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            let now = Instant::now();
            if self.scan_at.is_some_and(|at| at <= now) {
                self = self.scan().await?;
            } else if !self.once && self.look_at <= now {
                (self, ()) = blocking(self, |follow| follow.reader.look()).await?;
                self.look_at = Instant::now() + self.pause;
                self.pause = self.pause.saturating_mul(2).min(self.rescan);
            }
            let Some(bytes) = self.reader.wants() else {
                if self.reader.has_list() {
                    (self, ()) = blocking(self, |follow| follow.reader.go_down_the_list()).await?;
                    continue;
                }
                if self.once {
                    let Some(unread) = &self.unread else {
                        return self.reader.failure().map_or(Ok(None), Err);
                    };
                    unread.add(self.reader.unread());
                    return Ok(None);
                }
                self.reader.rest();
                sleep_until(self.scan_at.map_or(self.look_at, |at| at.min(self.look_at))).await;
                continue;
            };
            let permit = self.holder.acquire(bytes).await.map_err(too_large)?;
            if self.reader.is_at_hand() {
                // Others have their turn, too: nothing here may ever be pending.
                yield_now().await;
                self.failed = self.reader.turns_now(permit, &mut self.ready).err();
            } else {
                let read;
                (self, read) =
                    blocking(self, |follow| follow.reader.turns(permit, &mut follow.ready)).await?;
                self.failed = read.err();
            }
            if !self.ready.is_empty() {
                self.pause = LOOK_AFTER;
                self.look_at = self.look_at.min(Instant::now() + self.pause);
            }
        }
    }

    async fn scan(self) -> Result<Self> {
        let (mut follow, took) = blocking(self, |follow| {
            let began = std::time::Instant::now();
            follow.reader.scan();
            began.elapsed()
        })
        .await?;
        let pause = follow.rescan.max(took.saturating_mul(SCAN_SHARE));
        follow.scan_at = (!follow.once).then(|| Instant::now() + pause);
        Ok(follow)
    }
}
