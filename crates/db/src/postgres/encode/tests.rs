//! What is written is what a plain decoder reads.

use std::sync::Arc;

use arrow_array::types::{Int32Type, IntervalMonthDayNano, UInt8Type};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    DictionaryArray, DurationSecondArray, FixedSizeBinaryArray, Float32Array, Float64Array,
    Int8Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, NullArray, StringArray,
    StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt64Array,
};
use arrow_buffer::i256;
use proptest::prelude::*;

use super::*;

/// All rows of one column for a column of the table; what can't be taken is the reason why.
fn encoded(array: ArrayRef, form: Form) -> (Format, Vec<Result<Vec<u8>, String>>) {
    let batch = RecordBatch::try_from_iter([("c", array)]).unwrap();
    let column = Column { name: "c".into(), type_name: "type".into(), form };
    let encoder = Encoder::new(&batch.schema(), vec![column]).unwrap();
    let rows = encoder.rows(&batch).unwrap();
    let row = |row| {
        let mut out = b"kept".to_vec();
        let written = rows.write(row, &mut out);
        assert!(out.starts_with(b"kept") && (written.is_ok() || out == b"kept"));
        written.map(|()| out[4..].to_vec())
    };
    (encoder.format(), (0..batch.num_rows()).map(row).collect())
}

/// As [`encoded`], in binary: each value's own bytes, or none where it is null.
fn binary(array: impl Array + 'static, form: Form) -> Vec<Result<Option<Vec<u8>>, String>> {
    let (format, rows) = encoded(Arc::new(array), form);
    assert_eq!(format, Format::Binary);
    let value = |row: Vec<u8>| {
        assert_eq!(row[..2], [0, 1]);
        let length = i32::from_be_bytes(row[2..6].try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap_or(0), row.len() - 6);
        (length >= 0).then(|| row[6..].to_vec())
    };
    rows.into_iter().map(|row| row.map(value)).collect()
}

fn values(array: impl Array + 'static, form: Form) -> Vec<Vec<u8>> {
    binary(array, form).into_iter().map(|value| value.unwrap().unwrap()).collect()
}

fn reasons(array: impl Array + 'static, form: Form) -> Vec<String> {
    binary(array, form).into_iter().filter_map(Result::err).collect()
}

