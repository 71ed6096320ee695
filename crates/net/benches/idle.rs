//! What idle readers of server-sent events cost the server: memory of each, and processor time,
//! heartbeats included.
//!
//! Server and clients are processes of their own, so that what the server has is the server's alone.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a benchmark may fail")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate_net::listen::{Limits, Listener};
use tidegate_net::serve::{HttpOptions, serve};
use tidegate_net::sse::{self, Broadcaster};

/// What a browser's request has, about.
const REQUEST: &[u8] = b"GET /events HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\
    cache-control: no-cache\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n\
    accept-encoding: gzip, deflate, br\r\naccept-language: en\r\nconnection: keep-alive\r\n\r\n";

const DEADLINE: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "serve") {
        return server();
    }
    if arguments.iter().any(|word| !word.starts_with('-') && !"idle".contains(&**word)) {
        return;
    }
    let quick = arguments.iter().any(|word| word == "--quick");
    let (clients, heartbeats) = if quick { (100, 1) } else { (5_000, 2) };
    println!("# Idle readers of server-sent events\n");
    println!(
        "{clients} connections without TLS, a heartbeat every 15 s; memory is the server's own \
         (RssAnon), processor time its user and system together.\n"
    );
    let mut server = Server::start();
    // What the first connections cost is there once.
    drop(server.clients(16));
    let empty = server.memory();
    let mut readers = server.clients(clients);
    let full = server.memory();
    let each = full.saturating_sub(empty) as f64 / clients as f64;
    println!("| | memory a client | processor |\n|---|--:|--:|");
    let (cpu, _) = server.cpu_while(Duration::from_secs(5));
    println!("| nothing is sent | {each:.1} KiB | {:.2} % of one |", cpu * 100.0);
    let time = Duration::from_secs(if quick { 1 } else { 15 * heartbeats + 5 });
    let (cpu, seconds) = server.cpu_while(time);
    let each = server.memory().saturating_sub(empty) as f64 / clients as f64;
    println!("| with heartbeats, {seconds:.0} s | {each:.1} KiB | {:.2} % of one |", cpu * 100.0);
    server.publish();
    for reader in &mut readers {
        heard(reader, b"data: hello\n\n");
    }
    let each = server.memory().saturating_sub(empty) as f64 / clients as f64;
    println!("| after an event for all | {each:.1} KiB | |\n");
}

/// Broadcasts a line for each line that it is told.
fn server() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let news = Broadcaster::new(sse::Limits::default());
    let to_all = news.clone();
    runtime.block_on(async {
        let limits = Limits { connections_max: 100_000, ..Limits::default() };
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), limits).unwrap();
        println!("{}", listener.local_addr().unwrap());
        let told = tokio::task::spawn_blocking(move || {
            for line in std::io::stdin().lock().lines() {
                news.publish(None, &line.unwrap());
            }
        });
        let stop = async { told.await.unwrap() };
        let answer = move |request: http::Request<_>, _peer| {
            let _: &http::Request<hyper::body::Incoming> = &request;
            std::future::ready(to_all.respond(request.headers()))
        };
        serve(listener, HttpOptions::default(), stop, answer, |_notice| {}).await;
    });
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        // As many descriptors as it may have.
        let raise = "ulimit -n \"$(ulimit -Hn)\" && exec \"$0\" serve";
        let mut command = Command::new("sh");
        command.args(["-c", raise]).arg(std::env::current_exe().unwrap());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().expect("no server") }
    }

    /// So many clients, each of which has got its first comment.
    fn clients(&self, count: usize) -> Vec<TcpStream> {
        let connect = |_| {
            let mut stream = TcpStream::connect(self.address).expect("more open files are needed");
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(REQUEST).unwrap();
            heard(&mut stream, b":\n\n");
            stream
        };
        (0..count).map(connect).collect()
    }

    fn publish(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    }

    /// KiB.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Seconds on a processor.
    fn cpu(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let all = tasks.map(|task| {
            let account = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            account.split_whitespace().next().unwrap().parse::<f64>().unwrap()
        });
        all.sum::<f64>() / 1e9
    }

    /// The share of one processor that it takes while nothing is asked of it, and for how long that
    /// was looked at.
    fn cpu_while(&self, time: Duration) -> (f64, f64) {
        let (before, began) = (self.cpu(), Instant::now());
        while began.elapsed() < time {
            std::thread::park_timeout(time.saturating_sub(began.elapsed()));
        }
        let seconds = began.elapsed().as_secs_f64();
        ((self.cpu() - before) / seconds, seconds)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads up to these bytes.
fn heard(stream: &mut TcpStream, bytes: &[u8]) {
    let mut text = Vec::new();
    let mut piece = [0; 1_024];
    while !text.windows(bytes.len()).any(|found| found == bytes) {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "the server closed a connection");
        text.extend_from_slice(&piece[..count]);
    }
}
