//! Handshakes: who comes in, and what the others are answered.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use http::HeaderValue;
use tidegate_flow::Backoff;
use tidegate_net::auth::{Secrets, basic_header, bearer_header};
use tidegate_net::listen::{Limits, Listener};
use tidegate_net::websocket::{
    Address, Client, CloseCode, ConnectError, Message, NotAccepted, Options, Rules, Server,
    connect, reconnecting,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::{DEADLINE, server, soon, target};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Serves, and tells of everybody that comes or does not.
fn served(
    mut server: Server,
) -> (SocketAddr, mpsc::UnboundedReceiver<Result<Client, NotAccepted>>) {
    let address = server.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move { while tell.send(server.accept().await).is_ok() {} });
    (address, told)
}

/// The answer to a request with such a first line and headers.
async fn answer(address: SocketAddr, line: &str, headers: &[&str]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{line}\r\nhost: here\r\n{}\r\n", headers.concat());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let _ = soon(async {
        // An upgrade stays open.
        while !text.starts_with(b"HTTP/1.1 101") || !text.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut text).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    })
    .await;
    String::from_utf8(text).unwrap()
}

fn upgrade() -> Vec<&'static str> {
    vec![
        "connection: keep-alive, Upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-version: 13\r\n",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ]
}

fn strict() -> Rules {
    Rules {
        paths: vec!["/in".into(), "/rooms/*".into()],
        protocols: vec!["new".into(), "old".into()],
        origins: vec!["https://example.org".into()],
        headers: vec![("x-tenant".parse().unwrap(), HeaderValue::from_static("a"))],
        secrets: Secrets::none().bearer("t0ken").basic("ann", "pass"),
    }
}

