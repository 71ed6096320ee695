//! What SELECT and WHERE make of values.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatchOptions};

use super::*;

/// The ids of the rows that a condition keeps.
fn ids(condition: &str) -> String {
    let (rows, reasons) = query(&format!("SELECT id FROM input WHERE {condition}"));
    assert_eq!(reasons, Vec::<String>::new(), "{condition}");
    rows.join(" ")
}

/// One value for each row.
fn column(expr: &str) -> String {
    let (rows, reasons) = query(&format!("SELECT {expr} AS it FROM input"));
    assert_eq!(reasons, Vec::<String>::new(), "{expr}");
    rows.join(" ")
}

fn names(select: &str) -> String {
    let (stage, _) = stage(&format!("SELECT {select} FROM input"), &table());
    let schema = stage.schema();
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_backslash_in_a_pattern_is_what_it_is_escaped_to_be() {
    let with = |condition: &str| {
        let text = r"CASE id WHEN 0 THEN 'C:\bin' WHEN 1 THEN 'C:bin' ELSE 'C.bin' END";
        ids(&condition.replace("it", text))
    };
    for (condition, kept) in [
        (r"it ~ ':\\bin'", "0"),
        (r"it ~ '^C:\\bin'", "0"),
        (r"it ~ '\x5Cbin$'", "0"),
        (r"it ~ '^(C:\\bin|C:bin)$'", "0 1"),
        (r"it ~ ':\\b|:b'", "0 1"),
        (r"it ~* 'c:\\B'", "0"),
        (r"it !~ ':\\b' AND id < 3", "1 2"),
        (r"regexp_like(it, ':\\b')", "0"),
        (r"it ~ 'C\.bin' AND id < 3", "2"),
    ] {
        assert_eq!(with(condition), kept, "{condition}");
    }
}

#[test]
fn conditions_keep_what_is_true_not_what_is_null() {
    for (condition, kept) in [
        ("a > 0", "1 4"),
        ("NOT (a > 0)", "0 3 5"),
        ("a IS NULL", "2"),
        ("a = NULL", ""),
        ("NULL", ""),
        ("a > 0 OR NULL", "1 4"),
        ("a > 0 AND NULL", ""),
        ("a IS NOT DISTINCT FROM b", "5"),
        ("a IN (0, NULL)", "0 5"),
        ("a NOT IN (0, NULL)", ""),
        ("true", "0 1 2 3 4 5"),
        ("false", ""),
        ("1 = 1 AND id = 2", "2"),
        ("id BETWEEN 2 AND 3", "2 3"),
        ("id = '3'", "3"),
        ("x < 1", "0 1 3"),
        ("coalesce(word, 'none') = 'none'", "2"),
        ("CASE WHEN a > 0 THEN b = 1 END", "4"),
        ("(a > 0) IS NOT TRUE", "0 2 3 5"),
    ] {
        assert_eq!(ids(condition), kept, "{condition}");
    }
}

#[test]
fn text_is_unicode() {
    for (condition, kept) in [
        ("word = 'Größe'", "5"),
        ("upper(word) = 'GRÖSSE'", "5"),
        ("message LIKE '%größer%'", "4"),
        ("message LIKE 'gr__er%'", "4"),
        ("message ILIKE 'GRÖ%'", "4"),
        ("message ~ '^gr.ß'", "4"),
        ("message ~* '^GRÖSS|^GRÖß'", "4"),
        ("length(word) = 5 AND octet_length(word) = 7", "5"),
        ("metadata['ä'] = 'ü'", "0 2 4 5"),
    ] {
        assert_eq!(ids(condition), kept, "{condition}");
    }
    assert_eq!(column("reverse(word)"), "21 cba -  7- eßörG");
    assert_eq!(column("left(word, 3)"), "12 abc -  -7 Grö");
}

#[test]
fn functions_of_many_kinds_work() {
    for (expr, values) in [
        ("coalesce(a, b, 0)", "0 2 3 -5 9223372036854775807 0"),
        ("nullif(word, '')", "12 abc - - -7 Größe"),
        ("word || '/' || id", "12/0 abc/1 - /3 -7/4 Größe/5"),
        ("concat(word, id)", "120 abc1 2 3 -74 Größe5"),
        ("TRY_CAST(word AS INT)", "12 - - - -7 -"),
        ("greatest(a, b)", "1 2 3 2 9223372036854775807 0"),
        ("split_part(message, ' ', 2)", "ERROR all   als took"),
        ("substr(message, 1, 2)", "12 in wa  gr st"),
        ("position('a' IN message)", "0 7 2 0 8 3"),
        ("(regexp_match(message, 'status=(\\d+)'))[1]", "- - - - - 404"),
        (
            "array_to_string(regexp_match(message, '(x)?(s\\w+)'), '+', '?')",
            "?+sk - - - - ?+status",
        ),
        ("regexp_count(message, 'l+')", "1 2 0 0 1 0"),
        ("regexp_replace(word, '(\\w)(\\w)', '\\2\\1')", "21 bac -  -7 rGöße"),
        ("regexp_replace(word, '\\d', '#', 'g')", "## abc -  -# Größe"),
        ("regexp_replace(word, 'B', '${0}${0}', 'i')", "12 abbc -  -7 Größe"),
        ("message ~ word", "true false - true false false"),
        ("date_part('year', timestamp)", "1970 1970 2024 2024 1969 1970"),
        ("extract(month FROM timestamp)", "1 1 5 5 12 1"),
        (
            "date_trunc('day', timestamp)::date",
            "1970-01-01 1970-01-01 2024-05-06 2024-05-06 1969-12-31 1970-01-02",
        ),
        ("to_char(timestamp, '%d.%m.')", "01.01. 01.01. 06.05. 06.05. 31.12. 02.01."),
        ("left(md5(word), 4)", "c20a 9001 - d41d 7468 d248"),
        ("left(encode(sha256(word), 'hex'), 4)", "6b51 ba78 - e3b0 a770 aedc"),
        ("abs(a) % 2", "0 0 - 1 1 0"),
        ("round(x, 0)", "1.0 0.0 - -2.0 1e300 NaN"),
        ("x / 0", "inf NaN - -inf inf NaN"),
        ("-x", "-0.5 -0.0 - 1.5 -1e300 NaN"),
        ("map_keys(metadata)", "[user_id, ä] - [user_id, ä] [ä] [user_id, ä] [ä]"),
        ("map_values(metadata)", "[u0, ü] - [u2, ü] [-] [u4, ü] [ü]"),
        ("cardinality(metadata)", "2 - 2 1 2 1"),
    ] {
        assert_eq!(column(expr), values, "{expr}");
    }
}

#[test]
fn columns_get_names_that_can_be_read() {
    for (select, names_given) in [
        ("id, Word, input.a, \"UserId\"", "id word a UserId"),
        ("upper(word)", "upper(word)"),
        ("a+1, (b)", "a + 1 b"),
        ("metadata['user_id'], metadata.ä", "user_id ä"),
        ("a::TEXT, CAST(b AS INT)", "a b"),
        ("id AS Number, word AS \"Word\"", "number Word"),
        ("now(), current_date", "now() current_date"),
        ("1, 'x'", "1 'x'"),
    ] {
        assert_eq!(names(select), names_given, "{select}");
    }
}

#[test]
fn a_star_can_leave_out_replace_and_rename() {
    let all = "id a b x word message severity timestamp metadata UserId";
    assert_eq!(names("*"), all);
    assert_eq!(names("input.*"), all);
    let some = "id a b x word";
    let rest = "EXCLUDE (message, severity, timestamp, metadata, \"UserId\")";
    assert_eq!(names(&format!("* {rest}")), some);
    assert_eq!(names(&format!("* {}", rest.replace("EXCLUDE", "EXCEPT"))), some);
    assert_eq!(names(&format!("* {rest} RENAME (word AS text)")), "id a b x text");
    let replace = "REPLACE (upper(word) AS word, id + 1 AS a)";
    let all = format!("SELECT * {rest} {replace}, 7 AS seven FROM input WHERE id = 1");
    let (rows, _) = query(&all);
    assert_eq!(rows, ["1|2|-|0.0|ABC|7"]);
}

#[test]
fn a_table_can_have_an_alias() {
    let (rows, _) = query("SELECT i.id, word FROM Input AS i WHERE i.a IS NULL; -- a comment");
    assert_eq!(rows, ["2|-"]);
}

#[test]
fn constants_have_types() {
    let outcome =
        run("SELECT NULL AS n, 'p' AS t, 1 AS i, true AS b FROM input", &rows().slice(0, 1));
    assert_eq!(lines(&outcome.rows), ["-|p|1|true"]);
    let schema = outcome.rows.schema();
    let types: Vec<_> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Utf8, DataType::Utf8, DataType::Int64, DataType::Boolean]);
}

