//! What is refused, and what is said.
//!
//! `mistakes.txt` holds a block for each: the query, what is pointed at under it, what is said, and
//! what to write instead.

use super::*;

const MISTAKES: &str = include_str!("mistakes.txt");

/// The block of a query.
fn block(query: &str) -> String {
    let toml = format!("query = '''\n{query}'''");
    let settings = Settings::from_toml(&toml).unwrap();
    let planned = SqlTransform::from_settings(&settings).and_then(|transform| {
        let columns = transform.columns(&table())?;
        transform.plan(&Arc::new(table().project(&columns).unwrap())).map(|stage| stage.schema())
    });
    let Mistake { span, message, help } = planned.expect_err(query);
    let span = span.unwrap();
    let begin = toml.find('\n').unwrap() + 1;
    // The whole string is pointed at from its quotes on.
    let (before, marked) = match span.start.checked_sub(begin) {
        Some(start) => (&query[..start], &toml[span]),
        None => ("", query),
    };
    let marks = "^".repeat(marked.chars().count().max(1));
    let message = message.strip_prefix("query: ").unwrap();
    let help = help.map(|help| format!("\n  -> {help}")).unwrap_or_default();
    format!("{query}\n{}{marks}\n  {message}{help}", " ".repeat(before.chars().count()))
}

#[test]
fn mistakes_are_named_and_have_a_remedy() {
    let blocks: Vec<&str> = MISTAKES.trim_end().split("\n\n").collect();
    assert!(blocks.len() > 80);
    for expected in blocks {
        let query = expected.lines().next().unwrap();
        assert_eq!(block(query), expected);
    }
}

#[test]
fn a_query_without_words_is_no_query() {
    for query in ["", "  \n", ";", "-- nothing"] {
        let mistake = transform(query).unwrap_err();
        assert_eq!(mistake.message, "query: there is no query", "{query:?}");
    }
}

/// As deep as they may be, queries run on the stack of a test's thread, which is 2 MiB.
#[test]
fn queries_that_are_too_large_are_refused_and_others_run() {
    let chain = |count: usize, op: &str, term: &str| vec![term; count].join(op);
    let too_large = [
        (chain(3000, "+", "a"), "the query has 6004 words, at most 4096 are possible"),
        (chain(2000, "+", "a"), "the expression is more than 96 levels deep"),
        (format!("{}a{}", "(".repeat(90), ")".repeat(90)), "the query is nested too deeply"),
        (
            format!("{}word{}", "coalesce(".repeat(20), ", word)".repeat(20)),
            "coalesce is given too much: more than 4096 terms",
        ),
    ];
    for (expr, message) in too_large {
        let planned = transform(&format!("SELECT {expr} AS it FROM input")).and_then(|transform| {
            transform.columns(&table())?;
            transform.plan(&table()).map(drop)
        });
        assert_eq!(planned.unwrap_err().message, format!("query: {message}"));
    }
    for expr in [
        chain(90, " + ", "a"),
        chain(90, " OR ", "10 / a = 7"),
        chain(90, " || ", "word"),
        format!("{}word{}", "upper(".repeat(40), ")".repeat(40)),
        format!("a IN ({})", chain(1900, ",", "5")),
    ] {
        let rows = rows();
        let outcome = run(&format!("SELECT {expr} AS it FROM input"), &rows);
        assert_eq!(outcome.rows.num_rows() + outcome.reasons.len(), rows.num_rows(), "{expr}");
    }
    let many = chain(600, " AND ", "a <> 7");
    assert_eq!(run(&format!("SELECT id FROM input WHERE {many}"), &rows()).rows.num_rows(), 5);
}
