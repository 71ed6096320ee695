//! What the examples show is true.

#![expect(dead_code, reason = "each example's `main` is for people; its `run` is called here")]

#[path = "../../examples/chat.rs"]
pub mod chat;
#[path = "../../examples/multiplex.rs"]
pub mod multiplex;

use std::collections::BTreeMap;

use futures::{SinkExt, StreamExt};
use tidegate_net::listen::{Limits, Listener};
use tidegate_net::websocket::{
    Address, CloseCode, Message, MessageStream, Options, Rules, connect,
};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::support::{server, soon, target};

async fn text(member: &mut MessageStream) -> String {
    let said = soon(member.next()).await.unwrap().unwrap();
    said.as_text().unwrap().to_owned()
}

#[tokio::test]
async fn a_chat_has_rooms_and_slow_members_are_told_or_go() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Limits::default()).unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(chat::run(listener, async { drop(stopped.await) }));
    let join = async |path: &str| {
        let (_, _, _, address) = Address::parse(&format!("ws://{at}/{path}")).unwrap();
        soon(connect(&target(at), &address, Options::default())).await
    };
    assert!(soon(join("kitchen?name=ann")).await.is_err(), "there is no such room");
    let mut ann = join("rooms/tea?name=ann").await.unwrap();
    assert_eq!(text(&mut ann).await, "* ann is here");
    let mut ben = join("rooms/tea?name=ben").await.unwrap();
    let mut eve = join("rooms/coffee?name=eve").await.unwrap();
    assert_eq!(text(&mut eve).await, "* eve is here");
    for member in [&mut ann, &mut ben] {
        assert_eq!(text(member).await, "* ben is here");
    }
    ben.send(Message::text("hello")).await.unwrap();
    for member in [&mut ann, &mut ben] {
        assert_eq!(text(member).await, "ben: hello");
    }
    // Two who read nothing, and a talker who is not held up by them.
    let mut slow = join("rooms/tea?name=slow").await.unwrap();
    let mut strict = join("rooms/tea?name=strict&gaps=no").await.unwrap();
    for name in ["slow", "strict"] {
        assert_eq!(text(&mut ben).await, format!("* {name} is here"));
    }
    let word = "x".repeat(4_000);
    for n in 0..5_000 {
        soon(ben.send(Message::text(format!("{n} {word}")))).await.unwrap();
        loop {
            let said = text(&mut ben).await;
            match said.strip_prefix("ben: ") {
                Some(said) => break assert!(said.starts_with(&format!("{n} ")), "{said:.20}"),
                None => assert_eq!(said, "* strict is gone"),
            }
        }
    }
    while let Some(said) = soon(strict.next()).await {
        assert!(!said.unwrap().as_text().unwrap().starts_with('{'), "it has no gaps");
    }
    assert_eq!(strict.ended().unwrap().code, Some(CloseCode::Again));
    let told = loop {
        let said = text(&mut slow).await;
        if let Some(missed) = said.strip_prefix("{\"missed\":") {
            break missed.trim_end_matches('}').parse::<u64>().unwrap();
        }
    };
    assert!(told > 0);
    drop(slow);
    stop.send(()).unwrap();
    let ending =
        tokio::spawn(async move { while eve.next().await.is_some_and(|said| said.is_ok()) {} });
    for mut member in [ann, ben] {
        while let Some(said) = soon(member.next()).await {
            said.unwrap();
        }
        assert_eq!(member.ended().unwrap().code, Some(CloseCode::Away));
    }
    soon(ending).await.unwrap();
    soon(serving).await.unwrap();
}

#[tokio::test]
async fn a_multiplexer_gives_each_its_turn_and_lost_ones_come_back() {
    let mut servers = JoinSet::new();
    let mut urls = Vec::new();
    for n in 0..5 {
        let mut server = server(Rules::default(), 10, Options::default());
        urls.push(format!("ws://{}/{n}", server.local_addr().unwrap()));
        servers.spawn(async move {
            let mut lives = 0;
            loop {
                let mut client = server.accept().await.unwrap();
                assert_eq!(client.stream.next().await.unwrap().unwrap().as_text(), Some("go"));
                // The first talks without end; the others are cut after each word.
                loop {
                    let word = Message::text(format!("{lives}"));
                    if client.stream.send(word).await.is_err() {
                        break;
                    }
                    if n > 0 {
                        client.stream.close(CloseCode::Away, "").await;
                        break;
                    }
                }
                lives += 1;
            }
        });
    }
    let mut all = multiplex::run(&urls, vec![Message::text("go")]).unwrap();
    let mut found = BTreeMap::<String, usize>::new();
    while found.len() < 5 || found.iter().any(|(url, count)| *url != urls[0] && *count < 3) {
        let (url, message) = soon(all.next()).await.unwrap();
        let count = found.entry(url.clone()).or_default();
        if url != urls[0] {
            assert_eq!(message.unwrap().as_text(), Some(&*count.to_string()));
        }
        *count += 1;
    }
    assert!(multiplex::run(&["http://no".to_owned()], vec![]).is_err());
}
