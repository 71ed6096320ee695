//! Rows without any of the literals that a query requires are of no use to it, nor are those that
//! are less severe than it asks.

use std::collections::BTreeSet;

use arrow_array::BooleanArray;
use arrow_array::cast::AsArray;
use arrow_array::types::UInt8Type;
use arrow_select::filter::filter_record_batch;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

/// What texts are made of: few letters, so that conditions are often true, and all that is special
/// to patterns and to lines.
const PARTS: [&str; 9] = ["A", "1", "0", "ß", "\u{fffd}", "\r\n", "\0", "%_", "\\"];

type Literals = BTreeSet<String>;
type Row = (Option<String>, Option<String>, Option<u8>);

fn part() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just("a"), 6 => Just("b"), 1 => Just("A"), 4 => prop::sample::select(&PARTS)]
        .prop_map(str::to_owned)
}

fn text(parts: usize) -> impl Strategy<Value = String> {
    prop_oneof![
        6 => vec(part(), 1..=parts).prop_map(|parts| parts.concat()),
        1 => Just(String::new()),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let message = prop_oneof![text(2), text(12)];
    (option::weighted(0.9, message), option::of(text(2)), option::of(0_u8..4))
}

/// Logs cut short; texts are null only where they may be.
fn batch(rows: &[Row], nullable: bool) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("severity", DataType::UInt8, true),
        Field::new("level", DataType::Utf8, true),
        Field::new("message", DataType::Utf8View, nullable),
    ]);
    let severity: UInt8Array = rows.iter().map(|row| row.2).collect();
    let level: StringArray = rows.iter().map(|row| row.1.as_deref()).collect();
    let message = rows.iter().map(|row| match (&row.0, nullable) {
        (None, false) => Some(""),
        (text, _) => text.as_deref(),
    });
    let message: StringViewArray = message.collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(severity), Arc::new(level), Arc::new(message)];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn literal() -> impl Strategy<Value = String> {
    text(2).prop_map(|text| format!("'{text}'"))
}

/// A pattern of LIKE.
fn like() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => part(),
        2 => Just("%".to_owned()),
        1 => Just("_".to_owned()),
        1 => prop::sample::select(vec!["\\%", "\\_", "\\\\", "\\a", "\\"]).prop_map(str::to_owned),
    ];
    let free = vec(part, 0..5).prop_map(|parts| format!("'{}'", parts.concat()));
    prop_oneof![1 => free, 2 => text(2).prop_map(|text| format!("'%{text}%'"))]
}

/// A regular expression.
fn regex() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "ab", "ba", "1", "ß", "\u{fffd}", "\\\\", "%"]),
        3 => prop::sample::select(vec![".", "[ab]", "[^a]", "[a\u{fffd}]", "\\w", "[Aa]", "[0-9]"]),
        1 => prop::sample::select(vec!["^", "$", "\\b", "(?i)b", "(?-i)", "[^\\s\\S]", "(?s)."]),
    ];
    let tree = leaf.prop_map(str::to_owned).prop_recursive(3, 12, 3, |inner| {
        let times = prop::sample::select(vec!["?", "*", "+", "{2}", "{1,2}", "{2,}", "{0}", "+?"]);
        prop_oneof![
            3 => vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            1 => vec(inner.clone(), 1..4).prop_map(|arms| format!("({})", arms.join("|"))),
            2 => (inner.clone(), times).prop_map(|(part, times)| format!("(?:{part}){times}")),
            1 => inner.prop_map(|part| format!("(?i:{part})")),
        ]
    });
    prop_oneof![3 => tree.clone(), 1 => tree.prop_map(|part| format!("^({part})$"))].boxed()
}

