//! Sources that know their columns only when they have connected: what is checked before, what is
//! found then, and how a start ends that can't learn them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_schema::SchemaRef;
use futures::future::BoxFuture;
use tidegate_engine::{Builder, Pipeline, Role, RunOptions, Running, SinkOptions, Store};
use tidegate_model::{Error, ErrorKind, Result, Source, SourceContext, SourceStream};
use tokio::time::{Instant, sleep, timeout};

use crate::parts::{Does, Numbers, Picks, Told, columns};

/// How learning the columns goes.
#[derive(Clone, Copy)]
enum Learns {
    Well,
    Nothing,
    Fails(ErrorKind),
    Panics,
}

/// Numbers that are not known to be numbers before a second has passed.
struct Late {
    numbers: Numbers,
    learns: Learns,
    known: bool,
    /// How often it was asked to learn.
    asked: Arc<AtomicUsize>,
}

impl Late {
    fn new(learns: Learns) -> Self {
        Self { numbers: Numbers::new(3, 10), learns, known: false, asked: Arc::default() }
    }
}

impl Source for Late {
    fn schema(&self) -> Option<SchemaRef> {
        self.known.then(|| columns(&["a", "b", "c"]))
    }

    fn prepare(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.asked.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_secs(1)).await;
            match self.learns {
                Learns::Well => self.known = true,
                Learns::Nothing => {}
                Learns::Fails(kind) => return Err(Error::new(kind, "told to")),
                Learns::Panics => panic!("told to"),
            }
            Ok(())
        })
    }

    fn replayable(&self) -> bool {
        self.numbers.replayable()
    }

    fn bytes_min(&self) -> usize {
        self.numbers.bytes_min()
    }

    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        context.expected.set_rows(30, false);
        self.numbers.open(context)
    }
}

fn sink(builder: Builder, name: &str, inputs: &[&str], told: Told) -> Builder {
    builder.sink(name, inputs, SinkOptions::default(), Box::new(told) as Box<_>)
}

/// late -> picks -> out, where `picks` reads the first two columns and gives the named one.
fn pipeline(late: Late, gives: &'static str, out: Told) -> Pipeline {
    let picks = Picks { reads: vec![0, 1], gives: Some(gives), ..Picks::nothing() };
    let builder = Pipeline::builder().source("late", Box::new(late) as Box<_>);
    let builder = builder.transform("picks", &["late"], Box::new(picks) as Box<_>);
    sink(builder, "out", &["picks"], out).build().unwrap()
}

async fn start(pipeline: Pipeline) -> Result<Running> {
    let store = Some(Store::in_memory().unwrap());
    let workers = NonZeroUsize::MIN;
    pipeline.start(RunOptions { once: true, workers, store, ..RunOptions::default() }).await
}

