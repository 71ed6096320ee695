//! Silence, pauses, messages that take too long: what a connection's clock says.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::{Failure, Options};

/// Told what happens, and asked only where all that came was read: so an answer that waits in the
/// kernel because nobody read it is never taken for silence.
#[derive(Debug)]
pub(super) struct Clock {
    timer: Option<Pin<Box<Sleep>>>,
    /// When something was read last.
    heard: Instant,
    /// When the peer was asked whether it is there, if it has said nothing since.
    asked: Option<Instant>,
    /// When something was given last, if nobody asked for more since.
    given: Option<Instant>,
    /// When the rest of a message began to be waited for.
    message: Option<Instant>,
    pauses: u64,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask whether the peer is there.
    Ping,
}

impl Clock {
    pub(super) fn new() -> Self {
        let heard = Instant::now();
        Self { timer: None, heard, asked: None, given: None, message: None, pauses: 0 }
    }

    pub(super) fn pauses(&self) -> u64 {
        self.pauses
    }

    /// Someone asks for more.
    pub(super) fn back(&mut self, options: &Options) {
        let since = match (self.given.take(), &self.timer) {
            (Some(given), _) => given,
            (None, Some(timer)) if timer.is_elapsed() => timer.deadline(),
            _ => return,
        };
        // One pause is not counted again before the clock is looked at.
        self.timer = self.timer.take().filter(|timer| !timer.is_elapsed());
        let away = since.elapsed();
        if away >= options.pause_min {
            self.pauses += 1;
        }
        if let Some(began) = &mut self.message {
            *began += away;
        }
    }

    /// Something was given, and it is up to others to ask for more.
    pub(super) fn gave(&mut self) {
        self.given = Some(Instant::now());
    }

    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
        self.asked = None;
    }

    pub(super) fn asked(&mut self) {
        self.asked = Some(Instant::now());
    }

    pub(super) fn message_begins(&mut self) {
        self.message.get_or_insert_with(Instant::now);
    }

    pub(super) fn message_ends(&mut self) {
        self.message = None;
    }

    /// Waits until there is something to do, where nothing is left to be read.
    pub(super) fn poll(
        &mut self,
        options: &Options,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Due, Failure>> {
        loop {
            let now = Instant::now();
            let late = self.message.map(|began| began + options.message_timeout);
            if late.is_some_and(|late| late <= now) {
                return Poll::Ready(Err(Failure::Slow(options.message_timeout)));
            }
            let quiet = options.ping_interval.map(|time| self.asked.unwrap_or(self.heard) + time);
            if quiet.is_some_and(|quiet| quiet <= now) {
                return Poll::Ready(match self.asked {
                    Some(_) => Err(Failure::Silent(now - self.heard)),
                    None => Ok(Due::Ping),
                });
            }
            let Some(due) = [late, quiet].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            ready!(self.poll_until(due, cx));
        }
    }

    /// As this is asked often, the timer is left alone while it goes off in time.
    fn poll_until(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.is_elapsed() || timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }

    /// Waits for the end of a connection.
    pub(super) fn poll_close(&mut self, wait: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let due = *self.message.get_or_insert_with(Instant::now) + wait;
        match due <= Instant::now() {
            true => Poll::Ready(()),
            false => self.poll_until(due, cx),
        }
    }
}
