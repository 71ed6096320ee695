//! Rows to the row groups of a Parquet file, and several files to one.
//!
//! A row group holds at most so many rows as the settings say, and ends before that once it takes
//! `GROUP_BYTES_MAX` of memory. That memory, and as much again while a row group ends, is outside
//! the budget; so are the row groups' descriptions, some 400 bytes each for every column.
//!
//! Every type that Parquet has a name for is written as that; durations, intervals and times in
//! whole seconds have none and are refused at `check`. The Arrow schema is stored too, so that
//! readers that know it give back the very same types.

mod book;
mod concat;
mod groups;
mod types;

use std::time::Duration;

use ::parquet::basic::{Compression, ZstdLevel};
use serde::Deserialize;
use tidegate_model::{Mistake, Spanned, TimeSpan};

pub(crate) use self::book::{Book, MAGIC, Unread, is_end};
pub use self::concat::concat;
pub(crate) use self::groups::Groups;
pub(crate) use self::types::columns;

/// A row group that takes so much memory is ended, however few its rows are.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;

/// So many rows a row group has, where nothing is said.
const ROW_GROUP_ROWS: usize = 131_072;

/// So long rows wait for their row group to become full, where nothing is said.
const ROW_GROUP_AGE: Duration = Duration::from_secs(5);

/// The settings that only Parquet has.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    /// `snappy`, `zstd` or `none`; snappy where nothing is said.
    compression: Option<Spanned<String>>,
    /// The most rows that a row group has: 131,072.
    row_group_rows: Option<Spanned<usize>>,
    /// How long rows wait for their row group to become full: five seconds. Only then they are
    /// safe, and told to be.
    row_group_age: Option<TimeSpan>,
}

/// How Parquet is written.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    compression: Compression,
    rows_max: usize,
    /// See [`Options::row_group_age`].
    pub(crate) age: Duration,
}

impl Default for Layout {
    fn default() -> Self {
        Self { compression: Compression::SNAPPY, rows_max: ROW_GROUP_ROWS, age: ROW_GROUP_AGE }
    }
}

impl Layout {
    /// Of settings.
    pub(crate) fn new(options: &Options) -> Result<Self, Mistake> {
        let mut layout = Self::default();
        if let Some(name) = &options.compression {
            layout.compression = compression(name)?;
        }
        if let Some(rows) = &options.row_group_rows {
            if *rows.get_ref() == 0 {
                let said = "a row group has to have rows";
                return Err(Mistake::at(rows.span(), said).help("write 1 or more"));
            }
            layout.rows_max = *rows.get_ref();
        }
        if let Some(TimeSpan(age)) = options.row_group_age {
            layout.age = age;
        }
        Ok(layout)
    }
}

fn compression(name: &Spanned<String>) -> Result<Compression, Mistake> {
    match name.get_ref().as_str() {
        "none" => Ok(Compression::UNCOMPRESSED),
        "snappy" => Ok(Compression::SNAPPY),
        "zstd" => Ok(Compression::ZSTD(ZstdLevel::default())),
        other => Err(Mistake::at(name.span(), format!("there is no compression {other:?}"))
            .help(r#"one of "none", "snappy", "zstd""#)),
    }
}
