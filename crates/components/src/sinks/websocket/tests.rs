//! What subscribers get, and a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, StringViewArray};
use futures::{SinkExt, StreamExt};
use tidegate_model::{ErrorKind, Records, SinkContext, Written};
use tidegate_net::connect::Target;
use tidegate_net::listen::{Keepalive, Limits, Listener};
use tidegate_net::websocket::{
    Address, CloseCode, Message, MessageStream, Options, Rules, Server, connect,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

struct Nothing;

impl Records for Nothing {
    fn load(&self, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn delivered(&self) -> Result<Vec<tidegate_model::Delivered>> {
        Ok(Vec::new())
    }

    fn save(&self, _: &str, _: &[u8], _: &[tidegate_model::Delivered]) -> Result<()> {
        Ok(())
    }
}

fn rows(messages: &[String]) -> RecordBatch {
    let messages: ArrayRef = Arc::new(StringViewArray::from_iter_values(messages));
    RecordBatch::try_from_iter([("message", messages)]).unwrap()
}

fn numbered(numbers: std::ops::Range<usize>) -> RecordBatch {
    rows(&numbers.map(|n| format!("row {n}\nof two lines")).collect::<Vec<_>>())
}

async fn open(text: &str) -> Result<Box<dyn Sink>> {
    let mut sink = build(&Settings::from_toml(text).unwrap()).unwrap();
    let columns = numbered(0..0).schema();
    let context = SinkContext { name: "live".into(), columns, records: Arc::new(Nothing) };
    timeout(DEADLINE, sink.open(context)).await.unwrap()?;
    Ok(sink)
}

async fn listening(more: &str) -> (Box<dyn Sink>, SocketAddr) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = free.local_addr().unwrap();
    drop(free);
    (open(&format!("mode = 'listen'\nlisten = '{at}'\n{more}")).await.unwrap(), at)
}

async fn client(at: SocketAddr) -> MessageStream {
    let (_, _, _, address) = Address::parse(&format!("ws://{at}/")).unwrap();
    let (host, port, keepalive) = (at.ip().to_string().into(), at.port(), Keepalive::default());
    let target = Target { host, port, tls: None, timeout: DEADLINE, keepalive };
    connect(&target, &address, Options::default()).await.unwrap()
}

/// Writes until a client that has just come has something of it.
async fn welcome(sink: &mut Box<dyn Sink>, client: &mut MessageStream) {
    let hello = rows(&["hello".to_owned()]);
    timeout(DEADLINE, async {
        loop {
            sink.write(&hello).await.unwrap();
            if timeout(Duration::from_millis(5), client.next()).await.is_ok() {
                break;
            }
        }
    })
    .await
    .unwrap();
}

async fn text(client: &mut MessageStream) -> Option<String> {
    let said = timeout(DEADLINE, client.next()).await.unwrap()?.unwrap();
    Some(said.as_text().unwrap().to_owned())
}

#[tokio::test]
async fn every_subscriber_gets_every_row_as_a_message_and_a_close_at_the_end() {
    let (mut sink, at) = listening("codec = 'text'").await;
    sink.write(&numbered(0..10)).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = client(at).await;
        welcome(&mut sink, &mut client).await;
        clients.push(client);
    }
    let mut reading = JoinSet::new();
    for mut client in clients {
        reading.spawn(async move {
            let mut next = 0;
            while let Some(said) = text(&mut client).await {
                if said != "hello" {
                    assert_eq!(said, format!("row {next}\nof two lines"));
                    next += 1;
                }
            }
            assert_eq!(client.ended().unwrap().code, Some(CloseCode::Away));
            next
        });
    }
    for n in 0..10 {
        let written = timeout(DEADLINE, sink.write(&numbered(n * 100..(n + 1) * 100))).await;
        assert_eq!(written.unwrap().unwrap(), Written::default());
    }
    timeout(DEADLINE, sink.close()).await.unwrap();
    assert_eq!(timeout(DEADLINE, reading.join_all()).await.unwrap(), [1_000; 20]);
}

