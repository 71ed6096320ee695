//! Values with their lengths in binary, by a writer that is chosen once for each column of a batch.

use std::fmt::Display;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_schema::DataType;

use super::values::{
    Interval, bytes, dates, entries, exact_f32, exact_f64, instants, intervals, texts, times,
};
use super::{Form, Misfit, Write, numeric, text};

/// So much of a text is shown in a message.
const SHOWN_CHARS: usize = 40;

/// A writer for a column of such a form; `None` where that can't take such an array.
pub(super) fn writer(array: &dyn Array, form: Form) -> Option<Write<'_>> {
    use DataType as T;
    match (array.data_type(), form) {
        // Every value is null, and so none is written.
        (T::Null, _) => Some(Box::new(|_, _| Ok(()))),
        (T::Dictionary(_, _), _) => entries(array, |values| writer(values, form)),
        (T::Utf8 | T::LargeUtf8 | T::Utf8View, _) => text_writer(array, form),
        (data_type, Form::Text) if text::is_shown(data_type) => {
            let write = text::writer(array, form)?;
            Some(Box::new(move |row, out| behind_length(out, |out| write(row, out))))
        }
        (T::Boolean, Form::Bool) => {
            let values = array.as_boolean_opt()?;
            Some(Box::new(|row, out| {
                put([u8::from(values.value(row))], out);
                Ok(())
            }))
        }
        (T::Int8, _) => integers::<Int8Type>(array, form),
        (T::Int16, _) => integers::<Int16Type>(array, form),
        (T::Int32, _) => integers::<Int32Type>(array, form),
        (T::Int64, _) => integers::<Int64Type>(array, form),
        (T::UInt8, _) => integers::<UInt8Type>(array, form),
        (T::UInt16, _) => integers::<UInt16Type>(array, form),
        (T::UInt32, _) => integers::<UInt32Type>(array, form),
        (T::UInt64, _) => integers::<UInt64Type>(array, form),
        (T::Float16, _) => {
            let values = array.as_primitive_opt::<Float16Type>()?.values();
            floats(form, |row| values[row].to_f32())
        }
        (T::Float32, _) => {
            let values = array.as_primitive_opt::<Float32Type>()?.values();
            floats(form, |row| values[row])
        }
        (T::Float64, _) => {
            let values = array.as_primitive_opt::<Float64Type>()?.values();
            floats(form, |row| values[row])
        }
        (T::Decimal32(_, scale), Form::Numeric) => decimals::<Decimal32Type>(array, *scale),
        (T::Decimal64(_, scale), Form::Numeric) => decimals::<Decimal64Type>(array, *scale),
        (T::Decimal128(_, scale), Form::Numeric) => decimals::<Decimal128Type>(array, *scale),
        (T::Decimal256(_, scale), Form::Numeric) => {
            let (values, exponent) =
                (array.as_primitive_opt::<Decimal256Type>()?.values(), -i32::from(*scale));
            Some(Box::new(move |row, out| {
                numeric::write_text(&format!("{}e{exponent}", values[row]), out)
            }))
        }
        (T::FixedSizeBinary(16), Form::Uuid) | (_, Form::Bytea) => bytes(array, sized),
        (_, Form::Date) => dates(array, |days, out| put(days.to_be_bytes(), out)),
        (_, Form::Time) => times(array, |micros, out| put(micros.to_be_bytes(), out)),
        (_, Form::Timestamp) => instants(array, |micros, out| put(micros.to_be_bytes(), out)),
        (_, Form::Interval) => intervals(array, put_interval),
        _ => None,
    }
}

/// So many bytes behind their number.
fn put<const N: usize>(bytes: [u8; N], out: &mut Vec<u8>) {
    out.reserve(4 + N);
    out.extend_from_slice(&(N as u32).to_be_bytes());
    out.extend_from_slice(&bytes);
}

