//! Peers that others wrote: Python's `websockets`, Node's `ws`, a browser.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tidegate_net::websocket::{
    Address, Broadcast, BroadcastOptions, CloseCode, Failure, Message, Options, Rules, Server,
    Slow, connect,
};
use tidegate_testkit::peers;
use tidegate_testkit::process::{Program, wait_for};
use tokio::task::JoinHandle;

use crate::support::{server, target};

const DEADLINE: Duration = Duration::from_secs(120);

async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

fn python(script: &str, url: &str) -> Program {
    let mut command = peers::python();
    command.args(["-c", script, url]);
    Program::of(command)
}

fn node(script: &str, url: &str) -> Program {
    let mut command = peers::node();
    command.args(["-e", script, url]);
    Program::of(command)
}

/// Echoes to one client until it closes; gives how it ended.
fn echo(mut server: Server) -> JoinHandle<(usize, Option<CloseCode>, Option<Failure>)> {
    tokio::spawn(async move {
        let mut client = server.accept().await.unwrap();
        let (mut count, mut failure) = (0, None);
        while let Some(message) = client.stream.next().await {
            match message {
                Ok(message) => {
                    count += 1;
                    client.stream.send(message).await.unwrap();
                }
                Err(error) => failure = Some(error),
            }
        }
        (count, client.stream.ended().and_then(|ended| ended.code), failure)
    })
}

const PYTHON_CLIENT: &str = r#"
import asyncio, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1], subprotocols=["v2", "v1"], max_size=None,
                                  ping_interval=0.2) as ws:
        assert ws.subprotocol == "v1"
        for size in [0, 1, 125, 126, 65535, 65536, 900000]:
            for data in ["ü" * (size // 2), b"\x00" * size]:
                await ws.send(data)
                assert await ws.recv() == data, size
        await ws.send(["in ", "several ", "", "parts"])
        assert await ws.recv() == "in several parts"
        for _ in range(3):
            await asyncio.wait_for(await ws.ping(), 10)
        await ws.close(code=4001, reason="enough")
asyncio.run(main())
"#;

const NODE_CLIENT: &str = r#"
const WebSocket = require('ws');
const assert = require('assert');
const ws = new WebSocket(process.argv[1], ['v1'], { perMessageDeflate: true });
const sizes = [0, 1, 125, 126, 65535, 65536, 900000];
const all = sizes.flatMap(s => [Buffer.alloc(s, 7), 'x'.repeat(s)]);
let at = 0;
ws.on('open', () => { assert.equal(ws.extensions, ''); ws.send(all[0]); });
ws.on('message', (data, binary) => {
  const sent = all[at++];
  assert.equal(binary, typeof sent !== 'string');
  assert(Buffer.from(sent).equals(data), `${at}`);
  if (at < all.length) ws.send(all[at]);
  else { ws.ping('there?'); ws.on('pong', d => { assert.equal(`${d}`, 'there?'); ws.close(4001, 'enough'); }); }
});
ws.on('close', (code) => { assert.equal(code, 4001); process.exit(0); });
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python, Node and their registries; run by cargo xtask test"]
async fn clients_of_python_and_node_are_understood() {
    for (name, start) in [
        (
            "python",
            Box::new(|url: &str| python(PYTHON_CLIENT, url)) as Box<dyn Fn(&str) -> Program>,
        ),
        ("node", Box::new(|url: &str| node(NODE_CLIENT, url))),
    ] {
        let rules = Rules { protocols: vec!["v1".into()], ..Rules::default() };
        let server = server(rules, 10, Options::default());
        let url = format!("ws://{}/", server.local_addr().unwrap());
        let echoing = echo(server);
        let program = start(&url);
        let (count, code, failure) = soon(echoing).await.unwrap();
        let ended = tokio::task::spawn_blocking(move || program.ended(DEADLINE)).await.unwrap();
        assert_eq!(ended.code(), Some(0), "{name}: {}", ended.stderr);
        assert!(count >= 14 && failure.is_none(), "{name}: {count} {failure:?}");
        assert_eq!(code.map(u16::from), Some(4001), "{name}");
    }
}

const PYTHON_SERVER: &str = r#"
import asyncio, sys, websockets
async def handler(ws):
    async for message in ws:
        if message == "bye":
            await ws.close(code=1001, reason="done")
        else:
            await ws.send(message)
async def main():
    async with websockets.serve(handler, "127.0.0.1", 0, ping_interval=0.1, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], file=sys.stderr)
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"#;

const NODE_SERVER: &str = r#"
const { WebSocketServer } = require('ws');
const server = new WebSocketServer({ host: '127.0.0.1', port: 0 }, () => console.error(server.address().port));
server.on('connection', ws => ws.on('message', (data, binary) =>
  `${data}` === 'bye' ? ws.close(1001, 'done') : ws.send(data, { binary })));
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python, Node and their registries; run by cargo xtask test"]
async fn servers_of_python_and_node_understand_us() {
    for program in [python(PYTHON_SERVER, ""), node(NODE_SERVER, "")] {
        let port = wait_for("a port", DEADLINE, || program.stderr().trim().parse::<u16>().ok());
        let at = ([127, 0, 0, 1], port).into();
        let (_, _, _, address) = Address::parse(&format!("ws://{at}/")).unwrap();
        let mut stream = soon(connect(&target(at), &address, Options::default())).await.unwrap();
        for size in [0, 1, 125, 126, 65_535, 65_536, 900_000] {
            for message in [Message::text("x".repeat(size)), Message::Binary(vec![7; size].into())]
            {
                stream.send(message.clone()).await.unwrap();
                let back = soon(stream.next()).await.unwrap().unwrap();
                assert!(back == message, "{size}");
            }
        }
        stream.send(Message::text("bye")).await.unwrap();
        assert!(soon(stream.next()).await.is_none());
        let ended = stream.ended().unwrap();
        assert_eq!((ended.code, &*ended.reason), (Some(CloseCode::Away), "done"));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python and its registry; run by cargo xtask test"]
async fn a_client_that_is_killed_is_found_out_at_once() {
    let script = "
import asyncio, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1]) as ws:
        await ws.send('here')
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
";
    let mut server = server(Rules::default(), 10, Options::default());
    let program = python(script, &format!("ws://{}/", server.local_addr().unwrap()));
    let mut client = soon(server.accept()).await.unwrap();
    soon(client.stream.next()).await.unwrap().unwrap();
    // Dropped, it is killed.
    drop(program);
    let error = soon(client.stream.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, Failure::Cut | Failure::Io(_)), "{error}");
}

