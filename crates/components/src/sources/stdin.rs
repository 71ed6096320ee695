//! `stdin`: lines from standard input, to its end.
//!
//! **Delivery.** Standard input can't be read again: what was in flight at a crash is lost, and
//! nothing else. It is one partition, `stdin`, whose offsets are the bytes since the start.
//!
//! **Memory.** Nothing is read without room for it, so that a slow pipeline slows whoever writes to
//! it. While nobody writes, only a line that is not complete yet is held.
//!
//! Whoever stops the source waits for it no longer than a tenth of a second, even if nobody writes:
//! a thread looks whether there is something, and reads only then.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use arrow_buffer::Buffer;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use futures::{StreamExt, stream};
use futures_core::future::BoxFuture;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Deserialize;
use tidegate_model::{
    BudgetHolder, ByteSize, Error, Mistake, Partition, Permit, Position, Result, Settings, Source,
    SourceBatch, SourceContext, SourceSpec, SourceStream, Spanned, log_schema,
};

use crate::blocking::blocking;
use crate::clock;
use crate::codecs::{
    Chunk, Codec, Cutter, Damage, Decoder, Label, Line, Piece, Places, Pool, Prefilter, Shape,
    Space, decoder_named, line_bytes_max, too_large,
};

/// How the source presents itself.
pub const SPEC: SourceSpec = SourceSpec {
    summary: "lines from standard input; they can't be read again after a crash",
    example: r#"codec = "auto" # or "text", the default"#,
    build,
};

/// How much is read at once, but for a line that is longer.
const CHUNK_BYTES: usize = 256 << 10;

/// So long a thread waits for something to read, before the task is asked whether it still wants
/// it.
const PATIENCE: Duration = Duration::from_millis(100);

/// The settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How lines become rows: `text` (default), `auto`, `json` or `syslog`.
    codec: Option<Spanned<String>>,
    /// Longer lines are left out and counted: 1 MiB.
    line_bytes_max: Option<Spanned<ByteSize>>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Source>, Mistake> {
    let config: Config = settings.parse()?;
    Ok(Box::new(StdinSource {
        codec: decoder_named(config.codec.as_ref())?,
        line_bytes_max: line_bytes_max(config.line_bytes_max.as_ref())?,
    }))
}

/// See the module.
struct StdinSource {
    codec: Codec,
    line_bytes_max: usize,
}

impl Source for StdinSource {
    fn schema(&self) -> Option<SchemaRef> {
        Some(log_schema())
    }

    fn replayable(&self) -> bool {
        false
    }

    /// A chunk, and the part of a line that waits for its rest.
    fn bytes_min(&self) -> usize {
        let line = Cutter::new(self.line_bytes_max).chunk_bytes_min();
        line.max(CHUNK_BYTES).saturating_add(line)
    }

    fn searched(&self) -> Option<&'static str> {
        Some("message")
    }

    fn severity_searched(&self) -> bool {
        self.codec.severe.is_some()
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        Box::pin(async {
            let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?;
            let lines = Lines::new(stdin.into(), self, context);
            Ok(stream::try_unfold(lines, Lines::next).boxed())
        })
    }
}

/// The stream at work.
struct Lines {
    input: File,
    holder: Arc<BudgetHolder>,
    pool: Pool,
    decoder: Box<dyn Decoder>,
    /// Which lines anyone wants, where not all are.
    prefilter: Option<Prefilter>,
    cutter: Cutter,
    lines: Vec<Line>,
    rows_max: usize,
    bytes_max: usize,
    chunk_bytes: usize,
    label: Label,
    damage: Damage,
    /// Where in the input what comes next begins.
    offset: u64,
    /// What was read and not cut yet, as there were more lines than a batch has rows.
    rest: Option<Buffer>,
    /// A line that is not complete yet, charged.
    part: Option<(Vec<u8>, Permit)>,
    ended: bool,
}

impl Lines {
    fn new(input: File, source: &StdinSource, context: SourceContext) -> Self {
        let prefilter = Prefilter::wanted(&context, &source.codec);
        let shape = Shape::new(context.columns, Arc::clone(&context.holder));
        Self {
            input,
            pool: Pool::default(),
            decoder: (source.codec.decoder)(shape),
            prefilter,
            cutter: Cutter::new(source.line_bytes_max),
            lines: Vec::new(),
            rows_max: context.batch_rows_max.max(1),
            bytes_max: context.batch_bytes_max,
            chunk_bytes: CHUNK_BYTES.min(context.batch_bytes_max).min(context.holder.largest()),
            holder: context.holder,
            label: Label::from("stdin"),
            damage: Damage::default(),
            offset: 0,
            rest: None,
            part: None,
            ended: false,
        }
    }

