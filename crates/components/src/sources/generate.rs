//! `generate`: made-up log lines, as fast as wanted, for demonstrations, tests and measurements.
//!
//! **Delivery.** The line of each number follows from the seed and the number alone, but for the
//! time in it, so that what was in flight at a crash is made again. It is one partition,
//! `generated`, whose offsets are line numbers from 0.
//!
//! **Pace.** With a `rate`, lines are due one after the other at that rate, and come in batches of
//! what is due, about every 20 ms. What a slow pipeline leaves is not made up for later beyond a
//! tenth of a second. Without one, as many as fit.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::SchemaRef;
use bytes::Bytes;
use futures::{StreamExt, stream};
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_model::{
    BudgetHolder, Mistake, Partition, Permit, Position, Result, Settings, Source, SourceBatch,
    SourceContext, SourceSpec, SourceStream, Spanned, log_schema,
};
use tokio::time::{Instant, sleep_until};

use self::template::{Templates, Wheel};
use crate::clock;
use crate::codecs::{
    Chunk, Codec, Cut, Damage, Decoder, Label, Line, Places, Pool, Shape, decoder_named, too_large,
};

/// What lines are made of.
mod template;

/// How the source presents itself.
pub const SPEC: SourceSpec = SourceSpec {
    summary: "made-up log lines, for demonstrations, tests and measurements",
    example: r#"template = "web" # or "app", "database", or lines of your own:
# lines = ["{time} {level} {user} asked for {path} from {ip}: {status} in {ms} ms, number {n}"]
codec = "auto"
rate = 1000 # lines a second; as fast as possible when left out
count = 10_000 # endless when left out"#,
    build,
};

/// The name of its partition.
const PARTITION: &str = "generated";

/// How much is made at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The least time from batch to batch, with a rate.
const TICK: Duration = Duration::from_millis(20);

/// How much of what was missed is made up for.
const BACKLOG: Duration = Duration::from_millis(100);

/// The settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// A ready-made kind of lines: `app` (default), `web` or `database`.
    template: Option<Spanned<String>>,
    /// Lines to choose from, with `{time}`, `{level}`, `{n}`, `{ip}`, `{user}`, `{path}`,
    /// `{status}` and `{ms}` to be filled in.
    lines: Option<Vec<Spanned<String>>>,
    /// How lines become rows: `text` (default), `auto`, `json` or `syslog`.
    codec: Option<Spanned<String>>,
    /// So many lines a second.
    rate: Option<NonZeroU64>,
    /// So many lines in all.
    count: Option<u64>,
    /// Another number gives other lines.
    #[serde(default)]
    seed: u64,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Source>, Mistake> {
    let config: Config = settings.parse()?;
    let templates = match (&config.template, &config.lines) {
        (Some(template), Some(_)) => {
            return Err(Mistake::at(template.span(), "there are lines as well")
                .help("leave one of template and lines out"));
        }
        (name, None) => Templates::named(name.as_ref())?,
        (None, Some(lines)) => Templates::of(lines)?,
    };
    Ok(Box::new(GenerateSource {
        templates: Arc::new(templates),
        codec: decoder_named(config.codec.as_ref())?,
        rate: config.rate,
        count: config.count.unwrap_or(u64::MAX),
        seed: config.seed,
    }))
}

/// See the module.
struct GenerateSource {
    templates: Arc<Templates>,
    codec: Codec,
    rate: Option<NonZeroU64>,
    count: u64,
    seed: u64,
}

impl Source for GenerateSource {
    fn schema(&self) -> Option<SchemaRef> {
        Some(log_schema())
    }

    fn replayable(&self) -> bool {
        true
    }

    fn bytes_min(&self) -> usize {
        CHUNK_BYTES.max(self.templates.line_bytes_max())
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        let made = context.positions.iter().map(|position| position.sequence).max();
        let shape = Shape::new(context.columns, Arc::clone(&context.holder));
        let chunk_bytes = CHUNK_BYTES.min(context.batch_bytes_max).min(context.holder.largest());
        let fit = chunk_bytes / self.templates.line_bytes_max().max(1);
        let generate = Generate {
            templates: Arc::clone(&self.templates),
            decoder: (self.codec.decoder)(shape),
            holder: context.holder,
            pool: Pool::default(),
            label: Label::from(&*context.name),
            lines: Vec::new(),
            rows_max: fit.min(context.batch_rows_max).max(1) as u64,
            seed: self.seed,
            count: self.count,
            made: made.unwrap_or_default(),
            pace: self.rate.map(|rate| Pace::new(rate, Instant::now())),
            damage: Damage::default(),
        };
        Box::pin(async { Ok(stream::try_unfold(generate, Generate::next).boxed()) })
    }
}

