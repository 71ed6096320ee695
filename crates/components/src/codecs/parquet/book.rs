//! Where a file's row groups are: as its footer says it to readers, and as notes among the row groups
//! say it to us.
//!
//! A footer is at the end of the file, and describes all row groups. When more come, they are written
//! over it, and a longer one follows. So that a crash in between loses nothing, what is new is
//! noted behind the row groups, where it stays:
//!
//! ```text
//! PAR1 | row group | row group | note of both | row group | note of it | footer of all
//! ```
//!
//! A note is a footer of its row groups, but for the last bytes. It says where the first of them
//! begins, which is where the note before ends: so all are found from the last one backwards. Readers
//! follow the footer and never see them.

use std::io::Result as IoResult;
use std::mem::take;
use std::sync::Arc;

use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataOptions,
    ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaData,
};
use ::parquet::file::properties::WriterProperties;
use ::parquet::schema::types::SchemaDescPtr;

use super::types::difference;

/// What a file begins with, and what a footer ends with.
pub(crate) const MAGIC: &[u8; 4] = b"PAR1";

/// What a note ends with instead: no text has such bytes.
const NOTE_END: &[u8; 4] = b"\xF5TG\xF5";

/// Behind a note and a footer: its length (4 bytes, little endian), and four bytes that say what it is.
const TAIL_BYTES: usize = 8;

/// Whether a file that is written up to here, with these last bytes, is one of ours.
pub(crate) fn is_end(length: u64, tail: &[u8]) -> bool {
    if length == MAGIC.len() as u64 { tail == MAGIC } else { tail.ends_with(NOTE_END) }
}

/// The row groups of a file.
pub(crate) struct Book {
    described: SchemaDescPtr,
    created_by: String,
    version: i32,
    /// What the footer has beside row groups: the Arrow schema.
    keys: Option<Vec<KeyValue>>,
    groups: Vec<RowGroupMetaData>,
    /// How many of them are in notes.
    noted: usize,
}

impl Book {
    pub(super) fn new(described: SchemaDescPtr, properties: &WriterProperties) -> Self {
        Self {
            described,
            created_by: properties.created_by().to_owned(),
            version: properties.writer_version().as_num(),
            keys: properties.key_value_metadata().cloned(),
            groups: Vec::new(),
            noted: 0,
        }
    }

    /// The place of the next row group, from 0; none where the format allows no more.
    pub(crate) fn next_index(&self) -> Option<i16> {
        i16::try_from(self.groups.len()).ok()
    }

    /// Adds the next row group.
    pub(crate) fn push(&mut self, group: RowGroupMetaData) {
        self.groups.push(group);
    }

    /// How many row groups there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The note of those that are in none yet, where there are some. It is to be written behind
    /// them.
    pub(crate) fn note(&mut self) -> Result<Option<Vec<u8>>> {
        let groups = self.groups.get(self.noted..).unwrap_or_default().to_vec();
        if groups.is_empty() {
            return Ok(None);
        }
        let mut note = Vec::new();
        self.encode(groups, None, &mut note)?;
        note.truncate(note.len().saturating_sub(MAGIC.len()));
        note.extend_from_slice(NOTE_END);
        self.noted = self.groups.len();
        Ok(Some(note))
    }

    /// The footer of the first so many.
    pub(crate) fn footer(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut groups = take(&mut self.groups);
        let mut rest = groups.split_off(count.min(groups.len()));
        let mut footer = Vec::new();
        self.groups = self.encode(groups, self.keys.clone(), &mut footer)?;
        self.groups.append(&mut rest);
        Ok(footer)
    }

    /// Gives the row groups back.
    fn encode(
        &self,
        groups: Vec<RowGroupMetaData>,
        keys: Option<Vec<KeyValue>>,
        out: &mut Vec<u8>,
    ) -> Result<Vec<RowGroupMetaData>> {
        let rows = groups.iter().map(RowGroupMetaData::num_rows).sum();
        let (created_by, described) = (Some(self.created_by.clone()), Arc::clone(&self.described));
        let file = FileMetaData::new(self.version, rows, created_by, keys, described, None);
        let metadata = ParquetMetaData::new(file, groups);
        ParquetMetaDataWriter::new(out, &metadata).finish()?;
        Ok(metadata.into_builder().take_row_groups())
    }

    /// Reads the notes of a file that is written up to here, of which there are some.
    ///
    /// # Errors
    ///
    /// [`Unread`].
    pub(crate) fn read(
        &mut self,
        mut end: u64,
        read_at: impl Fn(u64, &mut [u8]) -> IoResult<()>,
    ) -> Result<(), Unread> {
        let options = ParquetMetaDataOptions::new()
            .with_schema(Arc::clone(&self.described))
            .with_encoding_stats_as_mask(false);
        let (start, mut groups) = (MAGIC.len() as u64, Vec::new());
        while end > start {
            let (note, at) = read_note(end, &read_at)?;
            if groups.is_empty() {
                let found = ParquetMetaDataReader::decode_schema(&note)?;
                if found.root_schema() != self.described.root_schema() {
                    return Err(Unread::Other(difference(&found, &self.described)));
                }
            }
            let note = ParquetMetaDataReader::decode_metadata_with_options(&note, Some(&options))?;
            let mut noted = note.into_builder().take_row_groups();
            let first = noted.first().map(RowGroupMetaData::columns).unwrap_or_default();
            let begin = first.iter().map(column_start).min().unwrap_or(u64::MAX);
            if begin >= at || begin < start {
                return Err(Unread::Damaged("a note names a place that can't be".to_owned()));
            }
            end = begin;
            noted.reverse();
            groups.append(&mut noted);
        }
        groups.reverse();
        (self.noted, self.groups) = (groups.len(), groups);
        Ok(())
    }
}

/// Why notes can't be gone on with.
pub(crate) enum Unread {
    /// The file could not be read.
    Failed(std::io::Error),
    /// It is not what was written.
    Damaged(String),
    /// It has other columns: which.
    Other(String),
}

impl From<std::io::Error> for Unread {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ParquetError> for Unread {
    fn from(error: ParquetError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// The note that ends here, and where it begins.
fn read_note(
    end: u64,
    read_at: impl Fn(u64, &mut [u8]) -> IoResult<()>,
) -> Result<(Vec<u8>, u64), Unread> {
    let none = || Unread::Damaged(format!("there is no note before byte {end}"));
    let mut tail = [0; TAIL_BYTES];
    let behind = end.checked_sub(TAIL_BYTES as u64).ok_or_else(none)?;
    read_at(behind, &mut tail)?;
    let (length, last) = tail.split_first_chunk().ok_or_else(none)?;
    let length = u32::from_le_bytes(*length);
    let begin = behind.checked_sub(u64::from(length)).ok_or_else(none)?;
    if last != NOTE_END || begin <= MAGIC.len() as u64 {
        return Err(none());
    }
    let mut note = vec![0; length as usize];
    read_at(begin, &mut note)?;
    Ok((note, begin))
}

fn column_start(column: &ColumnChunkMetaData) -> u64 {
    let first = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    u64::try_from(first).unwrap_or(0)
}
