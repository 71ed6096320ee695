//! The table of operators that the contract runs through: a new operator is a row here.

use std::num::NonZeroUsize;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tidegate_flow::{
    Backoff, BatchLimits, ByteBudget, FairMerge, FlowExt, Merged, Rate, Replay, WhenFull, nz,
    reconnect,
};
use tidegate_testkit::script::Scripted;

/// An operator over a scripted stream; each of its outputs is told as the items in it.
pub(crate) struct Operator {
    pub(crate) name: &'static str,
    /// How many items it may have pulled and not yet handed out.
    pub(crate) buffer: usize,
    /// Whether it pulls nothing before it is polled itself.
    pub(crate) lazy: bool,
    /// How many items make an output.
    pub(crate) unit: usize,
    pub(crate) build: fn(Scripted<u32>) -> Outputs,
}

pub(crate) type Outputs = BoxStream<'static, Vec<u32>>;

const fn inline(name: &'static str, build: fn(Scripted<u32>) -> Outputs) -> Operator {
    Operator { name, buffer: 0, lazy: true, unit: 1, build }
}

pub(crate) const OPERATORS: &[Operator] = &[
    inline("pace", |source| one(source.pace(Duration::from_millis(1)))),
    Operator {
        buffer: 1,
        ..inline("rate_limit", |source| one(source.rate_limit(Rate::per_second(nz!(50)), nz!(2))))
    },
    Operator {
        buffer: 1,
        ..inline("rate_limit_by", |source| {
            one(source.rate_limit_by(Rate::per_second(nz!(500)), nz!(5), |item| (*item).into()))
        })
    },
    Operator {
        buffer: 3,
        unit: 3,
        ..inline("batch", |source| {
            source.batch(BatchLimits::rows(nz!(3)).age(Duration::from_secs(3600))).boxed()
        })
    },
    Operator {
        buffer: 3,
        unit: 3,
        ..inline("batch", |source| {
            // The item that does not fit begins the next batch.
            let limits = BatchLimits::rows(NonZeroUsize::MAX).bytes(30, |_: &u32| 10);
            source.batch(limits).boxed()
        })
    },
    Operator {
        buffer: 4 + 1,
        ..inline("adaptive_buffer", |source| one(source.adaptive_buffer(nz!(1)..=nz!(4))))
    },
    inline("in_flight_limit", |source| {
        one(source.in_flight_limit(nz!(2)).map(|guard| guard.into_parts().0))
    }),
    Operator {
        buffer: 1,
        ..inline("retry", |source| {
            let mut failed = false;
            let retried = source.map(Ok::<_, ()>).retry(Backoff::default(), move |item| {
                failed = !failed; // every item fails once
                let result = if failed { Err(()) } else { Ok(*item) };
                async move { result }
            });
            one(retried.filter_map(|result| async move { result.ok() }))
        })
    },
    Operator {
        buffer: 3,
        ..inline("concurrent_map", |source| one(source.concurrent_map(nz!(3), nap)))
    },
    Operator {
        buffer: 3,
        ..inline("concurrent_map_unordered", |source| {
            one(source.concurrent_map_unordered(nz!(3), nap))
        })
    },
    Operator {
        // The consumer's capacity, and the item in hand.
        buffer: 2 + 1,
        lazy: false,
        ..inline("fan_out", |source| {
            let fan_out = source.fan_out();
            let consumer = fan_out.handle().subscribe(nz!(2), WhenFull::Block);
            tokio::spawn(fan_out);
            one(consumer)
        })
    },
    inline("FairMerge", |source| {
        let mut merge = FairMerge::new();
        merge.insert((), source);
        let items = merge.map(|merged| match merged {
            Merged::Item((), item) => vec![item],
            Merged::Ended(()) => vec![],
        });
        items.boxed()
    }),
    inline("reconnect", |source| {
        let mut source = Some(source);
        let connect = move |_: Option<()>| {
            let connection = source.take().map(|source| source.map(Ok)).ok_or("gone for good");
            async move { connection }
        };
        let stream = reconnect(connect, Backoff::default()).final_if(|_| true);
        stream.map(|result| result.into_iter().collect()).boxed()
    }),
    Operator {
        // Publishing never waits: what is published is up to the publisher.
        buffer: usize::MAX,
        lazy: false,
        ..inline("Replay", |source| {
            let replay = Replay::new(nz!(1_000));
            let items = replay.subscribe().filter_map(|item| async move { Some(item.ok()?.1) });
            tokio::spawn(source.for_each(move |item| {
                replay.publish(item);
                std::future::ready(())
            }));
            one(items)
        })
    },
    inline("budgeted", |source| {
        let holder = ByteBudget::new(100).holder(100).unwrap();
        one(source.budgeted(holder, 100, |_| 60).map(|(item, _permit)| item))
    }),
    inline("meter", |source| one(source.meter())),
    inline("meter_by", |source| one(source.meter_by(|item| (*item).into()))),
];

/// Operators as they are when they lose items, end early, or get more from elsewhere: what their
/// size hints say must hold all the same. Told 20 items or more at once, each has 5 outputs or more.
pub(crate) const LOSSY: &[Operator] = &[
    inline("retry, which ends on failure", |source| {
        let work = |item: &u32| {
            let result = if *item < 12 { Ok(*item) } else { Err(()) };
            async move {
                tokio::task::yield_now().await;
                result
            }
        };
        let retried = source.map(Ok).retry(Backoff::default().retries(1), work);
        retried.end_on_failure().map(|result| result.into_iter().collect()).boxed()
    }),
    inline("fan_out, which drops the newest", |source| dropping(source, WhenFull::DropNewest)),
    inline("fan_out, which drops the oldest", |source| dropping(source, WhenFull::DropOldest)),
    inline("fan_out, which disconnects", |source| dropping(source, WhenFull::Disconnect)),
    inline("FairMerge, with a handle", |source| {
        let mut merge = FairMerge::new();
        let handle = merge.handle();
        merge.insert(0, stream::iter(0..3).boxed());
        handle.insert(1, source.boxed());
        let (mut handle, mut outputs) = (Some(handle), 0);
        let items = merge.map(move |merged| {
            outputs += 1;
            if outputs == 8
                && let Some(handle) = handle.take()
            {
                handle.insert(0, stream::iter(0..4).boxed());
                handle.insert(2, stream::iter(0..5).boxed());
            }
            match merged {
                Merged::Item(_, item) => vec![item],
                Merged::Ended(_) => vec![],
            }
        });
        items.boxed()
    }),
    inline("Replay, overtaken", |source| {
        let replay = Replay::new(nz!(8));
        let items = replay.subscribe();
        tokio::spawn(source.for_each(move |item| {
            replay.publish(item);
            std::future::ready(())
        }));
        items.map(|result| result.into_iter().map(|(_, item)| item).collect()).boxed()
    }),
];

fn dropping(source: Scripted<u32>, when_full: WhenFull) -> Outputs {
    let fan_out = source.fan_out();
    let consumer = fan_out.handle().subscribe(nz!(8), when_full);
    tokio::spawn(fan_out);
    one(consumer)
}

/// Work that takes a few turns of the scheduler.
async fn nap(item: u32) -> u32 {
    for _ in 0..item % 4 {
        tokio::task::yield_now().await;
    }
    item
}

fn one(items: impl stream::Stream<Item = u32> + Send + 'static) -> Outputs {
    items.map(|item| vec![item]).boxed()
}
