//! What made-up lines are made of: fixed text, and values that follow from a number.

use std::ops::Range;

use tidegate_model::{Mistake, Result, Spanned};

/// A line of a web server.
macro_rules! web {
    ($level:literal, $status:literal) => {
        concat!(
            r#"{"time":"{time}","level":""#,
            $level,
            r#"","ip":"{ip}","user":"{user}","path":"{path}","status":"#,
            $status,
            r#","ms":{ms}}"#
        )
    };
}

/// Ready-made kinds of lines, each with how often it is to come.
const NAMED: [(&str, &[(u64, &str)]); 3] = [
    (
        "app",
        &[
            (62, "{time} INFO  [checkout] order {n} of {user} from {ip} was paid in {ms} ms"),
            (26, "{time} DEBUG [cache] {path} was found for {user} in {ms} ms"),
            (9, "{time} WARN  [payments] a slow answer for {user}: {ms} ms, trying again"),
            (3, "{time} ERROR [payments] order {n} of {user} failed: the card was declined"),
        ],
    ),
    ("web", &[(94, web!("info", 200)), (5, web!("warn", 404)), (1, web!("error", 503))]),
    (
        "database",
        &[
            (90, "{time} [4711] {user}@shop LOG:  duration: {ms} ms  statement: SELECT {n}"),
            (8, "{time} [4711] {user}@shop WARNING:  there is no transaction in progress"),
            (2, "{time} [4711] {user}@shop ERROR:  deadlock detected at order {n}"),
        ],
    ),
];

const USERS: [&str; 8] = ["alice", "bruno", "chiara", "david", "elif", "farid", "greta", "hiroshi"];
const PATHS: [&str; 8] = [
    "/",
    "/login",
    "/cart",
    "/checkout",
    "/api/orders",
    "/api/products/42",
    "/static/app.js",
    "/search?q=tide",
];
const LEVELS: [(u64, &str); 5] =
    [(60, "INFO"), (25, "DEBUG"), (10, "WARN"), (4, "ERROR"), (1, "FATAL")];
const STATUSES: [(u64, &str); 6] =
    [(85, "200"), (5, "201"), (4, "304"), (4, "404"), (1, "500"), (1, "503")];

/// `2026-03-10T12:00:00.000Z`.
const TIME_BYTES: usize = 24;

/// Lines to choose from.
#[derive(Clone, Debug)]
pub(super) struct Templates {
    /// Each with the sum of weights up to it.
    lines: Vec<(u64, Vec<Part>)>,
    line_bytes_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Time,
    Level,
    Number,
    Ip,
    User,
    Path,
    Status,
    Millis,
}

/// Values by the names that stand for them, and the most bytes that they have.
const VALUES: [(&str, Value, usize); 8] = [
    ("time", Value::Time, TIME_BYTES),
    ("level", Value::Level, 5),
    ("n", Value::Number, 20),
    ("ip", Value::Ip, 14),
    ("user", Value::User, 7),
    ("path", Value::Path, 16),
    ("status", Value::Status, 3),
    ("ms", Value::Millis, 4),
];

impl Templates {
    /// A ready-made kind; `app` where none is named.
    pub(super) fn named(name: Option<&Spanned<String>>) -> Result<Self, Mistake> {
        let [app, ..] = NAMED;
        let found = match name {
            None => Some(app),
            Some(name) => NAMED.into_iter().find(|(known, _)| known == name.get_ref()),
        };
        if let Some((_, lines)) = found {
            let lines = lines.iter().map(|(weight, line)| Ok((*weight, parse(line)?)));
            return Self::weighted(lines).map_err(Mistake::new);
        }
        let names = NAMED.map(|(name, _)| format!("{name:?}")).join(", ");
        let (span, name) = name.map_or((0..0, ""), |name| (name.span(), name.get_ref()));
        Err(Mistake::at(span, format!("there is no template {name:?}"))
            .help(format!("one of {names}, or lines of your own: lines = [\"…\"]")))
    }

    /// Lines of somebody's own, each as often as any other.
    pub(super) fn of(lines: &[Spanned<String>]) -> Result<Self, Mistake> {
        if lines.is_empty() {
            return Err(Mistake::new("lines: there are none to choose from")
                .help("name at least one: lines = [\"{time} {level} number {n}\"]"));
        }
        let mut parsed = Vec::new();
        for line in lines {
            let parts = parse(line.get_ref()).map_err(|why| {
                let names = VALUES.map(|(name, ..)| format!("{{{name}}}")).join(", ");
                Mistake::at(line.span(), why).help(format!("what is filled in is one of {names}"))
            })?;
            parsed.push(Ok((1, parts)));
        }
        Self::weighted(parsed.into_iter()).map_err(Mistake::new)
    }

