//! What is written down beside the rows: how far each input has come, and that a commit was made.

use std::fmt;
use std::sync::Arc;

use tidegate_db::identifier;
use tidegate_db::postgres::{Connection, TargetName, first_value};
use tidegate_model::{Delivered, Error, Partition, Result};

use super::verdict::failed;

/// Its table.
const NAME: &str = "tidegate_delivered";

/// Another that holds the lock is given so long to end by itself.
const LOCK_PATIENCE: &str = "3s";

/// A sink's rows in the table of the ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    // The table, in quotes.
    table: String,
    pipeline: String,
    sink: Arc<str>,
    // Whoever writes as this sink holds this lock of the server.
    lock: i64,
}

/// What is written down.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    /// How many commits there were.
    pub(super) commits: u64,
    pub(super) delivered: Vec<Delivered>,
}

impl Ledger {
    /// In the schema of the rows' table; made where there is none.
    pub(super) async fn find(
        connection: &mut Connection,
        rows: &TargetName,
        pipeline: String,
        sink: Arc<str>,
    ) -> Result<Self> {
        let table = TargetName { schema: rows.schema.clone(), table: NAME.to_owned() }.to_string();
        if !is_there(connection, &table).await.map_err(failed("table"))? {
            make(connection, &table, rows).await?;
        }
        let key = format!("tidegate {pipeline} {sink}");
        let lock = connection.query("SELECT pg_catalog.hashtextextended($1, 0)", &[&key]).await;
        let lock = first_value(lock.map_err(failed("table"))?).and_then(|key| key.parse().ok());
        let lock = lock.ok_or_else(|| Error::fatal("table: the server gave no key of a lock"))?;
        Ok(Self { table, pipeline, sink, lock })
    }

    /// Begins a transaction once whoever wrote as this sink before has ended, and reads what is
    /// written down. One that does not end is ended.
    pub(super) async fn take(&self, connection: &mut Connection) -> Result<Entries> {
        // Each statement must see what was committed before it.
        let begun = connection
            .simple(&format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL IMMEDIATE; \
                 SET LOCAL lock_timeout = '{LOCK_PATIENCE}'; \
                 SELECT pg_catalog.pg_advisory_xact_lock({}); SET LOCAL lock_timeout TO DEFAULT",
                self.lock
            ))
            .await;
        if let Err(error) = begun {
            // By our patience, or that of the server where it is less.
            let is_over = |code| code == "55P03" || code == "57014";
            if error.fault().is_some_and(|fault| is_over(&*fault.code)) {
                self.end_holder(connection).await?;
            }
            return Err(failed("url")(error));
        }
        let rows = connection
            .query(
                &format!(
                    "SELECT input, source, partition, \"end\" FROM {} \
                     WHERE pipeline = $1 AND sink = $2",
                    self.table
                ),
                &[&self.pipeline, &self.sink],
            )
            .await
            .map_err(failed("table"))?;
        let mut entries = Entries::default();
        for row in rows {
            let mut values = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || values.next().unwrap_or_default();
            let (input, source, partition, end) = (next(), next(), next(), next());
            let end = end.parse().map_err(|_| {
                Error::fatal(format!("table: {} has {end:?} for an end", self.table))
            })?;
            if (&*input, &*source) == ("", "") {
                entries.commits = end;
                continue;
            }
            entries.delivered.push(Delivered {
                input: input.into(),
                source: source.into(),
                partition: Partition::from(partition),
                end,
            });
        }
        Ok(entries)
    }

    /// Begins a transaction where nobody else can write as this sink, or has since so many commits.
    pub(super) async fn begin(&self, connection: &mut Connection, commits: u64) -> Result<()> {
        let begun = connection
            .simple(&format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL IMMEDIATE; \
                 SELECT pg_catalog.pg_try_advisory_xact_lock({})",
                self.lock
            ))
            .await;
        if first_value(begun.map_err(failed("url"))?).as_deref() != Some("t") {
            return Err(Error::disconnected(
                "another process writes as this sink: stop it, or give it another `data_dir`",
            ));
        }
        // Whoever had the lock meanwhile has given it back by now.
        let found = connection
            .query(
                &format!(
                    "SELECT \"end\" FROM {} WHERE pipeline = $1 AND sink = $2 \
                     AND input = '' AND source = '' AND partition = ''",
                    self.table
                ),
                &[&self.pipeline, &self.sink],
            )
            .await;
        let found = first_value(found.map_err(failed("table"))?).unwrap_or_else(|| "0".to_owned());
        if found == commits.to_string() { Ok(()) } else { Err(changed(&found, commits)) }
    }

    /// Writes down, in the transaction, how far each input has come, and which commit this is.
    pub(super) async fn record(
        &self,
        connection: &mut Connection,
        delivered: &[Delivered],
        commit: u64,
    ) -> Result<()> {
        let commit = commit.to_string();
        let ends: Vec<_> = delivered.iter().map(|delivered| delivered.end.to_string()).collect();
        let column = |of: fn(&Delivered) -> &str| array(delivered.iter().map(of));
        let statement = format!(
            "INSERT INTO {} (pipeline, sink, input, source, partition, \"end\") \
             SELECT $1::text, $2::text, '', '', '', $3::numeric UNION ALL \
             SELECT $1::text, $2::text, * FROM ROWS FROM (\
             pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[]), \
             pg_catalog.unnest($6::text[]), pg_catalog.unnest($7::numeric[])) AS moved \
             ON CONFLICT (pipeline, sink, input, source, partition) \
             DO UPDATE SET \"end\" = EXCLUDED.\"end\"",
            self.table
        );
        let parameters: [&str; 7] = [
            &self.pipeline,
            &self.sink,
            &commit,
            &column(|delivered| &delivered.input),
            &column(|delivered| &delivered.source),
            &column(|delivered| delivered.partition.as_str()),
            &array(ends.iter().map(String::as_str)),
        ];
        let recorded = connection.query(&statement, &parameters).await;
        recorded.map(drop).map_err(failed("table"))
    }

    /// Ends the session that holds the lock: of a process that is gone and whose end the server did
    /// not notice.
    async fn end_holder(&self, connection: &mut Connection) -> Result<()> {
        let (high, low) = (self.lock.cast_unsigned() >> 32, self.lock.cast_unsigned() as u32);
        let ended = connection
            .simple(&format!(
                "ROLLBACK; SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_locks \
                 WHERE locktype = 'advisory' AND objsubid = 1 AND granted \
                 AND classid = {high} AND objid = {low} AND database = \
                 (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
            ))
            .await;
        ended.map(drop).map_err(failed("url"))
    }
}

