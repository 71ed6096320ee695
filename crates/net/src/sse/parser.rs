//! Bytes to events, however they are cut: the standard's "event stream interpretation".

use std::fmt;
use std::time::Duration;

use bytes::{Buf, Bytes};
use memchr::memchr2;

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The last id that the stream has given so far; empty where it has given none.
    pub id: String,
    /// Its type, `message` where none is given.
    pub event: String,
    /// Its text; the lines of several `data` fields are joined by `\n`.
    pub data: String,
}

/// An event was longer than is allowed, and is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// How many bytes an event may have.
    pub bytes_max: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event has more than {} bytes and is left out", self.bytes_max)
    }
}

impl std::error::Error for TooLong {}

/// The longest name of a field, its colon, a space and a byte order mark: what a line has beside its
/// value.
const HEAD_BYTES: usize = 16;

/// Reads events out of bytes.
///
/// What is no UTF-8 becomes U+FFFD, unknown fields and comments are passed over, an event without
/// data is none, and one that is cut off at the end of the stream is none either.
///
/// - **Buffering**: the event that is not complete yet, at most `bytes_max` and the line that is not
///   complete, as much again; a longer one is passed over without being held. The bytes that were
///   pushed last are held until they are read.
///
/// ```
/// use tidegate_net::sse::Parser;
///
/// let mut parser = Parser::new(1_000);
/// parser.push("id: 7\r\ndata: one\ndata: t".into());
/// assert_eq!(parser.next_event(), None);
/// parser.push("wo\n\n:still here\n\n".into());
/// let event = parser.next_event().unwrap().unwrap();
/// assert_eq!((&*event.id, &*event.event, &*event.data), ("7", "message", "one\ntwo"));
/// assert_eq!(parser.next_event(), None);
/// ```
#[derive(Clone, Debug)]
pub struct Parser {
    bytes_max: usize,
    chunk: Bytes,
    // A line whose end has not come.
    line: Vec<u8>,
    // Whether more of that line came than is held.
    line_too_long: bool,
    // Whether the last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    began: bool,
    data: String,
    has_data: bool,
    event: String,
    // What `id` said last; the event that ends next has it.
    id: String,
    last_id: String,
    too_long: bool,
    retry: Option<Duration>,
}

