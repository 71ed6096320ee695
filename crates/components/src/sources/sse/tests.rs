//! What servers send, good ones and bad ones, and where reading goes on.

use std::net::SocketAddr;

use arrow_array::cast::AsArray;
use tidegate_flow::ByteBudget;
use tidegate_model::{ErrorKind, Expected, Position, SourceBatch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

/// A server that gives each connection one of these, and then its end, or waits.
struct Server {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
    _task: JoinSet<()>,
}

impl Server {
    async fn new<A: Into<String>>(answers: impl IntoIterator<Item = A>, ends: bool) -> Self {
        let answers: Vec<String> = answers.into_iter().map(Into::into).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, requests) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut kept = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                asked.send(request(&mut stream).await).unwrap_or(());
                let _ = stream.write_all(answer.as_bytes()).await;
                kept.extend((!ends).then_some(stream));
            }
            std::future::pending::<()>().await;
        });
        Self { address, requests, _task: task }
    }

    async fn request(&mut self) -> String {
        timeout(DEADLINE, self.requests.recv()).await.unwrap().unwrap()
    }
}

async fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A source, as the engine has it.
struct Working {
    source: SseSource,
    stream: Option<SourceStream>,
    positions: Vec<Position>,
    budget: ByteBudget,
    context: SourceContext,
}

/// All columns but the time.
const COLUMNS: [usize; 3] = [3, 4, 5];

fn source(address: SocketAddr, more: &str) -> Working {
    reading(&format!("url = \"http://{address}/events?key=secret\"\n{more}"), &COLUMNS)
}

fn reading(settings: &str, columns: &[usize]) -> Working {
    let source = SseSource::new(&Settings::from_toml(settings).unwrap()).unwrap();
    let budget = ByteBudget::new(64 << 20);
    let context = SourceContext {
        name: "live".into(),
        positions: Vec::new(),
        holder: Arc::new(budget.holder(source.bytes_min()).unwrap()),
        columns: Arc::new(log_schema().project(columns).unwrap()),
        required: None,
        severity_min: None,
        offsets: false,
        once: false,
        batch_bytes_max: 1 << 20,
        batch_rows_max: 100,
        expected: Expected::default(),
    };
    Working { source, stream: None, positions: Vec::new(), budget, context }
}

impl Working {
    /// The next batch, on a new connection where there is none; `None` at the end.
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        let step = async {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                none => {
                    let positions = self.positions.clone();
                    let context = SourceContext { positions, ..self.context.clone() };
                    none.insert(self.source.open(context).await?)
                }
            };
            stream.next().await.transpose()
        };
        let next = timeout(DEADLINE, step).await.unwrap();
        match &next {
            Ok(Some(batch)) => {
                assert_eq!(batch.start, self.positions.first().map_or(0, |known| known.sequence));
                self.positions = vec![batch.position.clone()];
            }
            _ => self.stream = None,
        }
        next
    }

    async fn batch(&mut self) -> SourceBatch {
        self.next().await.unwrap().unwrap()
    }

    async fn failed(&mut self) -> Error {
        self.next().await.unwrap_err()
    }
}

fn messages(batch: &SourceBatch) -> Vec<String> {
    let column = batch.rows.schema().index_of("message").unwrap();
    let messages = batch.rows.column(column).as_string_view();
    messages.iter().map(|message| message.unwrap().to_owned()).collect()
}

fn metadata(batch: &SourceBatch, row: usize) -> String {
    let entries = batch.rows.column_by_name("metadata").unwrap().as_map().value(row);
    let [keys, values] = [0, 1].map(|at| entries.column(at).as_string::<i32>().clone());
    let entries = keys.iter().zip(values.iter());
    entries.map(|(key, value)| format!("{}={} ", key.unwrap(), value.unwrap_or("null"))).collect()
}