/// Rows in text, as the server would split them.
fn lines(array: impl Array + 'static, form: Form) -> Vec<String> {
    let batch = RecordBatch::try_from_iter([("c", Arc::new(array) as ArrayRef)]).unwrap();
    let write = text::writer(batch.column(0), form).unwrap();
    let line = |row| {
        let mut out = Vec::new();
        write(row, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    (0..batch.num_rows()).map(line).collect()
}

/// What a server makes of a `numeric`: written by the manual of its type, and not by our code.
fn numeric_text(bytes: &[u8]) -> String {
    let word = |at: usize| i64::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let (count, weight, sign, decimals) = (word(0), word(2) as i16, word(4), word(6) as usize);
    match sign {
        0xc000 => return "NaN".into(),
        0xd000 => return "Infinity".into(),
        0xf000 => return "-Infinity".into(),
        _ => assert!(sign == 0 || sign == 0x4000),
    }
    let digit = |place: i64| match i64::from(weight) - place {
        at if (0..count).contains(&at) => word(8 + 2 * at as usize),
        _ => 0,
    };
    assert!(count == 0 || (digit(weight.into()) != 0 && word(6 + 2 * count as usize) != 0));
    let whole: String =
        (0..=i64::from(weight)).rev().map(|place| format!("{:04}", digit(place))).collect();
    let fraction: String =
        (1..=decimals as i64 / 4 + 1).map(|place| format!("{:04}", digit(-place))).collect();
    // What stands behind the decimals that are shown would be lost.
    assert!(fraction[decimals..].bytes().all(|decimal| decimal == b'0'));
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let sign = if sign == 0 { "" } else { "-" };
    let point = if decimals == 0 { "" } else { "." };
    format!("{sign}{whole}{point}{}", &fraction[..decimals])
}

fn numerics(array: impl Array + 'static) -> Vec<String> {
    values(array, Form::Numeric).iter().map(|bytes| numeric_text(bytes)).collect()
}

#[test]
fn integers_go_where_they_fit() {
    let wide = || Int64Array::from(vec![-32_768, 32_767, 32_768, 1 << 31, i64::MIN]);
    assert_eq!(
        binary(wide(), Form::Int2)[..2],
        [
            Ok(Some((-32_768_i16).to_be_bytes().to_vec())),
            Ok(Some(32_767_i16.to_be_bytes().to_vec()))
        ]
    );
    assert_eq!(
        reasons(wide(), Form::Int2),
        [
            "c type: 32768 is out of its range",
            "c type: 2147483648 is out of its range",
            "c type: -9223372036854775808 is out of its range"
        ]
    );
    assert_eq!(reasons(wide(), Form::Int4).len(), 2);
    assert_eq!(reasons(wide(), Form::Int8).len(), 0);
    assert_eq!(reasons(wide(), Form::Oid).len(), 2);
    assert_eq!(reasons(UInt64Array::from(vec![u64::MAX]), Form::Int8).len(), 1);
    assert_eq!(values(Int8Array::from(vec![-1]), Form::Int8), [(-1_i64).to_be_bytes()]);
    assert_eq!(numerics(UInt64Array::from(vec![u64::MAX, 0])), ["18446744073709551615", "0"]);
    assert_eq!(values(Int32Array::from(vec![-7]), Form::Text), [b"-7"]);
}

#[test]
fn floats_take_integers_that_they_hold_exactly() {
    let numbers = || Int64Array::from(vec![1 << 24, (1 << 24) + 1, (1 << 53) + 1]);
    assert_eq!(reasons(numbers(), Form::Float4).len(), 2);
    assert_eq!(reasons(numbers(), Form::Float8).len(), 1);
    let floats = || Float64Array::from(vec![0.1, f64::NAN, f64::INFINITY, 1e300, -0.0]);
    assert_eq!(values(floats(), Form::Float8)[0], 0.1_f64.to_be_bytes());
    assert_eq!(reasons(floats(), Form::Float4).len(), 1);
    assert_eq!(
        values(Float32Array::from(vec![0.1]), Form::Float8),
        [f64::from(0.1_f32).to_be_bytes()]
    );
    assert_eq!(values(Float32Array::from(vec![0.1]), Form::Text), [b"0.1"]);
    let written = numerics(floats());
    assert_eq!(
        (&*written[0], &*written[1], &*written[2], &*written[4]),
        ("0.1", "NaN", "Infinity", "0.0")
    );
}

#[test]
fn decimals_keep_their_digits() {
    for (value, scale, text) in [
        (0, 0, "0"),
        (0, 3, "0.000"),
        (1, 0, "1"),
        (-1, 2, "-0.01"),
        (10_000, 0, "10000"),
        (10_000, 4, "1.0000"),
        (123_456_789, 2, "1234567.89"),
        (123_456_789, 5, "1234.56789"),
        (-5, -3, "-5000"),
        (12, -4, "120000"),
        (i128::MAX, 0, "170141183460469231731687303715884105727"),
        (i128::MAX, 37, "17.0141183460469231731687303715884105727"),
        (i128::MIN + 1, 1, "-17014118346046923173168730371588410572.7"),
    ] {
        let array = Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale);
        assert_eq!(numerics(array.unwrap()), [text]);
    }
    let wide = Decimal256Array::from(vec![i256::MAX]).with_precision_and_scale(76, 10).unwrap();
    let text = "5789604461865809771178549250434395392663499233282028201972879200395.6564819967";
    assert_eq!(numerics(wide), [text]);
}

#[test]
fn texts_become_numbers_with_the_digits_they_have() {
    for (said, text) in [
        ("1", "1"),
        ("-001.50", "-1.50"),
        (" 12345678.000012 ", "12345678.000012"),
        ("1e3", "1000"),
        ("1.25E-7", "0.000000125"),
        ("123e-2", "1.23"),
        (".5", "0.5"),
        ("5.", "5"),
        ("+7", "7"),
        ("-0.00", "0.00"),
        ("nan", "NaN"),
        ("-Infinity", "-Infinity"),
        ("inf", "Infinity"),
    ] {
        assert_eq!(numerics(StringArray::from(vec![said])), [text], "{said}");
    }
    for said in
        ["", ".", "-", "1.2.3", "0x10", "1e", "1e99999999999", "--1", "1 2", "e5", "1e-20000"]
    {
        let reasons = reasons(StringArray::from(vec![said]), Form::Numeric);
        assert_eq!(reasons, [format!("c type: {said:?} is no number for it")]);
    }
    let long = format!("{}.{}", "7".repeat(100_000), "3".repeat(16_000));
    assert_eq!(numerics(StringArray::from(vec![&*long])), [&*long]);
    assert_eq!(reasons(StringArray::from(vec!["9".repeat(300_000)]), Form::Numeric).len(), 1);
}

#[test]
fn texts_are_any_but_those_with_a_nul() {
    let texts = || StringViewArray::from(vec![Some("plain"), None, Some("a\0b"), Some("größer")]);
    let written = binary(texts(), Form::Text);
    assert_eq!(written[0], Ok(Some(b"plain".to_vec())));
    assert_eq!(written[1], Ok(None));
    let reason = "c type: \"a\\0b\" has a NUL, which text of Postgres can't have";
    assert_eq!(written[2], Err(reason.to_owned()));
    assert_eq!(binary(texts(), Form::Jsonb)[0], Ok(Some(b"\x01plain".to_vec())));
    let entries: DictionaryArray<UInt8Type> =
        vec![Some("b"), None, Some("a"), Some("b")].into_iter().collect();
    let written: Vec<_> = binary(entries, Form::Text).into_iter().map(Result::unwrap).collect();
    assert_eq!(written, [Some(b"b".to_vec()), None, Some(b"a".to_vec()), Some(b"b".to_vec())]);
    let none = DictionaryArray::<Int32Type>::from_iter([None::<&str>]);
    assert_eq!(binary(none, Form::Text), [Ok(None)]);
    assert_eq!(binary(NullArray::new(1), Form::Int4), [Ok(None)]);
    assert_eq!(binary(NullArray::new(1), Form::Unknown), [Ok(None)]);
}

#[test]
fn uuids_are_read_as_postgres_reads_them() {
    let bytes: Vec<u8> = (0..16).collect();
    for text in [
        "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "000102030405060708090A0B0C0D0E0F",
        "{0001-0203-0405-0607-0809-0a0b-0c0d-0e0f}",
    ] {
        assert_eq!(values(StringArray::from(vec![text]), Form::Uuid), [&*bytes], "{text}");
    }
    let sixteen = FixedSizeBinaryArray::try_from_iter([&*bytes].into_iter()).unwrap();
    assert_eq!(values(sixteen, Form::Uuid), [&*bytes]);
    for text in [
        "",
        "0001",
        "{000102030405060708090a0b0c0d0e0f",
        "-000102030405060708090a0b0c0d0e0f",
        "000102030405060708090a0b0c0d0e0f00",
        "000102030405060708090a0b0c0d0e0g",
        "0-00102030405060708090a0b0c0d0e0f",
    ] {
        assert_eq!(reasons(StringArray::from(vec![text]), Form::Uuid).len(), 1, "{text}");
    }
}

#[test]
fn time_begins_in_2000_and_may_be_endless() {
    let days = Date32Array::from(vec![
        10_957,
        0,
        i32::MAX,
        i32::MIN,
        i32::MAX - 1,
        -2_440_588,
        -2_440_589,
    ]);
    let written = binary(days, Form::Date);
    let day = |days: i32| Ok(Some(days.to_be_bytes().to_vec()));
    assert_eq!(written[..4], [day(0), day(-10_957), day(i32::MAX), day(i32::MIN)]);
    assert_eq!(
        (&written[5], &written[6]),
        (&day(-2_451_545), &Err("c type: -2440589 days after 1970 are no date of Postgres".into()))
    );
    assert!(written[4].is_err());
    let micros = 946_684_800_000_000;
    let instants = TimestampMicrosecondArray::from(vec![
        micros,
        i64::MAX,
        i64::MIN,
        i64::MAX - 1,
        i64::MIN + 1,
    ]);
    let written = binary(instants, Form::Timestamp);
    let instant = |micros: i64| Ok(Some(micros.to_be_bytes().to_vec()));
    assert_eq!(written[..3], [instant(0), instant(i64::MAX), instant(i64::MIN)]);
    assert!(written[3].is_ok() && written[4].is_err());
    let nanos = TimestampNanosecondArray::from(vec![micros * 1_000 - 1]).with_timezone("UTC");
    assert_eq!(values(nanos, Form::Timestamp), [(-1_i64).to_be_bytes()]);
    assert_eq!(reasons(TimestampSecondArray::from(vec![i64::MAX]), Form::Timestamp).len(), 1);
    let times = Time64MicrosecondArray::from(vec![0, 86_400_000_000, -1]);
    assert_eq!(reasons(times, Form::Time), ["c type: -1 µs are no time of a day"]);
    let lengths = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, -2, 3_999)]);
    let mut expected = 3_i64.to_be_bytes().to_vec();
    expected.extend([(-2_i32).to_be_bytes(), 1_i32.to_be_bytes()].concat());
    assert_eq!(values(lengths, Form::Interval), [expected]);
    assert_eq!(reasons(DurationSecondArray::from(vec![i64::MAX]), Form::Interval).len(), 1);
}

