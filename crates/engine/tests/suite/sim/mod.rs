//! The engine under a simulated clock: random graphs, tiny budgets, random stalls, drops, errors and
//! crashes, from a seed. What arrives is compared with a plain model of the graph; a graph that
//! stands still is found because time then jumps to the end.
//!
//! `TIDEGATE_SIM_SEED=n` runs one seed again, `TIDEGATE_SIM_SEEDS=n` so many.

mod components;
mod graph;
mod model;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_engine::{RunOptions, Store};
use tidegate_flow::Backoff;
use tokio::time::timeout;

use components::World;
use graph::Plan;

/// Seeds of a plain run; `cargo xtask test` runs more.
const SEEDS: u64 = 300;
/// Virtual time after which a run stands still.
const STANDSTILL: Duration = Duration::from_secs(24 * 3_600);

#[test]
fn every_graph_delivers_what_the_model_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        return simulate(seed);
    }
    let seeds = number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failed = std::thread::scope(|scope| {
        let worlds = || {
            let mut seed = next.fetch_add(1, Ordering::Relaxed);
            while seed < seeds {
                let ran = std::panic::catch_unwind(|| simulate(seed));
                if ran.is_err() {
                    next.store(seeds, Ordering::Relaxed);
                    return Some(seed);
                }
                seed = next.fetch_add(1, Ordering::Relaxed);
            }
            None
        };
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(worlds)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).min()
    });
    assert_eq!(failed, None, "run it again with TIDEGATE_SIM_SEED set to the seed");
}

/// One world: runs that crash, stop or fail, and a last one that must come to its end.
fn simulate(seed: u64) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut random = fastrand::Rng::with_seed(seed);
        let plan = Plan::random(&mut random);
        let world = World::new(&plan, seed);
        let store = Store::in_memory().unwrap();
        for crash in (0..random.u32(0..4)).rev() {
            run(&plan, &world, &store, &mut random, crash > 0).await;
        }
        world.heal();
        let running = plan.pipeline(&world).start(options(&store, seed)).await.unwrap();
        let finished = timeout(STANDSTILL, running.finish()).await;
        let summary = finished.unwrap_or_else(|_| panic!("it stands still: {plan:#?}"));
        let summary = summary.unwrap_or_else(|failure| panic!("{}: {plan:#?}", failure.error));
        model::check(&plan, &world, &summary.snapshot);
    });
}

fn options(store: &Store, seed: u64) -> RunOptions {
    RunOptions {
        once: true,
        workers: NonZeroUsize::MIN,
        backoff: Backoff::default().seed(seed),
        store: Some(store.clone()),
    }
}

/// A run that may be cut short in any way.
async fn run(plan: &Plan, world: &World, store: &Store, random: &mut fastrand::Rng, crash: bool) {
    let running = plan.pipeline(world).start(options(store, random.u64(..))).await.unwrap();
    let handle = running.handle();
    let time = Duration::from_millis(random.u64(0..20_000));
    if crash {
        let _ = timeout(time, running.finish()).await; // dropped where it is late
    } else {
        let stopping = async {
            tokio::time::sleep(time).await;
            handle.stop();
            std::future::pending::<()>().await;
        };
        let mut finishing = std::pin::pin!(running.finish());
        tokio::select! {
            biased;
            _ = &mut finishing => {}
            () = stopping => {}
            () = tokio::time::sleep(STANDSTILL) => panic!("it does not stop: {plan:#?}"),
        }
    }
    // Tasks that were aborted are gone once they had their turn.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
