//! A sink that is stuck for good does not make memory grow.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use tidegate_testkit::process::{Program, wait_for};

use crate::support::{DEADLINE, Folder, TIDEGATE};

/// 64 MiB for rows and 96 MiB for all else.
const KIB_MAX: u64 = 160 * 1024;

/// Runs with an endless source and a pipe that nobody reads, until nothing moves any more; then
/// watches for a while.
fn stuck(source: &str, transform: &str, input: &str) {
    let folder = Folder::new();
    let mut log = File::create(folder.path().join("in.log")).unwrap();
    let line = "2026-11-25T10:00:00Z ERROR a line like others, of a length that lines have\n";
    let block = line.repeat(16_384);
    for _ in 0..256 {
        log.write_all(block.as_bytes()).unwrap(); // more than the budget many times over
    }
    folder.fifo("fifo");
    let config = format!(
        "data_dir = \"state\"\n[sources.app]\n{source}\n{transform}\n\
         [sinks.out]\ntype = \"file\"\ninputs = [\"{input}\"]\npath = \"fifo\"\ncodec = \"text\"\n"
    );
    folder.write("pipeline.toml", &config);
    let arguments = ["run", "--memory", "64MiB", "pipeline.toml"];
    let mut program = Program::start(TIDEGATE, folder.path(), arguments);
    let mut before = (0, 0);
    wait_for("memory to stand still", DEADLINE, || {
        let alive = program.runs_for(Duration::from_millis(500));
        assert!(alive, "it ended: {:?}", program.memory_kib("VmHWM"));
        let now = (program.memory_kib("VmRSS")?, program.bytes_read()?);
        let same = now == before && now.1 > 0;
        before = now;
        same.then_some(())
    });
    assert!(program.runs_for(Duration::from_secs(3)));
    let peak = program.memory_kib("VmHWM").unwrap();
    println!("peak {} MiB", peak / 1024);
    assert!(peak <= KIB_MAX, "{peak} KiB at most, {KIB_MAX} are allowed");
    let now = program.memory_kib("VmRSS").unwrap();
    assert!(now <= before.0 + 1_024, "it grows while it stands still: {} to {now} KiB", before.0);
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_into_a_pipe_that_nobody_reads() {
    stuck("type = \"file\"\ninclude = [\"in.log\"]", "", "app");
}

#[test]
#[cfg(target_os = "linux")]
fn an_endless_source_through_sql_into_a_pipe_that_nobody_reads() {
    let sql = "[transforms.sql]\ntype = \"sql\"\ninputs = [\"app\"]\n\
               query = \"SELECT upper(message) || repeat('x', 100) AS message FROM input\"";
    stuck("type = \"generate\"\ntemplate = \"app\"", sql, "sql");
}
