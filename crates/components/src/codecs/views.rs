//! Text as views into the buffer it was read into: no byte of a line is copied, and UTF-8 is
//! checked once for a whole chunk.
//!
//! The one module that may use `unsafe`, in one place: for the array whose constructor would check
//! each view again, UTF-8 too. There is a constructor that leaves out UTF-8 alone, but it reads the
//! head of each line once more, which is felt. So builds with debug assertions check everything, and
//! release builds nothing.
//!
//! What shows that it is right: `cargo xtask test` runs the tests of this module, and those of the
//! decoders that use it, under Miri (with strict provenance) and AddressSanitizer, and gives the
//! decoders arbitrary bytes, cut at arbitrary places, from libFuzzer
//! (`components/fuzz/fuzz_targets/decode.rs`), with assertions on.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::StringViewArray;
use arrow_array::builder::make_view;
use arrow_array::types::{ByteViewType, StringViewType};
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

/// Gathers texts, as views into one buffer as far as they lie in it. What has to be copied is at
/// most three times that buffer: a byte that had to be repaired becomes the three of U+FFFD.
#[derive(Debug)]
pub(crate) struct Views<'c> {
    buffer: &'c Buffer,
    // No view reaches further into any buffer; at most `REACH_MAX`.
    reach_max: usize,
    referred: bool,
    // What lies elsewhere, copied; those before the last are full.
    full: Vec<Buffer>,
    side: String,
    views: Vec<u128>,
}

impl<'c> Views<'c> {
    /// None yet; `rows` are expected.
    pub(crate) fn new(buffer: &'c Buffer, rows: usize) -> Self {
        Self::within(buffer, rows, REACH_MAX)
    }

    fn within(buffer: &'c Buffer, rows: usize, reach_max: usize) -> Self {
        let (full, side, views) = (Vec::new(), String::new(), Vec::with_capacity(rows));
        Self { buffer, reach_max, referred: false, full, side, views }
    }

    /// Adds a text: without copying it, where it lies in the buffer or is short.
    #[inline]
    pub(crate) fn push(&mut self, text: &str) {
        if text.len() <= INLINE_MAX {
            self.views.push(make_view(text.as_bytes(), 0, 0));
            return;
        }
        // What has bytes and lives at the same time has addresses of its own, so what is found
        // within the buffer is part of it. What begins before it wraps, to far behind its end.
        let place = text.as_ptr().addr().wrapping_sub(self.buffer.as_ptr().addr());
        let reach = self.buffer.len().min(self.reach_max);
        if place < reach && text.len() <= reach - place {
            self.referred = true;
            self.views.push(view(text, 0, place));
        } else {
            self.push_copy(text);
        }
    }

    /// Adds a text that lies elsewhere. What Arrow can't have of it, beyond 2 GiB, is left out: no
    /// line is that long.
    #[cold]
    fn push_copy(&mut self, text: &str) {
        let (text, _) = text.split_at(text.floor_char_boundary(self.reach_max));
        if text.len() > self.reach_max - self.side.len() {
            self.full.push(Buffer::from_vec(std::mem::take(&mut self.side).into_bytes()));
        }
        let index = self.full.len() + 1;
        self.views.push(view(text, index, self.side.len()));
        self.side.push_str(text);
    }

    /// The column; what was computed for it is charged. A buffer that no view refers to is let go.
    #[expect(unsafe_code, reason = "the whole chunk was checked, see the module")]
    pub(crate) fn finish(self, holder: &BudgetHolder) -> StringViewArray {
        let mut buffers = vec![if self.referred { self.buffer.clone() } else { Buffer::default() }];
        buffers.extend(self.full.into_iter().map(|buffer| charged(holder, buffer)));
        if !self.side.is_empty() {
            buffers.push(charged(holder, Buffer::from_vec(self.side.into_bytes())));
        }
        let views = ScalarBuffer::from(charged(holder, Buffer::from_vec(self.views)));
        let buffers: Arc<[Buffer]> = buffers.into();
        debug_assert!(StringViewType::validate(&views, &buffers).is_ok(), "a view that is none");
        // SAFETY: `try_new` would not fail, which is all that is asked for. It checks that each view
        // lies in its buffer, begins with its prefix and is UTF-8. Views are made by `push` and
        // `push_copy` alone, of a whole `&str`: a short one is in the view, zero-padded. The bytes of
        // a longer one are those of `buffers[0]` at its place, as its addresses are within that
        // buffer, which is alive and, being shared, never written from then on: `self` borrows it,
        // and then `buffers` holds it. Or they are those that were copied to the end of the side
        // buffer, whose index and length at that moment the view has; the index stays right, as
        // `side` is last, and is never empty once there is a view of it. Places and lengths are at
        // most `REACH_MAX`, so none is cut. There are no nulls.
        unsafe { StringViewArray::new_unchecked(views, buffers, None) }
    }
}

