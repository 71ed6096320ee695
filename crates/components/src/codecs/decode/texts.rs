//! Columns of texts that don't point into what was read: the words for levels, and metadata.

use std::sync::Arc;

use arrow_array::{ArrayRef, MapArray, StringArray, StructArray};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType};
use tidegate_model::{BudgetHolder, log_schema};

use crate::codecs::space::charged;

/// Arrow's offsets into a column's text are this wide. What would be beyond is left out.
const COLUMN_BYTES_MAX: usize = i32::MAX as usize;

/// A column of texts, some of them null.
#[derive(Debug)]
pub(super) struct Texts {
    text: String,
    ends: Vec<i32>,
    valid: BooleanBufferBuilder,
}

impl Texts {
    pub(super) fn new(rows: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Self { text: String::new(), ends, valid: BooleanBufferBuilder::new(rows) }
    }

    pub(super) fn push(&mut self, text: Option<&str>) {
        let text = text.filter(|text| text.len() <= COLUMN_BYTES_MAX - self.text.len());
        self.text.push_str(text.unwrap_or_default());
        self.ends.push(self.text.len() as i32);
        self.valid.append(text.is_some());
    }

    pub(super) fn len(&self) -> usize {
        self.valid.len()
    }

    /// Forgets all but the first so many.
    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows + 1);
        self.text.truncate(self.ends.last().map_or(0, |end| *end as usize));
        self.valid.truncate(rows);
    }

    /// The column, charged.
    pub(super) fn finish(mut self, holder: &BudgetHolder) -> Result<StringArray, ArrowError> {
        let ends = charged(holder, Buffer::from_vec(self.ends));
        let text = charged(holder, Buffer::from_vec(self.text.into_bytes()));
        let valid = Some(NullBuffer::new(self.valid.finish())).filter(|v| v.null_count() > 0);
        StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), text, valid)
    }
}

/// The column `metadata`: for each row names and values, or nothing.
#[derive(Debug)]
pub(super) struct Metadata {
    keys: Texts,
    values: Texts,
    ends: Vec<i32>,
    valid: BooleanBufferBuilder,
}

impl Metadata {
    pub(super) fn new(rows: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        let (keys, values) = (Texts::new(0), Texts::new(0));
        Self { keys, values, ends, valid: BooleanBufferBuilder::new(rows) }
    }

    /// An entry of the row that is being filled. Entries that Arrow has no room for in one batch
    /// are left out, which takes one of gigabytes.
    pub(super) fn entry(&mut self, key: &str, value: Option<&str>) {
        let room = |texts: &Texts, text: &str| text.len() <= COLUMN_BYTES_MAX - texts.text.len();
        if room(&self.keys, key) && room(&self.values, value.unwrap_or_default()) {
            self.keys.push(Some(key));
            self.values.push(value);
        }
    }

    /// Forgets the entries of the row that is being filled.
    pub(super) fn undo(&mut self) {
        let entries = self.ends.last().map_or(0, |end| *end as usize);
        self.keys.truncate(entries);
        self.values.truncate(entries);
    }

    /// Ends a row: with its entries, or as null.
    pub(super) fn row(&mut self, valid: bool) {
        self.ends.push(self.keys.len() as i32);
        self.valid.append(valid);
    }

    /// The column, charged.
    pub(super) fn finish(mut self, holder: &BudgetHolder) -> Result<ArrayRef, ArrowError> {
        let schema = log_schema();
        let DataType::Map(entries, sorted) = schema.field_with_name("metadata")?.data_type() else {
            return Err(ArrowError::SchemaError("metadata is no map".to_owned()));
        };
        let DataType::Struct(fields) = entries.data_type() else {
            return Err(ArrowError::SchemaError("metadata has no entries".to_owned()));
        };
        let keys: ArrayRef = Arc::new(self.keys.finish(holder)?);
        let values: ArrayRef = Arc::new(self.values.finish(holder)?);
        let content = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
        let ends = charged(holder, Buffer::from_vec(self.ends));
        let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
        let valid = Some(NullBuffer::new(self.valid.finish()));
        Ok(Arc::new(MapArray::try_new(Arc::clone(entries), ends, content, valid, *sorted)?))
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use tidegate_flow::ByteBudget;

    use super::*;

    #[test]
    fn texts_and_nulls_stay_in_order() {
        let holder = ByteBudget::new(1 << 20).holder(0).unwrap();
        let mut texts = Texts::new(3);
        [Some("a"), None, Some(""), Some("no")].iter().for_each(|text| texts.push(*text));
        texts.truncate(3);
        texts.push(Some("ö"));
        let column = texts.finish(&holder).unwrap();
        column.to_data().validate_full().unwrap();
        assert_eq!(column.iter().collect::<Vec<_>>(), [Some("a"), None, Some(""), Some("ö")]);
        assert!(holder.held() > 0);
        drop(column);
        assert_eq!(holder.held(), 0);
    }

    #[test]
    fn a_row_of_metadata_can_be_undone() {
        let holder = ByteBudget::new(1 << 20).holder(0).unwrap();
        let mut metadata = Metadata::new(3);
        metadata.entry("a", Some("1"));
        metadata.row(true);
        metadata.entry("b", Some("2"));
        metadata.undo();
        metadata.row(false);
        metadata.entry("c", None);
        metadata.row(true);
        let column = metadata.finish(&holder).unwrap();
        assert_eq!(column.data_type(), log_schema().field(5).data_type());
        column.to_data().validate_full().unwrap();
        let map = column.as_map();
        assert_eq!(map.value_offsets(), [0, 1, 1, 2]);
        assert_eq!([0, 1, 2].map(|row| map.is_null(row)), [false, true, false]);
        assert_eq!(map.keys().as_string::<i32>().value(1), "c");
        assert!(map.values().is_null(1));
    }
}
