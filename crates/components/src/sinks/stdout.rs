//! `stdout`: rows to standard output.
//!
//! At least once: what was written is out of our hands, and after a crash rows that were not
//! settled are written again. A reader that has seen enough (`| head`) ends the run as a success; one
//! that does not read holds the sink up, for as long as it likes.

use std::os::fd::AsFd;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_model::{
    Commit, Delivered, Error, Mistake, Result, Settings, Sink, SinkContext, SinkSpec, Spanned,
    Written,
};

use crate::codecs::encode::{Format, csv};
use crate::outlet::Outlet;

/// See the module.
pub const SPEC: SinkSpec = SinkSpec {
    summary: "prints rows on standard output",
    example: r#"codec = "ndjson" # or "csv", or "text", the default
# csv = { header = true, delimiter = ",", quote = '"', null = "" }"#,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How rows are written: `text` (the default), `ndjson` or `csv`.
    codec: Option<Spanned<String>>,
    /// What only CSV has.
    csv: Option<Spanned<csv::Options>>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Sink>, Mistake> {
    let config: Config = settings.parse()?;
    let format = Format::new(config.codec.as_ref(), config.csv.as_ref(), &[])?;
    Ok(Box::new(StdoutSink { format, has_begun: false, outlet: None }))
}

struct StdoutSink {
    format: Format,
    // Whether it has been open before.
    has_begun: bool,
    outlet: Option<Outlet>,
}

impl Sink for StdoutSink {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        self.format.columns(input)
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    fn target(&self) -> Option<String> {
        Some("standard output".to_owned())
    }

    fn open(&mut self, context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async move {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned();
            let outlet = stdout.and_then(|stdout| Outlet::new(stdout.into(), false));
            let closed = |error| Error::fatal("can't use standard output").because(error);
            let head = match self.has_begun {
                true => Vec::new(),
                false => self.format.head(&context.columns),
            };
            self.outlet = Some(outlet.map_err(closed)?.begin(&head));
            self.has_begun = true;
            Ok(Vec::new())
        })
    }

    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async {
            let Some(outlet) = &mut self.outlet else {
                return Err(Error::fatal("standard output is not open: open it before writing"));
            };
            outlet.write_rows(&self.format, rows, failed).await?;
            Ok(Written::default())
        })
    }

    fn commit<'a>(&'a mut self, _delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

fn failed(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Error::closed("standard output was closed"),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::disconnected("standard output goes to a full disk: make room on it")
        }
        _ => Error::fatal("can't write to standard output"),
    }
    .because(error)
}
