//! Tables of any types go from Postgres to Postgres and are the same there.

use std::sync::Arc;
use std::time::Duration;

use arrow_schema::Schema;
use futures::StreamExt;
use tidegate_db::postgres::{Config, Database};
use tidegate_db::{Consistency, Options, Range, Reading, Relation, What};
use tidegate_flow::{Backoff, ByteBudget};
use tidegate_testkit::postgres::random::{MOOD, TYPES, table};
use tidegate_testkit::postgres::{Postgres, Version};
use tokio::time::timeout;

use crate::support::{DEADLINE, Memory, end, open};

/// Reads the table `a` and writes it to `b`.
async fn travel(server: &Postgres, page_rows_max: usize) {
    let database = Database::new(Config::parse(&server.url()).unwrap());
    let reading = Reading { what: What::Table("a".into()), filter: None, key: None };
    let table = database.describe(&reading, Consistency::Pages).await.unwrap();
    let schema: &Schema = table.schema();
    let budget = ByteBudget::new(16 << 20);
    let delays = Duration::from_millis(10)..=Duration::from_millis(100);
    let options = Options {
        columns: (0..schema.fields().len()).collect(),
        rows_max: 1_000,
        bytes_max: 1 << 20,
        page_rows_max,
        holder: Arc::new(budget.holder(table.bytes_min(1 << 20)).unwrap()),
        backoff: Some(Backoff::exponential(delays)),
    };
    let records = Arc::new(Memory::default());
    let schema = Arc::new(schema.clone());
    let (mut sink, _) = open(&server.url(), "table = 'b'", &schema, &records).await.unwrap();
    let mut stream = Arc::clone(&table).stream(Range::default(), options);
    while let Some(rows) = timeout(DEADLINE, stream.next()).await.unwrap() {
        let written = sink.write(&rows.unwrap().batch).await.unwrap();
        assert_eq!(written.rejected, []);
    }
    sink.commit(&[end(1)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL; run by cargo xtask test"]
async fn random_tables_are_the_same_behind_a_journey() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for version in Version::all() {
        let server = Postgres::of(version).start();
        server.psql(MOOD);
        for round in 0..12 {
            server.psql("DROP TABLE IF EXISTS a, b");
            // The first round has all of them.
            let columns = table(&server, "a", &TYPES, round == 0, &mut random);
            server.psql("CREATE TABLE b (LIKE a)");
            let count = server.psql("SELECT count(*) FROM a");
            travel(&server, random.usize(100..3_000)).await;
            let differ = server.psql(
                "SELECT (SELECT count(*) FROM (SELECT a::text FROM a EXCEPT ALL SELECT b::text FROM b) AS x),
                        (SELECT count(*) FROM b)",
            );
            assert_eq!(differ, format!("0|{count}"), "seed {seed}, round {round}: {columns}");
        }
    }
}
