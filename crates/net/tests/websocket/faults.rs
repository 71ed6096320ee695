//! Networks with faults, and TLS.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tidegate_net::listen::{Limits, Listener};
use tidegate_net::tls::{ClientTls, Identity, ServerTls};
use tidegate_net::websocket::{
    Address, Broadcast, BroadcastOptions, Client, Failure, Message, MessageStream, Options, Rules,
    Server, Slow, connect,
};
use tidegate_testkit::proxy::FaultProxy;
use tokio::time::timeout;

use crate::support::{DEADLINE, server, soon, target};

fn quick() -> Options {
    Options { ping_interval: Some(Duration::from_millis(300)), ..Options::default() }
}

async fn pair(server: &mut Server, at: SocketAddr, options: Options) -> (Client, MessageStream) {
    let (_, _, _, address) = Address::parse(&format!("ws://{at}/")).unwrap();
    let target = target(at);
    let both = async { tokio::join!(server.accept(), connect(&target, &address, options)) };
    let (near, far) = soon(both).await;
    (near.unwrap(), far.unwrap())
}

#[tokio::test]
async fn a_network_that_swallows_everything_is_found_out_at_both_ends() {
    let mut server = server(Rules::default(), 10, quick());
    let proxy = FaultProxy::to(server.local_addr().unwrap());
    let (mut near, mut far) = pair(&mut server, proxy.address(), quick()).await;
    // Pings keep it up.
    let quiet = async { tokio::join!(near.stream.next(), far.next()) };
    assert!(timeout(Duration::from_secs(2), quiet).await.is_err(), "both are there");
    proxy.half_open(true);
    let (near, far) = soon(async { tokio::join!(near.stream.next(), far.next()) }).await;
    for end in [near, far] {
        let failure = end.unwrap().unwrap_err();
        assert!(matches!(failure, Failure::Silent(_)), "{failure}");
    }
}

#[tokio::test]
async fn a_network_that_stalls_and_goes_on_loses_nothing() {
    let options = Options { ping_interval: None, ..Options::default() };
    let mut server = server(Rules::default(), 10, options);
    let proxy = FaultProxy::to(server.local_addr().unwrap());
    let (near, mut far) = pair(&mut server, proxy.address(), options).await;
    let broadcast = Broadcast::new(BroadcastOptions::default());
    let serving = tokio::spawn(broadcast.subscribe(near.stream, Slow::Block).run());
    let publishing = tokio::spawn(async move {
        for n in 0..10_000 {
            broadcast.publish(&Message::text(format!("{n:01000}"))).await;
        }
    });
    let (mut next, mut stalls) = (0, 0);
    while next < 10_000 {
        let mut expect = |said: Option<Result<Message, Failure>>| {
            assert_eq!(said.unwrap().unwrap().as_text(), Some(&*format!("{next:01000}")));
            next += 1;
            next
        };
        for _ in 0..500 {
            if expect(soon(far.next()).await) == 10_000 {
                break;
            }
        }
        proxy.stall(true);
        // What was on its way, and then nothing.
        while let Ok(said) = timeout(Duration::from_millis(200), far.next()).await {
            if said.is_none() {
                break;
            }
            expect(said);
        }
        proxy.stall(false);
        stalls += 1;
    }
    assert!(stalls > 1, "all of it was in the network's buffers");
    soon(publishing).await.unwrap();
    assert!(soon(far.next()).await.is_none(), "the end was told");
    drop(far);
    assert!(soon(serving).await.unwrap().failure.is_none());
}

