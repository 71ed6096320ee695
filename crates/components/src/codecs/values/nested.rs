//! Objects and arrays of JSON: rows, structs, maps and lists.

use arrow_array::cast::AsArray;
use arrow_array::{Array, OffsetSizeTrait};
use arrow_buffer::ArrowNativeType;
use arrow_schema::{DataType, Field};

use super::{Column, Style, Write, escape, writer as scalar_writer};

/// Columns that make an object of each row. Nulls are left out.
pub(crate) struct Object<'a> {
    /// What comes before a value, `,"name":`, and the value.
    members: Vec<(Vec<u8>, Column<'a>)>,
}

impl<'a> Object<'a> {
    /// Of fields and their columns; `None` where a type can't be written.
    pub(crate) fn new(
        columns: impl IntoIterator<Item = (&'a Field, &'a dyn Array)>,
    ) -> Option<Self> {
        let members = columns.into_iter().map(|(field, array)| {
            let mut lead = vec![b','];
            escape::quoted(field.name(), &mut lead);
            lead.push(b':');
            Some((lead, Column::new(array, Style::Json)?))
        });
        Some(Self { members: members.collect::<Option<_>>()? })
    }

    /// Appends the object of a row.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        for (lead, column) in &self.members {
            if !column.is_null(row) {
                out.extend_from_slice(lead);
                column.write(row, out);
            }
        }
        // The first member's comma is where the brace belongs.
        match out.get_mut(start) {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
    }
}

/// A writer for the types that are no scalars; `None` for those that JSON has nothing for.
pub(super) fn writer(array: &dyn Array) -> Option<Write<'_>> {
    match array.data_type() {
        DataType::Struct(fields) => {
            let columns = array.as_struct_opt()?.columns();
            let members = fields.iter().zip(columns);
            let object = Object::new(members.map(|(field, column)| (&**field, &**column)))?;
            Some(Box::new(move |row, out| object.write(row, out)))
        }
        DataType::Map(_, _) => map(array),
        DataType::List(_) => list::<i32>(array),
        DataType::LargeList(_) => list::<i64>(array),
        DataType::ListView(_) => list_view::<i32>(array),
        DataType::LargeListView(_) => list_view::<i64>(array),
        DataType::FixedSizeList(_, _) => {
            let list = array.as_fixed_size_list_opt()?;
            let length = usize::try_from(list.value_length()).ok()?;
            let items = Column::new(list.values(), Style::Json)?;
            Some(Box::new(move |row, out| {
                elements(&items, row * length..(row + 1) * length, out);
            }))
        }
        _ => None,
    }
}

fn list<O: OffsetSizeTrait>(array: &dyn Array) -> Option<Write<'_>> {
    let list = array.as_list_opt::<O>()?;
    let items = Column::new(list.values(), Style::Json)?;
    let offsets = list.value_offsets();
    Some(Box::new(move |row, out| {
        elements(&items, offsets[row].as_usize()..offsets[row + 1].as_usize(), out);
    }))
}

fn list_view<O: OffsetSizeTrait>(array: &dyn Array) -> Option<Write<'_>> {
    let list = array.as_list_view_opt::<O>()?;
    let items = Column::new(list.values(), Style::Json)?;
    let (offsets, sizes) = (list.value_offsets(), list.value_sizes());
    Some(Box::new(move |row, out| {
        let start = offsets[row].as_usize();
        elements(&items, start..start + sizes[row].as_usize(), out);
    }))
}

/// A null keeps its place.
fn elements(items: &Column<'_>, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
    let first = range.start;
    out.push(b'[');
    for item in range {
        if item > first {
            out.push(b',');
        }
        value_or_null(items, item, out);
    }
    out.push(b']');
}

/// The keys of a map are data and not schema, so one whose value is null is written, as `null`.
/// A key that occurs twice is written twice.
fn map(array: &dyn Array) -> Option<Write<'_>> {
    let map = array.as_map_opt()?;
    let write_key = key(map.keys().as_ref())?;
    let values = Column::new(map.values(), Style::Json)?;
    let offsets = map.value_offsets();
    Some(Box::new(move |row, out| {
        let entries = offsets[row].as_usize()..offsets[row + 1].as_usize();
        let first = entries.start;
        out.push(b'{');
        for entry in entries {
            if entry > first {
                out.push(b',');
            }
            write_key(entry, out);
            out.push(b':');
            value_or_null(&values, entry, out);
        }
        out.push(b'}');
    }))
}

fn value_or_null(values: &Column<'_>, row: usize, out: &mut Vec<u8>) {
    if values.is_null(row) {
        out.extend_from_slice(b"null");
    } else {
        values.write(row, out);
    }
}

/// A key is text, whatever it is: what JSON has no quotes for gets some.
fn key(keys: &dyn Array) -> Option<Write<'_>> {
    let mut scalar = keys.data_type();
    while let DataType::Dictionary(_, value) = scalar {
        scalar = value;
    }
    if !(scalar.is_numeric() || *scalar == DataType::Boolean) {
        return if scalar.is_nested() { None } else { scalar_writer(keys, Style::Json) };
    }
    let write = scalar_writer(keys, Style::Plain)?;
    Some(Box::new(move |row, out| {
        out.push(b'"');
        write(row, out);
        out.push(b'"');
    }))
}
