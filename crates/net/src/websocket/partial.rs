//! A message of which a part is there: read straight to where it stays.

use tidegate_flow::Permit;

use super::Failure;
use super::frame::{Head, apply_mask};

/// A message of which a part is there.
pub(super) struct Partial {
    pub(super) text: bool,
    // As long as what is there and the rest of the frame being read.
    pub(super) payload: Vec<u8>,
    pub(super) filled: usize,
    mask: Option<[u8; 4]>,
    // Where the frame's payload began.
    frame_at: usize,
    pub(super) last: bool,
    pub(super) permit: Option<Permit>,
    // So much of it is text.
    checked: usize,
}

impl Partial {
    /// One of which nothing is there yet, but room.
    pub(super) fn new(text: bool, permit: Option<Permit>) -> Self {
        let (payload, filled, frame_at, checked) = (Vec::new(), 0, 0, 0);
        Self { text, payload, filled, mask: None, frame_at, last: false, permit, checked }
    }

    pub(super) fn rest(&self) -> usize {
        self.payload.len() - self.filled
    }

    /// Another frame of it; `at_hand` is what is there of its payload, and all of the message has
    /// `bytes_max` at most.
    pub(super) fn frame(&mut self, head: &Head, at_hand: &[u8], bytes_max: usize) {
        let start = self.filled;
        match start {
            // Memory that nothing was written to yet costs nothing.
            0 => self.payload = vec![0; head.payload],
            _ => self.grow(start + head.payload, bytes_max),
        }
        let at_hand = at_hand.get(..head.payload).unwrap_or(at_hand);
        if let Some(space) = self.payload.get_mut(start..start + at_hand.len()) {
            space.copy_from_slice(at_hand);
        }
        (self.mask, self.last, self.frame_at) = (head.mask, head.last, start);
        self.read(at_hand.len());
    }

    /// Twice as much each time, so that many small frames cost little; never more than was reserved.
    fn grow(&mut self, bytes: usize, bytes_max: usize) {
        if bytes > self.payload.capacity() {
            let room = bytes.max(bytes_max.min(self.payload.capacity().saturating_mul(2)));
            self.payload.reserve_exact(room - self.payload.len());
        }
        self.payload.resize(bytes, 0);
    }

    /// So much more was read into it.
    pub(super) fn read(&mut self, count: usize) {
        let (start, end) = (self.filled, self.filled + count);
        if let (Some(mask), Some(bytes)) = (self.mask, self.payload.get_mut(start..end)) {
            apply_mask(bytes, mask, start - self.frame_at);
        }
        self.filled = end;
    }

    /// Whether it is what it says it is, once a frame is all there: a character may be in two.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        if !self.text {
            return Ok(());
        }
        let new = self.payload.get(self.checked..self.filled).unwrap_or_default();
        match std::str::from_utf8(new) {
            Ok(_) => self.checked = self.filled,
            Err(error) if error.error_len().is_none() && !self.last => {
                self.checked += error.valid_up_to();
            }
            Err(_) => return Err(Failure::NotText),
        }
        Ok(())
    }
}
