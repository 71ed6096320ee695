//! Text as views into the buffer it was read into: no byte of a line is copied, and UTF-8 is
//! checked once for a whole chunk. The one module that may use `unsafe`, for the array whose
//! constructor would check each view again.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::StringViewArray;
use arrow_array::builder::make_view;
use arrow_buffer::{Buffer, ScalarBuffer};
use tidegate_model::BudgetHolder;

use super::decode::Chunk;
use super::lines::Line;
use super::space::charged;

/// What fits a view itself.
const INLINE_MAX: usize = 12;

/// Arrow has no text longer than this, nor further into a buffer.
const REACH_MAX: usize = i32::MAX as usize;

/// Lines that are less than one part in so many of their chunk are checked one by one.
const SPARSE: usize = 4;

/// The text of a chunk, checked as a whole; line by line where that fails, or where lines are only
/// a small part of it.
#[derive(Debug)]
pub(crate) struct Text<'c> {
    bytes: &'c [u8],
    valid: Option<&'c str>,
}

impl<'c> Text<'c> {
    /// Checks a chunk as far as there are lines.
    pub(crate) fn of(chunk: &Chunk<'c>) -> Self {
        let end = chunk.lines.last().map_or(0, |line| line.end as usize);
        let bytes = chunk.bytes.get(..end).unwrap_or(chunk.bytes);
        let texts = chunk.lines.iter().map(|line| (line.end - line.start) as usize);
        if texts.sum::<usize>() < end / SPARSE {
            return Self { bytes, valid: None };
        }
        Self::new(bytes)
    }

    /// Checks the bytes.
    pub(crate) fn new(bytes: &'c [u8]) -> Self {
        Self { bytes, valid: simdutf8::basic::from_utf8(bytes).ok() }
    }

    /// A line, which lies within the chunk. It is owned where it had to be repaired: each piece
    /// that is no UTF-8 is then U+FFFD.
    pub(crate) fn line(&self, line: Line) -> Cow<'c, str> {
        let range = line.start as usize..line.end as usize;
        if let Some(text) = self.valid.and_then(|text| text.get(range.clone())) {
            return Cow::Borrowed(text);
        }
        let bytes = self.bytes.get(range).unwrap_or_default();
        match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(bytes),
        }
    }
}

/// Gathers texts, as views into one buffer as far as they lie in it.
#[derive(Debug)]
pub(crate) struct Views<'c> {
    buffer: &'c Buffer,
    referred: bool,
    // What lies elsewhere, copied; those before the last are full.
    full: Vec<Buffer>,
    side: String,
    views: Vec<u128>,
}

impl<'c> Views<'c> {
    /// None yet; `rows` are expected.
    pub(crate) fn new(buffer: &'c Buffer, rows: usize) -> Self {
        let (full, side, views) = (Vec::new(), String::new(), Vec::with_capacity(rows));
        Self { buffer, referred: false, full, side, views }
    }

    /// Adds a text: without copying it, where it lies in the buffer or is short.
    #[inline]
    pub(crate) fn push(&mut self, text: &str) {
        if text.len() <= INLINE_MAX {
            self.views.push(make_view(text.as_bytes(), 0, 0));
            return;
        }
        let place = (text.as_ptr() as usize).wrapping_sub(self.buffer.as_ptr() as usize);
        let reach = self.buffer.len().min(REACH_MAX);
        if place < reach && text.len() <= reach - place {
            self.referred = true;
            self.views.push(view(text, 0, place));
        } else {
            self.push_copy(text);
        }
    }

    #[cold]
    fn push_copy(&mut self, text: &str) {
        let text = text.get(..text.floor_char_boundary(REACH_MAX)).unwrap_or(text);
        if text.len() > REACH_MAX - self.side.len() {
            self.full.push(Buffer::from_vec(std::mem::take(&mut self.side).into_bytes()));
        }
        let index = self.full.len() + 1;
        self.views.push(view(text, index, self.side.len()));
        self.side.push_str(text);
    }

