//! Rows that change while they are read, locks, files that are none.

use std::fs;

use tidegate_testkit::process::wait_for;
use tokio::time::{Instant, sleep};

use super::*;
use crate::Kind;

const THOUSAND: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);
    INSERT INTO t WITH RECURSIVE n(value) AS
    (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 1000) SELECT value, 'n' FROM n;";

#[tokio::test]
async fn changes_behind_the_place_are_seen_and_those_before_it_are_not() {
    for mode in ["DELETE", "WAL"] {
        let file = File::new(&format!("PRAGMA journal_mode = {mode}; {THOUSAND}"));
        let found = file.describe(&table("t")).await.unwrap();
        let mut stream = stream(&found, Range::default(), 50);
        let first = next(&mut stream).await.unwrap().unwrap();
        let mut all = ids(&[first]);
        file.writer.busy_timeout(DEADLINE).unwrap();
        file.execute(
            "INSERT INTO t VALUES (-1, 'before'), (5000, 'behind');
             DELETE FROM t WHERE id IN (10, 900);
             UPDATE t SET id = 3000 WHERE id = 800; UPDATE t SET id = -2 WHERE id = 850;",
        );
        let (rest, error) = read(&mut stream).await;
        assert!(error.is_none(), "{error:?}");
        all.extend(ids(&rest));
        let gone = [800, 850, 900];
        let there = (1..=1000).filter(|id| !gone.contains(id)).chain([3000, 5000]);
        assert_eq!(all, Vec::from_iter(there), "{mode}");
    }
}

#[tokio::test]
async fn a_snapshot_is_of_one_moment_for_all_streams() {
    let file = File::new(&format!("PRAGMA journal_mode = WAL; {THOUSAND}"));
    let found = file.database().describe(&table("t"), Consistency::Snapshot).await.unwrap();
    file.execute("DELETE FROM t WHERE id > 10; INSERT INTO t VALUES (5000, 'behind')");
    let thousand = Vec::from_iter(1..=1000);
    let mut dropped = stream(&found, Range::default(), 7);
    assert!(next(&mut dropped).await.is_some());
    let (first, second) = tokio::join!(
        async {
            drop(dropped);
            all_ids(&found, Range::default(), 30).await
        },
        all_ids(&found, Range::default(), 50)
    );
    assert_eq!((&first, &second), (&thousand, &thousand));
    assert_eq!(found.split(4).await.unwrap().len(), 3);
    let now = file.describe(&table("t")).await.unwrap();
    assert_eq!(all_ids(&now, Range::default(), 30).await.len(), 11);
}

#[tokio::test]
async fn a_table_that_goes_or_changes_is_told_by_name() {
    for (change, said) in [
        ("DROP TABLE t", "no such table: main.t"),
        ("ALTER TABLE t RENAME TO other", "no such table: main.t"),
        ("ALTER TABLE t DROP COLUMN name", "no such column: t.name"),
    ] {
        let file = File::new(THOUSAND);
        let found = file.describe(&table("t")).await.unwrap();
        let mut stream = stream(&found, Range::default(), 50);
        assert!(next(&mut stream).await.unwrap().is_ok());
        file.writer.busy_timeout(DEADLINE).unwrap();
        file.execute(change);
        let (_, error) = read(&mut stream).await;
        let error = error.unwrap_or_else(|| panic!("{change}: is not noticed"));
        assert!(error.to_string().contains(said) && error.kind() == Kind::Refused, "{error}");
        assert!(next(&mut stream).await.is_none());
    }
}

/// The clock stands still while a page is read, and jumps while one is waited for.
#[tokio::test(start_paused = true)]
async fn a_lock_is_waited_for_as_long_as_it_takes() {
    const HOUR: Duration = Duration::from_secs(3600);
    let file = File::new(THOUSAND);
    let found = file.describe(&table("t")).await.unwrap();
    file.execute("BEGIN EXCLUSIVE");
    let error = file.describe(&table("t")).await.unwrap_err();
    assert!(error.may_heal() && error.to_string().contains("locked"), "{error}");
    let mut impatient = options(&found, 50);
    impatient.backoff = None;
    let mut impatient = Arc::clone(&found).stream(Range::default(), impatient);
    assert!(impatient.next().await.unwrap().unwrap_err().may_heal());
    assert!(impatient.next().await.is_none());

    let mut patient = options(&found, 50);
    patient.backoff = Some(Backoff::constant(HOUR));
    let mut patient = Arc::clone(&found).stream(Range::default(), patient);
    let begin = Instant::now();
    let (first, ()) = tokio::join!(patient.next(), async {
        sleep(HOUR * 3 / 2).await; // two attempts were in vain
        file.execute("COMMIT");
    });
    assert_eq!((ids(&[first.unwrap().unwrap()]).len(), begin.elapsed().as_secs()), (50, 7200));
    drop(patient);
}