/// A condition on one column, or none.
fn leaf() -> BoxedStrategy<String> {
    let column = || {
        let plain = prop::sample::select(vec!["message", "message", "message", "message", "level"]);
        let cast = prop::sample::select(vec!["CAST(message AS TEXT)", "lower(message)"]);
        prop_oneof![12 => plain, 1 => cast]
    };
    let op = || prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let in_list = vec(prop_oneof![8 => literal(), 1 => Just("NULL".to_owned())], 1..6);
    let found = prop::sample::select(vec!["contains", "starts_with", "ends_with"]);
    let not = || prop::sample::select(vec!["", "", "", "NOT "]);
    let matches = prop::sample::select(vec!["~", "~", "~", "!~", "~*", "!~*"]);
    let like_op = prop::sample::select(vec!["LIKE", "LIKE", "LIKE", "NOT LIKE", "ILIKE", "ILIKE"]);
    let folded = prop::sample::select(vec!["lower", "upper", "trim", "reverse"]);
    let any = prop::sample::select(vec![
        "true",
        "false",
        "NULL",
        "severity > 1",
        "severity IS NULL",
        "message IS NULL",
        "message = level",
        "message LIKE level",
        "level IS NOT NULL",
    ]);
    prop_oneof![
        6 => (column(), like_op, like()).prop_map(|(c, op, p)| format!("{c} {op} {p}")),
        2 => (column(), op(), literal()).prop_map(|(c, op, l)| format!("{c} {op} {l}")),
        2 => (column(), literal()).prop_map(|(c, l)| format!("{l} = {c}")),
        3 => (column(), not(), in_list)
            .prop_map(|(c, not, list)| format!("{c} {not}IN ({})", list.join(", "))),
        6 => (column(), matches, regex()).prop_map(|(c, op, p)| format!("{c} {op} '{p}'")),
        1 => (column(), regex()).prop_map(|(c, p)| format!("regexp_like({c}, '{p}', 'i')")),
        3 => (not(), found, column(), literal())
            .prop_map(|(not, f, c, l)| format!("{not}{f}({c}, {l})")),
        2 => (column(), literal(), op(), -1..3)
            .prop_map(|(c, l, op, n)| format!("strpos({c}, {l}) {op} {n}")),
        1 => (column(), literal(), op(), -1..3)
            .prop_map(|(c, l, op, n)| format!("{n} {op} strpos({c}, {l})")),
        1 => (folded, column(), like()).prop_map(|(f, c, p)| format!("{f}({c}) LIKE {p}")),
        1 => (column(), op(), 0..5).prop_map(|(c, op, n)| format!("octet_length({c}) {op} {n}")),
        1 => (column(), literal(), like())
            .prop_map(|(c, l, p)| format!("coalesce({c}, {l}) LIKE {p}")),
        1 => any.prop_map(str::to_owned),
    ]
    .boxed()
}

/// Conditions in conditions.
fn condition() -> BoxedStrategy<String> {
    let fails = prop::sample::select(vec![
        "10 / severity > 3",
        "CAST(message AS INT) > 0",
        "CAST(level AS INT) = 1",
    ]);
    let one = prop_oneof![12 => leaf(), 1 => fails.prop_map(str::to_owned)];
    one.prop_recursive(3, 10, 3, |inner| {
        let two = || (inner.clone(), inner.clone());
        let says = vec!["IS TRUE", "IS NOT TRUE", "IS NULL", "= true", "= false"];
        prop_oneof![
            4 => two().prop_map(|(l, r)| format!("({l} AND {r})")),
            4 => two().prop_map(|(l, r)| format!("({l} OR {r})")),
            2 => inner.clone().prop_map(|one| format!("NOT ({one})")),
            1 => two().prop_map(|(l, r)| format!("coalesce({l}, {r})")),
            1 => (two(), inner.clone())
                .prop_map(|((l, r), c)| format!("CASE WHEN {c} THEN {l} ELSE {r} END")),
            1 => (inner.clone(), prop::sample::select(says))
                .prop_map(|(one, says)| format!("({one}) {says}")),
        ]
    })
    .boxed()
}

