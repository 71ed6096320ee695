//! What is read, in which order, and what is refused.

use super::*;
use crate::{Estimate, Key, KeyValue, Kind};

const TABLES: &str = "
CREATE TABLE plain (id INTEGER PRIMARY KEY, name TEXT, at DATETIME);
INSERT INTO plain SELECT value, 'name ' || value, datetime('now') FROM generate_1000;
CREATE TABLE pair (b INT NOT NULL, a TEXT NOT NULL, id INT, PRIMARY KEY (a, b)) WITHOUT ROWID;
INSERT INTO pair SELECT value % 7, 'k' || (value / 7), value FROM generate_1000;
CREATE TABLE named (name TEXT COLLATE NOCASE PRIMARY KEY, id INT);
INSERT INTO named SELECT 'N' || value, value FROM generate_1000;
CREATE TABLE keyless (id INT, name TEXT);
INSERT INTO keyless SELECT value / 2, 'n' FROM generate_1000;
CREATE TABLE holes (id INT PRIMARY KEY, name TEXT);
INSERT INTO holes VALUES (1, 'a'), (NULL, 'b'), (3, 'c');
CREATE TABLE \"Odd \"\"Name\"\"\" (\"order\" BLOB PRIMARY KEY NOT NULL, id INT);
INSERT INTO \"Odd \"\"Name\"\"\" SELECT randomblob(8), value FROM generate_1000;
CREATE VIEW seen AS SELECT id, name FROM plain WHERE id > 100;
CREATE VIEW joined AS SELECT p.id, q.a FROM plain AS p JOIN pair AS q ON q.id = p.id;
";

fn tables() -> File {
    let numbers = "CREATE TABLE generate_1000 AS WITH RECURSIVE n(value) AS
                   (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 1000)
                   SELECT value FROM n;";
    File::new(&format!("{numbers} {TABLES}"))
}

#[tokio::test]
async fn rows_come_in_the_order_of_the_key_whatever_the_pages() {
    let file = tables();
    for (reading, sql) in [
        (table("plain"), "SELECT id FROM plain ORDER BY id"),
        (table("MAIN.Plain"), "SELECT id FROM plain ORDER BY id"),
        (table("pair"), "SELECT id FROM pair ORDER BY a, b"),
        (table("named"), "SELECT id FROM named ORDER BY name"),
        (table("keyless"), "SELECT id FROM keyless ORDER BY rowid"),
        (keyed(table("holes"), &["rowid"]), "SELECT ifnull(id, 0) FROM holes ORDER BY rowid"),
        (table("holes"), "SELECT ifnull(id, 0) FROM holes ORDER BY rowid"),
        (table("\"Odd \"\"Name\"\"\""), "SELECT id FROM \"Odd \"\"Name\"\"\" ORDER BY \"order\""),
        (table("seen"), "SELECT id FROM seen ORDER BY id"),
        (keyed(table("joined"), &["id"]), "SELECT id FROM joined ORDER BY id"),
        (keyed(table("plain"), &["name", "ID"]), "SELECT id FROM plain ORDER BY name, id"),
        (query("SELECT id, lower(name) AS n FROM plain WHERE id > 10; "), {
            "SELECT id FROM plain WHERE id > 10 ORDER BY id"
        }),
        (query("SELECT id FROM plain ORDER BY plain.id -- to the end"), {
            "SELECT id FROM plain ORDER BY id"
        }),
        (query("SELECT rowid AS place, id FROM keyless"), {
            "SELECT id FROM keyless ORDER BY rowid"
        }),
        (query("SELECT id, (SELECT 1 LIMIT 1) AS n FROM keyless WHERE id > 5 GROUP BY id"), ""),
        (keyed(query("WITH w AS (SELECT id FROM plain) SELECT id FROM w"), &["id"]), {
            "SELECT id FROM plain ORDER BY id"
        }),
        (keyed(query("SELECT b AS id, max(a) AS a FROM pair GROUP BY b"), &["id"]), {
            "SELECT DISTINCT b FROM pair ORDER BY b"
        }),
        (filtered(table("plain"), "plain.id <= 5 OR id = 9 -- few"), {
            "SELECT id FROM plain WHERE id <= 5 OR id = 9 ORDER BY id"
        }),
        (filtered(query("SELECT id FROM plain"), "id > 990"), {
            "SELECT id FROM plain WHERE id > 990 ORDER BY id"
        }),
    ] {
        if sql.is_empty() {
            assert!(file.describe(&reading).await.is_err(), "{reading:?}");
            continue;
        }
        let found = file.describe(&reading).await.unwrap();
        let expected = file.integers(sql);
        for page in [1, 7, expected.len(), 20_000] {
            if page > 1 || expected.len() < 100 {
                assert_eq!(all_ids(&found, Range::default(), page).await, expected, "{reading:?}");
            }
        }
    }
}