#[tokio::test]
async fn each_who_may_not_come_in_is_answered_why() {
    let (address, mut told) = served(server(strict(), 100, Options::default()));
    let all = |extra: &[&'static str]| [&upgrade()[..], extra].concat();
    let token = "authorization: Bearer t0ken\r\n";
    let fine = ["x-tenant: a\r\n", token, "sec-websocket-protocol: other, old\r\n"];
    let get = "GET /in?x=1 HTTP/1.1";
    let old = ["sec-websocket-version: 8\r\n", "x-tenant: a\r\n", token];
    let old = [&upgrade()[..2], &upgrade()[3..], &old[..]].concat();
    for (line, headers, status, says) in [
        ("GET /out HTTP/1.1", all(&fine), 404, "nothing at this path"),
        ("GET /rooms HTTP/1.1", all(&fine), 404, ""),
        (get, all(&fine[..1]), 401, "www-authenticate: Basic"),
        (get, all(&["x-tenant: a\r\n", "authorization: Bearer wrong\r\n"]), 401, ""),
        (get, all(&[&fine[..], &["origin: https://evil.example\r\n"]].concat()), 403, "origin"),
        (get, all(&fine[1..]), 403, "header"),
        (get, all(&fine[..2]), 400, "new, old"),
        (get, all(&["x-tenant: a\r\n", token, "sec-websocket-protocol: other\r\n"]), 400, ""),
        (get, fine.to_vec(), 426, "upgrade: websocket"),
        ("POST /in HTTP/1.1", all(&fine), 426, "sec-websocket-version: 13"),
        (get, old, 426, "sec-websocket-version: 13"),
        (get, all(&fine), 101, "sec-websocket-protocol: old"),
        ("GET /rooms/a HTTP/1.1", all(&fine), 101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ] {
        let text = answer(address, line, &headers).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {headers:?}: {text}");
        assert!(text.contains(says), "{line} {headers:?}: {text}");
        match soon(told.recv()).await.unwrap() {
            Ok(client) => assert_eq!((status, client.request.protocol), (101, Some("old".into()))),
            Err(NotAccepted::Answered { status: told, .. }) => assert_eq!(told, status),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(KEY.len(), 24);
}

#[tokio::test]
async fn a_key_that_is_none_is_no_handshake() {
    let (address, _told) = served(server(Rules::default(), 100, Options::default()));
    let mut headers = upgrade();
    headers[3] = "sec-websocket-key: short\r\n";
    let text = answer(address, "GET / HTTP/1.1", &headers).await;
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
}

#[tokio::test]
async fn what_is_no_http_or_comes_too_slowly_is_dropped_and_the_others_go_on() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Limits::default()).unwrap();
    let patience = Duration::from_millis(300);
    let (address, mut told) =
        served(Server::new(listener, Rules::default(), Options::default(), patience));
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-").await.unwrap();
        slow.push(stream);
    }
    let mut wild = TcpStream::connect(address).await.unwrap();
    wild.write_all(b"\x16\x03\x01what\r\n\r\n").await.unwrap();
    let text = answer(address, "GET / HTTP/1.1", &upgrade()).await;
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
    let (mut in_time, mut broken) = (0, 0);
    for _ in 0..52 {
        match soon(told.recv()).await.unwrap() {
            Ok(_) => in_time += 1,
            Err(NotAccepted::Broken(_)) => broken += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((in_time, broken), (1, 51));
    for mut stream in slow {
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
}

#[tokio::test]
async fn those_beyond_the_cap_are_told_to_come_back() {
    let limits = Limits { connections_max: 12, ..Limits::default() };
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), limits).unwrap();
    let server = Server::new(listener, Rules::default(), Options::default(), DEADLINE);
    let (address, mut told) = served(server.clients_max(2));
    let mut clients = Vec::new();
    for n in 0..20 {
        let text = answer(address, "GET / HTTP/1.1", &upgrade()).await;
        let status = if n < 2 { 101 } else { 503 };
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{n}: {text}");
        clients.extend(soon(told.recv()).await.unwrap());
    }
    drop(clients);
    let text = answer(address, "GET / HTTP/1.1", &upgrade()).await;
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
}

#[tokio::test]
async fn a_thousand_beyond_the_cap_are_refused_and_who_is_in_goes_on() {
    let (address, mut told) = served(server(Rules::default(), 5, Options::default()));
    let (_, _, _, url) = Address::parse(&format!("ws://{address}/")).unwrap();
    let mut near = soon(connect(&target(address), &url, Options::default())).await.unwrap();
    let mut far = soon(told.recv()).await.unwrap().unwrap();
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let beyond = futures::stream::iter(0..1_000).map(async |_| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Closed, or reset where something was sent.
        soon(stream.read(&mut [0; 100])).await.unwrap_or(0)
    });
    let read: Vec<_> = soon(beyond.buffer_unordered(100).collect()).await;
    assert_eq!(read, [0; 1_000]);
    near.send(Message::text("still here")).await.unwrap();
    let said = soon(far.stream.next()).await.unwrap().unwrap();
    assert_eq!(said.as_text(), Some("still here"));
}

#[tokio::test]
async fn a_client_of_ours_comes_in_with_a_token_or_a_name_and_knows_when_it_may_not() {
    let (socket, mut told) = served(server(strict(), 100, Options::default()));
    let connecting = async |url: &str, token: Option<HeaderValue>, protocol: &str| {
        let (host, port, tls, mut address) = Address::parse(url).unwrap();
        assert_eq!((&*host, port, tls), ("127.0.0.1", socket.port(), false));
        address.headers.extend(token.map(|token| (http::header::AUTHORIZATION, token)));
        address.headers.insert("x-tenant", HeaderValue::from_static("a"));
        address.protocols = vec![protocol.into()];
        let connected = soon(connect(&target(socket), &address, Options::default())).await;
        (connected, soon(told.recv()).await.unwrap())
    };
    let mut connecting = connecting;
    let url = format!("ws://{socket}/rooms/x?a=b");
    let named = format!("ws://ann:pass@{socket}/in");
    let token = bearer_header("t0ken").ok();
    let cases = [
        (url.clone(), token.clone()),
        (named, None),
        (url.clone(), basic_header("ann", "pass").ok()),
    ];
    for (url, token) in cases {
        let (near, far) = connecting(&url, token, "new").await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        assert_eq!((near.protocol(), far.stream.protocol()), (Some("new"), Some("new")));
        near.send(Message::text("hello")).await.unwrap();
        assert_eq!(soon(far.stream.next()).await.unwrap().unwrap().as_text(), Some("hello"));
        let closing = tokio::spawn(async move { far.stream.close(CloseCode::Away, "").await });
        assert!(soon(near.next()).await.is_none());
        drop(near);
        soon(closing).await.unwrap();
    }
    for (token, protocol, status) in [(None, "new", 401), (token, "newest", 400)] {
        let (near, _) = connecting(&url, token, protocol).await;
        let error = near.unwrap_err();
        let ConnectError::Answered(answered) = &error else { panic!("{error}") };
        assert!(*answered == status && error.is_final(), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_no_websocket_is_told_from_one_that_is() {
    for (answer, is_final) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false),
        ("HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", true),
        ("HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n", true),
        ("what?\r\n\r\n", false),
        ("HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n", false),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1_000]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.read(&mut [0; 1_000]).await.unwrap_or(0)
        });
        let (_, _, _, address) = Address::parse(&format!("ws://{socket}")).unwrap();
        let connected = soon(connect(&target(socket), &address, Options::default())).await;
        let error = connected.unwrap_err();
        assert_eq!(error.is_final(), is_final, "{answer}: {error}");
        soon(serving).await.unwrap();
    }
}

