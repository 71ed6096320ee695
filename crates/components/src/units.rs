//! Sizes and times as people write them in a configuration: `"64KiB"`, `"1s"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A number of bytes: `1024` or `"1KiB"`.
pub(crate) fn bytes<'de, D: Deserializer<'de>>(value: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a size is a number of bytes or a text such as \"1MiB\"")]
    enum Size {
        Number(usize),
        Text(String),
    }

    match Size::deserialize(value)? {
        Size::Number(number) => Ok(number),
        Size::Text(text) => parse_bytes(&text).ok_or_else(|| {
            de::Error::custom(format!("{text:?} is no size; write it as \"1MiB\", or 1048576"))
        }),
    }
}

fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// A time such as `"1s"` or `"100ms"`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(value)?;
    humantime::parse_duration(&text).map_err(|error| {
        de::Error::custom(format!("{text:?} is no time ({error}); write it as \"1s\" or \"100ms\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_or_without_a_unit() {
        for (text, size) in [
            ("0", Some(0)),
            ("12B", Some(12)),
            ("64KiB", Some(65_536)),
            ("1 MiB", Some(1_048_576)),
            ("2MB", Some(2_000_000)),
            ("1GiB", Some(1 << 30)),
            ("", None),
            ("MiB", None),
            ("1mib", None),
            ("-1", None),
            ("99999999999999999999", None),
            ("18446744073709551615KiB", None),
        ] {
            assert_eq!(parse_bytes(text), size, "{text:?}");
        }
    }
}
