//! What nobody reads is not asked for.

use std::num::NonZeroUsize;

use tidegate_engine::{Pipeline, RunOptions, SinkOptions, Store};
use tidegate_model::{OFFSET, SourceContext};

use crate::parts::{Does, Numbers, Picks, Told};

/// Runs source -> transform -> sink, and gives what the source was told.
async fn told_of(picks: Option<Picks>, wants: &[&'static str]) -> (SourceContext, Told) {
    let numbers = Numbers::new(3, 10);
    let opened = numbers.opened.clone();
    let sink = Told { wants: wants.to_vec(), ..Told::to(Does::Write) };
    let mut builder = Pipeline::builder().source("numbers", Box::new(numbers) as Box<_>);
    let mut input = "numbers";
    if let Some(picks) = picks {
        builder = builder.transform("picks", &["numbers"], Box::new(picks) as Box<_>);
        input = "picks";
    }
    let options = SinkOptions::default();
    builder = builder.sink("out", &[input], options, Box::new(sink.clone()) as Box<_>);
    let run = RunOptions {
        once: true,
        workers: NonZeroUsize::MIN,
        store: Some(Store::in_memory().unwrap()),
        ..RunOptions::default()
    };
    let running = builder.build().unwrap().start(run).await.unwrap();
    running.finish().await.unwrap();
    let context = opened.lock().unwrap().take().unwrap();
    (context, sink)
}

fn names(context: &SourceContext) -> Vec<String> {
    context.columns.fields().iter().map(|field| field.name().clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_source_is_asked_for_what_sinks_and_transforms_read() {
    let (context, sink) = told_of(None, &["c"]).await;
    assert_eq!(names(&context), ["c", OFFSET]);
    assert_eq!(sink.rows.lock().unwrap().len(), 30);

    let picks = |reads: &[usize], gives| Picks { reads: reads.to_vec(), gives, ..Picks::nothing() };
    let (context, sink) = told_of(Some(picks(&[0, 1], Some("b"))), &["b"]).await;
    assert_eq!(names(&context), ["a", "b", OFFSET]);
    let columns = sink.columns.lock().unwrap().take().unwrap();
    assert_eq!(columns.fields().len(), 1, "sinks don't see offsets");

    let (context, sink) = told_of(Some(picks(&[1], None)), &["c"]).await;
    assert_eq!(
        names(&context),
        ["b", "c", OFFSET],
        "what passes through, and what is read on the way"
    );
    assert_eq!(sink.rows.lock().unwrap().len(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_nobody_needs_a_column_of_is_still_counted() {
    let (context, _) = told_of(None, &["a"]).await;
    assert!(context.offsets && context.once);
    assert_eq!(context.positions, []);
}
