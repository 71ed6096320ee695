//! A range and the Fibonacci numbers as streams: by hand (`impl Stream`) and with `async-stream`.
//!
//! Both ways give the same items, and every operator takes either. By hand, each poll says what to
//! remember until the next one; `stream!` remembers it for you, and may `.await` in between.
//!
//! Run it: `cargo run -p tidegate-flow --example ranges_and_fibonacci`

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_stream::stream;
use futures::{Stream, StreamExt};
use tidegate_flow::{BatchLimits, FlowExt, nz};

/// The numbers of a range, by hand.
#[derive(Debug)]
pub struct Counting(Range<u64>);

impl Stream for Counting {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
        // Never `Pending`, so there is no waker to keep: whoever says `Pending` must wake later.
        Poll::Ready(self.0.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// The numbers of a range, with `async-stream`.
pub fn counting(range: Range<u64>) -> impl Stream<Item = u64> {
    stream! {
        for number in range {
            yield number;
        }
    }
}

/// The Fibonacci numbers that fit a `u64`, by hand.
#[derive(Debug)]
pub struct Fibonacci {
    current: Option<u64>,
    next: Option<u64>,
}

impl Default for Fibonacci {
    fn default() -> Self {
        Self { current: Some(0), next: Some(1) }
    }
}

impl Stream for Fibonacci {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
        let Some(current) = self.current else {
            return Poll::Ready(None);
        };
        self.current = self.next;
        self.next = self.next.and_then(|next| current.checked_add(next));
        Poll::Ready(Some(current))
    }
}

/// The Fibonacci numbers that fit a `u64`, with `async-stream`.
pub fn fibonacci() -> impl Stream<Item = u64> {
    stream! {
        let (mut current, mut next) = (0_u64, Some(1));
        yield current;
        while let Some(number) = next {
            yield number;
            next = current.checked_add(number);
            current = number;
        }
    }
}

/// One stream, written in two ways.
#[derive(Debug, PartialEq, Eq)]
pub struct BothWays<T> {
    /// What the `impl Stream` gave.
    pub by_hand: T,
    /// What the `stream!` block gave.
    pub with_async_stream: T,
}

/// What came out of the streams.
#[derive(Debug)]
pub struct Outcome {
    /// The range, in batches of four.
    pub range: BothWays<Vec<Vec<u64>>>,
    /// The Fibonacci numbers, to the last one.
    pub fibonacci: BothWays<Vec<u64>>,
}

/// Runs the streams to their end.
pub async fn run() -> Outcome {
    let four = BatchLimits::rows(nz!(4));
    Outcome {
        range: BothWays {
            by_hand: Counting(0..10).batch(four).collect().await,
            with_async_stream: counting(0..10).batch(four).collect().await,
        },
        fibonacci: BothWays {
            by_hand: Fibonacci::default().collect().await,
            with_async_stream: fibonacci().collect().await,
        },
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Outcome { range, fibonacci } = run().await;
    println!("0..10, in batches of four: {:?}", range.by_hand);
    println!("with async-stream, the same: {}", range.by_hand == range.with_async_stream);
    let numbers = &fibonacci.by_hand;
    let (first, last) = (&numbers[..10], numbers.last().copied().unwrap_or_default());
    println!("Fibonacci: {first:?} … {last}, {} that fit a u64", numbers.len());
    println!("with async-stream, the same: {}", *numbers == fibonacci.with_async_stream);
}
