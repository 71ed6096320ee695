//! The word near the head of a line that says how bad it is.

use tidegate_model::severity_of;

/// How far after the time, or into a line without one, the word may begin.
const HEAD_BYTES: usize = 64;

/// The longest word has so many letters.
pub(super) const WORD_BYTES_MAX: usize = 13;

/// A word of a line, and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level<'l> {
    /// The word as the line has it.
    pub(super) word: &'l str,
    /// Its severity number.
    pub(super) severity: u8,
}

/// The letters that Android and glog use.
pub(super) fn of_letter(letter: u8) -> Option<u8> {
    Some(match letter {
        b'V' => 1,
        b'D' => 5,
        b'I' => 9,
        b'W' => 13,
        b'E' => 17,
        b'F' => 21,
        _ => return None,
    })
}

/// What glog has in front of the time.
pub(super) fn glog(letter: u8) -> Option<Level<'static>> {
    let letters = [("D", b'D'), ("I", b'I'), ("W", b'W'), ("E", b'E'), ("F", b'F')];
    let word = letters.iter().find(|(_, known)| *known == letter)?.0;
    Some(Level { word, severity: of_letter(letter)? })
}

/// The number of a level that is itself a number, as pino and bunyan have them.
pub(super) fn of_number(number: &str) -> Option<u8> {
    let number: u32 = number.parse().ok()?;
    Some(match number {
        10..=19 => 1,
        20..=29 => 5,
        30..=39 => 9,
        40..=49 => 13,
        50..=59 => 17,
        60..=69 => 21,
        _ => return None,
    })
}

/// The first word from byte `from` on, the end of a time if there is one, that must be meant as a
/// level: a word in capitals; in other letters where it is in brackets, between bars, after
/// `level=`, before a colon, or comes right after the time. Letters alone count as Android has
/// them: `E/Tag`, or after two numbers, a process and its thread.
pub(super) fn near_head(line: &str, from: usize) -> Option<Level<'_>> {
    let bytes = line.as_bytes();
    let head = bytes.get(from..)?;
    if let Some(at) = letter(head, from > 0) {
        let at = from + at;
        return Some(Level { word: line.get(at..=at)?, severity: of_letter(*bytes.get(at)?)? });
    }
    let level = |start: usize, first: bool| {
        let length = may_be(head.get(start..)?)?;
        let (start, end) = (from + start, from + start + length);
        let word = line.get(start..end)?;
        let place = Place { bytes, start, end, first: first && from > 0 };
        let severity = place.is_meant(word).then(|| severity_of(word))??;
        Some(Level { word, severity })
    };
    // Most lines that have a level have it first.
    let first = head.iter().take(HEAD_BYTES).position(|byte| is_word(*byte))?;
    if let Some(level) = level(first, true) {
        return Some(level);
    }
    let words = word_bytes(head);
    // Words of three bytes at least; what is behind the window may belong to one.
    let starts = words & !(words << 1) & (words >> 1 | 1 << 63) & (words >> 2 | 3 << 62);
    let mut rest = starts & !(1 << first);
    while rest != 0 {
        let start = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        if let Some(level) = level(start, false) {
            return Some(level);
        }
    }
    None
}

/// Letters, digits and what glues them: a level stands alone.
fn is_word(byte: u8) -> bool {
    let letter = byte | 0x20;
    letter.is_ascii_lowercase() | byte.is_ascii_digit() | (byte == b'_') | (byte >= 0x80)
}

/// Which of the first bytes belong to words, one bit each. Without branches, so that the compiler
/// looks at many at once.
fn word_bytes(head: &[u8]) -> u64 {
    if let Some(window) = head.first_chunk() {
        return word_bits(window);
    }
    let mut window = [0; HEAD_BYTES];
    window.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
    word_bits(&window)
}

fn word_bits(window: &[u8; HEAD_BYTES]) -> u64 {
    let flags = window.map(|byte| u8::from(is_word(byte)));
    let (eights, _) = flags.as_chunks::<8>();
    let gathered = eights.iter().zip(0..).map(|(eight, index): (_, u32)| {
        // Each flag is the lowest bit of its byte; the product has all of them in its highest byte.
        let bits = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits << (8 * index)
    });
    gathered.fold(0, |all, bits| all | bits)
}

/// How long the word is that begins here, if it is worth looking up: by its first two letters, and
/// its length.
fn may_be(text: &[u8]) -> Option<usize> {
    let [first, second] = text.first_chunk::<2>()?.map(|byte| byte & 0x1f);
    if SECOND.get(usize::from(first))? >> second & 1 == 0 {
        return None;
    }
    let length = text.iter().take(WORD_BYTES_MAX + 1).take_while(|byte| is_word(**byte)).count();
    (3..=WORD_BYTES_MAX).contains(&length).then_some(length)
}

/// For each first letter of a level a bit for each second one.
const SECOND: [u32; 32] = {
    // Of `trace debug info notice warn error fatal critical alert emergency panic`.
    let mut pairs: &[u8] = b"trdeinnowaerfacralempa";
    let mut bits = [0; 32];
    while let [first, second, rest @ ..] = pairs {
        bits[(*first & 0x1f) as usize] |= 1 << (*second & 0x1f);
        pairs = rest;
    }
    bits
};

