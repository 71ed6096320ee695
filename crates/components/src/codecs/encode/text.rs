//! `text`: the message of each row, and a line end.
//!
//! What is written is the column `message`, or the only column there is. Text and bytes are written
//! as they are, so a message of several lines becomes several lines; numbers, times and such are
//! written as `ndjson` does, without quotes. A null is an empty line.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::Schema;
use tidegate_model::{Error, Mistake, Result};

use super::Encoder;
use crate::codecs::values::{Column, Style, writable};

/// See the module.
pub const SPEC: Encoder = Encoder {
    summary: "a line of text each: the column `message`, or the only one",
    columns,
    encode,
};

const MESSAGE: &str = "message";

fn columns(schema: &Schema) -> Result<Vec<usize>, Mistake> {
    let fields = schema.fields();
    let Some(column) = line_column(schema) else {
        let names: Vec<_> = fields.iter().map(|field| format!("`{}`", field.name())).collect();
        let which = match names.len() {
            0 => "there are no columns".to_owned(),
            count => format!("these rows have {count} columns: {}", names.join(", ")),
        };
        return Err(Mistake::new(format!(
            "text writes the column `{MESSAGE}`, or the only one, and {which}"
        ))
        .help("write all columns with codec = \"ndjson\", or name one of them `message` in SQL"));
    };
    let field = &fields[column];
    if !writable(field.data_type(), Style::Plain) {
        let (name, data_type) = (field.name(), field.data_type());
        return Err(Mistake::new(format!("text can't write the column `{name}`: {data_type}"))
            .help("write it with codec = \"ndjson\", or take a part of it in SQL"));
    }
    Ok(vec![column])
}

fn line_column(schema: &Schema) -> Option<usize> {
    let only = (schema.fields().len() == 1).then_some(0);
    schema.index_of(MESSAGE).ok().or(only)
}

fn encode(rows: &RecordBatch, from: usize, out: &mut Vec<u8>, enough: usize) -> Result<usize> {
    let schema = rows.schema_ref();
    let unwritable = || Error::fatal(format!("text can't write rows of the schema {schema}"));
    let column = rows.column(line_column(schema).ok_or_else(unwritable)?);
    if let Some(messages) = column.as_string_view_opt() {
        // What logs have: a third faster than through a writer.
        let write = |row, out: &mut Vec<u8>| {
            if messages.is_valid(row) {
                out.extend_from_slice(messages.value(row).as_bytes());
            }
        };
        return Ok(lines(rows, from, out, enough, write));
    }
    let column = Column::new(column, Style::Plain).ok_or_else(unwritable)?;
    let write = |row, out: &mut Vec<u8>| {
        if !column.is_null(row) {
            column.write(row, out);
        }
    };
    Ok(lines(rows, from, out, enough, write))
}

fn lines(
    rows: &RecordBatch,
    from: usize,
    out: &mut Vec<u8>,
    enough: usize,
    write: impl Fn(usize, &mut Vec<u8>),
) -> usize {
    let mut row = from;
    while row < rows.num_rows() && out.len() < enough {
        write(row, out);
        out.push(b'\n');
        row += 1;
    }
    row
}