#[test]
fn a_column_of_unknown_form_makes_all_of_it_text() {
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef),
        ("net", Arc::new(StringArray::from(vec![Some("10.0.0.0/8"), None]))),
        ("note", Arc::new(StringArray::from(vec!["a\tb\\c\nd\re", "\\."]))),
    ])
    .unwrap();
    let column = |name: &str, form| Column { name: name.into(), type_name: "t".into(), form };
    let columns =
        vec![column("id", Form::Int4), column("net", Form::Unknown), column("note", Form::Text)];
    let encoder = Encoder::new(&batch.schema(), columns).unwrap();
    assert_eq!(encoder.format(), Format::Text);
    let rows = encoder.rows(&batch).unwrap();
    let mut out = Vec::new();
    (0..2).for_each(|row| rows.write(row, &mut out).unwrap());
    assert_eq!(out, b"1\t10.0.0.0/8\ta\\tb\\\\c\\nd\\re\n\\N\t\\N\t\\\\.\n");
}

#[test]
fn text_of_other_types_is_what_postgres_reads() {
    assert_eq!(lines(BooleanArray::from(vec![true, false]), Form::Bool), ["true", "false"]);
    assert_eq!(lines(BinaryArray::from(vec![&b"\x00\xff"[..]]), Form::Bytea), ["\\\\x00ff"]);
    let sixteen = FixedSizeBinaryArray::try_from_iter([[7_u8; 16]].into_iter()).unwrap();
    assert_eq!(lines(sixteen, Form::Uuid), ["07070707070707070707070707070707"]);
    assert_eq!(
        lines(Date32Array::from(vec![10_957, i32::MIN]), Form::Date),
        ["J2451545", "-infinity"]
    );
    let instant = TimestampMicrosecondArray::from(vec![946_684_799_999_999, i64::MAX]);
    assert_eq!(lines(instant, Form::Timestamp), ["J2451544 23:59:59.999999+00", "infinity"]);
    assert_eq!(
        lines(Time64MicrosecondArray::from(vec![86_400_000_000]), Form::Time),
        ["24:00:00.000000"]
    );
    let decimal = Decimal128Array::from(vec![-5]).with_precision_and_scale(9, 2).unwrap();
    assert_eq!(lines(decimal, Form::Numeric), ["-0.05"]);
    let length = DurationSecondArray::from(vec![-3_661]);
    assert_eq!(lines(length, Form::Interval), ["P0M0DT-1H-1M-1.000000S"]);
}

