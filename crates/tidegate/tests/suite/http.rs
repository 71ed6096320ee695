//! The source and the sink `http` in the real program: one program behind another, either killed at
//! any moment; bodies that unpack to much more than they should.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tidegate_testkit::process::Program;

use crate::live::{KIB_MAX, free_port, post, reach};
use crate::support::{DEADLINE, Folder, TIDEGATE, times};

fn config(name: &str, port: u16, sink: &str) -> String {
    format!(
        "data_dir = \"{name}\"\n\
         [sources.api]\ntype = \"http\"\nlisten = \"127.0.0.1:{port}\"\n\
         [sinks.out]\ninputs = [\"api\"]\n{sink}\n"
    )
}

/// Posts numbered lines, again and again to whoever listens, until it is told to stop; the lines that
/// were answered with 200.
fn posting(port: u16, name: usize, stop: &AtomicBool) -> Vec<String> {
    let connected = || {
        let stream = reach(port);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let (mut stream, mut safe) = (connected(), Vec::new());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let lines: Vec<_> = (0..10).map(|line| format!("{name} {number}.{line}")).collect();
        match post(&mut stream, &(lines.join("\n") + "\n")) {
            Some(200) => safe.extend(lines),
            Some(status) => assert_eq!(status, 429, "it is neither healthy nor full"),
            None => stream = connected(),
        }
    }
    safe
}

#[test]
fn what_the_first_of_two_programs_answered_with_200_is_where_the_second_wrote_it() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let (folder, first, second) = (Folder::new(), free_port(), free_port());
    let to = format!(
        "type = \"http\"\nurl = \"http://127.0.0.1:{second}/\"\ncodec = \"text\"\n\
         compression = \"zstd\"\nbatch_age = \"5ms\""
    );
    folder.write("first.toml", config("first", first, &to));
    let file = "type = \"file\"\npath = \"out.log\"\ncodec = \"text\"";
    folder.write("second.toml", config("second", second, file));
    let start =
        |name: &str| Program::start(TIDEGATE, folder.path(), ["run", "--memory", "64MiB", name]);
    let names = ["first.toml", "second.toml"];
    let mut programs = names.map(|name| Some(start(name)));
    let stop = AtomicBool::new(false);
    let safe = thread::scope(|scope| {
        let stop = &stop;
        let client = |name| scope.spawn(move || posting(first, name, stop));
        let clients: Vec<_> = (0..16).map(client).collect();
        for _ in 0..times().div_ceil(2) {
            let time = Duration::from_millis(random.u64(0..700));
            let one = random.usize(0..2);
            let mut program = programs[one].take().unwrap();
            assert!(program.runs_for(time), "seed {seed}: {}", program.stderr());
            program.kill();
            programs[one] = Some(start(names[one]));
        }
        reach(first);
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    // In this order: the first may have something for the second.
    for program in programs.into_iter().flatten() {
        program.signal("TERM");
        let ended = program.ended(DEADLINE);
        assert_eq!(ended.code(), Some(0), "seed {seed}: {ended:?}");
    }
    let text = folder.read("out.log");
    let there: HashSet<&str> = text.lines().collect();
    let missing: Vec<_> = safe.iter().filter(|line| !there.contains(&***line)).collect();
    println!("{} lines were safe", safe.len());
    assert!(safe.len() > 100, "seed {seed}: only {} lines came through", safe.len());
    assert!(missing.is_empty(), "seed {seed}: {} missing: {:?}", missing.len(), missing.first());
}

/// 100 MB of nothing.
fn bomb(packing: &str) -> Vec<u8> {
    let nothing = vec![0; 100_000_000];
    if packing == "zstd" {
        return zstd::encode_all(&*nothing, 3).unwrap();
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&nothing).unwrap();
    encoder.finish().unwrap()
}

/// Sends it; the beginning of the answer.
fn thrown(port: u16, packing: &str, bytes: &[u8]) -> String {
    let mut stream: TcpStream = reach(port);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = bytes.len();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: {packing}\r\n\
         content-length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), bytes].concat()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    String::from_utf8(status.to_vec()).unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn bombs_from_many_clients_at_once_are_refused_in_bounded_memory() {
    let (folder, port) = (Folder::new(), free_port());
    let file = "type = \"file\"\npath = \"out.log\"\ncodec = \"text\"";
    folder.write("pipeline.toml", config("state", port, file));
    let arguments = ["run", "--memory", "64MiB", "pipeline.toml"];
    let program = Program::start(TIDEGATE, folder.path(), arguments);
    let bombs = ["gzip", "zstd"].map(|packing| (packing, bomb(packing)));
    assert!(bombs.iter().all(|(_, bomb)| bomb.len() < 100_000), "these are no bombs");
    let refused: Vec<String> = thread::scope(|scope| {
        let bombs = &bombs;
        let clients = [0; 24].map(|_| {
            scope.spawn(move || {
                let thrown = |(packing, bomb): &(&str, Vec<u8>)| thrown(port, packing, bomb);
                bombs.iter().map(thrown).collect::<Vec<_>>()
            })
        });
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let too_large = refused.iter().filter(|status| status.ends_with("413")).count();
    let full = refused.iter().filter(|status| status.ends_with("429")).count();
    assert!(too_large > 0 && too_large + full == 48, "{refused:?}");
    assert_eq!(post(&mut reach(port), "good\n"), Some(200));
    let peak = program.memory_kib("VmHWM").unwrap();
    println!("peak {} MiB, {too_large} too large, {full} found no room", peak / 1024);
    assert!(peak <= KIB_MAX, "{peak} KiB");
    assert_eq!(folder.read("out.log"), "good\n");
}
