//! Which lines are worth being looked at: those that have one of the texts that a row must have, or
//! what makes a row as severe as it must be. The raw chunk is searched for them, before it is cut
//! into lines.

use std::fmt;
use std::ops::Range;

use regex_automata::util::prefilter::Prefilter as Search;
use regex_automata::{MatchKind, Span};
use tidegate_model::SourceContext;

use super::{Codec, Severe};

/// What a decoder puts in place of what is no UTF-8.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// What a line must have for its row to be of use to anyone.
#[derive(Clone)]
pub struct Prefilter {
    wanted: Wanted,
}

#[derive(Clone)]
enum Wanted {
    /// No line is.
    Nothing,
    /// One of some texts.
    Text(Search),
    /// A severity of at least that.
    Severe(Severe),
}

impl Prefilter {
    /// Of what a source is told. `None` where each line may become a row that is wanted.
    pub(crate) fn wanted(context: &SourceContext, codec: &Codec) -> Option<Self> {
        let required = context.required.as_deref();
        // A row must be both; looking for one is enough, and texts are found quicker.
        let texts = required.and_then(|texts| Self::new(texts, codec.escapes));
        texts.or_else(|| Self::severe(context.severity_min?, codec))
    }

    /// Of the texts that a row must have, and what a line has whose text is not written in it as it
    /// is (see [`Codec`]). `None` where each line may become such a row.
    pub fn new(required: &[Box<str>], escapes: &[&str]) -> Option<Self> {
        if required.is_empty() {
            return Some(Self { wanted: Wanted::Nothing });
        }
        if required.iter().any(|text| text.is_empty() || text.contains(REPLACEMENT)) {
            return None;
        }
        let texts: Vec<&str> =
            required.iter().map(|text| &**text).chain(escapes.to_vec()).collect();
        let search = Search::new(MatchKind::LeftmostFirst, &texts)?;
        Some(Self { wanted: Wanted::Text(search) })
    }

    /// Of the least severity that a row must have. `None` where it can't be looked for, or is no gain.
    pub fn severe(min: u8, codec: &Codec) -> Option<Self> {
        Some(Self { wanted: Wanted::Severe(codec.severe?(min)?) })
    }

    /// Where in the range, which is of whole lines, the first one is that may be wanted: one of its
    /// bytes.
    pub(super) fn find(&self, bytes: &[u8], range: Range<usize>) -> Option<usize> {
        match &self.wanted {
            Wanted::Nothing => None,
            Wanted::Text(search) => Some(search.find(bytes, Span::from(range))?.start),
            Wanted::Severe(severe) => severe.find(bytes, range),
        }
    }
}

impl fmt::Debug for Prefilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefilter").finish_non_exhaustive()
    }
}

/// After so many lines that have a text it is asked whether searching is worth it.
const TRIAL_LINES: u32 = 16;

/// So many bytes are cut without a search where it was not; the next time in the same chunk, twice
/// as many.
const PLAIN_BYTES: usize = 32 << 10;

/// Tells where texts are so frequent that it is quicker to cut all lines than to search them: where
/// the lines that have one are more than half of the bytes. It knows nothing of other chunks.
#[derive(Debug, Default)]
pub(super) struct Density {
    lines: u32,
    found: usize,
    searched: usize,
    plain: usize,
}

impl Density {
    /// A line of so many bytes was found after searching so many, its own included. Gives how many
    /// bytes to cut without a search.
    pub(super) fn found(&mut self, line: usize, searched: usize) -> Option<usize> {
        self.lines += 1;
        self.found += line;
        self.searched += searched;
        if self.lines < TRIAL_LINES {
            return None;
        }
        let dense = self.found > self.searched / 2;
        let plain = if dense { (self.plain * 2).max(PLAIN_BYTES) } else { 0 };
        *self = Self { plain, ..Self::default() };
        dense.then_some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lines_may_not_show_as_it_is_can_not_be_searched() {
        let made = |texts: &[&str], escapes: &[&str]| {
            let texts: Vec<Box<str>> = texts.iter().map(|text| (*text).into()).collect();
            Prefilter::new(&texts, escapes)
        };
        assert!(made(&["a", ""], &[]).is_none());
        assert!(made(&["a", "b\u{fffd}d"], &[]).is_none());
        let find = |filter: &Prefilter, text: &str| filter.find(text.as_bytes(), 0..text.len());
        let filter = made(&["b", "cd"], &["\\"]).unwrap();
        let found = ["acd", "a\\u0062", "ac", "", "b"].map(|text| find(&filter, text));
        assert_eq!(found, [Some(1), Some(1), None, None, Some(0)]);
        let nobody = made(&[], &["\\"]).unwrap();
        assert_eq!(find(&nobody, "a\\b"), None);
    }

    #[test]
    fn as_many_texts_as_there_may_be_can_be_searched() {
        for count in 1..200 {
            let texts: Vec<Box<str>> = (0..count).map(|n| format!("{n}-").into()).collect();
            let filter = Prefilter::new(&texts, &[]).unwrap();
            let last = format!("x{}-", count - 1);
            assert_eq!(filter.find(last.as_bytes(), 1..last.len()), Some(1), "{count}");
            let bytes: Vec<Box<str>> =
                (0..count as u8).map(|n| char::from(n).to_string().into()).collect();
            assert!(count > 127 || Prefilter::new(&bytes, &[]).is_some(), "{count}");
        }
    }
}