const PAGE: &str = r#"<script>
const ws = new WebSocket("URL", ["other", "v1"]);
ws.binaryType = "arraybuffer";
let step = 0;
ws.onopen = () => ws.send(`open ${ws.protocol}`);
ws.onmessage = ({ data }) => {
  if (typeof data === "string" && data.startsWith("round")) { ws.send(`${data} back`); }
  else if (typeof data !== "string") { ws.send(new Uint8Array(data).map(byte => byte + 1)); }
};
ws.onclose = ({ code, wasClean }) => {
  const last = new WebSocket("URL", ["v1"]);
  last.onopen = () => last.send(`closed ${code} ${wasClean}`);
};
</script>"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium; run by cargo xtask test"]
async fn a_browser_subscribes_answers_and_sees_a_clean_close() {
    let rules = Rules { protocols: vec!["v1".into()], ..Rules::default() };
    let mut server = server(rules, 10, Options::default());
    let url = format!("ws://{}/page", server.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    std::fs::write(&page, PAGE.replace("URL", &url)).unwrap();
    let mut command = peers::chromium(&folder.path().join("profile"));
    let _browser = Program::of({
        command.args(["--remote-debugging-port=0"]).arg(format!("file://{}", page.display()));
        command
    });
    let client = soon(server.accept()).await.unwrap();
    let broadcast = Broadcast::new(BroadcastOptions::default());
    let mut page = broadcast.subscribe(client.stream, Slow::Block);
    let said = soon(page.next()).await.unwrap().unwrap();
    assert_eq!(said.as_text(), Some("open v1"));
    for n in 0..100 {
        broadcast.publish(&Message::text(format!("round {n}"))).await;
        let said = soon(page.next()).await.unwrap().unwrap();
        assert_eq!(said.as_text(), Some(&*format!("round {n} back")));
    }
    broadcast.publish(&Message::Binary(vec![1; 70_000].into())).await;
    assert_eq!(soon(page.next()).await.unwrap().unwrap(), Message::Binary(vec![2; 70_000].into()));
    broadcast.close();
    assert!(soon(page.next()).await.is_none());
    drop(page);
    let mut last = soon(server.accept()).await.unwrap();
    let said = soon(last.stream.next()).await.unwrap().unwrap();
    assert_eq!(said.as_text(), Some("closed 1001 true"));
}

/// The cases of the Autobahn test suite, but for those of compression, which we don't offer, and
/// two that want a pong for each of several pings at once: RFC 6455, 5.5.3, asks for the last one's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the Autobahn cases; run by cargo xtask test"]
async fn the_autobahn_cases_find_nothing_wrong_with_a_server() {
    let (frame_bytes_max, message_bytes_max) = (32 << 20, 32 << 20);
    let options = Options { frame_bytes_max, message_bytes_max, ..Options::default() };
    let mut server = server(Rules::default(), 100, options);
    let address = server.local_addr().unwrap();
    let echoing = tokio::spawn(async move {
        let mut clients = tokio::task::JoinSet::new();
        loop {
            let Ok(mut client) = server.accept().await else { continue };
            clients.spawn(async move {
                while let Some(Ok(message)) = client.stream.next().await {
                    if client.stream.send(message).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut command = peers::autobahn();
    command.args(["-m", "fuzzingclient", "-p", "4"]);
    command.args(["-x", "2.10", "-x", "2.11", "-x", "12.*", "-x", "13.*"]);
    command.arg("-o").arg(folder.path()).arg(address.to_string());
    let runner = tokio::task::spawn_blocking(move || Program::of(command).ended(10 * DEADLINE));
    let ended = runner.await.unwrap();
    echoing.abort();
    println!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
}
