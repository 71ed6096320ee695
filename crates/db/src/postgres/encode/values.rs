//! Values out of arrays of every type of a kind, handed one by one to whoever writes them. How they
//! are written is known when a writer is made, so that a value costs one call.

use arrow_array::cast::AsArray;
use arrow_array::types as t;
use arrow_array::{Array, ArrayAccessor};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};

use super::{Misfit, Write};
use crate::postgres::types::{EPOCH_DAYS, EPOCH_MICROS};

const MICROS_OF_DAY: i64 = 86_400_000_000;

/// The days that Postgres knows: from 4714-11-24 BC to 5874897-12-31.
const DAYS: std::ops::Range<i32> = -2_451_545..2_145_031_949;
/// The instants that it knows: from that day to the end of 294276.
const INSTANTS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// A length of time: Postgres adds its parts one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) micros: i64,
    pub(super) days: i32,
    pub(super) months: i32,
}

/// A dictionary's values, by its keys.
pub(super) fn entries<'a>(
    array: &'a dyn Array,
    writer: impl FnOnce(&'a dyn Array) -> Option<Write<'a>>,
) -> Option<Write<'a>> {
    let dictionary = array.as_any_dictionary_opt()?;
    let write = writer(&**dictionary.values())?;
    if dictionary.values().is_empty() {
        return Some(write); // every row is null
    }
    let keys = dictionary.normalized_keys();
    Some(Box::new(move |row, out| write(keys[row], out)))
}

/// Texts.
pub(super) fn texts<'a>(
    array: &'a dyn Array,
    put: impl Fn(&str, &mut Vec<u8>) -> Result<(), Misfit> + Send + 'a,
) -> Option<Write<'a>> {
    fn each<'a>(
        values: impl ArrayAccessor<Item = &'a str> + Send + 'a,
        put: impl Fn(&str, &mut Vec<u8>) -> Result<(), Misfit> + Send + 'a,
    ) -> Option<Write<'a>> {
        Some(Box::new(move |row, out| put(values.value(row), out)))
    }
    match array.data_type() {
        DataType::Utf8 => each(array.as_string_opt::<i32>()?, put),
        DataType::LargeUtf8 => each(array.as_string_opt::<i64>()?, put),
        DataType::Utf8View => each(array.as_string_view_opt()?, put),
        _ => None,
    }
}

/// Bytes that need not be text.
pub(super) fn bytes<'a>(
    array: &'a dyn Array,
    put: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), Misfit> + Send + 'a,
) -> Option<Write<'a>> {
    fn each<'a>(
        values: impl ArrayAccessor<Item = &'a [u8]> + Send + 'a,
        put: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), Misfit> + Send + 'a,
    ) -> Option<Write<'a>> {
        Some(Box::new(move |row, out| put(values.value(row), out)))
    }
    match array.data_type() {
        DataType::Binary => each(array.as_binary_opt::<i32>()?, put),
        DataType::LargeBinary => each(array.as_binary_opt::<i64>()?, put),
        DataType::BinaryView => each(array.as_binary_view_opt()?, put),
        DataType::FixedSizeBinary(_) => each(array.as_fixed_size_binary_opt()?, put),
        _ => None,
    }
}

/// Numbers of one type.
fn numbers<'a, T: t::ArrowPrimitiveType, N>(
    array: &'a dyn Array,
    convert: impl Fn(T::Native) -> Result<N, Misfit> + Send + 'a,
    put: impl Fn(N, &mut Vec<u8>) + Send + 'a,
) -> Option<Write<'a>> {
    let values = array.as_primitive_opt::<T>()?.values();
    Some(Box::new(move |row, out| {
        put(convert(values[row])?, out);
        Ok(())
    }))
}

/// Days since 2000, or the greatest or least number for infinity.
pub(super) fn dates<'a>(
    array: &'a dyn Array,
    put: impl Fn(i32, &mut Vec<u8>) + Send + 'a,
) -> Option<Write<'a>> {
    match array.data_type() {
        DataType::Date32 => numbers::<t::Date32Type, _>(array, |days| day(i64::from(days)), put),
        DataType::Date64 => {
            let days = |millis: i64| day(millis.div_euclid(86_400_000));
            numbers::<t::Date64Type, _>(array, days, put)
        }
        _ => None,
    }
}

fn day(since_1970: i64) -> Result<i32, Misfit> {
    match i32::try_from(since_1970) {
        Ok(days @ (i32::MAX | i32::MIN)) => Some(days),
        Ok(days) => days.checked_sub(EPOCH_DAYS).filter(|days| DAYS.contains(days)),
        Err(_) => None,
    }
    .ok_or_else(|| format!("{since_1970} days after 1970 are no date of Postgres").into())
}

