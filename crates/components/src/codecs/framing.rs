//! Where records begin and end in a stream of bytes: lines, or frames that say how long they are.
//! Pure, so that it can be tested at every cut.

use memchr::memchr;
use tidegate_model::{Mistake, Spanned};

use super::lines::{Cut, Cutter, Line, Piece, TooLong};

/// How records are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Each ends with a line's end.
    #[default]
    Newline,
    /// Each begins with its length in bytes, in decimal, and a space ([RFC 6587], 3.4.1). What begins
    /// otherwise ends with a line's end (3.4.2): senders mix them. Where a counted record has a line's
    /// end as well, as rsyslog counts it, that is taken off.
    ///
    /// [RFC 6587]: https://www.rfc-editor.org/rfc/rfc6587
    OctetCounting,
    /// Each begins with its length in bytes: four, the most significant first.
    LengthPrefix,
}

impl Framing {
    const ALL: [(&'static str, Self); 3] = [
        ("newline", Self::Newline),
        ("octet_counting", Self::OctetCounting),
        ("length_prefix", Self::LengthPrefix),
    ];

    /// The one that a configuration names; `newline` where it names none.
    ///
    /// # Errors
    ///
    /// A mistake that lists them, where there is none of that name.
    pub fn named(name: Option<&Spanned<String>>) -> Result<Self, Mistake> {
        let Some(name) = name else { return Ok(Self::Newline) };
        let found = Self::ALL.iter().find(|(known, _)| known == name.get_ref());
        found.map(|(_, framing)| *framing).ok_or_else(|| {
            let names = Self::ALL.map(|(known, _)| format!("{known:?}")).join(", ");
            Mistake::at(name.span(), format!("there is no framing {:?}", name.get_ref()))
                .help(format!("one of {names}"))
        })
    }

    /// Puts a record of one line into its frame, at the end of what is there. The line may have its
    /// end.
    pub fn wrap(self, record: &[u8], out: &mut Vec<u8>) {
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        match self {
            Self::Newline => {
                out.extend_from_slice(record);
                out.push(b'\n');
            }
            Self::OctetCounting => {
                out.extend_from_slice(record.len().to_string().as_bytes());
                out.push(b' ');
                out.extend_from_slice(record);
            }
            Self::LengthPrefix => {
                let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(record.get(..length as usize).unwrap_or(record));
            }
        }
    }
}

/// So many digits a length may have: more is no length.
const DIGITS_MAX: usize = 10;

/// Cuts the bytes of one connection into records, piece by piece.
///
/// A record that is longer than allowed is passed over without being held, and counted.
#[derive(Clone, Debug)]
pub struct Framer {
    framing: Framing,
    bytes_max: usize,
    lines: Cutter,
    // How much of a frame that is too long is still to come.
    skipping: u64,
    // Whether a line that is too long goes on.
    skipping_line: bool,
}

/// The next frame in what there is.
enum Next {
    /// Its head, and how long it is.
    Frame { head: usize, length: u64 },
    /// A line follows.
    Line,
    /// More is needed to know.
    Unknown,
}

impl Framer {
    /// At most so many bytes in a record.
    pub fn new(framing: Framing, bytes_max: usize) -> Self {
        Self {
            framing,
            bytes_max,
            lines: Cutter::new(bytes_max),
            skipping: 0,
            skipping_line: false,
        }
    }

    /// How many bytes a chunk must have to hold any record and its frame.
    pub fn chunk_bytes_min(&self) -> usize {
        self.bytes_max.saturating_add(DIGITS_MAX + 2)
    }

    /// Finds the records of a chunk, and adds them. Only lines can be searched by a prefilter.
    pub fn cut(&mut self, piece: Piece<'_>, records: &mut Vec<Line>) -> Cut {
        if self.framing == Framing::Newline {
            return self.lines.cut(piece, records);
        }
        let bytes = piece.bytes.get(..u32::MAX as usize).unwrap_or(piece.bytes);
        let piece = Piece { bytes, prefilter: None, ..piece };
        let mut cut = Cut { used: piece.from.min(bytes.len()), ..Cut::default() };
        while records.len() < piece.rows_max {
            let rest = bytes.get(cut.used..).unwrap_or_default();
            if self.skipping > 0 {
                let passed = self.skipping.min(rest.len() as u64);
                self.skipping -= passed;
                cut.used += passed as usize;
                if self.skipping > 0 {
                    break;
                }
                continue;
            }
            if rest.is_empty() {
                break;
            }
            let next = if self.skipping_line { Next::Line } else { self.next(rest) };
            match next {
                Next::Frame { head, length } => {
                    if !self.frame(&piece, head, length, &mut cut, records) {
                        break;
                    }
                }
                Next::Line => {
                    if !self.line(&piece, &mut cut, records) {
                        break;
                    }
                }
                Next::Unknown if piece.ended => {
                    cut.refused += 1;
                    cut.used = bytes.len();
                }
                Next::Unknown => break,
            }
        }
        cut
    }

