//! A source is told what rows must have only where everyone who reads it says so.

use std::num::NonZeroUsize;
use std::slice;

use tidegate_engine::{Pipeline, RunOptions, SinkOptions, Store};
use tidegate_model::SourceContext;

use crate::parts::{Does, Numbers, Picks, Told};

/// A transform that makes nothing of rows without one of these texts, or less severe than this.
fn wanting(texts: Option<&[&str]>, severity_min: Option<u8>) -> Picks {
    let texts = texts.map(|texts| texts.iter().map(|text| (*text).to_owned()).collect());
    Picks { texts, severity_min, ..Picks::nothing() }
}

/// Runs `numbers` -> transforms, each named by its letter -> a sink of the last one, or of these;
/// gives what `numbers` was told.
async fn told(
    source: Numbers,
    transforms: &[(&str, &str, Picks)],
    sinks: &[&str],
) -> SourceContext {
    let opened = source.opened.clone();
    let mut builder = Pipeline::builder().source("numbers", Box::new(source) as Box<_>);
    for (name, input, picks) in transforms {
        builder = builder.transform(name, &[*input], Box::new(picks.clone()) as Box<_>);
    }
    for (index, input) in sinks.iter().enumerate() {
        let (name, sink) = (format!("out{index}"), Box::new(Told::to(Does::Write)) as Box<_>);
        builder = builder.sink(&name, &[*input], SinkOptions::default(), sink);
    }
    let run = RunOptions {
        once: true,
        workers: NonZeroUsize::MIN,
        store: Some(Store::in_memory().unwrap()),
        ..RunOptions::default()
    };
    builder.build().unwrap().start(run).await.unwrap().finish().await.unwrap();
    let context = opened.lock().unwrap().take();
    context.unwrap()
}

/// What a source was told that can look for both.
async fn asked(
    transforms: &[(&str, &str, Picks)],
    sinks: &[&str],
) -> (Option<Vec<String>>, Option<u8>) {
    let source = Numbers { searched: true, ..Numbers::new(1, 3) };
    let context = told(source, transforms, sinks).await;
    let texts =
        context.required.map(|texts| texts.iter().map(|text| (**text).to_owned()).collect());
    (texts, context.severity_min)
}

fn texts(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[tokio::test(start_paused = true)]
async fn what_the_only_reader_asks_for_is_told() {
    let both = wanting(Some(&["x", "a"]), Some(17));
    assert_eq!(
        asked(&[("t", "numbers", both.clone())], &["t"]).await,
        (texts(&["a", "x"]), Some(17))
    );
    assert_eq!(
        asked(&[("t", "numbers", wanting(Some(&[]), None))], &["t"]).await,
        (texts(&[]), None)
    );
    assert_eq!(asked(&[("t", "numbers", wanting(None, Some(0)))], &["t"]).await, (None, Some(0)));
    let source = Numbers::new(1, 3);
    let context = told(source, &[("t", "numbers", both)], &["t"]).await;
    assert_eq!((context.required, context.severity_min), (None, None), "it can't look for any");
}

#[tokio::test(start_paused = true)]
async fn of_several_readers_each_gets_what_it_asks_for() {
    let one = ("t", "numbers", wanting(Some(&["x", "a"]), Some(17)));
    let two = ("u", "numbers", wanting(Some(&["b", "a"]), Some(13)));
    let told = asked(&[one.clone(), two.clone()], &["t", "u"]).await;
    assert_eq!(told, (texts(&["a", "b", "x"]), Some(13)));
    for (third, told) in [
        (wanting(Some(&["y"]), None), (texts(&["a", "b", "x", "y"]), None)),
        (wanting(None, Some(21)), (None, Some(13))),
        (wanting(None, None), (None, None)),
    ] {
        let all = [one.clone(), two.clone(), ("v", "numbers", third)];
        assert_eq!(asked(&all, &["t", "u", "v"]).await, told);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_all_rows_gets_them() {
    let picks = || wanting(Some(&["x"]), Some(17));
    let one = ("t", "numbers", picks());
    assert_eq!(asked(slice::from_ref(&one), &["t", "numbers"]).await, (None, None), "a sink");
    assert_eq!(
        asked(slice::from_ref(&one), &["t", "t.rejects"]).await,
        (None, None),
        "a sink of rejects"
    );
    let rejects = ("u", "t.rejects", picks());
    assert_eq!(
        asked(&[one.clone(), rejects], &["t", "u"]).await,
        (None, None),
        "a transform of them"
    );
    let all = ("u", "numbers", Picks::nothing());
    assert_eq!(
        asked(&[all, ("v", "u", picks())], &["v"]).await,
        (None, None),
        "one that passes on"
    );
    let told = (texts(&["x"]), Some(17));
    assert_eq!(
        asked(&[one, ("v", "t", Picks::nothing())], &["v"]).await,
        told,
        "what is left of them"
    );
}

#[tokio::test(start_paused = true)]
async fn of_too_many_texts_or_empty_ones_none_are_told() {
    let numbers: Vec<_> = (0..65).map(|n| n.to_string()).collect();
    let numbers: Vec<&str> = numbers.iter().map(|n| &**n).collect();
    let told = async |one: &[&str], two: &[&str]| {
        let one = ("t", "numbers", wanting(Some(one), Some(17)));
        let two = ("u", "numbers", wanting(Some(two), Some(17)));
        let (texts, min) = asked(&[one, two], &["t", "u"]).await;
        assert_eq!(min, Some(17));
        texts.map(|texts| texts.len())
    };
    assert_eq!(told(&numbers[..40], &numbers[30..64]).await, Some(64));
    assert_eq!(told(&numbers[..40], &numbers[30..]).await, None);
    assert_eq!(told(&["x"], &[""]).await, None);
}
