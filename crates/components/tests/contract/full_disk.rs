//! A disk that is full for real, and then has room again.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::{TempDir, tempdir};
use tidegate_model::ErrorKind;

use crate::memory::{Memory, context, delivered, file_sink, messages};
use crate::parquet::{lines_of, parquet_sink};

/// A file system of 4 MiB, gone when this is.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Self {
        let folder = tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder.path());
        assert!(mount.status().unwrap().success(), "only root may mount");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[tokio::test]
#[ignore = "mounts a tmpfs, which only root may"]
async fn a_full_disk_is_waited_for_and_nothing_is_lost_or_doubled() {
    let disk = SmallDisk::new();
    let (path, filler) = (disk.path().join("out.log"), disk.path().join("filler"));
    fs::write(&filler, vec![0; 3 * 1024 * 1024 - 128 * 1024]).unwrap();
    let records = Arc::new(Memory::default());
    let mut sink = file_sink(&path);
    sink.open(context(&records)).await.unwrap();

    // The first mebibyte of it fits, the second does not.
    let lines: Vec<_> = (0..2_500).map(|n| format!("{n} {}", "x".repeat(1_000))).collect();
    sink.write(&messages(&["first"])).await.unwrap();
    for _ in 0..3 {
        let error = sink.write(&messages(&lines)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected);
        assert!(error.to_string().contains("make room on its disk"), "{error}");
        assert!(fs::metadata(&path).unwrap().len() < 1_200_000, "half a row was left behind");
    }
    fs::remove_file(&filler).unwrap();
    sink.write(&messages(&lines)).await.unwrap();

    // What waits in memory meets the full disk at the commit.
    sink.commit(&[delivered(2_501)]).await.unwrap();
    let room = 4 * 1024 * 1024 - fs::metadata(&path).unwrap().len();
    fs::write(&filler, vec![0; room as usize - 64 * 1024]).unwrap();
    sink.write(&messages(&lines[..500])).await.unwrap();
    for _ in 0..3 {
        let error = sink.commit(&[delivered(3_001)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected);
    }
    fs::remove_file(&filler).unwrap();
    sink.commit(&[delivered(3_001)]).await.unwrap();

    let expected = format!("first\n{}\n{}\n", lines.join("\n"), lines[..500].join("\n"));
    assert!(fs::read_to_string(&path).unwrap() == expected);
}

#[tokio::test]
#[ignore = "mounts a tmpfs, which only root may"]
async fn a_full_disk_holds_up_parquet_and_nothing_is_lost_or_doubled() {
    let disk = SmallDisk::new();
    let (path, filler) = (disk.path().join("out.parquet"), disk.path().join("filler"));
    let records = Arc::new(Memory::default());
    let mut sink = parquet_sink(&path, "compression = 'none', row_group_rows = 1000");
    sink.open(context(&records)).await.unwrap();
    let lines: Vec<_> = (0..1_000).map(|n| format!("{n} {}", "x".repeat(1_000))).collect();
    sink.write(&messages(&["first"])).await.unwrap();
    sink.commit(&[delivered(1)]).await.unwrap();
    fs::write(&filler, vec![0; 3 * 1024 * 1024 + 512 * 1024]).unwrap();

    // A row group waits in memory until the next rows come, and these are not taken.
    sink.write(&messages(&lines)).await.unwrap();
    for _ in 0..3 {
        let error = sink.write(&messages(&lines[..500])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected);
        assert!(error.to_string().contains("make room on its disk"), "{error}");
    }
    for _ in 0..3 {
        let error = sink.commit(&[delivered(1_001)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected);
    }
    fs::remove_file(&filler).unwrap();
    sink.write(&messages(&lines[..500])).await.unwrap();

    // What is not a row group yet meets the full disk at the commit.
    let room = 4 * 1024 * 1024 - fs::metadata(&path).unwrap().len();
    fs::write(&filler, vec![0; room as usize - 256 * 1024]).unwrap();
    for _ in 0..3 {
        let error = sink.commit(&[delivered(1_501)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected);
    }
    fs::remove_file(&filler).unwrap();
    sink.commit(&[delivered(1_501)]).await.unwrap();
    let expected = [&["first".to_owned()], &lines[..], &lines[..500]].concat();
    assert!(lines_of(&path) == expected);
}
