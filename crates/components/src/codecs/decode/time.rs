//! The time that a line says at its head, or a value as a whole: byte by byte, as there are
//! millions of them and few forms.
//!
//! Known are RFC 3339 and its relatives (`2015-10-18 18:01:47,978`, with `T`, `-` or `_` between,
//! slashes or dots in the date), `20171223-22:15:29:606`, `081109 203615`, syslog's
//! `Jun 14 15:16:01`, C's `Sun Dec 04 04:47:44 2005`, `10/Oct/2000:13:55:36 -0700` and
//! `06 Nov 1994 08:49:37 GMT`, Android's `03-17 16:13:38.811`, glog's `I0314 15:04:05.678901`,
//! `10.30 16:49:06`, and the seconds, milliseconds, microseconds or nanoseconds since the epoch. In
//! front of it there may be a bracket, syslog's `<34>1 `, a dash, or `time=`. Without a zone it is
//! UTC; without a year it is the last one that is not more than a day ahead of when it was read.

use std::cell::Cell;
use std::ops::Range;

use super::calendar::{days_of, days_since_epoch, is_weekday, year_of};
use super::epoch::since_epoch;

const NANOS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// A day without a year that is so many days back is of the same year at any time of day and in
/// any zone that can be written, which is up to five days off.
const SAME_YEAR_DAYS: Range<i64> = 7..350;

/// How far into a line a web server's time in brackets is looked for.
const BRACKET_BYTES_MAX: usize = 128;

/// What logfmt calls it.
const KEYS: [&[u8]; 3] = [b"time=", b"ts=", b"timestamp="];

/// When something was read, and what that means for times without a year.
#[derive(Clone, Debug)]
pub(super) struct Now {
    nanos: i64,
    year: i64,
    /// The last day that was met, in seconds since the epoch: most lines are of the same.
    last: Cell<Option<(Date, i64)>>,
}

impl Now {
    /// Of nanoseconds since the epoch.
    pub(super) fn new(nanos: i64) -> Self {
        let year = year_of(nanos.div_euclid(NANOS * DAY_SECONDS));
        Self { nanos, year, last: Cell::new(None) }
    }
}

/// A time at the head of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Nanoseconds since the epoch.
    pub(super) nanos: i64,
    /// The byte after it, and after what belongs to it.
    pub(super) end: usize,
    /// The letter for the level that glog puts in front of it.
    pub(super) letter: Option<u8>,
}

/// The time at the head of a line.
pub(super) fn at_head(line: &[u8], now: &Now) -> Option<Stamp> {
    let mut cursor = Cursor { bytes: line, at: 0 };
    cursor.spaces();
    cursor.priority();
    let key = match cursor.peek(0) {
        b't' => KEYS.iter().find(|key| cursor.rest().starts_with(key)),
        _ => None,
    };
    if let Some(key) = key {
        cursor.at += key.len();
        cursor.eat(b'"');
    } else if cursor.rest().starts_with(b"- ") {
        cursor.at += 2;
    }
    let bracket = cursor.eat(b'[');
    let letter = cursor.glog();
    match cursor.time(now) {
        Some(nanos) => {
            if bracket {
                cursor.eat(b']');
            }
            Some(Stamp { nanos, end: cursor.at, letter })
        }
        None if letter.is_none() => in_brackets(line, now),
        None => None,
    }
}

/// A web server's: after the names of who asked.
fn in_brackets(line: &[u8], now: &Now) -> Option<Stamp> {
    let head = line.get(..BRACKET_BYTES_MAX).unwrap_or(line);
    let at = memchr::memchr(b'[', head)? + 1;
    // `10/`; any other number in brackets is something else.
    if line.get(at + 2) != Some(&b'/') {
        return None;
    }
    let mut cursor = Cursor { bytes: line, at };
    let nanos = cursor.time(now)?;
    cursor.eat(b']');
    Some(Stamp { nanos, end: cursor.at, letter: None })
}

/// The time that a text begins with, and nothing before it.
pub(super) fn first(text: &[u8], now: &Now) -> Option<Stamp> {
    let mut cursor = Cursor { bytes: text, at: 0 };
    let nanos = cursor.time(now)?;
    Some(Stamp { nanos, end: cursor.at, letter: None })
}

