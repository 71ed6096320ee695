//! Records of datagrams.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use arrow_buffer::Buffer;
use tidegate_model::{Error, Result, SourceBatch};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::time::{Duration, Instant};
use tracing::warn;

use super::door::Bound;
use super::link::{CHUNK_BYTES_MAX, Shared, position};
use crate::clock;
use crate::codecs::{
    Chunk, Cut, Decoder, Framing, Label, Line, Places, TooLong, rounded, too_large,
};

/// More than the largest datagram of UDP has.
const UDP_BYTES_MAX: usize = 65_535;

/// How often the kernel is asked how many it dropped.
const DROPS_EVERY: Duration = Duration::from_secs(1);

/// Where datagrams come from.
pub(super) enum Port {
    Udp(UdpSocket),
    /// And its path, as long as it is read.
    Unix(UnixDatagram, #[expect(dead_code, reason = "held, not read")] Bound),
}

impl Port {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Udp(udp) => udp.readable().await,
            Self::Unix(unix, _) => unix.readable().await,
        }
    }

    /// A datagram that is there, and who sent it.
    fn try_read(&self, into: &mut [u8]) -> io::Result<(usize, Option<SocketAddr>)> {
        match self {
            Self::Udp(udp) => udp.try_recv_from(into).map(|(count, peer)| (count, Some(peer))),
            Self::Unix(unix, _) => unix.try_recv(into).map(|count| (count, None)),
        }
    }

    /// How many datagrams the kernel dropped, as there was no room.
    fn drops(&self) -> Option<u64> {
        let Self::Udp(udp) = self else { return None };
        let table = if udp.local_addr().ok()?.is_ipv4() { "udp" } else { "udp6" };
        let file = fs::File::from(udp.as_fd().try_clone_to_owned().ok()?);
        let inode = file.metadata().ok()?.ino().to_string();
        let table = fs::read_to_string(format!("/proc/net/{table}")).ok()?;
        let columns = table.lines().map(|line| line.split_whitespace());
        let mut found = columns.filter(|columns| columns.clone().nth(9) == Some(&*inode));
        found.next()?.last()?.parse().ok()
    }
}

/// Datagrams at work.
pub(super) struct Datagrams {
    shared: Arc<Shared>,
    port: Port,
    /// Who sends where nobody says.
    name: String,
    decoder: Box<dyn Decoder>,
    /// Made and not given yet: those that came together, a batch for each sender.
    ready: VecDeque<SourceBatch>,
    dropped: u64,
    looked: Option<Instant>,
}

/// A run of datagrams of one sender.
struct Run {
    peer: Option<SocketAddr>,
    lines: Vec<Line>,
    bytes: u64,
    cut: Cut,
}

impl Datagrams {
    pub(super) fn new(shared: Arc<Shared>, port: Port, name: String) -> Self {
        let decoder = shared.decoder();
        let ready = VecDeque::new();
        let dropped = port.drops().unwrap_or_default();
        Self { shared, port, name, decoder, ready, dropped, looked: None }
    }

    /// The most that is read of a datagram; one that has so much has more.
    pub(super) fn datagram_bytes_max(udp: bool, line_bytes_max: usize) -> usize {
        if udp { UDP_BYTES_MAX } else { line_bytes_max.max(UDP_BYTES_MAX).saturating_add(1) }
    }

