//! Where lines begin and end: pure, so that it can be tested at every cut.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};
use tidegate_flow::TooLarge;
use tidegate_model::{ByteSize, Error, Mistake, Result, Spanned};

use super::prefilter::{Density, Prefilter};

/// How long a line may be where a configuration does not say: 1 MiB.
const LINE_BYTES: usize = 1 << 20;

/// How long it may be at all: offsets within a chunk, and text that is repaired, have their limits.
const LINE_BYTES_MAX: usize = 256 << 20;

/// How long a line may be, by a configuration's `line_bytes_max`.
///
/// # Errors
///
/// A mistake, where that is nothing or more than a chunk can have.
pub fn line_bytes_max(size: Option<&Spanned<ByteSize>>) -> Result<usize, Mistake> {
    let Some(size) = size else { return Ok(LINE_BYTES) };
    match usize::try_from(size.get_ref().0) {
        Ok(bytes @ 1..=LINE_BYTES_MAX) => Ok(bytes),
        _ => Err(Mistake::at(size.span(), "no line can be that long").help("1 byte to 256 MiB")),
    }
}

/// There will never be room for a line, or for any.
pub(crate) fn too_large(error: TooLarge) -> Error {
    Error::fatal("memory: it has no room for the next line; raise it, or lower line_bytes_max")
        .because(error)
}

/// So much is searched, and its lines counted, at a time.
const BLOCK_BYTES: usize = 128 << 10;

/// A line within a chunk: its bytes, without the line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its first byte.
    pub start: u32,
    /// The byte after its last one.
    pub end: u32,
}

/// Cuts the bytes of one partition into lines, chunk by chunk.
///
/// A line ends with `\n` or `\r\n`; any other byte, NUL too, belongs to it. Empty lines are lines.
/// A line of more bytes than are allowed is passed over, however long it is, without being held:
/// what was seen of it is consumed, and the cutter remembers where it began.
///
/// With a [prefilter](Piece::prefilter) most lines that nobody wants are skipped; one that may be
/// wanted is never. A line that is too long is skipped as well, where all of it is within a chunk
/// and nobody wants it.
#[derive(Clone, Debug)]
pub struct Cutter {
    line_bytes_max: usize,
    skipping: Option<u64>,
}

/// A chunk to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'p> {
    /// Its bytes, at most 4 GiB.
    pub bytes: &'p [u8],
    /// How many of them were cut before.
    pub from: usize,
    /// Where in its partition it begins.
    pub offset: u64,
    /// Whether the input ends with it: what follows the last line end is a line then.
    pub ended: bool,
    /// At most so many lines, those that were there before included.
    pub rows_max: usize,
    /// Which lines may be skipped; not where lines are [numbered](super::Places::Rows).
    pub prefilter: Option<&'p Prefilter>,
}

/// What a [`Cutter`] made of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// How many bytes of the chunk are done with: the next one begins there.
    pub used: usize,
    /// How many lines were too long.
    pub refused: u64,
    /// The first of them.
    pub too_long: Option<TooLong>,
    /// How many lines were skipped.
    pub skipped: u64,
}

impl Cut {
    /// What was made of more of the same chunk.
    pub(crate) fn add(&mut self, more: Cut) {
        self.used = more.used;
        self.refused += more.refused;
        self.skipped += more.skipped;
        self.too_long = self.too_long.or(more.too_long);
    }
}

/// A line that was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Where in its partition it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

