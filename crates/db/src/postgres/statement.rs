//! SQL for pages: what the user wrote stays whole, names and values are quoted.

use crate::{Key, KeyValue, Range, identifier};

/// Text as a literal, with `standard_conforming_strings` on.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A column of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) wanted: Wanted,
}

/// What the server is to send of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Its binary form.
    AsItIs,
    /// Text.
    Text,
    /// Text of an `inet`: a cast would add the `/32` that it is not written with.
    InetText,
}

/// What pages are made of.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    /// The user's query, or that of a whole table.
    pub(super) base: String,
    pub(super) filter: Option<String>,
    pub(super) columns: Vec<Chosen>,
    /// The names of the key's columns.
    pub(super) key: Vec<String>,
    /// Whether each row of a page says behind its columns whether its key is the same as that of the
    /// row before, as only the server knows (`1.0` and `1.00`, a collation without case, -0).
    pub(super) compares: bool,
}

/// A statement and the values that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) parameters: Vec<String>,
}

impl Pages {
    /// All rows, without order.
    pub(super) fn all(&self) -> String {
        self.select(&[], None)
    }

    /// A page as one text, for `COPY`, which takes no parameters.
    pub(super) fn inlined(&self, range: &Range, rows: usize) -> String {
        let mut conditions = Vec::new();
        for (key, sign) in [(&range.after, ">"), (&range.until, "<=")] {
            let Some(Key(values)) = key else { continue };
            let values = values.iter().map(|value| literal(&text(value)));
            conditions.push(self.compared(sign, values.collect()));
        }
        self.select(&conditions, Some(rows))
    }

    /// A page with parameters.
    pub(super) fn bound(&self, range: &Range, rows: usize) -> Statement {
        let (mut conditions, mut parameters) = (Vec::new(), Vec::new());
        for (key, sign) in [(&range.after, ">"), (&range.until, "<=")] {
            let Some(Key(values)) = key else { continue };
            let mut places = Vec::new();
            for value in values {
                parameters.push(text(value));
                places.push(format!("${}", parameters.len()));
            }
            conditions.push(self.compared(sign, places));
        }
        Statement { sql: self.select(&conditions, Some(rows)), parameters }
    }

    /// The first columns of the key beside as many values: by the row as a whole, as an index is
    /// ordered.
    fn compared(&self, sign: &str, values: Vec<String>) -> String {
        let columns = self.key.iter().take(values.len()).map(|name| column(name));
        let columns = Vec::from_iter(columns).join(", ");
        format!("({columns}) {sign} ({})", values.join(", "))
    }

    fn select(&self, conditions: &[String], rows: Option<usize>) -> String {
        let columns = self.columns.iter().map(|Chosen { name, wanted }| match wanted {
            Wanted::AsItIs => column(name),
            Wanted::Text => format!("{}::pg_catalog.text AS {}", column(name), identifier(name)),
            Wanted::InetText => format!(
                "pg_catalog.textin(pg_catalog.inet_out({})) AS {}",
                column(name),
                identifier(name)
            ),
        });
        let key = Vec::from_iter(self.key.iter().map(|name| column(name)));
        let before = key.iter().map(|name| format!("pg_catalog.lag({name}) OVER tidegate_order"));
        let before = Vec::from_iter(before).join(", ");
        let key = key.join(", ");
        let is_compared = self.compares && rows.is_some();
        let same = format!("coalesce(({key}) = ({before}), false) AS tidegate_same");
        let columns = Vec::from_iter(columns.chain(is_compared.then_some(same))).join(", ");
        // Line ends, lest a comment at its end swallow what follows.
        let mut sql = format!("SELECT {columns} FROM (\n{}\n) AS tidegate_base", self.base);
        let filter = self.filter.iter().map(|filter| format!("(\n{filter}\n)"));
        let conditions = Vec::from_iter(filter.chain(conditions.iter().cloned()));
        if !conditions.is_empty() {
            sql = format!("{sql} WHERE {}", conditions.join(" AND "));
        }
        if is_compared {
            sql = format!("{sql} WINDOW tidegate_order AS (ORDER BY {key})");
        }
        if let Some(rows) = rows {
            sql = format!("{sql} ORDER BY {key} LIMIT {rows}");
        }
        sql
    }
}

/// A column of the base, and never an output of the same name.
pub(super) fn column(name: &str) -> String {
    format!("tidegate_base.{}", identifier(name))
}