    async fn next(mut self) -> Result<Option<(SourceBatch, Self)>> {
        loop {
            if self.rest.is_none() {
                if self.ended {
                    return Ok(None);
                }
                self = self.readable().await?;
                let permit = self.holder.acquire(self.wants()).await.map_err(too_large)?;
                let filled;
                (self, filled) = blocking(self, |lines| lines.fill(permit)).await?;
                filled.map_err(unreadable)?;
            }
            let batch;
            (self, batch) = blocking(self, Self::cut).await?;
            if let Some(batch) = batch? {
                return Ok(Some((batch, self)));
            }
        }
    }

    /// Waits until there is something to read, holding nothing.
    async fn readable(mut self) -> Result<Self> {
        loop {
            let ready;
            (self, ready) = blocking(self, |lines| is_readable(&lines.input, PATIENCE)).await?;
            if ready.map_err(unreadable)? {
                return Ok(self);
            }
            self.pool.clear();
        }
    }

    /// Room for what waits for its rest, and as much again.
    fn wants(&self) -> usize {
        let part = self.part.as_ref().map_or(0, |(part, _)| part.len());
        let line = self.cutter.chunk_bytes_min().min(part.saturating_mul(2));
        self.chunk_bytes.max(line)
    }

    /// Reads what there is, as far as there is room.
    fn fill(&mut self, permit: Permit) -> io::Result<()> {
        let mut space: Space = self.pool.space(permit);
        let room = space.bytes_mut();
        let mut filled = 0;
        if let Some((part, _)) = self.part.take()
            && let Some(start) = room.get_mut(..part.len())
        {
            start.copy_from_slice(&part);
            filled = part.len();
        }
        while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => self.ended = true,
                Ok(count) => filled += count,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                    _ => return Err(error),
                },
            }
            if self.ended || !is_readable(&self.input, Duration::ZERO)? {
                break;
            }
        }
        self.rest = Some(space.into_buffer(filled));
        Ok(())
    }

    /// A batch of what was read; nothing where it has no whole line.
    fn cut(&mut self) -> Result<Option<SourceBatch>> {
        let Some(buffer) = self.rest.take() else { return Ok(None) };
        // What is more than a batch may have is one line.
        let rows_max = if buffer.len() > self.bytes_max { 1 } else { self.rows_max };
        let (start, ended) = (self.offset, self.ended);
        let prefilter = self.prefilter.as_ref();
        self.lines.clear();
        let piece = Piece { bytes: &buffer, from: 0, offset: start, ended, rows_max, prefilter };
        let cut = self.cutter.cut(piece, &mut self.lines);
        let rest = buffer.slice(cut.used);
        if self.lines.len() >= rows_max && !rest.is_empty() {
            self.rest = Some(rest);
        } else if !rest.is_empty() {
            self.part = Some((rest.to_vec(), self.holder.charge(rest.len())));
        }
        if cut.used == 0 {
            return Ok(None);
        }
        self.offset += cut.used as u64;
        let read_at = clock::now();
        let decoded = self.decoder.decode(&Chunk {
            bytes: &buffer,
            lines: &self.lines,
            places: Places::Bytes(start),
            label: &self.label,
            read_at,
        })?;
        self.damage.tell("stdin", &cut, &decoded);
        let partition = Partition::from("stdin");
        let position = Position { partition, sequence: self.offset, state: Bytes::new() };
        let (rows, bytes) = (decoded.rows, cut.used as u64);
        let (refused, skipped) = (cut.refused + decoded.refused, cut.skipped);
        Ok(Some(SourceBatch {
            rows,
            start,
            position,
            read_at,
            bytes,
            refused,
            skipped,
            told: None,
        }))
    }
}

