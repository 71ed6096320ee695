//! Sizes and times as people write them in a configuration: `"64MiB"`, `"500ms"`.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// What the units of a size stand for, in lower case; a number without one is bytes.
const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// A number of bytes: an integer, or text with a unit, such as `"64KiB"`, `"1.5 GB"`.
///
/// ```
/// use tidegate_model::{ByteSize, Settings};
///
/// #[derive(serde::Deserialize)]
/// struct Config {
///     memory: ByteSize,
/// }
///
/// let config: Config = Settings::from_toml("memory = '64MiB'").unwrap().parse().unwrap();
/// assert_eq!(config.memory.0, 64 * 1024 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Of text as it stands in a configuration's string or on a command line; `None` where it is no
    /// size.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit = text[number.len()..].to_ascii_lowercase();
        let (_, each) = UNITS.iter().find(|(name, _)| **name == unit)?;
        let number = number.trim_end();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(*each).map(Self);
        }
        let bytes = number.parse::<f64>().ok()? * *each as f64;
        (bytes < u64::MAX as f64).then_some(Self(bytes.round() as u64))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size, such as \"64MiB\", or a number of bytes")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<ByteSize, E> {
        let negative = |_| E::custom(format!("{bytes} is below zero: a size can't be"));
        u64::try_from(bytes).map(ByteSize).map_err(negative)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
        ByteSize::parse(text).ok_or_else(|| {
            E::custom(format!(
                "{text:?} is no size: write a number and a unit, such as \"64KiB\" or \"1.5MB\""
            ))
        })
    }
}

/// A length of time: text with a unit, such as `"500ms"`, `"1s"`, `"2min 30s"`.
///
/// ```
/// use std::time::Duration;
/// use tidegate_model::{Settings, TimeSpan};
///
/// #[derive(serde::Deserialize)]
/// struct Config {
///     delay: TimeSpan,
/// }
///
/// let config: Config = Settings::from_toml("delay = '500ms'").unwrap().parse().unwrap();
/// assert_eq!(config.delay.0, Duration::from_millis(500));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(pub Duration);

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeVisitor)
    }
}

struct TimeVisitor;

impl TimeVisitor {
    fn without_unit<E: Error>(number: impl fmt::Display) -> E {
        E::custom(format!("{number} has no unit: write \"{number}s\", or \"{number}ms\""))
    }
}

impl Visitor<'_> for TimeVisitor {
    type Value = TimeSpan;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length of time, such as \"500ms\" or \"1s\"")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<TimeSpan, E> {
        Err(Self::without_unit(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<TimeSpan, E> {
        Err(Self::without_unit(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TimeSpan, E> {
        humantime::parse_duration(text).map(TimeSpan).map_err(|_| {
            E::custom(format!(
                "{text:?} is no length of time: write a number and a unit, such as \"500ms\" or \
                 \"1s\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mistake, Settings};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        size: Option<ByteSize>,
        time: Option<TimeSpan>,
    }

    fn parsed(text: &str) -> Result<Config, Mistake> {
        Settings::from_toml(text)?.parse()
    }

    #[test]
    fn sizes_are_read_in_all_their_spellings() {
        for (text, bytes) in [
            ("0", 0),
            ("7", 7),
            ("'7'", 7),
            ("'7B'", 7),
            ("'64 KiB'", 65_536),
            ("' 2kb '", 2_000),
            ("'1.5MiB'", 1_572_864),
            ("'3GB'", 3_000_000_000),
            ("'16777215TiB'", 16_777_215 << 40),
        ] {
            let config = parsed(&format!("size = {text}")).unwrap();
            assert_eq!(config.size, Some(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_where_it_stands() {
        for text in ["''", "'MiB'", "'7 blocks'", "'-1'", "'1e3'", "'1.2.3'", "'20000000TiB'"] {
            let mistake = parsed(&format!("size = {text}")).err().unwrap();
            assert_eq!(mistake.span, Some(7..7 + text.len()), "{text}");
            assert!(mistake.message.contains("is no size: write"), "{}", mistake.message);
        }
        assert_eq!(parsed("size = -1").err().unwrap().message, "-1 is below zero: a size can't be");
        let wrong = parsed("size = true").err().unwrap().message;
        assert!(wrong.contains("expected a size, such as \"64MiB\""), "{wrong}");
    }

    #[test]
    fn times_need_a_unit() {
        let minutes = parsed("time = '2min 30s'").unwrap().time;
        assert_eq!(minutes, Some(TimeSpan(Duration::from_secs(150))));
        let number = parsed("time = 5").err().unwrap();
        assert_eq!(number.message, "5 has no unit: write \"5s\", or \"5ms\"");
        let word = parsed("time = 'soon'").err().unwrap();
        assert!(word.message.starts_with("\"soon\" is no length of time: write"));
        assert_eq!(word.span, Some(7..13));
    }
}
