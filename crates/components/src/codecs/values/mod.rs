//! Single values as bytes: what every text format writes of a row is written here, by a writer that
//! is chosen once for each column of a batch.

mod escape;
mod nested;
mod sql;
mod time;

use std::fmt::Display;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, ByteArrayType, ByteViewType, Date32Type, Date64Type, Decimal32Type,
    Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, new_empty_array};
use arrow_buffer::{ArrowNativeType, NullBuffer};
use arrow_schema::{DataType, TimeUnit};

pub(crate) use nested::Object;

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As they are, for people and for lines of text. Nothing is quoted or escaped.
    Plain,
    /// As JSON has them.
    Json,
    /// As Postgres writes them, with its settings as they are by default and in UTC. Nothing is
    /// quoted or escaped.
    Sql,
}

/// Appends the value of a row that is not null.
type Write<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + Send + 'a>;

/// A column, ready to be written value by value.
pub(crate) struct Column<'a> {
    nulls: Option<NullBuffer>,
    write: Write<'a>,
}

impl<'a> Column<'a> {
    /// Of an array; `None` where its type can't be written in this style.
    pub(crate) fn new(array: &'a dyn Array, style: Style) -> Option<Self> {
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        Some(Self { nulls, write: writer(array, style)? })
    }

    /// Whether a row has no value.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the value of a row that is not null.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        (self.write)(row, out);
    }
}

/// Whether values of a type can be written.
pub(crate) fn writable(data_type: &DataType, style: Style) -> bool {
    Column::new(&new_empty_array(data_type), style).is_some()
}

fn writer<'a>(array: &'a dyn Array, style: Style) -> Option<Write<'a>> {
    Some(match array.data_type() {
        DataType::Null => Box::new(|_, out| out.extend_from_slice(b"null")),
        DataType::Boolean => {
            let bools = array.as_boolean_opt()?;
            let [yes, no] = match style {
                Style::Plain | Style::Json => ["true", "false"],
                Style::Sql => ["t", "f"],
            };
            Box::new(move |row, out| {
                out.extend_from_slice(if bools.value(row) { yes } else { no }.as_bytes());
            })
        }
        DataType::Int8 => integers::<Int8Type>(array)?,
        DataType::Int16 => integers::<Int16Type>(array)?,
        DataType::Int32 => integers::<Int32Type>(array)?,
        DataType::Int64 => integers::<Int64Type>(array)?,
        DataType::UInt8 => integers::<UInt8Type>(array)?,
        DataType::UInt16 => integers::<UInt16Type>(array)?,
        DataType::UInt32 => integers::<UInt32Type>(array)?,
        DataType::UInt64 => integers::<UInt64Type>(array)?,
        DataType::Float16 => {
            let values = array.as_primitive_opt::<Float16Type>()?.values();
            floats(style, sql::single, |row| values[row].to_f32())
        }
        DataType::Float32 => {
            let values = array.as_primitive_opt::<Float32Type>()?.values();
            floats(style, sql::single, |row| values[row])
        }
        DataType::Float64 => {
            let values = array.as_primitive_opt::<Float64Type>()?.values();
            floats(style, sql::double, |row| values[row])
        }
        DataType::Decimal32(_, scale) => decimals::<Decimal32Type>(array, *scale)?,
        DataType::Decimal64(_, scale) => decimals::<Decimal64Type>(array, *scale)?,
        DataType::Decimal128(_, scale) => decimals::<Decimal128Type>(array, *scale)?,
        DataType::Decimal256(_, scale) => decimals::<Decimal256Type>(array, *scale)?,
        DataType::Utf8 => texts(array.as_string_opt::<i32>()?, style),
        DataType::LargeUtf8 => texts(array.as_string_opt::<i64>()?, style),
        DataType::Utf8View => {
            let values = array.as_string_view_opt()?;
            text(style, |row| values.value(row))
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => bytes_of(array, style)?,
        DataType::Dictionary(_, _) => entries(array, style)?,
        DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(_, _)
        | DataType::Duration(_) => times(array, style)?,
        _ if style == Style::Plain => return None,
        _ => return nested::writer(array),
    })
}

fn integers<'a, T: ArrowPrimitiveType<Native: itoa::Integer>>(
    array: &'a dyn Array,
) -> Option<Write<'a>> {
    let values = array.as_primitive_opt::<T>()?.values();
    Some(Box::new(|row, out| {
        out.extend_from_slice(itoa::Buffer::new().format(values[row]).as_bytes());
    }))
}

