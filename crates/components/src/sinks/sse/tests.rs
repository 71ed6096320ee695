//! What clients get, the quick and the slow.

use arrow_array::{ArrayRef, StringViewArray};
use tidegate_net::sse::{Event, EventSource, Events};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

/// A sink at work.
struct Serving {
    address: SocketAddr,
    sink: Box<dyn Sink>,
}

struct NoRecords;

impl tidegate_model::Records for NoRecords {
    fn load(&self, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn delivered(&self) -> Result<Vec<Delivered>> {
        Ok(Vec::new())
    }

    fn save(&self, _: &str, _: &[u8], _: &[Delivered]) -> Result<()> {
        Ok(())
    }
}

fn built(settings: &str) -> Result<Box<dyn Sink>, Mistake> {
    build(&Settings::from_toml(settings).unwrap())
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn at(address: SocketAddr, more: &str) -> Serving {
    let mut sink = built(&format!("listen = \"{address}\"\n{more}")).unwrap();
    let schema = rows(&[]).schema();
    let read = sink.columns(&schema).unwrap();
    let columns = Arc::new(schema.project(&read).unwrap());
    let context = SinkContext { name: "live".into(), columns, records: Arc::new(NoRecords) };
    sink.open(context.clone()).await.unwrap();
    sink.open(context).await.unwrap(); // once more changes nothing
    Serving { address, sink }
}

async fn serving(more: &str) -> Serving {
    at(free(), more).await
}

/// Rows with a kind and a message.
fn rows(rows: &[(Option<&str>, &str)]) -> RecordBatch {
    let kinds: StringViewArray = rows.iter().map(|(kind, _)| *kind).collect();
    let messages: StringViewArray = rows.iter().map(|(_, text)| Some(*text)).collect();
    let columns: [(_, ArrayRef, _); 2] =
        [("kind", Arc::new(kinds), true), ("message", Arc::new(messages), false)];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

impl Serving {
    async fn write(&mut self, rows: &RecordBatch) {
        let read = self.sink.columns(&rows.schema()).unwrap();
        let rows = rows.project(&read).unwrap();
        let written = timeout(DEADLINE, self.sink.write(&rows)).await;
        assert_eq!(written.unwrap().unwrap(), Written::default());
    }

    async fn listen(&self, last_id: &str) -> Events {
        let url = format!("http://{}/events", self.address).parse().unwrap();
        EventSource::to(url).unwrap().connect(last_id).await.unwrap()
    }

    /// A request that ends with a line's end; the head of the answer, and the connection.
    async fn asked(&self, request: &str) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{request}host: a\r\n\r\n").as_bytes()).await.unwrap();
        let head = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            String::from_utf8(head).unwrap()
        };
        let head = timeout(DEADLINE, head).await.unwrap();
        (head, stream)
    }
}

/// For others' tests: what publishes texts at an address.
pub(crate) struct Publisher(Serving);

pub(crate) async fn publisher(address: SocketAddr) -> Publisher {
    Publisher(at(address, "codec = \"text\"\nreplay_events = 4000").await)
}

impl Publisher {
    pub(crate) async fn write(&mut self, texts: &[&str]) {
        let texts: Vec<_> = texts.iter().map(|text| (None, *text)).collect();
        self.0.write(&rows(&texts)).await;
    }
}

async fn next(events: &mut Events) -> Event {
    timeout(DEADLINE, events.next()).await.unwrap().unwrap().unwrap()
}

async fn data(events: &mut Events, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        found.push(next(events).await.data);
    }
    found
}