fn conditions() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => vec(condition(), 1..3).prop_map(|all| all.join(" AND ")),
        1 => leaf(),
        2 => regex().prop_map(|pattern| format!("message ~ '{pattern}'")),
    ]
}

type Planned = (Box<dyn Stage>, Option<Literals>);

/// The query's stage and what it requires of a column; `None` where it is refused, as it is where a
/// part without columns fails.
fn planned(conditions: &str, input: &SchemaRef, column: &str) -> Option<Planned> {
    let transform = transform(conditions)?;
    let required = transform.required(input, column);
    Some((transform.plan(input).ok()?, required))
}

fn transform(conditions: &str) -> Option<SqlTransform> {
    let query = format!("SELECT message, 10 / severity AS d FROM input WHERE {conditions}");
    let query = query.chars().map(|c| format!("\\U{:08X}", c as u32)).collect::<String>();
    let toml = format!("query = \"{query}\"");
    SqlTransform::from_settings(&Settings::from_toml(&toml).unwrap()).ok()
}

/// The rows whose text in this column has one of the literals.
fn with_any(rows: &RecordBatch, column: &str, literals: &Literals) -> RecordBatch {
    let texts = rows.column_by_name(column).unwrap();
    let texts = arrow_cast::cast(texts, &DataType::Utf8View).unwrap();
    let has = |text: &str| literals.iter().any(|literal| text.contains(&**literal));
    let mask: BooleanArray = texts.as_string_view().iter().map(|text| text.map(has)).collect();
    filter_record_batch(rows, &mask).unwrap()
}

/// The rows that are this severe.
fn severe(rows: &RecordBatch, min: u8) -> RecordBatch {
    let severities = rows.column_by_name("severity").unwrap().as_primitive::<UInt8Type>();
    let mask: BooleanArray =
        severities.iter().map(|severity| Some(severity >= Some(min))).collect();
    filter_record_batch(rows, &mask).unwrap()
}

/// Conditions on the severity among others.
fn severities() -> BoxedStrategy<String> {
    let op = || prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">=", ">=", ">="]);
    let number =
        || prop_oneof![12 => (0_u8..5).prop_map(|n| n.to_string()), 1 => Just("NULL".to_owned())];
    let not = prop::sample::select(vec!["", "", "", "NOT "]);
    let column = prop::sample::select(vec!["severity", "severity", "severity", "severity + 1"]);
    let one = prop_oneof![
        4 => (column, op(), number()).prop_map(|(c, op, n)| format!("{c} {op} {n}")),
        2 => (number(), op()).prop_map(|(n, op)| format!("{n} {op} severity")),
        2 => (not, vec(number(), 1..6))
            .prop_map(|(not, list)| format!("severity {not}IN ({})", list.join(", "))),
        1 => (number(), number()).prop_map(|(a, b)| format!("severity BETWEEN {a} AND {b}")),
        1 => Just("severity IS NULL".to_owned()),
        1 => Just("10 / severity > 3".to_owned()),
        1 => leaf(),
    ];
    let nested = one.prop_recursive(3, 10, 3, |inner| {
        let two = || (inner.clone(), inner.clone());
        prop_oneof![
            4 => two().prop_map(|(l, r)| format!("({l} AND {r})")),
            4 => two().prop_map(|(l, r)| format!("({l} OR {r})")),
            2 => inner.clone().prop_map(|one| format!("NOT ({one})")),
            1 => two().prop_map(|(l, r)| format!("coalesce({l}, {r})")),
        ]
    });
    vec(nested, 1..3).prop_map(|all| all.join(" AND ")).boxed()
}

