//! Events to rows: waits for one holding nothing, then takes room for it and all that is there.

use std::sync::Arc;

use arrow_buffer::Buffer;
use bytes::Bytes;
use futures::FutureExt;
use tidegate_model::{
    BudgetHolder, Error, Partition, Permit, Position, Result, SourceBatch, SourceContext,
};
use tidegate_net::sse::{Broken, Event, Events, TooLong};
use tracing::warn;

use super::{Pause, SseSource};
use crate::clock;
use crate::codecs::{Chunk, Cut, Damage, Label, Line, Places, Pool, Space, Tagged, rounded};

/// How much is gathered at once, but for an event that is longer.
const CHUNK_BYTES: usize = 64 << 10;

/// So many bytes of types and ids a batch may have, where anyone reads them.
const TAG_BYTES: usize = 64 << 10;

/// Room for a chunk, for what rows know beside it, and for an event that waits for the next one.
pub(super) fn bytes_min(event_bytes_max: usize) -> usize {
    let chunk = rounded(event_bytes_max.max(CHUNK_BYTES));
    chunk.saturating_add(event_bytes_max).saturating_add(TAG_BYTES)
}

/// The stream at work.
pub(super) struct Reading {
    events: Events,
    wanted: Option<Arc<[String]>>,
    partition: Partition,
    label: Label,
    decoder: Tagged,
    holder: Arc<BudgetHolder>,
    pool: Pool,
    chunk_bytes: usize,
    bytes_max: usize,
    rows_max: usize,
    once: bool,
    pause: Pause,
    damage: Damage,
    told_long: bool,
    /// The number of the next event.
    number: u64,
    last_id: Bytes,
    /// An event that did not fit the batch before, charged.
    held: Option<(Event, Permit)>,
    /// How the connection ended, behind what was read.
    broken: Option<Broken>,
}

/// What comes next.
enum Next {
    Event(Event),
    TooLong,
    Nothing,
}

/// A batch in the making.
#[derive(Default)]
struct Gathered {
    filled: usize,
    lines: Vec<Line>,
    /// Of each line's event: its type and id.
    tags: Vec<(String, String)>,
    tag_bytes: usize,
    skipped: u64,
    refused: u64,
}

impl Gathered {
    fn events(&self) -> usize {
        self.lines.len() + (self.skipped + self.refused) as usize
    }
}

impl Reading {
    pub(super) fn new(
        source: &SseSource,
        context: SourceContext,
        events: Events,
        partition: Partition,
        number: u64,
    ) -> Self {
        let holder = context.holder;
        Self {
            wanted: source.events.clone(),
            label: Label::from(partition.as_str()),
            decoder: Tagged::new(&source.codec, context.columns, Arc::clone(&holder)),
            pool: Pool::default(),
            chunk_bytes: CHUNK_BYTES.min(context.batch_bytes_max).min(holder.largest()),
            bytes_max: context.batch_bytes_max,
            rows_max: context.batch_rows_max.max(1),
            holder,
            once: context.once,
            pause: source.pause.clone(),
            damage: Damage::default(),
            told_long: false,
            number,
            last_id: Bytes::copy_from_slice(events.last_id().as_bytes()),
            held: None,
            broken: None,
            events,
            partition,
        }
    }

    /// The next batch; the end where there is none, and it is enough.
    pub(super) async fn next(mut self) -> Result<Option<(SourceBatch, Self)>> {
        let mut gathered = Gathered::default();
        let first = match self.held.take() {
            Some(held) => Some(held),
            None => self.first(&mut gathered).await?,
        };
        let space = match first {
            Some((event, charged)) => {
                let wants = self.chunk_bytes.max(rounded(event.data.len()));
                let permit = self.holder.acquire(wants.min(self.holder.largest()));
                let mut space = self.pool.space(permit.await.map_err(too_large)?);
                self.put(event, &mut space, &mut gathered)?;
                drop(charged);
                self.gather(&mut space, &mut gathered);
                Some(space)
            }
            None => None,
        };
        if gathered.events() == 0 {
            return self.ended().map(|()| None);
        }
        let batch = self.batch(space, &gathered)?;
        Ok(Some((batch, self)))
    }

    /// Waits for an event that is wanted, or for the end; holds nothing meanwhile.
    async fn first(&mut self, gathered: &mut Gathered) -> Result<Option<(Event, Permit)>> {
        loop {
            let next = match self.at_once(gathered) {
                Next::Nothing if self.broken.is_some() || gathered.events() > 0 => return Ok(None),
                Next::Nothing => {
                    self.pool.clear();
                    let next = self.events.next().await;
                    self.sort(next, gathered)
                }
                next => next,
            };
            match next {
                Next::Event(event) => {
                    let charged = self.holder.charge(event.data.len());
                    return Ok(Some((event, charged)));
                }
                Next::Nothing | Next::TooLong if gathered.events() >= self.rows_max => {
                    return Ok(None);
                }
                Next::Nothing | Next::TooLong => {}
            }
        }
    }

