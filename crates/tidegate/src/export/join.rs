//! Parts to one file, in their order.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tidegate::components::codecs::parquet;

use super::place::Format;

/// Makes a file of the parts, which stay as they are.
pub(super) fn join(format: Format, parts: &[PathBuf], to: &Path) -> io::Result<()> {
    match format {
        // Lines, of which only the first part has a head.
        Format::Csv | Format::Ndjson => {
            let mut to = File::create(to)?;
            for part in parts {
                io::copy(&mut File::open(part)?, &mut to)?;
            }
            Ok(())
        }
        Format::Parquet => parquet::concat(parts, to).map_err(io::Error::other),
    }
}