#[tokio::test]
async fn ranges_are_all_of_it_and_nothing_twice() {
    let file = tables();
    for (reading, cuts_min) in [
        (table("plain"), 3),
        (table("pair"), 0),
        (table("named"), 3),
        (table("keyless"), 3),
        (table("\"Odd \"\"Name\"\"\""), 3),
        (filtered(table("plain"), "id > 900"), 3),
        (keyed(table("joined"), &["id"]), 3),
        (keyed(table("plain"), &["id", "name"]), 3),
    ] {
        let found = file.describe(&reading).await.unwrap();
        let whole = all_ids(&found, Range::default(), 50).await;
        for parts in [0, 1, 2, 4, 9] {
            let cuts = found.split(parts).await.unwrap();
            assert!(
                cuts.len() < parts.max(1) && (parts != 4 || cuts.len() >= cuts_min),
                "{cuts:?}"
            );
            let mut after = None;
            let mut all = Vec::new();
            for until in cuts.iter().cloned().map(Some).chain([None]) {
                let range = Range { after: after.clone(), until: until.clone() };
                let ids = all_ids(&found, range, 50).await;
                assert!(cuts.is_empty() || ids.len() < whole.len() * 3 / 4, "{reading:?}");
                all.extend(ids);
                after = until;
            }
            assert_eq!(all, whole, "{reading:?} in {parts}");
        }
    }
}

#[tokio::test]
async fn only_what_is_asked_for_is_read_and_each_row_says_where_it_is() {
    let file = tables();
    let plain = file.describe(&table("plain")).await.unwrap();
    let mut options = options(&plain, 100);
    options.columns = vec![1];
    options.rows_max = 3;
    let after = Some(Key(vec![KeyValue::Int(990)]));
    let range = Range { after, until: Some(Key(vec![KeyValue::Int(995)])) };
    let holder = Arc::clone(&options.holder);
    let mut stream = Arc::clone(&plain).stream(range, options);
    let (rows, error) = read(&mut stream).await;
    assert!(error.is_none(), "{error:?}");
    let sizes = rows.iter().map(|rows| (rows.batch.num_rows(), rows.batch.num_columns()));
    assert_eq!(Vec::from_iter(sizes), [(3, 1), (2, 1)]);
    assert_eq!(rows[1].last, Key(vec![KeyValue::Int(995)]));
    assert_eq!(rows[1].numbers.last().copied(), rows[1].last.number());
    assert!(rows[0].numbers.is_sorted() && rows[0].bytes > 0 && holder.held() > 0);
    drop((rows, stream));
    assert_eq!(holder.held(), 0);
}

#[tokio::test]
async fn a_rowid_that_is_no_column_stands_behind_all_others() {
    let file = tables();
    let keyless = file.describe(&table("keyless")).await.unwrap();
    assert_eq!((keyless.own_columns(), keyless.key()), (2, &[2][..]));
    assert_eq!(keyless.schema().field(2).name(), "rowid");
    let (rows, _) = read(&mut stream(&keyless, Range::default(), 400)).await;
    assert_eq!(rows[0].batch.num_columns(), 2);
    assert_eq!(rows[0].last.number(), Some((1 << 63) + 399));
    let plain = file.describe(&keyed(table("plain"), &["rowid"])).await.unwrap();
    assert_eq!((plain.own_columns(), plain.key()), (3, &[3][..]));
}

#[tokio::test]
async fn estimates_are_those_of_statistics_or_of_room() {
    let file = tables();
    let estimate = async |reading: Reading| file.describe(&reading).await.unwrap().estimate();
    let rows = |rows| Some(Estimate { rows, is_exact: false });
    file.execute("DELETE FROM plain WHERE id % 4 = 1");
    assert_eq!(estimate(table("plain")).await, rows(999));
    assert_eq!(estimate(query("SELECT id FROM plain")).await, rows(999));
    assert_eq!(estimate(query("SELECT id FROM plain WHERE id < 3")).await, None);
    assert_eq!(estimate(filtered(table("plain"), "id < 3")).await, None);
    assert_eq!(estimate(table("pair")).await, None);
    file.execute("CREATE INDEX i ON plain (name); ANALYZE");
    assert_eq!(estimate(table("plain")).await, rows(750));
    assert_eq!(estimate(table("pair")).await, rows(1000));
    file.execute("DELETE FROM plain");
    assert_eq!(estimate(table("plain")).await, rows(0));
}

