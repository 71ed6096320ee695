//! What is wrong with a query, and from there to the bytes of the configuration.

use std::ops::Range;

use datafusion_common::DataFusionError;
use datafusion_sql::sqlparser::tokenizer::{Location, Span};
use tidegate_model::{Mistake, Spanned};

/// Longer reasons are cut: they quote the value that would not do, which may be a megabyte.
const REASON_BYTES_MAX: usize = 300;

/// Why a query is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Where in the query; empty for the query as a whole.
    pub(crate) at: Span,
    /// What is wrong, in lower case, without a full stop.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) help: Option<String>,
}

impl Refusal {
    pub(crate) fn at(at: Span, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), help: None }
    }

    /// Of the query as a whole.
    pub(crate) fn everywhere(message: impl Into<String>) -> Self {
        Self::at(Span::empty(), message)
    }

    /// At this place.
    #[must_use]
    pub(crate) fn placed(self, at: Span) -> Self {
        Self { at, ..self }
    }

    #[must_use]
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// The query's text, and where in the configuration it stood.
#[derive(Clone, Debug)]
pub(crate) struct QueryText {
    text: String,
    span: Range<usize>,
}

impl QueryText {
    pub(crate) fn new(query: Spanned<String>) -> Self {
        let span = query.span();
        Self { text: query.into_inner(), span }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The refusal as a mistake of the configuration.
    pub(crate) fn mistake(&self, refusal: Refusal) -> Mistake {
        let mistake = Mistake::at(self.place(refusal.at), format!("query: {}", refusal.message));
        Mistake { help: refusal.help, ..mistake }
    }

    /// The bytes of the configuration; the whole string where it is not known how it was escaped.
    fn place(&self, at: Span) -> Range<usize> {
        let within = lead(&self.text, self.span.len()).zip(bytes(&self.text, at));
        match within {
            Some((lead, within)) => {
                let begin = self.span.start + lead;
                begin + within.start..begin + within.end
            }
            None => self.span.clone(),
        }
    }
}

/// How many bytes of TOML stand before the text's first: none where the text stands alone, one quote, or three and perhaps a line
/// end, as far as the length tells. `None` where the text was escaped.
fn lead(text: &str, written: usize) -> Option<usize> {
    let escapable = |c: &char| matches!(c, '"' | '\\') || c.is_control();
    match written.checked_sub(text.len())? {
        0 => Some(0),
        2 => Some(1),
        // Three quotes on each side. One quote and as many escapes would be as long; nobody escapes
        // line ends to write a query of several lines.
        extra @ 6..=8 => {
            let escaped = text.chars().filter(escapable).count() == extra - 2;
            (!escaped || text.contains('\n')).then_some(extra - 3)
        }
        _ => None,
    }
}

/// The bytes of the text between two places, and up to the brackets that were opened there.
fn bytes(text: &str, at: Span) -> Option<Range<usize>> {
    let (start, end) = (offset(text, at.start)?, offset(text, at.end)?);
    let end = end.max(start + text.get(start..)?.chars().next().map_or(0, char::len_utf8));
    Some(start..close(text, start, end))
}

/// The byte at a place; the parser counts lines and characters from 1.
fn offset(text: &str, at: Location) -> Option<usize> {
    let line = usize::try_from(at.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
    let begin = match line {
        0 => 0,
        _ => text.match_indices('\n').nth(line - 1)?.0 + 1,
    };
    let rest = text.get(begin..)?;
    let within = rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at);
    Some(begin + within)
}

/// The parser's spans leave closing brackets out: goes on to them.
fn close(text: &str, start: usize, end: usize) -> usize {
    let mut open = 0_i32;
    let mut quote = None;
    for (at, c) in text[start..].char_indices() {
        if start + at >= end && (open <= 0 || quote.is_some()) {
            break;
        }
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[') => open += 1,
            (None, ')' | ']') => open -= 1,
            _ => {}
        }
        if start + at >= end && open == 0 {
            return start + at + c.len_utf8();
        }
    }
    end
}

/// DataFusion's and Arrow's errors as one line in our style.
pub(crate) fn reason(error: &DataFusionError) -> String {
    let whole = match error.find_root() {
        DataFusionError::ArrowError(error, _) => error.to_string(),
        DataFusionError::External(error) => error.to_string(),
        root => root.message().into_owned(),
    };
    tidy(&whole)
}

/// Without the names of error kinds, candidates on further lines, and what is too long.
pub(crate) fn tidy(message: &str) -> String {
    const KINDS: [&str; 12] = [
        "Error during planning: ",
        "Execution error: ",
        "Internal error: ",
        "Schema error: ",
        "SQL error: ",
        "This feature is not implemented: ",
        "Invalid argument error: ",
        "Arithmetic overflow: ",
        "Compute error: ",
        "Cast error: ",
        "Parser error: ",
        "Arrow error: ",
    ];
    let mut rest = message.trim();
    while let Some(shorter) = KINDS.iter().find_map(|kind| rest.strip_prefix(kind)) {
        rest = shorter;
    }
    if let Some((_, inner)) = rest.split_once("user-defined coercion failed with: ") {
        return tidy(inner);
    }
    let line = rest.split('\n').next().unwrap_or_default();
    let line = line.split(" You might need to add").next().unwrap_or_default();
    let line = line.split(". This issue was likely caused").next().unwrap_or_default();
    let line = line.trim_end_matches(['.', ' ', ',']);
    let mut said = String::new();
    let mut letters = line.chars();
    if let Some(first) = letters.next() {
        // Not where a word is all in capitals, as SQL's are.
        let word = letters.as_str().starts_with(|c: char| c.is_uppercase());
        if word { said.push(first) } else { said.extend(first.to_lowercase()) }
    }
    said.push_str(letters.as_str());
    if said.len() > REASON_BYTES_MAX {
        let cut = said.floor_char_boundary(REASON_BYTES_MAX);
        said.truncate(cut);
        said.push('…');
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(line: u64, from: u64, to: u64) -> Span {
        Span::new(Location::new(line, from), Location::new(line, to))
    }

    fn placed(toml: &str, value: &str, at: Span) -> String {
        let start = toml.find('=').unwrap() + 2;
        let text = QueryText { text: value.to_owned(), span: start..toml.len() };
        toml[text.place(at)].to_owned()
    }

    #[test]
    fn places_are_exact_where_nothing_is_escaped() {
        let one_line = "query = \"SELECT ä, x FROM input\"";
        assert_eq!(placed(one_line, "SELECT ä, x FROM input", span(1, 11, 12)), "x");
        let literal = "query = '''SELECT \"Ä\" FROM input'''";
        assert_eq!(placed(literal, "SELECT \"Ä\" FROM input", span(1, 8, 11)), "\"Ä\"");
        let lines = "query = \"\"\"\nSELECT a,\n  b\nFROM input\"\"\"";
        assert_eq!(placed(lines, "SELECT a,\n  b\nFROM input", span(2, 3, 4)), "b");
    }

    #[test]
    fn an_escaped_string_is_pointed_at_as_a_whole() {
        let escaped = r#"query = "SELECT \"a\" FROM input""#;
        assert_eq!(placed(escaped, "SELECT \"a\" FROM input", span(1, 8, 11)), &escaped[8..]);
        let four = r#"query = "SELECT \"a\", \"b\" FROM input""#;
        assert_eq!(placed(four, "SELECT \"a\", \"b\" FROM input", span(1, 8, 11)), &four[8..]);
    }

    #[test]
    fn brackets_that_were_opened_are_closed() {
        let query = "query = \"SELECT f(a, ')', g(b)), c\"";
        let value = "SELECT f(a, ')', g(b)), c";
        assert_eq!(placed(query, value, span(1, 8, 21)), "f(a, ')', g(b))");
        assert_eq!(placed(query, value, span(1, 25, 26)), "c");
    }

    #[test]
    fn a_place_past_the_end_stays_within() {
        assert_eq!(placed("query = \"SELECT\"", "SELECT", span(1, 7, 7)), "");
        assert_eq!(placed("query = \"SELECT\"", "SELECT", Span::empty()), "\"SELECT\"");
    }

    #[test]
    fn reasons_are_one_short_line() {
        let long = format!("Cast error: Cannot cast string '{}' to value", "ä".repeat(500));
        let said = tidy(&long);
        assert!(said.starts_with("cannot cast string 'ää") && said.ends_with('…'), "{said}");
        assert!(said.len() < REASON_BYTES_MAX + 4);
        assert_eq!(tidy("Arrow error: Cast error: Bad thing.\nCandidates: x"), "bad thing");
        assert_eq!(tidy("LIKE does not work"), "LIKE does not work");
    }
}
