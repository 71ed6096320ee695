//! The tables that are read: made when a pair first wants them, removed at the end.

use std::cell::OnceCell;
use std::env;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate_testkit::bench::programs::{Outcome, Side, kept};
use tidegate_testkit::peers;
use tidegate_testkit::postgres::{Postgres, Version};
use tidegate_testkit::process::Program;

use crate::room;

/// Columns of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    table: &'static str,
    names: &'static str,
}

/// The table that most pairs read: a key, texts, an amount, a time and a flag.
pub(crate) const USERS: Columns =
    Columns { table: "users", names: "id, name, email, amount, created_at, active" };

/// One of times, numbers and codes, which text takes longer to say.
pub(crate) const READINGS: Columns =
    Columns { table: "readings", names: "id, at, device, value, error, note" };

impl Columns {
    /// All rows, in no order that is asked for.
    pub(crate) fn query(self) -> String {
        format!("SELECT {} FROM {}", self.names, self.table)
    }
}

/// The definition of `users`, but for the key.
pub(crate) const TABLE: &str = "(id bigint, name text NOT NULL, email text, \
    amount numeric(12, 2) NOT NULL, created_at timestamptz NOT NULL, active boolean NOT NULL)";

/// Rows with some hundred bytes each: no two the same, one email in fifty missing, one name in a
/// hundred in need of quotes, no amount whole (`sqlite3` writes `1.0`, and PostgreSQL `1`).
const FILL: &str = "INSERT INTO users SELECT i, \
    (ARRAY['Ada', 'Grace', 'Edsger', 'Barbara', 'Donald', 'Frances', 'Tony'])[1 + i % 7] || \
    (ARRAY[' Lovelace', ' Hopper', ' Dijkstra', ' Liskov', ' Knuth', ' Allen'])[1 + i % 6] || \
    CASE WHEN i % 100 = 0 THEN ', \"' || i || '\"' ELSE ' the ' || i || 'th' END, \
    CASE WHEN i % 50 > 0 THEN 'somebody.' || i * 7919 % 100000007 || '@mail.example.org' END, \
    (i * 104729 % 10000000 * 100 + 1 + i % 99)::numeric / 100, \
    timestamptz '2020-01-01 00:00:00+00' + i * interval '13.370001 s', i % 3 = 0 \
    FROM generate_series(1, ROWS::bigint) AS i";

/// Rows of `readings`: one error in twenty is missing.
const FILL_READINGS: &str = "INSERT INTO readings SELECT i, \
    timestamptz '2020-01-01 00:00:00+00' + i * interval '13.370001 s', \
    md5((i % 5000)::text)::uuid, sin(i) * 1000, CASE WHEN i % 20 > 0 THEN cos(i)::real END, \
    'sensor ' || i % 977 || ' in hall ' || i % 13 FROM generate_series(1, ROWS::bigint) AS i";

/// How many bytes of disk a row takes: each table twice, their log, and what both sides write.
const ROW_BYTES: u64 = 1_200;

/// Where the server's log is cut off behind what it has written.
const WAL_BYTES: u64 = 4 << 30;

/// A server with the tables `users` and `readings`, the former in SQLite too, and a folder.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) rows: u64,
    folder: TempDir,
    server: OnceCell<Postgres>,
    readings: OnceCell<()>,
    sqlite: OnceCell<PathBuf>,
    csv: OnceCell<PathBuf>,
}

