//! What is said of wrong configurations, word for word.

use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use futures_core::future::BoxFuture;
use tidegate_engine::config::{CONFIG_BYTES_MAX, decode, load, parse};
use tidegate_engine::{Overrides, Report, Role, Unchecked};
use tidegate_model::{
    ByteSize, Commit, Delivered, Error, Mistake, Moment, Output, Registry, Result, Settings, Sink,
    SinkContext, SinkSpec, Source, SourceContext, SourceSpec, SourceStream, Spanned, Stage,
    Transform, TransformSpec, Written, log_schema,
};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LinesConfig {
    #[serde(rename = "include")]
    _include: Vec<String>,
    #[serde(rename = "codec", default)]
    _codec: Codec,
    #[serde(rename = "follow", default)]
    _follow: bool,
    #[serde(rename = "rows", default)]
    _rows: Option<u32>,
    #[serde(rename = "limits", default)]
    _limits: Option<Limits>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    #[serde(rename = "line_bytes_max")]
    _line_bytes_max: ByteSize,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Codec {
    #[default]
    Text,
    Auto,
    Ndjson,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct KeepConfig {
    column: Spanned<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct OutConfig {
    path: Spanned<String>,
    #[serde(rename = "codec", default)]
    _codec: Codec,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

struct Lines(Option<SchemaRef>);
struct Keep(Spanned<String>);
struct Out(Option<String>);

static LINES: SourceSpec = SourceSpec {
    summary: "Reads lines.",
    example: "include = [\"/var/log/app/*.log\"]\ncodec = \"auto\"\nrows = 100\nfollow = true",
    build: |settings| {
        settings.parse::<LinesConfig>()?;
        Ok(Box::new(Lines(Some(log_schema()))))
    },
};

static NUMBERS: SourceSpec = SourceSpec {
    summary: "Counts.",
    example: "",
    build: |settings| {
        settings.parse::<Nothing>()?;
        let number = Field::new("number", DataType::Int64, false);
        Ok(Box::new(Lines(Some(Arc::new(Schema::new(vec![number]))))))
    },
};

static TABLE: SourceSpec = SourceSpec {
    summary: "Reads a table, whose columns it does not know before.",
    example: "",
    build: |settings| {
        settings.parse::<Nothing>()?;
        Ok(Box::new(Lines(None)))
    },
};

static KEEP: TransformSpec = TransformSpec {
    summary: "Keeps one column.",
    example: "column = \"message\"",
    build: |settings| Ok(Box::new(Keep(settings.parse::<KeepConfig>()?.column))),
};

static OUT: SinkSpec = SinkSpec {
    summary: "Writes to a file.",
    example: "path = \"errors.ndjson\"\ncodec = \"ndjson\"",
    build: |settings: &Settings<'_>| {
        let path = settings.parse::<OutConfig>()?.path;
        if path.get_ref().ends_with('/') {
            let said = Mistake::at(path.span(), "`path` is a folder");
            return Err(said.help("name a file in it"));
        }
        Ok(Box::new(Out(Some(path.into_inner()))))
    },
};

static NOWHERE: SinkSpec = SinkSpec {
    summary: "Forgets everything.",
    example: "",
    build: |settings| {
        settings.parse::<Nothing>()?;
        Ok(Box::new(Out(None)))
    },
};

fn registry() -> Registry {
    Registry {
        sources: vec![("lines", &LINES), ("numbers", &NUMBERS)],
        transforms: vec![("keep", &KEEP)],
        sinks: vec![("out", &OUT), ("nowhere", &NOWHERE)],
    }
}

fn not_run<T>() -> Result<T> {
    Err(Error::fatal("tests of configurations run nothing"))
}

impl Source for Lines {
    fn schema(&self) -> Option<SchemaRef> {
        self.0.clone()
    }

    fn replayable(&self) -> bool {
        true
    }

    fn bytes_min(&self) -> usize {
        1024 * 1024
    }

    fn open(&mut self, _: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        Box::pin(std::future::ready(not_run()))
    }
}

impl Transform for Keep {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        let column = input.index_of(self.0.get_ref()).map_err(|_| {
            let said = format!("there is no column `{}`", self.0);
            let names: Vec<_> = input.fields().iter().map(|field| field.name().as_str()).collect();
            Mistake::at(self.0.span(), said).help(format!("there are `{}`", names.join("`, `")))
        })?;
        Ok(vec![column])
    }

    fn plan(&self, input: &SchemaRef) -> Result<Box<dyn Stage>, Mistake> {
        let columns = self.columns(input)?;
        let schema = input.project(&columns).map_err(|error| Mistake::new(error.to_string()))?;
        Ok(Box::new(Planned(Arc::new(schema))))
    }
}

struct Planned(SchemaRef);

impl Stage for Planned {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn fork(&self) -> Option<Box<dyn Stage>> {
        None
    }

    fn apply(&mut self, _: RecordBatch, _: Moment) -> Result<Output> {
        not_run()
    }
}

impl Sink for Out {
    fn commit_when(&self) -> Commit {
        Commit::Grouped
    }

    fn target(&self) -> Option<String> {
        self.0.clone()
    }

    fn open(&mut self, _: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(std::future::ready(not_run()))
    }

    fn write<'a>(&'a mut self, _: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(std::future::ready(not_run()))
    }

    fn commit<'a>(&'a mut self, _: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(not_run()))
    }
}