    /// Whether the record that begins there may have its end there, or is longer than it may be. So
    /// many bytes have been searched for it before.
    pub(crate) fn may_be_whole(&self, part: &[u8], searched: usize) -> bool {
        let next = match self.framing {
            Framing::Newline => Next::Line,
            _ => self.next(part),
        };
        part.len() >= self.chunk_bytes_min()
            || match next {
                Next::Frame { length, .. } if length > self.bytes_max as u64 => true,
                Next::Frame { head, length } => part.len() as u64 >= head as u64 + length,
                Next::Line => memchr(b'\n', part.get(searched..).unwrap_or_default()).is_some(),
                Next::Unknown => false,
            }
    }

    /// Takes a frame; tells whether all of it was there.
    fn frame(
        &mut self,
        piece: &Piece<'_>,
        head: usize,
        length: u64,
        cut: &mut Cut,
        records: &mut Vec<Line>,
    ) -> bool {
        let start = cut.used + head;
        if length > self.bytes_max as u64 {
            cut.refused += 1;
            let offset = piece.offset + cut.used as u64;
            cut.too_long = cut.too_long.or(Some(TooLong { offset, bytes: length }));
            self.skipping = length;
            cut.used = start;
            return true;
        }
        let end = start + length as usize; // at most bytes_max
        if end > piece.bytes.len() {
            if piece.ended {
                // Cut off in the middle.
                cut.refused += 1;
                cut.used = piece.bytes.len();
            }
            return false;
        }
        let record = piece.bytes.get(start..end).unwrap_or_default();
        let bare = match self.framing {
            Framing::OctetCounting => without_end(record),
            _ => record,
        };
        // A chunk has at most 4 GiB.
        records.push(Line { start: start as u32, end: (start + bare.len()) as u32 });
        cut.used = end;
        true
    }

    /// Takes a line; tells whether its end was there.
    fn line(&mut self, piece: &Piece<'_>, cut: &mut Cut, records: &mut Vec<Line>) -> bool {
        let rest = piece.bytes.get(cut.used..).unwrap_or_default();
        let end = memchr(b'\n', rest);
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest);
        let line = if end.is_some() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        let whole = end.is_some() || piece.ended;
        // A CR at the end of what there is may belong to the line's end.
        let too_long = line.len() > self.bytes_max + usize::from(!whole);
        if too_long && !self.skipping_line {
            cut.refused += 1;
            let (offset, bytes) = (piece.offset + cut.used as u64, line.len() as u64);
            cut.too_long = cut.too_long.or(Some(TooLong { offset, bytes }));
        }
        let skipping = self.skipping_line || too_long;
        if whole && !skipping {
            let (start, length) = (cut.used as u32, line.len() as u32);
            records.push(Line { start, end: start + length });
        }
        self.skipping_line = skipping && !whole;
        if whole || skipping {
            cut.used += end.map_or(rest.len(), |end| end + 1);
        }
        whole
    }