/// A text that is a time and nothing else.
pub(super) fn whole(text: &[u8], now: &Now) -> Option<i64> {
    let mut cursor = Cursor { bytes: text, at: 0 };
    cursor.spaces();
    let nanos = cursor.time(now)?;
    cursor.spaces();
    (cursor.at == text.len()).then_some(nanos)
}

struct Cursor<'l> {
    bytes: &'l [u8],
    at: usize,
}

/// A day, perhaps of a year that has to be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    year: Option<i64>,
    month: i64,
    day: i64,
}

impl Cursor<'_> {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or_default()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek(0) == byte && self.at < self.bytes.len();
        self.at += usize::from(there);
        there
    }

    fn spaces(&mut self) {
        while self.eat(b' ') {}
    }

    /// As many digits as there are, up to `max`.
    fn digits(&mut self, max: usize) -> Option<i64> {
        let (mut number, mut count) = (0, 0);
        for digit in self.rest().iter().take(max).take_while(|byte| byte.is_ascii_digit()) {
            number = number * 10 + i64::from(digit - b'0');
            count += 1;
        }
        self.at += count;
        (count > 0).then_some(number)
    }

    fn digits_ahead(&self) -> usize {
        self.rest().iter().take(20).take_while(|byte| byte.is_ascii_digit()).count()
    }

    /// Syslog's `<34>` and `<34>1 `.
    fn priority(&mut self) {
        let start = self.at;
        if !self.eat(b'<') {
            return;
        }
        if self.digits(3).is_none() || !self.eat(b'>') {
            self.at = start;
            return;
        }
        if self.rest().starts_with(b"1 ") {
            self.at += 2;
        }
    }

    /// `I0314 `: the letter, where a month and a day follow.
    fn glog(&mut self) -> Option<u8> {
        let letter = self.peek(0);
        let dated =
            b"DIWEF".contains(&letter) && (1..5).all(|ahead| self.peek(ahead).is_ascii_digit());
        (dated && self.peek(5) == b' ').then(|| {
            self.at += 1;
            letter
        })
    }

    fn time(&mut self, now: &Now) -> Option<i64> {
        match self.peek(0) {
            b'0'..=b'9' => self.numbered(now),
            b'A'..=b'Z' => self.worded(now),
            _ => None,
        }
    }

    fn numbered(&mut self, now: &Now) -> Option<i64> {
        let digits = self.digits_ahead();
        let after = self.peek(digits);
        match (digits, after) {
            (4, b'-' | b'/' | b'.') => {
                let year = self.digits(4)?;
                self.eat(after);
                let month = self.digits(2)?;
                let day = self.eat(after).then(|| self.digits(2))??;
                self.at_clock(Date { year: Some(year), month, day }, now)
            }
            (4, b' ') => {
                let (month, day) = (self.digits(2)?, self.digits(2)?);
                self.at_clock(Date { year: None, month, day }, now)
            }
            (8, _) => {
                let (year, month, day) = (self.digits(4)?, self.digits(2)?, self.digits(2)?);
                self.at_clock(Date { year: Some(year), month, day }, now)
            }
            (6, b' ') if self.peek(7).is_ascii_digit() => {
                let (year, month, day) = (self.digits(2)?, self.digits(2)?, self.digits(2)?);
                let year = if 2_000 + year > now.year + 1 { 1_900 + year } else { 2_000 + year };
                self.at_clock(Date { year: Some(year), month, day }, now)
            }
            (10 | 13 | 16 | 19, _) => self.epoch(digits),
            (1 | 2, b'/' | b'-' | b' ') if self.peek(digits + 1).is_ascii_alphabetic() => {
                let day = self.digits(2)?;
                self.at += 1;
                let month = self.month()?;
                self.at += 1;
                let year = Some(self.digits(4)?);
                self.at_clock(Date { year, month, day }, now)
            }
            (2, b'-' | b'.') => {
                let month = self.digits(2)?;
                self.at += 1;
                let day = self.digits(2)?;
                (self.peek(0) == b' ').then_some(())?;
                self.at_clock(Date { year: None, month, day }, now)
            }
            _ => None,
        }
    }

    fn epoch(&mut self, digits: usize) -> Option<i64> {
        let start = self.at;
        self.at += digits;
        if digits == 10 && self.peek(0) == b'.' && self.peek(1).is_ascii_digit() {
            self.at += 1;
            self.digits(9);
        }
        if self.peek(0).is_ascii_alphanumeric() || b"-_".contains(&self.peek(0)) {
            return None;
        }
        since_epoch(std::str::from_utf8(self.bytes.get(start..self.at)?).ok()?)
    }

    /// `Sun Dec 04 04:47:44 2005`, `Sun, 06 Nov 1994 08:49:37 GMT`, `Jun 14 15:16:01`.
    fn worded(&mut self, now: &Now) -> Option<i64> {
        let weekday = is_weekday(self.rest());
        if weekday {
            self.at += 3;
            self.eat(b',');
            self.spaces();
            if self.peek(0).is_ascii_digit() {
                return self.numbered(now);
            }
        }
        let month = self.month()?;
        self.eat(b' ').then_some(())?;
        self.spaces();
        let day = self.digits(2)?;
        self.eat(b' ').then_some(())?;
        self.spaces();
        let mut year = None;
        if self.digits_ahead() == 4 {
            year = self.digits(4);
            self.eat(b' ').then_some(())?;
        }
        let (seconds, nanos) = self.clock()?;
        if weekday && year.is_none() && self.peek(0) == b' ' {
            self.at += 1;
            year = Some(self.digits(4)?);
        }
        compose(Date { year, month, day }, seconds, nanos, now)
    }

    /// Goes on with a time of day and a zone.
    fn at_clock(&mut self, date: Date, now: &Now) -> Option<i64> {
        if !b"T t-_:".contains(&self.peek(0)) {
            return None;
        }
        self.at += 1;
        self.spaces();
        let (seconds, nanos) = self.clock()?;
        let zone = self.zone();
        compose(date, seconds - zone, nanos, now)
    }

    /// Seconds of the day and nanoseconds: `18:01:47,978`, `203615`, `22:15` or `0:28:0:83`.
    fn clock(&mut self) -> Option<(i64, i64)> {
        let (hour, minute, second, mut nanos);
        if self.digits_ahead() >= 6 {
            (hour, minute) = (self.digits(2)?, self.digits(2)?);
            second = self.digits(2)?;
        } else {
            hour = self.digits(2)?;
            minute = self.eat(b':').then(|| self.digits(2))??;
            second = if self.eat(b':') { self.digits(2)? } else { 0 };
        }
        nanos = 0;
        match self.peek(0) {
            b'.' | b',' if self.peek(1).is_ascii_digit() => {
                self.at += 1;
                let start = self.at;
                nanos = self.digits(9)? * 10i64.pow(9 - (self.at - start) as u32);
                self.at += self.digits_ahead();
            }
            // Not a fraction but a number of milliseconds.
            b':' if self.peek(1).is_ascii_digit() => {
                self.at += 1;
                nanos = self.digits(3)? * 1_000_000;
            }
            _ => {}
        }
        // A leap second is the first one of the next minute.
        let real = hour < 24 && minute < 60 && second <= 60;
        real.then_some((hour * 3_600 + minute * 60 + second, nanos))
    }

    /// Seconds ahead of UTC, if a zone is named.
    fn zone(&mut self) -> i64 {
        let start = self.at;
        let spaced = self.eat(b' ');
        for name in [&b"UTC"[..], b"GMT", b"Z", b"z"] {
            if self.rest().starts_with(name) && !self.peek(name.len()).is_ascii_alphanumeric() {
                self.at += name.len();
                return 0;
            }
        }
        let sign = match self.peek(0) {
            b'+' => 1,
            b'-' => -1,
            _ => 0,
        };
        if sign != 0 {
            self.at += 1;
            let digits = self.digits_ahead();
            let hours = self.digits(2).unwrap_or_default();
            let colon = digits == 2 && self.peek(1).is_ascii_digit() && self.eat(b':');
            let minutes = match digits == 4 || colon {
                true => self.digits(2),
                false => None,
            };
            // With a space before it, only the full form is a zone.
            if matches!(digits, 2 | 4) && (minutes.is_some() || !spaced) {
                return sign * (hours * 3_600 + minutes.unwrap_or_default() * 60);
            }
        }
        self.at = start;
        0
    }

    fn month(&mut self) -> Option<i64> {
        const MONTHS: &[u8; 36] = b"janfebmaraprmayjunjulaugsepoctnovdec";
        let name = self.rest().first_chunk::<3>()?.map(|letter| letter.to_ascii_lowercase());
        let number = MONTHS.chunks_exact(3).zip(1..).find(|(known, _)| *known == name)?.1;
        self.at += 3;
        // `June`, `Sept`: the rest of the word.
        while self.peek(0).is_ascii_lowercase() {
            self.at += 1;
        }
        Some(number)
    }
}

