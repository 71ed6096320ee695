//! Messages that were read at once: whole ones, side by side in memory that is exactly as large.

use std::ops::Range;

use bytes::Bytes;
use tidegate_flow::Permit;

use super::Utf8Bytes;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(Utf8Bytes),
    /// Bytes.
    Binary(Bytes),
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<Utf8Bytes>) -> Self {
        Self::Text(text.into())
    }

    /// What it says, where it is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// Whole messages in the order they came, side by side; as an iterator, those that were not taken
/// yet. Their memory is given back with the last view into it, and what was reserved for it.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    bytes: Bytes,
    // Where each ends, and whether it is text.
    ends: Vec<(usize, bool)>,
    taken: usize,
}

impl Messages {
    /// Their bytes, one after the other, without anything in between.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where each is in these bytes, and whether it is text, which is UTF-8 then.
    pub fn ranges(&self) -> impl Iterator<Item = (Range<usize>, bool)> {
        let mut start = 0;
        self.ends.iter().map(move |(end, text)| {
            let range = start..*end;
            start = *end;
            (range, *text)
        })
    }

    /// How many there are, those that were taken too.
    pub fn count_all(&self) -> usize {
        self.ends.len()
    }
}

impl Iterator for Messages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let (end, text) = *self.ends.get(self.taken)?;
        let before = self.taken.checked_sub(1).and_then(|before| self.ends.get(before));
        let start = before.map_or(0, |(end, _)| *end);
        self.taken += 1;
        let bytes = if self.taken == self.ends.len() && start == 0 {
            std::mem::take(&mut self.bytes)
        } else {
            self.bytes.slice(start..end)
        };
        if !text {
            return Some(Message::Binary(bytes));
        }
        // It was checked when it came.
        match Utf8Bytes::try_from(bytes) {
            Ok(text) => Some(Message::Text(text)),
            Err(_) => self.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.ends.len() - self.taken;
        (left, Some(left))
    }
}

/// Messages being gathered.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    pub(super) bytes: Vec<u8>,
    ends: Vec<(usize, bool)>,
}

impl Gathering {
    /// One message, which is all of these bytes.
    pub(super) fn of(bytes: Vec<u8>, text: bool) -> Self {
        let ends = vec![(bytes.len(), text)];
        Self { bytes, ends }
    }

    /// What was appended to the bytes is a message.
    pub(super) fn end(&mut self, text: bool) {
        self.ends.push((self.bytes.len(), text));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The messages, with what was reserved for them; what was reserved beyond is given back.
    pub(super) fn done(self, permit: Option<Permit>) -> Messages {
        let Self { bytes, ends } = self;
        let bytes = match permit {
            None => bytes.into(),
            Some(mut permit) => {
                permit.shrink_to(bytes.capacity());
                Bytes::from_owner(Held { bytes, _permit: permit })
            }
        };
        Messages { bytes, ends, taken: 0 }
    }
}

struct Held {
    bytes: Vec<u8>,
    _permit: Permit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