/// The stream at work.
struct Generate {
    templates: Arc<Templates>,
    decoder: Box<dyn Decoder>,
    holder: Arc<BudgetHolder>,
    pool: Pool,
    label: Label,
    /// At most as many as a batch has rows.
    lines: Vec<Line>,
    rows_max: u64,
    seed: u64,
    count: u64,
    made: u64,
    pace: Option<Pace>,
    damage: Damage,
}

impl Generate {
    async fn next(mut self) -> Result<Option<(SourceBatch, Self)>> {
        let left = self.count.saturating_sub(self.made).min(self.rows_max);
        if left == 0 {
            return Ok(None);
        }
        let rows = match &mut self.pace {
            Some(pace) => pace.due(left).await,
            None => left,
        };
        let bytes = self.templates.line_bytes_max().saturating_mul(rows as usize);
        let holder = Arc::clone(&self.holder);
        let permit = holder.acquire(bytes).await.map_err(too_large)?;
        if let Some(pace) = &mut self.pace {
            pace.given(rows);
        }
        let batch = self.make(rows, permit)?;
        Ok(Some((batch, self)))
    }

    fn make(&mut self, rows: u64, permit: Permit) -> Result<SourceBatch> {
        let read_at = clock::now();
        let mut space = self.pool.space(permit);
        let start = self.made;
        let mut writer = self.templates.writer(space.bytes_mut(), read_at);
        self.lines.clear();
        for number in start..start + rows {
            let line = writer.line(number, Wheel::new(self.seed, number));
            self.lines.push(Line { start: line.start as u32, end: line.end as u32 });
        }
        let filled = writer.filled();
        let decoded = self.decoder.decode(&Chunk {
            bytes: &space.into_buffer(filled),
            lines: &self.lines,
            places: Places::Rows(start),
            label: &self.label,
            read_at,
        })?;
        self.damage.tell(PARTITION, &Cut::default(), &decoded);
        self.made += rows;
        let partition = Partition::from(PARTITION);
        let position = Position { partition, sequence: self.made, state: Bytes::new() };
        let bytes = filled as u64;
        Ok(SourceBatch {
            rows: decoded.rows,
            start,
            position,
            read_at,
            bytes,
            refused: decoded.refused,
            skipped: 0,
            told: None,
        })
    }
}

/// When lines are due.
struct Pace {
    rate: NonZeroU64,
    /// The time of line 0, moved on where lines are not made up for.
    begun: Instant,
    given: u64,
    last: Instant,
}

impl Pace {
    fn new(rate: NonZeroU64, now: Instant) -> Self {
        Self { rate, begun: now, given: 0, last: now }
    }

    /// Waits until some are due; how many, of at most so many.
    async fn due(&mut self, max: u64) -> u64 {
        loop {
            let now = Instant::now();
            let late = now.saturating_duration_since(self.time_of(self.given + 1));
            if late > BACKLOG {
                self.begun += late - BACKLOG;
            }
            let elapsed = now.saturating_duration_since(self.begun).as_nanos();
            let all = elapsed * u128::from(self.rate.get()) / 1_000_000_000;
            let due = u64::try_from(all).unwrap_or(u64::MAX).saturating_sub(self.given);
            if due > 0 {
                return due.min(max);
            }
            sleep_until(self.time_of(self.given + 1).max(self.last + TICK)).await;
        }
    }

    /// So many were given.
    fn given(&mut self, rows: u64) {
        self.given += rows;
        self.last = Instant::now();
    }

    /// When so many are due.
    fn time_of(&self, number: u64) -> Instant {
        let nanos = (u128::from(number) * 1_000_000_000).div_ceil(u128::from(self.rate.get()));
        self.begun + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2))
    }
}
