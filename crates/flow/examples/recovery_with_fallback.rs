//! Retry with backoff, then a fallback.
//!
//! Temperatures are asked of a service that is sometimes busy. Busy is worth another try, after a
//! wait that grows; when the tries are used up, the last known value does. A wrong name is not
//! worth another try, and has no fallback: the caller is told.
//!
//! Run it: `cargo run -p tidegate-flow --example recovery_with_fallback`

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use tidegate_flow::{Backoff, FlowExt};

/// A temperature, and how good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// As the service says.
    Fresh(i32),
    /// As it was when the service last answered.
    LastKnown(i32),
}

/// Why the service gave no temperature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many requests: it may work later.
    Busy,
    /// There is no such city, and there will be none.
    UnknownCity,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the service is busy",
            Self::UnknownCity => "no such city",
        })
    }
}

impl Error for Refusal {}

/// What came of the questions.
#[derive(Debug)]
pub struct Outcome {
    /// An answer for each of Oslo, Rome, Pompei and Cairo.
    pub answers: Vec<Result<Temperature, Refusal>>,
    /// How often the service was asked.
    pub calls: u32,
}

/// Fine in Oslo, busy the first two times it is asked about Rome, always busy about Cairo.
#[derive(Debug, Default)]
struct Service {
    calls: AtomicU32,
    calls_for_rome: AtomicU32,
}

impl Service {
    async fn temperature(&self, city: &str) -> Result<Temperature, Refusal> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match city {
            "Oslo" => Ok(Temperature::Fresh(-3)),
            "Rome" if self.calls_for_rome.fetch_add(1, Ordering::Relaxed) < 2 => Err(Refusal::Busy),
            "Rome" => Ok(Temperature::Fresh(17)),
            "Cairo" => Err(Refusal::Busy),
            _ => Err(Refusal::UnknownCity),
        }
    }
}

/// Asks about four cities.
pub async fn run() -> Outcome {
    let service = Service::default();
    let last_known = BTreeMap::from([("Rome", 15), ("Cairo", 31)]);

    // Four tries; the waits between them are drawn from 20 ms up to 20, 40 and 80 ms, so that
    // clients which failed together don't come back together.
    let waits = Duration::from_millis(20)..=Duration::from_millis(500);
    let backoff = Backoff::exponential(waits).retries(3);

    let answers = stream::iter(["Oslo", "Rome", "Pompei", "Cairo"])
        .map(Ok)
        .retry(backoff, |city| service.temperature(city))
        .only_if(|refusal| *refusal == Refusal::Busy)
        .fallback(move |city, refusal| match (refusal, last_known.get(city)) {
            (Refusal::Busy, Some(known)) => Ok(Temperature::LastKnown(*known)),
            _ => Err(refusal),
        })
        .collect()
        .await;
    let calls = service.calls.load(Ordering::Relaxed);
    Outcome { answers, calls }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Outcome { answers, calls } = run().await;
    for answer in answers {
        match answer {
            Ok(temperature) => println!("{temperature:?}"),
            Err(refusal) => println!("no answer: {refusal}"),
        }
    }
    println!("the service was asked {calls} times");
}
