//! What a server gets, and what its answers do.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arrow_array::{ArrayRef, StringViewArray};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

/// A request as it came.
#[derive(Clone, Debug)]
struct Got {
    head: String,
    body: Vec<u8>,
}

impl Got {
    fn lines(&self) -> Vec<String> {
        let text = std::str::from_utf8(&self.body).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// What a server does next: an answer's status line and headers, or nothing, and then the end.
type Does = Box<dyn FnMut(&Got) -> Option<String> + Send>;

struct Server {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    _task: JoinSet<()>,
}

impl Server {
    async fn new(mut does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let gathered = Arc::clone(&got);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                while let Some(request) = read(&mut stream).await {
                    let answer = does(&request);
                    gathered.lock().unwrap().push(request);
                    let Some(answer) = answer else { break };
                    let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 3\r\n\r\nwhy");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        Self { address, got, _task: task }
    }

    /// One that answers these, one after the other, and then 200.
    async fn answering(answers: &[&str]) -> Self {
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let mut answers = answers.into_iter();
        Self::new(Box::new(move |_| Some(answers.next().unwrap_or("200 OK".to_owned())))).await
    }

    fn got(&self) -> Vec<Got> {
        std::mem::take(&mut *self.got.lock().unwrap())
    }
}

async fn read(stream: &mut TcpStream) -> Option<Got> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Got { head, body })
}

async fn sink(address: SocketAddr, more: &str) -> Box<dyn Sink> {
    struct None;

    impl tidegate_model::Records for None {
        fn load(&self, _: &str) -> Result<Option<Vec<u8>>> {
            Ok(Option::None)
        }

        fn delivered(&self) -> Result<Vec<Delivered>> {
            Ok(Vec::new())
        }

        fn save(&self, _: &str, _: &[u8], _: &[Delivered]) -> Result<()> {
            Ok(())
        }
    }

    let text = format!("url = \"http://{address}/in\"\n{more}");
    let mut sink = build(&Settings::from_toml(&text).unwrap()).unwrap();
    let columns = rows(&["a"]).schema();
    let context = SinkContext { name: "api".into(), columns, records: Arc::new(None) };
    sink.open(context).await.unwrap();
    sink
}

fn rows(messages: &[&str]) -> RecordBatch {
    let messages: ArrayRef = Arc::new(StringViewArray::from(messages.to_vec()));
    RecordBatch::try_from_iter([("message", messages)]).unwrap()
}

async fn write(sink: &mut Box<dyn Sink>, rows: &RecordBatch) -> Written {
    timeout(DEADLINE, sink.write(rows)).await.unwrap().unwrap()
}

#[tokio::test]
async fn rows_are_sent_as_they_are_to_be_with_headers_and_packing() {
    let server = Server::answering(&[]).await;
    let gunzip = |bytes: &[u8]| {
        let mut plain = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(bytes);
        std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
        plain
    };
    let ndjson = b"{\"message\":\"a\"}\n{\"message\":\"b\\nc\"}\n".to_vec();
    for (more, body, heads) in [
        ("", ndjson.clone(), &["POST /in ", "content-type: application/x-ndjson"][..]),
        (
            "codec = \"json\"\nmethod = \"PUT\"",
            b"[{\"message\":\"a\"},{\"message\":\"b\\nc\"}]".to_vec(),
            &["PUT /in ", "content-type: application/json"],
        ),
        ("codec = \"text\"", b"a\nb\nc\n".to_vec(), &["content-type: text/plain"]),
        ("compression = \"gzip\"", ndjson.clone(), &["content-encoding: gzip"]),
        (
            "compression = \"zstd\"\nauth = { token = \"t\" }",
            ndjson.clone(),
            &["content-encoding: zstd", "authorization: Bearer t"],
        ),
        (
            "auth = { user = \"ann\", password = \"secret\" }\n\
             headers = { \"X-Team\" = \"shop\", \"content-type\" = \"a/b\" }",
            ndjson,
            &["authorization: Basic YW5uOnNlY3JldA==", "x-team: shop", "content-type: a/b"],
        ),
    ] {
        let mut sink = sink(server.address, more).await;
        assert_eq!(write(&mut sink, &rows(&["a", "b\nc"])).await, Written::default());
        let got = server.got();
        let [got] = &*got else { panic!("{got:?}") };
        for head in heads {
            assert!(got.head.contains(head), "{head} is not in {}", got.head);
        }
        let plain = match more {
            more if more.contains("gzip") => gunzip(&got.body),
            more if more.contains("zstd") => ::zstd::decode_all(&*got.body).unwrap(),
            _ => got.body.clone(),
        };
        let said = String::from_utf8_lossy(&plain).into_owned();
        assert_eq!(said, String::from_utf8(body).unwrap(), "{more}");
    }
}

#[tokio::test]
async fn what_is_no_fault_of_the_rows_is_tried_again_after_the_time_that_is_named() {
    let answers = ["503 No\r\nretry-after: 7", "429 Slow", "401 Who", "301 Moved\r\nlocation: /b"];
    let server = Server::answering(&answers).await;
    let mut sink = sink(server.address, "batch_rows_max = 2").await;
    let rows = rows(&["a", "b", "c"]);
    for (after, why) in [
        (Some(7), "it answers 503 Service Unavailable: why"),
        (None, "it answers 429 Too Many Requests: why"),
        (None, "it answers 401 Unauthorized: why"),
        (None, "it answers 301 Moved Permanently to /b: if that is right, set url to it: why"),
    ] {
        let written = write(&mut sink, &rows).await;
        assert_eq!(written.again, [0, 1, 2]);
        assert_eq!(written.after, after.map(Duration::from_secs));
        assert_eq!(written.why.as_deref(), Some(why));
    }
    assert_eq!(write(&mut sink, &rows).await, Written::default());
    let got = server.got();
    assert_eq!(got.len(), 6, "the last try takes two requests");
    drop(server);
    for why in ["the request broke off", "can't connect: "] {
        let written = write(&mut sink, &rows).await;
        assert_eq!(written.again, [0, 1, 2]);
        assert!(written.why.as_ref().unwrap().starts_with(why), "{written:?}");
    }
}

#[tokio::test]
async fn only_rows_that_are_refused_are_rejected() {
    let refuses = |got: &Got| {
        let bad = got.lines().iter().any(|line| line.contains("bad"));
        Some(if bad { "422 Bad" } else { "200 OK" }.to_owned())
    };
    let server = Server::new(Box::new(refuses)).await;
    let mut sink = sink(server.address, "").await;
    let messages: Vec<String> = (0..100)
        .map(|row| format!("{} {row}", if row % 40 == 7 { "bad" } else { "good" }))
        .collect();
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    let written = write(&mut sink, &rows(&messages)).await;
    let rejected: Vec<usize> = written.rejected.iter().map(|(row, _)| *row).collect();
    assert_eq!((rejected, written.again.len()), (vec![7, 47, 87], 0));
    assert_eq!(written.rejected[0].1, "it answers 422 Unprocessable Entity: why");
    assert!(server.got().len() < 50);
}

#[tokio::test]
async fn whatever_the_server_does_each_row_is_delivered_or_rejected() {
    let seed = fastrand::u64(..);
    for round in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(round));
        let taken: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let store = Arc::clone(&taken);
        let does = move |got: &Got| match random.u8(0..10) {
            0 => None,
            1 => Some("429 Slow\r\nretry-after: 0".to_owned()),
            2 => Some("500 Oh".to_owned()),
            3 => Some("403 No".to_owned()),
            _ if got.lines().iter().any(|line| line.contains("bad")) => Some("400 Bad".to_owned()),
            // Some are taken, and the answer is lost.
            kind => {
                store.lock().unwrap().extend(got.lines());
                (kind > 4).then(|| "204 OK".to_owned())
            }
        };
        let server = Server::new(Box::new(does)).await;
        let mut sink = sink(server.address, "batch_bytes_max = 100").await;
        let texts: Vec<String> = (0..40)
            .map(|row| format!("{} {row}", if row % 11 == 3 { "bad" } else { "good" }))
            .collect();
        let mut left: Vec<usize> = (0..40).collect();
        let mut rejected = BTreeSet::new();
        let mut tries = 0;
        while !left.is_empty() {
            tries += 1;
            assert!(tries < 1_000, "seed {seed}, round {round}");
            let messages: Vec<&str> = left.iter().map(|row| &*texts[*row]).collect();
            let written = write(&mut sink, &rows(&messages)).await;
            rejected.extend(written.rejected.iter().map(|(row, _)| texts[left[*row]].clone()));
            left = written.again.iter().map(|row| left[*row]).collect();
        }
        let expected = |kind: &str| -> BTreeSet<String> {
            texts.iter().filter(|text| text.starts_with(kind)).cloned().collect()
        };
        let wrapped = |text: &String| format!("{{\"message\":\"{text}\"}}");
        let good: BTreeSet<String> = expected("good").iter().map(wrapped).collect();
        assert_eq!(*taken.lock().unwrap(), good, "seed {seed}, round {round}");
        assert_eq!(rejected, expected("bad"), "seed {seed}, round {round}");
    }
}

