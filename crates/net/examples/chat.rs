//! A chat server: a room for each path, its members' words to all of them, slow ones told what they
//! missed.
//!
//! ```sh
//! cargo run -p tidegate-net --example chat
//! websocat 'ws://127.0.0.1:8081/rooms/tea?name=ann'
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tidegate_net::listen::{Limits, Listener};
use tidegate_net::websocket::{
    Broadcast, BroadcastOptions, Client, Message, Options, Rules, Server, Slow,
};
use tokio::task::JoinSet;

/// What is kept of a room's words for members that are not so fast.
const KEPT: BroadcastOptions = BroadcastOptions { messages_max: 100, bytes_max: 1 << 20 };

/// Rooms, as long as they have members.
type Rooms = Arc<Mutex<HashMap<String, Broadcast>>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = Listener::bind(([127, 0, 0, 1], 8081).into(), Limits::default())?;
    println!("rooms are at ws://{}/rooms/NAME?name=YOU", listener.local_addr()?);
    run(listener, async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}

/// Lets members in until `stop`; then all are told that this is the end.
pub async fn run(listener: Listener, stop: impl Future<Output = ()>) {
    let rules = Rules { paths: vec!["/rooms/*".into()], ..Rules::default() };
    let options = Options { message_bytes_max: 4 << 10, ..Options::default() };
    let mut server = Server::new(listener, rules, options, Duration::from_secs(10));
    let rooms = Rooms::default();
    let mut members = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = members.join_next() => {}
            came = server.accept() => match came {
                Ok(client) => drop(members.spawn(member(client, Arc::clone(&rooms)))),
                Err(error) => eprintln!("{error}"),
            },
        }
    }
    drop(server);
    for room in lock(&rooms).values() {
        room.close();
    }
    while members.join_next().await.is_some() {}
}

/// One member, from its welcome to its end.
async fn member(client: Client, rooms: Rooms) {
    let Client { stream, request, slot: _slot, .. } = client;
    let path = request.path().to_owned();
    let query = request.uri.query().unwrap_or_default();
    let asked = |key: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
    };
    let name = asked("name").unwrap_or_else(|| "somebody".to_owned());
    // Whoever can't stand gaps is told to go instead, and comes back for the history it has elsewhere.
    let slow = match asked("gaps").as_deref() {
        Some("no") => Slow::disconnect(),
        _ => Slow::skip(),
    };
    let (room, mut words) = {
        let mut rooms = lock(&rooms);
        let room = rooms.entry(path.clone()).or_insert_with(|| Broadcast::new(KEPT)).clone();
        let words = room.subscribe(stream, slow);
        (room, words)
    };
    room.publish(&Message::text(format!("* {name} is here"))).await;
    // Polling for what the member says also sends it what the others do.
    while let Some(Ok(said)) = words.next().await {
        if let Some(text) = said.as_text() {
            room.publish(&Message::text(format!("{name}: {text}"))).await;
        }
    }
    drop(words);
    room.publish(&Message::text(format!("* {name} is gone"))).await;
    let mut rooms = lock(&rooms);
    if room.clients() == 0 {
        rooms.remove(&path);
    }
}

fn lock(rooms: &Rooms) -> std::sync::MutexGuard<'_, HashMap<String, Broadcast>> {
    rooms.lock().unwrap_or_else(PoisonError::into_inner)
}
