//! Mistakes in graphs: each is found before anything is opened, and says what to write instead.

use tidegate_engine::{Builder, Pipeline, Role, SinkOptions};

use crate::parts::{Does, Numbers, Picks, Told};

fn source(builder: Builder, name: &str) -> Builder {
    builder.source(name, Box::new(Numbers::new(1, 1)) as Box<_>)
}

fn transform(builder: Builder, name: &str, inputs: &[&str]) -> Builder {
    let picks = Picks::nothing();
    builder.transform(name, inputs, Box::new(picks) as Box<_>)
}

fn sink(builder: Builder, name: &str, inputs: &[&str]) -> Builder {
    builder.sink(name, inputs, SinkOptions::default(), Box::new(Told::to(Does::Write)) as Box<_>)
}

/// All mistakes, a line each: whose, which input, what, and the remedy.
fn said(builder: Builder) -> Vec<String> {
    let mistakes = builder.build().err().unwrap_or_default();
    let lines = mistakes.into_iter().map(|mistake| {
        let whose = match &mistake.component {
            Some((role, name)) => format!("{}.{name}", role.table()),
            None => "pipeline".to_owned(),
        };
        let input = mistake.input.map_or(String::new(), |index| format!(" inputs[{index}]"));
        let help = mistake.mistake.help.map_or(String::new(), |help| format!("; {help}"));
        format!("{whose}{input}: {}{help}", mistake.mistake.message)
    });
    lines.collect()
}

#[test]
fn a_good_graph_has_none() {
    let builder = source(Pipeline::builder(), "a");
    let builder = transform(builder, "t", &["a"]);
    assert_eq!(said(sink(builder, "out", &["t", "a"])), Vec::<String>::new());
}

#[test]
fn names_that_are_unknown_double_or_impossible() {
    let builder = source(source(source(Pipeline::builder(), "app"), "web"), "app");
    let builder = transform(builder, "no.dots", &["app"]);
    let builder = sink(builder, "out", &["aap"]);
    let builder = sink(sink(builder, "log", &["database", "web"]), "log2", &["out"]);
    let builder = sink(sink(builder, "log3", &["app.rejects"]), "log4", &["app", "app"]);
    assert_eq!(
        said(sink(builder, "log5", &[])),
        [
            "sources.app: there is a component `app` in [sources] too; give each component a name \
             of its own",
            "transforms.no.dots: `no.dots` is no name for a component; use letters, digits, `_` \
             and `-`",
            "sinks.out inputs[0]: there is no source or transform `aap`; did you mean `app`?",
            "sinks.log inputs[0]: there is no source or transform `database`; there are `app`, \
             `web`",
            "sinks.log2 inputs[0]: `out` is a sink; inputs are sources, transforms, and \
             `out.rejects` for rows it does not take",
            "sinks.log3 inputs[0]: `app.rejects` does not exist: `app` is a source; only \
             transforms and sinks have rejects",
            "sinks.log4 inputs[1]: the input `app` is named twice; name it once",
            "sinks.log5: it has no inputs; name sources or transforms: inputs = [\"NAME\"]",
        ]
    );
}

#[test]
fn circles_and_what_nobody_reads() {
    let builder = source(source(Pipeline::builder(), "a"), "alone");
    let builder = transform(builder, "idle", &["a"]);
    assert_eq!(
        said(sink(builder, "out", &["a"])),
        [
            "sources.alone: nobody reads this source; name it in the inputs of a sink or \
             transform, or remove it",
            "transforms.idle: nobody reads this transform; name it in the inputs of a sink or \
             transform, or remove it",
        ]
    );
    let builder = source(Pipeline::builder(), "a");
    let builder = transform(builder, "first", &["a", "third"]);
    let builder = transform(transform(builder, "second", &["first"]), "third", &["second.rejects"]);
    let circle = said(sink(builder, "out", &["second"]));
    assert_eq!(circle.len(), 1);
    assert!(
        circle[0].starts_with("transforms.first inputs[1]: it feeds itself: "),
        "{}",
        circle[0]
    );
    for pair in ["first -> second", "second -> third", "third -> first"] {
        let around = circle[0].contains(pair);
        assert!(around || circle[0].matches(" -> ").count() == 3, "{}", circle[0]);
    }
    let alone = transform(source(Pipeline::builder(), "a"), "self", &["self", "a"]);
    let itself = said(sink(alone, "out", &["self"]));
    assert!(itself[0].contains("it feeds itself: self -> self"), "{}", itself[0]);
}