/// The shortest decimal that reads back as the same number. JSON has none for infinity and for what
/// is no number: there it is `null`, so that a column of numbers stays one.
fn floats<'a, F: zmij::Float + Into<f64> + 'a>(
    style: Style,
    sql: fn(F, &mut Vec<u8>),
    get: impl Fn(usize) -> F + Send + 'a,
) -> Write<'a> {
    if style == Style::Sql {
        return Box::new(move |row, out| sql(get(row), out));
    }
    Box::new(move |row, out| {
        let value = get(row);
        if style == Style::Json && !value.into().is_finite() {
            out.extend_from_slice(b"null");
        } else {
            out.extend_from_slice(zmij::Buffer::new().format(value).as_bytes());
        }
    })
}

/// With all their digits; in JSON they are numbers too, which may have as many as they like.
fn decimals<'a, T: DecimalType<Native: Display>>(
    array: &'a dyn Array,
    scale: i8,
) -> Option<Write<'a>> {
    let values = array.as_primitive_opt::<T>()?.values();
    Some(Box::new(move |row, out| {
        let value = values[row];
        match value.to_i64() {
            // Most are short, and need no text of their own.
            Some(short) => decimal(itoa::Buffer::new().format(short), scale, out),
            None => decimal(&value.to_string(), scale, out),
        }
    }))
}

fn decimal(unscaled: &str, scale: i8, out: &mut Vec<u8>) {
    let digits = unscaled.strip_prefix('-').unwrap_or(unscaled);
    if digits.len() < unscaled.len() {
        out.push(b'-');
    }
    if scale <= 0 {
        out.extend_from_slice(digits.as_bytes());
        let zeros = if digits == "0" { 0 } else { usize::from(scale.unsigned_abs()) };
        out.resize(out.len() + zeros, b'0');
        return;
    }
    let after = usize::from(scale.unsigned_abs());
    let (whole, part) = digits.split_at(digits.len().saturating_sub(after));
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole.as_bytes() });
    out.push(b'.');
    out.resize(out.len() + after.saturating_sub(part.len()), b'0');
    out.extend_from_slice(part.as_bytes());
}

fn texts<'a, T: ByteArrayType<Native = str>>(
    values: &'a arrow_array::GenericByteArray<T>,
    style: Style,
) -> Write<'a> {
    text(style, |row| values.value(row))
}

fn text<'a>(style: Style, get: impl Fn(usize) -> &'a str + Send + 'a) -> Write<'a> {
    match style {
        Style::Plain | Style::Sql => {
            Box::new(move |row, out| out.extend_from_slice(get(row).as_bytes()))
        }
        Style::Json => Box::new(move |row, out| escape::quoted(get(row), out)),
    }
}

/// Bytes that need not be text: as they are, and in JSON in base64.
fn bytes_of(array: &dyn Array, style: Style) -> Option<Write<'_>> {
    fn sized<'a, T: ByteArrayType<Native = [u8]>>(
        values: &'a arrow_array::GenericByteArray<T>,
        style: Style,
    ) -> Write<'a> {
        raw(style, |row| values.value(row))
    }
    fn viewed<'a, T: ByteViewType<Native = [u8]>>(
        values: &'a arrow_array::GenericByteViewArray<T>,
        style: Style,
    ) -> Write<'a> {
        raw(style, |row| values.value(row))
    }
    fn raw<'a>(style: Style, get: impl Fn(usize) -> &'a [u8] + Send + 'a) -> Write<'a> {
        match style {
            Style::Plain => Box::new(move |row, out| out.extend_from_slice(get(row))),
            Style::Json => Box::new(move |row, out| base64(get(row), out)),
            Style::Sql => Box::new(move |row, out| sql::bytes(get(row), out)),
        }
    }
    match array.data_type() {
        DataType::Binary => Some(sized(array.as_binary_opt::<i32>()?, style)),
        DataType::LargeBinary => Some(sized(array.as_binary_opt::<i64>()?, style)),
        DataType::BinaryView => Some(viewed(array.as_binary_view_opt()?, style)),
        _ => {
            let values = array.as_fixed_size_binary_opt()?;
            Some(raw(style, |row| values.value(row)))
        }
    }
}

/// RFC 4648, with padding, in quotes.
fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push(b'"');
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        let letter = |shift: u32| ALPHABET[(word >> shift) as usize & 63];
        let mut four = [letter(18), letter(12), letter(6), letter(0)];
        four[chunk.len() + 1..].fill(b'=');
        out.extend_from_slice(&four);
    }
    out.push(b'"');
}

