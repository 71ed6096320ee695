//! Work that blocks on a disk or a pipe, where it holds nobody up.

use tidegate_model::{Error, Result};
use tokio::task::spawn_blocking;

/// Runs work on a state and waits for it. Dropped meanwhile, the work goes on to its end and is
/// forgotten, and the state with it.
///
/// # Errors
///
/// Where the runtime is shut down.
pub(crate) async fn blocking<S: Send + 'static, T: Send + 'static>(
    mut state: S,
    work: impl FnOnce(&mut S) -> T + Send + 'static,
) -> Result<(S, T)> {
    let done = spawn_blocking(move || {
        let done = work(&mut state);
        (state, done)
    });
    done.await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Error::fatal("the work was stopped with the program").because(error),
    })
}