    fn weighted(
        lines: impl Iterator<Item = Result<(u64, Vec<Part>), String>>,
    ) -> Result<Self, String> {
        let mut templates = Self { lines: Vec::new(), line_bytes_max: 0 };
        let mut sum = 0;
        for line in lines {
            let (weight, parts) = line?;
            sum += weight;
            let bytes = parts.iter().map(Part::bytes_max).sum::<usize>() + 1;
            templates.line_bytes_max = templates.line_bytes_max.max(bytes);
            templates.lines.push((sum, parts));
        }
        Ok(templates)
    }

    /// The most bytes that a line has, its end included.
    pub(super) fn line_bytes_max(&self) -> usize {
        self.line_bytes_max
    }

    /// Writes lines, one after the other, with that time.
    pub(super) fn writer<'w>(&'w self, room: &'w mut [u8], nanos: i64) -> Writer<'w> {
        Writer { templates: self, room, filled: 0, time: rfc_3339(nanos) }
    }

    fn choose(&self, wheel: &mut Wheel) -> &[Part] {
        let sum = self.lines.last().map_or(1, |(sum, _)| *sum);
        let at = wheel.below(sum);
        let chosen = self.lines.iter().find(|(sum, _)| at < *sum);
        chosen.map(|(_, parts)| parts.as_slice()).unwrap_or_default()
    }
}

impl Part {
    fn bytes_max(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Value(value) => {
                VALUES.iter().find(|(_, known, _)| known == value).map_or(0, |(.., bytes)| *bytes)
            }
        }
    }
}

/// Splits a line at what is to be filled in. Braces around anything but a lower-case word are text.
fn parse(line: &str) -> Result<Vec<Part>, String> {
    if line.contains(['\n', '\r']) {
        return Err("it has a line end in it, so it would be several lines".to_owned());
    }
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let word = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (name, end) = after.split_at(word);
        rest = match end.strip_prefix('}').filter(|_| word > 0) {
            Some(end) => {
                let value = VALUES.iter().find(|(known, ..)| *known == name);
                let (_, value, _) =
                    value.ok_or_else(|| format!("nothing is known to fill in for {{{name}}}"))?;
                parts.push(Part::Text(std::mem::take(&mut text)));
                parts.push(Part::Value(*value));
                end
            }
            None => {
                text.push('{');
                after
            }
        };
    }
    text.push_str(rest);
    parts.push(Part::Text(text));
    parts.retain(|part| *part != Part::Text(String::new()));
    Ok(parts)
}

/// Lines in the making.
pub(super) struct Writer<'w> {
    templates: &'w Templates,
    room: &'w mut [u8],
    filled: usize,
    time: [u8; TIME_BYTES],
}

impl Writer<'_> {
    /// Writes the line of that number; where it is, without its end.
    pub(super) fn line(&mut self, number: u64, mut wheel: Wheel) -> Range<usize> {
        let start = self.filled;
        let templates = self.templates;
        for part in templates.choose(&mut wheel) {
            match part {
                Part::Text(text) => self.push(text.as_bytes()),
                Part::Value(value) => self.value(*value, number, &mut wheel),
            }
        }
        let end = self.filled;
        self.push(b"\n");
        start..end
    }

    /// How many bytes were written.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    fn value(&mut self, value: Value, number: u64, wheel: &mut Wheel) {
        match value {
            Value::Time => {
                let time = self.time;
                self.push(&time);
            }
            Value::Level => self.push(wheel.weighted(&LEVELS).as_bytes()),
            Value::Number => self.number(number),
            Value::Ip => {
                self.push(b"10");
                for _ in 0..3 {
                    self.push(b".");
                    self.number(wheel.below(256));
                }
            }
            Value::User => self.push(wheel.one_of(&USERS).as_bytes()),
            Value::Path => self.push(wheel.one_of(&PATHS).as_bytes()),
            Value::Status => self.push(wheel.weighted(&STATUSES).as_bytes()),
            // Mostly short, sometimes long.
            Value::Millis => {
                let longest = 1 << (2 + wheel.below(10));
                self.number(1 + wheel.below(longest));
            }
        }
    }

    fn number(&mut self, number: u64) {
        self.push(itoa::Buffer::new().format(number).as_bytes());
    }

    fn push(&mut self, text: &[u8]) {
        let end = self.filled + text.len();
        if let Some(room) = self.room.get_mut(self.filled..end) {
            room.copy_from_slice(text);
            self.filled = end;
        }
    }
}

/// Numbers that follow from a seed and a line's number, the same in every version: SplitMix64
/// (Steele, Lea, Flood, *Fast Splittable Pseudorandom Number Generators*, OOPSLA 2014).
#[derive(Clone, Debug)]
pub(super) struct Wheel(u64);