#[test]
fn rows_without_columns_are_still_rows() {
    let (mut stage, columns) = stage("SELECT 1 AS one FROM input", &table());
    assert_eq!(columns, Vec::<usize>::new());
    let options = RecordBatchOptions::new().with_row_count(Some(3));
    let none = Arc::new(Schema::empty());
    let rows = RecordBatch::try_new_with_options(none, vec![], &options).unwrap();
    assert_eq!(lines(&drain(&mut *stage, rows).rows), ["1", "1", "1"]);
}

#[test]
fn what_is_passed_on_is_not_copied() {
    let rows = rows();
    let bytes = |rows: &RecordBatch, name: &str| {
        rows.column_by_name(name).unwrap().as_string_view().data_buffers()[0].as_ptr()
    };
    let views = |rows: &RecordBatch| {
        rows.column_by_name("message").unwrap().as_string_view().views().as_ptr()
    };
    let all = run("SELECT message, id + 1 AS n FROM input WHERE id >= 0", &rows).rows;
    assert_eq!(views(&all), views(&rows), "all rows pass: the same array");
    let some = run("SELECT message FROM input WHERE message LIKE '%ERROR%'", &rows).rows;
    assert_eq!(some.column(0).data_type(), &DataType::Utf8View);
    assert_eq!(bytes(&some, "message"), bytes(&rows, "message"), "some pass: the same buffer");
    assert_eq!(some.num_rows(), 2);
}

#[test]
fn sliced_columns_are_read_from_where_they_begin() {
    let tail = rows().slice(2, 3);
    let outcome = run("SELECT id, metadata['user_id'] AS u, word || 'x' AS w FROM input", &tail);
    assert_eq!(lines(&outcome.rows), ["2|u2|-", "3|-|x", "4|u4|-7x"]);
}
