//! Rows to row groups, one at a time.

use std::sync::Arc;

use ::parquet::arrow::add_encoded_arrow_schema_to_metadata;
use ::parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use ::parquet::errors::Result;
use ::parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter, TrackedWrite};
use ::parquet::schema::types::SchemaDescPtr;
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::book::Book;
use super::types::described;
use super::{GROUP_BYTES_MAX, Layout};

/// A column whose different values take more than this is written without a dictionary: a key's, whose
/// values are all different, is soon found out.
const DICTIONARY_BYTES_MAX: usize = 64 << 10;

/// After so many rows it is looked at how much memory they take.
const STEP_ROWS: usize = 8_192;

/// The row group that is being made: encoded pages, at most `GROUP_BYTES_MAX` and [`STEP_ROWS`]
/// rows.
pub(crate) struct Groups {
    schema: SchemaRef,
    described: SchemaDescPtr,
    properties: WriterPropertiesPtr,
    factory: ArrowRowGroupWriterFactory,
    rows_max: usize,
    /// One for each leaf of the schema; none before the first row.
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

impl Groups {
    /// For rows of a schema.
    pub(crate) fn new(schema: &SchemaRef, layout: &Layout) -> Result<Self> {
        let mut properties = WriterProperties::builder()
            .set_compression(layout.compression)
            .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
            .set_coerce_types(true)
            // Of each row group, and not of each page: that would make the footer many times longer.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        add_encoded_arrow_schema_to_metadata(schema, &mut properties);
        let properties = Arc::new(properties);
        let described = Arc::new(described(schema)?);
        // A factory is had from a writer only.
        let writer = SerializedFileWriter::new(
            std::io::sink(),
            described.root_schema_ptr(),
            Arc::clone(&properties),
        )?;
        let factory = ArrowRowGroupWriterFactory::new(&writer, Arc::clone(schema));
        let (schema, rows_max) = (Arc::clone(schema), layout.rows_max);
        let columns = Vec::new();
        Ok(Self { schema, described, properties, factory, rows_max, columns, rows: 0 })
    }

    /// An empty description of a file of such row groups.
    pub(crate) fn book(&self) -> Book {
        Book::new(Arc::clone(&self.described), &self.properties)
    }

    /// Takes rows, from one of them on, up to the end of the row group; gives the row to go on with.
    ///
    /// # Errors
    ///
    /// Where they are not of the schema. The row group can't be used after that.
    pub(crate) fn push(&mut self, rows: &RecordBatch, from: usize) -> Result<usize> {
        let mut row = from;
        while row < rows.num_rows() && !self.is_full() {
            let room = self.rows_max.saturating_sub(self.rows);
            let count = STEP_ROWS.min(room).min(rows.num_rows() - row);
            self.encode(&rows.slice(row, count))?;
            row += count;
        }
        Ok(row)
    }

    fn encode(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.columns.is_empty() {
            self.columns = self.factory.create_column_writers(0)?;
        }
        let mut columns = self.columns.iter_mut();
        for (field, array) in self.schema.fields().iter().zip(rows.columns()) {
            for (leaf, column) in compute_leaves(field, array)?.iter().zip(&mut columns) {
                column.write(leaf)?;
            }
        }
        self.rows += rows.num_rows();
        Ok(())
    }

    /// Whether the row group is to be ended before more rows come.
    pub(crate) fn is_full(&self) -> bool {
        let bytes = self.columns.iter().map(ArrowColumnWriter::memory_size);
        self.rows >= self.rows_max || bytes.sum::<usize>() >= GROUP_BYTES_MAX
    }

    /// Whether there are no rows in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Ends the row group: appends it to `out`, whose end is at this place of the file. Gives its
    /// description, and begins another. It is for when there are rows.
    pub(crate) fn end(
        &mut self,
        at: u64,
        index: i16,
        out: &mut Vec<u8>,
    ) -> Result<RowGroupMetaData> {
        self.rows = 0;
        let columns = std::mem::take(&mut self.columns).into_iter();
        let chunks = columns.map(ArrowColumnWriter::close).collect::<Result<Vec<_>>>()?;
        let bytes = |chunk: &ArrowColumnChunk| chunk.close().metadata.compressed_size();
        let bytes: i64 = chunks.iter().map(bytes).sum();
        out.reserve(usize::try_from(bytes).unwrap_or(0));
        let mut out = TrackedWrite::new(out);
        let (described, properties) = (Arc::clone(&self.described), Arc::clone(&self.properties));
        let mut group = SerializedRowGroupWriter::new(described, properties, &mut out, index, None);
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        let group = Arc::unwrap_or_clone(group.close()?);
        out.into_inner()?;
        moved(group, i64::try_from(at)?)
    }
}

/// A row group that is not at the start of the file, but so much behind it.
fn moved(group: RowGroupMetaData, by: i64) -> Result<RowGroupMetaData> {
    let at = group.file_offset().unwrap_or(0) + by;
    let moved = |column: &ColumnChunkMetaData| {
        let dictionary = column.dictionary_page_offset().map(|offset| offset + by);
        let data = column.data_page_offset() + by;
        let builder = column.clone().into_builder().set_data_page_offset(data);
        builder.set_dictionary_page_offset(dictionary).build()
    };
    let columns = group.columns().iter().map(moved).collect::<Result<_>>()?;
    group.into_builder().set_column_metadata(columns).set_file_offset(at).build()
}
