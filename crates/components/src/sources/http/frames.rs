//! How much memory a zstd frame needs to be unpacked, read from its first bytes (RFC 8878, 3.1.1):
//! pure.

/// The longest header that says it.
pub(super) const HEAD_BYTES_MAX: usize = 18;

/// No block is longer.
const BLOCK_BYTES_MAX: u64 = 128 << 10;

/// What a decoder needs beside its buffers.
const DECODER_BYTES: u64 = 96 << 10;

/// What the first bytes of a frame say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// There must be more of them.
    Short,
    /// They begin no frame.
    Other,
    /// One that holds nothing of the content.
    Skippable,
    /// How far back it refers, and how long it is where it says so.
    Frame { window: u64, length: Option<u64> },
}

impl Head {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::read(bytes).unwrap_or(Self::Short)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let little = |from: usize, count: usize| {
            let bytes = bytes.get(from..from + count)?.iter().rev();
            Some(bytes.fold(0, |number: u64, byte| number << 8 | u64::from(*byte)))
        };
        match little(0, 4)? {
            0xFD2F_B528 => {}
            0x184D_2A50..=0x184D_2A5F => return Some(Self::Skippable),
            _ => return Some(Self::Other),
        }
        let descriptor = *bytes.get(4)?;
        let (says, alone) = (descriptor >> 6, descriptor & 0x20 != 0);
        let window = match alone {
            true => None,
            false => Some(window(*bytes.get(5)?)),
        };
        let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
        let from = 5 + usize::from(!alone) + dictionary;
        let length = match says {
            0 if alone => Some(little(from, 1)?),
            0 => None,
            1 => Some(little(from, 2)? + 256),
            2 => Some(little(from, 4)?),
            _ => Some(little(from, 8)?),
        };
        // One that is alone in its window is as long as that.
        Some(Self::Frame { window: window.or(length)?, length })
    }
}

fn window(descriptor: u8) -> u64 {
    let base = 1_u64 << (10 + (descriptor >> 3));
    base + base / 8 * u64::from(descriptor & 7)
}

/// What it takes to unpack a frame with such a window: it, two blocks beside it, and one that comes
/// in. There are few such sizes.
pub(super) fn bytes_for(window: u64) -> usize {
    let window = window.checked_next_power_of_two().unwrap_or(window);
    let buffers = window.saturating_add(3 * window.min(BLOCK_BYTES_MAX));
    usize::try_from(buffers.saturating_add(DECODER_BYTES)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(
        level: i32,
        content: &[u8],
        set: impl Fn(&mut zstd::Encoder<'_, Vec<u8>>),
    ) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
        set(&mut encoder);
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn heads_say_what_their_encoder_was_told() {
        let content = vec![b'x'; 300_000];
        for log in [10, 17, 23, 27] {
            let frame = packed(1, &content, |encoder| encoder.window_log(log).unwrap());
            assert_eq!(Head::of(&frame), Head::Frame { window: 1 << log, length: None }, "{log}");
        }
        for length in [0, 1, 255, 256, 257, 65_535, 65_791, 65_792, 300_000] {
            let frame = packed(1, &content[..length], |encoder| {
                encoder.set_pledged_src_size(Some(length as u64)).unwrap();
                encoder.include_contentsize(true).unwrap();
            });
            let Head::Frame { window, length: said } = Head::of(&frame) else { panic!("{length}") };
            assert_eq!(said, Some(length as u64));
            assert!(window >= length as u64, "{window} for {length}");
        }
        assert_eq!(Head::of(b"P*M\x18"), Head::Skippable);
        assert_eq!(Head::of(b"\x1f\x8b\x08\x00"), Head::Other);
    }

    #[test]
    fn no_head_is_longer_than_the_longest_and_each_is_short_until_it_says_all() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let mut head = [0; HEAD_BYTES_MAX];
            random.fill(&mut head);
            head[..4].copy_from_slice(&[0x28, 0xB5, 0x2F, 0xFD]);
            let all = Head::of(&head);
            assert!(matches!(all, Head::Frame { .. }), "{head:?}: {all:?}");
            let short = (0..HEAD_BYTES_MAX).find(|count| Head::of(&head[..*count]) != Head::Short);
            let short = short.unwrap_or(HEAD_BYTES_MAX);
            assert!((short..HEAD_BYTES_MAX).all(|count| Head::of(&head[..count]) == all));
        }
    }

    #[test]
    fn what_it_takes_is_one_of_few_sizes_and_grows_with_the_window() {
        let sizes = (0..=8 << 20).map(bytes_for).collect::<std::collections::BTreeSet<_>>();
        assert!(sizes.len() < 30, "{sizes:?}");
        assert!((0..=8 << 20).step_by(1_001).all(|window| bytes_for(window) as u64 > window));
        assert_eq!(bytes_for(u64::MAX), usize::MAX);
    }
}