    /// The column; what was computed for it is charged. A buffer that no view refers to is let go.
    pub(crate) fn finish(self, holder: &BudgetHolder) -> StringViewArray {
        let mut buffers = vec![if self.referred { self.buffer.clone() } else { Buffer::default() }];
        buffers.extend(self.full.into_iter().map(|buffer| charged(holder, buffer)));
        if !self.side.is_empty() {
            buffers.push(charged(holder, Buffer::from_vec(self.side.into_bytes())));
        }
        let views = ScalarBuffer::from(charged(holder, Buffer::from_vec(self.views)));
        let buffers: Arc<[Buffer]> = buffers.into();
        // SAFETY: `try_new` would not fail, which is all that is asked for. It checks that each view
        // lies in its buffer, begins with its prefix and is UTF-8. Views are made by `push` and
        // `push_copy` alone, of a whole `&str`: a short one is in the view, zero-padded; else its
        // bytes are those of `buffers[0]` at its place, as its address is within that buffer, which
        // is alive and never written while `self` borrows it, or those that were copied to the end
        // of the side buffer, whose index and length at that moment the view has. There are no nulls.
        unsafe { StringViewArray::new_unchecked(views, buffers, None) }
    }
}

/// The view of a text that is longer than [`INLINE_MAX`]: length, first four bytes, buffer, place.
#[inline]
fn view(text: &str, index: usize, place: usize) -> u128 {
    let prefix = text.as_bytes().first_chunk::<4>().map_or(0, |four| u32::from_le_bytes(*four));
    text.len() as u128 | u128::from(prefix) << 32 | (index as u128) << 64 | (place as u128) << 96
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use tidegate_flow::ByteBudget;

    use super::*;

    const LONG: &str = "a line that is longer than a view";

    fn holder() -> BudgetHolder {
        ByteBudget::new(1 << 20).holder(0).unwrap()
    }

    /// Builds the column again, checked.
    fn checked(array: &StringViewArray) -> Vec<String> {
        array.to_data().validate_full().unwrap();
        array.iter().map(|text| text.unwrap().to_owned()).collect()
    }

    #[test]
    fn text_in_the_buffer_is_not_copied_and_other_text_is() {
        let buffer = Buffer::from(format!("short\n{LONG}\n").into_bytes());
        let text = std::str::from_utf8(&buffer).unwrap();
        let mut views = Views::new(&buffer, 4);
        let elsewhere = LONG.replace('a', "ä");
        for text in [&text[..5], &text[6..6 + LONG.len()], &elsewhere, "", "twelve bytes", LONG] {
            views.push(text);
        }
        let array = views.finish(&holder());
        assert_eq!(checked(&array), ["short", LONG, &elsewhere, "", "twelve bytes", LONG]);
        assert_eq!(array.value(1).as_ptr(), text[6..].as_ptr());
        assert_eq!(array.data_buffers().len(), 2);
    }

    #[test]
    fn a_buffer_that_nothing_refers_to_is_let_go() {
        let buffer = Buffer::from(b"abc".to_vec());
        let mut views = Views::new(&buffer, 1);
        views.push(std::str::from_utf8(&buffer).unwrap());
        views.push(LONG);
        let array = views.finish(&holder());
        assert_eq!(checked(&array), ["abc", LONG]);
        assert_eq!(array.data_buffers()[0].len(), 0);
    }

    #[test]
    fn only_lines_that_are_no_utf_8_are_repaired() {
        let mut bytes = format!("{LONG}\n").into_bytes();
        bytes.extend_from_slice(b"b\xffd, and some more text\n\xe2\x82");
        let buffer = Buffer::from(bytes);
        let lines = [(0, 33), (34, 57), (58, 60)].map(|(start, end)| Line { start, end });
        let text = Text::new(&buffer);
        let mut views = Views::new(&buffer, 3);
        let mut repaired = 0;
        for line in lines {
            let line = text.line(line);
            repaired += usize::from(matches!(line, Cow::Owned(_)));
            views.push(&line);
        }
        let array = views.finish(&holder());
        assert_eq!(checked(&array), [LONG, "b\u{fffd}d, and some more text", "\u{fffd}"]);
        assert_eq!((repaired, array.value(0).as_ptr()), (2, buffer.as_ptr()));
    }

    #[test]
    fn a_range_that_cuts_a_letter_or_leaves_the_chunk_does_no_harm() {
        let buffer = Buffer::from("äö".as_bytes().to_vec());
        let text = Text::new(&buffer);
        assert_eq!(text.line(Line { start: 1, end: 4 }), "\u{fffd}ö");
        assert_eq!(text.line(Line { start: 2, end: 5 }), "");
    }

    #[test]
    fn what_is_made_for_a_column_is_charged() {
        let budget = ByteBudget::new(1 << 20);
        let holder = budget.holder(0).unwrap();
        let buffer = Buffer::default();
        let mut views = Views::new(&buffer, 1);
        views.push(LONG);
        let array = views.finish(&holder);
        assert!(holder.held() >= LONG.len() + 16, "{}", holder.held());
        drop(array);
        assert_eq!(holder.held(), 0);
    }
}
