//! A line that is a JSON object: which of its values are time, level and message, and what is left.

use std::borrow::Cow;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Deserializer, Error};
use tidegate_model::severity_of;

use super::rows::Rows;
use super::texts::Metadata;
use super::{epoch, level, time};

/// Names of the time, best first; in any case.
const TIME: [&str; 5] = ["timestamp", "@timestamp", "time", "ts", "datetime"];

/// Names of the level.
const LEVEL: [&str; 5] = ["level", "severity", "lvl", "loglevel", "log.level"];

/// Names of the message.
const MESSAGE: [&str; 5] = ["message", "msg", "log", "body", "text"];

/// Objects within objects are flattened this far; what is deeper stays JSON.
const DEPTH_MAX: usize = 8;

/// A flattened name has at most this many bytes, so that a short line can't become a huge row.
const NAME_BYTES_MAX: usize = 128;

/// A JSON value as it was written.
type Raw<'l> = &'l str;

/// What an object has of the usual things, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record<'l> {
    /// With its key.
    time: Option<(Cow<'l, str>, Raw<'l>)>,
    level: Option<Raw<'l>>,
    message: Option<Raw<'l>>,
}

/// Makes a row of a line. Where it is no object nothing was done, and the error says why: it is as
/// short for a long line as for any.
pub(super) fn push(rows: &mut Rows<'_>, line: &str) -> Result<(), Error> {
    let record = read(line, rows.metadata()).inspect_err(|_| rows.undo())?;
    if rows.wants.timestamp || rows.wants.metadata {
        push_time(rows, record.time);
    }
    if rows.wants.severity || rows.wants.level {
        let word = record.level.and_then(text);
        let severity = word
            .as_deref()
            .and_then(|word| severity_of(word.trim()).or_else(|| level::of_number(word)));
        rows.level(word.as_deref(), severity);
    }
    if rows.wants.message {
        let message = record.message.and_then(text);
        rows.message(message.as_deref().unwrap_or(line));
    }
    rows.end(true);
    Ok(())
}

fn push_time(rows: &mut Rows<'_>, found: Option<(Cow<'_, str>, Raw<'_>)>) {
    let nanos = found.as_ref().and_then(|(_, raw)| match raw.starts_with('"') {
        true => text(raw).and_then(|text| time::whole(text.as_bytes(), rows.now())),
        false => epoch::since_epoch(raw),
    });
    rows.time(nanos);
    // A time that can't be understood is kept as it is.
    if let (Some(metadata), None, Some((key, raw))) = (rows.metadata(), nanos, found) {
        add(metadata, &key, raw, 0);
    }
}

/// Reads a line as an object. All that is not in the record becomes metadata, if anyone wants it.
fn read<'l>(line: &'l str, metadata: Option<&mut Metadata>) -> Result<Record<'l>, Error> {
    let mut usual = Usual::default();
    let mut deserializer = Deserializer::from_str(line);
    deserializer.deserialize_map(Object { usual: &mut usual, metadata })?;
    deserializer.end()?;
    Ok(Record {
        level: usual.level.raw(),
        message: usual.message.raw(),
        time: usual.time.found.map(|(_, key, raw)| (key, raw)),
    })
}

/// A string's text; numbers, `true` and nested values as they are written; nothing of null.
fn text(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    if raw == "null" {
        return None;
    }
    let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Some(Cow::Borrowed(raw));
    };
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    // Half a surrogate pair is valid JSON and no text: it stays as it is written.
    Some(serde_json::from_str(raw).map_or(Cow::Borrowed(inner), Cow::Owned))
}

/// The best of several values that could be the same thing.
#[derive(Default)]
struct Best<'l> {
    found: Option<(usize, Cow<'l, str>, Raw<'l>)>,
}

