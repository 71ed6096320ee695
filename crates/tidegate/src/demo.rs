//! `tidegate demo`: three live sources through one byte budget and a fair merge, through SQL to two
//! sinks, one that must have everything and one that may miss some.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate::engine::{Overrides, Role, RunOptions, Snapshot, Store, config};
use tidegate::model::{Error, ErrorKind};

use crate::failed::Failed;
use crate::logging::Logs;
use crate::screen::{Screen, Status};
use crate::{progress, session};

/// The same for browsers.
mod page;

use page::Page;

/// Each source's share of the rate, in percent.
const SHARES: [(&str, u64); 3] = [("app", 30), ("web", 60), ("database", 10)];

/// Shows three live log sources on their way to two sinks, with nothing to install or configure
///
/// Lines of an app, a web server and a database are merged fairly. An archive gets every line and
/// slows the sources when it is full; alerts are some of the errors, printed as they come, and miss
/// the oldest ones when nobody reads that fast. Ctrl-C stops the sources and drains the
/// rest. A page for browsers shows the same: its address is printed. The pipeline itself:
/// tidegate demo --print
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate demo\n  tidegate demo --for 10s\n  \
                        tidegate demo --for 1m --rate 200000\n  \
                        tidegate demo --print > pipeline.toml")]
pub(crate) struct Args {
    /// How long to run, such as 30s or 2m; until Ctrl-C when left out
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// How many lines a second the three sources make together
    #[arg(
        long,
        default_value = "3000",
        value_parser = clap::value_parser!(u64).range(10..=10_000_000)
    )]
    rate: u64,
    /// Where the page is served; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Print the pipeline's configuration, and run nothing
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    logs: Logs,
}

/// The configuration of the demo, for so many lines a second.
fn configuration(rate: u64) -> String {
    let sources = SHARES.map(|(name, percent)| {
        format!(
            "[sources.{name}]\ntype = \"generate\"\ntemplate = \"{name}\"\ncodec = \"auto\"\n\
             rate = {}\n\n",
            (rate * percent / 100).max(1)
        )
    });
    format!("{HEAD}{}{REST}", sources.concat())
}

const HEAD: &str = r#"# Three live sources, merged, through SQL to two sinks. `tidegate demo` runs this.
memory = "16MiB"

"#;

const REST: &str = r#"# One error in sixteen, so that people can read them.
[transforms.errors]
type = "sql"
inputs = ["app", "web", "database"]
query = """
SELECT '  alert from ' || source || ': ' || message AS alert
FROM input
WHERE severity >= severity('error') AND md5(message) LIKE '0%'
"""

# Prints errors as they come. Who reads them slowly misses the oldest ones.
[sinks.alerts]
type = "stdout"
inputs = ["errors"]
when_full = "drop_oldest"
queue_bytes_max = "64KiB"

# Gets every line, and slows the sources when it is full.
[sinks.archive]
type = "blackhole"
inputs = ["app", "web", "database"]
delay = "1ms"
queue_bytes_max = "512KiB"
"#;

/// Runs until the time is over, or until Ctrl-C.
pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let text = configuration(args.rate);
    if args.print {
        use std::io::Write;
        return Ok(std::io::stdout().write_all(text.as_bytes())?);
    }
    let screen = Arc::new(Screen::new());
    args.logs.start(Arc::clone(&screen))?;
    let (registry, overrides) = (tidegate::registry(), Overrides::default());
    let pipeline = config::load("demo.toml", &text, &registry, &|_| None, &overrides);
    let pipeline = pipeline.map_err(Failed::usage)?;
    let mut signals = session::Signals::listen()?;
    let page = Page::serve(args.listen)?;
    // The demo leaves nothing behind, so its positions need no folder.
    let store = Store::in_memory().map_err(Failed::data)?;
    let options = RunOptions { store: Some(store), ..RunOptions::default() };
    let running = pipeline.start(options).await.map_err(Failed::data)?;
    screen.print(
        b"app, web and database logs -> 16 MiB budget -> fair merge -> SQL -> fan-out to the archive \
          (blocks) and to alerts (may miss some); Ctrl-C stops\n",
    );
    screen.print(format!("the same in a browser: {}\n", page.url()).as_bytes());
    screen.show_status(Status::Lines);
    let status = |before: &Snapshot, now: &Snapshot| {
        page.show(before, now);
        progress::live(before, now)
    };
    let ended = session::watch(running, &mut signals, &screen, args.time, status).await?;
    page.close().await;
    let summary = ended.outcome.map_err(|failure| Failed::data(failure.error))?;
    let last = last_line(&summary.snapshot).map_err(Failed::data)?;
    screen.print(last.as_bytes());
    Ok(())
}

/// What came of it, and the check that nothing was lost.
fn last_line(now: &Snapshot) -> Result<String, Error> {
    let sink =
        |name| now.of(Role::Sink).find(|sink| &*sink.name == name).map_or(0, |sink| sink.rows);
    let (read, archived, shown) = (now.rows_read(), sink("archive"), sink("alerts"));
    if read != archived {
        let lost = format!("{read} lines were read, but {archived} archived: please report this");
        return Err(Error::new(ErrorKind::Fatal, lost));
    }
    Ok(format!(
        "done in {:.1} s: {} lines read, {} archived, none lost; {} alerts shown, {} missed\n",
        now.elapsed.as_secs_f64(),
        progress::count(read),
        progress::count(archived),
        progress::count(shown),
        progress::count(now.dropped()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_pipeline_is_right_at_every_rate() {
        for rate in [10, 3_000, 10_000_000] {
            let text = configuration(rate);
            let registry = tidegate::registry();
            let loaded =
                config::load("demo.toml", &text, &registry, &|_| None, &Overrides::default());
            assert!(loaded.is_ok(), "{}", loaded.err().unwrap());
        }
    }
}