#[tokio::test]
async fn a_redirection_that_keeps_the_rows_is_followed() {
    let server = Server::answering(&["307 There\r\nlocation: /there"]).await;
    let mut sink = sink(server.address, "").await;
    assert_eq!(write(&mut sink, &rows(&["a"])).await, Written::default());
    let got = server.got();
    assert!(got[1].head.starts_with("POST /there "), "{got:?}");
    assert_eq!(got[0].body, got[1].body);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sink = sink(listener.local_addr().unwrap(), "timeout = \"20ms\"").await;
    let written = write(&mut sink, &rows(&["a"])).await;
    assert_eq!(written.again, [0]);
    assert!(written.why.unwrap().starts_with("it does not answer in time"));
}

#[tokio::test]
async fn a_rate_makes_it_wait_and_drops_nothing() {
    let server = Server::answering(&[]).await;
    let mut sink = sink(server.address, "batch_rows_max = 1\nrequests_per_second = 1000").await;
    let began = Instant::now();
    let messages: Vec<String> = (0..250).map(|row| row.to_string()).collect();
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    assert_eq!(write(&mut sink, &rows(&messages)).await, Written::default());
    // A tenth of a second's worth goes at once.
    assert!(began.elapsed() >= Duration::from_millis(140), "{:?}", began.elapsed());
    assert_eq!(server.got().len(), 250);
}

