//! The program as people call it: exit codes, what is said where, and the examples.

use std::fs;
use std::io::{BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate_testkit::process::{Ended, Program, wait_for};

use crate::support::{DEADLINE, Folder, TIDEGATE};

#[expect(unreachable_pub, reason = "it is an example of its own, too")]
#[path = "../../examples/embed.rs"]
mod embed;

const ERRORS: &str = r#"
data_dir = "state"

[sources.app]
type = "file"
include = ["in.log"]

[transforms.errors]
type = "sql"
inputs = ["app"]
query = "SELECT message FROM input WHERE message LIKE '%ERROR%'"

[sinks.out]
type = "file"
inputs = ["errors"]
path = "out.log"
"#;

/// The same, printed.
fn printed() -> String {
    ERRORS.replace("type = \"file\"\ninputs", "type = \"stdout\"\ninputs").replace("path =", "#")
}

fn lines(count: usize) -> String {
    let level = |number| if number % 10 == 0 { "ERROR" } else { "INFO" };
    (0..count).map(|number| format!("{} line {number}\n", level(number))).collect()
}

/// A folder with this pipeline and this input.
fn folder(pipeline: &str, input: &str) -> Folder {
    let folder = Folder::new();
    folder.write("pipeline.toml", pipeline);
    folder.write("in.log", input);
    folder
}

/// Exit code, standard output, standard error.
fn run(folder: &Folder, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Ended { status, stdout, stderr } = folder.run(arguments);
    (status.code(), stdout, stderr)
}

#[test]
fn a_run_to_the_end_counts_and_a_second_one_has_nothing_new() {
    let folder = folder(ERRORS, &lines(1_000));
    let (code, out, said) = run(&folder, &["run", "--once", "pipeline.toml"]);
    assert_eq!((code, &*out), (Some(0), ""), "{said}");
    let sum = "1,000 rows read, 100 written, 0 refused, 0 rejected, 0 dropped\n";
    assert!(said.ends_with(sum) && !said.contains('\x1b'), "{said}");
    assert_eq!(folder.read("out.log").lines().count(), 100);

    let (code, out, said) = run(&folder, &["run", "--once", "pipeline.toml"]);
    assert_eq!((code, &*out), (Some(0), ""), "{said}");
    assert!(said.ends_with("; nothing new since the last run\n"), "{said}");
    assert_eq!(folder.read("out.log").lines().count(), 100);

    let (code, _, said) = run(&folder, &["run", "--once", "--quiet", "pipeline.toml"]);
    assert_eq!((code, &*said), (Some(0), ""));
}

#[test]
fn the_standard_output_carries_data_only() {
    let folder = folder(&printed(), "ERROR one\nINFO two\nERROR three\n");
    let (code, out, said) = run(&folder, &["run", "--once", "pipeline.toml"]);
    assert_eq!((code, &*out), (Some(0), "ERROR one\nERROR three\n"), "{said}");
}

#[test]
fn a_reader_that_has_seen_enough_is_a_success() {
    let folder = folder(&printed(), &lines(300_000));
    let script = format!("{TIDEGATE} run --once pipeline.toml | head -1; echo ${{PIPESTATUS[0]}}");
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(folder.path());
    let ended = Program::of(command).ended(DEADLINE);
    assert_eq!(ended.stdout, "ERROR line 0\n0\n", "{ended:?}");
    assert!(!ended.stderr.contains("error"), "{ended:?}");
}

#[test]
fn what_is_printed_about_a_command_may_be_cut_short() {
    for arguments in ["list", "demo --print", "run --help"] {
        let script = format!("{TIDEGATE} {arguments} | true; echo ${{PIPESTATUS[0]}}");
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir("/");
        let ended = Program::of(command).ended(DEADLINE);
        assert_eq!((&*ended.stdout, &*ended.stderr), ("0\n", ""), "{arguments}");
    }
}

#[test]
fn wrong_usage_and_configurations_exit_2_and_open_nothing() {
    let wrong = ERRORS.replace("LIKE", "LYKE").replace("\"errors\"", "\"eror\"");
    let folder = folder(&wrong, "");
    folder.write("latin.toml", b"data_dir = \"caf\xe9\"\n");
    folder.write("empty.toml", "");
    let long = "#".repeat(10_000_000);
    folder.write("long.toml", long);
    for (arguments, words) in [
        (vec!["run", "pipeline.toml"], vec!["pipeline.toml:11:", "LYKE", "2 mistakes in"]),
        (vec!["check", "pipeline.toml"], vec!["did you mean `errors`?", "2 mistakes in"]),
        (vec!["check", "nowhere.toml"], vec!["can't read nowhere.toml: there is no such file"]),
        (vec!["check", "."], vec!["can't read .: it is a folder"]),
        (vec!["check", "latin.toml"], vec!["latin.toml:1:16", "no UTF-8", "save it as UTF-8"]),
        (vec!["check", "empty.toml"], vec!["there is nothing in [sources]"]),
        (vec!["check", "long.toml"], vec!["too long for a configuration"]),
        (vec!["run", "pipeline.toml", "--memory", "5 apples"], vec!["such as 64MiB"]),
        (vec!["run", "--log-level", "loud", "pipeline.toml"], vec!["--log-level can't be `loud`"]),
        (vec!["run"], vec!["required arguments were not provided"]),
        (vec!["fly"], vec!["unrecognized subcommand"]),
        (vec!["list", "kafka"], vec!["there is no `kafka`"]),
    ] {
        let (code, out, said) = run(&folder, &arguments);
        assert_eq!((code, &*out), (Some(2), ""), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?} says nothing of {word}: {said}");
        }
    }
    assert!(!folder.path().join("state").exists());
}