/// A dictionary's values, by its keys.
fn entries(array: &dyn Array, style: Style) -> Option<Write<'_>> {
    let dictionary = array.as_any_dictionary_opt()?;
    let write = writer(dictionary.values(), style)?;
    if dictionary.values().is_empty() {
        return Some(write); // every row is null
    }
    let keys = dictionary.normalized_keys();
    Some(Box::new(move |row, out| write(keys[row], out)))
}

/// Instants (without a zone they are taken as UTC), days, times of day, lengths of time.
fn times(array: &dyn Array, style: Style) -> Option<Write<'_>> {
    use arrow_array::types as t;
    if style == Style::Sql
        && let Some(write) = sql::times(array)
    {
        return Some(write);
    }
    match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive_opt::<Date32Type>()?.values();
            Some(timed(style, |row, out| time::date(i64::from(days[row]), out)))
        }
        DataType::Date64 => {
            let millis = array.as_primitive_opt::<Date64Type>()?.values();
            Some(timed(style, |row, out| time::date(millis[row].div_euclid(86_400_000), out)))
        }
        DataType::Time32(TimeUnit::Second) => of_day::<t::Time32SecondType>(array, style),
        DataType::Time32(_) => of_day::<t::Time32MillisecondType>(array, style),
        DataType::Time64(TimeUnit::Microsecond) => of_day::<t::Time64MicrosecondType>(array, style),
        DataType::Time64(_) => of_day::<t::Time64NanosecondType>(array, style),
        DataType::Timestamp(TimeUnit::Second, _) => {
            instants::<t::TimestampSecondType>(array, style)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            instants::<t::TimestampMillisecondType>(array, style)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            instants::<t::TimestampMicrosecondType>(array, style)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            instants::<t::TimestampNanosecondType>(array, style)
        }
        DataType::Duration(TimeUnit::Second) => lengths::<t::DurationSecondType>(array, style),
        DataType::Duration(TimeUnit::Millisecond) => {
            lengths::<t::DurationMillisecondType>(array, style)
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            lengths::<t::DurationMicrosecondType>(array, style)
        }
        _ => lengths::<t::DurationNanosecondType>(array, style),
    }
}

fn timed<'a>(style: Style, write: impl Fn(usize, &mut Vec<u8>) + Send + 'a) -> Write<'a> {
    match style {
        Style::Plain | Style::Sql => Box::new(write),
        Style::Json => Box::new(move |row, out| {
            out.push(b'"');
            write(row, out);
            out.push(b'"');
        }),
    }
}

/// How many of a type's units make a second.
fn per_second(data_type: &DataType) -> i64 {
    match data_type {
        DataType::Time32(unit)
        | DataType::Time64(unit)
        | DataType::Timestamp(unit, _)
        | DataType::Duration(unit) => match unit {
            TimeUnit::Second => 1,
            TimeUnit::Millisecond => 1_000,
            TimeUnit::Microsecond => 1_000_000,
            TimeUnit::Nanosecond => 1_000_000_000,
        },
        _ => 1,
    }
}

/// Writes seconds and nanoseconds of each value.
fn seconds<'a, T: ArrowPrimitiveType<Native: Into<i64>>>(
    array: &'a dyn Array,
    style: Style,
    write: fn(i64, u32, &mut Vec<u8>),
) -> Option<Write<'a>> {
    let values = array.as_primitive_opt::<T>()?.values();
    let per_second = per_second(&T::DATA_TYPE);
    let nanos_each = 1_000_000_000 / per_second;
    Some(timed(style, move |row, out| {
        let value: i64 = values[row].into();
        let nanos = value.rem_euclid(per_second) * nanos_each;
        write(value.div_euclid(per_second), nanos as u32, out);
    }))
}

fn of_day<'a, T: ArrowPrimitiveType<Native: Into<i64>>>(
    array: &'a dyn Array,
    style: Style,
) -> Option<Write<'a>> {
    seconds::<T>(array, style, |seconds, nanos, out| {
        time::time_of_day(seconds.rem_euclid(86_400) as u32, nanos, out);
    })
}

fn instants<'a, T: ArrowPrimitiveType<Native: Into<i64>>>(
    array: &'a dyn Array,
    style: Style,
) -> Option<Write<'a>> {
    seconds::<T>(array, style, time::instant)
}

fn lengths<'a, T: ArrowPrimitiveType<Native: Into<i64>>>(
    array: &'a dyn Array,
    style: Style,
) -> Option<Write<'a>> {
    seconds::<T>(array, style, time::length)
}
