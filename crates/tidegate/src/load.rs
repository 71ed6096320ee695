//! A configuration's file to a pipeline.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use tidegate::engine::config::{self, CONFIG_BYTES_MAX};
use tidegate::engine::{Overrides, Pipeline};

use crate::failed::Failed;

/// Reads and checks it; opens nothing but the file itself.
pub(crate) fn pipeline(path: &Path, overrides: &Overrides) -> Result<Pipeline, Failed> {
    let file = path.display().to_string();
    let bytes = read(path).map_err(|error| {
        let cause = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::IsADirectory => "it is a folder: name the file in it".to_owned(),
            _ => error.to_string(),
        };
        Failed::usage(format!("error: can't read {file}: {cause}"))
    })?;
    let text = config::decode(&file, &bytes).map_err(Failed::usage)?;
    let env = |name: &str| std::env::var(name).ok();
    config::load(&file, text, &tidegate::registry(), &env, overrides).map_err(Failed::usage)
}

/// The file's bytes; of a file that is too long, enough to see that it is.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