fn compose(date: Date, seconds: i64, nanos: i64, now: &Now) -> Option<i64> {
    let Date { year, month, day } = date;
    let on = |start: i64| (start + seconds).checked_mul(NANOS)?.checked_add(nanos);
    if let Some((_, start)) = now.last.get().filter(|(last, _)| *last == date) {
        return on(start);
    }
    let at = |year| {
        if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
            return None;
        }
        let start = days_since_epoch(year, month, day) * DAY_SECONDS;
        Some((start, on(start)?))
    };
    let latest = now.nanos.saturating_add(DAY_SECONDS * NANOS);
    let (start, found) = match year {
        Some(year) => at(year)?,
        None => {
            // The 29th of February may be up to eight years back.
            let years = (now.year - 8..=now.year + 1).rev();
            years.filter_map(at).find(|(_, nanos)| *nanos <= latest)?
        }
    };
    // Where neither a time of day nor a zone can make it another year's.
    let days = (latest / NANOS - start) / DAY_SECONDS;
    if year.is_some() || SAME_YEAR_DAYS.contains(&days) {
        now.last.set(Some((date, start)));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-10 12:00:00 UTC.
    const READ_AT: i64 = 1_773_144_000 * NANOS;

    fn head(line: &str) -> Option<(i64, &str)> {
        let stamp = at_head(line.as_bytes(), &Now::new(READ_AT))?;
        Some((stamp.nanos, &line[stamp.end..]))
    }

    /// Of seconds since the epoch and nanoseconds.
    fn at(seconds: i64, nanos: i64, rest: &str) -> Option<(i64, &str)> {
        Some((seconds * NANOS + nanos, rest))
    }

    #[test]
    fn all_forms_of_a_time_are_known() {
        for (line, expected) in [
            ("2015-10-18 18:01:47,978 INFO x", at(1_445_191_307, 978_000_000, " INFO x")),
            ("2015-10-18T18:01:47.5Z x", at(1_445_191_307, 500_000_000, " x")),
            ("2015-10-18T18:01:47+02:00 x", at(1_445_184_107, 0, " x")),
            ("2015-10-18 18:01:47 -0730 x", at(1_445_218_307, 0, " x")),
            ("2015-10-18 18:01:47 -7 x", at(1_445_191_307, 0, " -7 x")),
            ("2015-10-18 18:01:47 UTC x", at(1_445_191_307, 0, " x")),
            ("2015/10/18 18:01:47 [error]", at(1_445_191_307, 0, " [error]")),
            ("2015-10-18 18:01 x", at(1_445_191_260, 0, " x")),
            ("2015-10-18T18:01:47.1234567891 x", at(1_445_191_307, 123_456_789, " x")),
            ("[2015-10-18 18:01:47] x", at(1_445_191_307, 0, " x")),
            ("<34>1 2015-10-18T18:01:47Z host", at(1_445_191_307, 0, " host")),
            ("<34>Oct 18 18:01:47 host", at(1_760_810_507, 0, " host")),
            ("time=\"2015-10-18T18:01:47Z\" level=info", at(1_445_191_307, 0, "\" level=info")),
            ("ts=1445191307.25 x", at(1_445_191_307, 250_000_000, " x")),
            ("20171223-22:15:29:606|x", at(1_514_067_329, 606_000_000, "|x")),
            ("20171224-0:28:0:83|x", at(1_514_075_280, 83_000_000, "|x")),
            ("20151018T180147Z x", at(1_445_191_307, 0, " x")),
            ("081109 203615 148 INFO", at(1_226_262_975, 0, " 148 INFO")),
            ("991109 203615 148 INFO", at(942_179_775, 0, " 148 INFO")),
            ("Jun 14 15:16:01 combo", at(1_749_914_161, 0, " combo")),
            ("Jul  1 00:00:00 combo", at(1_751_328_000, 0, " combo")),
            ("Mar 11 11:59:59 soon", at(1_773_230_399, 0, " soon")),
            ("Mar 11 12:00:01 last year", at(1_741_694_401, 0, " last year")),
            ("Feb 29 00:00:00 leap", at(1_709_164_800, 0, " leap")),
            ("Jun 14 2005 15:16:01 cisco", at(1_118_762_161, 0, " cisco")),
            ("[Sun Dec 04 04:47:44 2005] [notice]", at(1_133_671_664, 0, " [notice]")),
            ("[Sun Dec 04 04:47:44.25 2005] x", at(1_133_671_664, 250_000_000, " x")),
            ("Sun, 06 Nov 1994 08:49:37 GMT x", at(784_111_777, 0, " x")),
            ("[10/Oct/2000:13:55:36 -0700] x", at(971_211_336, 0, " x")),
            ("::1 - bob [10/Oct/2000:13:55:36 -0700] \"GET", at(971_211_336, 0, " \"GET")),
            ("10-Oct-2000 13:55:36.500 x", at(971_186_136, 500_000_000, " x")),
            ("03-09 16:13:38.811  1702", at(1_773_072_818, 811_000_000, "  1702")),
            ("[10.30 16:49:06] chrome", at(1_761_842_946, 0, " chrome")),
            ("- 1131566461 2005.11.09 dn228", at(1_131_566_461, 0, " 2005.11.09 dn228")),
            ("1131566461123 x", at(1_131_566_461, 123_000_000, " x")),
            ("1131566461123456 x", at(1_131_566_461, 123_456_000, " x")),
            ("1131566461123456789 x", at(1_131_566_461, 123_456_789, " x")),
            ("2016-12-31T23:59:60Z leap", at(1_483_228_800, 0, " leap")),
            ("1969-12-31T23:59:59Z x", at(-1, 0, " x")),
        ] {
            assert_eq!(head(line), expected, "{line}");
        }
        let glog = at_head(b"E0314 15:04:05.678901 1234 x", &Now::new(READ_AT)).unwrap();
        assert_eq!((glog.nanos, glog.letter), (1_741_964_645_678_901_000, Some(b'E')));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for line in [
            "",
            "[",
            "[]",
            "<",
            "<34",
            "time=",
            "text",
            "Mayor of x",
            "Sun is up",
            "12",
            "12:30:00",
            "2015",
            "2015-10",
            "2015-10-18",
            "2015-13-18 18:01:47",
            "2015-02-29 18:01:47",
            "2015-10-18 24:01:47",
            "2015-10-18 18:61:47",
            "2015-10-18x18:01:47",
            "9999-10-18 18:01:47",
            "1131566461x",
            "1131566461-5",
            "12345 x",
            "123456 x",
            "081309 203615",
            "99 Mon 2000 x",
            "10.30 x",
            "10.3.0.1 x",
            "192.168.1.1 - -",
            "[12345] x",
            "at 2015-10-18 18:01:47",
            "Feb 30 00:00:00",
            "日本語",
            "2015-10-18 ",
            "Jun 14",
            "Jun ",
            "I0314",
            "I9999 15:04:05",
        ] {
            assert_eq!(head(line), None, "{line}");
        }
    }

    #[test]
    fn a_value_is_a_time_as_a_whole() {
        let now = Now::new(READ_AT);
        assert_eq!(whole(b"2015-10-18T18:01:47Z", &now), Some(1_445_191_307 * NANOS));
        assert_eq!(whole(b" 1445191307 ", &now), Some(1_445_191_307 * NANOS));
        assert_eq!(whole(b"2015-10-18T18:01:47Z!", &now), None);
    }

    /// Also where the year it is of depends on the time of day, the zone, or a leap year.
    #[test]
    fn a_day_that_was_met_before_is_the_same_again() {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        for read_at in [READ_AT, 1_709_208_000 * NANOS, 1_735_689_600 * NANOS] {
            let now = Now::new(read_at);
            for (month, day) in MONTHS.iter().zip(1..).flat_map(|m| (1..=31).map(move |d| (m, d))) {
                let (name, number) = month;
                for rest in ["00:00:00", "23:59:59 +99:59", "12:00:00", "00:00:00 -99:59"] {
                    for line in [
                        format!("{name} {day} {rest}"),
                        format!("{number:02}-{day:02} {rest}"),
                        format!("2024-{number:02}-{day:02} {rest}"),
                    ] {
                        let line = line.as_bytes();
                        assert_eq!(at_head(line, &now), at_head(line, &Now::new(read_at)));
                    }
                }
            }
        }
    }
}