/// Another process writes as this sink, or did.
pub(super) fn changed(found: impl fmt::Display, made: u64) -> Error {
    Error::fatal(format!(
        "table: another has changed what is delivered: {found} commits are written down where \
         {made} were made: let one process write as this sink, and start again"
    ))
}

/// Makes the table of the ledger.
async fn make(connection: &mut Connection, table: &str, rows: &TargetName) -> Result<()> {
    let statement = format!(
        "CREATE TABLE IF NOT EXISTS {table} (pipeline text, sink text, input text, source text, \
         partition text, \"end\" numeric(20) NOT NULL, \
         PRIMARY KEY (pipeline, sink, input, source, partition))"
    );
    let Err(error) = make_table(connection, table, &statement).await else { return Ok(()) };
    match error.fault().map(|fault| fault.code.as_str()) {
        Some("42501") => {
            let user = identifier(&connection.config().user);
            let said = format!(
                "table: what is delivered is kept beside {rows}, and {user} may not make a table \
                 there: have its owner run: {statement}; GRANT SELECT, INSERT, UPDATE ON {table} TO \
                 {user}"
            );
            Err(Error::fatal(said).because(error))
        }
        _ => Err(failed("table")(error)),
    }
}

/// Makes a table, where nobody else makes it at the same moment.
pub(super) async fn make_table(
    connection: &mut Connection,
    table: &str,
    statement: &str,
) -> tidegate_db::Result<()> {
    let Err(error) = connection.simple(statement).await else { return Ok(()) };
    // What the server says of two at once, IF NOT EXISTS or not: that a unique index has the table
    // or its type, that there is such a table, or such a type. The other has committed by then.
    let is_made = |code: &str| matches!(code, "23505" | "42P07" | "42710");
    let by_another = error.fault().is_some_and(|fault| is_made(&fault.code));
    if by_another && is_there(connection, table).await? { Ok(()) } else { Err(error) }
}

async fn is_there(connection: &mut Connection, table: &str) -> tidegate_db::Result<bool> {
    let found = connection.query("SELECT pg_catalog.to_regclass($1)", &[table]).await;
    Ok(first_value(found?).is_some())
}

/// An array as Postgres reads it from text.
pub(super) fn array<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let quoted = items.map(|item| {
        let item = item.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{item}\"")
    });
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_an_array_are_quoted() {
        assert_eq!(array([].into_iter()), "{}");
        assert_eq!(array(["a,b", "", "x\"y\\z"].into_iter()), r#"{"a,b","","x\"y\\z"}"#);
    }
}
