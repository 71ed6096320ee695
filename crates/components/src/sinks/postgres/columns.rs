//! The types of the columns that rows go into, which are encoded for them: some bytes are a value of
//! another type too, and so nothing is committed into a column whose type was changed.

use arrow_schema::Schema;
use tidegate_db::postgres::{Connection, TargetName, first_value};
use tidegate_model::{Error, Result};

use super::ledger::array;
use super::verdict::failed;

/// Their types when the table was opened.
#[derive(Debug)]
pub(super) struct ColumnTypes {
    table: String,
    // An array of their names, as Postgres reads it.
    names: String,
    types: Option<String>,
}

impl ColumnTypes {
    /// Those of a table that rows of a schema go into.
    pub(super) async fn find(
        connection: &mut Connection,
        table: &TargetName,
        schema: &Schema,
    ) -> Result<Self> {
        let names = array(schema.fields().iter().map(|field| field.name().as_str()));
        let mut found = Self { table: table.to_string(), names, types: None };
        found.types = found.now(connection).await?;
        Ok(found)
    }

    /// They are what they were.
    ///
    /// # Errors
    ///
    /// `Fatal` where one is not, or is gone.
    pub(super) async fn check(&self, connection: &mut Connection) -> Result<()> {
        let (table, now) = (&self.table, self.now(connection).await?);
        if now == self.types {
            return Ok(());
        }
        Err(Error::fatal(match now {
            Some(_) => format!(
                "table: the columns of {table} were changed since it was opened: start again; \
                 nothing is lost"
            ),
            None => format!(
                "table: there is no {table} any more, or none of its columns: name it as it is now"
            ),
        }))
    }

    async fn now(&self, connection: &mut Connection) -> Result<Option<String>> {
        let found = connection
            .query(
                "SELECT pg_catalog.string_agg(atttypid::text, ' ' ORDER BY attname) \
                 FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($1) \
                 AND attname = ANY ($2::name[]) AND NOT attisdropped",
                &[&self.table, &self.names],
            )
            .await;
        found.map(first_value).map_err(failed("table"))
    }
}