    /// The next batch; there is always one more.
    pub(super) async fn next(mut self) -> Result<Option<(SourceBatch, Self)>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some((batch, self)));
            }
            let broken = |error| Error::disconnected("the socket broke").because(error);
            self.port.readable().await.map_err(broken)?;
            let udp = matches!(self.port, Port::Udp(_));
            let room = Self::datagram_bytes_max(udp, self.shared.line_bytes_max);
            let context = &self.shared.context;
            let most = CHUNK_BYTES_MAX.min(context.batch_bytes_max);
            let wants = rounded(most.max(room)).min(context.holder.largest().max(room));
            let shared = Arc::clone(&self.shared);
            let permit = shared.holder().acquire(wants).await.map_err(too_large)?;
            let mut space = shared.pool.space(permit);
            let (runs, filled) = self.read(space.bytes_mut(), room).map_err(broken)?;
            if filled > 0 || !runs.is_empty() {
                self.decode(&space.into_buffer(filled), runs)?;
            }
        }
    }

    /// Reads datagrams while there are some and room for the largest.
    fn read(&self, space: &mut [u8], room: usize) -> io::Result<(Vec<Run>, usize)> {
        let (mut runs, mut filled): (Vec<Run>, usize) = (Vec::new(), 0);
        let rows_max = self.shared.context.batch_rows_max.max(1);
        while space.len() - filled >= room
            && let Some(into) = space.get_mut(filled..filled + room)
        {
            let (count, peer) = match self.port.try_read(into) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Of what we never send.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let same = runs.last().is_some_and(|run| {
                run.peer.map(|peer| peer.ip()) == peer.map(|peer| peer.ip())
                    && run.lines.len() < rows_max
            });
            if !same {
                runs.push(Run { peer, lines: Vec::new(), bytes: 0, cut: Cut::default() });
            }
            if let (Some(run), Some(datagram)) = (runs.last_mut(), into.get(..count)) {
                // What there was more of it the kernel has dropped.
                self.records(datagram, filled, count == room, run);
            }
            filled += count;
        }
        Ok((runs, filled))
    }

    /// The records of a datagram that begins there: its lines, or all of it. Of one that was cut off
    /// the rest counts as one that is refused, and so does the line that was cut.
    fn records(&self, datagram: &[u8], start: usize, is_cut: bool, run: &mut Run) {
        run.bytes += datagram.len() as u64;
        let whole = match is_cut {
            false => datagram.strip_suffix(b"\n").unwrap_or(datagram),
            true => {
                let lines = memchr::memrchr(b'\n', datagram).filter(|_| self.is_lines());
                let (offset, bytes) = (start as u64, datagram.len() as u64);
                run.cut.refused += 1;
                run.cut.too_long = run.cut.too_long.or(Some(TooLong { offset, bytes }));
                let Some(end) = lines else { return };
                datagram.get(..end).unwrap_or_default()
            }
        };
        let mut add = |from: usize, line: &[u8]| {
            if line.len() > self.shared.line_bytes_max {
                run.cut.refused += 1;
                let (offset, bytes) = ((start + from) as u64, line.len() as u64);
                run.cut.too_long = run.cut.too_long.or(Some(TooLong { offset, bytes }));
                return;
            }
            // The space has less than 4 GiB.
            let from = (start + from) as u32;
            run.lines.push(Line { start: from, end: from + line.len() as u32 });
        };
        if !self.is_lines() {
            return add(0, datagram);
        }
        let mut from = 0;
        for line in whole.split(|byte| *byte == b'\n') {
            add(from, line.strip_suffix(b"\r").unwrap_or(line));
            from += line.len() + 1;
        }
    }

    fn is_lines(&self) -> bool {
        self.shared.framing == Framing::Newline
    }

    fn decode(&mut self, buffer: &Buffer, runs: Vec<Run>) -> Result<()> {
        let read_at = clock::now();
        let dropped = self.newly_dropped();
        for (number, run) in runs.into_iter().enumerate() {
            let Run { peer, lines, bytes, cut } = run;
            let name = peer.map_or_else(|| self.name.clone(), |peer| peer.ip().to_string());
            let start = self.shared.place(usize::try_from(bytes).unwrap_or(usize::MAX));
            let decoded = self.decoder.decode(&Chunk {
                bytes: buffer,
                lines: &lines,
                places: Places::Bytes(start),
                label: &Label::from(&*name),
                read_at,
            })?;
            self.shared.tell(&name, &cut, &decoded);
            let refused = cut.refused + decoded.refused + if number == 0 { dropped } else { 0 };
            let (position, rows) = (position(start + bytes), decoded.rows);
            let skipped = 0;
            self.ready.push_back(SourceBatch {
                rows,
                start,
                position,
                read_at,
                bytes,
                refused,
                skipped,
                told: None,
            });
        }
        Ok(())
    }

    /// How many datagrams the kernel has dropped since it was asked last.
    fn newly_dropped(&mut self) -> u64 {
        let now = Instant::now();
        if self.looked.is_some_and(|looked| now - looked < DROPS_EVERY) {
            return 0;
        }
        self.looked = Some(now);
        let Some(dropped) = self.port.drops() else { return 0 };
        let more = dropped.saturating_sub(std::mem::replace(&mut self.dropped, dropped));
        if more > 0 {
            let source = &*self.shared.context.name;
            warn!(
                source,
                datagrams = more,
                "the kernel dropped datagrams, as they came faster than \
                   they were read; a larger receive_buffer holds more"
            );
        }
        more
    }
}