#[test]
fn mistakes_are_shown_where_they_are() {
    for (text, at, said) in [
        ("url = \"nowhere\"", "\"nowhere\"", "no URL"),
        ("url = \"ftp://a/\"", "\"ftp://a/\"", "an http:// or https://"),
        ("url = \"http://a/\"\nmethod = \"GET\"", "\"GET\"", "can't be sent with"),
        ("url = \"http://a/\"\ncodec = \"xml\"", "\"xml\"", "no codec"),
        ("url = \"http://a/\"\ncompression = \"zip\"", "\"zip\"", "no compression"),
        ("url = \"http://a/\"\nheaders = { \"a b\" = \"c\" }", "\"a b\"", "no header"),
        ("url = \"http://a/\"\nheaders = { a = \"\\n\" }", "\"\\n\"", "can't be the value"),
        ("url = \"http://a/\"\nauth = { user = \"a\" }", "{ user = \"a\" }", "who we are"),
        ("url = \"http://a/\"\nauth = { token = \"\" }", "{ token = \"\" }", "who we are"),
        ("url = \"http://a/\"\nbatch_rows_max = 0", "0", "no row"),
        ("url = \"http://a/\"\nrequests_per_second = 0", "0", "at a rate of 0"),
        ("url = \"http://a/\"\ntimeout = \"0s\"", "\"0s\"", "no time"),
    ] {
        let Err(mistake) = build(&Settings::from_toml(text).unwrap()) else { panic!("{text}") };
        assert!(mistake.message.contains(said), "{mistake:?}");
        assert_eq!(&text[mistake.span.clone().unwrap()], at, "{mistake:?}");
    }
}
