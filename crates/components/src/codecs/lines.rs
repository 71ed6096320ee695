//! Where lines begin and end: pure, so that it can be tested at every cut.

use memchr::{memchr, memchr_iter};
use tidegate_flow::TooLarge;
use tidegate_model::{ByteSize, Error, Mistake, Result, Spanned};

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
    /// Where in its partition it begins.
    pub offset: u64,
    /// Whether the input ends with it: what follows the last line end is a line then.
    pub ended: bool,
    /// At most so many lines of it.
    pub rows_max: usize,
}

/// What a [`Cutter`] made of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// How many bytes are done with: the next chunk begins there.
    pub used: usize,
    /// How many lines were too long.
    pub refused: u64,
    /// The first of them.
    pub too_long: Option<TooLong>,
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

    /// Finds the lines of a chunk, which takes their place in `lines`.
    pub fn cut(&mut self, piece: Piece<'_>, lines: &mut Vec<Line>) -> Cut {
        lines.clear();
        let Piece { bytes, offset, ended, rows_max } = piece;
        let bytes = bytes.get(..u32::MAX as usize).unwrap_or(bytes);
        let mut cut = Cut::default();
        if let Some(began) = self.skipping {
            match memchr(b'\n', bytes) {
                Some(at) => self.skipped(&mut cut, began, offset, at + 1),
                None if ended => self.skipped(&mut cut, began, offset, bytes.len()),
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
        if ended && rest <= self.line_bytes_max {
            lines.push(Line { start: cut.used as u32, end: bytes.len() as u32 });
            cut.used = bytes.len();
        } else if ended {
            self.skipped(&mut cut, began, offset, bytes.len());
        } else if rest >= self.chunk_bytes_min() {
            self.skipping = Some(began);
            cut.used = bytes.len();
        }
        cut
    }

    /// The line that was passed over ends before the byte `used` of the chunk.
    fn skipped(&mut self, cut: &mut Cut, began: u64, offset: u64, used: usize) {
        self.skipping = None;
        cut.used = used;
        refuse(cut, began, offset + used as u64);
    }

    fn whole_lines(&self, cut: &mut Cut, piece: &Piece<'_>, lines: &mut Vec<Line>) {
        let Piece { bytes, offset, rows_max, .. } = *piece;
        let first = cut.used;
        let mut start = first;
        let bytes = bytes.get(..u32::MAX as usize).unwrap_or(bytes);
        for at in memchr_iter(b'\n', bytes.get(first..).unwrap_or_default()) {
            let at = first + at;
            let end = if at > start && bytes.get(at - 1) == Some(&b'\r') { at - 1 } else { at };
            if end - start <= self.line_bytes_max {
                lines.push(Line { start: start as u32, end: end as u32 });
            } else {
                refuse(cut, offset + start as u64, offset + at as u64 + 1);
            }
            start = at + 1;
            if lines.len() >= rows_max {
                break;
            }
        }
        cut.used = start;
    }
}

fn refuse(cut: &mut Cut, start: u64, end: u64) {
    cut.refused += 1;
    cut.too_long.get_or_insert(TooLong { offset: start, bytes: end - start });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All lines of an input that is read in chunks of up to `chunk` bytes, and what was refused.
    fn lines_of(
        input: &[u8],
        chunk: usize,
        line_max: usize,
        rows_max: usize,
    ) -> (Vec<Vec<u8>>, u64) {
        let mut cutter = Cutter::new(line_max);
        let (mut found, mut refused, mut at, mut size) = (Vec::new(), 0, 0, chunk);
        let mut lines = Vec::new();
        while at < input.len() {
            let end = input.len().min(at + size);
            let (bytes, offset, ended) = (&input[at..end], at as u64, end == input.len());
            let cut = cutter.cut(Piece { bytes, offset, ended, rows_max }, &mut lines);
            let texts =
                lines.iter().map(|line| &input[at..][line.start as usize..line.end as usize]);
            found.extend(texts.map(<[u8]>::to_vec));
            assert!(lines.len() <= rows_max);
            refused += cut.refused;
            at += cut.used;
            // A line that does not fit is read again with more.
            assert!(cut.used > 0 || size < cutter.chunk_bytes_min(), "no way forward at {at}");
            size = if cut.used == 0 { size * 2 } else { chunk };
        }
        assert_eq!(cutter.skipping(), None);
        (found, refused)
    }

    /// As slow and plain as it can be.
    fn naive(input: &[u8], line_max: usize) -> (Vec<Vec<u8>>, u64) {
        let mut pieces: Vec<Vec<u8>> = input.split(|byte| *byte == b'\n').map(Vec::from).collect();
        let last = pieces.pop().unwrap_or_default();
        for piece in &mut pieces {
            if piece.last() == Some(&b'\r') {
                piece.pop();
            }
        }
        if !last.is_empty() {
            pieces.push(last);
        }
        let all = pieces.len();
        pieces.retain(|piece| piece.len() <= line_max);
        let refused = all - pieces.len();
        (pieces, refused as u64)
    }

    #[test]
    fn both_line_ends_end_a_line_and_nothing_else_does() {
        let (lines, refused) = lines_of(b"a\r\nb\n\n\r\n\0c\rd\n\re", 100, 100, 100);
        let expected: [&[u8]; 6] = [b"a", b"b", b"", b"", b"\0c\rd", b"\re"];
        assert_eq!((lines.as_slice(), refused), (&expected.map(Vec::from)[..], 0));
    }

    fn piece(bytes: &[u8], offset: u64, ended: bool) -> Piece<'_> {
        Piece { bytes, offset, ended, rows_max: 100 }
    }

    #[test]
    fn an_incomplete_line_waits_until_the_input_has_ended() {
        let mut lines = Vec::new();
        let mut cutter = Cutter::new(100);
        assert_eq!(cutter.cut(piece(b"one\ntw", 0, false), &mut lines).used, 4);
        assert_eq!(lines, [Line { start: 0, end: 3 }]);
        assert_eq!(cutter.cut(piece(b"tw", 4, false), &mut lines), Cut::default());
        assert_eq!(cutter.cut(piece(b"tw", 4, true), &mut lines).used, 2);
        assert_eq!(lines, [Line { start: 0, end: 2 }]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_its_extent_told() {
        let mut lines = Vec::new();
        let mut cutter = Cutter::new(3);
        assert_eq!(cutter.cut(piece(b"ok\nmuch ", 10, false), &mut lines).used, 8);
        assert_eq!((lines.len(), cutter.skipping()), (1, Some(13)));
        assert_eq!(cutter.cut(piece(b"too", 18, false), &mut lines).used, 3);
        let cut = cutter.cut(piece(b"long\nyes\nfour\n", 21, false), &mut lines);
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

    proptest! {
        #[test]
        fn chunks_of_any_size_give_the_lines_of_a_naive_splitter(
            input in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(0), any::<u8>()], 0..200),
            chunk in 1usize..50, line_max in 1usize..30, rows_max in 1usize..10,
        ) {
            prop_assert_eq!(lines_of(&input, chunk, line_max, rows_max), naive(&input, line_max));
        }
    }
}