#[tokio::test]
async fn nothing_is_locked_between_pages() {
    let file = File::new(THOUSAND);
    let found = file.describe(&table("t")).await.unwrap();
    let mut stream = stream(&found, Range::default(), 50);
    assert!(next(&mut stream).await.unwrap().is_ok());
    // The page that is read ahead may last a moment.
    file.writer.busy_timeout(DEADLINE).unwrap();
    file.execute("BEGIN EXCLUSIVE; DELETE FROM t WHERE id > 500; COMMIT");
    let (rest, _) = read(&mut stream).await;
    assert_eq!(ids(&rest).last(), Some(&500));
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_its_statement() {
    let file = File::new(THOUSAND);
    let endless =
        "SELECT id, (WITH RECURSIVE n(value) AS (SELECT id UNION ALL SELECT value + 1 FROM n)
                   SELECT max(value) FROM n) AS most FROM t";
    let found = file.describe(&keyed(query(endless), &["id"])).await.unwrap();
    let options = options(&found, 50);
    let holder = Arc::clone(&options.holder);
    let mut stream = Arc::clone(&found).stream(Range::default(), options);
    assert!(futures::poll!(stream.next()).is_pending());
    // Longer than looking at the schema takes.
    file.writer.busy_timeout(Duration::from_millis(200)).unwrap();
    let is_free = || file.writer.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").is_ok();
    wait_for("the statement to run", DEADLINE, || (!is_free()).then_some(()));
    drop(stream);
    wait_for("the statement to end", DEADLINE, || is_free().then_some(()));
    wait_for("the page's memory", DEADLINE, || (holder.held() == 0).then_some(()));
}

#[tokio::test]
async fn what_is_no_database_is_told_in_one_line() {
    let file = File::new(THOUSAND);
    let folder = file.folder.path();
    let bytes = fs::read(file.path()).unwrap();
    fs::write(folder.join("text"), "id,name\n1,a\n".repeat(100)).unwrap();
    fs::write(folder.join("scrambled"), bytes.iter().map(|it| it ^ 0x5a).collect::<Vec<_>>())
        .unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    fs::write(folder.join("cut"), &bytes[..4096]).unwrap();
    for (name, said) in [
        ("missing", "there is no such file"),
        ("missing/too", "there is no such file"),
        ("text/below", "can't be looked at"),
        ("", "is a folder"),
        (":memory:", "there is no such file"),
        ("text", "is no SQLite database, or it is encrypted"),
        ("scrambled", "is no SQLite database, or it is encrypted"),
        ("empty", "there is no table or view t, nor any other"),
        ("cut", "is damaged"),
    ] {
        let database = Database::new(folder.join(name));
        let error = database.describe(&table("t"), Consistency::Pages).await.err();
        let line = error.unwrap_or_else(|| panic!("{name} is taken")).to_string();
        assert!(line.contains(said) && !line.contains('\n'), "{name}: {line}");
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_further_behind_gives_what_is_before() {
    let file = File::new(THOUSAND);
    file.execute("UPDATE t SET name = hex(zeroblob(500))");
    let mut bytes = fs::read(file.path()).unwrap();
    let length = bytes.len();
    bytes[length / 2..length * 3 / 4].fill(0xff);
    let path = file.folder.path().join("damaged");
    fs::write(&path, bytes).unwrap();
    let database = Database::new(path);
    let found = database.describe(&table("t"), Consistency::Pages).await.unwrap();
    let (rows, error) = read(&mut stream(&found, Range::default(), 50)).await;
    let error = error.unwrap().to_string();
    assert!(error.contains("is damaged") && !ids(&rows).is_empty(), "{error}");
}

#[tokio::test]
async fn a_huge_row_passes_alone_and_an_immense_one_is_refused() {
    let file = File::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB);
         INSERT INTO t VALUES (1, 'a'), (2, zeroblob(100000000)), (3, x'01'), (4, zeroblob(134217729));
         UPDATE t SET data = x'00' WHERE id = 1;",
    );
    let found = file.describe(&table("t")).await.unwrap();
    let options = options(&found, 50);
    let holder = Arc::clone(&options.holder);
    let mut stream = Arc::clone(&found).stream(Range::default(), options);
    for id in 1..=3 {
        let rows = next(&mut stream).await.unwrap().unwrap();
        assert_eq!(ids(std::slice::from_ref(&rows)), [id]);
        assert!(id != 2 || holder.held() > 100_000_000, "{}", holder.held());
    }
    let error = next(&mut stream).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("a row has more than 128 MiB"), "{error}");
    drop(stream);
    assert_eq!(holder.held(), 0);
}

#[tokio::test]
async fn pages_wait_for_the_budget_and_hold_no_more_than_they_are() {
    let file = File::new(THOUSAND);
    let found = file.describe(&table("t")).await.unwrap();
    let budget = ByteBudget::new(4096);
    let holder = Arc::new(budget.holder(found.bytes_min(4096)).unwrap());
    let options = Options { bytes_max: 4096, holder: Arc::clone(&holder), ..options(&found, 1000) };
    let mut stream = Arc::clone(&found).stream(Range::default(), options);
    let first = next(&mut stream).await.unwrap().unwrap();
    assert!(holder.held() <= 4096 * 5 / 4 && first.batch.num_rows() > 100, "{}", holder.held());
    assert!(futures::poll!(stream.next()).is_pending(), "the first one takes the room");
    let mut all = ids(&[first]);
    while let Some(rows) = next(&mut stream).await {
        all.extend(ids(&[rows.unwrap()]));
    }
    assert_eq!(all, Vec::from_iter(1..=1000));
    assert!(budget.usage().peak <= 4096 * 5 / 4, "{:?}", budget.usage());
}