fn env(name: &str) -> Option<String> {
    match name {
        "LOGS" => Some("/var/log".to_owned()),
        "SECRET" => Some("hunter2".to_owned()),
        _ => None,
    }
}

/// The report, or `None` where nothing is wrong.
fn report(text: &str) -> Option<Report> {
    load("pipeline.toml", text, &registry(), &env, &Overrides::default()).err()
}

const GOOD: &str = r#"
memory = "4MiB"
data_dir = "${LOGS}/state"
shutdown_timeout = "10s"

[sources.app]
type = "lines"
include = ["${LOGS}/*.log"]
limits = { line_bytes_max = "1MiB" }

[transforms.messages]
type = "keep"
inputs = ["app"]
column = "message"

[sinks.out]
type = "out"
inputs = ["messages"]
path = "out.txt"
when_full = "drop_oldest"
queue_bytes_max = "64KiB"
"#;

#[test]
fn each_mistake_is_reported_word_for_word() {
    let folder = Path::new("tests/mistakes");
    let names = tidegate_testkit::cases::check(folder, |text| {
        report(text).map_or("nothing is wrong".to_owned(), |said| said.to_string())
    });
    assert!(names.len() >= 25, "only {} kinds of mistake", names.len());
}

#[test]
fn what_is_right_is_not_complained_about() {
    for text in [GOOD.to_owned(), GOOD.replace('\n', "\r\n"), format!("\u{feff}{GOOD}")] {
        assert_eq!(report(&text).map(|said| said.to_string()), None);
        assert!(parse("pipeline.toml", &text, &registry(), &env).is_ok());
    }
    let pipeline = load("a", GOOD, &registry(), &env, &Overrides::default()).unwrap();
    assert_eq!(pipeline.data_dir().to_str(), Some("/var/log/state"));
    assert_eq!(pipeline.memory(), 4 * 1024 * 1024);
    let elsewhere = Overrides { memory: Some(2 << 20), data_dir: Some("here".into()) };
    let pipeline = load("a", GOOD, &registry(), &env, &elsewhere).unwrap();
    assert_eq!((pipeline.memory(), pipeline.data_dir().to_str()), (2 << 20, Some("here")));
}

#[test]
fn what_waits_for_a_tables_columns_is_named_and_the_rest_is_checked() {
    let text = "[sources.users]\ntype = 'table'\n[sources.app]\ntype = 'lines'\ninclude = ['a']\n\
                [transforms.names]\ntype = 'keep'\ninputs = ['users']\ncolumn = 'name'\n\
                [transforms.lines]\ntype = 'keep'\ninputs = ['app']\ncolumn = 'COLUMN'\n\
                [sinks.out]\ntype = 'nowhere'\ninputs = ['names']\n\
                [sinks.all]\ntype = 'nowhere'\ninputs = ['lines']\n";
    let good = text.replace("COLUMN", "message");
    let mut registry = registry();
    registry.sources.push(("table", &TABLE));
    let load = |text: &str| load("a", text, &registry, &env, &Overrides::default());
    let pipeline = load(&good).unwrap();
    let [unchecked] = pipeline.unchecked() else { panic!("one source is unknown") };
    let components = vec![(Role::Transform, "names".into()), (Role::Sink, "out".into())];
    assert_eq!(*unchecked, Unchecked { source: "users".into(), components });
    let said = load(&text.replace("COLUMN", "massage")).err().unwrap();
    assert_eq!(said.found().len(), 1, "{said}");
    assert!(said.to_string().contains("there is no column `massage`"), "{said}");
}

#[test]
fn a_budget_from_elsewhere_is_not_looked_for_in_the_text() {
    let text = "memory = '64MiB'\n[sources.a]\ntype = 'numbers'\n[sinks.b]\ntype = 'nowhere'\n\
                inputs = ['a']\n";
    let small = Overrides { memory: Some(1000), data_dir: None };
    let said = load("a.toml", text, &registry(), &env, &small).err().unwrap();
    assert_eq!(said.found().len(), 1);
    assert_eq!(said.found()[0].place, None, "{said}");
}

