//! `text`: the message of each row, and a line end.
//!
//! What is written is the column `message`, or the only column there is. Text and bytes are written
//! as they are, so a message of several lines becomes several lines; numbers, times and such are
//! written as `ndjson` does, without quotes. A null is an empty line.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringViewArray};
use arrow_data::{ByteView, MAX_INLINE_VIEW_LEN};
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
    if let Some(views) = column.as_string_view_opt() {
        return Ok(encode_views(views, from, out, enough));
    }
    let column = Column::new(column, Style::Plain).ok_or_else(unwritable)?;
    let mut row = from;
    while row < rows.num_rows() && out.len() < enough {
        if !column.is_null(row) {
            column.write(row, out);
        }
        out.push(b'\n');
        row += 1;
    }
    Ok(row)
}

/// Lines of one buffer, one after the other as they were read.
struct Run<'a> {
    buffer: u32,
    bytes: &'a [u8],
    start: usize,
    end: usize,
}

impl Run<'_> {
    /// Makes it longer by a line, where that is what comes next in the buffer.
    fn extend(&mut self, view: &ByteView) -> bool {
        let next = view.buffer_index == self.buffer && view.offset as usize == self.end + 1;
        if next && self.bytes.get(self.end) == Some(&b'\n') {
            self.end += 1 + view.length as usize;
            return true;
        }
        false
    }

    fn copy(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[self.start..self.end]);
        out.push(b'\n');
    }
}

/// Lines that nobody filtered or changed still lie in a row in the buffer they were read into: such
/// a run is copied in one go.
fn encode_views(views: &StringViewArray, from: usize, out: &mut Vec<u8>, enough: usize) -> usize {
    let mut run: Option<Run<'_>> = None;
    let mut row = from;
    while row < views.len() {
        let waiting = run.as_ref().map_or(0, |run| run.end - run.start + 1);
        if out.len() + waiting >= enough {
            break;
        }
        let view = ByteView::from(views.views()[row]);
        let null = views.is_null(row);
        if null || view.length <= MAX_INLINE_VIEW_LEN {
            run.take().inspect(|run| run.copy(out));
            out.extend_from_slice(if null { b"" } else { views.value(row).as_bytes() });
            out.push(b'\n');
        } else if !run.as_mut().is_some_and(|run| run.extend(&view)) {
            run.inspect(|run| run.copy(out));
            let start = view.offset as usize;
            run = Some(Run {
                buffer: view.buffer_index,
                bytes: &views.data_buffers()[view.buffer_index as usize],
                start,
                end: start + view.length as usize,
            });
        }
        row += 1;
    }
    run.inspect(|run| run.copy(out));
    row
}
