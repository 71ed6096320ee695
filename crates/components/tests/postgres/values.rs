//! Values of every type arrive as they were, in binary and as text.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    DurationMicrosecondArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, RecordBatch, StringArray,
    StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    UInt32Array,
};
use arrow_buffer::IntervalMonthDayNano;
use tidegate_testkit::postgres::{Postgres, Version};

use crate::support::{Memory, end, open};

/// Name, the table's type, three values of which the last is null, and how the server writes the
/// first two.
struct Case(&'static str, &'static str, ArrayRef, [&'static str; 2]);

#[allow(clippy::too_many_lines, reason = "it is a table")]
fn cases() -> Vec<Case> {
    let texts = |texts: [&str; 2]| -> ArrayRef {
        Arc::new(StringArray::from(vec![Some(texts[0]), Some(texts[1]), None]))
    };
    let decimals = Decimal128Array::from(vec![Some(-1_234_567), Some(10_000_000), None]);
    let instants = || vec![Some(951_827_696_250_000), Some(-62_167_219_200_000_001), None];
    let words: DictionaryArray<Int32Type> =
        vec![Some("happy"), Some("sad"), None].into_iter().collect();
    let sixteen = FixedSizeBinaryArray::try_from_sparse_iter_with_size(
        [Some([0xab; 16]), Some([1; 16]), None].into_iter(),
        16,
    );
    let lengths = IntervalMonthDayNanoArray::from(vec![
        Some(IntervalMonthDayNano::new(14, -3, 3_600_000_000_000)),
        Some(IntervalMonthDayNano::new(0, 0, -1_000)),
        None,
    ]);
    let lists = vec![Some(vec![Some(1), None]), Some(vec![]), None];
    vec![
        Case(
            "bool",
            "boolean",
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
            ["t", "f"],
        ),
        Case(
            "int2",
            "smallint",
            Arc::new(Int64Array::from(vec![Some(-32_768), Some(7), None])),
            ["-32768", "7"],
        ),
        Case(
            "int4",
            "integer",
            Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), None])),
            ["-2147483648", "2147483647"],
        ),
        Case(
            "int8",
            "bigint",
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])),
            ["-9223372036854775808", "9223372036854775807"],
        ),
        Case(
            "oid",
            "oid",
            Arc::new(UInt32Array::from(vec![Some(u32::MAX), Some(0), None])),
            ["4294967295", "0"],
        ),
        Case(
            "float4",
            "real",
            Arc::new(Float32Array::from(vec![Some(0.1), Some(f32::INFINITY), None])),
            ["0.1", "Infinity"],
        ),
        Case(
            "float8",
            "double precision",
            Arc::new(Float64Array::from(vec![Some(1e-300), Some(f64::NAN), None])),
            ["1e-300", "NaN"],
        ),
        Case(
            "num",
            "numeric(12,3)",
            Arc::new(decimals.with_precision_and_scale(12, 3).unwrap()),
            ["-1234.567", "10000.000"],
        ),
        Case(
            "any_num",
            "numeric",
            texts(["-0.000000000000000000000000000001", "123456789012345678901234567890.5"]),
            ["-0.000000000000000000000000000001", "123456789012345678901234567890.5"],
        ),
        Case(
            "int_num",
            "numeric",
            Arc::new(Int16Array::from(vec![Some(10_000), Some(-1), None])),
            ["10000", "-1"],
        ),
        Case(
            "txt",
            "text",
            Arc::new(StringViewArray::from(vec![
                Some("tab\tback\\slash\nnew\rline"),
                Some("größer als zwölf Bytes"),
                None,
            ])),
            ["tab\tback\\slash\nnew\rline", "größer als zwölf Bytes"],
        ),
        Case(
            "num_txt",
            "text",
            Arc::new(Int64Array::from(vec![Some(-12), Some(0), None])),
            ["-12", "0"],
        ),
        Case("vc", "varchar(9)", texts(["", "\\N"]), ["", "\\N"]),
        Case(
            "js",
            "json",
            texts(["{\"a\": [1, \"\\u00e9\"]}", "null"]),
            ["{\"a\": [1, \"\\u00e9\"]}", "null"],
        ),
        Case(
            "jb",
            "jsonb",
            texts(["{\"b\":1, \"a\":\"\\t\"}", "[]"]),
            ["{\"a\": \"\\t\", \"b\": 1}", "[]"],
        ),
        Case(
            "list",
            "jsonb",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
            ["[1, null]", "[]"],
        ),
        Case(
            "ba",
            "bytea",
            Arc::new(BinaryArray::from(vec![Some(&b"\0\xff\\"[..]), Some(b""), None])),
            ["\\x00ff5c", "\\x"],
        ),
        Case(
            "u",
            "uuid",
            texts(["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}"]),
            ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
        ),
        Case(
            "u16",
            "uuid",
            Arc::new(sixteen.unwrap()),
            ["abababab-abab-abab-abab-abababababab", "01010101-0101-0101-0101-010101010101"],
        ),
        Case(
            "d",
            "date",
            Arc::new(Date32Array::from(vec![Some(-719_529), Some(i32::MAX), None])),
            ["0002-12-31 BC", "infinity"],
        ),
        Case(
            "d2",
            "date",
            Arc::new(Date32Array::from(vec![Some(2_932_897), Some(-2_440_588), None])),
            ["10000-01-01", "4714-11-24 BC"],
        ),
        Case(
            "tm",
            "time",
            Arc::new(Time64MicrosecondArray::from(vec![Some(86_400_000_000), Some(1), None])),
            ["24:00:00", "00:00:00.000001"],
        ),
        Case(
            "ts",
            "timestamp",
            Arc::new(TimestampMicrosecondArray::from(instants())),
            ["2000-02-29 12:34:56.25", "0002-12-31 23:59:59.999999 BC"],
        ),
        Case(
            "tz",
            "timestamptz",
            Arc::new(TimestampMicrosecondArray::from(instants()).with_timezone("UTC")),
            ["2000-02-29 12:34:56.25+00", "0002-12-31 23:59:59.999999+00 BC"],
        ),
        Case(
            "tz2",
            "timestamptz",
            Arc::new(TimestampMicrosecondArray::from(vec![Some(i64::MAX), Some(i64::MIN), None])),
            ["infinity", "-infinity"],
        ),
        Case(
            "ns",
            "timestamp",
            Arc::new(TimestampNanosecondArray::from(vec![Some(-1), Some(1_999), None])),
            ["1969-12-31 23:59:59.999999", "1970-01-01 00:00:00.000001"],
        ),
        Case(
            "iv",
            "interval",
            Arc::new(lengths),
            ["1 year 2 mons -3 days +01:00:00", "-00:00:00.000001"],
        ),
        Case(
            "iv2",
            "interval",
            Arc::new(DurationMicrosecondArray::from(vec![
                Some(90_500_000),
                Some(-9_000_000_000_000_000_000),
                None,
            ])),
            ["00:01:30.5", "-2500000000:00:00"],
        ),
        Case("e", "mood", Arc::new(words), ["happy", "sad"]),
        Case("dom", "small", Arc::new(Int64Array::from(vec![Some(1), Some(2), None])), ["1", "2"]),
        Case("dom2", "smaller", texts(["x", "y"]), ["x", "y"]),
        Case("ch", "char(3)", texts(["ab", "abc"]), ["ab ", "abc"]),
        Case("nm", "name", texts(["ab", "abc"]), ["ab", "abc"]),
    ]
}

