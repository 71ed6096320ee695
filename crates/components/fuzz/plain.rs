//! Lines and messages, decoded as slowly and plainly as can be: what fast decoders are compared
//! with.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Names of the message, best first.
const MESSAGE: [&str; 5] = ["message", "msg", "log", "body", "text"];

/// The lines of a text.
#[derive(Default)]
pub(crate) struct Lines<'t> {
    /// Where they begin, and their bytes.
    pub(crate) lines: Vec<(u64, &'t [u8])>,
    /// How many of them are no UTF-8.
    pub(crate) broken: u64,
    /// How many were too long.
    pub(crate) refused: u64,
}

/// Splits a text.
pub(crate) fn lines(text: &[u8], line_bytes_max: usize) -> Lines<'_> {
    let mut found = Lines::default();
    let mut start = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let bare = match line.strip_suffix(b"\n") {
            Some(bare) => bare.strip_suffix(b"\r").unwrap_or(bare),
            None => line,
        };
        if bare.len() > line_bytes_max {
            found.refused += 1;
        } else {
            found.broken += u64::from(str::from_utf8(bare).is_err());
            found.lines.push((start, bare));
        }
        start += line.len() as u64;
    }
    found
}

/// Whether a message of syslog can be of a line: it ends it, but for a zero.
pub(crate) fn is_end(message: &str, line: &str) -> bool {
    line.ends_with(message) || line.strip_suffix('\0').is_some_and(|line| line.ends_with(message))
}

/// Of a line that is a JSON object, the message if it has one.
pub(crate) fn object(line: &str) -> Option<Option<String>> {
    let mut json = serde_json::Deserializer::from_str(line);
    let members = json.deserialize_map(Members).ok()?;
    json.end().ok()?;
    let rank = |key: &str| MESSAGE.iter().position(|name| name.eq_ignore_ascii_case(key));
    let ranked = members.iter().filter_map(|(key, raw)| Some((rank(key)?, raw.get())));
    let best = ranked.min_by_key(|(rank, _)| *rank);
    Some(best.and_then(|(_, raw)| match raw {
        "null" => None,
        raw if raw.starts_with('"') => {
            let written = raw[1..raw.len() - 1].to_owned();
            Some(serde_json::from_str(raw).unwrap_or(written))
        }
        raw => Some(raw.to_owned()),
    }))
}

/// The members of an object, in order.
struct Members;

impl<'l> Visitor<'l> for Members {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'l>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}