#[tokio::test]
async fn a_row_is_an_event_with_the_type_that_its_column_says() {
    let mut serving = serving("event_column = \"kind\"").await;
    let mut events = serving.listen("").await;
    serving.write(&rows(&[(Some("a\nlert"), "one\ntwo"), (None, "three"), (Some(""), "")])).await;
    let found = [next(&mut events).await, next(&mut events).await, next(&mut events).await];
    assert_eq!(found[0].event, "alert");
    assert_eq!(found[0].data, r#"{"kind":"a\nlert","message":"one\ntwo"}"#);
    assert_eq!((&*found[1].event, &*found[1].data), ("message", r#"{"message":"three"}"#));
    assert_eq!(found[2].event, "message");
    assert!(found[0].id.ends_with("-0") && found[1].id.ends_with("-1"), "{found:?}");
}

#[tokio::test]
async fn a_text_of_many_lines_is_one_event() {
    let mut serving = serving("codec = \"text\"\nevent_column = \"kind\"").await;
    let mut events = serving.listen("").await;
    serving.write(&rows(&[(Some("x"), "one\r\ntwo\n"), (None, ""), (None, "three")])).await;
    assert_eq!(next(&mut events).await.event, "x");
    assert_eq!(data(&mut events, 2).await, ["", "three"]);
    let mut again = serving.listen("0-0").await;
    assert_eq!(data(&mut again, 2).await, ["{\"missed\":null}", "one\ntwo\n"]);
}

#[tokio::test]
async fn who_comes_back_gets_what_it_missed_and_one_of_another_run_is_told() {
    let mut first = serving("codec = \"text\"").await;
    let mut events = first.listen("").await;
    first.write(&rows(&[(None, "a"), (None, "b"), (None, "c")])).await;
    let seen = next(&mut events).await;
    drop(events);
    assert_eq!(data(&mut first.listen(&seen.id).await, 2).await, ["b", "c"]);
    let address = first.address;
    first.sink.close().await;
    let mut second = at(address, "codec = \"text\"").await;
    second.write(&rows(&[(None, "d"), (None, "e")])).await;
    let mut back = second.listen(&seen.id).await;
    let told = next(&mut back).await;
    assert_eq!((&*told.event, &*told.data), ("lagged", "{\"missed\":null}"));
    assert_eq!(data(&mut back, 2).await, ["d", "e"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_is_told_what_it_missed() {
    let more = "codec = \"text\"\nreplay_events = 100\nreplay_bytes = \"1MiB\"";
    let mut serving = serving(more).await;
    let mut slow = serving.listen("").await;
    let mut quick = serving.listen("").await;
    serving.write(&rows(&[(None, "0")])).await;
    assert_eq!(next(&mut slow).await.data, "0");
    assert_eq!(next(&mut quick).await.data, "0");
    // Far more than all buffers in between hold.
    let long = "x".repeat(10_000);
    let count = 4_000;
    for number in 1..=count {
        serving.write(&rows(&[(None, &format!("{number} {long}"))])).await;
        let read = next(&mut quick).await;
        assert!(read.data.starts_with(&format!("{number} ")), "the quick one misses nothing");
    }
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < count {
        let event = next(&mut slow).await;
        if event.event != "lagged" {
            seen += 1;
            let number = event.data.split(' ').next().unwrap();
            assert_eq!(number, (seen + missed).to_string(), "in order");
            continue;
        }
        let said: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        missed += said["missed"].as_u64().unwrap();
    }
    assert!(missed > 0 && seen > 0, "{seen} seen, {missed} missed");
}

#[tokio::test]
async fn many_rows_at_once_reach_a_client_that_reads() {
    let mut serving = serving("codec = \"text\"").await;
    let mut events = serving.listen("").await;
    let texts: Vec<_> = (0..20_000).map(|number| number.to_string()).collect();
    for texts in texts.chunks(8_192) {
        let batch: Vec<_> = texts.iter().map(|text| (None, &**text)).collect();
        serving.write(&rows(&batch)).await;
    }
    assert_eq!(data(&mut events, texts.len()).await, texts);
}

#[tokio::test]
async fn when_it_closes_clients_get_the_last_events_and_an_end() {
    let mut serving = serving("codec = \"text\"").await;
    let mut events = serving.listen("").await;
    serving.write(&rows(&[(None, "the last"); 1_000])).await;
    let mut sink = serving.sink;
    let closing = tokio::spawn(async move { sink.close().await });
    assert_eq!(data(&mut events, 1_000).await, ["the last"; 1_000]);
    let end = timeout(DEADLINE, events.next()).await.unwrap().unwrap_err();
    assert_eq!(end.to_string(), "the server ended the stream");
    timeout(DEADLINE, closing).await.unwrap().unwrap();
    assert!(TcpStream::connect(serving.address).await.is_err());
}

#[tokio::test]
async fn others_are_told_why_there_is_no_stream() {
    let more = "path = \"/live\"\nauth = { tokens = [\"secret\"] }\n\
                allow_origin = \"https://example.com\"";
    let serving = serving(more).await;
    let secret = "authorization: Bearer secret\r\n";
    for (request, status, header) in [
        ("GET /live HTTP/1.1\r\n".to_owned(), "401", "www-authenticate: Bearer"),
        ("GET /live HTTP/1.1\r\nauthorization: Bearer no\r\n".to_owned(), "401", "www-auth"),
        (format!("GET / HTTP/1.1\r\n{secret}"), "404", "text/plain"),
        (format!("POST /live HTTP/1.1\r\n{secret}"), "405", "allow: GET"),
        ("OPTIONS /live HTTP/1.1\r\n".to_owned(), "204", "access-control-allow-methods: GET"),
        (format!("GET /live HTTP/1.1\r\n{secret}"), "200", "content-type: text/event-stream"),
    ] {
        let (head, _stream) = serving.asked(&request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {head}");
        assert!(head.contains(header), "{request} {head}");
        assert!(head.contains("access-control-allow-origin: https://example.com\r\n"), "{head}");
    }
}

#[tokio::test]
async fn who_is_too_slow_to_ask_is_closed_and_those_beyond_the_cap_are_and_others_go_on() {
    let more = "codec = \"text\"\nconnections_max = 3\nidle_timeout = \"20ms\"";
    let mut serving = serving(more).await;
    let mut events = serving.listen("").await;
    for begun in ["", "GET /events HTTP/1.1\r\nhost: a\r\nx-slow: "] {
        let mut slow = TcpStream::connect(serving.address).await.unwrap();
        slow.write_all(begun.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let _ = timeout(DEADLINE, slow.read_to_end(&mut said)).await.unwrap();
        assert!(!said.starts_with(b"HTTP/1.1 200"));
    }
    let mut more = [serving.listen("").await, serving.listen("").await];
    let mut beyond = TcpStream::connect(serving.address).await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(DEADLINE, beyond.read_to_end(&mut said)).await.unwrap();
    assert_eq!(said, b"");
    serving.write(&rows(&[(None, "still here")])).await;
    for events in [&mut events].into_iter().chain(&mut more) {
        assert_eq!(next(events).await.data, "still here");
    }
}

#[test]
fn mistakes_are_told_where_they_stand() {
    for (more, message, at) in [
        ("path = 'live'", "a path begins with a slash, \"live\" does not", "'live'"),
        ("allow_origin = 'https://a.b/c'", "is the name of no site", "'https://a.b/c'"),
        ("allow_origin = 'example.com'", "is the name of no site", "'example.com'"),
        ("replay_events = 0", "0: clients get what is kept, and so nothing", "0"),
        ("replay_bytes = 0", "no events can have that size", "0"),
        ("heartbeat = '0s'", "no time at all", "'0s'"),
        ("codec = 'jsno'", "there is no codec \"jsno\"", "'jsno'"),
    ] {
        let text = format!("listen = ':9'\n{more}");
        let mistake = built(&text).err().unwrap();
        assert!(mistake.message.contains(message), "{mistake:?}");
        assert_eq!(&text[mistake.span.unwrap()], at);
    }
    let text = "listen = ':9'\nevent_column = 'kinds'";
    let mistake = built(text).unwrap().columns(&rows(&[]).schema()).unwrap_err();
    assert_eq!(mistake.message, "there is no column \"kinds\" to name events");
    assert_eq!(mistake.help.as_deref(), Some("one of kind, message"));
    assert_eq!(&text[mistake.span.unwrap()], "'kinds'");
}

#[tokio::test]
#[ignore = "needs curl; run by cargo xtask test"]
async fn curl_reads_the_stream_as_it_comes() {
    let mut serving = serving("codec = \"text\"\nheartbeat = \"50ms\"").await;
    let url = format!("http://{}/events", serving.address);
    let (begins, begun) = tokio::sync::oneshot::channel();
    let reading = tokio::task::spawn_blocking(move || {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sN", "--max-time", "30", &url]).stdout(std::process::Stdio::piped());
        let mut curl = curl.spawn().unwrap();
        let mut output = curl.stdout.take().unwrap();
        let (mut text, mut begins) = (String::new(), Some(begins));
        // A heartbeat after the event too.
        while !(text.contains("data: for curl\n\n") && text.ends_with(":\n\n")) {
            let mut piece = [0; 1_024];
            let count = std::io::Read::read(&mut output, &mut piece).unwrap();
            assert!(count > 0, "curl ended: {text}");
            text += std::str::from_utf8(&piece[..count]).unwrap();
            if let Some(begins) = begins.take() {
                begins.send(()).unwrap();
            }
        }
        curl.kill().unwrap();
        curl.wait().unwrap();
        text
    });
    begun.await.unwrap();
    serving.write(&rows(&[(None, "for curl")])).await;
    let text = reading.await.unwrap();
    assert!(text.starts_with(":\n\n"), "{text}");
}
