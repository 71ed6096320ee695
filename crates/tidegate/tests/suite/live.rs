//! Live streams through the real program: receivers that stall, and answers that must be true.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tidegate_testkit::process::{Program, wait_for};

use crate::support::{DEADLINE, Folder, TIDEGATE, times};

/// 64 MiB for rows and 96 MiB for all else.
pub(crate) const KIB_MAX: u64 = 160 * 1024;

/// The share of a connection, beyond the kernel's.
const CONNECTION_KIB: u64 = 64;

/// Clients that subscribe and then read nothing.
const CLIENTS: usize = 20;

pub(crate) fn free_port() -> u16 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    free.local_addr().unwrap().port()
}

/// Connects once somebody listens.
pub(crate) fn reach(port: u16) -> TcpStream {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait_for("somebody who listens", DEADLINE, || TcpStream::connect(address).ok())
}

/// Asks for something, and reads the head of the answer and no more.
fn subscribed(port: u16, request: &str, status: &str) -> TcpStream {
    let mut stream = reach(port);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = vec![0; status.len()];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(String::from_utf8_lossy(&head), status);
    stream
}

/// Rows without an end, to a sink.
fn endless(folder: &Folder, sink: &str) -> Program {
    let config = format!(
        "data_dir = \"state\"\n[sources.app]\ntype = \"generate\"\ntemplate = \"app\"\n\
         [sinks.out]\ninputs = [\"app\"]\n{sink}\n"
    );
    folder.write("pipeline.toml", config);
    let arguments = ["run", "--memory", "64MiB", "pipeline.toml"];
    Program::start(TIDEGATE, folder.path(), arguments)
}

/// Its memory stays within bounds while it runs on for some seconds.
fn assert_bounded(program: &mut Program, connections: usize) {
    assert!(program.runs_for(Duration::from_secs(4)), "it ended: {}", program.stderr());
    let most = KIB_MAX + CONNECTION_KIB * connections as u64;
    let peak = program.memory_kib("VmHWM").unwrap();
    println!("peak {} MiB", peak / 1024);
    assert!(peak <= most, "{peak} KiB at most, {most} are allowed");
}

#[test]
#[cfg(target_os = "linux")]
fn a_receiver_of_lines_that_does_not_read() {
    let receiver = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = receiver.local_addr().unwrap();
    let folder = Folder::new();
    let sink = format!("type = \"socket\"\nconnect = \"{to}\"\ncodec = \"ndjson\"");
    let mut program = endless(&folder, &sink);
    let (_held, _) = receiver.accept().unwrap();
    assert_bounded(&mut program, 1);
}

#[test]
#[cfg(target_os = "linux")]
fn an_api_that_does_not_answer() {
    let receiver = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = receiver.local_addr().unwrap();
    let folder = Folder::new();
    let sink = format!("type = \"http\"\nurl = \"http://{to}/\"\ncodec = \"ndjson\"");
    let mut program = endless(&folder, &sink);
    let (_held, _) = receiver.accept().unwrap();
    assert_bounded(&mut program, 1);
}

/// Clients that stall, one policy after another.
fn stalled_clients(sinks: &[&str], request: &str, status: &str) {
    for sink in sinks {
        let (folder, port) = (Folder::new(), free_port());
        let sink = format!("{sink}\nlisten = \"127.0.0.1:{port}\"");
        let mut program = endless(&folder, &sink);
        let _clients: Vec<_> = (0..CLIENTS).map(|_| subscribed(port, request, status)).collect();
        assert_bounded(&mut program, CLIENTS);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn clients_of_an_event_stream_that_do_not_read() {
    let request = "GET /events HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n";
    stalled_clients(&["type = \"sse\""], request, "HTTP/1.1 200");
}

#[test]
#[cfg(target_os = "linux")]
fn web_socket_clients_that_do_not_read() {
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let policies = ["drop_oldest", "block"]
        .map(|policy| format!("type = \"websocket\"\nmode = \"listen\"\nwhen_slow = \"{policy}\""));
    let policies: Vec<&str> = policies.iter().map(String::as_str).collect();
    stalled_clients(&policies, request, "HTTP/1.1 101");
}

/// Posts text; the status of the answer, or nothing where the connection broke.
pub(crate) fn post(stream: &mut TcpStream, body: &str) -> Option<u16> {
    let length = body.len();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        answer.extend(byte);
    }
    let head = String::from_utf8(answer).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut rest = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut rest).ok()?;
    Some(head.split(' ').nth(1).unwrap().parse().unwrap())
}

/// Posts numbered lines until the connection breaks; the lines that were answered with 200.
fn posted(mut stream: TcpStream, name: &str) -> Vec<String> {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut safe = Vec::new();
    for number in 0.. {
        let lines: Vec<_> = (0..10).map(|line| format!("{name} {number}.{line}")).collect();
        match post(&mut stream, &(lines.join("\n") + "\n")) {
            Some(200) => safe.extend(lines),
            Some(status) => assert_eq!(status, 429, "it is neither healthy nor full"),
            None => break,
        }
    }
    safe
}

#[test]
fn what_was_answered_with_200_is_there_after_any_kill() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let (folder, port) = (Folder::new(), free_port());
    let config = format!(
        "data_dir = \"state\"\nmemory = \"64MiB\"\n\
         [sources.api]\ntype = \"http\"\nlisten = \"127.0.0.1:{port}\"\n\
         [sinks.out]\ntype = \"file\"\ninputs = [\"api\"]\npath = \"out.log\"\ncodec = \"text\"\n"
    );
    folder.write("pipeline.toml", config);
    let mut safe = Vec::new();
    let rounds = times().div_ceil(4);
    for round in 0..50 {
        if round >= rounds && !safe.is_empty() {
            break;
        }
        let program = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
        let streams = [(); 16].map(|()| reach(port));
        let time = Duration::from_millis(random.u64(0..1_500));
        safe.extend(std::thread::scope(|scope| {
            let clients = streams.into_iter().enumerate().map(|(client, stream)| {
                scope.spawn(move || posted(stream, &format!("{round} {client}")))
            });
            let clients: Vec<_> = clients.collect();
            let mut program = program;
            assert!(program.runs_for(time), "seed {seed}: {}", program.stderr());
            program.kill();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
        }));
    }
    // What is in the file beyond what was committed goes at the next start.
    let program = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
    drop(reach(port));
    program.signal("TERM");
    assert_eq!(program.ended(DEADLINE).code(), Some(0));
    let text = folder.read("out.log");
    let there: HashSet<&str> = text.lines().collect();
    let missing: Vec<_> = safe.iter().filter(|line| !there.contains(&***line)).collect();
    println!("{} lines were safe", safe.len());
    assert!(!safe.is_empty());
    assert!(missing.is_empty(), "seed {seed}: {} missing: {:?}", missing.len(), missing.first());
}