impl Ground {
    /// Makes the folder, where the disk has room for so many rows.
    pub(crate) fn new(rows: u64) -> Outcome<Self> {
        let beside = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for folder in [beside, &env::temp_dir()] {
            room::demand(folder, rows * ROW_BYTES + WAL_BYTES, "--rows")?;
        }
        let folder = TempDir::with_prefix_in("databases-", beside)?;
        let (server, readings, sqlite, csv) = Default::default();
        Ok(Self { rows, folder, server, readings, sqlite, csv })
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The server, with the table in its database `postgres`.
    pub(crate) fn server(&self) -> Outcome<&Postgres> {
        kept(&self.server, || {
            let server = Postgres::of(Version::V18)
                .setting("shared_buffers", "256MB")
                .setting("max_wal_size", "4GB")
                // Nothing else is done meanwhile, and rows come as they lie there.
                .setting("autovacuum", "off")
                .setting("synchronize_seqscans", "off")
                .start();
            server.psql(&format!("CREATE TABLE users {TABLE}"));
            self.fill(&server, USERS, FILL);
            Ok(server)
        })
    }

    /// The server, with the table `readings` too.
    pub(crate) fn with_readings(&self) -> Outcome {
        let server = self.server()?;
        kept(&self.readings, || {
            server.psql(
                "CREATE TABLE readings (id bigint, at timestamptz NOT NULL, device uuid NOT NULL, \
                 value double precision NOT NULL, error real, note text NOT NULL)",
            );
            self.fill(server, READINGS, FILL_READINGS);
            Ok(())
        })
        .copied()
    }

    fn fill(&self, server: &Postgres, Columns { table, .. }: Columns, fill: &str) {
        server.psql(&fill.replace("ROWS", &self.rows.to_string()));
        server.psql(&format!("ALTER TABLE {table} ADD PRIMARY KEY (id)"));
        // Short rows went to where the others left room; now all lie in the key's order.
        server.psql(&format!("CLUSTER {table} USING {table}_pkey"));
        server.psql(&format!("VACUUM (FREEZE, ANALYZE) {table}; CHECKPOINT"));
    }

    /// `psql`, connected to a database of the server, with a command.
    pub(crate) fn psql(&self, database: &str, command: &str) -> Outcome<Vec<String>> {
        let server = self.server()?;
        let url = server.url_as(server.address(), "postgres", None, database);
        let mut psql = server.psql_to(&url);
        psql.args(["-q", "-c", command]);
        let words = [psql.get_program()].into_iter().chain(psql.get_args());
        Ok(words.map(|word| word.to_string_lossy().into_owned()).collect())
    }

    /// The table as `\copy` writes it, with a head.
    pub(crate) fn csv(&self) -> Outcome<&Path> {
        let path = kept(&self.csv, || {
            let path = self.path("users.csv");
            let command = copy_to(&USERS.query(), &path);
            let psql = self.psql("postgres", &command)?;
            Side::silent(&psql[0], &psql[1..]).cost()?;
            Ok(path)
        })?;
        Ok(path)
    }

    /// The same rows in a database of SQLite.
    pub(crate) fn sqlite(&self) -> Outcome<&Path> {
        let path = kept(&self.sqlite, || {
            let (path, csv) = (self.path("users.db"), self.csv()?);
            let script = format!(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;\n\
                 CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT, \
                 amount REAL NOT NULL, created_at TEXT NOT NULL, active INTEGER NOT NULL);\n\
                 CREATE TEMP TABLE texts ({});\n\
                 .import --schema temp --csv --skip 1 '{}' texts\n\
                 INSERT INTO users SELECT id, name, nullif(email, ''), amount, created_at, \
                 active = 't' FROM texts;\n\
                 ANALYZE;\n",
                USERS.names,
                csv.display()
            );
            let mut command = peers::sqlite3();
            command.arg(&path).stdin(std::process::Stdio::piped());
            let mut sqlite = Program::of(command);
            if let Some(mut stdin) = sqlite.child().stdin.take() {
                std::io::Write::write_all(&mut stdin, script.as_bytes())?;
            }
            let ended = sqlite.ended(std::time::Duration::from_secs(1_200));
            match ended.status.success() {
                true => Ok(path),
                false => Err(format!("sqlite3 can't make a table: {}", ended.stderr).into()),
            }
        })?;
        Ok(path)
    }
}

/// The command of `psql` that writes rows to a file.
pub(crate) fn copy_to(query: &str, path: &Path) -> String {
    format!("\\copy ({query}) to '{}' csv header", path.display())
}