/// Types whose binary form is not known here: one of them makes the whole table go as text.
fn texts_only() -> Vec<Case> {
    let texts = |texts: [&str; 2]| -> ArrayRef {
        Arc::new(StringArray::from(vec![Some(texts[0]), Some(texts[1]), None]))
    };
    vec![
        Case("ip", "inet", texts(["10.0.0.0/8", "::1"]), ["10.0.0.0/8", "::1"]),
        Case(
            "arr",
            "text[]",
            texts(["{a,\"b\\\"\\\\\",NULL}", "{}"]),
            ["{a,\"b\\\"\\\\\",NULL}", "{}"],
        ),
        Case("rng", "int4range", texts(["[1,5)", "empty"]), ["[1,5)", "empty"]),
        Case("len", "interval", texts(["1 day", "-01:00"]), ["1 day", "-01:00:00"]),
        Case("ttz", "timetz", texts(["12:00+02", "00:00Z"]), ["12:00:00+02", "00:00:00+00"]),
        Case("pt", "point", texts(["(1,2)", "0,0"]), ["(1,2)", "(0,0)"]),
        Case(
            "txt_tz",
            "timestamptz",
            texts(["2024-02-29 12:00+01", "infinity"]),
            ["2024-02-29 11:00:00+00", "infinity"],
        ),
    ]
}

async fn check(server: &Postgres, cases: &[Case]) {
    let columns = cases.iter().map(|Case(name, kind, ..)| format!("{name} {kind}"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    server.psql(&format!("DROP TABLE IF EXISTS v; CREATE TABLE v ({columns})"));
    let arrays = cases.iter().map(|Case(name, _, array, _)| (*name, Arc::clone(array), true));
    let batch = RecordBatch::try_from_iter_with_nullable(arrays).unwrap();
    let records = Arc::new(Memory::default());
    let (mut sink, _) =
        open(&server.url(), "table = 'v'", &batch.schema(), &records).await.unwrap();
    let written = sink.write(&batch).await.unwrap();
    assert_eq!(written.rejected, []);
    sink.commit(&[end(3)]).await.unwrap();
    server.psql("SET TIME ZONE 'UTC'; ALTER ROLE postgres SET TimeZone = 'UTC'");
    let found = server.rows("SELECT * FROM v");
    for (index, Case(name, _, _, expected)) in cases.iter().enumerate() {
        let column: Vec<_> = found.iter().map(|row| row[index].as_deref()).collect();
        assert_eq!(column, [Some(expected[0]), Some(expected[1]), None], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn values_of_every_type_arrive_as_they_were() {
    for version in Version::all() {
        let server = Postgres::of(version).start();
        server.psql(
            "CREATE TYPE mood AS ENUM ('happy', 'sad'); CREATE DOMAIN small AS smallint;
             CREATE DOMAIN part AS text; CREATE DOMAIN smaller AS part CHECK (length(value) < 2);",
        );
        let mut all = cases();
        check(&server, &all).await;
        all.extend(texts_only());
        check(&server, &all).await;
    }
}