/// Where Android's letter is, if what follows the time, or the line, begins with it: `E/Tag`, or
/// after a time ` 1702  2395 E Tag`.
fn letter(head: &[u8], timed: bool) -> Option<usize> {
    let mut at = 0;
    let spaces = |at: usize| head.iter().skip(at).take_while(|byte| **byte == b' ').count();
    let digits = |at: usize| head.iter().skip(at).take_while(|byte| byte.is_ascii_digit()).count();
    at += spaces(at);
    let mut numbers = 0;
    while numbers < 2 && digits(at) > 0 {
        at += digits(at);
        at += spaces(at);
        numbers += 1;
    }
    of_letter(*head.get(at)?)?;
    match (numbers, head.get(at + 1)?) {
        (0, b'/') => head.get(at + 2)?.is_ascii_alphabetic().then_some(at),
        (2, b' ') => timed.then_some(at),
        _ => None,
    }
}

/// Where a word stands.
struct Place<'l> {
    bytes: &'l [u8],
    start: usize,
    end: usize,
    /// Whether it is the first after the time.
    first: bool,
}

impl Place<'_> {
    fn before(&self) -> u8 {
        let at = self.start.checked_sub(1);
        at.and_then(|at| self.bytes.get(at)).copied().unwrap_or_default()
    }

    fn after(&self) -> u8 {
        self.bytes.get(self.end).copied().unwrap_or_default()
    }

    fn is_meant(&self, word: &str) -> bool {
        let closed = match self.before() {
            b'[' => self.after() == b']',
            b'<' => self.after() == b'>',
            b'(' => self.after() == b')',
            b'|' => self.after() == b'|',
            _ => false,
        };
        // Right after the time it is no part of a name such as `error-host`.
        let first = self.first && b" \t:]|,".contains(&self.after());
        let capitals = word.bytes().all(|letter| letter.is_ascii_uppercase());
        capitals || closed || first || self.after() == b':' || self.is_value()
    }

    /// After `level=`, `severity=` or `lvl=`, with or without a quote.
    fn is_value(&self) -> bool {
        let quotes = usize::from(self.before() == b'"');
        let key = self.bytes.get(..self.start - quotes).unwrap_or_default();
        [&b"level="[..], b"severity=", b"lvl="].iter().any(|known| key.ends_with(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(line: &str) -> Option<(&str, u8)> {
        // A bar in the test's line ends its time.
        let from = line.find('¦').map_or(0, |at| at + '¦'.len_utf8());
        near_head(line, from).map(|level| (level.word, level.severity))
    }

    #[test]
    fn a_word_that_is_meant_is_found() {
        for (line, word, severity) in [
            ("¦ INFO [main] org.apache", "INFO", 9),
            ("¦ 148 WARN dfs.DataNode", "WARN", 13),
            ("¦] [notice] workerEnv.init()", "notice", 10),
            ("¦ [error] 123#0: *1", "error", 17),
            ("¦ 0 [Warning] [MY-010068]", "Warning", 13),
            ("¦ UTC [1234] ERROR:  relation", "ERROR", 17),
            ("¦ host app[12]: error: no such file", "error", 17),
            ("¦\" level=info msg=\"an ERROR\"", "info", 9),
            ("¦ level=\"warn\" x", "warn", 13),
            ("¦ - my.logger - CRITICAL - x", "CRITICAL", 21),
            ("¦|debug|x", "debug", 5),
            ("¦ Info  service started", "Info", 9),
            ("¦ \u{1b}[32m INFO\u{1b}[0m x", "INFO", 9),
            ("FATAL: out of memory", "FATAL", 21),
            ("warning: unused variable", "warning", 13),
            ("E/ActivityManager( 1234): x", "E", 17),
            ("¦  1702  2395 D WindowManager: x", "D", 5),
            ("[TRACE] x", "TRACE", 1),
        ] {
            assert_eq!(level(line), Some((word, severity)), "{line}");
        }
    }

    #[test]
    fn other_words_are_none() {
        for line in [
            "",
            "¦ combo sshd[1]: authentication failure; an error occurred",
            "an error occurred",
            "Error handling is hard",
            "¦ host a: ERR_DATA_INSERT",
            "¦ host a: INFORMATION1 xERROR ERRORx éERROR",
            "A B C",
            "1 2 I am",
            "D/",
            "¦ x I / O",
            "¦ error-host sshd[1]: x",
            "¦ combo kernel: 3 4 I think",
            "¦ 3 I think",
            "¦ host pid 5 of W/D",
            "¦ a line whose word comes so late that it is part of the text, not of the head, ERROR",
        ] {
            assert_eq!(level(line), None, "{line}");
        }
    }

    #[test]
    fn numbers_are_those_of_pino() {
        let numbers = ["10", "20", "30", "40", "50", "60", "35"].map(of_number);
        assert_eq!(numbers, [1, 5, 9, 13, 17, 21, 9].map(Some));
        assert_eq!(["0", "5", "70", "-10", "x", "1e1"].map(of_number), [None; 6]);
    }
}
