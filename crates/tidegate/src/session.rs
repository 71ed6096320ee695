//! A run from its start to its end: signals heard, and the status shown each second.

use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::Duration;

use tidegate::engine::{Failure, Pipeline, RunOptions, Running, Snapshot, Summary};
use tidegate::model::ErrorKind;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::failed::Failed;
use crate::screen::Screen;

/// How often the status is shown.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Runs a command's future on a runtime of its own, of so many threads or as many as there are
/// processors, and leaves without waiting for what may never
/// end, such as a read from a terminal.
pub(crate) fn block_on(
    threads: Option<NonZeroUsize>,
    command: impl Future<Output = Result<(), Failed>>,
) -> Result<(), Failed> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads.get());
    }
    let runtime = runtime.enable_all().build();
    let runtime = runtime.map_err(|error| Failed::data(format!("can't start: {error}")))?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}

/// The signals that end a run: Ctrl-C, and what service managers and `kill` send.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on these signals don't end the process.
    pub(crate) fn listen() -> Result<Self, Failed> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failed::data(format!("can't listen to signals: {error}")))
        };
        let (interrupt, terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Starts a pipeline; `None` where a signal came before all its sources knew their columns. Nothing
/// was read then.
pub(crate) async fn start(
    pipeline: Pipeline,
    options: RunOptions,
    signals: &mut Signals,
) -> Result<Option<Running>, Failed> {
    tokio::select! {
        started = pipeline.start(options) => match started {
            Ok(running) => Ok(Some(running)),
            Err(error) if error.kind() == ErrorKind::Invalid => Err(Failed::invalid(error)),
            Err(error) => Err(Failed::data(error)),
        },
        () = signals.next() => Ok(None),
    }
}

/// How a run went.
pub(crate) struct Ended {
    /// The last numbers, and whether all is well.
    pub(crate) outcome: Result<Summary, Box<Failure>>,
    /// Whether a signal ended it.
    pub(crate) stopped: bool,
}

/// Watches a pipeline until it ends, and shows what `status` makes of the last second. The first
/// signal, or the end of `time`, drains it; the second signal stops it at once.
pub(crate) async fn watch(
    running: Running,
    signals: &mut Signals,
    screen: &Screen,
    time: Option<Duration>,
    status: impl Fn(&Snapshot, &Snapshot) -> String,
) -> Result<Ended, Failed> {
    let handle = running.handle();
    let mut before = handle.snapshot();
    let mut finished = pin!(running.finish());
    let mut over = pin!(async {
        match time {
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    });
    let mut seconds = interval(STATUS_INTERVAL);
    // A status of no time would show wild rates.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    seconds.tick().await;
    let (mut is_over, mut heard) = (false, 0);
    loop {
        tokio::select! {
            outcome = &mut finished => {
                screen.close();
                return Ok(Ended { outcome: outcome.map_err(Box::new), stopped: heard > 0 });
            }
            () = &mut over, if !is_over => {
                is_over = true;
                handle.stop();
            }
            () = signals.next() => {
                heard += 1;
                match heard {
                    1 => {
                        tracing::info!("stopping when all that was read is delivered; again: at once");
                        handle.stop();
                    }
                    2 => handle.abort(),
                    _ => {
                        screen.close();
                        return Err(Failed::data("stopped before anything could be tidied up"));
                    }
                }
            }
            _ = seconds.tick() => {
                let now = handle.snapshot();
                screen.status(&status(&before, &now));
                before = now;
            }
        }
    }
}
