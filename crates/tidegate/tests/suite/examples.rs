//! What the examples show is true.

#[path = "../../examples/process_users.rs"]
#[allow(dead_code, unreachable_pub, reason = "an example is a program of its own")]
mod process_users;
#[path = "../../examples/query_to_csv.rs"]
#[allow(dead_code, unreachable_pub, reason = "an example is a program of its own")]
mod query_to_csv;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use process_users::{Failed, Outcome};
use tidegate::flow::nz;
use tokio::sync::oneshot;

use crate::support::Folder;

/// A database of so many users, and where it is.
fn users(folder: &Folder, count: u32) -> String {
    let path = folder.path().join("app.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch(&format!(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
             INSERT INTO users SELECT i, 'user ' || i, nullif(i || '@example.com', '2@example.com')
             FROM n;"
        ))
        .unwrap();
    format!("sqlite:{}", path.display())
}

#[tokio::test]
async fn each_user_is_worked_on_with_so_many_at_a_time_and_tried_again() {
    let folder = Folder::new();
    let users = process_users::describe(&users(&folder, 2_500)).await.unwrap();
    let (now, most): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let tries: Arc<Mutex<HashMap<i64, u32>>> = Arc::default();
    let (seen, tried) = (Arc::clone(&most), Arc::clone(&tries));
    let outcome = process_users::run(users, nz!(7), std::future::pending(), move |user| {
        let (now, most, tries) = (Arc::clone(&now), Arc::clone(&seen), Arc::clone(&tried));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::Relaxed);
            let tried = *tries.lock().unwrap().entry(user.id).and_modify(|n| *n += 1).or_insert(1);
            let failed = |may_pass| Err(Failed { why: "no".into(), may_pass });
            match user.id {
                10 if tried < 3 => failed(true),
                20 => failed(true),
                30 => failed(false),
                _ => Ok(()),
            }
        }
    });
    let Outcome { done, mut failed } = outcome.await.unwrap();
    failed.sort_unstable();
    assert_eq!((done, failed), (2_498, vec![20, 30]));
    assert_eq!(most.load(Ordering::Relaxed), 7);
    let tries = tries.lock().unwrap();
    assert_eq!([10, 20, 30, 40].map(|id| tries[&id]), [3, 5, 1, 1]);
}

#[tokio::test]
async fn a_stop_in_the_middle_ends_what_was_begun_and_begins_nothing() {
    let folder = Folder::new();
    let users = process_users::describe(&users(&folder, 2_500)).await.unwrap();
    let counts: Arc<(AtomicUsize, AtomicUsize)> = Arc::default();
    let (stop, stopped) = oneshot::channel();
    let stop = Arc::new(Mutex::new(Some(stop)));
    let counted = Arc::clone(&counts);
    let outcome = process_users::run(users, nz!(4), async { drop(stopped.await) }, move |_| {
        let (counts, stop) = (Arc::clone(&counted), Arc::clone(&stop));
        async move {
            let (begun, ended) = &*counts;
            if begun.fetch_add(1, Ordering::Relaxed) == 99 {
                stop.lock().unwrap().take().unwrap().send(()).unwrap();
            }
            tokio::task::yield_now().await;
            ended.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    });
    let done = outcome.await.unwrap().done as usize;
    assert!((100..200).contains(&done), "{done}");
    let (begun, ended) = &*counts;
    assert_eq!((begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed)), (done, done));
}

#[tokio::test]
async fn a_query_is_streamed_as_csv() {
    let folder = Folder::new();
    let url = users(&folder, 20_000);
    let mut out = Vec::new();
    let query = "SELECT id, name, email FROM users WHERE id <> 3";
    let rows = query_to_csv::run(&url, query, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!((rows, text.lines().count()), (19_999, 19_999));
    assert!(text.starts_with("1,user 1,1@example.com\n2,user 2,\n4,user 4,"), "{}", &text[..60]);
}
