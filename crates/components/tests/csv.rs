//! What the `csv` codec writes against PostgreSQL's own `COPY` and against a reader that knows nothing
//! of how it is written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::fs;
use std::sync::Arc;

use arrow_array::*;
use proptest::prelude::*;
use tempfile::tempdir;
use tidegate_components::codecs::encode::ENCODERS;
use tidegate_testkit::postgres::Postgres;

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
        .unwrap()
}

/// All rows, in steps of so many bytes.
fn encoded(rows: &RecordBatch, enough: usize) -> Vec<u8> {
    let csv = ENCODERS.iter().find(|(known, _)| *known == "csv").unwrap().1;
    let (mut all, mut from) = (Vec::new(), 0);
    while from < rows.num_rows() {
        let mut out = Vec::new();
        from = (csv.encode)(rows, from, &mut out, enough).unwrap();
        all.append(&mut out);
    }
    all
}

/// What PostgreSQL makes of a file when it reads it and writes it again, and of some queries then.
/// `columns` are names and types, a word each.
fn through_postgres(columns: &str, csv: &[u8], queries: &[&str]) -> (Vec<u8>, Vec<String>) {
    let server = Postgres::start();
    let folder = tempdir().unwrap();
    let (there, back) = (folder.path().join("there.csv"), folder.path().join("back.csv"));
    fs::write(&there, csv).unwrap();
    let mut psql = server.psql_command();
    psql.env("PGTZ", "UTC");
    let names = columns.split(' ').step_by(2).collect::<Vec<_>>().join(",");
    psql.args(["-c", &format!("CREATE TABLE rows (place bigserial, {columns})")]);
    psql.args(["-c", &format!("\\copy rows ({names}) from '{}' csv", there.display())]);
    let in_order = format!("SELECT {names} FROM rows ORDER BY place");
    psql.args(["-c", &format!("\\copy ({in_order}) to '{}' csv", back.display())]);
    let ended = psql.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    (fs::read(&back).unwrap(), queries.iter().map(|query| server.psql(query)).collect())
}