/// Whether a read would not wait; tells after a while that it would.
fn is_readable(input: &File, patience: Duration) -> io::Result<bool> {
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) };
    match poll(&mut [PollFd::new(input, PollFlags::IN)], Some(&patience)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::fatal("standard input can't be read; is there one?").because(error)
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Write};

    use arrow_array::cast::AsArray;
    use futures::FutureExt;
    use tidegate_flow::ByteBudget;
    use tidegate_model::Expected;

    use super::*;

    fn open(line_bytes_max: usize, rows_max: usize) -> (PipeWriter, SourceStream, ByteBudget) {
        searching(line_bytes_max, rows_max, None)
    }

    fn searching(
        line_bytes_max: usize,
        rows_max: usize,
        required: Option<Arc<[Box<str>]>>,
    ) -> (PipeWriter, SourceStream, ByteBudget) {
        let (reader, writer) = io::pipe().unwrap();
        let source = StdinSource { codec: decoder_named(None).unwrap(), line_bytes_max };
        let budget = ByteBudget::new(16 << 20);
        let context = SourceContext {
            name: "stdin".into(),
            positions: Vec::new(),
            holder: Arc::new(budget.holder(source.bytes_min()).unwrap()),
            columns: Arc::new(log_schema().project(&[4]).unwrap()),
            required,
            severity_min: None,
            offsets: false,
            once: false,
            batch_bytes_max: 1 << 20,
            batch_rows_max: rows_max,
            expected: Expected::default(),
        };
        let lines = Lines::new(std::os::fd::OwnedFd::from(reader).into(), &source, context);
        (writer, stream::try_unfold(lines, Lines::next).boxed(), budget)
    }

    /// The messages of a batch; its extent follows on the one before.
    fn messages(batch: &SourceBatch, end: &mut u64) -> Vec<String> {
        assert_eq!((batch.start, batch.start + batch.bytes), (*end, batch.position.sequence));
        *end = batch.position.sequence;
        let messages = batch.rows.column(0).as_string_view();
        messages.iter().map(|message| message.unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn lines_come_as_they_are_written_and_the_last_one_at_the_end() {
        let (mut writer, mut stream, budget) = open(100, 100);
        let mut end = 0;
        for (written, lines) in
            [("one\ntw", &["one"][..]), ("o\r\n\nth", &["two", ""]), ("ree\nfour", &["three"])]
        {
            writer.write_all(written.as_bytes()).unwrap();
            let batch = stream.next().await.unwrap().unwrap();
            assert_eq!(messages(&batch, &mut end), lines);
        }
        drop(writer);
        let batch = stream.next().await.unwrap().unwrap();
        assert_eq!(messages(&batch, &mut end), ["four"]);
        assert!(stream.next().await.is_none());
        drop((batch, stream));
        assert_eq!(budget.usage().used, 0);
    }

    #[tokio::test]
    async fn many_lines_at_once_come_in_batches_and_long_ones_are_left_out() {
        let (mut writer, mut stream, budget) = open(300_000, 7);
        let mut expected = Vec::new();
        let mut text = String::new();
        for number in 0..100 {
            let length = [1, 10, 200_000, 400_000][number % 4];
            let line = format!("{number:03}{}", "x".repeat(length));
            text += &format!("{line}\n");
            expected.extend((length < 300_000).then_some(line));
        }
        let writing = std::thread::spawn(move || writer.write_all(text.as_bytes()));
        let (mut end, mut found, mut refused) = (0, Vec::new(), 0);
        while let Some(batch) = stream.next().await {
            let batch = batch.unwrap();
            assert!(batch.rows.num_rows() <= 7);
            found.extend(messages(&batch, &mut end));
            refused += batch.refused;
        }
        writing.join().unwrap().unwrap();
        assert!(found == expected, "{} of {} lines", found.len(), expected.len());
        assert_eq!(refused, 25);
        let peak = budget.usage().peak;
        assert!(peak <= 2 << 20, "{peak} bytes were held");
    }

    #[tokio::test]
    async fn lines_that_nobody_wants_are_passed_over_and_counted() {
        let required = ["ERROR".into()].into();
        let (mut writer, mut stream, _budget) = searching(100, 2, Some(required));
        let mut end = 0;
        for (written, lines, skipped) in [
            ("one\nan ERR", &[][..], 1),
            ("OR\ntwo\nthree", &["an ERROR"], 1),
            ("\nERROR\nfour\nERROR\nfive\n", &["ERROR", "ERROR"], 2),
            ("", &[], 1),
            ("an ERROR\nend\n", &["an ERROR"], 1),
        ] {
            writer.write_all(written.as_bytes()).unwrap();
            let batch = stream.next().await.unwrap().unwrap();
            assert_eq!(
                (&*messages(&batch, &mut end), batch.skipped),
                (&*lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), skipped)
            );
        }
        writer.write_all(b"nothing").unwrap();
        drop(writer);
        let batch = stream.next().await.unwrap().unwrap();
        assert_eq!((messages(&batch, &mut end), batch.skipped), (vec![], 1));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn while_nobody_writes_it_holds_no_more_than_part_of_a_line_and_can_be_dropped() {
        let (mut writer, mut stream, budget) = open(1 << 20, 100);
        writer.write_all(b"one\npart").unwrap();
        drop(stream.next().await.unwrap().unwrap());
        assert!(stream.next().now_or_never().is_none());
        assert_eq!(budget.usage().used, 4);
        // With the writer still there the test ends: no thread waits for it for good.
        drop(stream);
    }
}
