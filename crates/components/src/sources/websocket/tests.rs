//! What is sent to the source, and what comes of it.

use std::net::SocketAddr;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt64Type};
use futures::{FutureExt, SinkExt, StreamExt};
use tidegate_flow::ByteBudget;
use tidegate_model::{ErrorKind, Expected, SourceBatch, SourceContext, SourceStream, log_schema};
use tidegate_net::connect::Target;
use tidegate_net::listen::{Keepalive, Limits, Listener};
use tidegate_net::websocket::{
    Address, CloseCode, ConnectError, Message, MessageStream, Rules, Server, connect,
};
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

struct Working {
    source: Box<dyn Source>,
    stream: SourceStream,
    budget: ByteBudget,
}

fn free_port() -> SocketAddr {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

fn mistake(text: &str) -> String {
    let mistake = build(&Settings::from_toml(text).unwrap()).err().unwrap();
    format!("{}; {}", mistake.message, mistake.help.unwrap_or_default())
}

async fn working(text: &str, once: bool) -> Working {
    let mut source = build(&Settings::from_toml(text).unwrap()).unwrap();
    let budget = ByteBudget::new(4 << 20);
    let stream = open(&mut source, &budget, once).await.unwrap();
    Working { source, stream, budget }
}

async fn open(
    source: &mut Box<dyn Source>,
    budget: &ByteBudget,
    once: bool,
) -> Result<SourceStream> {
    let columns = log_schema().project(&[3, 4]).unwrap();
    let mut fields = columns.fields().to_vec();
    fields.push(Arc::new(arrow_schema::Field::new(
        tidegate_model::OFFSET,
        arrow_schema::DataType::UInt64,
        false,
    )));
    let context = SourceContext {
        name: "feed".into(),
        positions: Vec::new(),
        holder: Arc::new(budget.holder(source.bytes_min()).unwrap()),
        columns: Arc::new(arrow_schema::Schema::new(fields)),
        required: None,
        severity_min: None,
        offsets: true,
        once,
        batch_bytes_max: 1 << 20,
        batch_rows_max: 7,
        expected: Expected::default(),
    };
    timeout(DEADLINE, source.open(context)).await.unwrap()
}

async fn client(
    at: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<MessageStream, ConnectError> {
    let (_, _, _, mut address) = Address::parse(&format!("ws://{at}{path}")).unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        address.headers.insert(name, value.parse().unwrap());
    }
    let (host, port, keepalive) = (at.ip().to_string().into(), at.port(), Keepalive::default());
    let target = Target { host, port, tls: None, timeout: DEADLINE, keepalive };
    connect(&target, &address, Options::default()).await
}

/// Sources and messages of a batch, whose offsets go on from `end`.
fn rows(batch: &SourceBatch, end: &mut u64) -> Vec<(String, String)> {
    assert_eq!(batch.start, *end);
    *end = batch.position.sequence;
    let (sources, messages) = (batch.rows.column(0), batch.rows.column(1).as_string_view());
    let offsets = batch.rows.column(2).as_primitive::<UInt64Type>();
    assert!(batch.rows.num_rows() <= 7);
    let expected: Vec<_> = (batch.start..*end).collect();
    assert_eq!(offsets.values(), &expected[..]);
    let sources = sources.as_dictionary::<Int32Type>();
    let names = sources.values().as_string::<i32>();
    let name = |row| names.value(sources.key(row).unwrap()).to_owned();
    (0..messages.len()).map(|row| (name(row), messages.value(row).to_owned())).collect()
}

impl Working {
    async fn rows(&mut self, count: usize, end: &mut u64) -> Vec<(String, String)> {
        let mut found = Vec::new();
        while found.len() < count {
            let batch = timeout(DEADLINE, self.stream.next()).await.unwrap().unwrap().unwrap();
            found.extend(rows(&batch, end));
        }
        found
    }

    async fn stopped(mut self) {
        drop(self.stream);
        timeout(DEADLINE, self.source.close()).await.unwrap();
        assert_eq!(self.budget.usage().used, 0);
    }
}

#[tokio::test]
async fn messages_of_many_clients_become_rows_with_their_names_and_all_are_told_at_the_end() {
    let at = free_port();
    let mut working = working(&format!("mode = 'listen'\nlisten = '{at}'"), false).await;
    let clients = tokio::spawn(async move {
        let mut clients = Vec::new();
        for n in 0..10 {
            let mut client = client(at, &format!("/{n}?secret"), &[]).await.unwrap();
            for m in 0..20 {
                let text = format!("{n} {m}");
                let message = match m % 2 {
                    0 => Message::text(text),
                    _ => Message::Binary(text.into_bytes().into()),
                };
                client.send(message).await.unwrap();
            }
            clients.push(client);
        }
        clients
    });
    let mut end = 0;
    let mut found = working.rows(200, &mut end).await;
    assert_eq!(end, 200);
    found.sort_by_key(|(source, _)| source.rsplit_once('/').unwrap().1.to_owned());
    for (at, (source, message)) in found.iter().enumerate() {
        assert!(source.starts_with("127.0.0.1:") && source.ends_with(&format!("/{}", at / 20)));
        assert_eq!(*message, format!("{} {}", at / 20, at % 20));
    }
    assert!(working.stream.next().now_or_never().is_none());
    assert_eq!(working.budget.usage().used, 0, "idle connections hold nothing");
    let clients = clients.await.unwrap();
    let ends = tokio::spawn(async move {
        for mut client in clients {
            assert!(timeout(DEADLINE, client.next()).await.unwrap().is_none());
            assert_eq!(client.ended().unwrap().code, Some(CloseCode::Away));
        }
    });
    working.stopped().await;
    ends.await.unwrap();
}

#[tokio::test]
async fn lines_of_a_message_are_records_where_they_are_to_be_and_a_codec_reads_them() {
    let at = free_port();
    let more = "framing = 'newline'\ncodec = 'json'";
    let mut working = working(&format!("mode = 'listen'\nlisten = '{at}'\n{more}"), true).await;
    let sending = tokio::spawn(async move {
        let mut client = client(at, "/", &[]).await.unwrap();
        let lines: Vec<_> = (0..50).map(|n| format!("{{\"message\":\"m{n}\"}}")).collect();
        for text in [
            &lines[..1].join("\n"),
            &(lines[1..40].join("\r\n") + "\n"),
            "",
            &lines[40..].join("\n"),
        ] {
            client.send(Message::text(text)).await.unwrap();
        }
        client.close(CloseCode::Normal, "").await;
    });
    let mut end = 0;
    let found = working.rows(50, &mut end).await;
    for (n, (_, message)) in found.iter().enumerate() {
        assert_eq!(*message, format!("m{n}"));
    }
    assert!(timeout(DEADLINE, working.stream.next()).await.unwrap().is_none(), "that was all");
    sending.await.unwrap();
    working.stopped().await;
}

#[tokio::test]
async fn many_who_send_much_at_once_share_the_memory_there_is_and_lose_nothing() {
    let at = free_port();
    let text = format!("mode = 'listen'\nlisten = '{at}'\nmessage_bytes_max = '1MiB'");
    let mut working = working(&text, true).await;
    let sending = tokio::spawn(async move {
        let mut sending = tokio::task::JoinSet::new();
        for n in 0..40_u8 {
            sending.spawn(async move {
                let mut client = client(at, "/", &[]).await.unwrap();
                for size in [10, 700_000, 20, 300_000] {
                    client.send(Message::Binary(vec![b'a' + n % 26; size].into())).await.unwrap();
                }
                client
            });
        }
        sending.join_all().await
    });
    let (mut end, mut bytes) = (0, 0);
    while end < 160 {
        let batch = timeout(DEADLINE, working.stream.next()).await.unwrap().unwrap().unwrap();
        bytes += rows(&batch, &mut end).iter().map(|(_, message)| message.len()).sum::<usize>();
    }
    assert_eq!(bytes, 40 * 1_000_030);
    let peak = working.budget.usage().peak;
    // What a decoder computes comes on top, batch by batch.
    assert!(peak <= (4 << 20) + (64 << 10), "{peak} bytes were held");
    drop(sending.await.unwrap());
    working.stopped().await;
}

#[tokio::test]
async fn only_who_may_comes_in_and_what_is_too_long_is_told() {
    let at = free_port();
    let more = "path = ['/feed', '/rooms/*']\nsubprotocol = 'v1'\nheaders = { x-tenant = 'a' }\n\
                auth = { tokens = ['t'] }\nmessage_bytes_max = '100B'\nconnections_max = 1";
    let mut working = working(&format!("mode = 'listen'\nlisten = '{at}'\n{more}"), false).await;
    let sending = tokio::spawn(async move {
        let all = [
            ("x-tenant", "a"),
            ("authorization", "Bearer t"),
            ("sec-websocket-protocol", "v0, v1"),
        ];
        for (path, headers, status) in [
            ("/other", &all[..], 404),
            ("/feed", &all[..1], 401),
            ("/feed", &all[1..], 403),
            ("/feed", &all[..2], 400),
        ] {
            let refused = client(at, path, headers).await.unwrap_err();
            let ConnectError::Answered(answered) = refused else { panic!("{refused}") };
            assert_eq!(answered, status);
        }
        // It takes what it did not know it offered, and is told so by its own side.
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let request = "GET /rooms/1 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            x-tenant: a\r\nauthorization: Bearer t\r\nsec-websocket-protocol: v1\r\n\r\n";
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let refused = client(at, "/feed", &all).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Answered(status) if status == 503), "{refused}");
        let mut long = vec![0x82, 0x80 | 126, 0, 101, 0, 0, 0, 0];
        long.extend([b'x'; 101]);
        stream.write_all(&long).await.unwrap();
        let mut told = [0; 4];
        stream.read_exact(&mut told).await.unwrap();
        assert_eq!((told[0], u16::from_be_bytes([told[2], told[3]])), (0x88, 1009));
    });
    tokio::select! {
        batch = working.stream.next() => panic!("{batch:?}"),
        done = timeout(DEADLINE, sending) => done.unwrap().unwrap(),
    }
    working.stopped().await;
}

