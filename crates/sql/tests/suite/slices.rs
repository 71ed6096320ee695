//! The same whatever the slices.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

type Row = (Option<i64>, Option<i64>, Option<String>, bool);

fn batch(rows: &[Row]) -> RecordBatch {
    let metadata = log_schema().field_with_name("metadata").unwrap().clone();
    let schema = Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Int64, true),
        Field::new("word", DataType::Utf8, true),
        Field::new("message", DataType::Utf8View, true),
        Field::new("yes", DataType::Boolean, false),
        metadata,
    ]);
    let words = || rows.iter().map(|row| row.2.as_deref());
    let a: Int64Array = rows.iter().map(|row| row.0).collect();
    let b: Int64Array = rows.iter().map(|row| row.1).collect();
    let yes: arrow_array::BooleanArray = rows.iter().map(|row| Some(row.3)).collect();
    let nulls = arrow_array::new_null_array(schema.field(5).data_type(), rows.len());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(a),
        Arc::new(b),
        Arc::new(words().collect::<StringArray>()),
        Arc::new(words().collect::<StringViewArray>()),
        Arc::new(yes),
        nulls,
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

const QUERIES: [&str; 8] = [
    "SELECT * FROM input",
    "SELECT message, a FROM input WHERE message LIKE '%a%' AND a > 0",
    "SELECT 10 / a AS d, word FROM input WHERE yes OR a / b > 1",
    "SELECT CAST(word AS INT) AS n, a + b AS s FROM input WHERE a IS NOT NULL",
    "SELECT repeat(word, a) AS r FROM input WHERE NOT yes",
    "SELECT metadata_set(metadata, word, a) AS metadata, now() AS n FROM input",
    "SELECT regexp_replace(message, '(.)(.)', '\\2\\1') AS r, a % b AS m FROM input WHERE b <> 7",
    "SELECT CASE WHEN yes THEN 1 / a ELSE CAST(word AS INT) END AS c FROM input",
];

/// A number made of columns, in a way that may fail.
fn number() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("CAST(word AS BIGINT)".to_owned()),
        (-3_i64..4).prop_map(|number| number.to_string()),
    ];
    leaf.prop_recursive(3, 24, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        let op = prop_oneof![Just("+"), Just("-"), Just("*"), Just("/"), Just("%")];
        prop_oneof![
            (two.clone(), op).prop_map(|((l, r), op)| format!("({l} {op} {r})")),
            two.clone().prop_map(|(l, r)| format!("coalesce({l}, {r})")),
            two.clone().prop_map(|(l, r)| format!("nullif({l}, {r})")),
            (two.clone(), inner.clone())
                .prop_map(|((l, r), c)| format!("CASE WHEN {l} > {r} THEN {c} ELSE {r} END")),
            two.prop_map(|(l, r)| format!("CASE {l} WHEN 0 THEN {r} WHEN 1 THEN {l} END")),
            inner.prop_map(|inner| format!("(- {inner})")),
        ]
    })
    .boxed()
}

/// A condition on such numbers.
fn condition() -> BoxedStrategy<String> {
    let compared = (number(), prop_oneof![Just("="), Just("<"), Just(">=")], number());
    let leaf = prop_oneof![
        compared.prop_map(|(l, op, r)| format!("{l} {op} {r}")),
        (number(), number()).prop_map(|(l, r)| format!("{l} BETWEEN 0 AND {r}")),
        number().prop_map(|number| format!("{number} IN (0, 1, b)")),
        number().prop_map(|number| format!("{number} IS NULL")),
        Just("yes".to_owned()),
        Just("word LIKE '%1%'".to_owned()),
    ];
    leaf.prop_recursive(3, 16, 2, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            two.clone().prop_map(|(l, r)| format!("({l} AND {r})")),
            two.clone().prop_map(|(l, r)| format!("({l} OR {r})")),
            two.prop_map(|(l, r)| format!("CASE WHEN {l} THEN {r} ELSE false END")),
            inner.prop_map(|inner| format!("NOT ({inner})")),
        ]
    })
    .boxed()
}