#[test]
fn what_fails_while_running_exits_1_by_name() {
    let folder = folder(&ERRORS.replace("out.log", "nowhere/out.log"), &lines(10));
    let (code, _, said) = run(&folder, &["run", "--once", "pipeline.toml"]);
    assert_eq!(code, Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains("sinks.out"), "{said}");
    assert!(said.contains("failed in "), "{said}");
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let folder = folder(ERRORS, &lines(10));
    let first = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
    wait_for("the output", DEADLINE, || (!folder.read("out.log").is_empty()).then_some(()));
    let (code, _, said) = run(&folder, &["run", "pipeline.toml"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("data_dir"), "{said}");
    first.kill();
}

#[test]
fn a_check_counts_opens_nothing_and_says_what_it_did_not_look_at() {
    let folder = folder(&ERRORS.replace("in.log", "/nowhere/*.log"), "");
    let (code, out, said) = run(&folder, &["check", "pipeline.toml"]);
    assert_eq!((code, &*said), (Some(0), ""));
    assert!(out.starts_with("ok: 1 source, 1 transform, 1 sink\nnot checked: "), "{out}");
    assert!(!folder.path().join("state").exists());
}

#[test]
fn options_go_before_the_configuration_and_logs_can_be_json() {
    let folder = folder(ERRORS, &lines(10));
    let mut program = Program::start(
        TIDEGATE,
        folder.path(),
        ["run", "pipeline.toml", "--data-dir", "elsewhere", "--log-format", "json"],
    );
    wait_for("the output", DEADLINE, || (!folder.read("out.log").is_empty()).then_some(()));
    assert!(program.is_running());
    program.signal("INT");
    let ended = program.ended(DEADLINE);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(folder.path().join("elsewhere").exists() && !folder.path().join("state").exists());
    let stopping = ended.stderr.lines().find(|line| line.contains("stopping")).unwrap_or_default();
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("stopped in ") && last.contains(": 10 rows read"), "{ended:?}");
    assert!(stopping.starts_with('{') && stopping.contains("\"level\":\"INFO\""), "{ended:?}");
}

#[test]
fn a_second_signal_stops_at_once() {
    let folder = folder(&ERRORS.replace("out.log", "fifo"), &lines(100));
    folder.fifo("fifo");
    let mut program = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
    wait_for("it to read", DEADLINE, || program.bytes_read().filter(|bytes| *bytes > 0));
    assert!(program.runs_for(Duration::from_millis(300)));
    program.signal("TERM");
    assert!(program.runs_for(Duration::from_millis(300)), "it gave up before its deadline");
    program.signal("TERM");
    let ended = program.ended(Duration::from_secs(20));
    assert_eq!(ended.code(), Some(1), "{ended:?}");
}

#[test]
fn what_is_piped_in_comes_out() {
    let pipeline = printed().replace("type = \"file\"", "type = \"stdin\"");
    let folder = folder(&pipeline.replace("include", "#"), "");
    let mut command = Command::new(TIDEGATE);
    command.args(["run", "--once", "pipeline.toml"]).current_dir(folder.path());
    command.stdin(Stdio::piped());
    let mut program = Program::of(command);
    let mut input = program.child().stdin.take().unwrap();
    input.write_all(b"ERROR one\nINFO two\nERROR without an end").unwrap();
    drop(input);
    let ended = program.ended(DEADLINE);
    assert_eq!((ended.code(), &*ended.stdout), (Some(0), "ERROR one\nERROR without an end\n"));
    let (_, out, _) = run(&folder, &["check", "pipeline.toml"]);
    assert!(out.contains("note: sources.app can't be read again"), "{out}");
}

