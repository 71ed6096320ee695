//! Which columns Parquet can hold.

use ::parquet::arrow::{ArrowSchemaConverter, parquet_to_arrow_schema};
use ::parquet::schema::types::SchemaDescriptor;
use arrow_schema::{DataType, Field, FieldRef, Schema, TimeUnit};
use tidegate_model::{Mistake, Result};

/// Which columns of rows with this schema are written: all.
///
/// # Errors
///
/// A mistake, with what to write instead, where Parquet has no type for one.
pub(crate) fn columns(schema: &Schema) -> Result<Vec<usize>, Mistake> {
    let fields = schema.fields();
    if fields.is_empty() {
        return Err(Mistake::new("Parquet can't hold rows without columns"));
    }
    if let Some(field) = fields.iter().find(|field| !has_name(field.data_type())) {
        return Err(untold(field));
    }
    // What is left are odd cases, such as decimals with a scale below zero.
    let odd = fields.iter().find(|field| described(&Schema::new(vec![(*field).clone()])).is_err());
    odd.map_or_else(|| Ok((0..fields.len()).collect()), |field| Err(untold(field)))
}

/// The schema as Parquet has it.
pub(super) fn described(schema: &Schema) -> ::parquet::errors::Result<SchemaDescriptor> {
    // The names that the format asks for in lists and maps, whatever ours are.
    ArrowSchemaConverter::new().with_coerce_types(true).convert(schema)
}

fn untold(field: &Field) -> Mistake {
    let (name, data_type) = (field.name(), field.data_type());
    let (help, to) = match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => ("make it finer", "TIMESTAMP"),
        DataType::Time32(TimeUnit::Second) => ("make it finer", "TIME"),
        _ => ("leave it out, or make it text", "VARCHAR"),
    };
    Mistake::new(format!("Parquet has no type for the column `{name}`: {data_type}"))
        .help(format!("{help} in SQL: CAST({name} AS {to})"))
}

/// Whether any reader will know what the values mean.
fn has_name(data_type: &DataType) -> bool {
    match data_type {
        DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::Union(..)
        | DataType::RunEndEncoded(..)
        | DataType::Timestamp(TimeUnit::Second, _)
        | DataType::Time32(TimeUnit::Second) => false,
        // Four bytes for what the format wants eight of: the writer can't do that.
        DataType::Decimal32(1, _) => false,
        DataType::List(of)
        | DataType::LargeList(of)
        | DataType::ListView(of)
        | DataType::LargeListView(of)
        | DataType::FixedSizeList(of, _)
        | DataType::Map(of, _) => has_name(of.data_type()),
        DataType::Struct(fields) => {
            !fields.is_empty() && fields.iter().all(|field| has_name(field.data_type()))
        }
        // Views in a dictionary are beyond the writer.
        DataType::Dictionary(_, of) => match &**of {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => true,
            of => of.is_primitive() && has_name(of),
        },
        _ => true,
    }
}

/// The first column in which a file and rows differ.
pub(super) fn difference(file: &SchemaDescriptor, rows: &SchemaDescriptor) -> String {
    let (Ok(file), Ok(rows)) =
        (parquet_to_arrow_schema(file, None), parquet_to_arrow_schema(rows, None))
    else {
        return "of types that can't be shown".to_owned();
    };
    let shown = |field: Option<&FieldRef>| {
        field.map_or("missing".to_owned(), |field| {
            let null = if field.is_nullable() { "" } else { ", never null" };
            format!("`{}` ({}{null})", field.name(), field.data_type())
        })
    };
    let count = file.fields().len().max(rows.fields().len());
    let mut pairs = (0..count).map(|at| (file.fields().get(at), rows.fields().get(at)));
    let differ = pairs.position(|(file, rows)| file != rows).unwrap_or(count);
    let (file, rows) = (shown(file.fields().get(differ)), shown(rows.fields().get(differ)));
    format!("number {} is {file} in the file, and {rows} in these", differ + 1)
}
