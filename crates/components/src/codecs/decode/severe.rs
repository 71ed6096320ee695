//! Lines of `auto` whose rows may be severe, found in a raw chunk before it is cut and read.
//!
//! Looked for are the few things that make a row at least a warning: the first letters of a word,
//! in any case; a letter as Android and glog have it; in JSON the end of a key after which a
//! number may come, and the escape of ASCII, behind which all of these may hide. Where one is, what
//! follows is looked at more closely. What else [`level`] asks of a word, above all its place in
//! the line, is left to it.

use std::fmt;
use std::ops::Range;

use regex_automata::util::prefilter::Prefilter as Search;
use regex_automata::{MatchKind, Span};
use tidegate_model::severity_of;

use super::level;

/// Less than a warning, `notice` and `info`, most lines are.
const LEAST: u8 = 11;

/// From here on no warning is asked for.
const ABOVE_WARNINGS: u8 = 14;

/// The searches take turns after so many bytes, so that what one finds costs the others little.
const TURN_BYTES: usize = 4 << 10;

/// The longest text that is looked for.
const TEXT_BYTES_MAX: usize = 3;

/// Texts in sets that can be looked for quickly: in any case they are at most 32, beyond which it
/// takes twice as long, and short ones are among themselves.
const WORDS: [&str; 4] = ["err", "fat", "cri", "ale"];
const WORDS_AND_KEYS: [&str; 10] =
    ["eme", "pan", "l\":", "y\":", "l\" ", "y\" ", "l\"\t", "y\"\t", "l\"\r", "y\"\r"];
const LETTERS_AND_ESCAPE: [&str; 9] = ["E0", "F1", "E/", "F ", "\\u0", "F0", "E1", "F/", "E "];

/// Finds lines whose rows may be severe.
#[derive(Clone)]
pub struct Severe {
    min: u8,
    searches: [Search; 3],
}

impl Severe {
    /// At least so severe. `None` where so many are that looking for them is no gain, or where
    /// there are no means to look for them quickly.
    pub(super) fn new(min: u8) -> Option<Self> {
        if min < LEAST {
            return None;
        }
        let (words, letters): (&[&str], &[&str]) =
            if min < ABOVE_WARNINGS { (&["war"], &["W0", "W1", "W/", "W "]) } else { (&[], &[]) };
        let search = |texts: Vec<String>| Search::new(MatchKind::LeftmostFirst, &texts);
        let searches = [
            search(in_any_case(&WORDS)).filter(Search::is_fast)?,
            search(in_any_case(&[&WORDS_AND_KEYS, words].concat()))?,
            search(
                [&LETTERS_AND_ESCAPE, letters].concat().into_iter().map(str::to_owned).collect(),
            )?,
        ];
        Some(Self { min, searches })
    }

