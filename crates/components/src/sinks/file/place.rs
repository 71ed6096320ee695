//! Up to where a file was written, and what a sink remembers of that.

/// So many of the last bytes are kept, to know the file again by. Enough for a line's own words,
/// little enough to save with every commit.
const TAIL_BYTES: usize = 64;

/// The version of the record's layout: this byte, the length (8 bytes, little endian), the tail.
const VERSION: u8 = 1;

/// A place in a file: how much comes before it, and the last of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The bytes before it.
    pub(super) length: u64,
    /// The last bytes before it, at most [`TAIL_BYTES`].
    tail: Vec<u8>,
}

impl Place {
    /// How many of the last bytes before `length` are to be kept.
    pub(super) fn tail_bytes(length: u64) -> usize {
        usize::try_from(length).map_or(TAIL_BYTES, |length| length.min(TAIL_BYTES))
    }

    /// The place behind so many bytes, the last of which are these.
    pub(super) fn new(length: u64, tail: Vec<u8>) -> Self {
        Self { length, tail }
    }

    /// The last bytes before it.
    pub(super) fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// The place after some more.
    pub(super) fn after(&self, bytes: &[u8]) -> Self {
        let mut place = self.clone();
        place.length += bytes.len() as u64;
        place.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        place.tail.drain(..place.tail.len().saturating_sub(TAIL_BYTES));
        place
    }

    /// Whether a line that is written here begins a line.
    pub(super) fn begins_line(&self) -> bool {
        self.tail.last().is_none_or(|byte| *byte == b'\n')
    }

    /// As it is saved.
    pub(super) fn to_record(&self) -> Vec<u8> {
        let mut record = vec![VERSION];
        record.extend_from_slice(&self.length.to_le_bytes());
        record.extend_from_slice(&self.tail);
        record
    }

    /// As it was saved; `None` where that makes no sense.
    pub(super) fn from_record(record: &[u8]) -> Option<Self> {
        let (version, rest) = record.split_first()?;
        let (length, tail) = rest.split_first_chunk()?;
        let length = u64::from_le_bytes(*length);
        let sensible = *version == VERSION && tail.len() == Self::tail_bytes(length);
        sensible.then(|| Self { length, tail: tail.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_same_in_any_steps_and_after_a_save(
            steps in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..6),
        ) {
            let whole = steps.concat();
            let place = steps.iter().fold(Place::default(), |place, step| place.after(step));
            prop_assert_eq!(place.length, whole.len() as u64);
            prop_assert_eq!(&place, &Place::default().after(&whole));
            prop_assert_eq!(&whole[whole.len() - Place::tail_bytes(place.length)..], place.tail());
            prop_assert_eq!(place.begins_line(), whole.last().is_none_or(|last| *last == b'\n'));
            prop_assert_eq!(Place::from_record(&place.to_record()), Some(place));
        }
    }

    #[test]
    fn a_damaged_record_is_told_from_a_good_one() {
        let record = Place::default().after(b"some text\n").to_record();
        for cut in 0..record.len() {
            assert_eq!(Place::from_record(&record[..cut]), None);
        }
        assert_eq!(Place::from_record(&[&[9], &record[1..]].concat()), None);
        assert_eq!(Place::from_record(&[&record[..], b"x"].concat()), None);
    }
}
