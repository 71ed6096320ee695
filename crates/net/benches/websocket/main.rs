//! One message to many WebSockets, against the same written straight on tokio-tungstenite and
//! `tokio::sync::broadcast`; and what idle ones cost.
//!
//! Server and clients are processes of their own, started anew for every measurement, so that what
//! the server used is the server's alone. All sides run in each round.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a benchmark may fail")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The clients' process.
mod clients;

/// The server's process.
mod server;

/// So long a message is.
const MESSAGE_BYTES: usize = 200;

/// The server's side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ours,
    /// `recv` and `send`, as examples have it.
    Plain,
    /// The same with small buffers: larger ones are cleared at each look for what a client says.
    Small,
    /// With small buffers, and all that there is fed, then flushed.
    Fed,
}

impl Side {
    const ALL: [Self; 4] = [Self::Ours, Self::Plain, Self::Small, Self::Fed];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Plain => "tungstenite, send",
            Self::Small => "tungstenite, small buffers",
            Self::Fed => "tungstenite, small buffers, feed and flush",
        }
    }
}

struct Settings {
    rounds: usize,
    clients: usize,
    idle_clients: usize,
    deliveries: usize,
    idle: Duration,
    raw: Option<File>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words = arguments.iter().map(String::as_str);
    match words.next() {
        Some("serve") => return server::main(&arguments[1..]),
        Some("receive") => return clients::main(&arguments[1..]),
        _ => {}
    }
    let has = |flag: &str| arguments.iter().any(|word| word == flag);
    if arguments.iter().any(|word| !word.starts_with('-') && !"websocket".contains(&**word))
        && !has("--raw")
    {
        return;
    }
    let raw = arguments.iter().position(|word| word == "--raw");
    let raw = raw.and_then(|at| arguments.get(at + 1)).map(|path| File::create(path).unwrap());
    let mut settings = Settings {
        rounds: 5,
        clients: 1_000,
        idle_clients: 5_000,
        deliveries: 600_000,
        idle: Duration::from_secs(10),
        raw,
    };
    if has("--quick") {
        settings.rounds = 1;
        (settings.clients, settings.idle_clients) = (50, 100);
        (settings.deliveries, settings.idle) = (10_000, Duration::from_millis(200));
    }
    println!("# websocket\n");
    println!(
        "{} clients, messages of {MESSAGE_BYTES} bytes, {} rounds; medians. Server and clients are \
         processes of their own; CPU is the server's, user and system.\n",
        settings.clients, settings.rounds
    );
    if let Some(raw) = &mut settings.raw {
        writeln!(raw, "burst,round,side,wall_s,cpu_s,deliveries,p99_ms_at_half").unwrap();
    }
    for burst in [1, 16] {
        compare(burst, &mut settings);
    }
    idle(&settings);
}

/// What a side did.
#[derive(Clone, Copy, Debug)]
struct Done {
    wall: f64,
    cpu: f64,
    p99: f64,
}

fn compare(burst: usize, settings: &mut Settings) {
    println!("## Bursts of {burst}: the next one when every client has this one\n");
    println!(
        "| side | deliveries/s | deliveries per CPU second | against | p99 at half the rate |"
    );
    println!("|---|--:|--:|--:|--:|");
    let mut all: [Vec<Done>; 4] = Side::ALL.map(|_| Vec::new());
    for round in 0..settings.rounds {
        for turn in 0..Side::ALL.len() {
            let at = (turn + round) % Side::ALL.len();
            let done = broadcast(Side::ALL[at], burst, settings);
            all[at].push(done);
            if let Some(raw) = &mut settings.raw {
                let (side, Done { wall, cpu, p99 }) = (Side::ALL[at].name(), done);
                let deliveries = settings.deliveries;
                writeln!(raw, "{burst},{round},{side:?},{wall},{cpu},{deliveries},{p99}").unwrap();
            }
        }
    }
    let deliveries = settings.deliveries as f64;
    for (at, side) in Side::ALL.into_iter().enumerate() {
        let of = |what: fn(&Done) -> f64| median(all[at].iter().map(what).collect());
        let ratio = |(ours, theirs): (&Done, &Done)| theirs.cpu / ours.cpu;
        let ratio = match at {
            0 => "-".to_owned(),
            _ => format!("ours {:.2}×", median(all[0].iter().zip(&all[at]).map(ratio).collect())),
        };
        println!(
            "| {} | {:.0} | {:.0} | {ratio} | {:.2} ms |",
            side.name(),
            deliveries / of(|done| done.wall),
            deliveries / of(|done| done.cpu),
            of(|done| done.p99),
        );
    }
    println!();
}

