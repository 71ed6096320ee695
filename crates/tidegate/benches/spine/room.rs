//! Room on the disk: there must be enough before anything is written.

use std::path::Path;

use tidegate_testkit::bench::programs::Outcome;

/// What stays free beside what we write.
const SPARE_BYTES: u64 = 1 << 30;

/// Whether so many bytes can be written in a folder.
pub(crate) fn is_there(folder: &Path, bytes: u64) -> Outcome<bool> {
    Ok(free_bytes(folder)? > bytes + SPARE_BYTES)
}

/// Fails where so many bytes can't be written in a folder, and says which option takes less.
pub(crate) fn demand(folder: &Path, bytes: u64, option: &str) -> Outcome {
    if is_there(folder, bytes)? {
        return Ok(());
    }
    let (free, needed) = (free_bytes(folder)? >> 20, (bytes + SPARE_BYTES) >> 20);
    let said = format!("{free} MiB are free in {}, {needed} are needed", folder.display());
    Err((said + ": free some, or take smaller inputs with " + option).into())
}

fn free_bytes(folder: &Path) -> Outcome<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail * disk.f_frsize)
}