#[tokio::test]
async fn it_comes_back_and_subscribes_each_time() {
    let (socket, mut told) = served(server(Rules::default(), 100, Options::default()));
    let (_, _, _, address) = Address::parse(&format!("ws://{socket}/")).unwrap();
    let backoff = Backoff::constant(Duration::from_millis(100));
    let subscribe = vec![Message::text("one"), Message::text("two")];
    let options = Options::default();
    let messages = reconnecting(target(socket), address, options, subscribe, backoff);
    let mut messages = Box::pin(messages);
    let serving = tokio::spawn(async move {
        for n in 0..5 {
            let mut client = soon(told.recv()).await.unwrap().unwrap();
            for word in ["one", "two"] {
                let said = soon(client.stream.next()).await.unwrap().unwrap();
                assert_eq!(said.as_text(), Some(word));
            }
            client.stream.send(Message::text(format!("{n}"))).await.unwrap();
            match n % 2 {
                0 => client.stream.close(CloseCode::Away, "").await,
                _ => drop(client),
            }
        }
    });
    for n in 0..5 {
        let message = soon(messages.next()).await.unwrap().unwrap();
        assert_eq!(message.as_text(), Some(&*n.to_string()));
    }
    assert!(messages.next().now_or_never().is_none());
    drop(messages);
    soon(serving).await.unwrap();
}

#[test]
fn addresses_are_taken_apart() {
    for (url, expected) in [
        ("ws://a", ("a", 80, false, "/", "a")),
        ("wss://a.b:1/c?d=e", ("a.b", 1, true, "/c?d=e", "a.b:1")),
        ("wss://u:p@[::1]/x", ("::1", 443, true, "/x", "[::1]")),
    ] {
        let (host, port, tls, address) = Address::parse(url).unwrap();
        let Address { path, authority, headers, .. } = address;
        assert_eq!((&*host, port, tls, &*path, &*authority), expected);
        assert_eq!(headers.contains_key("authorization"), url.contains('@'));
    }
    for url in ["", "a", "http://a", "ws:///x", "ws://", "ws://a b"] {
        assert!(Address::parse(url).is_err(), "{url}");
    }
}
