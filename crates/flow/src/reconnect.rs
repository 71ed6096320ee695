//! `Reconnect`: a stream that outlives its connections.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::backoff::{Backoff, Delays};
use crate::timer::{after, arm};

/// A connection that was up for so long is healthy, unless told otherwise.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// No wait between attempts is shorter, whatever the backoff says.
const WAIT_FLOOR: Duration = Duration::from_millis(100);

/// Connects, passes on what the connection gives, and connects again when it is lost.
///
/// See [`Reconnecting`] for the stream. `connect` is an async function from the last item's resume
/// token (`None` at first, and without [`resume_from`](Reconnecting::resume_from)) to a
/// connection: a stream of results. An `Err` of `connect`, an `Err` of the connection and its end
/// are all a lost connection.
///
/// ```
/// use std::time::Duration;
/// use futures::{StreamExt, stream};
/// use tidegate_flow::{Backoff, reconnect};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// // A server that cuts the connection after every third message.
/// let connect = |last: Option<u32>| async move {
///     let next = last.map_or(0, |last| last + 1);
///     Ok::<_, String>(stream::iter(next..next + 3).map(Ok))
/// };
/// let backoff = Backoff::exponential(Duration::from_millis(100)..=Duration::from_secs(10));
/// let messages = reconnect(connect, backoff).resume_from(|message| Some(*message));
/// let messages: Vec<_> = messages.take(8).map(|message| message.unwrap()).collect().await;
/// assert_eq!(messages, [0, 1, 2, 3, 4, 5, 6, 7]);
/// # }
/// ```
pub fn reconnect<C, Fut, S, T, E, K>(
    connect: C,
    backoff: Backoff,
) -> Reconnecting<C, Fut, S, T, E, K>
where
    C: FnMut(Option<K>) -> Fut,
    Fut: Future<Output = Result<S, E>>,
    S: Stream<Item = Result<T, E>>,
    K: Clone,
{
    let backoff = backoff.floor_at_least(WAIT_FLOOR);
    Reconnecting {
        connect,
        backoff,
        delays: backoff.delays(),
        attempts: 0,
        healthy_after: HEALTHY_AFTER,
        final_if: None,
        resume: None,
        observe: None,
        token: None,
        timer: None,
        state: State::Start,
    }
}

