//! The tables: what a file is called, what it says of itself, and what it makes of settings.

use std::collections::BTreeSet;
use std::path::Path;

use tidegate_components::codecs::encode::ENCODERS;
use tidegate_components::sinks::SINKS;
use tidegate_components::sources::SOURCES;
use tidegate_components::transforms::TRANSFORMS;
use tidegate_model::{Mistake, Settings};

type Build = Box<dyn Fn(&Settings<'_>) -> Result<(), Mistake>>;

/// A row of a table of components, whatever it makes.
struct Row {
    kind: &'static str,
    name: &'static str,
    summary: &'static str,
    example: &'static str,
    build: Build,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    macro_rules! add {
        ($kind:literal, $table:ident) => {
            for (name, spec) in $table {
                let build = Box::new(|settings: &Settings<'_>| (spec.build)(settings).map(drop));
                let (summary, example) = (spec.summary, spec.example);
                rows.push(Row { kind: $kind, name, summary, example, build });
            }
        };
    }
    add!("sources", SOURCES);
    add!("transforms", TRANSFORMS);
    add!("sinks", SINKS);
    rows
}

fn files(folder: &str) -> BTreeSet<String> {
    let folder = Path::new("src").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    let stems = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    stems.filter(|stem| stem != "mod").collect()
}

#[test]
fn every_file_is_a_row_and_every_row_a_file() {
    for folder in ["sources", "transforms", "sinks"] {
        let rows = rows().into_iter().filter(|row| row.kind == folder);
        let names: BTreeSet<_> = rows.map(|row| row.name.to_owned()).collect();
        assert_eq!(names, files(folder), "in {folder}");
    }
    let encoders: BTreeSet<_> = ENCODERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(encoders, files("codecs/encode"));
}

#[test]
fn every_row_says_what_it_is() {
    let said = rows().into_iter().map(|row| (row.name, row.summary));
    for (name, summary) in said.chain(ENCODERS.iter().map(|(name, codec)| (*name, codec.summary))) {
        let one_line = !summary.is_empty() && !summary.contains('\n') && !summary.ends_with('.');
        assert!(one_line, "{name}: {summary:?}");
    }
}

#[test]
fn every_example_builds_and_a_key_too_many_is_refused_where_it_stands() {
    for Row { kind, name, example, build, .. } in rows() {
        let built = Settings::from_toml(example).and_then(|settings| build(&settings));
        assert_eq!(built, Ok(()), "{kind}.{name}: {example}");
        let more = format!("{example}\nno_such_key = 1");
        let mistake = Settings::from_toml(&more).and_then(|settings| build(&settings)).unwrap_err();
        let span = mistake.span.clone().unwrap_or_default();
        assert_eq!(&more[span], "no_such_key", "{kind}.{name}: {mistake:?}");
        assert!(mistake.message.contains("`no_such_key`"), "{kind}.{name}: {mistake:?}");
    }
}

#[test]
fn a_sink_with_a_codec_names_those_there_are() {
    let named = [
        ("file", "path = 'x'\ncodec = 'jsno'", r#"one of "csv", "ndjson", "parquet", "text""#),
        ("stdout", "codec = 'jsno'", r#"one of "csv", "ndjson", "text""#),
    ];
    for (name, settings, help) in named {
        let spec = SINKS.iter().find(|(known, _)| *known == name).unwrap().1;
        let mistake = (spec.build)(&Settings::from_toml(settings).unwrap()).err().unwrap();
        assert_eq!(mistake.message, "there is no codec \"jsno\" to write with");
        assert_eq!(mistake.help.as_deref(), Some(help));
        assert_eq!(&settings[mistake.span.unwrap()], "'jsno'");
    }
}

#[test]
fn a_sink_whose_rows_others_judge_may_reject_other_rows_next_time() {
    for (name, spec) in SINKS {
        let sink = (spec.build)(&Settings::from_toml(spec.example).unwrap()).unwrap();
        let by_others = ["http", "postgres", "socket"].contains(name);
        assert_eq!(sink.same_rejects(), !by_others, "{name}");
    }
}
