//! `ndjson`: a row is a JSON object on a line of its own.
//!
//! Always valid JSON (RFC 8259), whatever the rows hold. Columns that are null are left out; what
//! stands for the rest:
//!
//! | of | is written |
//! |---|---|
//! | text | a string |
//! | integers, floats, decimals | a number with all its digits; NaN and infinities are `null` |
//! | timestamps | RFC 3339 in UTC, with the digits they need: `"2024-02-29T12:00:00.25Z"`; without a zone they are taken as UTC |
//! | dates, times of day | `"2024-02-29"`, `"12:00:00.25"` |
//! | durations | ISO 8601 in seconds: `"PT1.5S"` |
//! | bytes | base64 |
//! | structs, maps | an object; in a map a null is `null`, since its keys are data |
//! | lists | an array; a null in it is `null` |
//!
//! Intervals, unions and run-end encoded columns have no form here and are refused at `check`.

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use tidegate_model::{Error, Mistake, Result};

use super::Encoder;
use crate::codecs::values::{Object, Style, writable};

/// See the module.
pub const SPEC: Encoder = Encoder {
    summary: "a JSON object a line, of all columns; nulls are left out",
    columns,
    encode,
};

fn columns(schema: &Schema) -> Result<Vec<usize>, Mistake> {
    let fields = schema.fields();
    if let Some(field) = fields.iter().find(|field| !writable(field.data_type(), Style::Json)) {
        let (name, data_type) = (field.name(), field.data_type());
        return Err(Mistake::new(format!("ndjson can't write the column `{name}`: {data_type}"))
            .help(format!("leave it out, or make it text in SQL: CAST({name} AS VARCHAR)")));
    }
    Ok((0..fields.len()).collect())
}

fn encode(rows: &RecordBatch, from: usize, out: &mut Vec<u8>, enough: usize) -> Result<usize> {
    let schema = rows.schema_ref();
    let columns = schema.fields().iter().zip(rows.columns());
    let object = Object::new(columns.map(|(field, column)| (&**field, &**column)));
    let Some(object) = object else {
        return Err(Error::fatal(format!("ndjson can't write rows of the schema {schema}")));
    };
    let mut row = from;
    while row < rows.num_rows() && out.len() < enough {
        object.write(row, out);
        out.push(b'\n');
        row += 1;
    }
    Ok(row)
}
