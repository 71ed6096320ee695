//! Records that something is known of beside their text: it becomes entries of their metadata.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, ArrayRef, MapArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tidegate_model::{BudgetHolder, OFFSET, Result};

use super::columns::{Shape, impossible};
use super::texts::Metadata;
use super::{Chunk, Codec, Decoded, Decoder};

/// What is known of a record: names and values.
pub(crate) type Tags<'t> = [(&'static str, &'t str)];

/// A decoder whose rows get more entries of metadata, where anyone reads it.
pub(crate) struct Tagged {
    decoder: Box<dyn Decoder>,
    holder: Arc<BudgetHolder>,
    columns: SchemaRef,
    /// Where rows have their metadata, and where their offsets, which say of which line a row is.
    places: Option<(usize, usize)>,
}

impl Tagged {
    /// Rows with these columns, read by this codec.
    pub(crate) fn new(codec: &Codec, columns: SchemaRef, holder: Arc<BudgetHolder>) -> Self {
        let metadata = columns.index_of("metadata").ok();
        let mut read = Arc::clone(&columns);
        let places = metadata.map(|metadata| {
            let offset = columns.index_of(OFFSET).unwrap_or_else(|_| {
                let fields = columns.fields().iter().cloned();
                let offset = Arc::new(Field::new(OFFSET, DataType::UInt64, false));
                read = Arc::new(Schema::new(fields.chain([offset]).collect::<Vec<_>>()));
                columns.fields().len()
            });
            (metadata, offset)
        });
        let decoder = (codec.decoder)(Shape::new(read, Arc::clone(&holder)));
        Self { decoder, holder, columns, places }
    }

    /// Whether anyone reads what is known.
    pub(crate) fn wants_tags(&self) -> bool {
        self.places.is_some()
    }

    /// Rows of lines that are numbered from `first` on, which is what the chunk's places are to be.
    /// `tags` says what is known of a line; an entry that the record has itself is kept instead.
    pub(crate) fn decode<'t>(
        &mut self,
        chunk: &Chunk<'_>,
        first: u64,
        tags: impl Fn(usize) -> &'t Tags<'t>,
    ) -> Result<Decoded> {
        let mut decoded = self.decoder.decode(chunk)?;
        let Some((metadata, offset)) = self.places else { return Ok(decoded) };
        let lines = decoded.rows.column(offset).as_primitive::<UInt64Type>();
        let lines = lines.values().iter().map(|offset| (offset - first) as usize);
        let known = decoded.rows.column(metadata).as_map();
        let tagged = self.tagged(known, lines.map(tags))?;
        let columns = decoded.rows.columns().iter().enumerate().take(self.columns.fields().len());
        let columns = columns.map(|(index, column)| match index == metadata {
            true => Arc::clone(&tagged),
            false => Arc::clone(column),
        });
        let rows = RecordBatch::try_new(Arc::clone(&self.columns), columns.collect());
        decoded.rows = rows.map_err(impossible)?;
        Ok(decoded)
    }

    fn tagged<'t>(
        &self,
        known: &MapArray,
        tags: impl Iterator<Item = &'t Tags<'t>>,
    ) -> Result<ArrayRef> {
        let mut metadata = Metadata::new(known.len());
        let keys: &StringArray = known.keys().as_string();
        let values: &StringArray = known.values().as_string();
        for (row, tags) in tags.enumerate() {
            let ends = known.value_offsets();
            let has = if known.is_valid(row) { ends[row]..ends[row + 1] } else { 0..0 };
            let has = || has.clone().map(|entry| entry as usize);
            for entry in has() {
                metadata
                    .entry(keys.value(entry), values.is_valid(entry).then(|| values.value(entry)));
            }
            for (key, value) in tags {
                if !has().any(|entry| keys.value(entry) == *key) {
                    metadata.entry(key, Some(value));
                }
            }
            metadata.row(true);
        }
        metadata.finish(&self.holder).map_err(impossible)
    }
}

#[cfg(test)]
mod tests {
    use arrow_buffer::Buffer;
    use tidegate_flow::ByteBudget;
    use tidegate_model::{Spanned, log_schema};

    use super::*;
    use crate::codecs::{Label, Line, Places, decoder_named};

    #[test]
    fn records_keep_their_own_entries_and_get_what_they_lack() {
        let budget = ByteBudget::new(1 << 20);
        let holder = Arc::new(budget.holder(0).unwrap());
        let codec = decoder_named(Some(&Spanned::new(0..0, "json".to_owned()))).unwrap();
        let texts = [r#"{"msg":"a","id":"own"}"#, "no object", r#"{"msg":"b"}"#];
        let bytes = Buffer::from(texts.concat().as_bytes());
        let mut start = 0;
        let lines = texts.map(|text| {
            start += text.len() as u32;
            Line { start: start - text.len() as u32, end: start }
        });
        let tags: [&Tags<'_>; 3] =
            [&[("id", "1"), ("event", "x")], &[("id", "2")], &[("id", "3"), ("event", "y")]];
        for (columns, count) in [(&[4, 5][..], 2), (&[5], 1), (&[4], 1)] {
            let columns = Arc::new(log_schema().project(columns).unwrap());
            let mut tagged = Tagged::new(&codec, columns, Arc::clone(&holder));
            let label = Label::from("here");
            let chunk = Chunk {
                bytes: &bytes,
                lines: &lines,
                places: Places::Rows(40),
                label: &label,
                read_at: 0,
            };
            let decoded = tagged.decode(&chunk, 40, |line| tags[line]).unwrap();
            assert_eq!((decoded.rows.num_columns(), decoded.refused), (count, 1));
            let Ok(index) = decoded.rows.schema().index_of("metadata") else { continue };
            let metadata = decoded.rows.column(index).as_map();
            metadata.to_data().validate_full().unwrap();
            let rows = [0, 1].map(|row| {
                let entries = metadata.value(row);
                let [keys, values] = [0, 1].map(|at| entries.column(at).as_string::<i32>().clone());
                let entries = keys.iter().zip(&values);
                let said =
                    entries.map(|(key, value)| format!("{}={}", key.unwrap(), value.unwrap()));
                said.collect::<Vec<_>>().join(" ")
            });
            assert_eq!(rows, ["id=own event=x", "id=3 event=y"]);
        }
    }
}
