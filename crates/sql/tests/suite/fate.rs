//! Rows that fail, and those beside them.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;

use super::*;

/// The ids that come out, those that are rejected, and why.
fn fate(select: &str) -> (String, String, Vec<String>) {
    let outcome = run(select, &rows());
    let ids = |rows: &RecordBatch| {
        let ids = rows.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        ids.values().iter().map(i64::to_string).collect::<Vec<_>>().join(" ")
    };
    let rejected = outcome.rejected.as_ref().map_or_else(String::new, ids);
    (ids(&outcome.rows), rejected, outcome.reasons)
}

#[test]
fn what_does_not_fit_rejects_its_row_alone() {
    for (expr, passed, rejected, reason) in [
        ("10 / a", "1 2 3 4", "0 5", "it: divide by zero"),
        ("a % b", "0 1 2 3 4", "5", "it: divide by zero"),
        ("a + 1", "0 1 2 3 5", "4", "it: overflow happened on: 9223372036854775807 + 1"),
        ("a * 2", "0 1 2 3 5", "4", "it: overflow happened on: 9223372036854775807 * 2"),
        ("-5 - a", "0 1 2 3 5", "4", "it: overflow happened on: -5 - 9223372036854775807"),
        ("-(-a - 1)", "0 1 2 3 5", "4", "it: overflow happened on: 0 - -9223372036854775808"),
        (
            "CAST(word AS INT)",
            "0 2 4",
            "1 3 5",
            "it: cannot cast string 'abc' to value of Int32 type",
        ),
        (
            "word::BIGINT > 3",
            "0 2 4",
            "1 3 5",
            "it: cannot cast string 'abc' to value of Int64 type",
        ),
        ("a::SMALLINT", "0 1 2 3 5", "4", "it: can't cast value 9223372036854775807 to type Int16"),
        ("x::BIGINT", "0 1 2 3", "4 5", "it: can't cast value 1e300 to type Int64"),
        ("sqrt(x)", "0 1 2 4 5", "3", "it: cannot take square root of a negative number"),
        (
            "decode(word, 'hex')",
            "0 2 3",
            "1 4 5",
            "it: failed to decode from hex: Odd number of digits",
        ),
        ("make_date(2024, id::INT, 1)", "1 2 3 4 5", "0", "it: month value '0' is out of range"),
        ("regexp_like('a', message || '(')", "", "0 1 2 3 4 5", ""),
    ] {
        let (made, failed, reasons) = fate(&format!("SELECT id, {expr} AS it FROM input"));
        assert_eq!((&*made, &*failed), (passed, rejected), "{expr}: {reasons:?}");
        assert!(reasons[0].starts_with(reason), "{expr}: {reasons:?}");
    }
}

#[test]
fn guards_keep_rows_from_failing() {
    for (query, passed, rejected) in [
        // WHERE asks in order, and a row is out at the first condition that is not true.
        ("SELECT id FROM input WHERE a <> 0 AND 10 / a > 1", "1", ""),
        ("SELECT id FROM input WHERE 10 / a > 1 AND a <> 0", "1", "0 5"),
        ("SELECT id FROM input WHERE a <> 0 AND (b > 0 AND 10 / a < a / b)", "4", ""),
        ("SELECT id FROM input WHERE word LIKE '_2' AND CAST(word AS INT) = 12", "0", ""),
        // What WHERE leaves out, SELECT never sees.
        ("SELECT id, 10 / a AS d FROM input WHERE a > 0", "1 4", ""),
        ("SELECT id FROM input WHERE a = 0 OR 10 / a > 1", "0 1 5", ""),
        ("SELECT id FROM input WHERE NOT (a = 0 OR 10 / a > 1)", "3 4", ""),
        ("SELECT id, a = 0 OR 10 / a > 1 AS t FROM input", "0 1 2 3 4 5", ""),
        ("SELECT id, a <> 0 AND 10 / a > 1 AS t FROM input", "0 1 2 3 4 5", ""),
        ("SELECT id, CASE WHEN a <> 0 THEN 10 / a END AS c FROM input", "0 1 2 3 4 5", ""),
        ("SELECT id, CASE a WHEN 0 THEN 1 ELSE 10 / a END AS c FROM input", "0 1 2 3 4 5", ""),
        ("SELECT id, coalesce(a, CAST(word AS INT)) AS c FROM input", "0 1 2 3 4 5", ""),
        ("SELECT id, coalesce(b, CAST(word AS INT)) AS c FROM input", "0 2 3 4 5", "1"),
        ("SELECT id, nvl(b, CAST(word AS INT)) AS c FROM input", "0 2 3 4 5", "1"),
        ("SELECT id, nullif(10 / a, 5) AS c FROM input WHERE id <> 0 AND id <> 5", "1 2 3 4", ""),
        (
            "SELECT id FROM input WHERE (a <> 0 AND 10 / a > 1) OR (b <> 0 AND 10 / b > 5)",
            "0 1 4",
            "",
        ),
        // Null decides nothing: what comes after it is asked.
        ("SELECT id, a > 0 OR CAST(word AS INT) > 0 AS c FROM input WHERE id < 3", "0 1 2", ""),
        ("SELECT id, b > 0 OR CAST(word AS INT) > 0 AS c FROM input WHERE id < 3", "0 2", "1"),
        ("SELECT id, b > 9 AND CAST(word AS INT) > 0 AS c FROM input WHERE id < 3", "0 2", "1"),
    ] {
        let (made, failed, reasons) = fate(query);
        assert_eq!((&*made, &*failed), (passed, rejected), "{query}: {reasons:?}");
    }
}