impl Cutter {
    /// At most so many bytes in a line.
    pub fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, skipping: None }
    }

    /// Where the line began that is being passed over, if there is one.
    pub fn skipping(&self) -> Option<u64> {
        self.skipping
    }

    /// Goes on in the middle of a line that began there and is too long; `None` for between lines.
    pub fn skip_from(&mut self, line: Option<u64>) {
        self.skipping = line;
    }

    /// How many bytes a chunk must have to hold any line and its end.
    pub fn chunk_bytes_min(&self) -> usize {
        self.line_bytes_max.saturating_add(2)
    }

    /// Finds the lines of a chunk, and adds them.
    pub fn cut(&mut self, piece: Piece<'_>, lines: &mut Vec<Line>) -> Cut {
        let bytes = piece.bytes.get(..u32::MAX as usize).unwrap_or(piece.bytes);
        let piece = Piece { bytes, ..piece };
        let Piece { from, offset, ended, rows_max, .. } = piece;
        let mut cut = Cut { used: from.min(bytes.len()), ..Cut::default() };
        if let Some(began) = self.skipping {
            match memchr(b'\n', bytes.get(from..).unwrap_or_default()) {
                Some(at) => self.passed_over(&mut cut, began, offset, from + at + 1),
                None if ended => self.passed_over(&mut cut, began, offset, bytes.len()),
                None => {
                    cut.used = bytes.len();
                    return cut;
                }
            }
        }
        self.whole_lines(&mut cut, &piece, lines);
        let rest = bytes.len() - cut.used;
        if lines.len() >= rows_max.max(1) || rest == 0 {
            return cut;
        }
        let began = offset + cut.used as u64;
        let is_candidate = |filter: &Prefilter| filter.find(bytes, cut.used..bytes.len()).is_some();
        if ended && !piece.prefilter.is_none_or(is_candidate) {
            cut.skipped += 1;
            cut.used = bytes.len();
        } else if ended && rest <= self.line_bytes_max {
            lines.push(Line { start: cut.used as u32, end: bytes.len() as u32 });
            cut.used = bytes.len();
        } else if ended {
            self.passed_over(&mut cut, began, offset, bytes.len());
        } else if rest >= self.chunk_bytes_min() {
            self.skipping = Some(began);
            cut.used = bytes.len();
        }
        cut
    }

    /// The line that was passed over ends before the byte `used` of the chunk.
    fn passed_over(&mut self, cut: &mut Cut, began: u64, offset: u64, used: usize) {
        self.skipping = None;
        cut.used = used;
        refuse(cut, began, offset + used as u64);
    }

    fn whole_lines(&self, cut: &mut Cut, piece: &Piece<'_>, lines: &mut Vec<Line>) {
        let Some(prefilter) = piece.prefilter else {
            return self.every_line(cut, piece, piece.bytes.len(), lines);
        };
        let bytes = piece.bytes;
        let Some(end) = memrchr(b'\n', bytes).map(|at| at + 1) else { return };
        let mut density = Density::default();
        let mut full = false;
        while cut.used < end && !full {
            let start = cut.used;
            let given = lines.len() as u64 + cut.refused;
            let mut plain = None;
            // What was just searched is counted while the processor has it in its cache.
            let behind = bytes.get(start.saturating_add(BLOCK_BYTES)..end).unwrap_or_default();
            let until = memchr(b'\n', behind).map_or(end, |at| start + BLOCK_BYTES + at + 1);
            while plain.is_none() && !full && cut.used < until {
                let Some(hit) = prefilter.find(bytes, cut.used..until) else {
                    cut.used = until;
                    break;
                };
                let line = line_around(bytes, hit, cut.used..until);
                plain = density.found(line.len(), line.end - cut.used);
                self.push(cut, piece, line, lines);
                full = lines.len() >= piece.rows_max;
            }
            let all = memchr_iter(b'\n', bytes.get(start..cut.used).unwrap_or_default()).count();
            cut.skipped += all as u64 + given - lines.len() as u64 - cut.refused;
            if let Some(plain) = plain.filter(|_| !full) {
                self.every_line(cut, piece, end.min(cut.used + plain), lines);
                full = lines.len() >= piece.rows_max;
            }
        }
    }

    /// All lines that end before the byte `until`.
    fn every_line(&self, cut: &mut Cut, piece: &Piece<'_>, until: usize, lines: &mut Vec<Line>) {
        let first = cut.used;
        for at in memchr_iter(b'\n', piece.bytes.get(first..until).unwrap_or_default()) {
            self.push(cut, piece, cut.used..first + at + 1, lines);
            if lines.len() >= piece.rows_max {
                break;
            }
        }
    }

    /// Takes a line, which has its end.
    #[inline]
    fn push(&self, cut: &mut Cut, piece: &Piece<'_>, line: Range<usize>, lines: &mut Vec<Line>) {
        let Range { start, end: next } = line;
        let at = next - 1;
        let end = if at > start && piece.bytes.get(at - 1) == Some(&b'\r') { at - 1 } else { at };
        if end - start <= self.line_bytes_max {
            lines.push(Line { start: start as u32, end: end as u32 });
        } else {
            refuse(cut, piece.offset + start as u64, piece.offset + next as u64);
        }
        cut.used = next;
    }
}