    /// A byte of the first line that may be as severe, in a range of whole lines. What is around
    /// them is not looked at: it may be of another file.
    pub(in crate::codecs) fn find(&self, bytes: &[u8], range: Range<usize>) -> Option<usize> {
        let lines = bytes.get(range.clone())?;
        for start in (0..lines.len()).step_by(TURN_BYTES) {
            let mut end = lines.len().min(start + TURN_BYTES + TEXT_BYTES_MAX - 1);
            let mut found = None;
            for search in &self.searches {
                if let Some(at) = self.first(search, lines, start..end) {
                    (found, end) = (Some(range.start + at), at);
                }
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn first(&self, search: &Search, lines: &[u8], mut range: Range<usize>) -> Option<usize> {
        while let Some(found) = search.find(lines, Span::from(range.clone())) {
            if is_severe(lines, found.start, self.min) {
                return Some(found.start);
            }
            range.start = found.start + 1;
        }
        None
    }
}

impl fmt::Debug for Severe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Severe").field("min", &self.min).finish_non_exhaustive()
    }
}

/// Each text in all cases its letters can have. Different texts take turns, and so get a bucket of
/// the search each, of which there are few; the other cases of a text share it at no cost, as the
/// low halves of their bytes are the same.
fn in_any_case(texts: &[&str]) -> Vec<String> {
    let cased = |text: &str, capitals: u8| {
        let mut cased = text.to_owned().into_bytes();
        for (byte, place) in cased.iter_mut().zip(0..) {
            if capitals >> place & 1 == 1 {
                *byte = byte.is_ascii_lowercase().then(|| byte.to_ascii_uppercase())?;
            }
        }
        String::from_utf8(cased).ok()
    };
    let choices = 0..1 << TEXT_BYTES_MAX;
    choices
        .flat_map(|capitals| texts.iter().filter_map(move |text| cased(text, capitals)))
        .collect()
}

/// Whether what begins there can make a row that severe.
fn is_severe(lines: &[u8], at: usize, min: u8) -> bool {
    let (before, rest) = lines.split_at_checked(at).unwrap_or_default();
    let severity = match rest {
        [b'\\', ..] => return true,
        [b'L' | b'l' | b'Y' | b'y', rest @ ..] => number(rest),
        [letter, next, ..] if !next.is_ascii_alphabetic() => {
            level::of_letter(*letter).filter(|_| stands(before, rest))
        }
        _ => word(before, rest),
    };
    severity.is_some_and(|severity| severity >= min)
}

/// Of a word that is no part of a longer one. A digit may be the end of a time before it; what is
/// not ASCII may be a blank in JSON.
fn word(before: &[u8], rest: &[u8]) -> Option<u8> {
    let glued = match before.last() {
        Some(byte) if byte.is_ascii_alphabetic() => {
            // `\nerror`, `\u202ferror`.
            let escaped = |back| before.iter().rev().nth(back) == Some(&b'\\');
            !escaped(1) && !escaped(5)
        }
        last => last == Some(&b'_'),
    };
    let is_word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let length = rest.iter().take(level::WORD_BYTES_MAX + 1).take_while(is_word).count();
    let word = rest.get(..length).filter(|_| !glued)?;
    severity_of(str::from_utf8(word).ok()?)
}

/// Of a level that is a number, behind the last letter of a key in JSON: `":50`, `" : "50"`.
fn number(rest: &[u8]) -> Option<u8> {
    let rest = rest.strip_prefix(b"\"")?.trim_ascii_start();
    let rest = rest.strip_prefix(b":")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let rest = rest.strip_prefix(b"+").unwrap_or(rest);
    let zeros = rest.iter().take_while(|byte| **byte == b'0').count();
    let rest = rest.get(zeros..)?;
    let digits = rest.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
    level::of_number(str::from_utf8(rest.get(..digits)?).ok()?)
}

/// Whether a letter may be one that stands for a level: `E0314 `, `E/Tag`, ` 1702  2395 E `.
fn stands(before: &[u8], rest: &[u8]) -> bool {
    let follows = |is: fn(&u8) -> bool| before.last().is_some_and(is);
    match rest {
        [_, b'/', tag, ..] => tag.is_ascii_alphabetic() && !follows(u8::is_ascii_alphabetic),
        [_, b' ', ..] => {
            let last = before.iter().rev().find(|byte| **byte != b' ');
            last.is_some_and(u8::is_ascii_digit)
        }
        [_, a, b, c, d, b' ', ..] => {
            [a, b, c, d].iter().all(|byte| byte.is_ascii_digit())
                && !follows(u8::is_ascii_alphanumeric)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use arrow_array::cast::AsArray;
    use arrow_array::types::UInt8Type;
    use arrow_buffer::Buffer;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use tidegate_flow::ByteBudget;
    use tidegate_model::log_schema;

    use super::super::auto;
    use super::*;
    use crate::codecs::{Chunk, Cutter, Label, Piece, Places, Prefilter, Shape};

    /// Where the lines of a text begin that are looked at, and how severe their rows are.
    fn severities(text: &Buffer, prefilter: Option<&Prefilter>) -> Vec<(u32, Option<u8>)> {
        let mut lines = Vec::new();
        let piece =
            Piece { bytes: text, from: 0, offset: 0, ended: true, rows_max: usize::MAX, prefilter };
        Cutter::new(1 << 20).cut(piece, &mut lines);
        let chunk = Chunk {
            bytes: text,
            lines: &lines,
            places: Places::Bytes(0),
            label: &Label::from("test"),
            read_at: 1_773_144_000_000_000_000,
        };
        let holder = Arc::new(ByteBudget::new(1 << 20).holder(0).unwrap());
        let shape = Shape::new(Arc::new(log_schema().project(&[1]).unwrap()), holder);
        let rows = (auto::CODEC.decoder)(shape).decode(&chunk).unwrap().rows;
        let severities = rows.column(0).as_primitive::<UInt8Type>().iter();
        lines.iter().map(|line| line.start).zip(severities).collect()
    }

    /// For each least severity that is looked for.
    static PREFILTERS: LazyLock<Vec<(u8, Prefilter)>> = LazyLock::new(|| {
        let all = (0..=u8::MAX).filter(|min| !(25..u8::MAX).contains(min));
        all.filter_map(|min| Some((min, Prefilter::severe(min, &auto::CODEC)?))).collect()
    });

    #[test]
    fn warnings_and_worse_are_looked_for() {
        let all: Vec<_> = PREFILTERS.iter().map(|(min, _)| *min).collect();
        assert_eq!(all, (11..25).chain([u8::MAX]).collect::<Vec<_>>());
    }

    /// That for each least severity those who are found are all there are. Gives how severe lines
    /// are, and how many are looked at that are more than errors.
    fn check(text: &[u8]) -> (Vec<Option<u8>>, usize) {
        let text = Buffer::from(text);
        let all = severities(&text, None);
        let mut looked_at = 0;
        for (min, prefilter) in &*PREFILTERS {
            let min = *min;
            let severe = |rows: &[(u32, Option<u8>)]| {
                let rows = rows.iter().filter(|(_, severity)| *severity >= Some(min));
                rows.copied().collect::<Vec<_>>()
            };
            let found = severities(&text, Some(prefilter));
            let shown = || String::from_utf8_lossy(&text).into_owned();
            assert_eq!(severe(&found), severe(&all), "{min} and above in {:?}", shown());
            looked_at = if min == 17 { found.len() } else { looked_at };
        }
        (all.into_iter().map(|(_, severity)| severity).collect(), looked_at)
    }

    #[test]
    fn whatever_makes_a_line_severe_is_found() {
        for (line, severity) in [
            ("2015-10-18 18:01:47,978 ERROR x", 17),
            ("2015-10-18 18:01:47,978ERROR x", 17),
            ("2015-10-18T18:01:47Z eRr: x", 17),
            ("[Sun Dec 04 04:47:44 2005] [emerg] x", 21),
            ("time=\"2015-10-18T18:01:47Z\" level=Warning msg=\"x\"", 13),
            ("PANIC", 21),
            ("Critical: x", 21),
            ("<a>|aLeRt|", 21),
            ("E0314 15:04:05.678901 1234 x", 17),
            ("<34>1 F1014 15:04:05 x", 21),
            ("[W1231 15:04:05 x", 13),
            ("E/Tag x", 17),
            ("2015-10-18 18:01:47F/x", 21),
            ("03-17 16:13:38.811  1702  2395 E Tag: x", 17),
            ("03-17 16:13:38.811  1702  2395W Tag: x", 13),
            (r#"{"level":"error"}"#, 17),
            (r#"{"severity" : " \tfatal\n"}"#, 21),
            (r#"{"LVL":50}"#, 17),
            (r#"{"log.level": "+0060"}"#, 21),
            (r#"{"\u006cevel":"warn"}"#, 13),
            (r#"{"level":"\u0065rror"}"#, 17),
            (r#"{"level":"\u202ferror\u2028"}"#, 17),
            ("{\"level\":\"\u{202f}error\u{a0}\"}", 17),
            (" \t{\"x\":{\"level\":10},\"Severity\"\t:\r\t\"60\"}", 21),
            (r#"{"level":"50","level":"error"}"#, 17),
        ] {
            assert_eq!(check(line.as_bytes()).0, [Some(severity)], "{line}");
            for long in [1, 70] {
                let (found, _) = check(format!("{}\n{line}", "x".repeat(long)).as_bytes());
                assert_eq!(found, [None, Some(severity)], "{long} before {line}");
            }
        }
    }

    #[test]
    fn it_is_found_wherever_the_searches_take_turns() {
        let find = Severe::new(17).unwrap();
        for line in ["ERROR", "Fatal", "panic:", "E/x", "F1231 00:00:00", "{\"lvl\":50}", "\\u0"] {
            for long in TURN_BYTES - 12..TURN_BYTES + 2 {
                let text = format!("{}\n{line}\nERR\n", "x".repeat(long));
                let found = find.find(text.as_bytes(), 0..text.len());
                let place = long + 1..=long + line.len();
                assert!(found.is_some_and(|at| place.contains(&at)), "{found:?}, {long}, {line}");
                let found = find.find(text.as_bytes(), 0..long + 1);
                assert_eq!(found, None, "{long} before {line}");
            }
            // What is around is as good as not there.
            let text = format!("x{line}x");
            let found = find.find(text.as_bytes(), 1..text.len() - 1);
            assert!(found.is_some_and(|at| (1..text.len() - 1).contains(&at)), "{line}");
        }
    }

    #[test]
    fn what_makes_none_severe_is_mostly_passed_over() {
        for line in [
            "2015-10-18 18:01:47,978 INFO errors, terror, ERR_X, my_error, criteria, panel",
            "2015-10-18 18:01:47,978 WARN x",
            "THE END OF TYPE E X",
            "I0314 15:04:05.678901 1234 x 0xE0F1",
            "03-17 16:13:38.811  1702  2395 I Tag: x",
            r#"{"level":"info","msg":"x"}"#,
            r#"{"level":30,"time":1531171054631,"msg":"x"}"#,
            r#"{"level":502,"severity":49,"lvl":"070","x":50}"#,
        ] {
            assert_eq!(check(line.as_bytes()).1, 0, "{line}");
        }
        assert_eq!(check(b"2015-10-18 18:01:47 INFO no error").1, 1, "the place is not looked at");
    }

    /// Words of levels, right and almost right, in any case.
    fn word() -> impl Strategy<Value = String> {
        let words = vec![
            "trace",
            "debug",
            "info",
            "notice",
            "warn",
            "warning",
            "error",
            "err",
            "fatal",
            "critical",
            "crit",
            "alert",
            "emergency",
            "emerg",
            "panic",
            "errors",
            "war",
            "xerr",
            "_fatal",
            "crit_",
            "wärn",
            "alerts",
        ];
        (select(words), any::<u16>(), 0..4).prop_map(|(word, cases, how)| match how {
            0 => word.to_owned(),
            1 => word.to_uppercase(),
            _ => {
                let cased = word.chars().zip(0..).map(|(letter, index)| match cases >> index & 1 {
                    1 => letter.to_ascii_uppercase(),
                    _ => letter,
                });
                cased.collect()
            }
        })
    }

    fn one_of(texts: &[&str]) -> impl Strategy<Value = String> + Clone + use<> {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        select(texts)
    }

    /// A time, and what may be before it.
    fn time() -> impl Strategy<Value = String> {
        let before =
            one_of(&["", "", "", " ", "   ", "- ", "<34>", "<34>1 ", "[", "time=\"", "ts="]);
        let time = one_of(&[
            "2015-10-18 18:01:47,978",
            "2015-10-18T18:01:47Z",
            "2015-10-18 18:01:47 UTC",
            "2015-10-18T18:01:47+02:00",
            "081109 203615",
            "Jun 14 15:16:01",
            "Sun Dec 04 04:47:44 2005]",
            "::1 - - [10/Oct/2000:13:55:36 -0700]",
            "20171223-22:15:29:606",
            "03-17 16:13:38.811",
            "10.30 16:49:06",
            "1445191307",
            "E0314 15:04:05",
            "F1131 15:04:05.678901",
            "W0101 00:00:00",
            "E1314 15:04:05",
            "",
        ]);
        (before, time).prop_map(|(before, time)| before + &time)
    }

    fn text_line() -> impl Strategy<Value = Vec<u8>> {
        let between = one_of(&[
            "",
            " ",
            ": ",
            "] ",
            "|",
            " [",
            " (",
            " <",
            "  1702  2395 ",
            " 1 2",
            " 5 ",
            " host a: ",
            " level=",
            " severity=\"",
            " lvl=",
            "\u{1b}[32m",
            " é",
            "\"",
            " a head that is so long that what comes behind it is text, not head ",
        ]);
        let letter = one_of(&["E/Tag", "W/x", "F/é", "E ", "F x", "W y", "E", "D/x", "I x", "E0"]);
        let level = prop_oneof![3 => word(), 1 => letter];
        let after =
            one_of(&["", " ", ":", "]", ")", ">", "|", "\"", ",", "é", "s", "\u{1b}[0m", "="]);
        let odd = prop_oneof![12 => Just(vec![]), 1 => vec(any::<u8>(), 1..3)];
        (time(), between, odd, level, after, vec(word(), 0..2)).prop_map(
            |(time, between, odd, level, after, more)| {
                let rest = format!("{level}{after} {}", more.join(" "));
                [time.as_bytes(), between.as_bytes(), &odd, rest.as_bytes()].concat()
            },
        )
    }

    type Escape = fn(String) -> String;

    /// Some letters of a JSON string as escapes.
    fn escaped() -> impl Strategy<Value = Escape> {
        let first = |text: String| match text.chars().next() {
            Some(first) => format!("\\u{:04x}{}", first as u32, &text[first.len_utf8()..]),
            None => text,
        };
        let all = |text: String| {
            let units: Vec<_> = text.encode_utf16().collect();
            units.iter().map(|unit| format!("\\u{unit:04X}")).collect()
        };
        let as_it_is: Escape = |text| text;
        let (first, all): (Escape, Escape) = (first, all);
        prop_oneof![8 => Just(as_it_is), 1 => Just(first), 1 => Just(all)]
    }

    fn json_line() -> impl Strategy<Value = Vec<u8>> {
        let blank = || one_of(&["", "", "", " ", "\t", "\r", "  "]);
        let key = one_of(&[
            "level",
            "Level",
            "LEVEL",
            "severity",
            "SeveritY",
            "lvl",
            "loglevel",
            "log.level",
            "levels",
            "msg",
            "time",
        ]);
        let said =
            (blank(), prop_oneof![word(), (0_u8..75).prop_map(|n| n.to_string())], escaped());
        let about = one_of(&[
            "", "", "", " ", "\\n", "\\t", "\\u2028", "\\u202f", "\\u00a0", "\u{a0}", "x",
        ]);
        let said =
            (said, about.clone(), about).prop_map(|((blank, said, escaped), before, after)| {
                format!("\"{before}{blank}{}{after}\"", escaped(said))
            });
        let number = || {
            let (before, after) =
                (one_of(&["", "", "+", "0", "00", "-"]), one_of(&["", "", ".0", "1"]));
            (before, 0_u8..75, after).prop_map(|(before, n, after)| format!("{before}{n}{after}"))
        };
        let value = prop_oneof![
            4 => said,
            2 => number(),
            2 => number().prop_map(|number| format!("\"{number}\"")),
            1 => one_of(&["null", "{\"level\":50}", "[\"error\"]", "{", "\"\\ud800error\""]),
        ];
        let key = (key, escaped()).prop_map(|(key, escaped)| escaped(key));
        let member = (key, blank(), blank(), value)
            .prop_map(|(key, before, after, value)| format!("\"{key}\"{before}:{after}{value}"));
        let end = one_of(&["}", "}", "}", "} ", "", "}x"]);
        let odd = prop_oneof![12 => Just(vec![]), 1 => vec(any::<u8>(), 1..3)];
        (blank(), vec(member, 1..4), end, odd).prop_map(|(blank, members, end, odd)| {
            let line = format!("{blank}{{{}", members.join(","));
            [line.into_bytes(), odd, end.into_bytes()].concat()
        })
    }

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let plain = "x".repeat(70);
        let plain = (0usize..70).prop_map(move |length| plain.as_bytes()[..length].to_vec());
        let line = prop_oneof![4 => text_line(), 4 => json_line(), 1 => plain];
        let ends = select(vec![&b"\n"[..], b"\n", b"\r\n"]);
        let line = (line, ends).prop_map(|(line, end)| [&line, end].concat());
        vec(line, 1..6).prop_map(|lines| lines.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn no_line_that_is_severe_enough_is_missing(text in lines()) {
            check(&text);
        }

        #[test]
        fn nor_in_any_bytes(
            text in vec(prop_oneof![text_line(), json_line(), vec(any::<u8>(), 0..9)], 0..9),
        ) {
            check(&text.concat());
        }
    }

    /// The tests above would say nothing if no line had a severity, or all had.
    #[test]
    fn lines_have_all_severities_and_none() {
        let mut runner = TestRunner::deterministic();
        let mut counts = [0; 25];
        for strategy in [text_line().boxed(), json_line().boxed()] {
            for _ in 0..1_000 {
                let line = strategy.new_tree(&mut runner).unwrap().current();
                for severity in check(&line).0 {
                    counts[usize::from(severity.unwrap_or_default())] += 1;
                }
            }
        }
        for severity in [0, 1, 5, 9, 10, 13, 17, 21] {
            assert!(counts[severity] > 15, "{severity}: {counts:?}");
        }
    }
}
