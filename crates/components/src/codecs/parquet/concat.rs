//! Several Parquet files to one.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use tidegate_model::{Error, Result};

/// Writes the row groups of Parquet files into another, in the order of the files, which stay as they
/// are. What the other was before is lost.
///
/// They are copied as they are, without being decoded: as fast as the disk, and with no memory but a
/// buffer and the row groups' descriptions. The file is on the disk when this returns; where that
/// fails, or the process is killed, a part of it may be left, which no reader takes for whole. It
/// blocks on the disk.
///
/// # Errors
///
/// `Fatal`, by the file's name: where one can't be read or is no Parquet file, where one has other
/// columns than the first, where there are more than 32,767 row groups in all, or no files; and where
/// the other is one of them or can't be written.
pub fn concat(parts: &[PathBuf], to: &Path) -> Result<()> {
    let Some((first, _)) = parts.split_first() else {
        return Err(Error::fatal("there are no Parquet files to put together"));
    };
    let (_, metadata) = open(first)?;
    let schema = metadata.file_metadata().schema_descr().root_schema_ptr();
    let properties = WriterProperties::builder()
        .set_key_value_metadata(metadata.file_metadata().key_value_metadata().cloned())
        .set_offset_index_disabled(true)
        .build();
    let written = |error: Box<dyn std::error::Error + Send + Sync>| {
        let remedy = "its folder must exist, and have room";
        Error::fatal(format!("can't write {}: {remedy}", to.display())).because(error)
    };
    if let Some(part) = parts.iter().find(|part| is_same(part, to)) {
        let part = part.display();
        return Err(Error::fatal(format!("{part} can't be put into itself: name another file")));
    }
    let file = File::create(to).map_err(|error| written(error.into()))?;
    let mut writer = SerializedFileWriter::new(&file, schema, Arc::new(properties))
        .map_err(|error| written(error.into()))?;
    for part in parts {
        let (source, metadata) = open(part)?;
        let found = metadata.file_metadata().schema_descr().root_schema();
        if found != writer.schema_descr().root_schema() {
            let (part, first) = (part.display(), first.display());
            return Err(Error::fatal(format!(
                "{part} has other columns than {first}: put together only files of one schema"
            )));
        }
        for group in metadata.row_groups() {
            copy(&mut writer, &source, group).map_err(|error| {
                let (part, to) = (part.display(), to.display());
                Error::fatal(format!("can't copy a row group of {part} to {to}")).because(error)
            })?;
        }
    }
    writer.close().map_err(|error| written(error.into()))?;
    file.sync_all().map_err(|error| written(error.into()))
}

/// Whether both names lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

fn open(path: &Path) -> Result<(File, ParquetMetaData)> {
    let shown = path.display();
    let file = File::open(path)
        .map_err(|error| Error::fatal(format!("can't open {shown}")).because(error))?;
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|error| {
        Error::fatal(format!("{shown} is no whole Parquet file")).because(error)
    })?;
    Ok((file, metadata))
}

fn copy(
    writer: &mut SerializedFileWriter<&File>,
    source: &File,
    group: &RowGroupMetaData,
) -> ParquetResult<()> {
    let mut copied = writer.next_row_group()?;
    for column in group.columns() {
        copied.append_column(source, closed(column.clone(), group.num_rows()))?;
    }
    copied.close()?;
    Ok(())
}

/// A column as its writer would have left it.
fn closed(metadata: ColumnChunkMetaData, rows: i64) -> ColumnCloseResult {
    ColumnCloseResult {
        bytes_written: u64::try_from(metadata.compressed_size()).unwrap_or(0),
        rows_written: u64::try_from(rows).unwrap_or(0),
        metadata,
        bloom_filter: None,
        column_index: None,
        offset_index: None,
    }
}
