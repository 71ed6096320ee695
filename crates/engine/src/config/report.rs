//! Mistakes as they are shown: where, the line, and what to write instead.

use std::fmt;
use std::ops::Range;

use tidegate_model::Mistake;
use unicode_width::UnicodeWidthChar;

/// A line of the configuration is shown as far as it fits this many columns.
const LINE_COLUMNS_MAX: usize = 100;
/// So many of them come before the place, where a line is cut.
const COLUMNS_BEFORE: usize = 40;
/// As many columns is a tab shown.
const TAB: &str = "    ";

/// All that is wrong with a configuration, in the order of its text.
///
/// Shown by `Display`: of each mistake the place, the line, and what to write instead; at the end
/// how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    file: String,
    found: Vec<Found>,
}

/// A mistake and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where, if it has a place in the text.
    pub place: Option<Place>,
    /// What is wrong, in lower case, without a full stop.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    excerpt: Excerpt,
}

/// A place in a text. Lines and columns begin with 1, and columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A line, ready to be printed, and the columns that are wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Excerpt {
    line: String,
    before: usize,
    marked: usize,
}

impl Report {
    /// Of mistakes whose spans are bytes of this text. A span outside of it marks its end.
    pub fn new(file: &str, text: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.span.as_ref().map(|span| span.start));
        let found = mistakes.into_iter().map(|mistake| find(text, mistake)).collect();
        Self { file: one_line(file), found }
    }

    /// The mistakes, in the order of the text.
    pub fn found(&self) -> &[Found] {
        &self.found
    }
}

fn find(text: &str, mistake: Mistake) -> Found {
    let (place, excerpt) = match mistake.span {
        Some(span) => {
            let (place, excerpt) = excerpt(text, span);
            (Some(place), excerpt)
        }
        None => (None, Excerpt::default()),
    };
    let help = mistake.help.map(|help| one_line(&help));
    Found { place, message: one_line(&mistake.message), help, excerpt }
}