#[test]
fn the_demo_loses_nothing_and_shows_errors_and_numbers() {
    let folder = Folder::new();
    let (code, out, said) = run(&folder, &["demo", "--for", "2s", "--rate", "5000"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("none lost") && said.contains(" rows/s "), "{said}");
    assert!(out.lines().count() > 0 && said.contains("archived"), "{out}{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it left something behind");
}

#[test]
fn the_demo_has_a_page_that_shows_its_pipeline() {
    let folder = Folder::new();
    let mut program = Program::start(TIDEGATE, folder.path(), ["demo", "--rate", "2000"]);
    let address = wait_for("the page's address", DEADLINE, || {
        assert!(program.is_running(), "{}", program.stderr());
        let said = program.stderr();
        let address = said.split("http://").nth(1)?.split_once('/')?.0;
        Some(address.to_owned())
    });
    let asked = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        stream
    };
    let whole = |path: &str| {
        let mut text = String::new();
        asked(path).read_to_string(&mut text).unwrap();
        text
    };
    let page = whole("/");
    assert!(page.contains("text/html") && page.contains("new EventSource(\"events\")"), "{page}");
    assert!(whole("/nowhere").starts_with("HTTP/1.1 404 "));
    let state = std::io::BufReader::new(asked("/events")).lines().map(Result::unwrap);
    let state = state.filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned())).next();
    let state: serde_json::Value = serde_json::from_str(&state.unwrap()).unwrap();
    let names: Vec<_> = state["components"].as_array().unwrap().iter().collect();
    let names: Vec<_> = names.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["app", "web", "database", "errors", "alerts", "archive"]);
    assert!(state["components"][1]["rows"].as_f64().unwrap() > 0.0, "{state}");
    assert_eq!(state["edges"].as_array().unwrap().len(), 6);
    // One that watches does not keep it from ending.
    let _watching = asked("/events");
    program.signal("INT");
    let ended = program.ended(DEADLINE);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("none lost"), "{}", ended.stderr);
}

/// A table's columns are known only when its server has answered.
#[test]
fn what_waits_for_a_database_is_named_and_a_signal_ends_the_waiting() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let folder = Folder::new();
    let pipeline = format!(
        "[sources.users]\ntype = \"postgres\"\ntable = \"users\"\n\
         url = \"postgres://me@{address}/db?sslmode=disable\"\n\
         [transforms.adults]\ntype = \"sql\"\ninputs = [\"users\"]\n\
         query = \"SELECT name FROM input WHERE age >= 18\"\n\
         [sinks.out]\ntype = \"stdout\"\ninputs = [\"adults\"]\n"
    );
    folder.write("pipeline.toml", &pipeline);
    let (code, out, said) = run(&folder, &["check", "pipeline.toml"]);
    assert_eq!((code, &*said), (Some(0), ""));
    let waits =
        "not checked: transforms.adults, sinks.out, as the columns of sources.users are known";
    assert!(out.contains(waits), "{out}");
    let program = Program::start(TIDEGATE, folder.path(), ["run", "pipeline.toml"]);
    let _asked = silent.accept().unwrap();
    program.signal("INT");
    let ended = program.ended(DEADLINE);
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), "stopped before it had begun to read\n"));
    // Declared, they are checked; what is wrong then is not found first by the server.
    let declared = pipeline.replace("table =", "schema = { name = \"text\" }\ntable =");
    folder.write("pipeline.toml", declared);
    let (code, _, said) = run(&folder, &["check", "pipeline.toml"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("age"), "{said}");
    drop(silent);
    folder.write("pipeline.toml", pipeline);
    let (code, _, said) = run(&folder, &["run", "--once", "pipeline.toml"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("error: sources.users: "), "{said}");
}

#[test]
fn what_the_demo_prints_is_a_configuration() {
    let folder = Folder::new();
    folder.write("pipeline.toml", run(&folder, &["demo", "--print"]).1);
    let (code, out, said) = run(&folder, &["check", "pipeline.toml"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.starts_with("ok: 3 sources, 1 transform, 2 sinks"), "{out}");
}

/// Everything `list` shows is what a configuration may hold.
#[test]
fn what_is_listed_works_as_it_stands() {
    let folder = Folder::new();
    let (_, all, _) = run(&folder, &["list"]);
    let names = all.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    for (index, name) in names.enumerate() {
        let (code, shown, _) = run(&folder, &["list", name]);
        assert_eq!(code, Some(0));
        let parts = shown.split("\n\n").enumerate().map(|(part, text)| {
            let text = text.replace(".NAME]", &format!(".this{part}]")).replace("INPUT", "in");
            let reader = match text.contains("[sinks.") {
                true => String::new(),
                false => format!(
                    "[sinks.reader{part}]\ntype = \"blackhole\"\ninputs = [\"this{part}\"]\n"
                ),
            };
            format!("{text}\n{reader}")
        });
        let parts: String = parts.collect();
        let input = "[sources.in]\ntype = \"stdin\"\n[sinks.all]\ntype = \"blackhole\"\n\
                     inputs = [\"in\"]\n";
        let file = format!("{index}.toml");
        folder.write(&file, format!("{input}{parts}"));
        let (code, _, said) = run(&folder, &["check", &file]);
        assert_eq!(code, Some(0), "{name}: {said}");
    }
}

#[test]
fn the_examples_are_right() {
    let examples = fs::canonicalize("../../examples").unwrap();
    let entries = fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path());
    let examples: Vec<PathBuf> =
        entries.filter(|path| path.extension() == Some("toml".as_ref())).collect();
    assert!(examples.len() >= 3, "{examples:?}");
    let folder = Folder::new();
    for example in examples {
        let (code, out, said) = run(&folder, &["check", &example.display().to_string()]);
        assert_eq!(code, Some(0), "{said}");
        assert!(out.starts_with("ok: "), "{out}");
    }
}

#[test]
fn a_pipeline_in_a_program_of_ones_own_runs() {
    embed::main().unwrap();
}