#[test]
fn what_can_not_be_taken_is_refused_with_the_column_and_a_remedy() {
    let batch =
        RecordBatch::try_from_iter([("age", Arc::new(Float64Array::from(vec![1.5])) as ArrayRef)])
            .unwrap();
    let column = Column { name: "age".into(), type_name: "integer".into(), form: Form::Int4 };
    let error = Encoder::new(&batch.schema(), vec![column]).unwrap_err();
    let said = "the column `age` of type integer can't take Float64: convert it in SQL with \
                CAST(age AS …), or change the table's column";
    assert_eq!(error.to_string(), said);
    assert!(Encoder::new(&batch.schema(), Vec::new()).is_err());
}

proptest! {
    #[test]
    fn any_decimal_keeps_its_digits(value in any::<i128>(), shift in 0_u32..127, scale in -38_i8..=38) {
        let value = value >> shift;
        let array = Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale.max(0));
        let written = numerics(array.unwrap());
        let expected = numerics(StringArray::from(vec![format!("{value}e{}", -scale.max(0))]));
        prop_assert_eq!(&written, &expected);
        let mut out = Vec::new();
        numeric::write_unscaled(value < 0, value.unsigned_abs(), scale, &mut out);
        let plain = numeric_text(&out[4..]).replace('.', "");
        let digits = format!("{value}{}", "0".repeat(usize::try_from(-scale).unwrap_or(0)));
        let bare = |text: &str| text.trim_start_matches('-').trim_start_matches('0').to_owned();
        prop_assert_eq!(bare(&plain), bare(&digits));
    }

    #[test]
    fn any_number_as_text_keeps_its_digits(whole in "[0-9]{0,30}", fraction in "[0-9]{1,30}") {
        let said = format!("{whole}.{fraction}");
        let expected = match whole.trim_start_matches('0') {
            "" => format!("0.{fraction}"),
            whole => format!("{whole}.{fraction}"),
        };
        prop_assert_eq!(numerics(StringArray::from(vec![said])), [expected]);
    }

    #[test]
    fn any_text_is_escaped_so_that_it_comes_back(text in "[^\0]*") {
        let line = &lines(StringArray::from(vec![&*text]), Form::Text)[0];
        prop_assert!(!line.contains(['\t', '\n', '\r']));
        let mut letters = line.chars();
        let mut back = String::new();
        while let Some(letter) = letters.next() {
            back.push(match letter {
                '\\' => match letters.next().unwrap() {
                    't' => '\t',
                    'n' => '\n',
                    'r' => '\r',
                    other => other,
                },
                other => other,
            });
        }
        prop_assert_eq!(back, text);
    }

    #[test]
    fn rows_of_many_columns_are_their_values_in_order(
        rows in prop::collection::vec((any::<Option<i64>>(), any::<Option<bool>>(), "[^\0]{0,9}"), 1..20),
    ) {
        let batch = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))) as ArrayRef),
            ("b", Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.1)))),
            ("c", Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| &row.2)))),
        ]).unwrap();
        let column = |form| Column { name: String::new(), type_name: String::new(), form };
        let columns = [Form::Int8, Form::Bool, Form::Text].map(column).to_vec();
        let encoder = Encoder::new(&batch.schema(), columns).unwrap();
        let (ready, mut out, mut expected) = (encoder.rows(&batch).unwrap(), Vec::new(), Vec::new());
        for (index, (number, truth, text)) in rows.iter().enumerate() {
            ready.write(index, &mut out).unwrap();
            let values = [
                number.map(|number| number.to_be_bytes().to_vec()),
                truth.map(|truth| vec![u8::from(truth)]),
                Some(text.as_bytes().to_vec()),
            ];
            expected.extend(3_i16.to_be_bytes());
            for value in values {
                let length = value.as_ref().map_or(-1, |value| value.len() as i32);
                expected.extend(length.to_be_bytes());
                expected.extend(value.unwrap_or_default());
            }
        }
        prop_assert_eq!(out, expected);
    }
}
