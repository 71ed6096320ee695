//! Rows that an API refuses, in the real program killed at random moments: each is in the file that
//! takes them, once, in order.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tidegate_testkit::process::Program;

use crate::support::{DEADLINE, Folder, TIDEGATE, times};

const ROWS: usize = 5_000;

/// An API that refuses every request with a bad row in it, and keeps the rows of all others.
struct Api {
    taken: Mutex<BTreeSet<String>>,
    closed: AtomicBool,
}

impl Api {
    fn serve(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            for stream in listener.incoming() {
                if self.closed.load(Ordering::Relaxed) {
                    return;
                }
                // A client that is killed ends its connection half-way.
                scope.spawn(|| self.answer(stream.ok()?));
            }
        });
    }

    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
                let line = line.trim().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let body = String::from_utf8(body).ok()?;
            let status = match body.contains("bad") {
                true => "422 Unprocessable Content",
                false => {
                    let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                    taken.extend(body.lines().map(str::to_owned));
                    "200 OK"
                }
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).ok()?;
        }
    }
}

fn row(number: usize) -> String {
    if number % 50 == 7 { format!("bad {number}") } else { format!("good {number}") }
}

#[test]
fn what_an_api_refuses_is_in_a_file_once_whenever_the_program_is_killed() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let folder = Folder::new();
    folder.write("in.log", (0..ROWS).map(|number| row(number) + "\n").collect::<String>());
    let config = format!(
        "data_dir = \"state\"\n\
         [sources.app]\ntype = \"file\"\ninclude = [\"in.log\"]\n\
         [transforms.texts]\ntype = \"sql\"\ninputs = [\"app\"]\n\
         query = \"SELECT message FROM input\"\n\
         [sinks.api]\ntype = \"http\"\ninputs = [\"texts\"]\nurl = \"http://{address}/\"\n\
         codec = \"text\"\nbatch_rows_max = 100\nbatch_age = \"5ms\"\n\
         [sinks.refused]\ntype = \"file\"\ninputs = [\"api.rejects\"]\npath = \"refused.ndjson\"\n\
         codec = \"ndjson\"\n"
    );
    folder.write("pipeline.toml", config);
    let api = Api { taken: Mutex::default(), closed: AtomicBool::new(false) };
    let ended = thread::scope(|scope| {
        scope.spawn(|| api.serve(&listener));
        for _ in 0..times().div_ceil(2) {
            let mut program = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
            assert!(program.runs_for(Duration::from_millis(random.u64(0..400))), "seed {seed}");
            program.kill();
        }
        let last = Program::start(TIDEGATE, folder.path(), ["run", "--once", "pipeline.toml"]);
        let ended = last.ended(DEADLINE);
        api.closed.store(true, Ordering::Relaxed);
        TcpStream::connect(address).unwrap();
        ended
    });
    assert_eq!(ended.code(), Some(0), "seed {seed}: {ended:?}");
    let wrong = |text: &str| text.starts_with("bad");
    let all = (0..ROWS).map(row);
    let refused: Vec<String> = all.clone().filter(|text| wrong(text)).collect();
    let good: BTreeSet<String> = all.filter(|text| !wrong(text)).collect();
    assert_eq!(*api.taken.lock().unwrap(), good, "seed {seed}");
    let found = folder.read("refused.ndjson");
    let found: Vec<serde_json::Value> =
        found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<_> = found.iter().map(|row| row["message"].as_str().unwrap()).collect();
    assert_eq!(texts, refused, "seed {seed}");
    let why = found[0]["reject_reason"].as_str().unwrap();
    assert!(why.contains("422"), "{why}");
}