#[tokio::test]
async fn an_event_is_a_row_that_knows_its_type_and_id() {
    let text = "id: 1\nevent: add\ndata: one\ndata: two\n\n: comment\n\ndata:\n\nid\ndata: x\n\n";
    let server = Server::new([format!("{HEAD}{text}")], false).await;
    let mut working = source(server.address, "");
    let batch = working.batch().await;
    assert_eq!(messages(&batch), ["one\ntwo", "", "x"]);
    assert_eq!(metadata(&batch, 0), "event=add id=1 ");
    assert_eq!(metadata(&batch, 1), "event=message id=1 ");
    assert_eq!(metadata(&batch, 2), "event=message ");
    let sources = batch.rows.column(0).as_any_dictionary().values().as_string::<i32>();
    assert_eq!(sources.value(0), format!("{}/events", server.address), "without the key");
    assert_eq!((batch.bytes, batch.position.sequence), (8, 3));
    drop(batch);
    let idle = working.stream.as_mut().unwrap().next();
    assert!(futures::FutureExt::now_or_never(idle).is_none());
    assert_eq!(working.budget.usage().used, 0, "nothing is held while nothing comes");
}

#[tokio::test]
async fn data_is_read_by_the_codec_and_what_is_no_record_is_counted() {
    let text =
        "id: 7\ndata: {\"msg\":\"a\",\"id\":\"own\"}\n\ndata: no\n\ndata: {\"msg\":\"b\"}\n\n";
    let server = Server::new([format!("{HEAD}{text}")], false).await;
    let mut working = source(server.address, "codec = \"json\"");
    let batch = working.batch().await;
    assert_eq!((&*messages(&batch), batch.refused), (&["a".to_owned(), "b".to_owned()][..], 1));
    assert_eq!(metadata(&batch, 0), "id=own event=message ");
    assert_eq!(metadata(&batch, 1), "event=message id=7 ");
}

#[tokio::test]
async fn only_the_types_that_are_asked_for_are_rows_and_the_position_moves_on() {
    let text = "id: 1\nevent: a\ndata: 1\n\nid: 2\nevent: b\ndata: 2\n\nid: 3\ndata: 3\n\n";
    let mut server = Server::new([format!("{HEAD}{text}"), HEAD.to_owned()], true).await;
    let url = format!("url = \"http://{}/\"\nevents = [\"a\"]", server.address);
    let mut working = reading(&url, &[4]);
    let (mut rows, mut skipped) = (Vec::new(), 0);
    while skipped < 2 {
        let batch = working.batch().await;
        rows.extend(messages(&batch));
        skipped += batch.skipped;
    }
    assert_eq!((rows, skipped), (vec!["1".to_owned()], 2));
    assert_eq!(&*working.positions[0].state, b"3");
    assert_eq!(working.failed().await.kind(), ErrorKind::Disconnected);
    assert_eq!(working.failed().await.kind(), ErrorKind::Disconnected);
    let (first, second) = (server.request().await, server.request().await);
    assert!(!first.contains("last-event-id"), "{first}");
    assert!(first.contains("accept: text/event-stream\r\n"), "{first}");
    assert!(second.contains("last-event-id: 3\r\n"), "{second}");
}

#[tokio::test]
async fn it_goes_on_after_what_the_checkpoint_says_and_else_after_what_is_configured() {
    let mut server =
        Server::new([format!("{HEAD}id: ä\ndata: 1\n\n"), HEAD.to_owned()], true).await;
    let more = "last_event_id = \"41\"\nauth = { token = \"t\" }\nheaders = { X-A = \"b\" }";
    let mut working = source(server.address, more);
    drop(working.batch().await);
    let first = server.request().await;
    assert!(first.contains("last-event-id: 41\r\n"), "{first}");
    assert!(first.contains("authorization: Bearer t\r\n") && first.contains("x-a: b\r\n"));
    let mut again = source(server.address, more);
    again.positions = working.positions.clone();
    assert_eq!(again.failed().await.kind(), ErrorKind::Disconnected);
    let second = server.request().await;
    assert!(second.contains("last-event-id: ä\r\n"), "{second}");
}

#[tokio::test]
async fn events_that_are_too_long_are_counted_and_the_rest_goes_on() {
    let long = "x".repeat(200_000);
    let text = format!("data: {long}\nid: 1\n\nid: 2\ndata: {}\n\ndata: a\n\n", &long[..90_000]);
    let server = Server::new([format!("{HEAD}{text}")], false).await;
    let mut working = source(server.address, "event_bytes_max = \"100KB\"");
    let (mut found, mut refused) = (Vec::new(), 0);
    while found.len() < 2 {
        let batch = working.batch().await;
        found.extend(messages(&batch));
        refused += batch.refused;
    }
    assert_eq!((found[0].len(), &*found[1], refused), (90_000, "a", 1));
    assert_eq!(&*working.positions[0].state, b"2");
}

