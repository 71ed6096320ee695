//! What SQLite's own plan of a query shows: whether it reads one table, once, and calls nothing that
//! is otherwise each time.

use rusqlite::{Connection, Result};

/// Functions that give something else each time they are called.
const VOLATILE: [&str; 5] =
    ["changes", "last_insert_rowid", "random", "randomblob", "total_changes"];

/// The function in a query, or in a view that it reads, that gives something else each time.
pub(super) fn volatile(connection: &Connection, sql: &str) -> Result<Option<String>> {
    let mut statement = connection.prepare(&format!("EXPLAIN {sql}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let operation: String = row.get(1)?;
        if !operation.contains("Func") {
            continue;
        }
        let function: Option<String> = row.get(5)?;
        let function = function.unwrap_or_default();
        let name = function.split('(').next().unwrap_or_default();
        if VOLATILE.iter().any(|volatile| name.eq_ignore_ascii_case(volatile)) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// Whether each row of a query is another row of one table: its plan has a single loop, over that
/// table, and nothing that makes several rows of one or fetches any from elsewhere. Grouping and
/// `DISTINCT` leave rows out, and none twice.
pub(super) fn is_of_one_table(connection: &Connection, sql: &str) -> Result<bool> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let steps = statement.query_map([], |row| row.get::<_, String>(3))?;
    let mut loops = 0;
    for step in steps {
        let step = step?;
        let is_loop = step.starts_with("SCAN ") || step.starts_with("SEARCH ");
        loops += usize::from(is_loop);
        // `SELECT 1` has one loop over nothing.
        let is_loop = is_loop && step != "SCAN CONSTANT ROW";
        if !is_loop && !step.starts_with("USE TEMP B-TREE FOR ") {
            return Ok(false);
        }
    }
    Ok(loops == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        let tables = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b); CREATE INDEX i ON t (a);
                      CREATE TABLE u (id INTEGER PRIMARY KEY, t REFERENCES t);
                      CREATE VIEW v AS SELECT id, a + random() AS a FROM t;";
        connection.execute_batch(tables).unwrap();
        connection
    }

    #[test]
    fn one_loop_over_one_table_is_seen() {
        let connection = connection();
        for (sql, expected) in [
            ("SELECT id FROM t", true),
            ("SELECT id, lower(a) AS x FROM t WHERE a > 3 AND b IS NOT NULL ORDER BY b", true),
            ("SELECT id FROM (SELECT * FROM t WHERE b = 1) WHERE a = 2", true),
            ("SELECT DISTINCT id, b FROM t", true),
            ("SELECT id, count(*) FROM t GROUP BY b", true),
            ("SELECT t.id FROM t, u", false),
            ("SELECT t.id FROM t JOIN u ON u.id = t.a", false),
            ("SELECT id FROM t UNION ALL SELECT id FROM t", false),
            ("SELECT t.id FROM t, (VALUES (1), (2))", false),
            ("SELECT t.id FROM t, json_each(t.a)", false),
            ("SELECT (SELECT id FROM t LIMIT 1) AS id FROM u", false),
            (
                "WITH RECURSIVE r(id) AS (SELECT 1 UNION SELECT id + 1 FROM r) SELECT id FROM r",
                false,
            ),
            ("SELECT id, sum(a) OVER () FROM t", false),
            ("SELECT 1 AS id", false),
        ] {
            assert_eq!(is_of_one_table(&connection, sql).unwrap(), expected, "{sql}");
        }
    }

    #[test]
    fn functions_that_vary_are_found_wherever_they_are() {
        let connection = connection();
        for (sql, expected) in [
            ("SELECT * FROM v", Some("random")),
            ("SELECT id FROM t ORDER BY random()", Some("random")),
            ("SELECT id FROM t WHERE randomblob(a) > x'00'", Some("randomblob")),
            ("SELECT id, total_changes() FROM t", Some("total_changes")),
            ("SELECT lower(a), date('now'), 'random()' FROM t", None),
        ] {
            assert_eq!(volatile(&connection, sql).unwrap().as_deref(), expected, "{sql}");
        }
    }
}