#[test]
fn line_ends_tabs_and_marks_of_order_do_not_shift_the_place() {
    let text = "[sources.app]\ntype = \"lines\"\ninclude = [\"a\"]\n\n[sinks.out]\ntype = \"out\"\n\
                inputs = [\"app\"]\npath = \"a\"\n\tcodec = \"jso\"\n";
    let place = |text: &str| {
        let said = report(text).unwrap();
        (said.found().len(), said.found()[0].place.unwrap(), said.to_string())
    };
    let (count, at, said) = place(text);
    assert_eq!((count, at.line, at.column), (1, 9, 10));
    assert_eq!(place(&format!("\u{feff}{text}")).2, said);
    assert_eq!(place(&text.replace('\n', "\r\n")).2, said);
    assert!(said.contains("9 |     codec = \"jso\"\n  |             ^^^^^\n"), "{said}");
}

#[test]
fn a_value_of_the_environment_is_not_shown() {
    let text = "[sources.app]\ntype = \"lines\"\ninclude = \"${SECRET}\"\n[sinks.o]\n\
                type = \"nowhere\"\ninputs = [\"app\"]\n";
    let said = report(text).unwrap().to_string();
    assert!(said.contains("${SECRET}") && !said.contains("hunter2"), "{said}");
}

#[test]
fn odd_texts_get_an_answer() {
    for (text, start) in [
        (String::new(), "error: there is nothing in [sources]"),
        ("# nothing yet\n".to_owned(), "error: there is nothing in [sources]"),
        ("\0".to_owned(), "error: "),
        (format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000)), "error: this is nested"),
        (format!("{}a = 1", "a.".repeat(100_000)), "error: this is nested"),
        (format!("[{}a]", "a.".repeat(100_000)), "error: this is nested"),
        ("a = 1\n".repeat(10_000), "error: `a` is there twice"),
        ("[sources]\n".to_owned() + &many(1_001), "error: these are 1001 components"),
    ] {
        let said = report(&text).unwrap().to_string();
        assert!(said.starts_with(start), "{said}");
        assert!(said.len() < 2_000, "{} bytes for one mistake", said.len());
    }
}

fn many(count: usize) -> String {
    (0..count).map(|number| format!("s{number} = {{ type = \"numbers\" }}\n")).collect()
}

#[test]
fn a_pipeline_of_the_greatest_size_is_read() {
    let said = report(&("[sources]\n".to_owned() + &many(1_000))).unwrap();
    assert!(said.to_string().contains("there is nothing in [sinks]"), "{said}");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let said = |bytes: &[u8]| decode("a.toml", bytes).unwrap_err().to_string();
    let latin = said(b"a = 1\nb = \"caf\xe9\"\n");
    let expected = "error: this is no UTF-8: the byte 0xE9\n --> a.toml:2:9\n  |\n\
                    2 | b = \"caf\u{fffd}\"\n  |         ^\n  = help: save it as UTF-8\n\n\
                    1 mistake in a.toml";
    assert_eq!(latin, expected);
    assert!(said(b"\xff\xfea\0").starts_with("error: this is UTF-16"));
    let long = said(&vec![b'#'; CONFIG_BYTES_MAX + 1]);
    assert!(long.starts_with("error: this is too long for a configuration"), "{long}");
    assert_eq!(decode("a.toml", "a = 'é'".as_bytes()).unwrap(), "a = 'é'");
}

/// Cuts, doubles and swaps pieces of a configuration, and writes odd characters into it.
fn spoilt(random: &mut fastrand::Rng) -> String {
    let odd =
        ["\"", "'", "[", "]", "{", "}", "=", ".", "$", "${", "\n", "\0", "é", "日", "#", "\\"];
    let mut text: Vec<char> = GOOD.chars().collect();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(0..text.len());
        let end = (at + random.usize(0..30)).min(text.len());
        match random.u8(0..4) {
            0 => drop(text.drain(at..end)),
            1 => text.extend_from_within(at..end),
            2 => text[at..end].reverse(),
            _ => drop(text.splice(at..at, odd[random.usize(0..odd.len())].chars())),
        }
        if text.is_empty() {
            break;
        }
    }
    text.into_iter().collect()
}

#[test]
fn no_text_is_without_an_answer_and_each_place_is_in_it() {
    for seed in 0..2_000 {
        let text = spoilt(&mut fastrand::Rng::with_seed(seed));
        let Some(said) = report(&text) else { continue };
        assert!(!said.found().is_empty(), "seed {seed}: no mistake, and no pipeline");
        for found in said.found() {
            let Some(place) = found.place else { continue };
            let line = text.split('\n').nth(place.line - 1);
            let columns = line.map(|line| line.chars().count());
            assert!(columns.is_some_and(|max| place.column <= max + 1), "seed {seed}: {said}");
        }
    }
}