/// Without what would break the line or talk to a terminal.
fn one_line(said: &str) -> String {
    said.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The nearest place at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

fn excerpt(text: &str, span: Range<usize>) -> (Place, Excerpt) {
    let mut start = boundary(text, span.start);
    if start == text.len() && start > 0 {
        // The end of the text: shown behind its last line, not on an empty one after it.
        start = text.trim_end_matches(['\r', '\n', ' ', '\t']).len();
    }
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let line = text[line_start..line_end].trim_end_matches('\r');
    let start = start.min(line_start + line.len());
    let end = boundary(text, span.end).clamp(start, line_start + line.len());
    let before = text[line_start..start].chars().count();
    let marked = text[start..end].chars().count().max(1);
    let line_number = text[..line_start].matches('\n').count() + 1;
    let place = Place { line: line_number, column: before + 1 };
    (place, cut(line, before, marked))
}

/// The line as it is printed, and the columns of its characters `before..before + marked`.
fn cut(line: &str, before: usize, marked: usize) -> Excerpt {
    let mut shown: Vec<(String, usize)> = line.chars().map(printable).collect();
    let width = |part: &[(String, usize)]| part.iter().map(|(_, width)| width).sum::<usize>();
    let mut from = 0;
    if width(&shown) > LINE_COLUMNS_MAX {
        let mut room = 0;
        from = before.min(shown.len());
        while from > 0 && room + shown[from - 1].1 <= COLUMNS_BEFORE {
            from -= 1;
            room += shown[from].1;
        }
        let mut to = from;
        let mut room = 0;
        while to < shown.len() && room + shown[to].1 <= LINE_COLUMNS_MAX {
            room += shown[to].1;
            to += 1;
        }
        if to < shown.len() {
            shown.truncate(to);
            shown.push(("…".to_owned(), 1));
        }
        if from > 0 {
            from -= 1;
            shown[from] = ("…".to_owned(), 1);
        }
    }
    let shown = &shown[from..];
    let start = (before - from).min(shown.len());
    let end = (start + marked).min(shown.len());
    Excerpt {
        line: shown.iter().map(|(text, _)| text.as_str()).collect(),
        before: width(&shown[..start]),
        marked: width(&shown[start..end]).max(1),
    }
}

/// A character as it is printed, and how many columns it takes.
fn printable(letter: char) -> (String, usize) {
    match letter {
        '\t' => (TAB.to_owned(), TAB.len()),
        _ => match letter.width() {
            Some(width) => (letter.to_string(), width),
            None => ("\u{fffd}".to_owned(), 1),
        },
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for found in &self.found {
            found.show(&self.file, f)?;
        }
        let (count, noun) = match self.found.len() {
            1 => (1, "mistake"),
            count => (count, "mistakes"),
        };
        write!(f, "{count} {noun} in {}", self.file)
    }
}

impl std::error::Error for Report {}

impl Found {
    fn show(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        let number = self.place.map(|place| place.line.to_string()).unwrap_or_default();
        let margin = " ".repeat(number.len().max(1));
        match self.place {
            None => writeln!(f, "{margin}--> {file}")?,
            Some(Place { line, column }) => {
                let Excerpt { line: text, before, marked } = &self.excerpt;
                let (before, marks) = (" ".repeat(*before), "^".repeat(*marked));
                writeln!(f, "{margin}--> {file}:{line}:{column}")?;
                writeln!(f, "{margin} |")?;
                writeln!(f, "{}", format!("{number} | {text}").trim_end())?;
                writeln!(f, "{margin} | {before}{marks}")?;
            }
        }
        if let Some(help) = &self.help {
            writeln!(f, "{margin} = help: {help}")?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        Report::new("a.toml", text, vec![Mistake::at(span, "wrong").help("do this")]).to_string()
    }

    /// The text above the first mark, as wide as it is printed.
    fn marked(text: &str, span: Range<usize>) -> (Place, String, usize) {
        let report = Report::new("a.toml", text, vec![Mistake::at(span, "wrong")]);
        let found = &report.found()[0];
        (found.place.unwrap(), found.excerpt.line.clone(), found.excerpt.before)
    }

    #[test]
    fn it_shows_place_line_and_remedy() {
        let text = "a = 1\nb = 2\r\n";
        let expected = "error: wrong\n --> a.toml:2:5\n  |\n2 | b = 2\n  |     ^\n  = help: do this\n\n\
                        1 mistake in a.toml";
        assert_eq!(shown(text, 10..11), expected);
    }

    #[test]
    fn tabs_and_wide_characters_do_not_shift_the_mark() {
        let text = "\t\"日本\" = x";
        let at = text.find('x').unwrap();
        let (place, line, before) = marked(text, at..at + 1);
        assert_eq!((place.column, before), (9, 4 + 1 + 4 + 1 + 3));
        assert_eq!(line, "    \"日本\" = x");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}x{}", "a".repeat(5_000), "b".repeat(5_000));
        let (place, line, before) = marked(&text, 5_000..5_001);
        assert_eq!((place.column, line.chars().count(), before), (5_001, 102, 41));
        assert_eq!(line.chars().nth(before), Some('x'));
        assert!(line.starts_with('…') && line.ends_with('…'), "{line}");
        let (_, line, before) = marked(&text, 0..1);
        assert!(line.starts_with('a') && line.ends_with('…') && before == 0, "{line}");
    }

    #[test]
    fn odd_spans_mark_something() {
        for text in ["", "\n", "a", "é", "a = 1\n\n", "\u{1b}[31m = 1"] {
            for start in 0..text.len() + 2 {
                for end in 0..text.len() + 2 {
                    let shown = shown(text, Range { start, end });
                    assert!(shown.contains('^') && !shown.contains('\u{1b}'), "{shown}");
                }
            }
        }
        assert_eq!(marked("a = [\n\n", 7..7).0, Place { line: 1, column: 6 });
    }

    #[test]
    fn mistakes_come_in_the_order_of_the_text_and_are_counted() {
        let mistakes = vec![Mistake::at(4..5, "second"), Mistake::at(0..1, "first\n\u{1b}[0m")];
        let report = Report::new("a.toml", "a = 1", mistakes).to_string();
        assert!(report.starts_with("error: first  [0m\n"), "{report}");
        assert!(report.ends_with("\n\n2 mistakes in a.toml"), "{report}");
    }
}
