//! Many WebSockets as one stream, each in its turn, with keys: a busy one never crowds the others
//! out, one that is lost comes back by itself, and nothing is read that nobody asks for.
//!
//! ```sh
//! cargo run -p tidegate-net --example multiplex -- ws://a.example/feed ws://b.example/feed
//! ```

use std::error::Error;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tidegate_flow::{Backoff, FairMerge, GaveUp, Merged};
use tidegate_net::connect::Target;
use tidegate_net::listen::Keepalive;
use tidegate_net::tls::ClientTls;
use tidegate_net::websocket::{Address, ConnectError, Message, Options, reconnecting};

/// What one of them said, or why it will say no more.
pub type Said = (String, Result<Message, GaveUp<ConnectError>>);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    let mut all = run(&urls, vec![Message::text("subscribe")])?;
    while let Some((url, message)) = all.next().await {
        match message {
            Ok(message) => println!("{url}: {}", message.as_text().unwrap_or("(bytes)")),
            Err(error) => eprintln!("{url}: {error}"),
        }
    }
    Ok(())
}

/// What comes from all of them, with where it came from.
///
/// # Errors
///
/// One is no address, or there are no certificates to judge a `wss://` by.
pub fn run(
    urls: &[String],
    subscribe: Vec<Message>,
) -> Result<BoxStream<'static, Said>, Box<dyn Error>> {
    let mut merge = FairMerge::new();
    for url in urls {
        let (host, port, secure, address) = Address::parse(url)?;
        let tls = secure.then(|| ClientTls::default().load(&["http/1.1"])).transpose()?;
        let (timeout, keepalive) = (Duration::from_secs(10), Keepalive::default());
        let target = Target { host, port, tls, timeout, keepalive };
        let backoff = Backoff::exponential(Duration::from_millis(100)..=Duration::from_secs(30));
        let messages =
            reconnecting(target, address, Options::default(), subscribe.clone(), backoff)
                .final_if(ConnectError::is_final);
        merge.insert(url.clone(), messages);
    }
    let said = merge.filter_map(|merged| {
        std::future::ready(match merged {
            Merged::Item(url, message) => Some((url, message)),
            Merged::Ended(_) => None,
        })
    });
    Ok(said.boxed())
}
