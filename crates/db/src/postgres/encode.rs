//! Rows as `COPY … FROM STDIN` takes them: binary, but for tables with a column whose binary form is
//! not known here; there the server reads the text of all columns.
//!
//! | column of the table | takes |
//! |---|---|
//! | `boolean` | Boolean |
//! | `smallint`, `integer`, `bigint`, `oid` | integers, in its range |
//! | `real` | floats, in its range; integers that it holds exactly |
//! | `double precision` | floats; integers that it holds exactly |
//! | `numeric` | integers, floats, decimals, text |
//! | `text`, `varchar`, `char`, `name`, `json`, `xml`, `citext`, enums | text; Boolean, integers, floats, decimals as text |
//! | `jsonb` | text |
//! | `uuid` | text, FixedSizeBinary(16) |
//! | `bytea` | binary |
//! | `date` | Date32, Date64 |
//! | `time` | Time32, Time64 |
//! | `timestamp`, `timestamptz` | Timestamp: as UTC where one of both has no zone |
//! | `interval` | Duration, Interval |
//! | any other | text, as the server reads it |
//!
//! A domain takes what its base type takes, a dictionary is what its values are. What is finer than a
//! microsecond is cut off. The greatest and the least Date32 and microsecond Timestamp are `infinity`
//! and `-infinity`.

mod binary;
mod numeric;
mod text;
mod values;

use arrow_array::{Array, RecordBatch, new_empty_array};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Schema};

use crate::{Error, Result};

/// What a row's value does not fit its column for: `"a\0b" has a NUL, which …`.
type Misfit = Box<str>;

/// Appends the value of a row that is not null.
type Write<'a> = Box<dyn Fn(usize, &mut Vec<u8>) -> Result<(), Misfit> + Send + 'a>;

/// How the server takes values of a type in binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// One byte.
    Bool,
    /// Two bytes.
    Int2,
    /// Four bytes.
    Int4,
    /// Eight bytes.
    Int8,
    /// Four bytes without a sign.
    Oid,
    /// A float of four bytes.
    Float4,
    /// A float of eight bytes.
    Float8,
    /// Digits to the base of 10,000.
    Numeric,
    /// Its text.
    Text,
    /// Its text behind a version.
    Jsonb,
    /// Bytes as they are.
    Bytea,
    /// Sixteen bytes.
    Uuid,
    /// Days since 2000.
    Date,
    /// Microseconds of a day.
    Time,
    /// Microseconds since 2000, in UTC.
    Timestamp,
    /// Microseconds, days and months.
    Interval,
    /// Not known here: only its text can be given.
    Unknown,
}

impl Form {
    /// The form that a function of the server receives: `pg_proc.proname` of a type's `typreceive`.
    /// By it an enum is text, and so is a type of an extension that says so.
    pub fn received_by(function: &str) -> Self {
        match function {
            "boolrecv" => Self::Bool,
            "int2recv" => Self::Int2,
            "int4recv" => Self::Int4,
            "int8recv" => Self::Int8,
            "oidrecv" => Self::Oid,
            "float4recv" => Self::Float4,
            "float8recv" => Self::Float8,
            "numeric_recv" => Self::Numeric,
            "textrecv" | "varcharrecv" | "bpcharrecv" | "namerecv" | "citextrecv" | "json_recv"
            | "xml_recv" | "enum_recv" => Self::Text,
            "jsonb_recv" => Self::Jsonb,
            "bytearecv" => Self::Bytea,
            "uuid_recv" => Self::Uuid,
            "date_recv" => Self::Date,
            "time_recv" => Self::Time,
            "timestamp_recv" | "timestamptz_recv" => Self::Timestamp,
            "interval_recv" => Self::Interval,
            _ => Self::Unknown,
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as SQL writes it.
    pub type_name: String,
    /// How the server takes its values; a domain's is that of its base type.
    pub form: Form,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `FORMAT binary`.
    Binary,
    /// `FORMAT text`.
    Text,
}

impl Format {
    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Text => "text",
        }
    }

    /// What stands before all rows.
    pub fn head(self) -> &'static [u8] {
        match self {
            Self::Binary => b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0",
            Self::Text => b"",
        }
    }

    /// What stands behind all rows.
    pub fn tail(self) -> &'static [u8] {
        match self {
            Self::Binary => b"\xff\xff",
            Self::Text => b"",
        }
    }
}