/// Fails with the first line that differs.
fn assert_same(ours: &[u8], theirs: &[u8]) {
    let lines = |bytes| String::from_utf8(Vec::from(bytes)).unwrap();
    let (ours, theirs) = (lines(ours), lines(theirs));
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

/// Floats of all sizes, those that are hard to write among them: where only the rule for ties tells
/// neighbours apart, powers of two, and few digits.
fn floats(random: &mut fastrand::Rng) -> f64 {
    match random.u8(0..5) {
        0 => f64::from_bits(random.u64(..)),
        1 => random.u32(..) as f64 / 1_000.0,
        2 => f64::exp2(random.i32(-1_074..1_024).into()),
        3 => format!("{}e{}", random.u64(1..100_000_000), random.i32(8..40)).parse().unwrap(),
        _ => {
            // Next to a number that is hard to write, or it.
            let hard = [1e23_f64, 8.5e22, 9_007_199_254_740_992.0, 1e15, 1e-4, 2.5e19];
            let bits = hard[random.usize(..hard.len())].to_bits();
            f64::from_bits(bits.wrapping_add_signed(random.i64(-3..4)))
        }
    }
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn numbers_are_as_postgres_writes_them() {
    let mut random = fastrand::Rng::with_seed(6);
    let doubles: Vec<f64> = (0..200_000).map(|_| floats(&mut random)).collect();
    let singles: Vec<f32> = (0..200_000)
        .map(|_| match random.bool() {
            true => f32::from_bits(random.u32(..)),
            false => random.i32(..1_000_000_000) as f32 * 10_f32.powi(random.i32(-3..20)),
        })
        .collect();
    let decimals = (0..200_000).map(|_| random.i128(..) >> random.u32(16..120));
    let decimals = Decimal128Array::from_iter_values(decimals);
    let csv = encoded(
        &batch([
            ("d", Arc::new(Float64Array::from(doubles))),
            ("s", Arc::new(Float32Array::from(singles))),
            ("n", Arc::new(decimals.with_precision_and_scale(38, 9).unwrap())),
        ]),
        usize::MAX,
    );
    let (back, _) = through_postgres("d float8, s float4, n numeric(38,9)", &csv, &[]);
    assert_same(&csv, &back);
}

/// The microseconds of the first and the last instant that PostgreSQL has.
const INSTANTS: std::ops::Range<i64> = -210_866_803_200_000_000..9_223_371_331_200_000_000;

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn times_are_as_postgres_writes_them() {
    let mut random = fastrand::Rng::with_seed(6);
    let mut micros: Vec<i64> = (0..100_000)
        .map(|_| match random.u8(0..4) {
            0 => random.i64(INSTANTS),
            1 => random.i64(INSTANTS) / 1_000_000 * 1_000_000,
            2 => random.i64(0..2_000_000_000) * 1_000_000 + 250_000,
            _ => random.i64(-70_000_000_000..0) * 1_000_000 + random.i64(0..1_000_000),
        })
        .collect();
    micros.extend([i64::MAX, i64::MIN, 0, -1, INSTANTS.start, INSTANTS.end - 1]);
    let days = micros.iter().map(|micros| match *micros {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        micros => micros.div_euclid(86_400_000_000) as i32,
    });
    let days = Date32Array::from_iter_values(days);
    let of_day = micros.iter().map(|micros| micros.rem_euclid(86_400_000_001));
    let of_day = Time64MicrosecondArray::from_iter_values(of_day);
    let instants = TimestampMicrosecondArray::from(micros.clone());
    let csv = encoded(
        &batch([
            ("n", Arc::new(Int64Array::from(micros))),
            ("t", Arc::new(instants.clone())),
            ("z", Arc::new(instants.with_timezone("UTC"))),
            ("d", Arc::new(days)),
            ("o", Arc::new(of_day)),
        ]),
        usize::MAX,
    );
    let columns = "n bigint, t timestamp, z timestamptz, d date, o time";
    // That it reads the same text back says nothing of what it means.
    let meant = "SELECT count(*) FILTER (WHERE extract(epoch FROM t) * 1000000 = n \
                 AND extract(epoch FROM z) * 1000000 = n), count(*) FROM rows WHERE isfinite(t)";
    let (back, found) = through_postgres(columns, &csv, &[meant]);
    assert_same(&csv, &back);
    assert_eq!(found, ["100004|100004"]);
}

/// Texts with what must be quoted, and what looks as if it had to be.
fn text() -> impl Strategy<Value = Option<String>> {
    let some = "\\PC{0,40}|[a-z,\"\r\n\\\\. ]{0,12}|\\\\\\.|NULL|";
    proptest::option::of(some.prop_map(|text| text.replace('\0', "")))
}

type Texts = Vec<Option<String>>;

fn texts_batch(columns: &[Texts]) -> RecordBatch {
    let names = ["a", "b", "c"];
    let arrays = columns.iter().map(|texts| Arc::new(StringArray::from(texts.clone())) as ArrayRef);
    let columns = names.iter().zip(arrays).map(|(name, array)| (*name, array, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn texts_are_quoted_as_postgres_quotes_them() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    for width in [1, 3] {
        let strategy = prop::collection::vec(prop::collection::vec(text(), 2_000), width);
        let columns = strategy.new_tree(&mut TestRunner::deterministic()).unwrap().current();
        let csv = encoded(&texts_batch(&columns), usize::MAX);
        let names = &["a text", "b text", "c text"][..width];
        let (back, found) =
            through_postgres(&names.join(", "), &csv, &["SELECT count(*) FROM rows"]);
        assert_eq!(found, ["2000"]);
        assert_same(&csv, &back);
    }
}

#[test]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
fn other_types_are_as_postgres_writes_them() {
    let bytes: Vec<Vec<u8>> = (0_u8..=255).map(|byte| vec![byte; usize::from(byte % 5)]).collect();
    let csv = encoded(
        &batch([
            (
                "b",
                Arc::new(
                    (0..256).map(|n| (n % 3 > 0).then_some(n % 2 == 0)).collect::<BooleanArray>(),
                ),
            ),
            ("x", Arc::new(BinaryArray::from_iter_values(&bytes))),
            ("i", Arc::new(Int16Array::from_iter((0..256).map(|n| (n > 3).then_some(n * 99))))),
            (
                "j",
                Arc::new(StringArray::from_iter_values((0..256).map(|n| format!("[{n}, \"x\"]")))),
            ),
        ]),
        usize::MAX,
    );
    let (back, _) = through_postgres("b bool, x bytea, i smallint, j json", &csv, &[]);
    assert_same(&csv, &back);
}

/// Rows as RFC 4180 has them, a byte at a time; what has no quotes and no length is no value.
fn read(csv: &str) -> Vec<Vec<Option<String>>> {
    let (mut rows, mut row, mut value) = (Vec::new(), Vec::new(), None::<String>);
    let (mut letters, mut is_open) = (csv.chars().peekable(), false);
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_open && letters.peek() == Some(&'"') => {
                letters.next();
                value.get_or_insert_default().push('"');
            }
            '"' => {
                is_open = !is_open;
                value.get_or_insert_default();
            }
            ',' if !is_open => row.push(value.take()),
            '\n' if !is_open => {
                row.push(value.take());
                rows.push(std::mem::take(&mut row));
            }
            letter => value.get_or_insert_default().push(letter),
        }
    }
    assert!(!is_open && row.is_empty(), "it ends in the middle of a row");
    rows
}

proptest! {
    #[test]
    fn a_reader_finds_the_same_texts_and_the_same_nulls(
        rows in prop::collection::vec([text(), text(), text()], 1..20),
        width in 1_usize..4,
        cut in any::<prop::sample::Index>(),
        enough in 1_usize..400,
    ) {
        let column = |index: usize| rows.iter().map(|row| row[index].clone()).collect::<Texts>();
        let columns: Vec<Texts> = (0..width).map(column).collect();
        let cut = cut.index(rows.len());
        let batch = texts_batch(&columns).slice(cut, rows.len() - cut);
        let csv = String::from_utf8(encoded(&batch, enough)).unwrap();
        let expected: Vec<_> = rows[cut..].iter().map(|row| row[..width].to_vec()).collect();
        prop_assert_eq!(read(&csv), expected);
    }
}