fn told(outcome: &Outcome) -> (Vec<String>, Vec<String>, &[String]) {
    let rejected = outcome.rejected.as_ref().map(lines).unwrap_or_default();
    (lines(&outcome.rows), rejected, &outcome.reasons)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn rows_without_them_make_nothing(
        rows in vec(row(), 1..60),
        nullable in any::<bool>(),
        column in prop::sample::select(vec!["message", "message", "message", "level"]),
        conditions in conditions(),
    ) {
        let rows = batch(&rows, nullable);
        let planned = planned(&conditions, &rows.schema(), column);
        let Some((mut stage, Some(required))) = planned else { return Ok(()) };
        prop_assert!(required.len() <= 64);
        let odd = |literal: &String| literal.is_empty() || literal.contains('\u{fffd}');
        prop_assert!(!required.iter().any(odd), "{:?}: {}", &required, &conditions);
        let some = drain(&mut *stage, with_any(&rows, column, &required));
        let all = drain(&mut *stage, rows);
        prop_assert_eq!(told(&all), told(&some), "{:?}: {}", &required, &conditions);
    }

    #[test]
    fn rows_that_are_not_severe_enough_make_nothing(
        rows in vec(row(), 1..60),
        conditions in severities(),
    ) {
        let rows = batch(&rows, true);
        let Some(transform) = transform(&conditions) else { return Ok(()) };
        let Some(min) = transform.severity_min(&rows.schema()) else { return Ok(()) };
        let Ok(mut stage) = transform.plan(&rows.schema()) else { return Ok(()) };
        let some = drain(&mut *stage, severe(&rows, min));
        let all = drain(&mut *stage, rows);
        prop_assert_eq!(told(&all), told(&some), "{} and above: {}", min, &conditions);
    }
}

/// The tests above would say nothing about conditions that require nothing, are true for no row, or
/// require what all rows have.
#[test]
fn conditions_often_require_something() {
    let mut runner = TestRunner::deterministic();
    let rows = vec(row(), 60).new_tree(&mut runner).unwrap().current();
    let rows = batch(&rows, true);
    let (mut all, mut some, mut several, mut kept, mut skipped) = (0, 0, 0, 0, 0);
    while all < 400 {
        let conditions = conditions().new_tree(&mut runner).unwrap().current();
        let Some((mut stage, required)) = planned(&conditions, &rows.schema(), "message") else {
            continue;
        };
        all += 1;
        let Some(required) = required else { continue };
        some += 1;
        several += usize::from(required.len() > 1);
        let with_any = with_any(&rows, "message", &required);
        skipped += usize::from(with_any.num_rows() < rows.num_rows());
        let outcome = drain(&mut *stage, with_any);
        kept += usize::from(outcome.rows.num_rows() + outcome.reasons.len() > 0);
    }
    let counts = format!("{some} of {all}, {several} several, {kept} kept, {skipped} skipped");
    assert!(some * 5 >= all && several * 25 >= all, "{counts}");
    assert!(kept * 10 >= all && skipped * 10 >= all, "{counts}");
}

#[test]
fn conditions_on_the_severity_often_say_how_severe() {
    let mut runner = TestRunner::deterministic();
    let rows = vec(row(), 60).new_tree(&mut runner).unwrap().current();
    let rows = batch(&rows, true);
    let (mut all, mut some, mut kept, mut skipped) = (0, 0, 0, 0);
    while all < 400 {
        let conditions = severities().new_tree(&mut runner).unwrap().current();
        let Some(transform) = transform(&conditions) else { continue };
        all += 1;
        let Some(min) = transform.severity_min(&rows.schema()) else { continue };
        some += 1;
        let severe = severe(&rows, min);
        skipped += usize::from(severe.num_rows() < rows.num_rows());
        let outcome = drain(&mut *transform.plan(&rows.schema()).unwrap(), severe);
        kept += usize::from(outcome.rows.num_rows() + outcome.reasons.len() > 0);
    }
    let counts = format!("{some} of {all}, {kept} kept, {skipped} skipped");
    assert!(some * 4 >= all && kept * 10 >= all && skipped * 5 >= all, "{counts}");
}