#[tokio::test]
async fn a_stalled_subscriber_holds_the_pipeline_up_only_where_it_is_to_be_waited_for() {
    let long = rows(&(0..100).map(|_| "x".repeat(10_000)).collect::<Vec<_>>());
    for (word, waits) in [("drop_oldest", false), ("disconnect", false), ("block", true)] {
        let (mut sink, at) = listening(&format!("when_slow = '{word}'\ncodec = 'text'")).await;
        let mut stalled = client(at).await;
        welcome(&mut sink, &mut stalled).await;
        let writing = async {
            for _ in 0..100 {
                sink.write(&long).await.unwrap();
                // Subscribers are served meanwhile.
                tokio::task::yield_now().await;
            }
        };
        let patience = if waits { Duration::from_millis(500) } else { DEADLINE };
        assert_eq!(timeout(patience, writing).await.is_err(), waits, "{word}");
        let mut missed = 0;
        loop {
            // It reads at last.
            let Some(said) = text(&mut stalled).await else { break };
            if let Some(count) = said.strip_prefix("{\"missed\":") {
                missed = count.trim_end_matches('}').parse::<u64>().unwrap();
                break;
            }
            if waits {
                break;
            }
        }
        assert_eq!(missed > 0, word == "drop_oldest", "{word}: {missed}");
        let ended = stalled.ended().and_then(|ended| ended.code);
        assert_eq!(ended, (word == "disconnect").then_some(CloseCode::Again), "{word}");
    }
}

#[tokio::test]
async fn rows_are_sent_to_a_server_and_to_the_next_one_after_a_loss() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Limits::default()).unwrap();
    let at = listener.local_addr().unwrap();
    let mut server = Server::new(listener, Rules::default(), Options::default(), DEADLINE);
    let serving = tokio::spawn(async move {
        let mut client = server.accept().await.unwrap();
        let mut said = Vec::new();
        for _ in 0..4 {
            let message = client.stream.next().await.unwrap().unwrap();
            said.push(message.as_text().unwrap().to_owned());
        }
        client.stream.send(Message::text("thanks")).await.unwrap();
        client.stream.close(CloseCode::Restart, "").await;
        drop(client);
        let mut client = server.accept().await.unwrap();
        while let Some(message) = client.stream.next().await {
            said.push(message.unwrap().as_text().unwrap().to_owned());
        }
        assert_eq!(client.stream.ended().unwrap().code, Some(CloseCode::Normal));
        said
    });
    let mut sink =
        open(&format!("mode = 'connect'\nurl = 'ws://{at}'\ngreet = ['hi']")).await.unwrap();
    sink.write(&numbered(0..3)).await.unwrap();
    let error = timeout(DEADLINE, async {
        loop {
            if let Err(error) = sink.write(&numbered(0..0)).await {
                break error;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(error.await.unwrap().kind(), ErrorKind::Disconnected);
    timeout(DEADLINE, sink.write(&numbered(3..5))).await.unwrap().unwrap();
    timeout(DEADLINE, sink.close()).await.unwrap();
    let row = |n| format!("{{\"message\":\"row {n}\\nof two lines\"}}");
    let expected = ["hi".to_owned(), row(0), row(1), row(2), "hi".to_owned(), row(3), row(4)];
    assert_eq!(timeout(DEADLINE, serving).await.unwrap().unwrap(), expected);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let error = open("mode = 'connect'\nurl = 'ws://127.0.0.1:1'").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
}

#[test]
fn mistakes_say_what_to_write_instead() {
    for (text, said) in [
        ("mode = 'listen'\nlisten = '1'\nwhen_slow = 'wait'", "\"wait\" is nothing to do about"),
        ("mode = 'listen'\nlisten = '1'\nkeep_messages_max = 0", "0: nothing would be kept"),
        ("mode = 'listen'\nlisten = '1'\ncodec = 'xml'", "there is no codec \"xml\""),
        ("mode = 'connect'\nurl = 'feed'", "that is no address of a WebSocket"),
    ] {
        let mistake = build(&Settings::from_toml(text).unwrap()).err().unwrap();
        assert!(mistake.message.contains(said), "{text}: {}", mistake.message);
    }
}