/// Bytes behind their number.
fn sized(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Misfit> {
    let length = i32::try_from(bytes.len()).map_err(|_| too_long(bytes.len()))?;
    out.reserve(4 + bytes.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn too_long(bytes: usize) -> Misfit {
    format!("{bytes} bytes are more than a value of Postgres can have").into()
}

/// What is written behind its length, which is known only then.
fn behind_length(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Misfit>,
) -> Result<(), Misfit> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let bytes = out.len() - start - 4;
    let length = i32::try_from(bytes).map_err(|_| too_long(bytes))?;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn put_interval(Interval { micros, days, months }: Interval, out: &mut Vec<u8>) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&micros.to_be_bytes());
    bytes[8..12].copy_from_slice(&days.to_be_bytes());
    bytes[12..].copy_from_slice(&months.to_be_bytes());
    put(bytes, out);
}

/// What integers of any width can become.
trait Integer:
    Copy
    + Display
    + Into<i128>
    + TryInto<i16>
    + TryInto<i32>
    + TryInto<i64>
    + TryInto<u32>
    + Send
    + Sync
{
}

impl<T> Integer for T where
    T: Copy
        + Display
        + Into<i128>
        + TryInto<i16>
        + TryInto<i32>
        + TryInto<i64>
        + TryInto<u32>
        + Send
        + Sync
{
}

fn integers<T: ArrowPrimitiveType<Native: Integer>>(
    array: &dyn Array,
    form: Form,
) -> Option<Write<'_>> {
    fn each<'a, T: ArrowPrimitiveType<Native: Integer>, const N: usize>(
        values: &'a [T::Native],
        convert: impl Fn(T::Native) -> Option<[u8; N]> + Send + 'a,
    ) -> Option<Write<'a>> {
        Some(Box::new(move |row, out| {
            let value = values[row];
            put(convert(value).ok_or_else(|| out_of_range(value))?, out);
            Ok(())
        }))
    }
    let values = &**array.as_primitive_opt::<T>()?.values();
    match form {
        Form::Int2 => {
            each::<T, 2>(values, |value| TryInto::<i16>::try_into(value).ok().map(i16::to_be_bytes))
        }
        Form::Int4 => {
            each::<T, 4>(values, |value| TryInto::<i32>::try_into(value).ok().map(i32::to_be_bytes))
        }
        Form::Int8 => {
            each::<T, 8>(values, |value| TryInto::<i64>::try_into(value).ok().map(i64::to_be_bytes))
        }
        Form::Oid => {
            each::<T, 4>(values, |value| TryInto::<u32>::try_into(value).ok().map(u32::to_be_bytes))
        }
        Form::Float4 => each::<T, 4>(values, |value| exact_f32(value.into()).map(f32::to_be_bytes)),
        Form::Float8 => each::<T, 8>(values, |value| exact_f64(value.into()).map(f64::to_be_bytes)),
        Form::Numeric => Some(Box::new(|row, out| {
            let value: i128 = values[row].into();
            numeric::write_unscaled(value < 0, value.unsigned_abs(), 0, out);
            Ok(())
        })),
        _ => None,
    }
}

pub(super) fn out_of_range(value: impl Display) -> Misfit {
    format!("{value} is out of its range").into()
}

fn floats<'a, F: zmij::Float + Display + Into<f64>>(
    form: Form,
    get: impl Fn(usize) -> F + Send + 'a,
) -> Option<Write<'a>> {
    match form {
        Form::Float8 => Some(Box::new(move |row, out| {
            let value: f64 = get(row).into();
            put(value.to_be_bytes(), out);
            Ok(())
        })),
        Form::Float4 => Some(Box::new(move |row, out| {
            let value: f64 = get(row).into();
            let narrow = value as f32;
            if narrow.is_infinite() && value.is_finite() {
                return Err(out_of_range(value));
            }
            put(narrow.to_be_bytes(), out);
            Ok(())
        })),
        Form::Numeric => Some(Box::new(move |row, out| {
            numeric::write_text(zmij::Buffer::new().format(get(row)), out)
        })),
        _ => None,
    }
}

fn decimals<T: ArrowPrimitiveType<Native: Into<i128>>>(
    array: &dyn Array,
    scale: i8,
) -> Option<Write<'_>> {
    let values = array.as_primitive_opt::<T>()?.values();
    Some(Box::new(move |row, out| {
        let value: i128 = values[row].into();
        numeric::write_unscaled(value < 0, value.unsigned_abs(), scale, out);
        Ok(())
    }))
}

fn text_writer(array: &dyn Array, form: Form) -> Option<Write<'_>> {
    match form {
        Form::Text => texts(array, |text, out| {
            no_nul(text)?;
            sized(text.as_bytes(), out)
        }),
        Form::Jsonb => texts(array, |text, out| {
            no_nul(text)?;
            behind_length(out, |out| {
                out.push(1);
                out.extend_from_slice(text.as_bytes());
                Ok(())
            })
        }),
        Form::Uuid => texts(array, |text, out| match uuid(text) {
            Some(bytes) => {
                put(bytes, out);
                Ok(())
            }
            None => Err(format!("{} is no UUID", shown(text)).into()),
        }),
        Form::Numeric => texts(array, numeric::write_text),
        _ => None,
    }
}

/// Text of Postgres can have any character but one.
pub(super) fn no_nul(text: &str) -> Result<(), Misfit> {
    match memchr::memchr(0, text.as_bytes()) {
        None => Ok(()),
        Some(_) => {
            let shown = shown(text);
            Err(format!("{shown} has a NUL, which text of Postgres can't have").into())
        }
    }
}

/// A text's beginning, as a message shows it.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// 32 hexadecimal digits, with hyphens after any four, and with or without braces.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.strip_prefix('{').map_or(Some(text), |text| text.strip_suffix('}'))?;
    let mut bytes = [0; 16];
    let mut count = 0;
    for letter in text.bytes() {
        if letter == b'-' && count % 4 == 0 && (4..32).contains(&count) {
            continue;
        }
        let digit = char::from(letter).to_digit(16)? as u8;
        *bytes.get_mut(count / 2)? |= if count % 2 == 0 { digit << 4 } else { digit };
        count += 1;
    }
    (count == 32).then_some(bytes)
}