/// A key's value as Postgres reads it.
fn text(value: &KeyValue) -> String {
    match value {
        KeyValue::Int(value) => value.to_string(),
        KeyValue::Real(value) => value.to_string(),
        KeyValue::Text(value) => value.clone(),
        KeyValue::Blob(value) => {
            let hex = value.iter().map(|byte| format!("{byte:02x}"));
            format!("\\x{}", hex.collect::<String>())
        }
    }
}

/// A query without what may stand behind it: spaces and semicolons.
pub(super) fn trimmed(query: &str) -> &str {
    query.trim_end_matches(|letter: char| letter.is_whitespace() || letter == ';').trim_start()
}

/// The names in an expression, as `EXPLAIN` writes it, that a parenthesis follows: what may be
/// functions. Quoted texts are left out.
pub(super) fn called(expression: &str, names: &mut Vec<String>) {
    let mut name = String::new();
    let mut letters = expression.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' => {
                // A doubled quote begins another text at once.
                let _ = letters.by_ref().find(|letter| *letter == '\'');
                name.clear();
            }
            '"' => {
                name.clear();
                // A doubled quote is one of the name's own.
                while let Some(letter) = letters.next() {
                    if letter == '"' && letters.next_if_eq(&'"').is_none() {
                        break;
                    }
                    name.push(letter);
                }
            }
            '(' if !name.is_empty() => names.push(std::mem::take(&mut name)),
            letter if letter.is_alphanumeric() || letter == '_' => name.push(letter),
            _ => name.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        let chosen = |name: &str, wanted| Chosen { name: name.into(), wanted };
        Pages {
            base: "SELECT * FROM t -- all".into(),
            filter: Some("a > 1 OR b".into()),
            columns: vec![chosen("a", Wanted::AsItIs), chosen("we\"ird", Wanted::Text)],
            key: vec!["a".into(), "we\"ird".into()],
            compares: false,
        }
    }

    fn range() -> Range {
        let key = |values: &[KeyValue]| Some(Key(values.to_vec()));
        Range {
            after: key(&[KeyValue::Int(-5), KeyValue::Text("it's".into())]),
            until: key(&[KeyValue::Int(9)]),
        }
    }

    #[test]
    fn a_page_is_one_text() {
        let expected = "SELECT tidegate_base.\"a\", tidegate_base.\"we\"\"ird\"::pg_catalog.text AS \
                        \"we\"\"ird\" FROM (\nSELECT * FROM t -- all\n) AS tidegate_base WHERE (\na \
                        > 1 OR b\n) AND (tidegate_base.\"a\", tidegate_base.\"we\"\"ird\") > ('-5', \
                        'it''s') AND (tidegate_base.\"a\") <= ('9') ORDER BY tidegate_base.\"a\", \
                        tidegate_base.\"we\"\"ird\" LIMIT 10";
        assert_eq!(pages().inlined(&range(), 10), expected);
        assert!(!pages().all().contains("ORDER"), "{}", pages().all());
    }

    #[test]
    fn rows_are_compared_by_the_server() {
        let pages = Pages { compares: true, columns: Vec::new(), filter: None, ..pages() };
        let expected = "SELECT coalesce((tidegate_base.\"a\", tidegate_base.\"we\"\"ird\") = \
                        (pg_catalog.lag(tidegate_base.\"a\") OVER tidegate_order, \
                        pg_catalog.lag(tidegate_base.\"we\"\"ird\") OVER tidegate_order), false) AS \
                        tidegate_same FROM (\nSELECT * FROM t -- all\n) AS tidegate_base WINDOW \
                        tidegate_order AS (ORDER BY tidegate_base.\"a\", tidegate_base.\"we\"\"ird\") \
                        ORDER BY tidegate_base.\"a\", tidegate_base.\"we\"\"ird\" LIMIT 2";
        assert_eq!(pages.inlined(&Range::default(), 2), expected);
        assert!(!pages.all().contains("lag"), "{}", pages.all());
    }

    #[test]
    fn or_a_statement_with_parameters() {
        let Statement { sql, parameters } = pages().bound(&range(), 10);
        assert!(sql.contains("> ($1, $2) AND (tidegate_base.\"a\") <= ($3)"), "{sql}");
        assert_eq!(parameters, ["-5", "it's", "9"]);
    }

    #[test]
    fn functions_are_found_in_expressions() {
        let mut names = Vec::new();
        called("(lower(a) || 'random() it''s now()' || pg_catalog.random()), count(*)", &mut names);
        assert_eq!(names, ["lower", "random", "count"]);
        names.clear();
        called(r#""My ""own"""(1) > "it's" AND random() > 1"#, &mut names);
        assert_eq!(names, ["My \"own\"", "random"]);
        assert_eq!(trimmed("  SELECT 1 ; \n;"), "SELECT 1");
    }
}