    /// Adds what is there already, as far as there is room.
    fn gather(&mut self, space: &mut Space, gathered: &mut Gathered) {
        while gathered.events() < self.rows_max
            && gathered.filled < self.bytes_max
            && gathered.tag_bytes < TAG_BYTES
        {
            match self.at_once(gathered) {
                Next::Event(event) => {
                    let room = space.bytes_mut().len() - gathered.filled;
                    if event.data.len() > room.min(self.bytes_max - gathered.filled) {
                        let charged = self.holder.charge(event.data.len());
                        self.held = Some((event, charged));
                        return;
                    }
                    if self.put(event, space, gathered).is_err() {
                        return; // there is room
                    }
                }
                Next::TooLong => {}
                Next::Nothing => return,
            }
        }
    }

    /// What comes next, if it need not be waited for.
    fn at_once(&mut self, gathered: &mut Gathered) -> Next {
        if self.broken.is_some() {
            return Next::Nothing;
        }
        while gathered.events() < self.rows_max {
            let Some(next) = self.events.next().now_or_never() else { return Next::Nothing };
            match self.sort(next, gathered) {
                // One that nobody wants.
                Next::Nothing if self.broken.is_none() => {}
                next => return next,
            }
        }
        Next::Nothing
    }

    /// What to do with what came: `Nothing` for the end, and for what nobody wants.
    fn sort(&mut self, next: Result<Result<Event, TooLong>, Broken>, to: &mut Gathered) -> Next {
        match next {
            Ok(Ok(event)) => {
                let wanted = self.wanted.as_ref();
                if wanted.is_some_and(|wanted| !wanted.contains(&event.event)) {
                    to.skipped += 1;
                    self.passed(&event.id);
                    return Next::Nothing;
                }
                Next::Event(event)
            }
            Ok(Err(long)) => {
                if !std::mem::replace(&mut self.told_long, true) {
                    warn!(from = %self.partition, "{long}; further ones are only counted");
                }
                to.refused += 1;
                let last_id = self.events.last_id().to_owned();
                self.passed(&last_id);
                Next::TooLong
            }
            Err(broken) => {
                self.pause.retry(self.events.retry());
                self.pause.begin(None);
                self.broken = Some(broken);
                Next::Nothing
            }
        }
    }

    /// An event is dealt with.
    fn passed(&mut self, id: &str) {
        if *self.last_id != *id.as_bytes() {
            self.last_id = Bytes::copy_from_slice(id.as_bytes());
        }
    }

    /// An event becomes a line.
    fn put(&mut self, event: Event, space: &mut Space, to: &mut Gathered) -> Result<()> {
        let Event { id, event, data } = event;
        let (start, end) = (to.filled, to.filled + data.len());
        let room = space.bytes_mut().get_mut(start..end);
        let ends = (u32::try_from(start), u32::try_from(end));
        let (Some(room), (Ok(start), Ok(end_in_chunk))) = (room, ends) else {
            return Err(no_room());
        };
        room.copy_from_slice(data.as_bytes());
        to.filled = end;
        to.lines.push(Line { start, end: end_in_chunk });
        self.passed(&id);
        if self.decoder.wants_tags() {
            to.tag_bytes += id.len() + event.len();
            to.tags.push((event, id));
        }
        Ok(())
    }

    fn batch(&mut self, space: Option<Space>, gathered: &Gathered) -> Result<SourceBatch> {
        let read_at = clock::now();
        let start = self.number;
        let buffer = space.map(|space| space.into_buffer(gathered.filled));
        let buffer = buffer.unwrap_or_else(|| Buffer::from(Bytes::new()));
        let tags: Vec<_> = gathered.tags.iter().map(tags_of).collect();
        let _charged = self.holder.charge(gathered.tag_bytes);
        let chunk = Chunk {
            bytes: &buffer,
            lines: &gathered.lines,
            places: Places::Rows(start),
            label: &self.label,
            read_at,
        };
        let decoded = self.decoder.decode(&chunk, start, |line| {
            let Some((tags, count)) = tags.get(line) else { return &[] };
            tags.get(..*count).unwrap_or_default()
        })?;
        self.damage.tell(&self.partition, &Cut::default(), &decoded);
        self.number += gathered.events() as u64;
        Ok(SourceBatch {
            rows: decoded.rows,
            start,
            position: Position {
                partition: self.partition.clone(),
                sequence: self.number,
                state: self.last_id.clone(),
            },
            read_at,
            bytes: gathered.filled as u64,
            refused: gathered.refused + decoded.refused,
            skipped: gathered.skipped,
            told: None,
        })
    }

    /// What the end of the connection means.
    fn ended(self) -> Result<()> {
        match self.broken {
            Some(broken) if broken.is_end() && self.once => Ok(()),
            Some(broken) => Err(Error::disconnected(format!("url: {}: {broken}", self.partition))),
            None => Err(Error::disconnected(format!("url: {}: it ended", self.partition))),
        }
    }
}

/// What is known of an event, and how many entries that is.
fn tags_of((event, id): &(String, String)) -> ([(&'static str, &str); 2], usize) {
    let count = 1 + usize::from(!id.is_empty());
    ([("event", event), ("id", id)], count)
}

fn too_large(error: tidegate_flow::TooLarge) -> Error {
    Error::fatal("memory: it has no room for an event; raise it, or lower event_bytes_max")
        .because(error)
}

fn no_room() -> Error {
    Error::fatal("memory: it has no room for an event; raise it, or lower event_bytes_max")
}
