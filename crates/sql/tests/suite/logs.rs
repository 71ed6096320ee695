//! Logs: severities, metadata, the read time, hidden columns.

use arrow_array::{Array, UInt64Array};
use tidegate_model::OFFSET;

use super::*;

#[test]
fn severities_have_names() {
    let kept = |condition: &str| query(&format!("SELECT id FROM input WHERE {condition}")).0;
    assert_eq!(kept("severity >= severity('error')"), ["0", "4"]);
    assert_eq!(kept("severity = severity('WARNING') OR severity >= severity('crit')"), ["2", "4"]);
    // From a row, an unknown word is null, not a reason to reject.
    let word = "CASE id WHEN 0 THEN 'Info' WHEN 1 THEN 'loud' ELSE word END";
    let (rows, reasons) = query(&format!("SELECT severity({word}) AS s FROM input"));
    assert_eq!((rows.join(" "), reasons.len()), ("9 - - - - -".to_owned(), 0));
}

#[test]
fn metadata_is_read_by_key() {
    let (rows, reasons) = query(
        "SELECT metadata['user_id'], metadata['none'] AS n, metadata[word] AS w, \
         metadata[CASE WHEN id < 3 THEN 'user_id' ELSE 'ä' END] AS k FROM input",
    );
    let expected = ["u0|-|-|u0", "-|-|-|-", "u2|-|-|u2", "-|-|-|-", "u4|-|-|ü", "-|-|-|ü"];
    assert_eq!((rows, reasons), (expected.map(str::to_owned).to_vec(), vec![]));
}

#[test]
fn metadata_is_added_to() {
    let set = |call: &str| query(&format!("SELECT {call} AS m FROM input WHERE id IN (0, 1, 3)")).0;
    assert_eq!(
        set("metadata_set(metadata, 'env', 'prod')"),
        ["{user_id: u0, ä: ü, env: prod}", "{env: prod}", "{ä: -, env: prod}"]
    );
    assert_eq!(
        set("metadata_set(metadata_set(metadata, 'user_id', a), 'ä', NULL)"),
        ["{user_id: 0, ä: -}", "{user_id: 2, ä: -}", "{ä: -, user_id: -5}"]
    );
    assert_eq!(set("metadata_set(NULL, word, true)"), ["{12: true}", "{abc: true}", "{: true}"]);
    let (_, reasons) = query("SELECT metadata_set(metadata, word, 1) AS m FROM input");
    assert_eq!(reasons, ["m: metadata_set: the key is null"]);
}

#[test]
fn metadata_keeps_its_type() {
    let outcome =
        run("SELECT * REPLACE (metadata_set(metadata, 'a', 1) AS metadata) FROM input", &rows());
    let at = outcome.rows.schema().index_of("metadata").unwrap();
    assert_eq!(outcome.rows.column(at).data_type(), table().field(8).data_type());
    // So that what comes after can be planned as if nothing had been done.
    assert_eq!(outcome.rows.schema().field(at).name(), "metadata");
}

#[test]
fn now_is_when_the_rows_were_read() {
    let (mut stage, columns) = stage(
        "SELECT now() AS n, current_date AS d, timestamp < now() AS old FROM input",
        &table(),
    );
    assert_eq!(columns, [7], "only what is read: the time is no column of the input");
    let two = rows().project(&columns).unwrap().slice(2, 2);
    let mut say = |read_at| {
        let at = Moment { read_at, elapsed: Duration::ZERO };
        lines(&stage.apply(two.clone(), at).unwrap().rows)
    };
    let first =
        ["2024-05-06T07:08:09.123Z|2024-05-06|false", "2024-05-06T07:08:09.123Z|2024-05-06|true"];
    assert_eq!(say(READ_AT), first);
    let second = ["2024-05-07T07:08:09.123Z|2024-05-07|true"; 2];
    assert_eq!(say(READ_AT + 86_400_000_000_000), second);
    let recent = query("SELECT id FROM input WHERE timestamp >= now() - INTERVAL '1 second'");
    assert_eq!(recent, (vec!["2".to_owned(), "3".to_owned()], vec![]));
}