#[tokio::test]
async fn a_network_that_cuts_is_an_error_and_whole_messages_before_it_are_given() {
    let mut server = server(Rules::default(), 10, Options::default());
    let proxy = FaultProxy::to(server.local_addr().unwrap());
    for bytes in [200, 5_000, 70_000] {
        proxy.cut_after(Some(bytes));
        let (mut near, mut far) = pair(&mut server, proxy.address(), Options::default()).await;
        let sending = tokio::spawn(async move {
            for n in 0..1_000 {
                if near.stream.send(Message::text(format!("{n:0100}"))).await.is_err() {
                    break;
                }
            }
        });
        let mut found = 0;
        let failure = loop {
            match soon(far.next()).await.unwrap() {
                Ok(said) => assert_eq!(said.as_text(), Some(&*format!("{found:0100}"))),
                Err(failure) => break failure,
            }
            found += 1;
        };
        assert!(matches!(failure, Failure::Cut | Failure::Io(_)), "{failure}");
        assert!(found <= bytes / 102, "{found}");
        sending.abort();
    }
}

#[tokio::test]
async fn a_damaged_stream_ends_one_connection_and_no_more() {
    let mut server = server(Rules::default(), 100, Options::default());
    let proxy = FaultProxy::to(server.local_addr().unwrap());
    let mut failures = 0;
    for _ in 0..10 {
        let (near, mut far) = pair(&mut server, proxy.address(), Options::default()).await;
        proxy.flip_bits(Some(2_000), fastrand::u64(..));
        let Client { mut stream, slot: _slot, .. } = near;
        let sending = tokio::spawn(async move {
            for n in 0..1_000 {
                if stream.send(Message::text(format!("{n:0100}"))).await.is_err() {
                    break;
                }
            }
            stream.close(tidegate_net::websocket::CloseCode::Normal, "").await;
        });
        while let Some(said) = soon(far.next()).await {
            failures += u32::from(said.is_err());
        }
        drop(far);
        soon(sending).await.unwrap();
        proxy.flip_bits(None, 0);
    }
    assert!(failures > 0);
    let (mut near, mut far) = pair(&mut server, proxy.address(), Options::default()).await;
    far.send(Message::text("fine")).await.unwrap();
    assert_eq!(soon(near.stream.next()).await.unwrap().unwrap().as_text(), Some("fine"));
}

#[tokio::test]
async fn with_tls_it_is_the_same_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let identity = Identity { certificate: certificate.clone(), key };
    let tls = ServerTls { identity, clients: None }.load(&["http/1.1"]).unwrap();
    let limits = Limits { tls: Some(tls), ..Limits::default() };
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), limits).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = Server::new(listener, Rules::default(), quick(), DEADLINE);
    let (host, _, _, address) = Address::parse(&format!("wss://localhost:{port}/")).unwrap();
    let tls = ClientTls { roots: Some(certificate), identity: None }.load(&["http/1.1"]).unwrap();
    let mut target = target(([127, 0, 0, 1], port).into());
    (target.host, target.tls) = (host, Some(tls));
    let both = async { tokio::join!(server.accept(), connect(&target, &address, quick())) };
    let (near, far) = soon(both).await;
    let (mut near, mut far) = (near.unwrap().stream, far.unwrap());
    let echo = tokio::spawn(async move {
        while let Some(Ok(message)) = near.next().await {
            near.send(message).await.unwrap();
        }
        near
    });
    for size in [0, 10, 16_384, 20_000, 900_000] {
        let message = Message::Binary(vec![7; size].into());
        far.send(message.clone()).await.unwrap();
        assert!(soon(far.next()).await.unwrap().unwrap() == message, "{size}");
    }
    // Many at once are not forgotten where TLS has more of them than was asked for.
    for n in 0..5_000 {
        far.feed(Message::text(format!("{n}"))).await.unwrap();
        if n % 500 == 499 {
            far.flush().await.unwrap();
            for n in n - 499..=n {
                let said = soon(far.next()).await.unwrap().unwrap();
                assert_eq!(said.as_text(), Some(&*n.to_string()));
            }
        }
    }
    assert!(
        timeout(Duration::from_secs(1), far.next()).await.is_err(),
        "quiet, and both are there"
    );
    soon(far.close(tidegate_net::websocket::CloseCode::Normal, "")).await;
    let near = soon(echo).await.unwrap();
    assert_eq!(near.ended().unwrap().code, Some(tidegate_net::websocket::CloseCode::Normal));
}
