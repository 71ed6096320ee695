//! The clients' process: takes all that comes, and says when it is all there.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::MESSAGE_BYTES;

/// With the head of a server's frame of this length.
const FRAME_BYTES: usize = MESSAGE_BYTES + 4;

/// Handshakes at once.
const CONNECTING: usize = 100;

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What all clients got together.
struct Got {
    messages: AtomicU64,
    expected: AtomicU64,
    all: Notify,
    // How often a message took so many tens of microseconds.
    delays: Vec<AtomicU64>,
}

pub(crate) fn main(arguments: &[String]) {
    let port: u16 = arguments[0].parse().unwrap();
    let clients: usize = arguments[1].parse().unwrap();
    let delays = (0..100_000).map(|_| AtomicU64::new(0)).collect();
    let (messages, expected, all) = (AtomicU64::new(0), AtomicU64::new(u64::MAX), Notify::new());
    let got = Arc::new(Got { messages, expected, all, delays });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connecting =
            stream::iter(0..clients).map(|_| connect(port)).buffer_unordered(CONNECTING);
        let streams: Vec<_> = connecting.collect().await;
        for stream in streams {
            tokio::spawn(receive(stream, Arc::clone(&got)));
        }
        say("ready");
        obey(&got, clients as u64).await;
    });
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

async fn obey(got: &Got, clients: u64) {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            tell.send(line.unwrap()).unwrap();
        }
        std::process::exit(0);
    });
    let mut expected = 0;
    while let Some(line) = told.recv().await {
        match line.split_once(' ') {
            Some(("expect", more)) => {
                expected += more.parse::<u64>().unwrap() * clients;
                got.expected.store(expected, Ordering::Relaxed);
                while got.messages.load(Ordering::Relaxed) < expected {
                    got.all.notified().await;
                }
                say("got");
            }
            _ if line == "forget" => {
                got.delays.iter().for_each(|count| count.store(0, Ordering::Relaxed));
            }
            _ => say(&p99(got).to_string()),
        }
    }
}

/// In milliseconds.
fn p99(got: &Got) -> f64 {
    let counts = got.delays.iter().map(|count| count.load(Ordering::Relaxed));
    let all: u64 = counts.clone().sum();
    let mut below = 0;
    let at = counts.take_while(|count| {
        below += count;
        below * 100 < all * 99
    });
    at.count() as f64 / 100.0
}

async fn connect(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    stream
}

/// Frames all have one length, so that they need not be parsed.
async fn receive(mut stream: TcpStream, got: Arc<Got>) {
    let mut buffer = vec![0; FRAME_BYTES * 16];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(count) if count > 0 => filled += count,
            _ => return,
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let whole = filled / FRAME_BYTES;
        for frame in buffer.chunks_exact(FRAME_BYTES).take(whole) {
            assert_eq!(frame[..2], [0x81, 126], "a frame of another kind");
            let sent: u128 = std::str::from_utf8(&frame[4..24]).unwrap().parse().unwrap();
            let delay = usize::try_from(now.saturating_sub(sent) / 10_000).unwrap_or(usize::MAX);
            got.delays[delay.min(got.delays.len() - 1)].fetch_add(1, Ordering::Relaxed);
        }
        buffer.copy_within(whole * FRAME_BYTES..filled, 0);
        filled -= whole * FRAME_BYTES;
        let all = got.messages.fetch_add(whole as u64, Ordering::Relaxed) + whole as u64;
        if all >= got.expected.load(Ordering::Relaxed) {
            got.all.notify_one();
        }
    }
}