/// The line, with its end, that has the byte `at`; whole lines lie `within`.
fn line_around(bytes: &[u8], at: usize, within: Range<usize>) -> Range<usize> {
    let before = bytes.get(within.start..at).unwrap_or_default();
    let start = memrchr(b'\n', before).map_or(within.start, |end| within.start + end + 1);
    let after = bytes.get(at..within.end).unwrap_or_default();
    start..memchr(b'\n', after).map_or(within.end, |end| at + end + 1)
}

fn refuse(cut: &mut Cut, start: u64, end: u64) {
    cut.refused += 1;
    cut.too_long.get_or_insert(TooLong { offset: start, bytes: end - start });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What came of an input.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Whole {
        /// Where lines begin, and what they are.
        lines: Vec<(usize, Vec<u8>)>,
        refused: u64,
        skipped: u64,
    }

    /// How an input is read.
    #[derive(Clone, Copy, Debug)]
    struct How {
        chunk: usize,
        line_max: usize,
        rows_max: usize,
    }

    /// The lines of a chunk alone.
    fn cut_alone(cutter: &mut Cutter, piece: Piece<'_>, lines: &mut Vec<Line>) -> Cut {
        lines.clear();
        cutter.cut(piece, lines)
    }

    /// Reads an input in chunks of up to so many bytes.
    fn whole(input: &[u8], how: How, prefilter: Option<&Prefilter>) -> Whole {
        let How { chunk, line_max, rows_max } = how;
        let mut cutter = Cutter::new(line_max);
        let (mut found, mut at, mut size) = (Whole::default(), 0, chunk);
        let mut lines = Vec::new();
        while at < input.len() {
            let end = input.len().min(at + size);
            let (bytes, offset, ended) = (&input[at..end], at as u64, end == input.len());
            let piece = Piece { bytes, from: 0, offset, ended, rows_max, prefilter };
            let cut = cut_alone(&mut cutter, piece, &mut lines);
            let placed = lines.iter().map(|line| {
                let (start, end) = (line.start as usize, line.end as usize);
                (at + start, bytes[start..end].to_vec())
            });
            found.lines.extend(placed);
            assert!(lines.len() <= rows_max);
            found.refused += cut.refused;
            found.skipped += cut.skipped;
            at += cut.used;
            // A line that does not fit is read again with more.
            assert!(cut.used > 0 || size < cutter.chunk_bytes_min(), "no way forward at {at}");
            size = if cut.used == 0 { size * 2 } else { chunk };
        }
        assert_eq!(cutter.skipping(), None);
        found
    }

    /// All lines of an input, without their places, and how many were refused.
    fn lines_of(
        input: &[u8],
        chunk: usize,
        line_max: usize,
        rows_max: usize,
    ) -> (Vec<Vec<u8>>, u64) {
        let whole = whole(input, How { chunk, line_max, rows_max }, None);
        assert_eq!(whole.skipped, 0);
        (whole.lines.into_iter().map(|(_, line)| line).collect(), whole.refused)
    }

    /// As slow and plain as it can be.
    fn naive(input: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let (mut lines, mut at) = (Vec::new(), 0);
        for line in input.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n");
            let text = text.map(|text| text.strip_suffix(b"\r").unwrap_or(text));
            lines.push((at, text.unwrap_or(line).to_vec()));
            at += line.len();
        }
        lines
    }

    #[test]
    fn both_line_ends_end_a_line_and_nothing_else_does() {
        let (lines, refused) = lines_of(b"a\r\nb\n\n\r\n\0c\rd\n\re", 100, 100, 100);
        let expected: [&[u8]; 6] = [b"a", b"b", b"", b"", b"\0c\rd", b"\re"];
        assert_eq!((lines.as_slice(), refused), (&expected.map(Vec::from)[..], 0));
    }

    fn piece(bytes: &[u8], offset: u64, ended: bool) -> Piece<'_> {
        Piece { bytes, from: 0, offset, ended, rows_max: 100, prefilter: None }
    }

    #[test]
    fn an_incomplete_line_waits_until_the_input_has_ended() {
        let mut lines = Vec::new();
        let mut cutter = Cutter::new(100);
        assert_eq!(cut_alone(&mut cutter, piece(b"one\ntw", 0, false), &mut lines).used, 4);
        assert_eq!(lines, [Line { start: 0, end: 3 }]);
        assert_eq!(cut_alone(&mut cutter, piece(b"tw", 4, false), &mut lines), Cut::default());
        assert_eq!(cut_alone(&mut cutter, piece(b"tw", 4, true), &mut lines).used, 2);
        assert_eq!(lines, [Line { start: 0, end: 2 }]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_its_extent_told() {
        let mut lines = Vec::new();
        let mut cutter = Cutter::new(3);
        assert_eq!(cut_alone(&mut cutter, piece(b"ok\nmuch ", 10, false), &mut lines).used, 8);
        assert_eq!((lines.len(), cutter.skipping()), (1, Some(13)));
        assert_eq!(cut_alone(&mut cutter, piece(b"too", 18, false), &mut lines).used, 3);
        let cut = cut_alone(&mut cutter, piece(b"long\nyes\nfour\n", 21, false), &mut lines);
        assert_eq!((cut.used, cut.refused, lines.len()), (14, 2, 1));
        assert_eq!(cut.too_long, Some(TooLong { offset: 13, bytes: 13 }));
        assert_eq!(cutter.skipping(), None);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_kept_with_either_end() {
        for input in [&b"four\n"[..], b"four\r\n", b"four"] {
            assert_eq!(lines_of(input, 1, 4, 9), (vec![b"four".to_vec()], 0));
            assert_eq!(lines_of(input, 1, 3, 9), (vec![], 1), "{input:?}");
        }
    }

    fn prefilter(texts: &[&str]) -> Prefilter {
        let texts: Vec<Box<str>> = texts.iter().map(|text| (*text).into()).collect();
        Prefilter::new(&texts, &[]).unwrap()
    }

    #[test]
    fn lines_without_any_of_the_texts_are_skipped_and_counted() {
        let input = b"one\r\ntwo\n\nthree two\ntw\no\n\xfftwo\0\ntwice two\nx\r\nlast two";
        let how = How { chunk: 100, line_max: 100, rows_max: 100 };
        let found = whole(input, how, Some(&prefilter(&["two", "x\r", "never"])));
        let at = |place: usize, line: &[u8]| (place, line.to_vec());
        let lines = vec![
            at(5, b"two"),
            at(10, b"three two"),
            at(25, b"\xfftwo\0"),
            at(31, b"twice two"),
            at(41, b"x"),
            at(44, b"last two"),
        ];
        assert_eq!(found, Whole { lines, refused: 0, skipped: 4 });
        let none = whole(input, how, Some(&prefilter(&[])));
        assert_eq!(none, Whole { lines: vec![], refused: 0, skipped: 10 });
    }

    #[test]
    fn a_batch_that_is_full_ends_behind_its_last_line_and_counts_up_to_there() {
        let mut lines = Vec::new();
        let filter = prefilter(&["a"]);
        let piece = |bytes, rows_max| Piece {
            bytes,
            from: 0,
            offset: 0,
            ended: true,
            rows_max,
            prefilter: Some(&filter),
        };
        let cut = cut_alone(&mut Cutter::new(9), piece(b"x\na\nx\nx\na\nx\na", 2), &mut lines);
        assert_eq!((cut.used, cut.skipped, lines.len()), (10, 3, 2));
        let cut = cut_alone(&mut Cutter::new(9), piece(b"x\nx\nx", 2), &mut lines);
        assert_eq!((cut.used, cut.skipped, lines.len()), (5, 3, 0));
    }

    #[test]
    fn a_line_that_is_too_long_and_has_none_of_the_texts_is_skipped_if_all_of_it_is_there() {
        let how = How { chunk: 100, line_max: 3, rows_max: 100 };
        for (input, refused, skipped) in [
            (&b"xxxx\naaaa\na\nxxxx"[..], 1, 2),
            (b"xxxx\na\naaaa", 1, 1),
            (b"a\nxxxxxx\r\n", 0, 1),
        ] {
            let found = whole(input, how, Some(&prefilter(&["a"])));
            assert_eq!((found.lines.len(), found.refused, found.skipped), (1, refused, skipped));
        }
    }

    /// Where texts are dense all lines are given, until they are rare again.
    #[test]
    fn frequent_texts_cost_no_more_than_lines_that_are_given_for_nothing() {
        let (dense, rare) = ("an error\nnone\n".repeat(20_000), "none\n".repeat(100_000));
        let input = format!("error\n{dense}{rare}error\n").into_bytes();
        let how = How { chunk: 1 << 20, line_max: 100, rows_max: usize::MAX };
        let found = whole(&input, how, Some(&prefilter(&["error"])));
        let errors = |lines: &[(usize, Vec<u8>)]| {
            let errors = lines.iter().filter(|(_, line)| line.ends_with(b"error"));
            errors.cloned().collect::<Vec<_>>()
        };
        assert_eq!(errors(&found.lines), errors(&naive(&input)));
        assert_eq!(found.lines.len() as u64 + found.skipped, 140_002);
        assert!((50_000..101_000).contains(&found.skipped), "{}", found.skipped);
    }

    /// Bytes among which are texts to look for, whole and in parts.
    fn searched_input() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => proptest::sample::select(vec!["\n", "\r\n", "\r", "\0", "ab", "abc", "b", "ERROR"])
                .prop_map(|piece| piece.as_bytes().to_vec()),
            1 => proptest::sample::select(vec!["a", "c", "ERR", "OR", "x", "  ", "\n\n"])
                .prop_map(|piece| piece.as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 1..4),
            1 => (1usize..80).prop_map(|count| b"y".repeat(count)),
        ];
        proptest::collection::vec(piece, 0..150).prop_map(|pieces| pieces.concat())
    }

    fn texts() -> impl Strategy<Value = Vec<&'static str>> {
        let texts = vec!["ab", "bc", "abc", "b", "ERROR", "a", "\r", "ERR\nOR", "\0", "yyyyy", "q"];
        proptest::sample::subsequence(texts, 0..6)
    }

    proptest! {
        #[test]
        fn chunks_of_any_size_give_the_lines_of_a_naive_splitter(
            input in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(0), any::<u8>()], 0..200),
            chunk in 1usize..50, line_max in 1usize..30, rows_max in 1usize..10,
        ) {
            let mut expected = Whole { lines: naive(&input), ..Whole::default() };
            let all = expected.lines.len();
            expected.lines.retain(|(_, line)| line.len() <= line_max);
            expected.refused = (all - expected.lines.len()) as u64;
            prop_assert_eq!(whole(&input, How { chunk, line_max, rows_max }, None), expected);
        }

        #[test]
        fn with_a_prefilter_no_line_that_has_one_of_the_texts_is_missing(
            input in searched_input(), texts in texts(),
            chunk in 1usize..300, line_max in 1usize..200, rows_max in 1usize..40,
        ) {
            let filter = prefilter(&texts);
            let found = whole(&input, How { chunk, line_max, rows_max }, Some(&filter));
            let all = naive(&input);
            let wanted = |line: &[u8]| {
                texts.iter().any(|text| memchr::memmem::find(line, text.as_bytes()).is_some())
            };
            let fits = |line: &[u8]| line.len() <= line_max;
            let mut given = found.lines.iter();
            for line in all.iter().filter(|(_, line)| wanted(line) && fits(line)) {
                prop_assert!(given.any(|given| given == line), "{line:?} is missing");
            }
            let mut every = all.iter();
            for line in &found.lines {
                prop_assert!(every.any(|every| every == line), "{line:?} is no line");
                prop_assert!(fits(&line.1));
            }
            let counted = found.lines.len() as u64 + found.refused + found.skipped;
            prop_assert_eq!(counted, all.len() as u64);
            let long = |(_, line): &&(usize, Vec<u8>)| !fits(line);
            let refused = all.iter().filter(long).count() as u64;
            let must = all.iter().filter(long).filter(|(_, line)| wanted(line)).count() as u64;
            prop_assert!((must..=refused).contains(&found.refused));
        }
    }
}
