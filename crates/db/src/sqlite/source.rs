//! SQL of ours, in which a person's stands: names in quotes, values bound, what was written whole.

use crate::Key;
use crate::identifier;

/// How what was written is called in ours.
const ALIAS: &str = "tidegate_base";

/// Where rows come from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// What stands behind `FROM`.
    from: String,
    /// What its columns belong to. A name in quotes that is no column would be a text to SQLite; with
    /// this before it, it is an error.
    owner: String,
    pub(super) filter: Option<String>,
}

impl Source {
    /// A table or view; a condition may use its name.
    pub(super) fn table(schema: &str, name: &str) -> Self {
        let (schema, owner) = (identifier(schema), identifier(name));
        Self { from: format!("{schema}.{owner}"), owner, filter: None }
    }

    /// A query, whose end may be a comment.
    pub(super) fn query(text: &str) -> Self {
        Self { from: format!("(\n{text}\n) AS {ALIAS}"), owner: ALIAS.to_owned(), filter: None }
    }

    /// A column of it.
    pub(super) fn column(&self, name: &str) -> String {
        format!("{}.{}", self.owner, identifier(name))
    }

    /// Its rows that meet all conditions.
    pub(super) fn select(&self, what: &str, conditions: &[String]) -> String {
        let filter = self.filter.iter().map(|filter| format!("(\n{filter}\n)"));
        let conditions = Vec::from_iter(filter.chain(conditions.iter().cloned()));
        let from = &self.from;
        if conditions.is_empty() {
            return format!("SELECT {what} FROM {from}");
        }
        format!("SELECT {what} FROM {from} WHERE {}", conditions.join(" AND "))
    }

    /// A page: the rows behind one key, up to and with another, of which each value is a parameter,
    /// in this order, as is how many rows there are at most.
    pub(super) fn page(
        &self,
        columns: &[&str],
        key: &[&str],
        after: Option<&Key>,
        until: Option<&Key>,
    ) -> String {
        let mut conditions = Vec::new();
        let mut next = 1;
        for (values, sign) in [(after, ">"), (until, "<=")] {
            let Some(Key(values)) = values else { continue };
            let parameters = values.iter().zip(next..).map(|(_, number)| format!("?{number}"));
            let parameters = Vec::from_iter(parameters).join(", ");
            // By the row as a whole, as an index is ordered.
            let columns = key[..values.len().min(key.len())].join(", ");
            conditions.push(format!("({columns}) {sign} ({parameters})"));
            next += values.len();
        }
        let rows = self.select(&columns.join(", "), &conditions);
        format!("{rows} ORDER BY {} LIMIT ?{next}", key.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyValue;

    #[test]
    fn a_page_is_one_statement() {
        let mut source = Source::query("SELECT * FROM t -- all");
        source.filter = Some("a > 1 OR b".into());
        let (a, b) = (source.column("a"), source.column("we\"ird"));
        let after = Key(vec![KeyValue::Int(1), KeyValue::Text("x".into())]);
        let until = Key(vec![KeyValue::Int(9)]);
        let sql = source.page(&[&b], &[&a, &b], Some(&after), Some(&until));
        assert_eq!(
            sql,
            "SELECT tidegate_base.\"we\"\"ird\" FROM (\nSELECT * FROM t -- all\n) AS \
             tidegate_base WHERE (\na > 1 OR b\n) AND (tidegate_base.\"a\", \
             tidegate_base.\"we\"\"ird\") > (?1, ?2) AND (tidegate_base.\"a\") <= (?3) ORDER BY \
             tidegate_base.\"a\", tidegate_base.\"we\"\"ird\" LIMIT ?4"
        );
        let table = Source::table("main", "t");
        let id = table.column("id");
        assert_eq!(
            table.page(&[&id], &[&id], None, None),
            "SELECT \"t\".\"id\" FROM \"main\".\"t\" ORDER BY \"t\".\"id\" LIMIT ?1"
        );
    }
}
