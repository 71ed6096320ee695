//! Fan-out with a slow consumer, once with each policy.
//!
//! A sensor is read every 10 ms. A quick consumer keeps up; beside it, a slow one takes 35 ms for a
//! reading and has room for four. Its policy says who pays for that: everybody (`Block`), or it
//! alone, with readings (`DropNewest`, `DropOldest`) or with its place (`Disconnect`). What is lost
//! is counted.
//!
//! Run it: `cargo run -p tidegate-flow --example slow_consumer`

use std::time::Duration;

use futures::{StreamExt, stream};
use tidegate_flow::{Ended, FlowExt, WhenFull, nz};
use tokio::time::{Instant, sleep};

/// How many readings the sensor gives.
pub const READINGS: u64 = 30;

/// What happened under one policy of the slow consumer.
#[derive(Debug)]
pub struct Outcome {
    /// The policy.
    pub policy: WhenFull,
    /// How many readings the quick consumer got.
    pub quick_got: usize,
    /// When it came to its end: late where the slow consumer held up the source.
    pub quick_done: Duration,
    /// Which readings the slow consumer got.
    pub slow_got: Vec<u64>,
    /// How many it lost.
    pub slow_dropped: u64,
    /// How it ended.
    pub slow_ended: Option<Ended>,
}

/// Reads the sensor four times, with one policy after another.
pub async fn run() -> Vec<Outcome> {
    use WhenFull::{Block, Disconnect, DropNewest, DropOldest};
    stream::iter([Block, DropNewest, DropOldest, Disconnect])
        .then(with_slow_consumer)
        .collect()
        .await
}

async fn with_slow_consumer(policy: WhenFull) -> Outcome {
    let sensor = stream::iter(0..READINGS).pace(Duration::from_millis(10));
    let fan_out = sensor.fan_out();
    let quick = fan_out.handle().subscribe(nz!(4), WhenFull::Block);
    let mut slow = fan_out.handle().subscribe(nz!(4), policy);

    let start = Instant::now();
    let quick = async { (quick.count().await, start.elapsed()) };
    let slow_got = slow.by_ref().then(async |reading| {
        sleep(Duration::from_millis(35)).await; // the work
        reading
    });
    // The fan-out moves the items, so it must run beside its consumers: here, or in a task.
    let ((), (quick_got, quick_done), slow_got) = tokio::join!(fan_out, quick, slow_got.collect());
    Outcome {
        policy,
        quick_got,
        quick_done,
        slow_got,
        slow_dropped: slow.dropped(),
        slow_ended: slow.ended(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for outcome in run().await {
        let (got, done) = (outcome.quick_got, outcome.quick_done);
        let (dropped, ended) = (outcome.slow_dropped, outcome.slow_ended);
        println!("{:?}", outcome.policy);
        println!("  quick: {got} readings in {done:.0?}");
        println!("  slow:  {:?}", outcome.slow_got);
        println!("         dropped: {dropped}, ended: {ended:?}");
    }
}
