//! Values as Postgres writes them where that differs from what others read: what CSV has of them.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Time64MicrosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_schema::{DataType, TimeUnit};

use super::{Write, per_second, time};

/// A float by its shortest digits, which is how it is given: with an exponent where its size is below
/// 0.0001, or it has more digits before the point than the type has for sure ([`float8out`]).
///
/// [`float8out`]: https://github.com/postgres/postgres/blob/master/src/common/d2s.c
pub(super) fn float(text: &str, value: f64, digits_max: i32, out: &mut Vec<u8>) {
    if !value.is_finite() {
        let word: &[u8] = match (value.is_nan(), value > 0.0) {
            (true, _) => b"NaN",
            (false, true) => b"Infinity",
            (false, false) => b"-Infinity",
        };
        out.extend_from_slice(word);
        return;
    }
    let text = match text.strip_prefix('-') {
        Some(rest) => {
            out.push(b'-');
            rest
        }
        None => text,
    };
    let (digits, exponent) = match text.split_once('e') {
        Some((digits, exponent)) => (digits, exponent.parse().unwrap_or(0)),
        None => (text, 0),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let mut all = [0; 64];
    let mut count = 0;
    for digit in whole.bytes().chain(part.bytes()) {
        if let Some(place) = all.get_mut(count).filter(|_| count > 0 || digit != b'0') {
            *place = digit;
            count += 1;
        }
    }
    let leading = whole.bytes().chain(part.bytes()).take_while(|digit| *digit == b'0').count();
    let end = all[..count].iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    let significant = &all[..end];
    if significant.is_empty() {
        out.push(b'0');
        return;
    }
    // The power of ten that the first digit counts for.
    let power = whole.len() as i32 - 1 - leading as i32 + exponent;
    if (-4..digits_max).contains(&power) {
        fixed(significant, power, out);
    } else {
        scientific(significant, power, out);
    }
}

fn fixed(digits: &[u8], power: i32, out: &mut Vec<u8>) {
    if power < 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + power.unsigned_abs() as usize - 1, b'0');
        out.extend_from_slice(digits);
        return;
    }
    let whole = power as usize + 1;
    if digits.len() <= whole {
        out.extend_from_slice(digits);
        out.resize(out.len() + whole - digits.len(), b'0');
        return;
    }
    out.extend_from_slice(&digits[..whole]);
    out.push(b'.');
    out.extend_from_slice(&digits[whole..]);
}

fn scientific(digits: &[u8], power: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(&digits[..1]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    out.extend_from_slice(if power < 0 { b"e-" } else { b"e+" });
    let size = power.unsigned_abs();
    if size < 10 {
        out.push(b'0');
    }
    out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
}

/// `bytea_output = hex`.
pub(super) fn bytes(value: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + value.len() * 2);
    out.extend_from_slice(b"\\x");
    for byte in value {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

/// Days, times and instants; none of the types that are written as elsewhere.
pub(super) fn times(array: &dyn Array) -> Option<Write<'_>> {
    match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive_opt::<Date32Type>()?.values();
            Some(Box::new(|row, out| match days[row] {
                i32::MAX => out.extend_from_slice(b"infinity"),
                i32::MIN => out.extend_from_slice(b"-infinity"),
                days => time::sql_date(days.into(), out),
            }))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let micros = array.as_primitive_opt::<Time64MicrosecondType>()?.values();
            Some(Box::new(|row, out| {
                // The day's end is a time of day too: 24:00:00.
                let (seconds, rest) = (micros[row] / 1_000_000, micros[row] % 1_000_000);
                time::time_of_day(seconds as u32, rest as u32 * 1_000, out);
            }))
        }
        DataType::Timestamp(unit, zone) => {
            let zone = if zone.is_some() { "+00" } else { "" };
            match unit {
                TimeUnit::Second => instants::<TimestampSecondType>(array, zone),
                TimeUnit::Millisecond => instants::<TimestampMillisecondType>(array, zone),
                TimeUnit::Microsecond => instants::<TimestampMicrosecondType>(array, zone),
                TimeUnit::Nanosecond => instants::<TimestampNanosecondType>(array, zone),
            }
        }
        _ => None,
    }
}

fn instants<'a, T: ArrowPrimitiveType<Native = i64>>(
    array: &'a dyn Array,
    zone: &'static str,
) -> Option<Write<'a>> {
    let values = array.as_primitive_opt::<T>()?.values();
    let per_second = per_second(&T::DATA_TYPE);
    let nanos_each = 1_000_000_000 / per_second;
    // Nanoseconds end within what there is of time; others have room for more.
    let endless = per_second < 1_000_000_000;
    Some(Box::new(move |row, out| match values[row] {
        i64::MAX if endless => out.extend_from_slice(b"infinity"),
        i64::MIN if endless => out.extend_from_slice(b"-infinity"),
        value => {
            let nanos = value.rem_euclid(per_second) * nanos_each;
            time::sql_instant(value.div_euclid(per_second), nanos as u32, zone, out);
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, Date32Array, Float32Array, Float64Array, Time64MicrosecondArray,
        TimestampMicrosecondArray,
    };

    use super::super::{Column, Style};

    fn written(array: ArrayRef) -> Vec<String> {
        let column = Column::new(&array, Style::Sql).unwrap();
        let text = |row| {
            let mut out = Vec::new();
            column.write(row, &mut out);
            String::from_utf8(out).unwrap()
        };
        (0..array.len()).map(text).collect()
    }

    #[test]
    fn floats_are_as_postgres_has_them() {
        let values = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (100_000.0, "100000"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1.5e20, "1.5e+20"),
            (1e100, "1e+100"),
            (0.0001, "0.0001"),
            (0.000_012_3, "1.23e-05"),
            (1.5e-7, "1.5e-07"),
            (-12.5, "-12.5"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        let array = Float64Array::from_iter_values(values.map(|(value, _)| value));
        assert_eq!(written(Arc::new(array)), values.map(|(_, text)| text));
        let small = Float32Array::from(vec![123_456.0, 1_234_567.0, 0.1, 1e-5]);
        assert_eq!(written(Arc::new(small)), ["123456", "1.234567e+06", "0.1", "1e-05"]);
    }

    #[test]
    fn days_and_instants_are_as_postgres_has_them() {
        let days = Date32Array::from(vec![0, 19_782, -719_529, i32::MAX, i32::MIN, 2_932_897]);
        let expected =
            ["1970-01-01", "2024-02-29", "0002-12-31 BC", "infinity", "-infinity", "10000-01-01"];
        assert_eq!(written(Arc::new(days)), expected);
        let micros = vec![250_000, i64::MAX, -62_167_219_200_000_001, 0];
        let times = TimestampMicrosecondArray::from(micros).with_timezone("UTC");
        let expected = [
            "1970-01-01 00:00:00.25+00",
            "infinity",
            "0002-12-31 23:59:59.999999+00 BC",
            "1970-01-01 00:00:00+00",
        ];
        assert_eq!(written(Arc::new(times)), expected);
        let of_day = Time64MicrosecondArray::from(vec![0, 86_400_000_000, 1_500_000]);
        assert_eq!(written(Arc::new(of_day)), ["00:00:00", "24:00:00", "00:00:01.5"]);
    }
}
