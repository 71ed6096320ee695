//! Parallel requests with bounded concurrency, against a small TCP server.
//!
//! The server keeps count of the requests it has and hasn't answered. There are never more than the
//! limit, and the limit is used; a slow answer holds up only what must come after it.
//!
//! Run it: `cargo run -p tidegate-flow --example parallel_requests`

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{Stream, TryStreamExt, stream};
use tidegate_flow::{FlowExt, nz};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;

const REQUESTS: u32 = 12;
const AT_A_TIME: NonZeroUsize = nz!(4);

/// How many quick answers come before each slow one.
const QUICK_ONES: u32 = 3;

/// What one way of asking came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Answers {
    /// The numbers that were asked for, in the order in which their answers came out.
    pub order: Vec<u32>,
    /// The greatest number of requests that the server had at a time.
    pub most_in_flight: usize,
}

/// Both ways of asking, side by side.
#[derive(Debug)]
pub struct Outcome {
    /// With `concurrent_map`.
    pub in_order: Answers,
    /// With `concurrent_map_unordered`.
    pub as_they_come: Answers,
}

/// Asks for the numbers below 12, four at a time; every fourth answer is slow.
///
/// # Errors
///
/// Those of the sockets.
pub async fn run() -> io::Result<Outcome> {
    Ok(Outcome {
        in_order: against_a_server(|server| {
            stream::iter(0..REQUESTS).concurrent_map(AT_A_TIME, move |n| ask(server, n))
        })
        .await?,
        as_they_come: against_a_server(|server| {
            stream::iter(0..REQUESTS).concurrent_map_unordered(AT_A_TIME, move |n| ask(server, n))
        })
        .await?,
    })
}

/// One request on a connection of its own, which is closed once the answer is here.
async fn ask(server: SocketAddr, number: u32) -> io::Result<u32> {
    let mut socket = TcpStream::connect(server).await?;
    socket.write_all(format!("{number}\n").as_bytes()).await?;
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer).await?;
    answer.trim_end().parse().map_err(io::Error::other)
}

/// Starts a server, lets `requests` ask it, and stops it.
async fn against_a_server<S>(requests: impl FnOnce(SocketAddr) -> S) -> io::Result<Answers>
where
    S: Stream<Item = io::Result<u32>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let desk = Arc::new(Desk::new());
    let order = tokio::select! {
        order = requests(address).try_collect() => order?,
        Err(error) = serve(listener, &desk) => return Err(error),
    };
    let most_in_flight = desk.most_in_flight.load(Ordering::Relaxed);
    Ok(Answers { order, most_in_flight })
}

/// What the server's handlers share.
#[derive(Debug)]
struct Desk {
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    /// Lets requests through four at a time: with fewer at a time, nothing would be answered.
    gate: Barrier,
    /// A permit for every quick answer that has reached its client.
    quick_answers: Semaphore,
}

impl Desk {
    fn new() -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            gate: Barrier::new(AT_A_TIME.get()),
            quick_answers: Semaphore::new(0),
        }
    }
}

/// Answers until it is dropped, and its handlers with it.
async fn serve(listener: TcpListener, desk: &Arc<Desk>) -> io::Result<()> {
    let mut handlers = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await?;
        while handlers.try_join_next().is_some() {} // forget those that are done
        // What goes wrong in a handler, its client sees: the connection is closed.
        handlers.spawn(handle(socket, Arc::clone(desk)));
    }
}

/// Echoes one line, at once or (every fourth number) after the three quick answers of its group.
async fn handle(mut socket: TcpStream, desk: Arc<Desk>) -> io::Result<()> {
    let (reader, mut writer) = socket.split();
    let mut lines = BufReader::new(reader).lines();
    let Some(line) = lines.next_line().await? else {
        return Ok(());
    };
    let in_flight = desk.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    desk.most_in_flight.fetch_max(in_flight, Ordering::Relaxed);

    desk.gate.wait().await;
    let number: u32 = line.parse().map_err(io::Error::other)?;
    let is_slow = number.is_multiple_of(QUICK_ONES + 1);
    if is_slow {
        let all = desk.quick_answers.acquire_many(QUICK_ONES).await;
        all.map_err(io::Error::other)?.forget();
    }

    // Counted before the client can know: its next request may be faster than our next line.
    desk.in_flight.fetch_sub(1, Ordering::Relaxed);
    writer.write_all(format!("{line}\n").as_bytes()).await?;
    lines.next_line().await?; // the client has its answer and hangs up
    if !is_slow {
        desk.quick_answers.add_permits(1);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let outcome = run().await?;
    println!("in order:     {:>2?}", outcome.in_order);
    println!("as they come: {:>2?}", outcome.as_they_come);
    Ok(())
}