#[tokio::test]
async fn connected_to_a_server_it_subscribes_and_goes_on_after_a_loss() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Limits::default()).unwrap();
    let at = listener.local_addr().unwrap();
    let rules = Rules { protocols: vec!["v1".into()], ..Rules::default() };
    let mut server = Server::new(listener, rules, Options::default(), DEADLINE);
    let serving = tokio::spawn(async move {
        for n in 0..3 {
            let mut client = server.accept().await.unwrap();
            assert_eq!(client.request.headers["authorization"], "Bearer t");
            let said = client.stream.next().await.unwrap().unwrap();
            assert_eq!(said.as_text(), Some("subscribe"));
            for m in 0..10 {
                client.stream.send(Message::text(format!("{n} {m}"))).await.unwrap();
            }
            client.stream.close(CloseCode::Restart, "back soon").await;
        }
    });
    let text = format!(
        "mode = 'connect'\nurl = 'ws://{at}/feed?key=1'\nsubscribe = ['subscribe']\n\
         subprotocol = 'v1'\nauth = {{ token = 't' }}"
    );
    let mut working = working(&text, false).await;
    let mut end = 0;
    for n in 0..3 {
        for (m, (source, message)) in working.rows(10, &mut end).await.iter().enumerate() {
            assert_eq!(*source, format!("ws://{at}/feed"));
            assert_eq!(*message, format!("{n} {m}"));
        }
        let error = timeout(DEADLINE, working.stream.next()).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected);
        assert!(error.to_string().ends_with("with the code 1012: \"back soon\""), "{error}");
        if n < 2 {
            drop(std::mem::replace(&mut working.stream, futures::stream::empty().boxed()));
            let budget = ByteBudget::new(4 << 20);
            working.stream = open(&mut working.source, &budget, false).await.unwrap();
        }
    }
    serving.await.unwrap();
    working.stopped().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again_and_one_that_refuses_is_not() {
    let at = free_port();
    let budget = ByteBudget::new(4 << 20);
    let text = format!("mode = 'connect'\nurl = 'ws://{at}/'");
    let mut source = build(&Settings::from_toml(&text).unwrap()).unwrap();
    let error = open(&mut source, &budget, false).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    let listener = Listener::bind(at, Limits::default()).unwrap();
    let secrets = tidegate_net::auth::Secrets::none().bearer("t");
    let rules = Rules { secrets, ..Rules::default() };
    let mut server = Server::new(listener, rules, Options::default(), DEADLINE);
    let serving = tokio::spawn(async move { server.accept().await.err().unwrap() });
    let error = open(&mut source, &budget, false).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Fatal, "{error}");
    assert!(error.to_string().contains("401"), "{error}");
    serving.await.unwrap();
}

