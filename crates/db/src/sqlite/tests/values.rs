//! What becomes of values.

use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;

use super::*;
use crate::{Key, KeyValue};

const COLUMNS: &str = "id INTEGER PRIMARY KEY, i INT, r REAL, n NUMERIC, b BOOLEAN, t TEXT, \
                       d BLOB, a DATETIME, x";

/// A value as a word, whatever its type.
pub(super) fn cell(batch: &RecordBatch, column: usize, row: usize) -> Option<String> {
    use arrow_array::types::Float64Type;
    let array = batch.column(column);
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        _ => format!("{:x?}", array.as_binary::<i32>().value(row)),
    })
}

fn line(batch: &RecordBatch, row: usize) -> String {
    let cells = (0..batch.num_columns()).map(|column| cell(batch, column, row));
    Vec::from_iter(cells.map(|cell| cell.unwrap_or_else(|| "-".into()))).join("|")
}

async fn lines(database: Database, name: &str) -> (Vec<String>, Option<Error>) {
    let found = database.describe(&table(name), Consistency::Pages).await.unwrap();
    let (rows, error) = read(&mut stream(&found, Range::default(), 3)).await;
    let lines = rows.iter().flat_map(|rows| {
        (0..rows.batch.num_rows()).map(|row| line(&rows.batch, row)).collect::<Vec<_>>()
    });
    (lines.collect(), error)
}

#[tokio::test]
async fn values_have_the_types_that_their_columns_were_declared_with() {
    let file = File::new(&format!("CREATE TABLE t ({COLUMNS});"));
    file.execute(
        "INSERT INTO t VALUES (1, -9223372036854775808, 1, 2, 0, 'ü', x'00ff', '2024-01-01', 1);
         INSERT INTO t VALUES (2, '12', '1.5', '2.50', '1', 12, x'', 1700000000, 1e300);
         INSERT INTO t VALUES (3, 7.0, 9e999, -9e999, NULL, '', NULL, 0.1, -9e999);
         INSERT INTO t VALUES (4, NULL, NULL, 9007199254740992, true, 'a' || char(0) || 'b', NULL, x'01', x'0aFF');
         INSERT INTO t (id) VALUES (5);",
    );
    let found = file.describe(&table("t")).await.unwrap();
    let types = found.schema().fields().iter().map(|field| field.data_type().clone());
    use DataType::{Binary, Boolean, Float64, Int64, Utf8};
    let expected = [Int64, Int64, Float64, Float64, Boolean, Utf8, Binary, Utf8, Utf8];
    assert_eq!(Vec::from_iter(types), expected);
    let (lines, error) = lines(file.database(), "t").await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(
        lines,
        [
            "1|-9223372036854775808|1.0|2.0|false|ü|[0, ff]|2024-01-01|1",
            "2|12|1.5|2.5|true|12|[]|1700000000|1e+300",
            "3|7|inf|-inf|-||-|0.1|-Inf",
            "4|-|-|9007199254740992.0|true|a\0b|-|X'01'|X'0AFF'",
            "5|-|-|-|-|-|-|-|-",
        ]
    );
}

#[tokio::test]
async fn odd_values_end_reading_or_are_null_or_make_all_text() {
    let rows = "INSERT INTO t VALUES (1, 1, 1.5, 2, 1, 'a', x'00', 'now', 1);
                INSERT INTO t VALUES (2, 1, 1.5, 2, 1, 'a', x'01', 'now', 2);";
    for (odd, said, text) in [
        ("i = 'twelve'", "i is 'twelve' in the row with id = 2, and not an integer", "twelve"),
        ("i = 1.5", "i is 1.5", "1.5"),
        ("r = 'high'", "r is 'high'", "high"),
        ("n = 9007199254740993", "n is 9007199254740993", "9007199254740993"),
        ("b = 2", "b is 2 in the row with id = 2, and not 0 or 1", "2"),
        ("b = 'yes'", "b is 'yes'", "yes"),
        ("t = x'0102'", "t is X'0102'", "X'0102'"),
        ("t = CAST(x'41ff' AS TEXT)", "t is 'A\u{fffd}'", "X'41FF'"),
        ("d = 'text'", "d is 'text' in the row with id = 2, and not a blob", "text"),
    ] {
        let file = File::new(&format!("CREATE TABLE t ({COLUMNS}); {rows}"));
        file.execute(&format!("UPDATE t SET {odd} WHERE id = 2"));
        let (good, error) = lines(file.database(), "t").await;
        let error = error.unwrap_or_else(|| panic!("{odd} is taken")).to_string();
        assert!(error.contains(said) && error.contains("mismatch"), "{odd}: {error}");
        assert_eq!(good.len(), 1, "what is before it is given");
        let (nulls, error) = lines(file.database().mismatch(Mismatch::Null), "t").await;
        assert!(error.is_none() && nulls[1].matches('-').count() == 1, "{nulls:?}");
        let (texts, error) = lines(file.database().mismatch(Mismatch::Text), "t").await;
        assert!(error.is_none() && texts[1].split('|').any(|it| it == text), "{texts:?}");
        let found = file.database().mismatch(Mismatch::Text);
        let found = found.describe(&table("t"), Consistency::Pages).await.unwrap();
        let fields = found.schema().fields().iter();
        let is_text = Vec::from_iter(fields.map(|field| *field.data_type() == DataType::Utf8));
        assert!(!is_text[0] && is_text[1..].iter().all(|it| *it), "{is_text:?}");
    }
}

