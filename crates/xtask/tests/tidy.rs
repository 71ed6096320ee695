//! The house rules that a program can check, over the whole tree. Each rule is a function from a
//! file to complaints, and has a test that shows it a file it must complain about.

use std::fs;
use std::path::Path;

/// A text file: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

type Rule = fn(&File) -> Vec<String>;

/// Rules about one file at a time.
const RULES: [(&str, Rule); 8] = [
    ("length", length),
    ("opening", opening),
    ("unsafe", no_unsafe),
    ("sleep", no_real_sleep),
    ("left over", nothing_left_over),
    ("direction", direction),
    ("detached", no_detached_tasks),
    ("hosts and paths", no_hosts_or_paths),
];

/// Exceptions: rule, path, reason.
const WAIVERS: [(&str, &str, &str); 4] = [
    (
        "sleep",
        "crates/testkit/src/bench/machine.rs",
        "the kernel's CPU accounts need a nap to be current",
    ),
    ("unsafe", "crates/components/src/codecs/views.rs", "the one module for views into text"),
    ("left over", "crates/xtask/tests/tidy.rs", "names what it forbids"),
    ("hosts and paths", "crates/xtask/tests/tidy.rs", "names what it forbids"),
];

const FILE_LINES_MAX: usize = 600;
const ARCHITECTURE_LINES_MAX: usize = 200;

const DOCUMENTS: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "STYLE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
];

#[test]
fn the_tree_is_tidy() {
    let files = tree();
    let mut complaints = Vec::new();
    for file in &files {
        for (name, rule) in RULES {
            let waived = WAIVERS.iter().any(|waiver| (waiver.0, waiver.1) == (name, &*file.path));
            if !waived {
                complaints.extend(rule(file));
            }
        }
    }
    let text = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.map(|file| file.text.as_str()).unwrap_or_default()
    };
    complaints.extend(operators_without_contract(
        text("crates/flow/src/lib.rs"),
        text("crates/flow/tests/suite/operators.rs"),
    ));
    complaints.extend(
        DOCUMENTS
            .iter()
            .filter(|document| text(document).is_empty())
            .map(|document| format!("{document}: is missing; every checkout has one")),
    );
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn waivers_are_in_use() {
    let files = tree();
    for (name, path, reason) in WAIVERS {
        let rule = RULES.iter().find(|rule| rule.0 == name).expect("a rule of that name").1;
        let file = files.iter().find(|file| file.path == path).expect("a file of that path");
        assert!(!rule(file).is_empty(), "{path} needs no waiver from {name} ({reason})");
    }
}

/// All text files, but those that are built, fetched or hidden.
fn tree() -> Vec<File> {
    let root = Path::new("../..").to_path_buf();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if ["target", ".git", "node_modules"].iter().any(|skipped| name == *skipped) {
                continue; // a folder, or the file that is in its place in a worktree or submodule
            }
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let (Ok(text), Ok(within)) =
                (fs::read_to_string(&path), path.strip_prefix(&root))
            {
                files.push(File { path: within.display().to_string(), text });
            }
        }
    }
    assert!(files.len() > 30, "the tree was not found, only {} files", files.len());
    files
}

/// Complaints about the lines of a file of which something is true.
fn lines(file: &File, advice: &str, bad: impl Fn(&str) -> bool) -> Vec<String> {
    let numbered = file.text.lines().zip(1..);
    let found = numbered.filter(|(line, _)| bad(line));
    found
        .map(|(line, number)| format!("{}:{number}: `{}`: {advice}", file.path, line.trim()))
        .collect()
}

fn is_rust(file: &File) -> bool {
    file.path.ends_with(".rs")
}

fn length(file: &File) -> Vec<String> {
    let max = match &*file.path {
        "ARCHITECTURE.md" => ARCHITECTURE_LINES_MAX,
        _ if is_rust(file) => FILE_LINES_MAX,
        _ => return Vec::new(),
    };
    let count = file.text.lines().count();
    let complaint =
        format!("{}: {count} lines, at most {max}: split it by what it does", file.path);
    Vec::from_iter((count > max).then_some(complaint))
}

fn opening(file: &File) -> Vec<String> {
    let complaint = format!("{}:1: opens without `//!`: say why the file exists", file.path);
    Vec::from_iter((is_rust(file) && !file.text.starts_with("//! ")).then_some(complaint))
}

fn no_unsafe(file: &File) -> Vec<String> {
    let lint = concat!("(unsafe", "_code"); // allowed or expected
    lines(file, "unsafe code has its one module, codecs/views.rs", |line| {
        is_rust(file) && line.contains(lint)
    })
}

/// Real sleeps in tests; under a paused clock tokio's are no sleeps.
fn no_real_sleep(file: &File) -> Vec<String> {
    if !is_rust(file) {
        return Vec::new();
    }
    let paused = file.text.contains("start_paused") || file.text.contains("time::pause");
    let in_tests = file.path.contains("/tests/");
    let advice = "wait for a condition, or pause the clock";
    lines(file, advice, |line| {
        line.contains(concat!("thread::", "sleep"))
            || (in_tests && !paused && line.contains(concat!("time::", "sleep(")))
    })
}

fn nothing_left_over(file: &File) -> Vec<String> {
    let words = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX"];
    lines(file, "finish it, or file an issue", |line| {
        is_rust(file) && words.iter().any(|word| line.contains(word))
    })
}