impl Wheel {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    pub(super) fn new(seed: u64, number: u64) -> Self {
        let seed = Self(seed).next();
        Self(Self(seed ^ number).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of 0 to `end`, without it.
    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    fn one_of(&mut self, texts: &[&'static str]) -> &'static str {
        let index = self.below(texts.len() as u64) as usize;
        texts.get(index).copied().unwrap_or_default()
    }

    fn weighted(&mut self, texts: &[(u64, &'static str)]) -> &'static str {
        let mut at = self.below(texts.iter().map(|(weight, _)| weight).sum());
        for (weight, text) in texts {
            if at < *weight {
                return text;
            }
            at -= weight;
        }
        ""
    }
}

/// Milliseconds are enough. Howard Hinnant, `civil_from_days`.
fn rfc_3339(nanos: i64) -> [u8; TIME_BYTES] {
    let millis = nanos.div_euclid(1_000_000);
    let (days, of_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * years + years / 4 - years / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (month, day) = ((shifted + 2) % 12 + 1, of_year - (153 * shifted + 2) / 5 + 1);
    let year = years + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1_000 % 60, of_day % 1_000);

    let mut text = *b"0000-00-00T00:00:00.000Z";
    let fields = [
        (0..4, year),
        (5..7, month),
        (8..10, day),
        (11..13, hour),
        (14..16, minute),
        (17..19, second),
        (20..23, milli),
    ];
    for (place, mut number) in fields {
        for digit in text.get_mut(place).into_iter().flatten().rev() {
            *digit = b'0' + number.rem_euclid(10) as u8;
            number /= 10;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spanned(text: &str) -> Spanned<String> {
        Spanned::new(0..text.len(), text.to_owned())
    }

    /// The lines of these numbers.
    fn lines(templates: &Templates, seed: u64, numbers: Range<u64>) -> Vec<String> {
        let mut room = vec![0; templates.line_bytes_max() * numbers.clone().count()];
        let mut writer = templates.writer(&mut room, 1_773_144_000_123_456_789);
        let places: Vec<_> =
            numbers.map(|number| writer.line(number, Wheel::new(seed, number))).collect();
        let text = |place: Range<usize>| String::from_utf8(room[place].to_vec()).unwrap();
        places.into_iter().map(text).collect()
    }

    #[test]
    fn a_line_follows_from_seed_and_number() {
        let templates = Templates::named(None).unwrap();
        let all = lines(&templates, 1, 0..1_000);
        assert_eq!(lines(&templates, 1, 700..1_000), all[700..]);
        assert_ne!(lines(&templates, 2, 0..1_000), all);
        let distinct: std::collections::HashSet<&String> = all.iter().collect();
        assert!(distinct.len() > 900, "only {} differ", distinct.len());
    }

    #[test]
    fn every_value_is_filled_in_within_its_bytes() {
        for (name, _, bytes) in VALUES {
            let templates = Templates::of(&[spanned(&format!("{{{name}}}"))]).unwrap();
            let all = lines(&templates, 7, u64::MAX - 3_000..u64::MAX);
            let longest = all.iter().map(String::len).max().unwrap();
            assert!(
                all.iter().all(|line| !line.is_empty()) && longest == bytes,
                "{name}: {longest}"
            );
        }
    }

    #[test]
    fn braces_around_other_things_are_text() {
        let templates = Templates::of(&[spanned(r#"{"n":{n},"{":{}} {"#)]).unwrap();
        assert_eq!(lines(&templates, 0, 5..6), [r#"{"n":5,"{":{}} {"#]);
        let time = Templates::of(&[spanned("{time}!")]).unwrap();
        assert_eq!(lines(&time, 0, 0..1), ["2026-03-10T12:00:00.123Z!"]);
    }

    #[test]
    fn every_ready_made_kind_has_all_its_lines_as_often_as_it_says() {
        for (name, kinds) in NAMED {
            let templates = Templates::named(Some(&spanned(name))).unwrap();
            let all = lines(&templates, 3, 0..100_000);
            for (weight, kind) in kinds {
                // Known by a text that no other kind has.
                let others = kinds.iter().filter(|(_, other)| other != kind);
                let only_its_own = |part: &Part| match part {
                    Part::Text(text) if !others.clone().any(|(_, other)| other.contains(text)) => {
                        Some(text.clone())
                    }
                    _ => None,
                };
                let text = parse(kind).unwrap().iter().find_map(only_its_own).unwrap();
                let share = all.iter().filter(|line| line.contains(&text)).count() as f64 / 1e3;
                assert!((share - *weight as f64).abs() < 0.5, "{name}, {text}: {share} %");
            }
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_told() {
        for (line, said) in [("{nn}", "{nn}"), ("a\nb", "line end")] {
            let mistake = Templates::of(&[spanned("fine"), spanned(line)]).unwrap_err();
            assert!(mistake.message.contains(said), "{mistake:?}");
            assert!(mistake.help.is_some() && mistake.span == Some(0..line.len()), "{mistake:?}");
        }
        assert!(Templates::of(&[]).is_err());
        let mistake = Templates::named(Some(&spanned("wbe"))).unwrap_err();
        assert!(mistake.help.unwrap().contains("\"web\""));
    }

    #[test]
    fn times_are_written_as_they_are() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_789_000_000, "2000-02-29T12:34:56.789Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (4_102_444_799_999_000_000, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc_3339(nanos), text.as_bytes());
        }
    }
}
