//! Rate-limited work, by count and by bytes.
//!
//! A token bucket: the burst passes at once, the rest at the rate. Nothing is dropped; what is too
//! early waits, and the source with it, so nothing piles up either.
//!
//! Run it: `cargo run -p tidegate-flow --example rate_limited_work`

use std::time::Duration;

use futures::{StreamExt, stream};
use tidegate_flow::{FlowExt, Rate, nz};
use tokio::time::{Instant, sleep};

/// When each piece of work was let through, since the start and in order.
#[derive(Debug)]
pub struct Outcome {
    /// 30 jobs, at 20 a second and 10 at once.
    pub jobs: Vec<Duration>,
    /// Uploads of 1, 1, ½, 5 and ½ kB, at 10 kB a second and 2 kB at once.
    pub uploads: Vec<Duration>,
}

/// So many jobs a second, whatever each one takes.
async fn by_count() -> Vec<Duration> {
    let start = Instant::now();
    stream::iter(0..30)
        .rate_limit(Rate::per_second(nz!(20)), nz!(10))
        // The limit says how often a job starts; this says how many may be at work at a time.
        .concurrent_map(nz!(4), move |job| async move {
            let started = start.elapsed();
            sleep(Duration::from_millis(job % 7)).await; // the work
            started
        })
        .collect()
        .await
}

/// So many bytes a second, in pieces of any size.
async fn by_bytes() -> Vec<Duration> {
    let start = Instant::now();
    let uploads = [1_000, 1_000, 500, 5_000, 500].map(|size| vec![0_u8; size]);
    stream::iter(uploads)
        // 5,000 bytes are more than the bucket ever holds: they pass once that many have come in.
        .rate_limit_by(Rate::per_second(nz!(10_000)), nz!(2_000), |upload| upload.len() as u64)
        .map(|_| start.elapsed())
        .collect()
        .await
}

/// Does the work, twice.
pub async fn run() -> Outcome {
    Outcome { jobs: by_count().await, uploads: by_bytes().await }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Outcome { jobs, uploads } = run().await;
    let ms = |times: &[Duration]| times.iter().map(Duration::as_millis).collect::<Vec<_>>();
    println!("30 jobs, 20 a second and 10 at once, in ms since the start:");
    println!("  {:?}", ms(&jobs));
    println!("1, 1, ½, 5 and ½ kB, 10 kB a second and 2 kB at once, in ms since the start:");
    println!("  {:?}", ms(&uploads));
}
