//! Values as text, for columns whose binary form is not known here, and for columns of text. Days are
//! written as Julian Dates, which Postgres reads and which need no calendar: `J2451545` is
//! 2000-01-01 ("Date/Time Types" in its manual).

use std::io::Write as _;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types as t;
use arrow_schema::DataType;

use super::binary::{no_nul, out_of_range};
use super::values::{
    Interval, bytes, dates, entries, exact_f32, exact_f64, instants, intervals, texts, times,
};
use super::{Form, Write};

/// The Julian Date of 2000-01-01.
const JULIAN_2000: i64 = 2_451_545;
const MICROS_OF_DAY: i64 = 86_400_000_000;

/// Whether values are the same to people and to Postgres as text.
pub(super) fn is_shown(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Boolean
}

/// A writer for text that is escaped as `COPY` has it; `None` where there is none for such an array.
pub(super) fn writer(array: &dyn Array, form: Form) -> Option<Write<'_>> {
    use DataType as T;
    match array.data_type() {
        T::Null => Some(Box::new(|_, _| Ok(()))),
        T::Dictionary(_, _) => entries(array, |values| writer(values, form)),
        T::Utf8 | T::LargeUtf8 | T::Utf8View => texts(array, |text, out| {
            no_nul(text)?;
            escaped(text.as_bytes(), out);
            Ok(())
        }),
        T::Boolean => {
            let values = array.as_boolean_opt()?;
            Some(Box::new(|row, out| {
                out.extend_from_slice(if values.value(row) { b"true" } else { b"false" });
                Ok(())
            }))
        }
        T::Int8 => integers::<t::Int8Type>(array, form),
        T::Int16 => integers::<t::Int16Type>(array, form),
        T::Int32 => integers::<t::Int32Type>(array, form),
        T::Int64 => integers::<t::Int64Type>(array, form),
        T::UInt8 => integers::<t::UInt8Type>(array, form),
        T::UInt16 => integers::<t::UInt16Type>(array, form),
        T::UInt32 => integers::<t::UInt32Type>(array, form),
        T::UInt64 => integers::<t::UInt64Type>(array, form),
        T::Float16 => {
            let values = array.as_primitive_opt::<t::Float16Type>()?.values();
            floats(|row| values[row].to_f32())
        }
        T::Float32 => {
            let values = array.as_primitive_opt::<t::Float32Type>()?.values();
            floats(|row| values[row])
        }
        T::Float64 => {
            let values = array.as_primitive_opt::<t::Float64Type>()?.values();
            floats(|row| values[row])
        }
        T::Decimal32(_, scale) => decimals::<t::Decimal32Type>(array, *scale),
        T::Decimal64(_, scale) => decimals::<t::Decimal64Type>(array, *scale),
        T::Decimal128(_, scale) => decimals::<t::Decimal128Type>(array, *scale),
        T::Decimal256(_, scale) => decimals::<t::Decimal256Type>(array, *scale),
        T::FixedSizeBinary(_) if form == Form::Uuid => bytes(array, |bytes, out| {
            hex(bytes, out);
            Ok(())
        }),
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => {
            bytes(array, |bytes, out| {
                out.extend_from_slice(b"\\\\x");
                hex(bytes, out);
                Ok(())
            })
        }
        T::Date32 | T::Date64 => dates(array, date),
        T::Time32(_) | T::Time64(_) => times(array, time),
        T::Timestamp(_, _) => instants(array, instant),
        T::Duration(_) | T::Interval(_) => intervals(array, interval),
        _ => None,
    }
}

/// What would end a value or a row has a backslash before it.
fn escaped(mut text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len());
    while let Some(at) = text.iter().position(|byte| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r'))
    {
        let (before, rest) = text.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(match rest.first() {
            Some(b'\t') => b"\\t",
            Some(b'\n') => b"\\n",
            Some(b'\r') => b"\\r",
            _ => b"\\\\",
        });
        text = rest.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(text);
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    out.extend(bytes.iter().flat_map(digits));
}

fn integers<T: t::ArrowPrimitiveType<Native: itoa::Integer + Into<i128>>>(
    array: &dyn Array,
    form: Form,
) -> Option<Write<'_>> {
    // The server would round what a float does not hold.
    let fits: fn(i128) -> bool = match form {
        Form::Float4 => |value| exact_f32(value).is_some(),
        Form::Float8 => |value| exact_f64(value).is_some(),
        _ => |_| true,
    };
    let values = array.as_primitive_opt::<T>()?.values();
    Some(Box::new(move |row, out| {
        let value = values[row];
        if !fits(value.into()) {
            return Err(out_of_range(value.into()));
        }
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        Ok(())
    }))
}

fn floats<'a, F: zmij::Float>(get: impl Fn(usize) -> F + Send + 'a) -> Option<Write<'a>> {
    Some(Box::new(move |row, out| {
        out.extend_from_slice(zmij::Buffer::new().format(get(row)).as_bytes());
        Ok(())
    }))
}

fn decimals<T: t::DecimalType>(array: &dyn Array, scale: i8) -> Option<Write<'_>> {
    let values = array.as_primitive_opt::<T>()?.values();
    Some(Box::new(move |row, out| {
        let text = T::format_decimal(values[row], T::MAX_PRECISION, scale);
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }))
}

/// Into a buffer nothing fails to be written.
macro_rules! say {
    ($out:expr, $($said:tt)*) => { write!($out, $($said)*).unwrap_or(()) };
}

fn date(days: i32, out: &mut Vec<u8>) {
    match days {
        i32::MAX => out.extend_from_slice(b"infinity"),
        i32::MIN => out.extend_from_slice(b"-infinity"),
        _ => say!(out, "J{}", JULIAN_2000 + i64::from(days)),
    }
}

fn time(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros / 1_000_000;
    let (minutes, second) = (seconds / 60, seconds % 60);
    let (hour, minute, rest) = (minutes / 60, minutes % 60, micros % 1_000_000);
    say!(out, "{hour:02}:{minute:02}:{second:02}.{rest:06}");
}

fn instant(micros: i64, out: &mut Vec<u8>) {
    match micros {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        _ => {
            say!(out, "J{} ", JULIAN_2000 + micros.div_euclid(MICROS_OF_DAY));
            time(micros.rem_euclid(MICROS_OF_DAY), out);
            out.extend_from_slice(b"+00");
        }
    }
}

/// Hours and minutes of their own, since servers before 15 read no more than 68 years of seconds.
fn interval(Interval { micros, days, months }: Interval, out: &mut Vec<u8>) {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    let (minutes, seconds) = (micros / 60_000_000, micros / 1_000_000 % 60);
    let (hours, minutes, rest) = (minutes / 60, minutes % 60, micros % 1_000_000);
    say!(out, "P{months}M{days}DT{sign}{hours}H{sign}{minutes}M{sign}{seconds}.{rest:06}S");
}