impl<'l> Best<'l> {
    fn raw(&self) -> Option<Raw<'l>> {
        self.found.as_ref().map(|(_, _, raw)| *raw)
    }

    /// Takes a better one; gives what is not the best.
    fn offer(
        &mut self,
        rank: usize,
        key: Cow<'l, str>,
        raw: Raw<'l>,
    ) -> Option<(Cow<'l, str>, Raw<'l>)> {
        match &self.found {
            Some((best, ..)) if *best <= rank => Some((key, raw)),
            _ => self.found.replace((rank, key, raw)).map(|(_, key, raw)| (key, raw)),
        }
    }
}

#[derive(Default)]
struct Usual<'l> {
    time: Best<'l>,
    level: Best<'l>,
    message: Best<'l>,
}

impl<'l> Usual<'l> {
    /// Which of the usual things a key names, and how well.
    fn kind(&mut self, key: &str) -> Option<(usize, &mut Best<'l>)> {
        // The longest has ten letters; most keys end here, by length or first letter.
        let first = key.as_bytes().first()? | 0x20;
        if key.len() > 10 || !b"t@dlsmb`".contains(&first) {
            return None;
        }
        let rank = |names: &[&str]| names.iter().position(|name| name.eq_ignore_ascii_case(key));
        if let Some(rank) = rank(&TIME) {
            return Some((rank, &mut self.time));
        }
        if let Some(rank) = rank(&LEVEL) {
            return Some((rank, &mut self.level));
        }
        rank(&MESSAGE).map(|rank| (rank, &mut self.message))
    }
}

struct Object<'l, 'm> {
    usual: &'m mut Usual<'l>,
    metadata: Option<&'m mut Metadata>,
}

impl<'l> Visitor<'l> for Object<'l, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'l>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let rest = match self.usual.kind(&key) {
                Some((rank, best)) => {
                    let raw: &RawValue = map.next_value()?;
                    best.offer(rank, key, raw.get())
                }
                None if self.metadata.is_some() => {
                    let raw: &RawValue = map.next_value()?;
                    Some((key, raw.get()))
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                    None
                }
            };
            if let (Some((key, raw)), Some(metadata)) = (rest, self.metadata.as_deref_mut()) {
                add(metadata, &key, raw, DEPTH_MAX);
            }
        }
        Ok(())
    }
}

/// A value as entries: an object as one for each of its members, their names joined by dots.
fn add(metadata: &mut Metadata, name: &str, raw: Raw<'_>, depth: usize) {
    if raw.starts_with('{') && depth > 0 && name.len() < NAME_BYTES_MAX {
        let nested = Nested { metadata, name, depth: depth - 1 };
        if Deserializer::from_str(raw).deserialize_map(nested).is_ok_and(|members| members > 0) {
            return;
        }
    }
    metadata.entry(name, text(raw).as_deref());
}

struct Nested<'m> {
    metadata: &'m mut Metadata,
    name: &'m str,
    depth: usize,
}

impl<'l> Visitor<'l> for Nested<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'l>>(self, mut map: A) -> Result<usize, A::Error> {
        let mut members = 0;
        while let Some((Key(key), raw)) = map.next_entry::<Key<'_>, &RawValue>()? {
            add(self.metadata, &format!("{}.{key}", self.name), raw.get(), self.depth);
            members += 1;
        }
        Ok(members)
    }
}

/// A key, borrowed where it is written as it is.
struct Key<'l>(Cow<'l, str>);