pin_project! {
    /// Stream for the [`reconnect`] function.
    ///
    /// Waits between attempts as the [`Backoff`] says, with a floor of at least 100 ms. The sequence of
    /// waits starts anew only after a connection that proved healthy, by having been up for a
    /// while ([`healthy_after`](Reconnecting::healthy_after)); one that is accepted and cut at once
    /// counts as one more failure, however late the consumer asks and finds out.
    ///
    /// - **Ordering**: kept within a connection; across connections, what `connect` makes of the
    ///   token decides what is repeated or missing.
    /// - **Buffering**: none.
    /// - **Cancellation**: dropping it drops the connection, or the attempt; dropping a future that
    ///   waits for the next item loses nothing.
    /// - **End, error**: errors of connections are told to
    ///   [`on_change`](Reconnecting::on_change), not passed on. When the retries are used up, or an
    ///   error is final ([`final_if`](Reconnecting::final_if)), the stream yields one [`GaveUp`]
    ///   and ends.
    /// - **Time**: waits need a tokio runtime.
    #[must_use = "streams do nothing unless polled"]
    pub struct Reconnecting<C, Fut, S, T, E, K> {
        connect: C,
        backoff: Backoff,
        delays: Delays,
        // Calls of `connect` since the last healthy connection.
        attempts: u32,
        healthy_after: Duration,
        final_if: Option<Box<dyn FnMut(&E) -> bool + Send>>,
        resume: Option<Box<dyn FnMut(&T) -> Option<K> + Send>>,
        observe: Option<Box<dyn FnMut(ConnectionState<&E>) + Send>>,
        token: Option<K>,
        #[pin]
        timer: Option<Sleep>,
        #[pin]
        state: State<Fut, S>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<Fut, S> {
        Start,
        Connecting { #[pin] attempt: Fut },
        Connected { #[pin] connection: S, up: Up },
        Waiting,
        Ended,
    }
}

/// What is known of how long a connection has been up.
#[derive(Clone, Copy, Debug)]
struct Up {
    since: Instant,
    // It gave an item long enough after that.
    healthy: bool,
    // An item was given last, not waited for: whatever comes next may have come long ago.
    away: bool,
}

impl Up {
    fn new() -> Self {
        Self { since: Instant::now(), healthy: false, away: false }
    }

    /// An item came. Once the connection is healthy, the clock is left alone.
    fn gave(&mut self, healthy_after: Duration) {
        self.healthy = self.healthy || self.since.elapsed() >= healthy_after;
        self.away = true;
    }

    /// Whether a connection that is found to be lost was healthy.
    fn was_healthy(&self, healthy_after: Duration) -> bool {
        self.healthy || (!self.away && self.since.elapsed() >= healthy_after)
    }
}

/// A change of state, told to [`Reconnecting::on_change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState<E> {
    /// `connect` was called; `attempt` counts from 1 since the last healthy connection.
    Connecting {
        /// Which attempt this is.
        attempt: u32,
    },
    /// `connect` succeeded.
    Connected,
    /// The attempt failed or the connection was lost; the next attempt is `wait` from now.
    Waiting {
        /// How long until the next attempt.
        wait: Duration,
        /// What went wrong; `None` where the connection simply ended.
        error: Option<E>,
    },
    /// No further attempt will be made.
    GaveUp {
        /// What went wrong last; `None` where the connection simply ended.
        error: Option<E>,
    },
}

impl<E> ConnectionState<E> {
    /// The same with another error: `state.map_error(ToString::to_string)` can be kept.
    pub fn map_error<F>(self, map: impl FnOnce(E) -> F) -> ConnectionState<F> {
        match self {
            Self::Connecting { attempt } => ConnectionState::Connecting { attempt },
            Self::Connected => ConnectionState::Connected,
            Self::Waiting { wait, error } => {
                ConnectionState::Waiting { wait, error: error.map(map) }
            }
            Self::GaveUp { error } => ConnectionState::GaveUp { error: error.map(map) },
        }
    }
}

/// The one error of a [`Reconnecting`] stream, before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GaveUp<E> {
    /// How many attempts were made since the last healthy connection.
    pub attempts: u32,
    /// What went wrong last; `None` where the connection simply ended.
    pub error: Option<E>,
}

impl<E: fmt::Display> fmt::Display for GaveUp<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gave up connecting after {} attempts: ", self.attempts)?;
        match &self.error {
            Some(error) => error.fmt(f),
            None => f.write_str("the connection ended"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for GaveUp<E> {}

impl<C, Fut, S, T, E, K> Reconnecting<C, Fut, S, T, E, K> {
    /// Takes the token from each item; `connect` is told the last one that was `Some`.
    pub fn resume_from(mut self, token: impl FnMut(&T) -> Option<K> + Send + 'static) -> Self {
        self.resume = Some(Box::new(token));
        self
    }

    /// Begins with this token, kept from an earlier run.
    pub fn starting_at(mut self, token: K) -> Self {
        self.token = Some(token);
        self
    }

    /// How long a connection must have been up for the waits to start anew; 5 s by default.
    pub fn healthy_after(self, up: Duration) -> Self {
        Self { healthy_after: up, ..self }
    }

    /// Gives up at once after errors of which this is true: a wrong password stays wrong.
    pub fn final_if(mut self, is_final: impl FnMut(&E) -> bool + Send + 'static) -> Self {
        self.final_if = Some(Box::new(is_final));
        self
    }

    /// Calls this at every change of state, from inside the poll that makes it.
    pub fn on_change(mut self, observe: impl FnMut(ConnectionState<&E>) + Send + 'static) -> Self {
        self.observe = Some(Box::new(observe));
        self
    }
}

impl<C, Fut, S, T, E, K> Stream for Reconnecting<C, Fut, S, T, E, K>
where
    C: FnMut(Option<K>) -> Fut,
    Fut: Future<Output = Result<S, E>>,
    S: Stream<Item = Result<T, E>>,
    K: Clone,
{
    type Item = Result<T, GaveUp<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let mut this = self.as_mut().project();
            let lost = match this.state.as_mut().project() {
                // ## Start => Connecting
                StateProj::Start => {
                    self.as_mut().begin();
                    continue;
                }
                // ## Connecting => (Connected | Waiting | Ended)
                StateProj::Connecting { attempt } => match ready!(attempt.poll(cx)) {
                    Ok(connection) => {
                        this.state.set(State::Connected { connection, up: Up::new() });
                        if let Some(observe) = this.observe {
                            observe(ConnectionState::Connected);
                        }
                        continue;
                    }
                    Err(error) => Some(error),
                },
                // ## Connected => (Connected | Waiting | Ended)
                StateProj::Connected { connection, up } => {
                    let Poll::Ready(given) = connection.poll_next(cx) else {
                        up.away = false;
                        return Poll::Pending;
                    };
                    match given {
                        Some(Ok(item)) => {
                            up.gave(*this.healthy_after);
                            if let Some(token) = this.resume.as_mut().and_then(|get| get(&item)) {
                                *this.token = Some(token);
                            }
                            return Poll::Ready(Some(Ok(item)));
                        }
                        lost => {
                            if up.was_healthy(*this.healthy_after) {
                                *this.delays = this.backoff.delays();
                                *this.attempts = 0;
                            }
                            lost.and_then(Result::err)
                        }
                    }
                }
                // ## Waiting => Connecting
                StateProj::Waiting => {
                    if let Some(timer) = this.timer.as_pin_mut() {
                        ready!(timer.poll(cx));
                    }
                    self.as_mut().begin();
                    continue;
                }
                // ## Ended => Ended
                StateProj::Ended => return Poll::Ready(None),
            };
            if let Some(gave_up) = self.as_mut().lost(lost) {
                return Poll::Ready(Some(Err(gave_up)));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.state {
            State::Ended => (0, Some(0)),
            _ => (0, None),
        }
    }
}

impl<C, Fut, S, T, E, K> Reconnecting<C, Fut, S, T, E, K>
where
    C: FnMut(Option<K>) -> Fut,
    K: Clone,
{
    fn begin(self: Pin<&mut Self>) {
        let mut this = self.project();
        let attempt = (this.connect)(this.token.clone());
        this.state.set(State::Connecting { attempt });
        *this.attempts = this.attempts.saturating_add(1);
        if let Some(observe) = this.observe {
            observe(ConnectionState::Connecting { attempt: *this.attempts });
        }
    }

    /// Sets the timer for the next attempt, or gives up.
    fn lost(self: Pin<&mut Self>, error: Option<E>) -> Option<GaveUp<E>> {
        let mut this = self.project();
        let attempts = *this.attempts;
        let is_final = match (&error, this.final_if) {
            (Some(error), Some(is_final)) => is_final(error),
            _ => false,
        };
        let wait = if is_final { None } else { this.delays.next() };
        let state = match wait {
            Some(wait) => {
                arm(this.timer.as_mut(), after(Instant::now(), wait));
                this.state.set(State::Waiting);
                ConnectionState::Waiting { wait, error: error.as_ref() }
            }
            None => {
                this.state.set(State::Ended);
                ConnectionState::GaveUp { error: error.as_ref() }
            }
        };
        if let Some(observe) = this.observe {
            observe(state);
        }
        wait.is_none().then_some(GaveUp { attempts, error })
    }
}

impl<C, Fut, S, T, E, K> FusedStream for Reconnecting<C, Fut, S, T, E, K>
where
    Self: Stream,
{
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

impl<C, Fut, S, T, E, K> fmt::Debug for Reconnecting<C, Fut, S, T, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Start => "start",
            State::Connecting { .. } => "connecting",
            State::Connected { .. } => "connected",
            State::Waiting => "waiting",
            State::Ended => "ended",
        };
        let mut debug = f.debug_struct("Reconnecting");
        debug.field("state", &state).field("backoff", &self.backoff).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::{StreamExt, stream};

    use super::*;

    const FLOOR: Duration = Duration::from_millis(100);
    const CEILING: Duration = Duration::from_secs(3);

    fn backoff() -> Backoff {
        Backoff::exponential(FLOOR..=CEILING).without_jitter()
    }

    type Connection = stream::BoxStream<'static, Result<u32, &'static str>>;

    /// Runs against a script of connections, `None` being refused; gives the waits in between.
    async fn waits(script: Vec<Option<Connection>>, backoff: Backoff) -> Vec<u64> {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&waits);
        let mut script = script.into_iter();
        let stream = reconnect(
            move |_: Option<()>| {
                let connection = script.next();
                async move { connection.ok_or("no more")?.ok_or("refused") }
            },
            backoff,
        );
        let stream = stream.final_if(|error| *error == "no more").on_change(move |state| {
            if let ConnectionState::Waiting { wait, .. } = state {
                seen.lock().unwrap().push(wait.as_millis() as u64);
            }
        });
        stream.collect::<Vec<_>>().await;
        let waits = waits.lock().unwrap();
        waits.clone()
    }

    fn cut_at_once() -> Option<Connection> {
        Some(stream::iter([Ok(1), Err("cut")]).boxed())
    }

    fn cut_after(up: Duration) -> Option<Connection> {
        let cut = async move {
            tokio::time::sleep(up).await;
            Err("cut")
        };
        Some(stream::once(cut).boxed())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_start_anew_only_after_a_healthy_connection() {
        let script = vec![None, cut_at_once(), cut_after(HEALTHY_AFTER / 2), None, None, None];
        assert_eq!(waits(script, backoff()).await, [100, 200, 400, 800, 1600, 3000]);
        let script = vec![None, None, None, cut_after(HEALTHY_AFTER), None];
        assert_eq!(waits(script, backoff()).await, [100, 200, 400, 100, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_is_away_makes_no_connection_healthy() {
        let connect = |_: Option<()>| std::future::ready(Ok(cut_at_once().unwrap()));
        let mut stream = Box::pin(reconnect(connect, backoff().retries(3)));
        for _ in 0..4 {
            assert_eq!(stream.next().await, Some(Ok(1)));
            tokio::time::sleep(HEALTHY_AFTER * 2).await;
        }
        assert_eq!(stream.next().await, Some(Err(GaveUp { attempts: 4, error: Some("cut") })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_lets_wait_is_healthy_too() {
        let busy = stream::iter((0..8).map(Ok).chain([Err("cut")])).boxed();
        let mut script = vec![Some(busy)].into_iter();
        let connect = move |_: Option<()>| std::future::ready(script.next().flatten().ok_or("no"));
        let mut stream = Box::pin(reconnect(connect, backoff().retries(1)));
        for expected in 0..8 {
            assert_eq!(stream.next().await, Some(Ok(expected)));
            tokio::time::sleep(HEALTHY_AFTER / 4).await;
        }
        assert_eq!(stream.next().await, Some(Err(GaveUp { attempts: 1, error: Some("no") })));
    }

    #[tokio::test(start_paused = true)]
    async fn no_wait_is_below_the_floor_and_from_there_they_grow() {
        let script = || (0..200).map(|_| cut_at_once()).collect();
        for low in [Duration::ZERO, Duration::from_millis(1)] {
            let jittered = waits(script(), Backoff::exponential(low..=CEILING)).await;
            assert!(jittered.len() == 200 && jittered.iter().all(|w| (100..=3000).contains(w)));
            assert!(jittered.iter().any(|wait| *wait > 2000), "{jittered:?}");
            let plain = waits(script(), Backoff::exponential(low..=CEILING).without_jitter()).await;
            assert_eq!(plain[..6], [100, 200, 400, 800, 1600, 3000]);
        }
        assert!(waits(script(), Backoff::constant(Duration::ZERO)).await.iter().all(|w| *w == 100));
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_when_the_retries_are_used_up() {
        let connect = |_: Option<()>| async { Err::<Connection, _>("refused") };
        let mut stream = Box::pin(reconnect(connect, backoff().retries(2)));
        let gave_up = stream.next().await.unwrap().unwrap_err();
        assert_eq!(gave_up, GaveUp { attempts: 3, error: Some("refused") });
        assert_eq!(gave_up.to_string(), "gave up connecting after 3 attempts: refused");
        assert_eq!(stream.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_count_from_the_last_healthy_connection() {
        let mut script = vec![cut_after(HEALTHY_AFTER)].into_iter();
        let connect = move |_: Option<()>| std::future::ready(script.next().flatten().ok_or("no"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let states = Arc::clone(&seen);
        let stream = reconnect(connect, backoff().retries(2)).on_change(move |state| {
            states.lock().unwrap().push(state.map_error(|error| *error));
        });
        let gave_up = GaveUp { attempts: 2, error: Some("no") };
        assert_eq!(stream.collect::<Vec<_>>().await, [Err(gave_up)]);
        use ConnectionState::{Connected, Connecting, GaveUp as Over, Waiting};
        let waiting = |ms, error| Waiting { wait: Duration::from_millis(ms), error: Some(error) };
        let expected = [
            Connecting { attempt: 1 },
            Connected,
            waiting(100, "cut"),
            Connecting { attempt: 1 },
            waiting(200, "no"),
            Connecting { attempt: 2 },
            Over { error: Some("no") },
        ];
        assert_eq!(*seen.lock().unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_cuts_lose_and_repeat_nothing() {
        let connect = |last: Option<u32>| async move {
            let next = last.map_or(0, |last| last + 1);
            let rest = (next..10_000).take(200).map(Ok).chain([Err("cut")]);
            Ok(stream::iter(rest))
        };
        let stream = reconnect(connect, backoff()).resume_from(|item| Some(*item));
        let seen: Vec<_> = stream.take(10_000).map(Result::unwrap).collect().await;
        assert!(seen.into_iter().eq(0..10_000));
    }
}