#[tokio::test]
async fn a_strict_table_stays_what_it_is() {
    let file = File::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, d BLOB, a ANY) STRICT;
         INSERT INTO t VALUES (1, 2, 3, 'x', x'05', x'06'), (2, 2, 3, 'x', x'05', 'y');",
    );
    let (lines, error) = lines(file.database().mismatch(Mismatch::Text), "t").await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(lines, ["1|2|3.0|x|[5]|X'06'", "2|2|3.0|x|[5]|y"]);
}

#[tokio::test]
async fn a_text_in_another_encoding_is_read_as_utf8() {
    let file = File::new(
        "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, id INT);
         INSERT INTO t VALUES ('ä', 2), ('a', 1), ('😀', 4), ('z', 3);",
    );
    let found = file.describe(&table("t")).await.unwrap();
    for page in [1, 3] {
        let ids = all_ids(&found, Range::default(), page).await;
        assert_eq!(ids, file.integers("SELECT id FROM t ORDER BY k"));
    }
}

#[tokio::test]
async fn keys_are_of_any_type_and_not_of_what_has_no_place() {
    let file = File::new(
        "CREATE TABLE t (id INT, k);
         INSERT INTO t VALUES
         (0, -9e999), (1, 1), (2, 1.5), (3, ''), (4, 'a'), (5, x''), (6, x'00');
         CREATE TABLE i (id INT, k INT NOT NULL UNIQUE);
         INSERT INTO i VALUES (1, 1), (2, 2.5);
         CREATE TABLE u (id INT, k TEXT NOT NULL UNIQUE);
         INSERT INTO u VALUES (1, 'a'), (2, CAST(x'ff' AS TEXT));",
    );
    let found = file.describe(&keyed(table("t"), &["k"])).await.unwrap();
    let (rows, error) = read(&mut stream(&found, Range::default(), 1)).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(ids(&rows), [0, 1, 2, 3, 4, 5, 6]);
    let keys = Vec::from_iter(rows.into_iter().flat_map(|rows| rows.last.0));
    let text = |text: &str| KeyValue::Text(text.into());
    let blob = |blob: &[u8]| KeyValue::Blob(blob.into());
    let (least, one) = (KeyValue::Real(f64::NEG_INFINITY), KeyValue::Int(1));
    assert_eq!(
        keys,
        [least, one, KeyValue::Real(1.5), text(""), text("a"), blob(b""), blob(b"\0")]
    );
    let middle = Range { after: Some(Key(vec![text("")])), until: Some(Key(vec![blob(b"")])) };
    assert_eq!(all_ids(&found, middle, 10).await, [4, 5]);
    for (name, said) in [
        ("i", "k is no integer, as it was declared in the row behind k = 1"),
        ("u", "k is a text that is no UTF-8 in the row behind k = 'a'"),
    ] {
        let found = file.describe(&keyed(table(name), &["k"])).await.unwrap();
        let (_, error) = read(&mut stream(&found, Range::default(), 10)).await;
        let error = error.unwrap_or_else(|| panic!("{name} is taken")).to_string();
        assert!(error.contains(said), "{error}");
    }
}
