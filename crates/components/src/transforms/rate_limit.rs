//! `rate_limit`: lets so many rows, or bytes, through a second. Nothing is lost: what is too early
//! waits, and what comes before it waits too.
//!
//! A token bucket: after a pause a burst passes at once, then the rate holds to 1 % over any 10 s.
//! Rows are handed on in slices of at most a tenth of a second's worth, or one row. A row dearer than
//! the burst waits until all of its cost has come in.
//!
//! The bytes of a row are those of its column `message` and one for the line's end, which is what
//! `text` writes of it; of rows without one, the sum of all values as `text` would write them, each
//! with one byte more. What has parts counts as `ndjson` would write it.

use std::num::NonZeroU64;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_schema::{Schema, SchemaRef};
use serde::Deserialize;
use tidegate_flow::{Rate, TokenBucket};
use tidegate_model::{
    ByteSize, Error, Mistake, Moment, OFFSET, Output, Result, Settings, Spanned, Stage, Transform,
    TransformSpec,
};

use crate::codecs::values::{Column, Style, writable};

/// See the module.
pub const SPEC: TransformSpec = TransformSpec {
    summary: "lets so many rows or bytes through a second, and loses none",
    example: "rows_per_second = 1000 # or bytes_per_second = \"10MiB\"\nburst = 100",
    build,
};

/// A slice holds at most a second's worth divided by this.
const SLICES_PER_SECOND: u64 = 10;

