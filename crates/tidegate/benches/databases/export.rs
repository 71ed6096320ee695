//! `export` against `psql -c '\copy … to'` and `sqlite3 -csv`.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::Duration;

use tidegate_testkit::bench::programs::{Clock, Goal, Outcome, Programs, Side};
use tidegate_testkit::peers;
use tidegate_testkit::process::Program;

use crate::TIDEGATE;
use crate::ground::{Columns, Ground, READINGS, USERS, copy_to};

/// The most memory that an export may have, in MiB, however many rows there are.
const PEAK_MIB: u64 = 96;

/// A small part of the table.
const FEW_ROWS: u64 = 100_000;

/// How long a count of rows may take.
const DEADLINE: Duration = Duration::from_secs(300);

pub(crate) fn run(bench: &mut Programs, ground: &Ground) {
    bench.section("export: Postgres to a file vs psql -c '\\copy … to FILE csv header'");
    let goal = Goal::SpeedAndPeak(Clock::Wall, 1.2, PEAK_MIB);
    bench.pair("CSV, one worker", goal, || {
        let ours = export(ground, USERS, "out.csv", &["--workers", "1"])?;
        Ok((ours, copied(ground, USERS, "")?))
    });
    bench.pair("CSV, one worker, times and numbers", goal, || {
        ground.with_readings()?;
        let ours = export(ground, READINGS, "out.csv", &["--workers", "1"])?;
        Ok((ours, copied(ground, READINGS, "")?))
    });
    bench.pair("CSV, one worker, psql in the key's order too", Goal::None, || {
        let ours = export(ground, USERS, "out.csv", &["--workers", "1"])?;
        Ok((ours, copied(ground, USERS, " ORDER BY id")?))
    });
    bench.pair("CSV, two workers", Goal::None, || {
        let ours = export(ground, USERS, "out.csv", &["--workers", "2"])?;
        Ok((ours, copied(ground, USERS, "")?))
    });
    let goal = Goal::SpeedAndPeak(Clock::Wall, 1.0, PEAK_MIB);
    parquet(bench, ground, "Parquet, one worker", goal, None);
    bench.compared("NDJSON, one worker", Goal::None, || {
        let mut ours = export(ground, USERS, "out.ndjson", &["--workers", "1"])?;
        let mut theirs = copied(ground, USERS, "")?;
        Ok((move || ours.cost(), move || theirs.cost()))
    });

    let few = FEW_ROWS.min(ground.rows);
    let filter = format!("id <= {few}");
    bench.pair(&format!("CSV, {few} rows"), Goal::Peak(PEAK_MIB), || {
        let ours = export(ground, USERS, "out.csv", &["--workers", "1", "--where", &filter])?;
        Ok((ours, copied(ground, USERS, &format!(" WHERE {filter}"))?))
    });
    parquet(bench, ground, &format!("Parquet, {few} rows"), Goal::Peak(PEAK_MIB), Some(few));

    bench.section("export: SQLite to a file vs sqlite3 -csv");
    let goal = Goal::SpeedAndPeak(Clock::Wall, 1.0, PEAK_MIB);
    bench.compared("CSV, one worker", goal, || {
        let (database, folder) = (ground.sqlite()?, ground.path("ours"));
        let (our, their) = (folder.join("out.csv"), ground.path("theirs.csv"));
        let address = format!("sqlite:{}", database.display());
        let args = ["export", &address, "--table", "users", "--workers", "1", "--to"];
        let args = args.iter().map(Path::new).chain([our.as_path()]);
        let mut ours = Side::writes(TIDEGATE, args, &our).fresh(&folder);
        let query = USERS.query();
        let args = ["-batch", "-init", "/dev/null", "-csv", "-header"].map(str::to_owned);
        let args = args.into_iter().chain([database.display().to_string(), query]);
        let mut theirs = Side::prints("sqlite3", args, &their);
        ours.cost()?;
        theirs.cost()?;
        equal_but_for_quotes(&our, &their)?;
        Ok((move || ours.cost(), move || theirs.cost()))
    });
}

/// `tidegate export` of a table to a file in a folder that was empty before.
fn export(ground: &Ground, columns: Columns, name: &str, more: &[&str]) -> Outcome<Side> {
    let (url, folder) = (ground.server()?.url(), ground.path("ours"));
    let (query, file) = (columns.query(), folder.join(name));
    let args = ["export", &url, "--query", &query].into_iter().chain(more.iter().copied());
    let args = args.chain(["--to"]).map(Path::new).chain([file.as_path()]);
    Ok(Side::writes(TIDEGATE, args, &file).fresh(&folder))
}

/// The same by `psql`, of a query that goes on like this.
fn copied(ground: &Ground, columns: Columns, rest: &str) -> Outcome<Side> {
    let (query, file) = (columns.query() + rest, ground.path("theirs.csv"));
    let psql = ground.psql("postgres", &copy_to(&query, &file))?;
    Ok(Side::writes(&psql[0], &psql[1..], &file))
}

/// A pair of which ours writes Parquet, and theirs CSV; DuckDB counts our rows.
fn parquet(bench: &mut Programs, ground: &Ground, name: &str, goal: Goal, few: Option<u64>) {
    bench.compared(name, goal, || {
        let filter = few.map(|few| format!("id <= {few}"));
        let mut more = vec!["--workers", "1"];
        more.extend(filter.iter().flat_map(|filter| ["--where", filter]));
        let mut ours = export(ground, USERS, "out.parquet", &more)?;
        let filter = filter.map_or(String::new(), |filter| format!(" WHERE {filter}"));
        let mut theirs = copied(ground, USERS, &filter)?;
        ours.cost()?;
        has_rows(&ground.path("ours").join("out.parquet"), few.unwrap_or(ground.rows))?;
        Ok((move || ours.cost(), move || theirs.cost()))
    });
}

/// Whether a Parquet file has the first rows of the table.
fn has_rows(file: &Path, rows: u64) -> Outcome {
    let mut command = peers::duckdb();
    let count = "import sys, duckdb; print(*duckdb.execute(\
                 'SELECT count(*), sum(id) FROM read_parquet($1)', [sys.argv[1]]).fetchone())";
    command.args(["-c", count]).arg(file);
    let ended = Program::of(command).ended(DEADLINE);
    let expected = format!("{rows} {}\n", u128::from(rows) * u128::from(rows + 1) / 2);
    if ended.stdout == expected {
        return Ok(());
    }
    let said = format!("{}{}", ended.stdout, ended.stderr);
    Err(format!("{}: rows and their sum are {expected}not {said}", file.display()).into())
}

/// Whether two CSV files have the same values: `sqlite3` has quotes around what has a space, and ends
/// lines with CR LF.
fn equal_but_for_quotes(ours: &Path, theirs: &Path) -> Outcome {
    let bytes = |path: &Path| -> Outcome<_> {
        let bytes = BufReader::with_capacity(1 << 20, File::open(path)?).bytes();
        Ok(bytes.filter(|byte| !matches!(byte, Ok(b'"' | b'\r'))))
    };
    let (mut our, mut their) = (bytes(ours)?, bytes(theirs)?);
    let mut offset = 0_u64;
    loop {
        match (our.next().transpose()?, their.next().transpose()?) {
            (None, None) => return Ok(fs::remove_file(theirs)?),
            (our, their) if our == their => offset += 1,
            _ => return Err(format!("values differ at byte {offset}, without quotes").into()),
        }
    }
}