    fn next(&self, bytes: &[u8]) -> Next {
        if self.framing == Framing::LengthPrefix {
            return match bytes.first_chunk::<4>() {
                Some(length) => Next::Frame { head: 4, length: u32::from_be_bytes(*length).into() },
                None => Next::Unknown,
            };
        }
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        match bytes.get(digits) {
            Some(b' ') if (1..=DIGITS_MAX).contains(&digits) => {
                let length = bytes.iter().take(digits);
                let length = length.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
                Next::Frame { head: digits + 1, length }
            }
            None if digits <= DIGITS_MAX => Next::Unknown,
            _ => Next::Line,
        }
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let Some(line) = line.strip_suffix(b"\n") else { return line };
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The records of a stream that comes in these pieces, and how many were refused.
    fn records(framing: Framing, max: usize, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, u64) {
        let mut framer = Framer::new(framing, max);
        let (mut found, mut refused, mut held) = (Vec::new(), 0, Vec::new());
        for (number, piece) in pieces.iter().enumerate() {
            held.extend_from_slice(piece);
            let ended = number + 1 == pieces.len();
            loop {
                let mut lines = Vec::new();
                let bytes = &*held;
                let piece =
                    Piece { bytes, from: 0, offset: 0, ended, rows_max: 3, prefilter: None };
                let cut = framer.cut(piece, &mut lines);
                refused += cut.refused;
                let text = |line: &Line| held[line.start as usize..line.end as usize].to_vec();
                found.extend(lines.iter().map(text));
                held.drain(..cut.used);
                if cut.used == 0 || held.is_empty() {
                    break;
                }
            }
            assert!(held.len() < framer.chunk_bytes_min(), "{} bytes are held", held.len());
        }
        (found, refused)
    }

    fn texts(framing: Framing, stream: &[u8]) -> (Vec<String>, u64) {
        let (found, refused) = records(framing, 20, &[stream]);
        (found.into_iter().map(|text| String::from_utf8(text).unwrap()).collect(), refused)
    }

    #[test]
    fn counted_frames_and_lines_may_be_mixed() {
        for (stream, expected, refused) in [
            ("3 abc5 d\ne\nf", &["abc", "d\ne\nf"][..], 0),
            ("3 abc<13>a line\n2 de", &["abc", "<13>a line", "de"], 0),
            ("0 3 abc", &["", "abc"], 0),
            ("4 abc\n5 abc\r\n4 a\nbc2 \n\n", &["abc", "abc", "a\nbc", "\n"], 0),
            ("2026-11-26 line\n", &["2026-11-26 line"], 0),
            ("99999999999 line\n1 a", &["99999999999 line", "a"], 0),
            ("7 cut", &[], 1),
            ("12", &[], 1),
            ("21 123456789012345678901x\n", &["x"], 1),
            ("a line that is too long\n1 a", &["a"], 1),
            ("", &[], 0),
        ] {
            let expected = expected.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(
                texts(Framing::OctetCounting, stream.as_bytes()),
                (expected, refused),
                "{stream}"
            );
        }
    }

    #[test]
    fn lengths_come_first() {
        let stream = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x02\n\n";
        let expected = ["abc", "", "\n\n"].map(str::to_owned).to_vec();
        assert_eq!(texts(Framing::LengthPrefix, stream), (expected, 0));
        // Four gigabytes that never come, and half a length.
        assert_eq!(texts(Framing::LengthPrefix, b"\xff\xff\xff\xffabc"), (vec![], 1));
        assert_eq!(texts(Framing::LengthPrefix, b"\0\0\0"), (vec![], 1));
        assert_eq!(texts(Framing::LengthPrefix, b"\0\0\0\x05abc"), (vec![], 1));
    }

    #[test]
    fn names_are_known() {
        let named = |name: &str| Framing::named(Some(&Spanned::new(0..1, name.to_owned())));
        assert_eq!(named("octet_counting"), Ok(Framing::OctetCounting));
        assert!(named("lines").unwrap_err().help.unwrap().contains("\"length_prefix\""));
        assert_eq!(Framing::named(None), Ok(Framing::Newline));
    }

    proptest! {
        #[test]
        fn what_is_wrapped_comes_out_again_however_it_is_cut(
            texts in proptest::collection::vec("[a-z0-9 <>]{0,30}", 0..20),
            cuts: Vec<u8>,
        ) {
            for framing in [Framing::Newline, Framing::OctetCounting, Framing::LengthPrefix] {
                let mut stream = Vec::new();
                texts.iter().for_each(|text| framing.wrap(text.as_bytes(), &mut stream));
                let mut pieces = Vec::new();
                let mut rest = &*stream;
                for cut in &cuts {
                    let (piece, later) = rest.split_at(usize::from(cut % 16).min(rest.len()));
                    pieces.push(piece);
                    rest = later;
                }
                pieces.push(rest);
                let (found, refused) = records(framing, 20, &pieces);
                let fit = texts.iter().filter(|text| text.len() <= 20);
                let expected: Vec<_> = fit.map(|text| text.as_bytes().to_vec()).collect();
                prop_assert_eq!(refused as usize, texts.len() - expected.len());
                prop_assert_eq!(found, expected);
            }
        }

        #[test]
        fn anything_is_cut_the_same_way_in_pieces(stream: Vec<u8>, cuts: Vec<u8>) {
            for framing in [Framing::OctetCounting, Framing::LengthPrefix] {
                let whole = records(framing, 20, &[&stream]);
                let mut pieces = Vec::new();
                let mut rest = &*stream;
                for cut in &cuts {
                    let (piece, later) = rest.split_at(usize::from(cut % 8).min(rest.len()));
                    pieces.push(piece);
                    rest = later;
                }
                pieces.push(rest);
                prop_assert_eq!(records(framing, 20, &pieces), whole);
            }
        }
    }
}