/// The view of a text that is longer than [`INLINE_MAX`]: length, first four bytes, buffer, place.
#[inline]
fn view(text: &str, index: usize, place: usize) -> u128 {
    debug_assert!(text.len() > INLINE_MAX, "it belongs into the view");
    let prefix = text.as_bytes().first_chunk::<4>().map_or(0, |four| u32::from_le_bytes(*four));
    text.len() as u128 | u128::from(prefix) << 32 | (index as u128) << 64 | (place as u128) << 96
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use proptest::prelude::*;
    use tidegate_flow::ByteBudget;

    use super::*;
    use crate::codecs::Pool;

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

    /// The memory of a chunk is recycled; Miri would see a view into what was given back.
    #[test]
    fn memory_is_not_used_again_while_a_view_refers_to_it() {
        const SIZE: usize = 64 << 10;
        let budget = ByteBudget::new(1 << 20);
        let holder = budget.holder(0).unwrap();
        let pool = Pool::default();
        let read = |text: &str| {
            let mut space = pool.space(holder.try_acquire(SIZE).unwrap());
            space.bytes_mut()[..text.len()].copy_from_slice(text.as_bytes());
            let buffer = space.into_buffer(text.len());
            let mut views = Views::new(&buffer, 1);
            views.push(std::str::from_utf8(&buffer).unwrap());
            views.finish(&holder)
        };
        let first = read(LONG);
        let place = first.value(0).as_ptr();
        let second = read(&LONG.replace('a', "o"));
        assert_eq!(checked(&first), [LONG]);
        assert_ne!(second.value(0).as_ptr(), place);
        drop(first);
        assert_eq!(read("and here is the third of them").value(0).as_ptr(), place);
        assert_eq!(checked(&second), [LONG.replace('a', "o")]);
    }

    #[test]
    fn no_view_reaches_further_than_arrow_can() {
        let buffer = Buffer::from(LONG.repeat(2).into_bytes());
        let text = std::str::from_utf8(&buffer).unwrap();
        let mut views = Views::within(&buffer, 9, 41);
        let texts = [&text[20..41], &text[20..42], &text[40..60], &text[41..], &text[..1]];
        texts.iter().for_each(|text| views.push(text));
        let long = "ä".repeat(30);
        views.push(&long);
        let array = views.finish(&holder());
        let mut expected = texts.to_vec();
        expected.push(&long[..40]);
        assert_eq!(checked(&array), expected);
        let within = |row: usize| buffer.as_ptr_range().contains(&array.value(row).as_ptr());
        assert_eq!([0, 1, 2, 3].map(within), [true, false, false, false]);
        assert!(array.data_buffers()[1..].iter().all(|side| (1..=41).contains(&side.len())));
        assert!(array.data_buffers().len() > 3, "{}", array.data_buffers().len());
    }

    /// Where a text is: its start and its end, within what surrounds the buffer, and a copy of it.
    fn place() -> impl Strategy<Value = (usize, usize, bool)> {
        (0usize..120, 0usize..60, proptest::bool::weighted(0.2))
    }

    proptest! {
        #[test]
        fn texts_in_beside_and_across_the_buffer_come_out_as_they_went_in(
            around in proptest::collection::vec(
                proptest::sample::select(vec!['a', 'b', 'ß', '€', '🦀']), 40..120),
            from in 0usize..40, size in 0usize..120,
            places in proptest::collection::vec(place(), 0..20), reach_max in 16usize..200,
        ) {
            let whole = Buffer::from(around.into_iter().collect::<String>().into_bytes());
            let buffer = whole.slice_with_length(from, size.min(whole.len() - from));
            let text = std::str::from_utf8(&whole).unwrap();
            let mut views = Views::within(&buffer, 0, reach_max);
            let mut expected = Vec::new();
            for (start, size, copied) in places {
                let start = text.floor_char_boundary(start);
                let text = &text[start..text.floor_char_boundary(start + size)];
                let elsewhere = text.to_owned();
                views.push(if copied { &elsewhere } else { text });
                expected.push(elsewhere[..text.floor_char_boundary(reach_max)].to_owned());
            }
            let array = views.finish(&holder());
            drop((buffer, whole));
            prop_assert_eq!(checked(&array), expected);
        }
    }
}
