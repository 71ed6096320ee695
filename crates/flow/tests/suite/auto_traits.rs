//! The Send / Sync / Unpin table: what a type is when its source is, and when it is not.

use std::marker::PhantomData;

use futures::stream::{Iter, LocalBoxStream};
use tidegate_flow::*;

/// Whether a type has an auto trait: the inherent constant hides the trait's where it applies.
macro_rules! has {
    ($type:ty, $trait:path) => {{
        struct Probe<T: ?Sized>(PhantomData<T>);
        #[allow(dead_code, reason = "unused where the inherent constant is the answer")]
        trait No {
            const HAS: bool = false;
        }
        impl<T: ?Sized> No for Probe<T> {}
        #[allow(dead_code, reason = "unused where the trait's constant is the answer")]
        impl<T: ?Sized + $trait> Probe<T> {
            const HAS: bool = true;
        }
        <Probe<$type>>::HAS
    }};
}

macro_rules! table {
    ($($type:ty => $send:literal $sync:literal $unpin:literal,)*) => {
        $(
            let traits = (has!($type, Send), has!($type, Sync), has!($type, Unpin));
            assert_eq!(traits, ($send, $sync, $unpin), "{}", stringify!($type));
        )*
    };
}

type S = Iter<std::ops::Range<u32>>;
type Local = LocalBoxStream<'static, u32>;
type Cost<N> = fn(&u32) -> N;
type NotSync = std::cell::Cell<u32>;
type NotSend = std::rc::Rc<u32>;

#[test]
fn auto_traits_are_as_stated() {
    table! {
        // type                              => Send Sync Unpin
        Batch<S, Unweighed>                  => true true false, // a timer inside
        Batch<Local, Unweighed>              => false false false,
        Pace<S>                              => true true false,
        Pace<Local>                          => false false false,
        RateLimit<S, Cost<u64>>              => true true false,
        RateLimit<Local, Cost<u64>>          => false false false,
        TokenBucket                          => true true true,
        AdaptiveBuffer<S>                    => true true true,
        AdaptiveBuffer<Local>                => false false true,
        BufferGauge<u32>                     => true true true,
        InFlightLimit<S>                     => true true true,
        InFlightLimit<Local>                 => false false true,
        InFlight<u32>                        => true true true,
        InFlight<NotSend>                    => false false true,
        ConcurrentMap<S, (), u32>            => true true true,
        ConcurrentMap<S, (), NotSync>        => true true true,
        ConcurrentMapUnordered<S, (), u32>   => true true true,
        ConcurrentMapUnordered<Local, (), u32> => false false true,
        FanOut<S>                            => true true true,
        FanOut<Local>                        => false false true,
        Consumer<NotSync>                    => true true true,
        Consumer<NotSend>                    => false false true,
        ConsumerGauge<NotSync>               => true true true,
        FanOutHandle<NotSync>                => true true true,
        FairMerge<u32, S>                    => true true true,
        FairMerge<u32, Local>                => false false true,
        MergeHandle<u32, S>                  => true true true,
        Replay<NotSync>                      => true true true,
        Replay<NotSend>                      => false false true,
        Subscription<NotSync>                => true false true,
        ByteBudget                           => true true true,
        BudgetHolder                         => true true true,
        Permit                               => true true true,
        Acquire<'static>                     => true true true,
        Budgeted<S, Cost<usize>>             => true true true,
        Budgeted<Local, Cost<usize>>         => false false true,
        Metered<S, Cost<u64>>                => true true true,
        Metered<Local, Cost<u64>>            => false false true,
        Meter                                => true true true,
        Backoff                              => true true true,
        Delays                               => true true true,
    }
}

#[test]
fn streams_behind_impl_trait_can_be_sent() {
    fn sent<T: Send>(_: &T) {}
    let source = || futures::stream::iter(0_u32..1);
    sent(&source().meter());
    sent(&source().rate_limit(Rate::per_second(nz!(1)), nz!(1)));
    sent(&source().concurrent_map(nz!(1), |item| async move { item }));
}
