//! Writes to what may not take it: pipes, terminals, devices. Nothing here blocks for good, so that
//! a reader that has stopped reading holds up its sink, and never the end of the run.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::blocking::blocking;
use crate::codecs::encode::Format;

/// So long a thread waits for room, before the task is asked whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(50);

/// A pipe that is ready takes so many bytes without blocking: PIPE_BUF, by POSIX at least 512, on
/// Linux this many.
const PIPE_BUF: usize = 4096;

/// Rows are encoded in pieces of so many bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// A file that is written from front to back.
pub(crate) struct Outlet {
    file: Arc<File>,
    /// The most that is written at once.
    bytes_max: usize,
    /// Encoded rows, at most [`BUFFER_BYTES`] and a row.
    buffer: Vec<u8>,
    /// Whether an error cut a line in two.
    torn: bool,
    /// What goes before the first row.
    head: Vec<u8>,
}

impl Outlet {
    /// Of a file; what can wait and was not opened with `O_NONBLOCK` is written in small pieces.
    pub(crate) fn new(file: File, nonblocking: bool) -> Result<Self> {
        let whole = nonblocking || file.metadata()?.is_file();
        let bytes_max = if whole { usize::MAX } else { PIPE_BUF };
        Ok(Self {
            file: Arc::new(file),
            bytes_max,
            buffer: Vec::new(),
            torn: false,
            head: Vec::new(),
        })
    }

    /// Has something go before the first row.
    pub(crate) fn begin(self, head: &[u8]) -> Self {
        Self { head: head.to_vec(), ..self }
    }

    /// Writes rows, however long that takes; `failed` says what to make of an error. Where one cut
    /// a line in two, the next write ends that line first.
    ///
    /// Dropping it half-way stops it; the thread at work is free again within twice
    /// [`PATIENCE`].
    pub(crate) async fn write_rows(
        &mut self,
        format: &Format,
        rows: &RecordBatch,
        failed: impl Fn(Error) -> tidegate_model::Error,
    ) -> tidegate_model::Result<()> {
        let mut row = 0;
        while row < rows.num_rows() {
            self.buffer.clear();
            self.buffer.shrink_to(2 * BUFFER_BYTES); // after a row as long as that
            if std::mem::take(&mut self.torn) {
                self.buffer.push(b'\n');
            }
            self.buffer.append(&mut self.head);
            row = format.encode(rows, row, &mut self.buffer, BUFFER_BYTES)?;
            self.write_buffer(&failed).await?;
        }
        Ok(())
    }

    async fn write_buffer(
        &mut self,
        failed: impl Fn(Error) -> tidegate_model::Error,
    ) -> tidegate_model::Result<()> {
        let mut written = 0;
        while written < self.buffer.len() {
            let (file, bytes_max) = (Arc::clone(&self.file), self.bytes_max);
            let step = blocking(std::mem::take(&mut self.buffer), move |bytes| {
                write_for_a_while(&file, &bytes[written..], bytes_max)
            });
            let (bytes, (count, outcome)) = step.await?;
            self.buffer = bytes;
            written += count;
            if let Err(error) = outcome {
                self.torn = written > 0 && self.buffer.get(written - 1) != Some(&b'\n');
                return Err(failed(error));
            }
        }
        Ok(())
    }
}

/// Writes as much as it can in a little time, and says how much that was.
fn write_for_a_while(mut file: &File, bytes: &[u8], bytes_max: usize) -> (usize, Result<()>) {
    let start = Instant::now();
    let mut written = 0;
    while written < bytes.len() && start.elapsed() < PATIENCE {
        match has_room(file) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return (written, Err(error)),
        }
        let end = bytes.len().min(written.saturating_add(bytes_max));
        match file.write(&bytes[written..end]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                _ => return (written, Err(error)),
            },
        }
    }
    (written, Ok(()))
}

/// Waits for room, for a while.
fn has_room(file: &File) -> Result<bool> {
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(PATIENCE.subsec_nanos()) };
    match poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&patience)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file of this kind is written through an [`Outlet`], rather than kept.
pub(crate) fn is_outlet(kind: std::fs::FileType) -> bool {
    kind.is_fifo() || kind.is_char_device()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use arrow_array::{ArrayRef, StringViewArray};

    use super::*;

    #[tokio::test]
    async fn a_torn_line_is_ended_before_the_next_begins() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut outlet =
            Outlet::new(File::from(std::os::fd::OwnedFd::from(writer)), false).unwrap();
        let lines: ArrayRef = Arc::new(StringViewArray::from(vec!["whole"]));
        let rows = RecordBatch::try_from_iter([("message", lines)]).unwrap();
        let format = Format::new(None, None, &[]).unwrap();
        for torn in [false, true, false] {
            outlet.torn = torn;
            let written = outlet.write_rows(&format, &rows, |error| panic!("{error}")).await;
            written.unwrap();
        }
        drop(outlet);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "whole\n\nwhole\nwhole\n");
    }
}