#[test]
fn rejects_of_sinks_go_to_other_sinks_and_not_around() {
    let builder = source(Pipeline::builder(), "a");
    let good = sink(sink(builder, "out", &["a"]), "dead", &["out.rejects"]);
    assert_eq!(said(sink(good, "last", &["dead.rejects"])), Vec::<String>::new());

    let builder = sink(source(Pipeline::builder(), "a"), "out", &["a", "t"]);
    let builder = transform(transform(builder, "t", &["out.rejects"]), "u", &["out"]);
    assert_eq!(
        said(sink(builder, "dead", &["u"])),
        [
            "transforms.t inputs[0]: `out.rejects` are rows that a sink did not take; only sinks \
             can take them",
            "transforms.u inputs[0]: `out` is a sink; inputs are sources and transforms",
        ]
    );
    let builder = sink(source(Pipeline::builder(), "a"), "first", &["a", "third.rejects"]);
    let builder = sink(sink(builder, "second", &["first.rejects"]), "third", &["second.rejects"]);
    let circle = "sinks.first inputs[1]: it feeds itself: second -> third -> first -> second; take \
                  one of these out of the other's inputs";
    assert_eq!(said(builder), [circle]);
}

#[test]
fn rejects_of_a_sink_have_the_columns_it_reads_and_why() {
    let wants = |wants: &[&'static str]| {
        let told = Told { wants: wants.to_vec(), ..Told::to(Does::Write) };
        Box::new(told) as Box<_>
    };
    let build = |dead: &[&'static str], last: &[&'static str]| {
        let options = SinkOptions::default();
        let builder = source(Pipeline::builder(), "a").sink("out", &["a"], options, wants(&["c"]));
        let builder = builder.sink("dead", &["out.rejects"], options, wants(dead));
        said(builder.sink("last", &["dead.rejects"], options, wants(last)))
    };
    let reason = "reject_reason";
    assert_eq!(build(&["c", reason], &["c", reason]), Vec::<String>::new());
    assert_eq!(build(&["c"], &["c", reason]), Vec::<String>::new(), "why `dead` rejects it");
    let lines = build(&["a"], &["c"]);
    assert_eq!(lines.len(), 1, "what is behind a mistake is not complained about: {lines:?}");
    assert!(lines[0].starts_with("sinks.dead: ") && lines[0].contains("\"a\""), "{lines:?}");

    let builder = sink(source(Pipeline::builder(), "a"), "out", &["a"]);
    let lines = said(sink(builder, "dead", &["out.rejects", "a"]));
    let expected = "sinks.dead inputs[1]: its inputs have different columns: (a UInt64, \
                    reject_reason Utf8) and (a UInt64, b UInt64, c UInt64); give each a sink of \
                    its own";
    assert_eq!(lines, [expected]);
}

#[test]
fn nothing_to_read_or_to_write_to() {
    assert_eq!(
        said(sink(Pipeline::builder(), "out", &[])),
        [
            "pipeline: there is nothing in [sources]; a pipeline needs at least one source and one \
             sink",
            "sinks.out: it has no inputs; name sources or transforms: inputs = [\"NAME\"]",
        ]
    );
}

#[test]
fn two_sinks_at_one_target_and_too_little_memory() {
    let target = |target: &str| {
        Box::new(Told { to: Some(target.to_owned()), ..Told::to(Does::Write) }) as Box<_>
    };
    let builder = source(source(Pipeline::builder().memory(8_191), "a"), "b");
    let builder = builder.sink("one", &["a"], SinkOptions::default(), target("out.log"));
    let builder = builder.sink("two", &["b"], SinkOptions::default(), target("out.log"));
    assert_eq!(
        said(builder),
        [
            "sinks.two: it writes to out.log, as the sink `one` does; give each sink a target of \
             its own, or one sink both inputs",
            "pipeline: a memory of 8191 bytes is too little for 2 sources, which need 8192 bytes \
             to read a batch each; memory = \"1MiB\" or more",
        ]
    );
}

#[test]
fn inputs_with_different_columns() {
    let builder = source(Pipeline::builder(), "a");
    let picks = Picks { gives: Some("b"), ..Picks::nothing() };
    let builder = builder.transform("t", &["a"], Box::new(picks) as Box<_>);
    let lines = said(sink(builder, "out", &["a", "t"]));
    let expected = "sinks.out inputs[1]: its inputs have different columns: (a UInt64, b UInt64, c \
                    UInt64) and (b UInt64); bring them to the same columns with an sql transform \
                    each";
    assert_eq!(lines, [expected]);
}

#[test]
fn what_a_component_says_of_its_columns_is_its_mistake() {
    let builder = source(Pipeline::builder(), "a");
    let told = Told { wants: vec!["z"], ..Told::to(Does::Write) };
    let builder = builder.sink("out", &["a"], SinkOptions::default(), Box::new(told) as Box<_>);
    let mistakes = builder.build().err().unwrap();
    assert_eq!(mistakes.len(), 1);
    assert_eq!(mistakes[0].component, Some((Role::Sink, "out".into())));
}
