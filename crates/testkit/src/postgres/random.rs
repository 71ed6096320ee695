//! Tables of random types with random rows.

use fastrand::Rng;

use super::Postgres;

/// Makes an enum that is one of the types.
pub const MOOD: &str = "CREATE TYPE mood AS ENUM ('happy', 'sad')";

/// Types, and an expression for a random value of each; [`MOOD`] is to be made before.
pub const TYPES: [(&str, &str); 28] = [
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

/// Makes a table with a key `id` and columns of some of these types, or of all, fills it with random
/// rows, nulls among them, and says what its columns are.
///
/// # Panics
///
/// As [`Postgres::psql`].
#[track_caller]
pub fn table(
    server: &Postgres,
    name: &str,
    types: &[(&str, &str)],
    all: bool,
    random: &mut Rng,
) -> String {
    let mut types = types.to_vec();
    random.shuffle(&mut types);
    types.truncate(if all { types.len() } else { random.usize(1..8) });
    let numbered = || types.iter().enumerate();
    let columns = numbered().map(|(index, (name, _))| format!("c{index} {name}"));
    let values =
        numbered().map(|(_, (_, value))| format!("CASE WHEN random() > 0.15 THEN {value} END"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let values = values.collect::<Vec<_>>().join(", ");
    server.psql(&format!(
        "SELECT setseed({}); CREATE TABLE {name} (id bigint PRIMARY KEY, {columns});
         INSERT INTO {name} SELECT i, {values} FROM generate_series(1, {}) AS i;",
        random.f64(),
        random.usize(1..4_000)
    ));
    columns
}
