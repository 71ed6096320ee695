//! What the TOML parser says, in words; one mistake where one slip makes it complain many times.

use std::ops::Range;

use tidegate_model::Mistake;
use toml::de::{DeTable, DeValue, Error};

/// How the parser complains, what of, how long its beginning is, and the remedy.
const OPEN: [(&str, &str, usize, &str); 4] = [
    ("unclosed array,", "this list", 1, "end it with ]"),
    ("unclosed inline table", "this table", 1, "end it with }"),
    ("invalid multi-line basic", "this text", 3, "end it with \"\"\""),
    ("invalid multi-line literal", "this text", 3, "end it with '''"),
];

/// The mistakes of a text that is no TOML; never none.
///
/// The parser goes on after a mistake, and then often trips over the consequences. Only the first
/// one of each table is given, and none after something that was never closed.
pub(crate) fn mistakes(text: &str, table: &DeTable<'_>, errors: Vec<Error>) -> Vec<Mistake> {
    let end = text.len()..text.len();
    let mut errors: Vec<(Range<usize>, String)> = errors
        .iter()
        .map(|error| (error.span().unwrap_or(end.clone()), error.message().to_owned()))
        .collect();
    errors.sort_by_key(|(span, _)| span.start);
    // What has no end takes all tables from there on.
    let open = errors.iter().find_map(|(span, said)| {
        let what = OPEN.iter().find(|(start, ..)| said.starts_with(start))?;
        let start = unclosed(table, span.start)?;
        Some((start, what))
    });
    if let Some((start, (_, what, marks, help))) = open {
        let place = start..start + marks;
        return vec![Mistake::at(place, format!("{what} is not closed")).help(*help)];
    }
    let mut mistakes = Vec::new();
    let mut table = None;
    for (span, said) in errors {
        let head = head_before(text, span.start);
        if table.replace(head) != Some(head) {
            mistakes.push(reword(text, span, &said));
        }
    }
    mistakes
}

/// Where the outermost value begins that ends here.
fn unclosed(table: &DeTable<'_>, end: usize) -> Option<usize> {
    table.iter().find_map(|(_, value)| match value.get_ref() {
        _ if value.span().end == end => Some(value.span().start),
        DeValue::Table(table) => unclosed(table, end),
        _ => None,
    })
}

/// Where the last line before this place begins that has the form of a table's head; 0 if none.
fn head_before(text: &str, at: usize) -> usize {
    let before = &text[..text.floor_char_boundary(at)];
    if let Some(line) = before.rsplit('\n').next().filter(|line| line.starts_with('[')) {
        return before.len() - line.len();
    }
    before.rfind("\n[").map_or(0, |at| at + 1)
}

fn reword(text: &str, span: Range<usize>, said: &str) -> Mistake {
    let marked = text.get(span.clone()).unwrap_or_default();
    let (before, after) = text.split_at(text.floor_char_boundary(span.start));
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let (line, after) = (&*first_line(&text[line_start..]), first_line(after));
    let behind = first_line(text.get(span.end..).unwrap_or_default());
    let (message, help) = if said.starts_with("string values must be quoted")
        || said.starts_with("invalid boolean")
    {
        bare_value(line, marked, &behind)
    } else if said.starts_with("key with no value") || said.starts_with("invalid unquoted key") {
        no_value(line)
    } else if said.starts_with("duplicate key") {
        (format!("`{marked}` is there twice"), "keep one of them".to_owned())
    } else if said.starts_with("unclosed table") || said.starts_with("unclosed array table") {
        let name = line.trim().trim_matches(['[', ']']);
        ("the head of this table is not closed".to_owned(), format!("write [{name}]"))
    } else if said.starts_with("invalid basic string, expected `\"`") {
        ("this text is not closed".to_owned(), "end it with \"".to_owned())
    } else if said.starts_with("invalid literal string, expected `'`") {
        ("this text is not closed".to_owned(), "end it with '".to_owned())
    } else if said.starts_with("missing escaped value") {
        let help = "write \\\\ for a backslash, or put the text in single quotes";
        ("`\\` begins an escape that does not exist".to_owned(), help.to_owned())
    } else if said.starts_with("missing comma between array") {
        let help = "write a comma between two values, and ] after the last one";
        ("there is no comma after this value, and no end of the list".to_owned(), help.to_owned())
    } else if line.starts_with('{') {
        ("this is no TOML".to_owned(), "write [sources.NAME], and below it KEY = VALUE".to_owned())
    } else if said.starts_with("unexpected key or value") {
        let more = format!("`{}` is too much here", after.trim());
        (more, "write one key and its value in each line".to_owned())
    } else if said.contains("recursion limit") || said.contains("cannot recurse") {
        ("this is nested too deeply".to_owned(), "at most 80 levels are read".to_owned())
    } else {
        let mut said = said.to_owned();
        if let Some(first) = said.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        return Mistake::at(span, said);
    };
    Mistake::at(span, message).help(help)
}

/// `path = /tmp/x`
fn bare_value(line: &str, marked: &str, after: &str) -> (String, String) {
    let key = line.split('=').next().unwrap_or_default().trim();
    if marked.is_empty() {
        return ("there is no value".to_owned(), format!("write {key} = \"…\""));
    }
    if marked.starts_with(['“', '”', '‘', '’']) {
        let plain = marked.trim_matches(['“', '”', '‘', '’']);
        return ("these are no quotes of TOML".to_owned(), format!("write {key} = \"{plain}\""));
    }
    if after.trim_start().starts_with('=') {
        let help = "write each key with its value in a line of its own";
        return ("two keys stand in one line".to_owned(), help.to_owned());
    }
    let help = match marked.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => format!("write {key} = true"),
        "false" | "no" | "off" => format!("write {key} = false"),
        _ => format!("write {key} = \"{marked}\""),
    };
    if marked.starts_with(|first: char| first.is_ascii_digit()) {
        return (format!("`{marked}` is no number, and no text in quotes"), help);
    }
    (format!("the text `{marked}` is not in quotes"), help)
}

/// `path: "x"`, or a line of words.
fn no_value(line: &str) -> (String, String) {
    let line = line.trim();
    match line.split_once(':') {
        Some((key, value)) if !key.contains(['"', '\'', ' ']) => {
            let help = match value.trim() {
                "" => format!("write [{key}] for a table, {key} = … for a value"),
                value => format!("write {key} = {value}"),
            };
            ("`:` stands where `=` should".to_owned(), help)
        }
        _ => {
            let words = "a key without a value".to_owned();
            (words, "write KEY = VALUE, or # before a comment".to_owned())
        }
    }
}