#[test]
fn a_build_says_what_it_could_not_check_and_finds_what_else_is_wrong() {
    let builder = || {
        let builder = Pipeline::builder()
            .source("late", Box::new(Late::new(Learns::Panics)) as Box<_>)
            .source("early", Box::new(Numbers::new(1, 1)) as Box<_>)
            .transform("picks", &["late"], Box::new(Picks::nothing()) as Box<_>);
        sink(builder, "both", &["early", "picks"], Told::to(Does::Write))
    };
    let pipeline = sink(builder(), "out", &["early"], Told::to(Does::Write)).build().unwrap();
    let [unchecked] = pipeline.unchecked() else { panic!("one source is late") };
    assert_eq!(&*unchecked.source, "late");
    let names: Vec<_> = unchecked.components.iter().map(|(role, name)| (*role, &**name)).collect();
    assert_eq!(names, [(Role::Transform, "picks"), (Role::Sink, "both")]);

    let wrong = || Told { wants: vec!["z"], ..Told::to(Does::Write) };
    let mistakes = sink(builder(), "out", &["early"], wrong()).build().err().unwrap();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert_eq!(mistakes[0].component, Some((Role::Sink, "out".into())));

    // Of what is known, all must go together.
    let other = Numbers { schema: columns(&["a"]), ..Numbers::new(1, 1) };
    let builder = builder().source("other", Box::new(other) as Box<_>);
    let inputs = ["late", "early", "other"];
    let mistakes = sink(builder, "out", &inputs, Told::to(Does::Write)).build().err().unwrap();
    assert_eq!((mistakes.len(), mistakes[0].input), (1, Some(2)), "{mistakes:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_learnt_is_planned_with_and_run() {
    let late = Late::new(Learns::Well);
    let (asked, opened) = (Arc::clone(&late.asked), Arc::clone(&late.numbers.opened));
    let out = Told { wants: vec!["b"], ..Told::to(Does::Write) };
    let running = start(pipeline(late, "b", out.clone())).await.unwrap();
    let summary = running.finish().await.unwrap();
    assert_eq!(*out.rows.lock().unwrap(), (0..30).collect::<Vec<_>>());
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let columns = opened.lock().unwrap().take().unwrap().columns;
    let names: Vec<_> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["a", "b", tidegate_model::OFFSET]);
    let expected = summary.snapshot.rows_expected.unwrap();
    assert_eq!((expected.rows, expected.is_exact), (30, false));
}

#[tokio::test(start_paused = true)]
async fn mistakes_that_come_to_light_then_are_all_named() {
    let out = Told { wants: vec!["z"], ..Told::to(Does::Write) };
    let picks = Picks { gives: Some("y"), ..Picks::nothing() };
    let builder = Pipeline::builder().source("late", Box::new(Late::new(Learns::Well)) as Box<_>);
    let builder = builder.transform("picks", &["late"], Box::new(picks) as Box<_>);
    let builder = sink(builder, "other", &["picks"], Told::to(Does::Write));
    let error = start(sink(builder, "out", &["late"], out).build().unwrap()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.to_string();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("transforms.picks: ") && lines[0].contains("\"y\""), "{said}");
    assert!(lines[1].starts_with("sinks.out: ") && lines[1].contains("\"z\""), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_learns_nothing_ends_the_start_by_its_name() {
    for (learns, kind, said) in [
        (Learns::Fails(ErrorKind::Disconnected), ErrorKind::Disconnected, "told to"),
        (Learns::Fails(ErrorKind::Invalid), ErrorKind::Invalid, "told to"),
        (Learns::Panics, ErrorKind::Fatal, "panicked, please report this: told to"),
        (Learns::Nothing, ErrorKind::Fatal, "it has connected and does not know its columns"),
    ] {
        let pipeline = pipeline(Late::new(learns), "a", Told::to(Does::Write));
        let error = start(pipeline).await.err().unwrap();
        assert_eq!(error.to_string(), format!("sources.late: {said}"));
        assert_eq!(error.kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn sources_learn_at_the_same_time() {
    let mut builder = Pipeline::builder();
    for name in ["one", "two", "three"] {
        builder = builder.source(name, Box::new(Late::new(Learns::Well)) as Box<_>);
    }
    let builder = sink(builder, "out", &["one", "two", "three"], Told::to(Does::Write));
    let began = Instant::now();
    let running = start(builder.build().unwrap()).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(running.finish().await.unwrap().snapshot.rows_read(), 90);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_given_up_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let late = || {
        let builder = Pipeline::builder().data_dir(folder.path());
        let builder = builder.source("late", Box::new(Late::new(Learns::Well)) as Box<_>);
        sink(builder, "out", &["late"], Told::to(Does::Write)).build().unwrap()
    };
    let once = || RunOptions { once: true, ..RunOptions::default() };
    let given_up = timeout(Duration::from_millis(100), late().start(once())).await;
    assert!(given_up.is_err());
    let summary = late().start(once()).await.unwrap().finish().await.unwrap();
    assert_eq!((summary.snapshot.rows_read(), summary.resumed), (30, false));
}