const MESSAGE: &str = "message";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// So many rows a second.
    rows_per_second: Option<Spanned<u64>>,
    /// So many bytes a second, such as `"10MiB"`.
    bytes_per_second: Option<Spanned<ByteSize>>,
    /// So many rows, or bytes, may pass at once after a pause; a tenth of a second's worth, and at
    /// least one, if left out.
    burst: Option<Spanned<ByteSize>>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Transform>, Mistake> {
    let config: Config = settings.parse()?;
    let help = "say rows_per_second = 1000, or bytes_per_second = \"10MiB\"";
    let (unit, span, rate) = match (config.rows_per_second, config.bytes_per_second) {
        (Some(rows), None) => (Unit::Rows, rows.span(), rows.into_inner()),
        (None, Some(bytes)) => (Unit::Bytes, bytes.span(), bytes.into_inner().0),
        (None, None) => {
            return Err(Mistake::new("the rate is missing").help(help));
        }
        (Some(_), Some(bytes)) => {
            let both = "rows_per_second and bytes_per_second can't both be the rate";
            return Err(Mistake::at(bytes.span(), both)
                .help("take one of them out, or put two rate_limits in a row"));
        }
    };
    let no_rate = || {
        Mistake::at(span, "at a rate of 0 nothing would ever pass")
            .help("write at least 1, or take the transform out")
    };
    let rate = NonZeroU64::new(rate).ok_or_else(no_rate)?;
    let tenth = NonZeroU64::new(rate.get() / SLICES_PER_SECOND).unwrap_or(NonZeroU64::MIN);
    let burst = match config.burst {
        None => tenth,
        Some(burst) => NonZeroU64::new(burst.get_ref().0).ok_or_else(|| {
            Mistake::at(burst.span(), "with a burst of 0 nothing would ever pass")
                .help("write at least 1, or leave it out for a tenth of a second's worth")
        })?,
    };
    Ok(Box::new(RateLimit { unit, rate, slice: tenth.get(), burst }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Rows,
    Bytes,
}

struct RateLimit {
    unit: Unit,
    rate: NonZeroU64,
    slice: u64,
    burst: NonZeroU64,
}

impl RateLimit {
    /// Which columns a row's bytes are counted of.
    fn counted(&self, input: &Schema) -> Vec<usize> {
        if self.unit == Unit::Rows {
            return Vec::new();
        }
        match input.index_of(MESSAGE) {
            Ok(message) => vec![message],
            Err(_) => {
                let fields = input.fields().iter().enumerate();
                fields.filter(|(_, field)| field.name() != OFFSET).map(|(index, _)| index).collect()
            }
        }
    }
}

impl Transform for RateLimit {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        let counted = self.counted(input);
        for index in &counted {
            let field = input.field(*index);
            if !writable(field.data_type(), Style::Json) {
                let (name, data_type) = (field.name(), field.data_type());
                return Err(Mistake::new(format!(
                    "the bytes of the column `{name}` can't be counted: {data_type}"
                ))
                .help(format!(
                    "limit by rows_per_second, or make it text in SQL: CAST({name} AS VARCHAR)"
                )));
            }
        }
        Ok(counted)
    }

    fn passes_through(&self) -> bool {
        true
    }

    fn plan(&self, input: &SchemaRef) -> Result<Box<dyn Stage>, Mistake> {
        Ok(Box::new(RateLimitStage {
            schema: SchemaRef::clone(input),
            unit: self.unit,
            counted: self.columns(input)?,
            slice: self.slice,
            bucket: TokenBucket::new(Rate::per_second(self.rate), self.burst),
            waiting: false,
        }))
    }
}

struct RateLimitStage {
    schema: SchemaRef,
    unit: Unit,
    counted: Vec<usize>,
    slice: u64,
    bucket: TokenBucket,
    /// Whether the last payment was one with a wait.
    waiting: bool,
}

impl RateLimitStage {
    /// How many rows make the next slice, and what they cost.
    fn next_slice(&self, rows: &RecordBatch) -> Result<(usize, u64)> {
        if self.unit == Unit::Rows {
            let count = usize::try_from(self.slice).unwrap_or(usize::MAX).min(rows.num_rows());
            return Ok((count, count as u64));
        }
        let bytes = Bytes::of(rows, &self.counted)?;
        let (mut count, mut cost) = (0, 0);
        let mut scratch = Vec::new();
        while count < rows.num_rows() {
            let more = bytes.row(count, &mut scratch);
            if count > 0 && cost + more > self.slice {
                break;
            }
            cost += more;
            count += 1;
        }
        Ok((count, cost))
    }
}

impl Stage for RateLimitStage {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// One bucket for all rows.
    fn fork(&self) -> Option<Box<dyn Stage>> {
        None
    }

    fn apply(&mut self, rows: RecordBatch, at: Moment) -> Result<Output> {
        if std::mem::take(&mut self.waiting) {
            self.bucket.settle(at.elapsed);
        }
        let (count, cost) = self.next_slice(&rows)?;
        let wait = self.bucket.pay(cost, at.elapsed);
        self.waiting = !wait.is_zero();
        if count == rows.num_rows() {
            return Ok(Output { wait, ..Output::rows(rows) });
        }
        let rest = rows.slice(count, rows.num_rows() - count);
        Ok(Output { wait, rest: Some(rest), ..Output::rows(rows.slice(0, count)) })
    }
}

/// What rows count as.
enum Bytes<'a> {
    /// The lengths of a column that is text already.
    Views(&'a arrow_array::StringViewArray),
    /// Values, written to be counted.
    Values(Vec<Column<'a>>),
}

impl<'a> Bytes<'a> {
    fn of(rows: &'a RecordBatch, counted: &[usize]) -> Result<Self> {
        if let [only] = counted
            && let Some(views) = rows.column(*only).as_string_view_opt()
        {
            return Ok(Self::Views(views));
        }
        let columns = counted.iter().map(|index| {
            let array = rows.column(*index);
            Column::new(array, Style::Plain).or_else(|| Column::new(array, Style::Json))
        });
        let columns = columns.collect::<Option<_>>();
        let columns = columns.ok_or_else(|| Error::fatal("the bytes of rows can't be counted"))?;
        Ok(Self::Values(columns))
    }

    fn row(&self, row: usize, scratch: &mut Vec<u8>) -> u64 {
        match self {
            // A null is a line too, an empty one.
            Self::Views(views) => {
                let null = arrow_array::Array::is_null(views, row);
                let length = if null { 0 } else { views.views()[row] as u32 };
                u64::from(length) + 1
            }
            Self::Values(columns) => {
                scratch.clear();
                for column in columns {
                    if !column.is_null(row) {
                        column.write(row, scratch);
                    }
                    scratch.push(b'\n');
                }
                scratch.len() as u64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use arrow_array::{ArrayRef, Int64Array, StringArray, StringViewArray, UInt64Array};

    use super::*;

    fn transform(settings: &str) -> Result<Box<dyn Transform>, Mistake> {
        build(&Settings::from_toml(settings)?)
    }

    fn rows(messages: &[&str]) -> RecordBatch {
        let offsets: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..messages.len() as u64));
        let messages: ArrayRef = Arc::new(StringViewArray::from(messages.to_vec()));
        RecordBatch::try_from_iter([("message", messages), (OFFSET, offsets)]).unwrap()
    }

    /// An engine: gives all of it again and again, waits as told and a little longer, and takes down
    /// how much passed when, until so long.
    fn passed(
        stage: &mut dyn Stage,
        batch: &RecordBatch,
        late: impl Fn(u64) -> Duration,
        until: Duration,
    ) -> Vec<(Duration, RecordBatch)> {
        let (mut now, mut all, mut turn) = (Duration::ZERO, Vec::new(), 0);
        while now < until {
            let mut rest = Some(batch.clone());
            while let Some(rows) = rest {
                let output = stage.apply(rows, Moment { read_at: 0, elapsed: now }).unwrap();
                assert!(output.rows.num_rows() > 0 && output.rejects.is_none());
                if !output.wait.is_zero() {
                    now += output.wait + late(turn);
                    turn += 1;
                }
                all.push((now, output.rows));
                rest = output.rest;
            }
        }
        all
    }

    fn holds(passed: &[(Duration, u64)], rate: u64) {
        let ten = Duration::from_secs(10);
        let last = passed.last().unwrap().0;
        // Any window: those that begin with a slice are the fullest, those that end before one the
        // emptiest.
        for (at, begin) in passed.iter().map(|(time, _)| *time).enumerate() {
            if begin < Duration::from_secs(1) || begin + ten > last {
                continue;
            }
            let sum = |from: usize| -> u64 {
                let within = passed[from..].iter().take_while(|(time, _)| *time < begin + ten);
                within.map(|(_, cost)| cost).sum()
            };
            let allowed = (rate / 10).max(1);
            let (most, least) = (sum(at), sum(at + 1));
            let full = 10 * rate;
            assert!(most <= full + full / 100 + allowed, "{most} from {begin:?} at {rate}");
            assert!(least + full / 100 + allowed >= full, "{least} after {begin:?} at {rate}");
        }
        let whole: u64 = passed.iter().map(|(_, cost)| cost).sum();
        let error = whole as f64 / (rate as f64 * last.as_secs_f64()) - 1.0;
        assert!(error.abs() < 0.011, "{error} at {rate}");
    }

    #[test]
    fn the_rate_of_rows_holds_with_late_timers() {
        let batch = rows(&["x"; 8_192]);
        for (rate, burst) in [(7, 1), (100, 10), (999, 1), (4_321, 400), (1_000_000, 100_000)] {
            let settings = format!("rows_per_second = {rate}\nburst = {burst}");
            let transform = transform(&settings).unwrap();
            let mut stage = transform.plan(&batch.schema()).unwrap();
            let seconds = if rate < 1_000 { 60 } else { 31 };
            let batch = batch.slice(0, batch.num_rows().min(4 * rate as usize));
            let late = |turn: u64| Duration::from_micros(turn * 7_919 % 9_000);
            let all = passed(&mut *stage, &batch, late, Duration::from_secs(seconds));
            let counts: Vec<_> =
                all.iter().map(|(time, rows)| (*time, rows.num_rows() as u64)).collect();
            assert!(counts.iter().all(|(_, count)| *count <= (rate / 10).max(1)));
            holds(&counts, rate);
        }
    }

    #[test]
    fn the_rate_of_bytes_holds_and_counts_line_ends() {
        let lines: Vec<String> = (0..2_000).map(|n| "l".repeat(n % 200)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let batch = rows(&lines);
        let transform = transform("bytes_per_second = '100kB'").unwrap();
        assert_eq!(transform.columns(&batch.schema()), Ok(vec![0]));
        let mut stage = transform.plan(&batch.schema()).unwrap();
        let all = passed(&mut *stage, &batch, |_| Duration::ZERO, Duration::from_secs(31));
        let bytes = |rows: &RecordBatch| -> u64 {
            let lines = rows.column(0).as_string_view();
            lines.iter().flatten().map(|line| line.len() as u64 + 1).sum()
        };
        let costs: Vec<_> = all.iter().map(|(time, rows)| (*time, bytes(rows))).collect();
        holds(&costs, 100_000);
    }

    #[test]
    fn all_rows_pass_whole_and_in_order() {
        let batch = rows(&["one", "two", "three", "four", "five"]);
        let transform = transform("rows_per_second = 20\nburst = 1").unwrap();
        assert!(transform.passes_through());
        let mut stage = transform.plan(&batch.schema()).unwrap();
        assert!(stage.fork().is_none());
        assert_eq!(stage.schema(), batch.schema());
        let all = passed(&mut *stage, &batch, |_| Duration::ZERO, Duration::from_millis(1));
        let slices: Vec<_> = all.iter().map(|(_, rows)| rows.clone()).collect();
        let counts: Vec<_> = slices.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(counts, [2, 2, 1]);
        let offsets: Vec<u64> = slices
            .iter()
            .flat_map(|rows| {
                rows.column(1).as_primitive::<arrow_array::types::UInt64Type>().values()
            })
            .copied()
            .collect();
        assert_eq!(offsets, [0, 1, 2, 3, 4]);
        // 1 of burst, then 20 a second.
        let times: Vec<_> = all.iter().map(|(time, _)| time.as_millis()).collect();
        assert_eq!(times, [50, 150, 200]);
    }

    #[test]
    fn a_row_dearer_than_the_burst_waits_for_all_of_its_cost() {
        let batch = rows(&[&"x".repeat(999), "y"]);
        let mut stage =
            transform("bytes_per_second = 100\nburst = 10").unwrap().plan(&batch.schema()).unwrap();
        let all = passed(&mut *stage, &batch, |_| Duration::ZERO, Duration::from_millis(1));
        let times: Vec<_> = all.iter().map(|(time, _)| time.as_millis()).collect();
        assert_eq!(times, [9_900, 9_920]);
    }

    #[test]
    fn rows_without_a_message_count_as_text_would_write_them() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(12_345), None]));
        let words: ArrayRef = Arc::new(StringArray::from(vec!["abc", "d"]));
        let places: ArrayRef = Arc::new(UInt64Array::from(vec![1_000_000, 2_000_000]));
        let columns = [("number", numbers), ("word", words), (OFFSET, places)];
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.map(|(name, array)| (name, array, true)),
        )
        .unwrap();
        let transform = transform("bytes_per_second = 10").unwrap();
        let counted = transform.columns(&batch.schema()).unwrap();
        assert_eq!(counted, [0, 1]);
        let bytes = Bytes::of(&batch, &counted).unwrap();
        let mut scratch = Vec::new();
        assert_eq!([0, 1].map(|row| bytes.row(row, &mut scratch)), [6 + 4, 1 + 2]);
    }

    #[test]
    fn rows_without_columns_pass_too() {
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(5));
        let schema = Arc::new(Schema::empty());
        let batch = RecordBatch::try_new_with_options(schema, vec![], &options).unwrap();
        let transform = transform("rows_per_second = 20").unwrap();
        assert_eq!(transform.columns(&batch.schema()), Ok(vec![]));
        let mut stage = transform.plan(&batch.schema()).unwrap();
        let output = stage.apply(batch, Moment { read_at: 0, elapsed: Duration::ZERO }).unwrap();
        assert_eq!(output.rows.num_rows() + output.rest.unwrap().num_rows(), 5);
    }

    #[test]
    fn exactly_one_rate_of_at_least_one() {
        let mistake = |settings: &str| transform(settings).err().unwrap();
        assert_eq!(mistake("").message, "the rate is missing");
        let both = mistake("rows_per_second = 1\nbytes_per_second = 2");
        assert_eq!(both.span, Some(39..40));
        let zero = mistake("rows_per_second = 0");
        assert_eq!(
            (zero.span, &*zero.message),
            (Some(18..19), "at a rate of 0 nothing would ever pass")
        );
        assert_eq!(mistake("bytes_per_second = '0kB'").span, Some(19..24));
        assert_eq!(mistake("rows_per_second = 5\nburst = 0").span, Some(28..29));
        assert!(mistake("rows_per_second = 5\nbrust = 1").message.contains("burst"));
    }
}