/// Which of our crates a crate may use; the testkit may be used by all, in tests.
fn direction(file: &File) -> Vec<String> {
    let Some(name) = file.path.strip_prefix("crates/").and_then(|p| p.strip_suffix("/Cargo.toml"))
    else {
        return Vec::new();
    };
    let may_use: &[&str] = match name {
        "flow" | "testkit" | "xtask" => &[],
        "model" | "net" => &["flow"],
        "db" => &["flow", "net"],
        "components" => &["flow", "model", "net", "db"],
        "engine" => &["flow", "model"],
        "sql" => &["model"],
        _ => &["flow", "model", "net", "db", "components", "engine", "sql"],
    };
    let advice = "that direction is closed, see ARCHITECTURE.md";
    lines(file, advice, |line| {
        let used = line.strip_prefix("tidegate-").map(|rest| {
            rest.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or_default()
        });
        let closed = used.is_some_and(|used| used != "testkit" && !may_use.contains(&used));
        closed || (name != "sql" && line.starts_with("datafusion"))
    })
}

/// Tasks in components belong to the component or to the engine.
fn no_detached_tasks(file: &File) -> Vec<String> {
    let component =
        file.path.starts_with("crates/components/src/") && !file.path.ends_with("/tests.rs");
    let advice = "use a JoinSet that the component owns";
    lines(file, advice, |line| component && line.contains("tokio::spawn("))
}

fn no_hosts_or_paths(file: &File) -> Vec<String> {
    let words = [
        "static.crates.io",
        "index.crates.io",
        "pypi.org",
        "registry.npmjs.org",
        "deb.debian.org",
        "/work/",
        "/root/",
    ];
    lines(file, "name no registry's host and no path of one machine", |line| {
        file.path != "Cargo.lock" && words.iter().any(|word| line.contains(word))
    })
}

/// Operators of `FlowExt` that are no row of the contract's table.
fn operators_without_contract(library: &str, table: &str) -> Vec<String> {
    let methods = library.split_once("pub trait FlowExt").map(|(_, rest)| rest).unwrap_or_default();
    let names = methods.lines().filter_map(|line| {
        let rest = line.strip_prefix("    fn ")?;
        rest.split(['<', '(']).next()
    });
    let missing = names.filter(|name| !table.contains(&format!("\"{name}\"")));
    let complaint = |name| format!("`{name}` is no row of crates/flow/tests/suite/operators.rs");
    missing.map(complaint).collect()
}

#[cfg(test)]
mod rules {
    use super::*;

    /// The complaints of a rule about a file with this path and text.
    fn said(rule: Rule, path: &str, text: &str) -> usize {
        rule(&File { path: path.to_owned(), text: text.to_owned() }).len()
    }

    #[test]
    fn each_complains_about_what_it_forbids_and_about_nothing_else() {
        let long = "\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!((said(length, "a.rs", &long), said(length, "a.json", &long)), (1, 0));
        assert_eq!(said(length, "ARCHITECTURE.md", &long), 1);
        assert_eq!((said(opening, "a.rs", "use x;"), said(opening, "a.rs", "//! Why.")), (1, 0));
        let allowed = concat!("#![allow(unsafe", "_code)]");
        assert_eq!((said(no_unsafe, "a.rs", allowed), said(no_unsafe, "a.md", allowed)), (1, 0));
        let expected = concat!("#[expect(unsafe", "_code, reason = \"\")]");
        assert_eq!(said(no_unsafe, "a.rs", expected), 1);
        let sleep = concat!("tokio::time::", "sleep(TIME)");
        let tests = "crates/a/tests/a.rs";
        assert_eq!(said(no_real_sleep, tests, sleep), 1);
        assert_eq!(said(no_real_sleep, tests, &format!("start_paused\n{sleep}")), 0);
        assert_eq!(said(no_real_sleep, "crates/a/src/a.rs", sleep), 0);
        assert_eq!(said(no_real_sleep, "a.rs", concat!("std::thread::", "sleep(TIME)")), 1);
        assert_eq!(said(nothing_left_over, "a.rs", "todo!()\ndbg!(x)"), 2);
        let flow = "crates/flow/Cargo.toml";
        assert_eq!(said(direction, flow, "tidegate-model.workspace = true"), 1);
        assert_eq!(said(direction, flow, "tidegate-testkit.workspace = true"), 0);
        assert_eq!(said(direction, "crates/engine/Cargo.toml", "tidegate-components = 1"), 1);
        assert_eq!(said(direction, "crates/engine/Cargo.toml", "tidegate-flow = 1"), 0);
        assert_eq!(said(direction, flow, "datafusion-expr = 55"), 1);
        assert_eq!(said(direction, "crates/sql/Cargo.toml", "datafusion-expr = 55"), 0);
        let spawn = "tokio::spawn(x)";
        assert_eq!(said(no_detached_tasks, "crates/components/src/sources/a.rs", spawn), 1);
        assert_eq!(said(no_detached_tasks, "crates/flow/src/task.rs", spawn), 0);
        assert_eq!(said(no_hosts_or_paths, "README.md", "see https://pypi.org/x"), 1);
    }

    #[test]
    fn an_operator_without_a_row_is_named() {
        let library = "pub trait FlowExt {\n    fn pace(self)\n    fn skip_all<F>(self)\n}";
        let complaints = operators_without_contract(library, "inline(\"pace\", ");
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("`skip_all`"));
    }
}