/// Writes batches of one schema for one table.
#[derive(Clone, Debug)]
pub struct Encoder {
    columns: Vec<Column>,
    format: Format,
}

impl Encoder {
    /// For rows of a schema, whose columns go into these of the table, one by one.
    ///
    /// # Errors
    ///
    /// `Refused`, with the column and what to do, where one can't take what comes.
    pub fn new(schema: &Schema, columns: Vec<Column>) -> Result<Self> {
        if schema.fields().len() != columns.len() || i16::try_from(columns.len()).is_err() {
            let (rows, table) = (schema.fields().len(), columns.len());
            return Err(Error::refused(format!("rows of {rows} columns can't go into {table}")));
        }
        let mut format = Format::Binary;
        for (field, column) in schema.fields().iter().zip(&columns) {
            match format_for(field.data_type(), column.form) {
                Some(Format::Binary) => {}
                Some(Format::Text) => format = Format::Text,
                None => {
                    let Column { name, type_name, .. } = column;
                    return Err(Error::refused(format!(
                        "the column `{name}` of type {type_name} can't take {}: convert it in SQL \
                         with CAST({name} AS …), or change the table's column",
                        field.data_type()
                    )));
                }
            }
        }
        Ok(Self { columns, format })
    }

    /// How it writes them.
    pub fn format(&self) -> Format {
        self.format
    }

    /// A batch, ready to be written row by row.
    ///
    /// # Errors
    ///
    /// `Refused` where its columns are not those of the schema.
    pub fn rows<'a>(&'a self, batch: &'a RecordBatch) -> Result<Rows<'a>> {
        let values = self.columns.iter().zip(batch.columns());
        let values: Option<Vec<_>> = values
            .map(|(column, array)| {
                let write = match self.format {
                    Format::Binary => binary::writer(array, column.form),
                    Format::Text => text::writer(array, column.form),
                }?;
                let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
                Some(Values { nulls, write })
            })
            .collect();
        match values {
            Some(values) if values.len() == self.columns.len() => {
                Ok(Rows { encoder: self, values })
            }
            _ => Err(Error::refused("rows came with other columns than were announced")),
        }
    }
}

/// How a column of such rows can be written for such a column of a table.
fn format_for(data_type: &DataType, form: Form) -> Option<Format> {
    if binary::writer(&new_empty_array(data_type), form).is_some() {
        return Some(Format::Binary);
    }
    // The server would read text for bytes by escapes that may be no escapes.
    (is_text(data_type) && form != Form::Bytea).then_some(Format::Text)
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// A batch that is being written.
pub struct Rows<'a> {
    encoder: &'a Encoder,
    values: Vec<Values<'a>>,
}

/// A column of it.
struct Values<'a> {
    nulls: Option<NullBuffer>,
    write: Write<'a>,
}

impl std::fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("encoder", self.encoder).finish_non_exhaustive()
    }
}

impl Rows<'_> {
    /// Appends a row.
    ///
    /// # Errors
    ///
    /// Why the table can't take it, for people to read; nothing is appended then.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let start = out.len();
        let written = match self.encoder.format {
            Format::Binary => self.write_binary(row, out),
            Format::Text => self.write_text(row, out),
        };
        written.map_err(|(column, misfit)| {
            out.truncate(start);
            match self.encoder.columns.get(column) {
                Some(Column { name, type_name, .. }) => format!("{name} {type_name}: {misfit}"),
                None => misfit.into(),
            }
        })
    }

    fn write_binary(&self, row: usize, out: &mut Vec<u8>) -> Result<(), (usize, Misfit)> {
        out.extend_from_slice(&(self.values.len() as i16).to_be_bytes());
        for (index, column) in self.values.iter().enumerate() {
            if column.is_null(row) {
                out.extend_from_slice(&(-1_i32).to_be_bytes());
            } else {
                (column.write)(row, out).map_err(|misfit| (index, misfit))?;
            }
        }
        Ok(())
    }

    fn write_text(&self, row: usize, out: &mut Vec<u8>) -> Result<(), (usize, Misfit)> {
        for (index, column) in self.values.iter().enumerate() {
            if index > 0 {
                out.push(b'\t');
            }
            if column.is_null(row) {
                out.extend_from_slice(b"\\N");
            } else {
                (column.write)(row, out).map_err(|misfit| (index, misfit))?;
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

impl Values<'_> {
    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }
}

#[cfg(test)]
mod tests;
