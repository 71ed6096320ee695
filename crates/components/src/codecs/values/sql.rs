//! Values as Postgres writes them where that differs from what others read: what CSV has of them.

use std::fmt::LowerExp;
use std::str::FromStr;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Time64MicrosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_schema::{DataType, TimeUnit};

use super::{Write, per_second, time};

/// A float of 64 bits (`src/common/d2s.c`).
pub(super) fn double(value: f64, out: &mut Vec<u8>) {
    let plain = value == 0.0 || (1e-4..1e15).contains(&value.abs());
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    float(value, plain, Binary::new(exponent - 1_075, fraction, 1 << 52), out);
}

/// A float of 32 bits (`src/common/f2s.c`).
pub(super) fn single(value: f32, out: &mut Vec<u8>) {
    let plain = value == 0.0 || (1e-4..1e6).contains(&value.abs());
    let bits = u64::from(value.to_bits());
    let (exponent, fraction) = ((bits >> 23 & 0xff) as i32, bits & ((1 << 23) - 1));
    float(value, plain, Binary::new(exponent - 150, fraction, 1 << 23), out);
}

/// The shortest digits that read back as the same number; without an exponent where it is `plain`.
fn float<F>(value: F, plain: bool, binary: Binary, out: &mut Vec<u8>)
where
    F: zmij::Float + Into<f64> + Copy + PartialEq + LowerExp + FromStr,
{
    let double: f64 = value.into();
    if !double.is_finite() {
        let name: &[u8] = match double {
            f64::INFINITY => b"Infinity",
            f64::NEG_INFINITY => b"-Infinity",
            _ => b"NaN",
        };
        return out.extend_from_slice(name);
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    if plain {
        return out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    }
    let mut decimal = Decimal::read(text);
    if decimal.is_midpoint(&binary) {
        // Postgres leaves out what only the rule for ties makes the same number, as 1e23 is of its
        // lower neighbour: the next digits are then the shortest.
        let longer = (decimal.length()..17).map(|digits| format!("{value:.digits$e}"));
        let exact = longer.filter(|text| text.parse().is_ok_and(|read: F| read == value));
        let mut exact = exact.map(|text| Decimal::read(&text));
        decimal = exact.find(|found| !found.is_midpoint(&binary)).unwrap_or(decimal);
    }
    if double < 0.0 {
        out.push(b'-');
    }
    decimal.write(out);
}

/// A binary float's absolute value: an integer times a power of two.
struct Binary {
    mantissa: u64,
    exponent: i32,
    // Its lower neighbour is half as far as the upper one.
    is_power: bool,
}

impl Binary {
    /// `exponent` is that of the last bit; numbers below the normal ones are nobody's midpoint.
    fn new(exponent: i32, fraction: u64, implied: u64) -> Self {
        Self { mantissa: implied | fraction, exponent, is_power: fraction == 0 }
    }
}

/// A number in decimal: digits that don't end in a zero, times a power of ten.
struct Decimal {
    digits: u64,
    exponent: i32,
}

impl Decimal {
    /// Of a text such as `-12.5`, `1e+20`, `1.50e-7`.
    fn read(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let mut exponent: i32 = exponent.parse().unwrap_or_default();
        let (mut digits, mut behind_point) = (0_u64, false);
        for byte in mantissa.bytes() {
            match byte {
                b'0'..=b'9' => {
                    digits = digits * 10 + u64::from(byte - b'0');
                    exponent -= i32::from(behind_point);
                }
                b'.' => behind_point = true,
                _ => {}
            }
        }
        while digits != 0 && digits.is_multiple_of(10) {
            digits /= 10;
            exponent += 1;
        }
        Self { digits, exponent }
    }

    fn length(&self) -> usize {
        self.digits.checked_ilog10().map_or(1, |log| log as usize + 1)
    }

    /// Whether it is as far from a float as from its neighbour. That takes so many digits that only
    /// large ones are: `digits` times 5 to the power of `exponent` must fit the float's one bit more.
    fn is_midpoint(&self, of: &Binary) -> bool {
        let (Ok(tens @ 1..=27), twos) = (u32::try_from(self.exponent), of.exponent - self.exponent)
        else {
            return false;
        };
        if !(1..=70).contains(&twos) {
            return false;
        }
        // Both without the powers of two that they have in common.
        let decimal = u128::from(self.digits) * 5_u128.pow(tens);
        let binary = u128::from(of.mantissa) << twos;
        let half = 1_u128 << (twos - 1);
        let below = binary.checked_sub(decimal);
        decimal.checked_sub(binary) == Some(half)
            || below == Some(half)
            || (of.is_power && below.is_some_and(|below| below * 2 == half))
    }

    /// `1.5e-07`: a digit before the point, and at least two in the exponent.
    fn write(&self, out: &mut Vec<u8>) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(self.digits).as_bytes();
        let exponent = self.exponent + digits.len() as i32 - 1;
        let (first, rest) = digits.split_at(1);
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        let size = exponent.unsigned_abs();
        if size < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
    }
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

    use proptest::prelude::*;

    use super::super::{Column, Style};
    use super::*;

    fn said(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

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

    /// As PostgreSQL 18 says them.
    #[test]
    fn a_tie_is_not_left_to_the_reader() {
        for (value, text) in [(1e23, "9.999999999999999e+22"), (9.5e22, "9.5e+22")] {
            assert_eq!(said(|out| double(value, out)), text);
        }
    }

    proptest! {
        #[test]
        fn a_float_reads_back_as_the_same(bits in any::<u64>(), large in 1e15_f64..1e40) {
            for value in [f64::from_bits(bits), large] {
                let text = said(|out| double(value, out));
                let read: f64 = text.parse().unwrap();
                prop_assert!(read == value || value.is_nan(), "{value:e} as {text}");
            }
            let value = f32::from_bits(bits as u32);
            let text = said(|out| single(value, out));
            let read: f32 = text.parse().unwrap();
            prop_assert!(read == value || value.is_nan(), "{value:e} as {text}");
        }
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