/// Microseconds since 2000 in UTC, or the greatest or least number for infinity.
pub(super) fn instants<'a>(
    array: &'a dyn Array,
    put: impl Fn(i64, &mut Vec<u8>) + Send + 'a,
) -> Option<Write<'a>> {
    let DataType::Timestamp(unit, _) = array.data_type() else { return None };
    match unit {
        TimeUnit::Second => {
            numbers::<t::TimestampSecondType, _>(array, |value| scaled(value, 1_000_000), put)
        }
        TimeUnit::Millisecond => {
            numbers::<t::TimestampMillisecondType, _>(array, |value| scaled(value, 1_000), put)
        }
        TimeUnit::Microsecond => {
            let instant = |value| match value {
                i64::MAX | i64::MIN => Ok(value),
                _ => scaled(value, 1),
            };
            numbers::<t::TimestampMicrosecondType, _>(array, instant, put)
        }
        TimeUnit::Nanosecond => {
            let instant = |nanos: i64| scaled(nanos.div_euclid(1_000), 1);
            numbers::<t::TimestampNanosecondType, _>(array, instant, put)
        }
    }
}

fn scaled(since_1970: i64, micros_each: i64) -> Result<i64, Misfit> {
    let micros = since_1970.checked_mul(micros_each);
    let micros = micros.and_then(|micros| micros.checked_sub(EPOCH_MICROS));
    micros.filter(|micros| INSTANTS.contains(micros)).ok_or_else(|| {
        let micros = i128::from(since_1970) * i128::from(micros_each);
        format!("{micros} µs after 1970 are no instant of Postgres").into()
    })
}

/// Microseconds of a day.
pub(super) fn times<'a>(
    array: &'a dyn Array,
    put: impl Fn(i64, &mut Vec<u8>) + Send + 'a,
) -> Option<Write<'a>> {
    let micros = |micros: i64| match micros {
        0..=MICROS_OF_DAY => Ok(micros),
        _ => Err(Misfit::from(format!("{micros} µs are no time of a day"))),
    };
    let all = move |value: i32, each: i64| micros(i64::from(value) * each);
    match array.data_type() {
        DataType::Time32(TimeUnit::Second) => {
            numbers::<t::Time32SecondType, _>(array, move |value| all(value, 1_000_000), put)
        }
        DataType::Time32(_) => {
            numbers::<t::Time32MillisecondType, _>(array, move |value| all(value, 1_000), put)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            numbers::<t::Time64MicrosecondType, _>(array, micros, put)
        }
        DataType::Time64(_) => {
            let nanos = move |nanos: i64| micros(nanos.div_euclid(1_000));
            numbers::<t::Time64NanosecondType, _>(array, nanos, put)
        }
        _ => None,
    }
}

/// Lengths of time.
pub(super) fn intervals<'a>(
    array: &'a dyn Array,
    put: impl Fn(Interval, &mut Vec<u8>) + Send + 'a,
) -> Option<Write<'a>> {
    let micros = |value: i64, each: i64| match value.checked_mul(each) {
        Some(micros) => Ok(Interval { micros, ..Interval::default() }),
        None => Err(Misfit::from(format!("{value}·{each} µs are too long for Postgres"))),
    };
    match array.data_type() {
        DataType::Duration(TimeUnit::Second) => {
            numbers::<t::DurationSecondType, _>(array, move |value| micros(value, 1_000_000), put)
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            numbers::<t::DurationMillisecondType, _>(array, move |value| micros(value, 1_000), put)
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            numbers::<t::DurationMicrosecondType, _>(array, move |value| micros(value, 1), put)
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            let nanos = move |nanos: i64| micros(nanos.div_euclid(1_000), 1);
            numbers::<t::DurationNanosecondType, _>(array, nanos, put)
        }
        DataType::Interval(IntervalUnit::YearMonth) => {
            let months = |months| Ok(Interval { months, ..Interval::default() });
            numbers::<t::IntervalYearMonthType, _>(array, months, put)
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let parts = |value: arrow_buffer::IntervalDayTime| {
                let micros = i64::from(value.milliseconds) * 1_000;
                Ok(Interval { micros, days: value.days, months: 0 })
            };
            numbers::<t::IntervalDayTimeType, _>(array, parts, put)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let parts = |value: arrow_buffer::IntervalMonthDayNano| {
                let micros = value.nanoseconds.div_euclid(1_000);
                Ok(Interval { micros, days: value.days, months: value.months })
            };
            numbers::<t::IntervalMonthDayNanoType, _>(array, parts, put)
        }
        _ => None,
    }
}

/// An integer as a float, where that holds it.
pub(super) fn exact_f32(value: i128) -> Option<f32> {
    let float = value as f32;
    (float as i128 == value).then_some(float)
}

/// The same in eight bytes.
pub(super) fn exact_f64(value: i128) -> Option<f64> {
    let float = value as f64;
    (float as i128 == value).then_some(float)
}
