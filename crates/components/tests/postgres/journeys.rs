//! Tables of any types go from Postgres to Postgres and are the same there.

use std::sync::Arc;
use std::time::Duration;

use arrow_schema::Schema;
use futures::StreamExt;
use tidegate_db::postgres::{Config, Consistency, Database};
use tidegate_db::{Options, Range, Reading, Relation, What};
use tidegate_flow::{Backoff, ByteBudget};
use tidegate_testkit::postgres::{Postgres, Version};
use tokio::time::timeout;

use crate::support::{DEADLINE, Memory, end, open};

/// Types, and an expression for a random value of each.
const TYPES: [(&str, &str); 28] = [
    ("boolean", "random() < 0.5"),
    ("smallint", "(random() * 65535 - 32768)::int::smallint"),
    ("integer", "(random() * 4e9 - 2e9)::bigint::int"),
    ("bigint", "((random() - 0.5) * 1.8e19)::bigint"),
    ("oid", "(random() * 4e9)::bigint::oid"),
    ("real", "(CASE WHEN random() < 0.1 THEN 'Infinity' ELSE exp(random() * 160 - 80) END)::real"),
    (
        "double precision",
        "CASE WHEN random() < 0.1 THEN 'NaN' ELSE -exp(random() * 1400 - 700) END",
    ),
    ("numeric(20,5)", "(random() * 1e15 - 5e14)::numeric(20,5)"),
    ("numeric(76,40)", "random()::numeric * 1e30 + random()::numeric * 1e-20"),
    ("numeric", "(random() - 0.5)::numeric ^ (random() * 40)::int"),
    ("text", "repeat(md5(random()::text) || E'\\t\\\\N\\n\\r\"é€😀', (random() * 9)::int)"),
    ("varchar(40)", "left(md5(random()::text), (random() * 40)::int)"),
    ("char(5)", "left(md5(random()::text), (random() * 5)::int)"),
    ("name", "md5(random()::text)"),
    ("bytea", "decode(repeat(md5(random()::text), (random() * 3)::int), 'hex')"),
    ("uuid", "md5(random()::text)::uuid"),
    ("json", "json_build_object('a', random(), 'b', E'\\\\ \"\\n')"),
    ("jsonb", "jsonb_build_array(random(), NULL, md5(random()::text))"),
    (
        "date",
        "CASE WHEN random() < 0.1 THEN 'infinity' ELSE date '4000-01-01 BC' + (random() * 5e6)::int END",
    ),
    ("time", "time '00:00' + random() * interval '1 day'"),
    ("timestamp", "timestamp '4000-01-01 BC' + random() * interval '14000 years'"),
    (
        "timestamptz",
        "CASE WHEN random() < 0.1 THEN '-infinity' ELSE now() - random() * interval '3000 years' END",
    ),
    ("interval", "random() * interval '10 years' - random() * interval '99 days 7 hours'"),
    ("integer[]", "ARRAY[(random() * 9)::int, NULL, 3]"),
    ("text[]", "ARRAY[[md5(random()::text), '\"'], ['{,}', '\\']]"),
    ("inet", "inet '10.0.0.0/8' + (random() * 1e6)::bigint"),
    ("int4range", "int4range((random() * 9)::int, 9 + (random() * 9)::int)"),
    ("mood", "(CASE WHEN random() < 0.5 THEN 'happy' ELSE 'sad' END)::mood"),
];

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
        server.psql("CREATE TYPE mood AS ENUM ('happy', 'sad')");
        for round in 0..12 {
            let mut types = TYPES.to_vec();
            random.shuffle(&mut types);
            // The first round has all of them.
            types.truncate(if round == 0 { types.len() } else { random.usize(1..8) });
            let numbered = || types.iter().enumerate();
            let columns = numbered().map(|(index, (name, _))| format!("c{index} {name}"));
            let values = numbered()
                .map(|(_, (_, value))| format!("CASE WHEN random() > 0.15 THEN {value} END"));
            let (columns, values) =
                (columns.collect::<Vec<_>>().join(", "), values.collect::<Vec<_>>().join(", "));
            let count = random.usize(1..4_000);
            server.psql(&format!(
                "DROP TABLE IF EXISTS a, b; SELECT setseed({});
                 CREATE TABLE a (id bigint PRIMARY KEY, {columns});
                 INSERT INTO a SELECT i, {values} FROM generate_series(1, {count}) AS i;
                 CREATE TABLE b (LIKE a)",
                random.f64()
            ));
            travel(&server, random.usize(100..3_000)).await;
            let differ = server.psql(
                "SELECT (SELECT count(*) FROM (SELECT a::text FROM a EXCEPT ALL SELECT b::text FROM b) AS x),
                        (SELECT count(*) FROM b)",
            );
            assert_eq!(differ, format!("0|{count}"), "seed {seed}, round {round}: {columns}");
        }
    }
}