impl<'l> serde::Deserialize<'l> for Key<'l> {
    fn deserialize<D: serde::Deserializer<'l>>(value: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'l> Visitor<'l> for Text {
            type Value = Key<'l>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'l str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }

        value.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use tidegate_flow::ByteBudget;

    use super::*;

    /// The record of a line, and what is left as `name=value`.
    fn all(line: &str) -> Option<(Record<'_>, Vec<String>)> {
        let mut metadata = Metadata::new(1);
        let record = read(line, Some(&mut metadata)).ok()?;
        metadata.row(true);
        let column = metadata.finish(&ByteBudget::new(1 << 20).holder(0).unwrap()).unwrap();
        let map = column.as_map();
        let keys = map.keys().as_string::<i32>().iter().flatten();
        let values = map.values().as_string::<i32>().iter();
        let rest =
            keys.zip(values).map(|(key, value)| format!("{key}={}", value.unwrap_or("NULL")));
        Some((record, rest.collect()))
    }

    #[test]
    fn the_usual_keys_are_found_in_any_order_and_case() {
        let line = r#" {"msg":"hi","pid":1,"Level":30,"time":1531171074631} "#;
        let (found, rest) = all(line).unwrap();
        assert_eq!(found.time, Some(("time".into(), "1531171074631")));
        assert_eq!((found.level, found.message), (Some("30"), Some("\"hi\"")));
        assert_eq!(rest, ["pid=1"]);
        for key in TIME {
            let line = format!(r#"{{"{}":1}}"#, key.to_uppercase());
            assert_eq!(read(&line, None).unwrap().time.unwrap().1, "1", "{key}");
        }
        for key in LEVEL {
            assert_eq!(read(&format!(r#"{{"{key}":1}}"#), None).unwrap().level, Some("1"), "{key}");
        }
        for key in MESSAGE {
            assert_eq!(
                read(&format!(r#"{{"{key}":1}}"#), None).unwrap().message,
                Some("1"),
                "{key}"
            );
        }
    }

    #[test]
    fn of_several_the_best_is_taken_and_the_others_are_kept() {
        for line in
            [r#"{"log":"b","message":"a","body":"c"}"#, r#"{"message":"a","body":"c","log":"b"}"#]
        {
            let (found, mut rest) = all(line).unwrap();
            rest.sort();
            assert_eq!(
                (found.message, rest),
                (Some("\"a\""), vec!["body=c".into(), "log=b".into()])
            );
        }
    }

    #[test]
    fn everything_else_becomes_metadata() {
        let line = r#"{"a":"x\n\"y\"","b":1.50,"c":true,"d":null,"e":[1, {"f":2}],
            "g":{"h":{"i":"deep"},"j":{}},"":"empty","k\u0061":"\ud800"}"#;
        let (_, rest) = all(line).unwrap();
        assert_eq!(
            rest,
            [
                "a=x\n\"y\"",
                "b=1.50",
                "c=true",
                "d=NULL",
                "e=[1, {\"f\":2}]",
                "g.h.i=deep",
                "g.j={}",
                "=empty",
                "ka=\\ud800"
            ]
        );
    }

    #[test]
    fn what_is_too_deep_stays_json_and_names_stay_short() {
        let deep = (0..20).fold("1".to_owned(), |inner, _| format!(r#"{{"a":{inner}}}"#));
        let (_, rest) = all(&deep).unwrap();
        assert_eq!(rest.len(), 1);
        assert!(rest[0].starts_with("a.a.a.a.a.a.a.a.a={\"a\":"), "{rest:?}");
        let long = "k".repeat(200);
        let (_, rest) = all(&format!(r#"{{"{long}":{{"x":{{"y":1}}}}}}"#)).unwrap();
        assert_eq!(rest, [format!("{long}={{\"x\":{{\"y\":1}}}}")]);
    }

    #[test]
    fn what_is_no_object_is_none() {
        for line in [
            "",
            "{",
            "{}x",
            "{]",
            "[]",
            "1",
            "\"a\"",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1}{}",
            "{\"a\":\"\u{1}\"}",
            "{\"message\":\"unfinished",
            "{\"a\":01}",
        ] {
            assert!(all(line).is_none(), "{line}");
        }
        assert_eq!(all("{}").unwrap(), (Record::default(), vec![]));
    }

    #[test]
    fn text_is_what_a_value_says() {
        for (raw, said) in [
            ("\"plain\"", Some("plain")),
            (r#""a\tb\u00e4""#, Some("a\tbä")),
            ("\"\"", Some("")),
            ("12.0", Some("12.0")),
            ("null", None),
            ("{\"a\": 1}", Some("{\"a\": 1}")),
        ] {
            assert_eq!(text(raw).as_deref(), said, "{raw}");
        }
    }
}