#[tokio::test]
async fn bad_servers_are_told_from_such_as_may_heal() {
    let answer = |status: &str, more: &str| {
        format!("HTTP/1.1 {status}\r\n{more}content-length: 2\r\n\r\n{{}}")
    };
    for (answer, kind, said) in [
        (answer("401 Unauthorized", ""), ErrorKind::Fatal, "401 Unauthorized; are url, auth"),
        (answer("404 Not Found", ""), ErrorKind::Fatal, "404"),
        (answer("301 Moved", ""), ErrorKind::Fatal, "301"),
        (answer("200 OK", "content-type: text/html\r\n"), ErrorKind::Fatal, "\"text/html\", not"),
        (answer("200 OK", ""), ErrorKind::Fatal, "\"\", not text/event-stream"),
        (answer("408 Late", ""), ErrorKind::Disconnected, "408"),
        (answer("429 Slow down", "retry-after: 7\r\n"), ErrorKind::Disconnected, "429"),
        (answer("500 Oh", ""), ErrorKind::Disconnected, "500"),
        (answer("503 Later", ""), ErrorKind::Disconnected, "503"),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), ErrorKind::Disconnected, "url: 127.0.0.1:"),
        (String::new(), ErrorKind::Disconnected, "url: 127.0.0.1:"),
        (HEAD.replace("\r\n\r\n", "\r\ncontent-length: 9\r\n\r\n"), ErrorKind::Disconnected, ""),
    ] {
        let server = Server::new([&*answer], true).await;
        let mut working = source(server.address, "");
        let error = working.failed().await;
        assert_eq!(error.kind(), kind, "{answer:?} {error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let mut working = source(([127, 0, 0, 1], 1).into(), "");
    assert_eq!(working.failed().await.kind(), ErrorKind::Disconnected);
    let server = Server::new([answer("204 No Content", "")], true).await;
    assert!(source(server.address, "").next().await.unwrap().is_none(), "it is over");
}

#[tokio::test]
async fn it_waits_as_the_server_says_and_never_less_than_a_moment() {
    let later = "HTTP/1.1 503 Later\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n";
    for (answers, least, most) in [
        (vec![later], 890.0, 900.0), // at most a quarter of an hour
        (vec!["HTTP/1.1 503 Later\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"], 0.0, 0.1),
        (vec!["HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 0\n\n"], 0.0, 0.1),
        (
            vec!["HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 60000\n"],
            50.0,
            60.0,
        ),
    ] {
        let server = Server::new(answers.clone(), true).await;
        let mut working = source(server.address, "");
        let before = Instant::now();
        assert_eq!(working.failed().await.kind(), ErrorKind::Disconnected);
        let until = working.source.pause.asked().until.unwrap();
        let waits = (until - Instant::now()).as_secs_f64();
        assert!((least..=most).contains(&waits), "{answers:?}: {waits} s");
        assert!(until - before >= Duration::from_millis(100), "{answers:?}");
    }
    // What was said on one connection is true of the next.
    let server = Server::new([format!("{HEAD}retry: 150\n\n"), HEAD.to_owned()], true).await;
    let mut working = source(server.address, "");
    for _ in 0..2 {
        let before = Instant::now();
        working.failed().await;
        let until = working.source.pause.asked().until.unwrap();
        assert!(until - before >= Duration::from_millis(150));
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left() {
    for answer in ["", HEAD, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: a"] {
        let server = Server::new([answer], false).await;
        let mut working = source(server.address, "silence_timeout = \"50ms\"");
        let error = working.failed().await;
        assert_eq!(error.kind(), ErrorKind::Disconnected);
        assert!(
            error.to_string().contains("within 50ms") || error.to_string().contains("for 50ms")
        );
    }
}

#[tokio::test]
async fn a_run_that_is_to_end_ends_with_the_server_and_not_with_a_break() {
    let chunked = HEAD.replace("\r\n\r\n", "\r\ntransfer-encoding: chunked\r\n\r\n");
    for (rest, ends) in [("9\r\ndata: a\n\n\r\n0\r\n\r\n", true), ("9\r\ndata: a\n\n\r\n9", false)]
    {
        let server = Server::new([format!("{chunked}{rest}")], true).await;
        let mut working = source(server.address, "");
        working.context.once = true;
        assert_eq!(messages(&working.batch().await), ["a"]);
        assert_eq!(working.next().await.is_ok(), ends);
    }
}

#[tokio::test]
async fn while_nobody_asks_the_servers_sends_wait_and_nothing_is_lost() {
    const EVENTS: usize = 40_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, counted) = tokio::sync::watch::channel(0);
    let mut task = JoinSet::new();
    task.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(HEAD.as_bytes()).await.unwrap();
        for number in 0..EVENTS {
            let event = format!("id: {number}\ndata: {number} {}\n\n", "x".repeat(1_000));
            stream.write_all(event.as_bytes()).await.unwrap();
            count.send_replace(number + 1);
        }
    });
    let mut working = source(address, "");
    let mut found = messages(&working.batch().await);
    // Until the server has been waiting for a while.
    let mut waiting = counted.clone();
    let pause = Duration::from_millis(300);
    while timeout(pause, waiting.changed()).await.is_ok() {}
    let sent = *counted.borrow();
    assert!(sent < EVENTS * 3 / 4, "{sent} events were taken, and nobody asked for them");
    assert!(working.budget.usage().peak < 1 << 20);
    while found.len() < EVENTS {
        found.extend(messages(&working.batch().await));
    }
    for (number, message) in found.iter().enumerate() {
        assert!(message.starts_with(&format!("{number} ")), "{message}");
    }
    assert!(working.budget.usage().peak < 2 << 20, "{:?}", working.budget.usage());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_disconnects_over_ten_thousand_ids_lose_nothing_and_keep_the_order() {
    const ROWS: usize = 10_000;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let events = crate::sinks::sse::tests::publisher(free).await;
    let proxy = tidegate_testkit::proxy::FaultProxy::to(free);
    let url = format!(
        "url = \"http://{}/events\"\nsilence_timeout = \"5s\"\n\
         last_event_id = \"none\"\nevents = [\"message\"]",
        proxy.address()
    );
    let mut working = reading(&url, &COLUMNS);
    let mut publishing = JoinSet::new();
    let (go, mut going) = tokio::sync::watch::channel(0);
    publishing.spawn(async move {
        let mut events = events;
        for number in 0..ROWS {
            // Not further ahead than half of what is kept.
            going.wait_for(|read| number < read + 2_000).await.unwrap();
            events.write(&[&number.to_string()]).await;
        }
        events
    });
    proxy.cut_after(Some(8_000));
    let (mut found, began) = (Vec::new(), Instant::now());
    while found.len() < ROWS {
        assert!(began.elapsed() < 4 * DEADLINE, "{} rows", found.len());
        match working.next().await {
            Ok(Some(batch)) => {
                found.extend(messages(&batch));
                go.send_replace(found.len());
            }
            Ok(None) => panic!("it ended"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}"),
        }
    }
    let expected: Vec<_> = (0..ROWS).map(|number| number.to_string()).collect();
    assert!(found == expected, "{:?}", &found[..20]);
    assert!(proxy.connections() > 50, "{} connections", proxy.connections());
}

#[test]
fn mistakes_are_told_where_they_stand() {
    for (more, message) in [
        ("url = 'ws://a/b'", "an http:// or https:// URL is needed"),
        ("url = 'http://a'\nevents = []", "no event would ever be read"),
        ("url = 'http://a'\nevent_bytes_max = 0", "no event can be that long"),
        ("url = 'http://a'\nsilence_timeout = '0s'", "no time at all"),
        ("url = 'http://a'\nlast_event_id = \"a\\nb\"", "an id has no control characters"),
        ("url = 'http://a'\nauth = { token = '' }", "auth says not who we are"),
    ] {
        let mistake = build(&Settings::from_toml(more).unwrap()).err().unwrap();
        assert!(mistake.message.contains(message), "{mistake:?}");
        assert!(mistake.span.is_some(), "{mistake:?}");
    }
}
