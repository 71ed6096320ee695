//! A stream that does what a test tells it, and remembers what was done to it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

/// Makes a scripted stream and the handle that feeds and watches it.
pub fn script<T>() -> (Script<T>, Scripted<T>) {
    let state = Arc::new(Mutex::new(State {
        items: VecDeque::new(),
        end: false,
        told_end: false,
        polls: 0,
        pulled: 0,
        polled_after_end: false,
        dropped: false,
        waker: None,
    }));
    (Script(Arc::clone(&state)), Scripted(state))
}

/// The test's side: adds items, ends the stream, and reads what happened to it.
#[derive(Debug)]
pub struct Script<T>(Arc<Mutex<State<T>>>);

/// The stream.
#[derive(Debug)]
pub struct Scripted<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    end: bool,
    told_end: bool,
    polls: usize,
    pulled: usize,
    polled_after_end: bool,
    dropped: bool,
    waker: Option<Waker>,
}

impl<T> Script<T> {
    /// Gives the stream one more item, and wakes whoever waits for it.
    pub fn push(&self, item: T) {
        self.change(|state| state.items.push_back(item));
    }

    /// Gives the stream many items.
    pub fn extend(&self, items: impl IntoIterator<Item = T>) {
        self.change(|state| state.items.extend(items));
    }

    /// Lets the stream end after the items it has.
    pub fn end(&self) {
        self.change(|state| state.end = true);
    }

    /// How often the stream was polled.
    pub fn polls(&self) -> usize {
        lock(&self.0).polls
    }

    /// How many items were taken from the stream.
    pub fn pulled(&self) -> usize {
        lock(&self.0).pulled
    }

    /// Whether the stream was polled after it had said that it ended.
    pub fn polled_after_end(&self) -> bool {
        lock(&self.0).polled_after_end
    }

    /// Whether the stream was dropped.
    pub fn is_dropped(&self) -> bool {
        lock(&self.0).dropped
    }

    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        let mut state = lock(&self.0);
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Stream for Scripted<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.0);
        state.polls += 1;
        state.polled_after_end |= state.told_end;
        if let Some(item) = state.items.pop_front() {
            state.pulled += 1;
            return Poll::Ready(Some(item));
        }
        if state.end {
            state.told_end = true;
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let state = lock(&self.0);
        (state.items.len(), state.end.then_some(state.items.len()))
    }
}

impl<T> Drop for Scripted<T> {
    fn drop(&mut self) {
        lock(&self.0).dropped = true;
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
