//! Structs, maps and lists as JSON: Postgres has columns for that.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, LargeStringArray, RecordBatch};
use arrow_buffer::{Buffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Schema};
use tidegate_db::postgres::encode::{Column as TableColumn, Form};
use tidegate_model::{Error, Mistake, Result};

use crate::codecs::values::{Column, Style, writable as has_form};

/// Whether all columns of such types have a form as JSON.
pub(super) fn writable(schema: &Schema) -> Result<(), Mistake> {
    let fields = schema.fields().iter();
    let mut nested = fields.filter(|field| field.data_type().is_nested());
    match nested.find(|field| !has_form(field.data_type(), Style::Json)) {
        None => Ok(()),
        Some(field) => {
            let (name, data_type) = (field.name(), field.data_type());
            let mistake = format!("the column `{name}` has no form as JSON: {data_type}");
            Err(Mistake::new(mistake).help("leave it out"))
        }
    }
}

/// The table's columns that these go into take JSON.
///
/// # Errors
///
/// `Fatal`, with the column and what to do, where one does not.
pub(super) fn check(schema: &Schema, columns: &[TableColumn]) -> Result<()> {
    let pairs = schema.fields().iter().zip(columns);
    let mut nested = pairs.filter(|(field, _)| field.data_type().is_nested());
    match nested.find(|(_, column)| !matches!(column.form, Form::Text | Form::Jsonb)) {
        None => Ok(()),
        Some((field, TableColumn { name, type_name, .. })) => Err(Error::fatal(format!(
            "table: the column `{name}` of type {type_name} can't take {}, which goes into jsonb, \
             json or text: change the table's column, or leave it out in SQL",
            field.data_type()
        ))),
    }
}

/// The schema of what [`flat`] makes.
pub(super) fn schema(schema: &Schema) -> Arc<Schema> {
    let fields = schema.fields().iter().map(|field| match field.data_type().is_nested() {
        true => Arc::new(Field::new(field.name(), DataType::LargeUtf8, field.is_nullable())),
        false => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The same rows with text in place of what is nested.
pub(super) fn flat(rows: &RecordBatch) -> Result<RecordBatch> {
    if !rows.columns().iter().any(|column| column.data_type().is_nested()) {
        return Ok(rows.clone());
    }
    let columns = rows.columns().iter().map(|column| match column.data_type().is_nested() {
        true => json(column),
        false => Ok(Arc::clone(column)),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema(rows.schema_ref()), columns).map_err(odd)
}

fn json(array: &ArrayRef) -> Result<ArrayRef> {
    let no_form = || Error::fatal(format!("{} has no form as JSON", array.data_type()));
    let column = Column::new(array, Style::Json).ok_or_else(no_form)?;
    let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(array.len() + 1));
    ends.push(0);
    for row in 0..array.len() {
        if !column.is_null(row) {
            column.write(row, &mut text);
        }
        ends.push(text.len() as i64);
    }
    let ends = OffsetBuffer::new(ends.into());
    let texts = LargeStringArray::try_new(ends, Buffer::from_vec(text), array.logical_nulls());
    Ok(Arc::new(texts.map_err(odd)?))
}

fn odd(error: arrow_schema::ArrowError) -> Error {
    Error::fatal("rows can't be made text").because(error)
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int32Type;
    use arrow_array::{Int32Array, ListArray};

    use super::*;

    #[test]
    fn lists_are_json_and_other_columns_stay() {
        let lists = vec![Some(vec![Some(1), None]), None, Some(vec![])];
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let rows = [("list", Arc::new(lists) as ArrayRef), ("number", Arc::clone(&numbers))];
        let rows = RecordBatch::try_from_iter(rows).unwrap();
        let flat = flat(&rows).unwrap();
        let texts: Vec<_> = flat.column(0).as_string::<i64>().iter().collect();
        assert_eq!(texts, [Some("[1,null]"), None, Some("[]")]);
        assert_eq!((flat.column(1), flat.schema()), (&numbers, schema(&rows.schema())));
        let column = |form| TableColumn { name: "list".into(), type_name: "int[]".into(), form };
        assert!(check(&rows.schema(), &[column(Form::Jsonb), column(Form::Int4)]).is_ok());
        let refused = check(&rows.schema(), &[column(Form::Unknown)]).unwrap_err();
        assert!(refused.to_string().starts_with("table: the column `list` of type int[] can't"));
    }
}
