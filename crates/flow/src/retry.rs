//! `retry`: fallible work on each item, tried again under a policy.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream, TryStream};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::backoff::{Backoff, Delays};
use crate::timer::{after, arm};

pin_project! {
    /// Stream for the [`retry`](crate::FlowExt::retry) method.
    ///
    /// Runs the work on one item at a time. The future that `work` returns can't borrow the item:
    /// clone what it needs, or put an `Arc` in the stream. Where it fails, it waits as the [`Backoff`] says and
    /// runs it again on the same item. Once no retry is left, or the error is not one of those
    /// [`only_if`](Retry::only_if) names, the error is passed on and the next item follows, unless
    /// [`fallback`](Retry::fallback) or [`end_on_failure`](Retry::end_on_failure) says otherwise.
    ///
    /// - **Ordering**: kept.
    /// - **Buffering**: one item, the one being worked on.
    /// - **Cancellation**: dropping it drops the attempt that runs, and its item; dropping a future
    ///   that waits for the next result loses nothing.
    /// - **End, error**: an error of the source is passed on untried, and is no end.
    /// - **Time**: waits need a tokio runtime.
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures::{StreamExt, stream};
    /// use tidegate_flow::{Backoff, FlowExt};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let mut calls = 0;
    /// let answers = stream::iter([Ok("up"), Ok("down"), Err("read error")])
    ///     .retry(Backoff::constant(Duration::from_secs(1)).retries(2), |host| {
    ///         calls += 1;
    ///         let up = *host == "up" && calls == 3; // it comes up at the third call
    ///         async move { if up { Ok("hello") } else { Err("refused") } }
    ///     })
    ///     .fallback(|host, error| if host == "down" { Ok("(no answer)") } else { Err(error) });
    /// let answers: Vec<_> = answers.collect().await;
    /// assert_eq!(answers, [Ok("hello"), Ok("(no answer)"), Err("read error")]);
    /// assert_eq!(calls, 3 + 3);
    /// # }
    /// ```
    #[must_use = "streams do nothing unless polled"]
    pub struct Retry<S: TryStream, F, Fut, U> {
        #[pin]
        source: S,
        #[pin]
        state: State<Fut>,
        #[pin]
        timer: Option<Sleep>,
        backoff: Backoff,
        work: F,
        only_if: Option<Box<dyn FnMut(&S::Error) -> bool + Send>>,
        given_up: GivenUp<S::Ok, U, S::Error>,
        // While an attempt runs or is waited for; the waits once it has failed.
        item: Option<S::Ok>,
        delays: Option<Delays>,
        ended: bool,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<Fut> {
        Idle,
        Working { #[pin] attempt: Fut },
        Waiting,
    }
}

type Fallback<T, U, E> = Box<dyn FnMut(T, E) -> Result<U, E> + Send>;

enum GivenUp<T, U, E> {
    PassOn,
    End,
    Replace(Fallback<T, U, E>),
}

impl<S, F, Fut, U> Retry<S, F, Fut, U>
where
    S: TryStream,
    F: FnMut(&S::Ok) -> Fut,
    Fut: Future<Output = Result<U, S::Error>>,
{
    pub(crate) fn new(source: S, backoff: Backoff, work: F) -> Self {
        Self {
            source,
            state: State::Idle,
            timer: None,
            backoff,
            work,
            only_if: None,
            given_up: GivenUp::PassOn,
            item: None,
            delays: None,
            ended: false,
        }
    }

    /// Tries again only after errors of which this is true; others are final at once.
    pub fn only_if(mut self, retryable: impl FnMut(&S::Error) -> bool + Send + 'static) -> Self {
        self.only_if = Some(Box::new(retryable));
        self
    }

    /// Puts something else in the place of what failed for good: a value, or another error.
    pub fn fallback(
        mut self,
        replace: impl FnMut(S::Ok, S::Error) -> Result<U, S::Error> + Send + 'static,
    ) -> Self {
        self.given_up = GivenUp::Replace(Box::new(replace));
        self
    }

    /// Ends the stream after the first error that is passed on for good.
    pub fn end_on_failure(mut self) -> Self {
        self.given_up = GivenUp::End;
        self
    }
}

impl<S, F, Fut, U> Stream for Retry<S, F, Fut, U>
where
    S: TryStream + Stream<Item = Result<<S as TryStream>::Ok, <S as TryStream>::Error>>,
    F: FnMut(&S::Ok) -> Fut,
    Fut: Future<Output = Result<U, S::Error>>,
{
    type Item = Result<U, S::Error>;

    /// Idle => (Idle | Working) => (Idle | Waiting) => Working
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                // ## Idle => (Idle | Working)
                StateProj::Idle => {
                    if *this.ended {
                        return Poll::Ready(None);
                    }
                    match ready!(this.source.as_mut().poll_next(cx)) {
                        Some(Ok(item)) => {
                            let attempt = (this.work)(&item);
                            *this.item = Some(item);
                            *this.delays = None;
                            this.state.set(State::Working { attempt });
                        }
                        Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                        None => *this.ended = true,
                    }
                }
                // ## Working => (Idle | Waiting)
                StateProj::Working { attempt } => {
                    let result = ready!(attempt.poll(cx));
                    this.state.set(State::Idle);
                    let Some(item) = this.item.take() else { continue };
                    let error = match result {
                        Ok(output) => return Poll::Ready(Some(Ok(output))),
                        Err(error) => error,
                    };
                    let retryable = this.only_if.as_mut().is_none_or(|only_if| only_if(&error));
                    let delays = this.delays.get_or_insert_with(|| this.backoff.delays());
                    if retryable && let Some(wait) = delays.next() {
                        arm(this.timer.as_mut(), after(Instant::now(), wait));
                        *this.item = Some(item);
                        this.state.set(State::Waiting);
                        continue;
                    }
                    return Poll::Ready(Some(match this.given_up {
                        GivenUp::PassOn => Err(error),
                        GivenUp::Replace(replace) => replace(item, error),
                        GivenUp::End => {
                            *this.ended = true;
                            Err(error)
                        }
                    }));
                }
                // ## Waiting => Working
                StateProj::Waiting => {
                    if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                        ready!(timer.poll(cx));
                    }
                    let Some(item) = this.item else { continue };
                    let attempt = (this.work)(item);
                    this.state.set(State::Working { attempt });
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let held = usize::from(self.item.is_some());
        let (lower, upper) = if self.ended { (0, Some(0)) } else { self.source.size_hint() };
        let lower = lower.saturating_add(held);
        // The next one may be the last.
        let lower = if matches!(self.given_up, GivenUp::End) { lower.min(1) } else { lower };
        (lower, upper.and_then(|upper| upper.checked_add(held)))
    }
}

impl<S, F, Fut, U> FusedStream for Retry<S, F, Fut, U>
where
    Self: Stream,
    S: TryStream,
{
    fn is_terminated(&self) -> bool {
        self.ended && self.item.is_none()
    }
}

impl<S: TryStream, F, Fut, U> fmt::Debug for Retry<S, F, Fut, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backoff, ended, item, .. } = self;
        let working = item.is_some();
        let mut debug = f.debug_struct("Retry");
        debug.field("backoff", backoff).field("working", &working).field("ended", ended);
        debug.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{StreamExt, stream};

    use super::*;
    use crate::FlowExt;

    const SECOND: Duration = Duration::from_secs(1);

    async fn refuse(_: &str) -> Result<(), &'static str> {
        Err("refused")
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_as_the_backoff_says_and_starts_anew_for_each_item() {
        let start = Instant::now();
        let backoff = Backoff::exponential(SECOND..=SECOND * 60).without_jitter().retries(3);
        let items = stream::iter([Ok("a"), Ok("b")]);
        let ends: Vec<_> =
            items.retry(backoff, |_| refuse("")).map(|_| start.elapsed().as_secs()).collect().await;
        assert_eq!(ends, [1 + 2 + 4, 2 * (1 + 2 + 4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_is_not_named_is_final_at_once() {
        let mut calls = 0;
        let items = stream::iter([Ok("broken"), Ok("busy")]);
        let results = items.retry(Backoff::constant(SECOND).retries(4), |item| {
            calls += 1;
            let error = *item;
            async move { Err::<(), _>(error) }
        });
        let results: Vec<_> = results.only_if(|error| *error == "busy").collect().await;
        assert_eq!((results, calls), (vec![Err("broken"), Err("busy")], 1 + 5));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_told_to() {
        let items = stream::iter([Ok(1), Ok(2), Ok(3)]);
        let half = items.retry(Backoff::default().retries(1), |item| {
            let result = if *item == 2 { Err("two") } else { Ok(*item) };
            async move { result }
        });
        let mut half = Box::pin(half.end_on_failure());
        assert_eq!(half.size_hint(), (1, Some(3)));
        assert_eq!(half.by_ref().collect::<Vec<_>>().await, [Ok(1), Err("two")]);
        assert!(half.is_terminated());
        assert_eq!(half.next().await, None);
    }

    #[tokio::test]
    async fn the_item_at_work_may_be_the_last() {
        let items = stream::iter([Ok(1), Ok(2), Ok(3)]);
        let failing = items.retry(Backoff::default().retries(0), |_| async {
            tokio::task::yield_now().await;
            Err::<(), _>("one")
        });
        let mut failing = Box::pin(failing.end_on_failure());
        assert!(futures::poll!(failing.next()).is_pending());
        assert_eq!(failing.size_hint(), (1, Some(3)));
        assert_eq!(failing.count().await, 1);
    }
}