/// Rows with the hidden column last.
fn with_offsets(rows: &RecordBatch) -> RecordBatch {
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(OFFSET, DataType::UInt64, false)));
    let mut columns = rows.columns().to_vec();
    let offsets: UInt64Array = (0..rows.num_rows() as u64).map(|row| 100 + row * 10).collect();
    columns.push(Arc::new(offsets));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[test]
fn offsets_are_carried_along_as_the_last_column() {
    let rows = with_offsets(&rows());
    for (select, expected) in [
        ("word", vec!["abc|110", "-7|140"]),
        ("1 AS one", vec!["1|110", "1|140"]),
        ("upper(word) AS w, id", vec!["ABC|1|110", "-7|4|140"]),
        (
            "* EXCLUDE (message, severity, timestamp, metadata, x, b)",
            vec!["1|2|abc|7|110", "4|9223372036854775807|-7|7|140"],
        ),
    ] {
        let transform = transform(&format!("SELECT {select} FROM input WHERE a > 0")).unwrap();
        assert!(!transform.columns(&rows.schema()).unwrap().contains(&10), "it is not asked for");
        let mut stage = transform.plan(&rows.schema()).unwrap();
        assert_eq!(stage.schema().fields().last().unwrap().name(), OFFSET);
        assert_eq!(lines(&drain(&mut *stage, rows.clone()).rows), expected, "{select}");
    }
    let transform = transform("SELECT 10 / a AS d FROM input").unwrap();
    let mut stage = transform.plan(&rows.schema()).unwrap();
    let outcome = drain(&mut *stage, rows.clone());
    assert_eq!(outcome.rejected.unwrap().schema(), rows.schema(), "rejects are the input's rows");
}

#[test]
fn columns_are_exactly_those_that_are_read() {
    for (query, expected) in [
        ("SELECT id FROM input", vec![0]),
        ("SELECT 1 AS one FROM input", vec![]),
        ("SELECT word FROM input WHERE severity > 3 AND message LIKE '%x%'", vec![4, 5, 6]),
        (
            "SELECT id FROM input WHERE CASE WHEN a = 1 THEN x > 1 ELSE metadata['k'] = 'v' END",
            vec![0, 1, 3, 8],
        ),
        ("SELECT \"UserId\", now() AS n FROM input AS i WHERE i.b IN (1, a)", vec![1, 2, 9]),
        (
            "SELECT * EXCLUDE (metadata, message) FROM input WHERE word = 'x'",
            vec![0, 1, 2, 3, 4, 6, 7, 9],
        ),
        (
            "SELECT * EXCLUDE (metadata) REPLACE (id AS word) FROM input",
            vec![0, 1, 2, 3, 4, 5, 6, 7, 9],
        ),
        ("SELECT metadata.user_id FROM input", vec![8]),
        ("SELECT *, id + a AS s FROM input", (0..10).collect()),
    ] {
        assert_eq!(transform(query).unwrap().columns(&table()).unwrap(), expected, "{query}");
        // It plans and runs on those alone, and on more.
        let narrow = run(query, &rows());
        let mut wide = transform(query).unwrap().plan(&table()).unwrap();
        assert_eq!(lines(&drain(&mut *wide, rows()).rows), lines(&narrow.rows), "{query}");
    }
}

#[test]
fn forks_do_the_same() {
    let query = "SELECT repeat(word, id) AS w, message ~ '[ab]l' AS r FROM input \
                 WHERE a > 0 AND message ~ '(all|als)'";
    let (mut stage, columns) = stage(query, &table());
    let rows = rows().project(&columns).unwrap();
    let mut fork = stage.fork().unwrap();
    let both = [drain(&mut *stage, rows.clone()), drain(&mut *fork, rows)];
    assert_eq!(lines(&both[0].rows), ["abc|true", "-7-7-7-7|true"]);
    assert_eq!(lines(&both[0].rows), lines(&both[1].rows));
}
