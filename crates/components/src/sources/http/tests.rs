//! What clients send, and what they are answered.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use flate2::Compression;
use flate2::write::GzEncoder;
use tidegate_flow::ByteBudget;
use tidegate_model::{Expected, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

mod hostile;

const DEADLINE: Duration = Duration::from_secs(30);

/// A source at work, and a pipeline that keeps what it gives.
struct Working {
    address: SocketAddr,
    source: Box<dyn Source>,
    stream: SourceStream,
    budget: ByteBudget,
}

async fn working(more: &str) -> Working {
    with_memory(more, 64 << 20).await
}

async fn with_memory(more: &str, memory: usize) -> Working {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let text = format!("listen = \"{address}\"\n{more}");
    let mut source = build(&Settings::from_toml(&text).unwrap()).unwrap();
    let budget = ByteBudget::new(memory);
    let context = SourceContext {
        name: "api".into(),
        positions: Vec::new(),
        holder: Arc::new(budget.holder(source.bytes_min()).unwrap()),
        columns: Arc::new(log_schema().project(&[3, 4]).unwrap()),
        required: None,
        severity_min: None,
        offsets: false,
        once: false,
        batch_bytes_max: 1 << 20,
        batch_rows_max: 100,
        expected: Expected::default(),
    };
    let stream = source.open(context).await.unwrap();
    Working { address, source, stream, budget }
}

impl Working {
    /// Delivers whatever comes; gives its messages when this is dropped.
    fn deliver(
        mut self,
    ) -> (SocketAddr, JoinHandle<Vec<String>>, tokio::sync::oneshot::Sender<()>) {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut found = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    batch = self.stream.next() => {
                        let mut batch = batch.unwrap().unwrap();
                        found.extend(messages(&batch));
                        if let Some(told) = batch.told.take() {
                            told.settle(Verdict::Delivered);
                        }
                    }
                    _ = &mut stopped => {
                        drop(self.stream);
                        self.source.close().await;
                        assert_eq!(self.budget.usage().used, 0);
                        return found;
                    }
                }
            }
        });
        (self.address, task, stop)
    }

    async fn next(&mut self) -> SourceBatch {
        timeout(DEADLINE, self.stream.next()).await.unwrap().unwrap().unwrap()
    }
}

fn messages(batch: &SourceBatch) -> Vec<String> {
    let messages = batch.rows.column(1).as_string_view();
    messages.iter().map(|message| message.unwrap().to_owned()).collect()
}

/// A request; `headers` end with a line's end each.
fn request(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Sends bytes on a connection of their own; the status and the text of the answer.
async fn answered(address: SocketAddr, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Who is refused need not be read to the end.
    let _ = stream.write_all(bytes).await;
    answer(&mut stream).await
}

async fn answer(stream: &mut TcpStream) -> (u16, String) {
    let read = async {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(text).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head + &String::from_utf8(body).unwrap())
    };
    timeout(DEADLINE, read).await.unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap()
}

const TEXT: &str = "content-type: text/plain\r\n";
const NDJSON: &str = "content-type: application/x-ndjson; charset=utf-8\r\n";
const JSON: &str = "Content-Type: Application/JSON\r\n";

#[tokio::test]
async fn bodies_are_read_by_their_type_and_packing() {
    let (address, task, stop) = working("").await.deliver();
    let ndjson = b"{\"msg\":\"c\"}\n\n{\"msg\":\"d\"}";
    for (headers, body, rows) in [
        (TEXT, b"a\nb\r\n".to_vec(), 2),
        (NDJSON, ndjson.to_vec(), 2),
        (JSON, b" [{\"msg\":\"e\"},\n {\"msg\":\n\"f\"}] ".to_vec(), 2),
        (JSON, b"\n{\"msg\":\n\"g\"}\n".to_vec(), 1),
        (JSON, b"[]".to_vec(), 0),
        ("content-encoding: gzip\r\n", gzip(b"h\ni"), 2),
        ("content-encoding: gzip\r\n", [gzip(b"j\n"), gzip(b"k")].concat(), 2),
        ("content-encoding: ZSTD\r\n", zstd(b"l\nm"), 2),
        ("content-encoding: zstd\r\n", [zstd(b"n\n"), zstd(b"o")].concat(), 2),
        ("content-encoding: identity\r\n", b"p".to_vec(), 1),
        (TEXT, Vec::new(), 0),
    ] {
        let (status, text) = answered(address, &request(headers, &body)).await;
        assert_eq!(status, 200, "{headers}{text}");
        assert!(text.ends_with(&format!("{{\"accepted\":{rows}}}\n")), "{headers}{text}");
    }
    stop.send(()).unwrap();
    let expected: Vec<String> = ('a'..='p').map(String::from).collect();
    assert_eq!(timeout(DEADLINE, task).await.unwrap().unwrap(), expected);
}