fn some_row() -> impl Strategy<Value = Row> {
    (
        option::of(prop_oneof![-2_i64..4, Just(i64::MAX), Just(i64::MIN)]),
        option::of(-1_i64..3),
        option::of("[0-9aß]{0,3}"),
        any::<bool>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_row_among_others_fares_as_it_does_alone(
        rows in vec(some_row(), 1..24),
        (value, condition) in (number(), condition()),
    ) {
        let rows = batch(&rows);
        let query = format!("SELECT {value} AS v, {condition} AS c FROM input WHERE {condition}");
        let transform = transform(&query).unwrap();
        // Where a part without columns fails, the query is refused.
        let Ok(mut stage) = transform.plan(&rows.schema()) else { return Ok(()) };
        let whole = drain(&mut *stage, rows.clone());
        let alone: Vec<Outcome> = (0..rows.num_rows())
            .map(|row| drain(&mut *stage, rows.slice(row, 1)))
            .collect();
        let made: Vec<String> = alone.iter().flat_map(|one| lines(&one.rows)).collect();
        let reasons: Vec<String> = alone.into_iter().flat_map(|one| one.reasons).collect();
        prop_assert_eq!(lines(&whole.rows), made, "{}", &query);
        prop_assert_eq!(whole.reasons, reasons, "{}", &query);
        // What WHERE kept is true in SELECT, too.
        let truths = whole.rows.column(1).as_boolean();
        prop_assert!(truths.iter().all(|truth| truth == Some(true)), "{}", &query);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whole_and_slices_come_to_the_same(
        rows in vec(some_row(), 0..40),
        cuts in vec(0_usize..40, 0..5),
        query in 0..QUERIES.len(),
    ) {
        let rows = batch(&rows);
        let (mut stage, columns) = stage(QUERIES[query], &rows.schema());
        let rows = rows.project(&columns).unwrap();
        let whole = drain(&mut *stage, rows.clone());
        let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(rows.num_rows())).collect();
        ends.extend([0, rows.num_rows()]);
        ends.sort_unstable();
        let (mut made, mut rejected, mut reasons) = (vec![], vec![], vec![]);
        for cut in ends.windows(2) {
            // Another stage: what it has seen before must not matter.
            let mut stage = stage.fork().unwrap();
            let part = drain(&mut *stage, rows.slice(cut[0], cut[1] - cut[0]));
            made.extend(lines(&part.rows));
            rejected.extend(part.rejected.iter().flat_map(lines));
            reasons.extend(part.reasons);
        }
        prop_assert_eq!(lines(&whole.rows), made);
        prop_assert_eq!(whole.rejected.iter().flat_map(lines).collect::<Vec<_>>(), rejected);
        prop_assert_eq!(whole.reasons, reasons);
    }
}

/// So many rows of a text, and their numbers.
fn texts(count: usize, text: &str) -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec![text; count]));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count as i64));
    RecordBatch::try_from_iter([("id", ids), ("message", texts)]).unwrap()
}

#[test]
fn no_rows_make_no_rows() {
    for query in ["SELECT id FROM input", "SELECT upper(message) AS m FROM input WHERE id > 3"] {
        let outcome = run(query, &texts(8, "x").slice(0, 0));
        assert_eq!((outcome.rows.num_rows(), outcome.reasons.len(), outcome.calls), (0, 0, 1));
    }
}

#[test]
fn what_is_passed_on_or_of_fixed_width_is_not_sliced() {
    for query in [
        "SELECT * FROM input",
        "SELECT message FROM input WHERE message LIKE '%x%'",
        "SELECT id + 1 AS n, length(message) AS l, now() AS t FROM input",
    ] {
        assert_eq!(run(query, &texts(8192, "a text of some length")).calls, 1, "{query}");
    }
}

#[test]
fn what_grows_comes_in_outputs_of_moderate_size() {
    let rows = texts(8192, &"x".repeat(100));
    let (mut stage, columns) = stage("SELECT repeat(message, 50) AS r FROM input", &rows.schema());
    let mut open = Some(rows.project(&columns).unwrap());
    let mut sizes = Vec::new();
    while let Some(rows) = open {
        let output = stage.apply(rows, moment()).unwrap();
        sizes.push((output.rows.num_rows(), output.rows.num_rows() * 5_000));
        open = output.rest;
    }
    assert_eq!(sizes.iter().map(|size| size.0).sum::<usize>(), 8192);
    assert_eq!(sizes[0].0, 64, "at first nothing is known");
    assert!(sizes.iter().all(|size| size.1 < 3 << 19), "at most 1.5 MiB: {sizes:?}");
    let later = &sizes[1..sizes.len() - 1];
    assert!(later.iter().all(|size| size.1 > 1 << 19), "at least half a MiB: {sizes:?}");
}

#[test]
fn what_does_not_grow_is_soon_taken_whole() {
    let rows = texts(8192, "a text of some length");
    let (mut stage, columns) = stage("SELECT upper(message) AS m FROM input", &rows.schema());
    let rows = rows.project(&columns).unwrap();
    let first = drain(&mut *stage, rows.clone());
    assert!(first.calls <= 4, "{} calls", first.calls);
    assert_eq!(drain(&mut *stage, rows).calls, 1);
}

#[test]
fn long_constants_are_not_copied_for_too_many_rows() {
    let constant = "c".repeat(60_000);
    for query in [
        format!("SELECT '{constant}' AS c FROM input"),
        format!("SELECT id FROM input WHERE length(concat(message, '{constant}')) > 9"),
    ] {
        let rows = texts(1000, "m");
        let (mut stage, columns) = stage(&query, &rows.schema());
        let mut open = Some(rows.project(&columns).unwrap());
        let mut count = 0;
        while let Some(rows) = open {
            let output = stage.apply(rows, moment()).unwrap();
            assert!(output.rows.num_rows() <= (8 << 20) / 60_000);
            count += output.rows.num_rows();
            open = output.rest;
        }
        assert_eq!(count, 1000);
    }
}

#[test]
fn one_huge_row_among_small_ones_is_no_reason_to_reject_them() {
    let mut lengths = vec![1_i64; 4000];
    lengths[1234] = 7_000_000;
    lengths[2345] = 9_000_000;
    let lengths: ArrayRef = Arc::new(Int64Array::from(lengths));
    let rows = RecordBatch::try_from_iter([("n", lengths)]).unwrap();
    let outcome = run("SELECT n, repeat('x', n) AS r FROM input", &rows);
    assert_eq!((outcome.rows.num_rows(), outcome.reasons.len()), (3999, 1));
    let made = outcome.rows.column(1).as_string::<i32>();
    assert_eq!(made.value(1234).len(), 7_000_000);
    assert_eq!(made.iter().map(|text| text.map_or(0, str::len)).sum::<usize>(), 7_003_998);
    assert_eq!(made.null_count(), 0);
}