#[tokio::test]
async fn what_could_leave_rows_out_is_refused_with_the_remedy() {
    let file = tables();
    for (reading, said) in [
        (table("nothing"), "there is no table or view nothing; there are: \"Odd \"\"Name\"\"\", "),
        (table("plain; DROP TABLE plain"), "is no name"),
        (table("joined"), "more than one plain table"),
        (query("SELECT p.id FROM plain p, pair"), "more than one plain table"),
        (query("SELECT id FROM plain UNION ALL SELECT id FROM plain"), "more than one plain table"),
        (query("SELECT name FROM plain"), "the key of plain (id) is not selected"),
        (query("SELECT id FROM holes"), "the key of holes (id) has nulls"),
        (query("SELECT id FROM keyless"), "(rowid) is not selected"),
        (query("SELECT id FROM plain LIMIT 5"), "LIMIT"),
        (query("SELECT id FROM plain ORDER BY name"), "in the order of their key (id)"),
        (query("SELECT id, random() AS r FROM plain"), "random()"),
        (filtered(table("plain"), "abs(random()) % 2"), "random()"),
        (query("SELECT id FROM plain WHERE id = ?"), "parameter"),
        (query("SELECT id, name AS ID FROM plain"), "two columns ID"),
        (query("SELECT id FROM plain; SELECT 1"), "second statement"),
        (query("DELETE FROM plain"), "no SELECT"),
        (query("WITH w AS (SELECT 1) DELETE FROM plain"), "no SELECT"),
        (query("  ;"), "no SELECT"),
        (query("SELECT no_such FROM plain"), "query: no such column: no_such"),
        (keyed(table("holes"), &["id"]), "id is null"),
        (keyed(table("plain"), &["no_such"]), "no column no_such, but id, name, at"),
        (keyed(table("plain"), &["id", "ID"]), "twice"),
        (keyed(table("plain"), &[]), "no column"),
        (filtered(table("plain"), "no_such = 1"), "where: no such column: no_such"),
        (filtered(table("plain"), "1 = 1) OR (1"), "where: has a `)`"),
        (filtered(table("plain"), ""), "where: is empty"),
    ] {
        let error = file.describe(&reading).await.err();
        let error = error.unwrap_or_else(|| panic!("{reading:?} is taken"));
        let line = error.to_string();
        assert!(line.contains(said) && !line.contains('\n'), "{reading:?}: {line}");
        assert!(line.contains("test.db: ") && error.kind() == Kind::Refused, "{line}");
    }
    assert_eq!(file.integers("SELECT count(*) FROM plain"), [1000]);
}

#[tokio::test]
async fn rows_with_the_same_key_are_noticed_wherever_a_page_ends() {
    let file = tables();
    file.execute(
        "CREATE TABLE cased (id INT, k TEXT COLLATE NOCASE);
         INSERT INTO cased VALUES (1, 'a'), (2, 'b'), (3, 'B'), (4, 'c');
         CREATE TABLE mixed (id INT, k); INSERT INTO mixed VALUES (1, 1), (2, 2), (3, 2.0), (4, 'x');",
    );
    for (reading, unlike) in [
        (keyed(table("keyless"), &["id"]), "id = "),
        (keyed(table("cased"), &["k"]), "k = 'B'"),
        (keyed(query("SELECT id, k COLLATE NOCASE AS k FROM cased"), &["k"]), "k = 'B'"),
        (keyed(table("mixed"), &["k"]), "k = 2"),
    ] {
        let found = file.describe(&reading).await.unwrap();
        for page in [1, 2, 3, 2000] {
            let (_, error) = read(&mut stream(&found, Range::default(), page)).await;
            let error = error.unwrap_or_else(|| panic!("{reading:?}: {page} rows do not notice"));
            let line = error.to_string();
            assert!(line.contains("two rows have the same") && line.contains(unlike), "{line}");
        }
    }
}

#[tokio::test]
async fn a_position_of_another_key_is_refused() {
    let file = tables();
    let pair = file.describe(&table("plain")).await.unwrap();
    let after = Some(Key(vec![KeyValue::Int(1), KeyValue::Int(2)]));
    let mut stream = stream(&pair, Range { after, until: None }, 10);
    let error = next(&mut stream).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("has 2 values, and the key 1 columns"), "{error}");
    assert!(next(&mut stream).await.is_none());
}