#[test]
fn mistakes_say_what_to_write_instead() {
    for (text, said) in [
        ("listen = '1'", "mode is missing; mode = \"listen\""),
        ("mode = 'serve'", "\"serve\" is no mode"),
        ("mode = 'listen'\nlisten = 'x'", "can't listen at"),
        (
            "mode = 'listen'\nlisten = '1'\npath = 'feed'",
            "a path begins with a slash, \"feed\" does not; \"/feed\"",
        ),
        ("mode = 'listen'\nlisten = '1'\nsubprotocol = 'a b'", "that is no name of a subprotocol"),
        ("mode = 'listen'\nlisten = '1'\nframing = 'lines'", "\"lines\" is no framing"),
        ("mode = 'listen'\nlisten = '1'\nmessage_bytes_max = 0", "no message can be that long"),
        (
            "mode = 'connect'\nurl = 'http://a'",
            "that is no address of a WebSocket; write it as ws://",
        ),
        ("mode = 'connect'\nurl = 'ws://a'\ntls = {}", "tls without wss://"),
        ("mode = 'connect'\nurl = 'ws://a'\nauth = { user = 'a' }", "auth says not who we are"),
    ] {
        let found = mistake(text);
        assert!(found.starts_with(said) || found.contains(said), "{text}: {found}");
    }
}
