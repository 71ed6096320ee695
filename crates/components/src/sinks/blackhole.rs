//! `blackhole`: takes rows and forgets them. For measuring what comes before a sink, and, with a
//! delay, for seeing what a slow one does to it.
//!
//! It reads all columns, as a sink would that writes them.

use std::time::Duration;

use arrow_array::RecordBatch;
use futures_core::future::BoxFuture;
use serde::Deserialize;
use tidegate_model::{
    Commit, Delivered, Mistake, Result, Settings, Sink, SinkContext, SinkSpec, TimeSpan, Written,
};

/// See the module.
pub const SPEC: SinkSpec = SinkSpec {
    summary: "takes rows and forgets them, slowly if told so",
    example: r#"delay = "10ms" # for each batch; none if left out"#,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How long it takes for each batch; no time at all if left out.
    delay: Option<TimeSpan>,
}

fn build(settings: &Settings<'_>) -> Result<Box<dyn Sink>, Mistake> {
    let config: Config = settings.parse()?;
    Ok(Box::new(BlackholeSink { delay: config.delay.map(|TimeSpan(delay)| delay) }))
}

struct BlackholeSink {
    delay: Option<Duration>,
}

impl Sink for BlackholeSink {
    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    fn open(&mut self, _context: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn write<'a>(&'a mut self, _rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        Box::pin(async {
            if let Some(delay) = self.delay {
                tokio::time::sleep(delay).await;
            }
            Ok(Written::default())
        })
    }

    fn commit<'a>(&'a mut self, _delivered: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
