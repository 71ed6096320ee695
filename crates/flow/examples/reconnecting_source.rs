//! A source that is cut off again and again, and goes on after the last item that came.
//!
//! The server sends numbered messages and cuts each connection after three; once it also refuses
//! one. The consumer sees one stream without a gap or a repetition, and an observer sees what goes
//! on. When the server says that its log is closed, trying again is pointless, and the stream ends.
//!
//! Run it: `cargo run -p tidegate-flow --example reconnecting_source`

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use tidegate_flow::{Backoff, ConnectionState, FlowExt, Replay, nz, reconnect};

/// What the consumer and the observer saw.
#[derive(Debug)]
pub struct Outcome {
    /// The numbers of the messages as they came, and what the source said before it ended.
    pub messages: Vec<Result<u64, String>>,
    /// Every change of state, in order, with the errors as text.
    pub changes: Vec<ConnectionState<String>>,
}

/// Has the messages 0 to 7.
#[derive(Debug, Default)]
struct Server {
    attempts: AtomicU32,
}

impl Server {
    const LOG_ENDS_AT: u64 = 8;

    /// Connects, to receive what comes after the message `last`; refuses the second attempt.
    async fn connect(
        &self,
        last: Option<u64>,
    ) -> io::Result<impl Stream<Item = io::Result<u64>> + use<>> {
        if self.attempts.fetch_add(1, Ordering::Relaxed) == 1 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let next = last.map_or(0, |last| last + 1);
        if next >= Self::LOG_ENDS_AT {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log is closed"));
        }
        let messages = next..(next + 3).min(Self::LOG_ENDS_AT);
        let cut = Err(io::ErrorKind::ConnectionReset.into());
        Ok(stream::iter(messages.map(Ok).chain([cut])).pace(Duration::from_millis(20)))
    }
}

/// Reads the server's log to its end.
pub async fn run() -> Outcome {
    let server = Server::default();

    // The observer is called inside a poll, where nothing may wait: publishing never does. There
    // is room for more changes than there will be, so none is missed.
    let changes = Replay::new(nz!(64));
    let observer = changes.subscribe();

    let waits = Duration::from_millis(100)..=Duration::from_secs(10);
    // Without jitter, so that the waits can be foretold; a client that isn't alone wants it.
    let backoff = Backoff::exponential(waits).without_jitter();
    let source = reconnect(|last| server.connect(last), backoff)
        .resume_from(|number| Some(*number))
        // The waits start anew after a connection that was up for so long. One that is accepted
        // and cut at once is a failure like others, or the server would be hammered.
        .healthy_after(Duration::from_millis(50))
        .final_if(|error: &io::Error| error.kind() == io::ErrorKind::NotFound)
        .on_change(move |state| {
            changes.publish(state.map_error(ToString::to_string));
        });

    let messages = source.map_err(|gave_up| gave_up.to_string());
    Outcome {
        messages: messages.collect().await,
        // The source is gone, and with it the publishing end: the changes come to their end.
        changes: observer.filter_map(async |change| Some(change.ok()?.1)).collect().await,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Outcome { messages, changes } = run().await;
    for message in messages {
        match message {
            Ok(number) => println!("message {number}"),
            Err(last_words) => println!("{last_words}"),
        }
    }
    println!("what the observer saw:");
    for change in changes {
        println!("  {change:?}");
    }
}