#[tokio::test]
async fn who_has_no_business_here_is_told_so_and_nothing_of_a_bad_body_is_taken() {
    let more = "path = \"/in\"\nbody_bytes_max = \"1MiB\"\nline_bytes_max = 1000\n\
                auth = { tokens = [\"t0ken\"], users = { ann = \"secret\" } }";
    let (address, task, stop) = working(more).await.deliver();
    let head = |line: &str, headers: &str, body: &[u8]| {
        let length = body.len();
        let head =
            format!("{line} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let known = "authorization: Bearer t0ken\r\n";
    let also = "authorization: Basic YW5uOnNlY3JldA==\r\n";
    let with = |more: &str| format!("{known}{more}");
    let long = "x".repeat(1001);
    let bomb = vec![b'\n'; 100 << 20];
    let half = |packed: Vec<u8>| packed[..packed.len() / 2].to_vec();
    let noise: Vec<u8> =
        (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (bytes, status, text) in [
        (head("POST /in", "", b"x"), 401, "www-authenticate: Basic"),
        (head("POST /in", "authorization: Bearer other\r\n", b"x"), 401, "show a token"),
        (head("POST /", known, b"x"), 404, "rows go to /in"),
        (head("GET /in", known, b""), 405, "allow: POST, PUT"),
        (head("POST /in", &with("content-encoding: br\r\n"), b"x"), 415, "\"br\" is not known"),
        (head("POST /in", &with("content-encoding: gzip\r\n"), b"no"), 400, "no whole gzip"),
        (head("POST /in", &with("content-encoding: gzip\r\n"), &half(gzip(&noise))), 400, "gzip"),
        (head("POST /in", &with("content-encoding: gzip\r\n"), b""), 400, "no whole gzip"),
        (head("POST /in", &with("content-encoding: zstd\r\n"), b"no"), 400, "no whole zstd"),
        (head("POST /in", &with("content-encoding: zstd\r\n"), &half(zstd(&noise))), 400, "zstd"),
        (head("POST /in", &with("content-encoding: zstd\r\n"), b""), 400, "no whole zstd"),
        (head("POST /in", &with("content-encoding: gzip\r\n"), &gzip(&bomb)), 413, "1048576 bytes"),
        (head("POST /in", &with("content-encoding: zstd\r\n"), &zstd(&bomb)), 413, "1048576 bytes"),
        (head("POST /in", known, &bomb), 413, "1048576 bytes"),
        (
            head("POST /in", known, format!("a\nb\n{long}\n").as_bytes()),
            400,
            "line 3 has more than 1000 bytes",
        ),
        (head("POST /in", &with(NDJSON), b"{\"a\":1}\n\n{\"a\":\n"), 400, "line 3: EOF"),
        (head("POST /in", &with(JSON), b"[{\"a\":1}, 2]"), 400, "element 1 of the array: it is no"),
        (head("POST /in", &with(JSON), b"[{\"a\":1}"), 400, "array"),
        (head("POST /in", &with(JSON), b"text"), 400, "it is no JSON object"),
        (head("POST /in", also, b"good"), 200, "{\"accepted\":1}"),
        (head("PUT /in?a=b", known, b"good"), 200, "{\"accepted\":1}"),
    ] {
        let (found, said) = answered(address, &bytes).await;
        assert_eq!(found, status, "{said}");
        assert!(said.contains(text), "{text:?} is not in {said}");
    }
    stop.send(()).unwrap();
    assert_eq!(timeout(DEADLINE, task).await.unwrap().unwrap(), ["good", "good"]);
}

#[tokio::test]
async fn a_client_is_answered_when_its_rows_are_delivered_and_not_before() {
    let mut working = working("").await;
    let body: String = (0..250).map(|line| format!("{line}\n")).collect();
    let mut stream = TcpStream::connect(working.address).await.unwrap();
    for (verdicts, status) in [
        ([Verdict::Delivered; 3], 200),
        ([Verdict::Dropped, Verdict::Delivered, Verdict::Delivered], 200),
        ([Verdict::Delivered, Verdict::Failed, Verdict::Delivered], 503),
    ] {
        stream.write_all(&request(TEXT, body.as_bytes())).await.unwrap();
        let mut batches = Vec::new();
        for rows in [100, 100, 50] {
            let batch = working.next().await;
            assert_eq!(batch.rows.num_rows(), rows);
            batches.push(batch);
        }
        for (batch, verdict) in batches.into_iter().zip(verdicts) {
            let mut byte = [0];
            assert!(stream.try_read(&mut byte).is_err(), "it is answered too early");
            batch.told.unwrap().settle(verdict);
        }
        assert_eq!(answer(&mut stream).await.0, status);
    }
    // What is let go of without a word has failed.
    stream.write_all(&request(TEXT, b"x")).await.unwrap();
    drop(working.next().await);
    assert_eq!(answer(&mut stream).await.0, 503);
}

#[tokio::test]
async fn who_wants_it_is_answered_at_once() {
    let mut working = working("respond = \"received\"").await;
    assert_eq!(answered(working.address, &request(TEXT, b"x")).await.0, 200);
    let batch = working.next().await;
    assert!(batch.told.is_none());
    assert_eq!(messages(&batch), ["x"]);
}

#[tokio::test]
async fn without_room_the_answer_is_429_and_later_200() {
    let mut working = with_memory("body_bytes_max = \"1MiB\"", 12 << 20).await;
    let body = "x".repeat(900_000);
    let mut waiting = Vec::new();
    let mut held = Vec::new();
    let refused = loop {
        assert!(waiting.len() < 20, "memory has no end");
        let mut stream = TcpStream::connect(working.address).await.unwrap();
        stream.write_all(&request(TEXT, body.as_bytes())).await.unwrap();
        tokio::select! {
            (status, text) = answer(&mut stream) => break (status, text),
            batch = working.stream.next() => held.push(batch.unwrap().unwrap()),
        }
        waiting.push(stream);
    };
    assert_eq!(refused.0, 429, "{}", refused.1);
    assert!(refused.1.contains("retry-after: 1"), "{}", refused.1);
    assert!(held.len() > 3 && working.budget.usage().used <= 12 << 20);
    for mut batch in held {
        batch.told.take().unwrap().settle(Verdict::Delivered);
    }
    for mut stream in waiting {
        assert_eq!(answer(&mut stream).await.0, 200);
    }
    let (address, _task, _stop) = working.deliver();
    assert_eq!(answered(address, &request(TEXT, body.as_bytes())).await.0, 200);
}

#[tokio::test]
async fn a_body_that_is_cut_off_or_too_slow_leaves_nothing() {
    let more = "body_timeout = \"50ms\"\nidle_timeout = \"50ms\"";
    let (address, task, stop) = working(more).await.deliver();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{TEXT}content-length: 10\r\n\r\na\nb\n");
    let chunked = format!("POST / HTTP/1.1\r\nhost: a\r\n{TEXT}transfer-encoding: chunked\r\n\r\n");
    for begun in [head.clone(), format!("{chunked}4\r\na\nb\n\r\n")] {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(begun.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut slow).await.0, 408);
        let mut gone = TcpStream::connect(address).await.unwrap();
        gone.write_all(begun.as_bytes()).await.unwrap();
        drop(gone);
    }
    // A connection that never says what it wants.
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"POST / HT").await.unwrap();
    let mut rest = Vec::new();
    timeout(DEADLINE, silent.read_to_end(&mut rest)).await.unwrap().unwrap();
    let whole = format!("{chunked}2\r\nc\n\r\n1\r\nd\r\n0\r\n\r\n");
    assert_eq!(answered(address, whole.as_bytes()).await.0, 200);
    stop.send(()).unwrap();
    assert_eq!(timeout(DEADLINE, task).await.unwrap().unwrap(), ["c", "d"]);
}

#[tokio::test]
async fn a_stop_answers_those_who_wait_and_takes_no_more() {
    let mut working = working("").await;
    let mut waiting = TcpStream::connect(working.address).await.unwrap();
    waiting.write_all(&request(TEXT, b"x")).await.unwrap();
    let batch = working.next().await;
    let mut sending = TcpStream::connect(working.address).await.unwrap();
    let begun = format!("POST / HTTP/1.1\r\nhost: a\r\n{TEXT}content-length: 10\r\n\r\na\n");
    sending.write_all(begun.as_bytes()).await.unwrap();
    // The server has seen it once it answers one that came later.
    let late = request("content-encoding: br\r\n", b"x");
    assert_eq!(answered(working.address, &late).await.0, 415);
    let Working { address, mut source, stream, .. } = working;
    drop(stream);
    assert_eq!(answer(&mut sending).await.0, 503);
    drop(sending);
    let closing = tokio::spawn(async move { source.close().await });
    batch.told.unwrap().settle(Verdict::Delivered);
    assert_eq!(answer(&mut waiting).await.0, 200);
    timeout(DEADLINE, closing).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_and_the_rest_goes_on() {
    let (address, task, stop) = working("connections_max = 5").await.deliver();
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(&request(TEXT, b"a")).await.unwrap();
    assert_eq!(answer(&mut first).await.0, 200);
    let mut others = Vec::new();
    for _ in 0..1_000 {
        others.push(TcpStream::connect(address).await.unwrap());
    }
    let mut closed = 0;
    for other in &mut others[4..] {
        let mut byte = [0];
        let read = timeout(DEADLINE, other.read(&mut byte)).await.unwrap();
        closed += usize::from(read.is_err() || read.is_ok_and(|count| count == 0));
    }
    assert_eq!(closed, 996);
    // The same connection again, and two requests at once.
    first.write_all(&[request(TEXT, b"b"), request(TEXT, b"c")].concat()).await.unwrap();
    assert_eq!((answer(&mut first).await.0, answer(&mut first).await.0), (200, 200));
    stop.send(()).unwrap();
    drop((first, others));
    assert_eq!(timeout(DEADLINE, task).await.unwrap().unwrap(), ["a", "b", "c"]);
}

#[test]
fn mistakes_are_shown_where_they_are() {
    for (text, at, said) in [
        ("listen = \"nowhere\"", "\"nowhere\"", "can't listen at"),
        ("listen = \"1\"\npath = \"in\"", "\"in\"", "begins with a slash"),
        ("listen = \"1\"\nrespond = \"soon\"", "\"soon\"", "no time to respond"),
        ("listen = \"1\"\nbody_bytes_max = 0", "0", "no body"),
        ("listen = \"1\"\nbody_timeout = \"0s\"", "\"0s\"", "no time"),
        ("listen = \"1\"\nconnections_max = 0", "0", "no connection"),
        ("listen = \"1\"\nauth = { tokens = [\" \"] }", "\" \"", "empty token"),
        ("listen = \"1\"\nauth = {}", "{}", "lets nobody in"),
        ("listen = \"1\"\nauth = { users = { \"a:b\" = \"c\" } }", "\"a:b\"", "without a colon"),
        ("listen = \"1\"\ncodec = \"yaml\"", "\"yaml\"", "no codec"),
    ] {
        let Err(mistake) = build(&Settings::from_toml(text).unwrap()) else { panic!("{text}") };
        assert!(mistake.message.contains(said), "{mistake:?}");
        assert_eq!(&text[mistake.span.clone().unwrap()], at, "{mistake:?}");
    }
}
