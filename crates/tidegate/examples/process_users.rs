//! Every user of a table is worked on: so many at a time and no more, again where it fails and may not
//! the next time, and a stop in the middle ends cleanly. The database is read as fast as users are
//! worked on, a page ahead at most.
//!
//! ```sh
//! cargo run --example process_users -- sqlite:app.db     # or postgres://user@host/database
//! ```
//!
//! The table is `users`, with the columns `id` and `email`.

use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use futures::{StreamExt, TryStreamExt, stream};
use tidegate::db::{self, Consistency, Options, Range, Reading, Relation, What};
use tidegate::flow::{Backoff, ByteBudget, FlowExt, nz};

/// The rows of a batch, and of a page.
const ROWS: usize = 1_000;

/// The memory for all of them.
const BYTES: usize = 16 << 20;

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// The key.
    pub id: i64,
    /// May be null.
    pub email: Option<String>,
}

/// Why a user could not be worked on.
#[derive(Debug)]
pub struct Failed {
    /// What happened.
    pub why: String,
    /// Whether it may be otherwise next time.
    pub may_pass: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// How it went.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Users that were worked on.
    pub done: u64,
    /// Users that were given up.
    pub failed: Vec<i64>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("name a database: sqlite:FILE or postgres://…")?;
    let users = describe(&url).await?;
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    let outcome = run(users, nz!(8), stop, |user: User| async move {
        println!("welcome, {}", user.email.as_deref().unwrap_or("whoever you are"));
        Ok(())
    });
    let Outcome { done, failed } = outcome.await?;
    println!("{done} done, {} given up", failed.len());
    Ok(())
}

/// Looks at the table.
pub async fn describe(url: &str) -> db::Result<Arc<dyn Relation>> {
    let query = What::Query("SELECT id, email FROM users".into());
    let users = Reading { what: query, filter: None, key: Some(vec!["id".into()]) };
    Ok(match url.strip_prefix("sqlite:") {
        Some(path) => db::sqlite::Database::new(path).describe(&users, Consistency::Pages).await?,
        None => {
            let database = db::postgres::Database::new(db::postgres::Config::parse(url)?);
            database.describe(&users, Consistency::Pages).await?
        }
    })
}

/// Works on every user. After `stop` no other is begun; those that were are worked on to the end.
pub async fn run<W>(
    users: Arc<dyn Relation>,
    at_a_time: NonZeroUsize,
    stop: impl Future<Output = ()>,
    work: impl Fn(User) -> W + Send + Sync + 'static,
) -> db::Result<Outcome>
where
    W: Future<Output = Result<(), Failed>> + Send + 'static,
{
    let budget = ByteBudget::new(BYTES);
    let holder = budget.holder(users.bytes_min(1 << 20));
    let holder = holder.map_err(|error| db::Error::refused("BYTES").because(error))?;
    let options = Options {
        columns: vec![0, 1],
        rows_max: ROWS,
        bytes_max: 1 << 20,
        page_rows_max: ROWS,
        holder: Arc::new(holder),
        // A connection that breaks is made again, and reading goes on after the last row.
        backoff: Some(Backoff::default()),
    };
    let rows = users.stream(Range::default(), options);
    let users = rows.map_ok(|rows| {
        let ids = rows.batch.column(0).as_primitive::<Int64Type>();
        let emails = rows.batch.column(1).as_string::<i32>();
        let user = ids
            .values()
            .iter()
            .zip(emails)
            .map(|(id, email)| Ok(User { id: *id, email: email.map(str::to_owned) }));
        stream::iter(user.collect::<Vec<_>>())
    });
    let users = users.try_flatten().take_until(stop);
    let work = Arc::new(work);
    let worked = users.concurrent_map(at_a_time, move |user: db::Result<User>| {
        let work = Arc::clone(&work);
        async move {
            let user = user?;
            let backoff = Backoff::exponential(Duration::from_millis(50)..=Duration::from_secs(5));
            let tries = stream::iter([Ok(user.clone())]);
            let tries = tries.retry(backoff.retries(4), |user: &User| work(user.clone()));
            let mut tries = pin!(tries.only_if(|failed: &Failed| failed.may_pass));
            let failed = matches!(tries.next().await, Some(Err(_)));
            Ok((user.id, failed))
        }
    });
    let outcome = worked.try_fold(Outcome::default(), |mut outcome, (id, failed)| async move {
        match failed {
            true => outcome.failed.push(id),
            false => outcome.done += 1,
        }
        Ok(outcome)
    });
    outcome.await
}
