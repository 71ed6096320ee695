//! The sink `http` in front of the source `http`: what the one sends the other takes, in every format,
//! over TLS, and with who they are; and what the one is refused the other says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StringViewArray};
use futures::StreamExt;
use tidegate_components::{sinks, sources};
use tidegate_flow::ByteBudget;
use tidegate_model::{
    Delivered, Expected, Records, Result, Settings, Sink, SinkContext, Source, SourceContext,
    Verdict, Written, log_schema,
};
use tidegate_testkit::certificates::Authority;
use tokio::task::JoinSet;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);

/// A source that listens, and what it was sent; it ends with its set.
struct Listening {
    port: u16,
    found: tokio::sync::mpsc::UnboundedReceiver<String>,
    _task: JoinSet<()>,
}

async fn listening(more: &str) -> Listening {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let text = format!("listen = \"{port}\"\n{more}");
    let mut source: Box<dyn Source> =
        (sources::http::SPEC.build)(&Settings::from_toml(&text).unwrap()).unwrap();
    let budget = ByteBudget::new(64 << 20);
    let context = SourceContext {
        name: "api".into(),
        positions: Vec::new(),
        holder: Arc::new(budget.holder(source.bytes_min()).unwrap()),
        columns: Arc::new(log_schema().project(&[4]).unwrap()),
        required: None,
        severity_min: None,
        offsets: false,
        once: false,
        batch_bytes_max: 1 << 20,
        batch_rows_max: 8_192,
        expected: Expected::default(),
    };
    let mut batches = source.open(context).await.unwrap();
    let (tell, found) = tokio::sync::mpsc::unbounded_channel();
    let mut task = JoinSet::new();
    task.spawn(async move {
        // It serves as long as it lives.
        let _source = source;
        while let Some(batch) = batches.next().await {
            let mut batch = batch.unwrap();
            for message in batch.rows.column(0).as_string_view() {
                tell.send(message.unwrap().to_owned()).unwrap();
            }
            batch.told.take().unwrap().settle(Verdict::Delivered);
        }
    });
    Listening { port, found, _task: task }
}

impl Listening {
    fn found(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.found.try_recv().ok()).collect()
    }
}

struct Nothing;

impl Records for Nothing {
    fn load(&self, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn delivered(&self) -> Result<Vec<Delivered>> {
        Ok(Vec::new())
    }

    fn save(&self, _: &str, _: &[u8], _: &[Delivered]) -> Result<()> {
        Ok(())
    }
}

/// What a sink with these settings says of these rows.
async fn sent(url: &str, more: &str, messages: &[String]) -> Written {
    let text = format!("url = \"{url}\"\n{more}");
    let mut sink: Box<dyn Sink> =
        (sinks::http::SPEC.build)(&Settings::from_toml(&text).unwrap()).unwrap();
    let messages: ArrayRef = Arc::new(StringViewArray::from_iter_values(messages));
    let rows = RecordBatch::try_from_iter([("message", messages)]).unwrap();
    let columns = rows.schema();
    sink.open(SinkContext { name: "out".into(), columns, records: Arc::new(Nothing) })
        .await
        .unwrap();
    timeout(DEADLINE, sink.write(&rows)).await.unwrap().unwrap()
}

#[tokio::test]
async fn rows_arrive_as_they_were_in_every_format_and_packing() {
    let mut to = listening("").await;
    let url = format!("http://127.0.0.1:{}/", to.port);
    let plain: Vec<String> = (0..5_000).map(|row| format!("row {row} · {{\"a\": [1,]}}")).collect();
    let odd = ["", "\"\\", "\u{0}\u{1f}\u{7f}", "a\tb", "\u{10ffff}", " x "].map(str::to_owned);
    for codec in ["text", "ndjson", "json"] {
        for compression in ["none", "gzip", "zstd"] {
            let mut rows = plain.clone();
            if codec != "text" {
                rows.extend(odd.clone());
                rows.push("two\r\nlines".to_owned());
            }
            let more = format!(
                "codec = \"{codec}\"\ncompression = \"{compression}\"\nbatch_bytes_max = \"40KiB\""
            );
            let written = sent(&url, &more, &rows).await;
            assert_eq!(written, Written::default(), "{codec}, {compression}");
            assert!(to.found() == rows, "{codec}, {compression}");
        }
    }
}

#[tokio::test]
async fn tls_and_tokens_let_in_who_has_them_and_tell_the_others_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) =
        (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "others"));
    let (server, client) = (ours.issue("server"), ours.issue("client"));
    let stranger = others.issue("stranger");
    let path = |path: &Path| path.display().to_string();
    let mut to = listening(&format!(
        "tls = {{ certificate = \"{}\", key = \"{}\", clients = \"{}\" }}\n\
         auth = {{ tokens = [\"t0ken\"] }}",
        path(&server.certificate),
        path(&server.key),
        path(ours.file())
    ))
    .await;
    let url = format!("https://127.0.0.1:{}/", to.port);
    let tls = |roots: &Authority, shown: Option<&tidegate_testkit::certificates::Issued>| {
        let shown = shown.map(|shown| {
            let (certificate, key) = (path(&shown.certificate), path(&shown.key));
            format!(", certificate = \"{certificate}\", key = \"{key}\"")
        });
        format!("tls = {{ roots = \"{}\"{} }}", path(roots.file()), shown.unwrap_or_default())
    };
    let rows = ["a".to_owned()];
    let token = |token: &str| format!("auth = {{ token = \"{token}\" }}\n");
    for (more, why) in [
        (token("t0ken") + &tls(&others, Some(&client)), "can't connect: "),
        (token("t0ken") + &tls(&ours, None), ""),
        (token("t0ken") + &tls(&ours, Some(&stranger)), ""),
        (token("other") + &tls(&ours, Some(&client)), "it answers 401 Unauthorized: show a token"),
        (tls(&ours, Some(&client)), "it answers 401 Unauthorized: show a token"),
    ] {
        let written = sent(&url, &more, &rows).await;
        assert_eq!((&*written.again, &*written.rejected), (&[0][..], &[][..]), "{more}");
        let said = written.why.unwrap();
        println!("{said}");
        assert!(said.starts_with(why), "{said}");
    }
    assert_eq!(to.found(), [""; 0]);
    let more = token("t0ken") + &tls(&ours, Some(&client));
    assert_eq!(sent(&url, &more, &rows).await, Written::default());
    assert_eq!(to.found(), rows);
}

#[tokio::test]
async fn a_row_that_is_too_long_for_the_one_is_rejected_by_the_other_alone() {
    let mut to = listening("line_bytes_max = 1000\nbody_bytes_max = \"20KiB\"").await;
    let url = format!("http://127.0.0.1:{}/", to.port);
    let mut rows: Vec<String> = (0..1_000).map(|row| format!("row {row}")).collect();
    rows[500] = "x".repeat(1_001);
    rows[700] = "x".repeat(30_000);
    let written = sent(&url, "codec = \"text\"", &rows).await;
    let rejected: Vec<usize> = written.rejected.iter().map(|(row, _)| *row).collect();
    assert_eq!((rejected, &*written.again), (vec![500, 700], &[][..]));
    assert!(written.rejected[0].1.contains("line 1 has more than 1000 bytes"), "{written:?}");
    assert!(written.rejected[1].1.contains("413 Payload Too Large"), "{written:?}");
    rows.retain(|row| row.len() < 1_000);
    assert!(to.found() == rows);
}
