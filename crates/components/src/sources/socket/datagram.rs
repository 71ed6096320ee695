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

use super::Bound;
use super::link::{CHUNK_BYTES_MAX, Shared, position};
use crate::clock;
use crate::codecs::{
    Chunk, Cut, Damage, Decoder, Framing, Label, Line, Places, TooLong, rounded, too_large,
};

/// The largest datagram of UDP.
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
    damage: Damage,
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
        let (damage, ready) = (Damage::default(), VecDeque::new());
        let dropped = port.drops().unwrap_or_default();
        Self { shared, port, name, decoder, damage, ready, dropped, looked: None }
    }

    /// The most that a datagram may have.
    pub(super) fn datagram_bytes_max(line_bytes_max: usize) -> usize {
        line_bytes_max.saturating_add(1).max(UDP_BYTES_MAX)
    }

    /// The next batch; there is always one more.
    pub(super) async fn next(mut self) -> Result<Option<(SourceBatch, Self)>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some((batch, self)));
            }
            let broken = |error| Error::disconnected("the socket broke").because(error);
            self.port.readable().await.map_err(broken)?;
            let room = Self::datagram_bytes_max(self.shared.line_bytes_max);
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
                self.records(datagram, filled, run);
            }
            filled += count;
        }
        Ok((runs, filled))
    }

    /// The records of a datagram that begins there: its lines, or all of it.
    fn records(&self, datagram: &[u8], start: usize, run: &mut Run) {
        run.bytes += datagram.len() as u64;
        let mut add = |from: usize, line: &[u8]| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
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
        if self.shared.framing != Framing::Newline {
            return add(0, datagram);
        }
        let text = datagram.strip_suffix(b"\n").unwrap_or(datagram);
        let mut from = 0;
        for line in text.split(|byte| *byte == b'\n') {
            add(from, line);
            from += line.len() + 1;
        }
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
            self.damage.tell(&*name, &cut, &decoded);
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
