//! Lines over TCP, against `socat`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate_testkit::bench::Cost;
use tidegate_testkit::bench::programs::{Clock, Goal, Outcome, Programs, Served};

use crate::TIDEGATE;
use crate::log::{self, Facts, Shape};

/// So long a server may take to listen, or to end what it was sent.
const PATIENCE: Duration = Duration::from_secs(120);

/// The rows that pass.
const QUERY: &str = "SELECT message FROM input WHERE message LIKE '%ERROR%'";

/// What is sent, and where both sides keep what they need.
struct Ground {
    folder: TempDir,
    log: PathBuf,
    facts: Facts,
}

pub(crate) fn run(bench: &mut Programs) -> Outcome {
    let folder = TempDir::with_prefix_in("live-", env!("CARGO_TARGET_TMPDIR"))?;
    let log = folder.path().join("in.log");
    let facts = log::write(&log, Shape::Mixed, bench.input() << 20)?;
    let ground = &Ground { folder, log, facts };

    bench.section("lines over TCP");
    let goal = Goal::Speed(Clock::Wall, 0.5);
    bench.compared("TCP to blackhole vs socat to /dev/null", goal, || {
        let ours = move || {
            let port = free_port()?;
            ground.received(ground.tidegate(port, "", "type = \"blackhole\"")?, port)
        };
        let theirs = move || {
            let port = free_port()?;
            let from = format!("TCP-LISTEN:{port},bind=127.0.0.1");
            ground.received(socat(&from, "OPEN:/dev/null"), port)
        };
        Ok((ours, theirs))
    });
    let relay = |transform| {
        move || {
            let (port, far) = (free_port()?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
            let to = far.local_addr()?;
            let sink = format!("type = \"socket\"\nconnect = \"{to}\"\ncodec = \"text\"");
            let bytes = if transform { None } else { Some(ground.facts.bytes) };
            ground.relayed(ground.tidegate(port, sql(transform), &sink)?, port, &far, bytes)
        }
    };
    let theirs = || {
        let (port, far) = (free_port()?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
        let from = format!("TCP-LISTEN:{port},bind=127.0.0.1");
        let relay = socat(&from, &format!("TCP:{}", far.local_addr()?));
        ground.relayed(relay, port, &far, Some(ground.facts.bytes))
    };
    bench.compared(
        "TCP to SQL filter to TCP vs socat relay",
        Goal::Speed(Clock::Wall, 0.3),
        || Ok((relay(true), theirs)),
    );
    bench.compared("TCP to TCP vs socat relay", Goal::None, || Ok((relay(false), theirs)));
    Ok(())
}

fn sql(filter: bool) -> &'static str {
    if filter { QUERY } else { "" }
}

/// The largest pieces that `socat` may read, as ours.
fn socat(from: &str, to: &str) -> Command {
    let mut command = Command::new("socat");
    command.args(["-b", "262144", "-u", from, to]);
    command
}

impl Ground {
    /// A pipeline from a port to a sink.
    fn tidegate(&self, port: u16, query: &str, sink: &str) -> Outcome<Command> {
        let state = self.folder.path().join("state");
        if state.exists() {
            fs::remove_dir_all(&state)?;
        }
        let config = self.folder.path().join("pipeline.toml");
        let (input, transform) = match query {
            "" => ("lines", String::new()),
            query => {
                let table = "[transforms.query]\ntype = \"sql\"\ninputs = [\"lines\"]";
                ("query", format!("{table}\nquery = \"{query}\"\n"))
            }
        };
        let text = format!(
            "data_dir = '{}'\n[sources.lines]\ntype = \"socket\"\nlisten = \"127.0.0.1:{port}\"\n\
             {transform}\n[sinks.out]\ninputs = [\"{input}\"]\n{sink}\n",
            state.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(TIDEGATE);
        command.args(["run", "--quiet"]).arg(config);
        Ok(command)
    }

    /// What it takes a server to receive everything.
    fn received(&self, command: Command, port: u16) -> Outcome<Cost> {
        let server = Served::start(command)?;
        let to = reach(port)?;
        let began = Instant::now();
        send(&self.log, &to)?;
        // It has read the end, and so all before it, when it closes.
        let left = (&to).read(&mut [0])?;
        let wall = began.elapsed();
        if left != 0 {
            return Err("the receiver sent something".into());
        }
        server.end(wall)
    }

    /// What it takes a relay to pass on everything, or the lines that [`QUERY`] lets through.
    fn relayed(
        &self,
        command: Command,
        port: u16,
        far: &TcpListener,
        bytes: Option<u64>,
    ) -> Outcome<Cost> {
        let server = Served::start(command)?;
        let errors = self.facts.errors;
        thread::scope(|scope| {
            let to = reach(port)?;
            let began = Instant::now();
            let heard = scope.spawn(move || -> io::Result<Instant> {
                let (from, _) = far.accept()?;
                from.set_read_timeout(Some(PATIENCE))?;
                match bytes {
                    Some(bytes) => hear(from, bytes, |piece| piece.len() as u64),
                    None => hear(from, errors, |piece| {
                        piece.iter().filter(|byte| **byte == b'\n').count() as u64
                    }),
                }
            });
            send(&self.log, &to)?;
            let ended = heard.join().map_err(|_| "the far end panicked")??;
            server.end(ended.duration_since(began))
        })
    }
}

/// Reads until so much was counted; says when that was.
fn hear(mut from: TcpStream, all: u64, count: impl Fn(&[u8]) -> u64) -> io::Result<Instant> {
    let mut piece = vec![0; 1 << 20];
    let mut heard = 0;
    while heard < all {
        match from.read(&mut piece)? {
            0 => {
                let said = format!("{heard} of {all} came, and then the end");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, said));
            }
            length => heard += count(&piece[..length]),
        }
    }
    Ok(Instant::now())
}

/// Sends a file and the end.
fn send(log: &Path, mut to: &TcpStream) -> io::Result<()> {
    let mut from = File::open(log)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        match from.read(&mut piece)? {
            0 => return to.shutdown(Shutdown::Write),
            length => to.write_all(&piece[..length])?,
        }
    }
}

/// Connects once somebody listens.
fn reach(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let began = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => thread::park_timeout(Duration::from_millis(2)),
        }
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