impl Parser {
    /// Events may have so many bytes of data.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            chunk: Bytes::new(),
            line: Vec::new(),
            line_too_long: false,
            after_cr: false,
            began: false,
            data: String::new(),
            has_data: false,
            event: String::new(),
            id: String::new(),
            last_id: String::new(),
            too_long: false,
            retry: None,
        }
    }

    /// Goes on where another connection has ended: the last id is this one until the stream says
    /// otherwise.
    #[must_use]
    pub fn resuming(mut self, last_id: &str) -> Self {
        last_id.clone_into(&mut self.id);
        last_id.clone_into(&mut self.last_id);
        self
    }

    /// More bytes. Those of before should have been read to their end.
    pub fn push(&mut self, bytes: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = bytes;
        } else {
            self.chunk = [&*self.chunk, &*bytes].concat().into();
        }
    }

    /// The next event in the bytes that were pushed; `None` where more are needed.
    pub fn next_event(&mut self) -> Option<Result<Event, TooLong>> {
        loop {
            if let Some(first) = self.chunk.first()
                && std::mem::take(&mut self.after_cr)
                && *first == b'\n'
            {
                self.chunk.advance(1);
            }
            let Some(end) = memchr2(b'\r', b'\n', &self.chunk) else {
                let rest = std::mem::take(&mut self.chunk);
                self.keep(&rest);
                return None;
            };
            let line = self.chunk.split_to(end);
            self.after_cr = self.chunk.first() == Some(&b'\r');
            self.chunk.advance(1);
            let ended = if self.line.is_empty() && !self.line_too_long {
                self.take_line(&line)
            } else {
                self.keep(&line);
                let whole = std::mem::take(&mut self.line);
                let ended = match std::mem::take(&mut self.line_too_long) {
                    true => {
                        self.take_long_line(&whole);
                        None
                    }
                    false => self.take_line(&whole),
                };
                self.line = whole;
                self.line.clear();
                self.line.shrink_to(4 << 10);
                ended
            };
            if ended.is_some() {
                return ended;
            }
        }
    }

    /// The id of the last event that was read, or given to [`resuming`](Self::resuming): what the
    /// stream is to go on after.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// How long to wait before connecting again, where the stream has said so.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Adds to the line that is not complete; of one that is too long the beginning is kept.
    fn keep(&mut self, bytes: &[u8]) {
        let line_bytes_max = self.bytes_max.saturating_add(HEAD_BYTES);
        if self.line_too_long {
            return;
        }
        if self.line.len().saturating_add(bytes.len()) <= line_bytes_max {
            self.line.extend_from_slice(bytes);
            return;
        }
        let missing = HEAD_BYTES.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend(bytes.iter().take(missing));
        self.line.truncate(HEAD_BYTES);
        self.line.shrink_to_fit();
        self.line_too_long = true;
    }

    /// What a line was for that was too long to be held, by its beginning.
    fn take_long_line(&mut self, head: &[u8]) {
        let head = self.without_mark(head);
        let name = head.split(|byte| *byte == b':').next().unwrap_or(head);
        self.too_long |= matches!(name, b"data" | b"event" | b"id");
    }

    /// The first line, without the byte order mark that it may begin with; another as it is.
    fn without_mark<'l>(&mut self, line: &'l [u8]) -> &'l [u8] {
        match std::mem::replace(&mut self.began, true) {
            false => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            true => line,
        }
    }

    /// What a line says; gives an event where it ends one.
    fn take_line(&mut self, line: &[u8]) -> Option<Result<Event, TooLong>> {
        let line = self.without_mark(line);
        if line.is_empty() {
            return self.dispatch();
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => self.add_data(value),
            b"event" if value.len() <= self.bytes_max => self.event = text(value),
            b"event" => self.too_long = true,
            b"id" if value.len() > self.bytes_max => self.too_long = true,
            b"id" if !value.contains(&0) => self.id = text(value),
            b"retry" if (1..=20).contains(&value.len()) && value.iter().all(u8::is_ascii_digit) => {
                let millis = text(value).parse().unwrap_or(u64::MAX);
                self.retry = Some(Duration::from_millis(millis));
            }
            _ => {}
        }
        None
    }

    fn add_data(&mut self, value: &[u8]) {
        let more = value.len().saturating_add(usize::from(self.has_data));
        if self.too_long || self.data.len().saturating_add(more) > self.bytes_max {
            self.too_long = true;
            self.data = String::new();
            return;
        }
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push('\n');
        }
        self.data.push_str(&String::from_utf8_lossy(value));
    }

    fn dispatch(&mut self) -> Option<Result<Event, TooLong>> {
        self.last_id.clone_from(&self.id);
        let (data, event) = (std::mem::take(&mut self.data), std::mem::take(&mut self.event));
        let has_data = std::mem::take(&mut self.has_data);
        if std::mem::take(&mut self.too_long) {
            return Some(Err(TooLong { bytes_max: self.bytes_max }));
        }
        has_data.then(|| {
            let event = if event.is_empty() { "message".to_owned() } else { event };
            Ok(Event { id: self.last_id.clone(), event, data })
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(parser: &mut Parser, text: &[u8]) -> Vec<Result<Event, TooLong>> {
        parser.push(Bytes::copy_from_slice(text));
        std::iter::from_fn(|| parser.next_event()).collect()
    }

    fn all(text: &str) -> Vec<(String, String, String)> {
        let events = events(&mut Parser::new(100), text.as_bytes());
        let events = events.into_iter().map(Result::unwrap);
        events.map(|event| (event.id, event.event, event.data)).collect()
    }

    fn said(events: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        let own = |(id, event, data): &(&str, &str, &str)| {
            ((*id).to_owned(), (*event).to_owned(), (*data).to_owned())
        };
        events.iter().map(own).collect()
    }

    #[test]
    fn the_examples_of_the_standard() {
        let stocks = "data: YHOO\ndata: +2\ndata: 10\n\n";
        assert_eq!(all(stocks), said(&[("", "message", "YHOO\n+2\n10")]));
        let ids = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        assert_eq!(
            all(ids),
            said(&[
                ("1", "message", "first event"),
                ("", "message", "second event"),
                ("", "message", " third event")
            ])
        );
        // The last block is discarded, as it is not ended.
        assert_eq!(
            all("data\n\ndata\ndata\n\ndata:"),
            said(&[("", "message", ""), ("", "message", "\n")])
        );
        assert_eq!(all("data:test\n\ndata: test\n\n"), said(&[("", "message", "test"); 2]));
    }

    #[test]
    fn fields_are_what_the_standard_says() {
        for (text, expected) in [
            ("\u{feff}data: a\n\n", &[("", "message", "a")][..]),
            ("\u{feff}\u{feff}data: a\n\n", &[]),
            ("data: a\n\n\u{feff}data: b\n\n", &[("", "message", "a")]),
            ("event: add\ndata: 1\n\ndata: 2\n\n", &[("", "add", "1"), ("", "message", "2")]),
            ("event: add\n\ndata: 2\n\n", &[("", "message", "2")]),
            ("event: a\nevent: b\ndata: 1\n\n", &[("", "b", "1")]),
            ("id: 1\n\ndata: 2\n\n", &[("1", "message", "2")]),
            ("id: 1\0\ndata: 2\n\n", &[("", "message", "2")]),
            ("DATA: 1\nDaTa: 1\n data: 1\ndata : 1\nfoo: 1\n\n", &[]),
            ("data: a: b\n\n", &[("", "message", "a: b")]),
            ("data:\n\n", &[("", "message", "")]),
            ("\n\n\r\r\r\n\r\n", &[]),
        ] {
            assert_eq!(all(text), said(expected), "{text:?}");
        }
        let mut parser = Parser::new(100);
        for (text, retry) in [
            ("retry: 10\n", Some(10)),
            ("retry: -1\n", Some(10)),
            ("retry\n", Some(10)),
            ("retry: 1s\n", Some(10)),
            ("retry:0\n", Some(0)),
            ("retry: 99999999999999999999\n", Some(u64::MAX)),
        ] {
            events(&mut parser, text.as_bytes());
            assert_eq!(parser.retry(), retry.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_utf8_is_replaced_and_letters_may_be_cut() {
        let mut parser = Parser::new(100);
        let mut found = Vec::new();
        for byte in "data: ä€𝄞\n\n".as_bytes() {
            found.extend(events(&mut parser, &[*byte]));
        }
        assert_eq!(found[0].as_ref().unwrap().data, "ä€𝄞");
        let broken = events(&mut parser, b"data: a\xffb\n\n");
        assert_eq!(broken[0].as_ref().unwrap().data, "a\u{fffd}b");
    }

    #[test]
    fn an_event_that_is_too_long_is_left_out_and_its_id_is_not_forgotten() {
        let long = "x".repeat(60);
        for text in [
            format!("id: 1\ndata: {long}\ndata: {long}\n\n"),
            format!("data: {long}{long}\nid: 1\n\n"),
            format!("id: 1\n: {long}{long}{long}\ndata: a\n\n"),
            format!("id: 1\nevent: {long}{long}\ndata: a\n\n"),
            format!("id: 1\nid: {long}{long}\ndata: a\n\n"),
        ] {
            for cut in [1, 7, text.len()] {
                let mut parser = Parser::new(100);
                let chunks = text.as_bytes().chunks(cut);
                let mut found: Vec<_> =
                    chunks.flat_map(|chunk| events(&mut parser, chunk)).collect();
                if text.contains("\n: x") {
                    // A comment is not held, and harmless.
                    assert!(found.pop().unwrap().is_ok());
                } else {
                    assert_eq!(found, [Err(TooLong { bytes_max: 100 })], "{text} {cut}");
                }
                assert_eq!(parser.last_id(), "1", "{text} {cut}");
                assert!(parser.line.capacity() < 8_192);
                let next = events(&mut parser, b"data: b\n\n");
                assert_eq!(next[0].as_ref().unwrap().data, "b");
            }
        }
    }

    #[test]
    fn a_line_end_may_be_cut_in_two() {
        let mut parser = Parser::new(100);
        let mut found = Vec::new();
        for byte in b"id: 1\r\ndata: a\r\n\r\nid: 2\r\ndata: b\r\n" {
            found.extend(events(&mut parser, &[*byte]));
        }
        assert_eq!((found.len(), parser.last_id()), (1, "1"));
    }

    #[test]
    fn a_new_connection_goes_on_after_the_last_id() {
        let mut parser = Parser::new(100).resuming("41");
        assert_eq!(parser.last_id(), "41");
        let found = events(&mut parser, b"data: a\n\nid: 42\ndata: b");
        assert_eq!(found[0].as_ref().unwrap().id, "41");
        assert_eq!(parser.last_id(), "41", "that event is not complete");
    }

    fn bits() -> impl Strategy<Value = String> {
        let bit = prop_oneof![
            Just("data"),
            Just("event"),
            Just("id"),
            Just("retry"),
            Just(":"),
            Just(" "),
            Just("\n"),
            Just("\r"),
            Just("\r\n"),
            Just("\n\n"),
            Just("x"),
            Just("ä"),
            Just("0"),
            Just("\u{feff}"),
            Just("a longer piece of text than may be"),
        ];
        proptest::collection::vec(bit, 0..60).prop_map(|bits| bits.concat())
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_are_cut(text in bits(), cuts: Vec<u8>) {
            let mut whole = Parser::new(30);
            let expected = events(&mut whole, text.as_bytes());
            let mut parser = Parser::new(30);
            let (mut found, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts {
                let (chunk, later) = rest.split_at(usize::from(cut % 8).min(rest.len()));
                found.extend(events(&mut parser, chunk));
                rest = later;
            }
            found.extend(events(&mut parser, rest));
            prop_assert_eq!(found, expected);
            prop_assert_eq!(parser.last_id(), whole.last_id());
            prop_assert_eq!(parser.retry(), whole.retry());
        }
    }
}