#[test]
fn a_row_alone_has_the_same_fate() {
    for select in [
        "SELECT id, 10 / a AS d, CAST(word AS INT) AS n FROM input WHERE b > 0 OR a / b > 1",
        "SELECT id, a > 0 OR CAST(word AS INT) > 0 AS c FROM input",
        "SELECT id, b > 9 AND CAST(word AS INT) > 0 AS c FROM input WHERE x IS NOT NULL",
        "SELECT id, CASE WHEN CAST(word AS INT) > 0 THEN a + 1 ELSE a * 2 END AS c FROM input",
        "SELECT id FROM input WHERE NOT (a = 0 AND b > 0) AND (x > 0 OR sqrt(x) IS NULL)",
    ] {
        let whole = run(select, &rows());
        let alone: Vec<Outcome> = (0..6).map(|row| run(select, &rows().slice(row, 1))).collect();
        let made: Vec<String> = alone.iter().flat_map(|one| lines(&one.rows)).collect();
        let reasons: Vec<String> = alone.into_iter().flat_map(|one| one.reasons).collect();
        assert_eq!((lines(&whole.rows), whole.reasons), (made, reasons), "{select}");
    }
}

#[test]
fn results_that_grow_without_bound_are_rejected_not_made() {
    let sizes = Int64Array::from(vec![3, 1_000_000_000_000_000_000, i64::MAX, -1, 2]);
    let texts = StringArray::from(vec!["ab"; 5]);
    let rows = RecordBatch::try_from_iter([
        ("n", Arc::new(sizes) as ArrayRef),
        ("t", Arc::new(texts) as ArrayRef),
    ]);
    let rows = rows.unwrap();
    for (expr, expected, rejected) in [
        ("repeat(t, n)", vec!["ababab", "", "abab"], 2),
        ("lpad(t, n, '-')", vec!["-ab", "", "ab"], 2),
        ("rpad(t, n, '-')", vec!["ab-", "", "ab"], 2),
    ] {
        let outcome = run(&format!("SELECT {expr} AS r FROM input"), &rows);
        assert_eq!(lines(&outcome.rows), expected, "{expr}");
        assert_eq!(outcome.reasons.len(), rejected, "{expr}");
        let reason = &outcome.reasons[0];
        assert!(reason.contains("bytes, at most 8388608 fit"), "{reason}");
    }
}

#[test]
fn replacements_that_grow_without_bound_are_rejected() {
    let long = "x".repeat(100_000);
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["xy", &long, "y"]));
    let rows = RecordBatch::try_from_iter([("t", texts)]).unwrap();
    let with = "z".repeat(200);
    for call in [
        format!("replace(t, 'x', '{with}')"),
        format!("regexp_replace(t, 'x', '{with}', 'g')"),
        format!("regexp_replace(t, '(.+)', '{}')", "\\1".repeat(90)),
        format!("array_to_string(string_to_array(t, NULL), '{with}')"),
    ] {
        let outcome = run(&format!("SELECT octet_length({call}) AS r FROM input"), &rows);
        assert_eq!((outcome.rows.num_rows(), outcome.reasons.len()), (2, 1), "{call}");
        assert!(outcome.reasons[0].contains("8388608"), "{:?}", outcome.reasons);
    }
    // What only could grow, and does not, passes.
    let outcome = run(&format!("SELECT replace(t, 'q', '{with}') AS r FROM input"), &rows);
    assert_eq!((outcome.rows.num_rows(), outcome.reasons.len()), (3, 0));
}

#[test]
fn reasons_quote_no_megabyte() {
    let long = "ä".repeat(500_000);
    let texts: ArrayRef = Arc::new(StringArray::from(vec![long.as_str()]));
    let rows = RecordBatch::try_from_iter([("t", texts)]).unwrap();
    let outcome = run("SELECT CAST(t AS INT) AS n FROM input", &rows);
    assert!(outcome.reasons[0].len() < 400, "{} bytes", outcome.reasons[0].len());
}

#[test]
fn rejects_keep_their_order_among_thousands() {
    let count = 8192;
    let words = (0..count).map(|row| if row % 7 == 3 { "x".to_owned() } else { row.to_string() });
    let words: ArrayRef = Arc::new(words.map(Some).collect::<StringArray>());
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let rows = RecordBatch::try_from_iter([("id", ids), ("word", words)]).unwrap();
    let outcome = run("SELECT id, CAST(word AS BIGINT) AS n FROM input", &rows);
    let ids = |rows: &RecordBatch| {
        rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec()
    };
    let (failed, passed): (Vec<i64>, Vec<i64>) = (0..count).partition(|row| row % 7 == 3);
    assert_eq!(ids(&outcome.rows), passed);
    assert_eq!(ids(outcome.rejected.as_ref().unwrap()), failed);
    assert_eq!(outcome.rows.column(0).as_primitive::<Int64Type>().len(), passed.len());
}