/// All messages as fast as they are taken, and then some at half that rate.
fn broadcast(side: Side, burst: usize, settings: &Settings) -> Done {
    let clients = settings.clients;
    let bursts = (settings.deliveries / clients / burst).max(1);
    let mut server = Peer::start(&["serve", side.name()]);
    let port = server.heard();
    let mut receiver = Peer::start(&["receive", &port, &clients.to_string()]);
    assert_eq!(receiver.heard(), "ready");
    server.say(&format!("await {clients}"));
    assert_eq!(server.heard(), "there");
    let before = server.cpu();
    let began = Instant::now();
    for _ in 0..bursts {
        server.say(&format!("publish {burst}"));
        receiver.say(&format!("expect {burst}"));
        assert_eq!(receiver.heard(), "got");
    }
    let wall = began.elapsed().as_secs_f64();
    let cpu = server.cpu() - before;
    receiver.say("forget");
    let pause = wall / bursts as f64 * 2.0;
    let slow = (bursts / 4).max(1);
    server.say(&format!("pace {burst} {slow} {}", (pause * 1e9) as u64));
    receiver.say(&format!("expect {}", slow * burst));
    assert_eq!(receiver.heard(), "got");
    receiver.say("latency");
    let p99 = receiver.heard().parse::<f64>().unwrap();
    Done { wall, cpu, p99 }
}

/// Clients that say nothing and are told nothing.
fn idle(settings: &Settings) {
    let clients = settings.idle_clients;
    println!("## {clients} idle clients\n");
    println!("| side | memory a client | CPU of a core |\n|---|--:|--:|");
    for side in [Side::Ours, Side::Plain, Side::Small] {
        let mut server = Peer::start(&["serve", side.name()]);
        let port = server.heard();
        let empty = server.memory();
        let mut receiver = Peer::start(&["receive", &port, &clients.to_string()]);
        assert_eq!(receiver.heard(), "ready");
        server.say(&format!("await {clients}"));
        assert_eq!(server.heard(), "there");
        // Once everybody was told something, as buffers may be kept for that.
        server.say("publish 1");
        receiver.say("expect 1");
        assert_eq!(receiver.heard(), "got");
        let each = (server.memory() - empty) * 1024 / clients;
        let before = server.cpu();
        let began = Instant::now();
        while began.elapsed() < settings.idle {
            std::thread::park_timeout(settings.idle - began.elapsed().min(settings.idle));
        }
        let cpu = (server.cpu() - before) / began.elapsed().as_secs_f64() * 100.0;
        println!("| {} | {:.1} KiB | {cpu:.1} % |", side.name(), each as f64 / 1024.0);
    }
    println!();
}

/// A process of this program, told what to do line by line.
struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    fn start(arguments: &[&str]) -> Self {
        // As many descriptors as it may have.
        let raise = "ulimit -n \"$(ulimit -Hn)\" && exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", raise]).arg(std::env::current_exe().unwrap()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    fn heard(&mut self) -> String {
        let mut line = String::new();
        let count = self.stdout.read_line(&mut line).unwrap();
        assert!(count > 0, "a process ended early: is the limit of open files high enough?");
        line.trim().to_owned()
    }

    /// Seconds that all its threads were on a processor.
    fn cpu(&self) -> f64 {
        let tasks = format!("/proc/{}/task", self.child.id());
        let all = std::fs::read_dir(tasks).unwrap().map(|task| {
            let account = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            account.split_whitespace().next().unwrap().parse::<f64>().unwrap()
        });
        all.sum::<f64>() / 1e9
    }

    /// KiB of its own memory.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
