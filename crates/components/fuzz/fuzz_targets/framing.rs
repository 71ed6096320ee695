//! Arbitrary bytes, cut at arbitrary places, given to every framing: the records are those of a plain
//! cutter that has all bytes at once, what is too long or cut off is counted once, nothing is held
//! that is longer than a record may be, and what is wrapped comes out again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_components::codecs::{Framer, Framing, Piece};

/// What the first three bytes of an input say.
struct Settings {
    /// So many bytes come at a time, where the text does not say otherwise.
    piece_bytes: usize,
    bytes_max: usize,
    rows_max: usize,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    records: Vec<Vec<u8>>,
    refused: u64,
}

fuzz_target!(|input: &[u8]| {
    let Some((&[piece, bytes, rows], text)) = input.split_first_chunk() else { return };
    let settings = Settings {
        piece_bytes: 1 + usize::from(piece),
        bytes_max: 1 + usize::from(bytes),
        rows_max: 1 + usize::from(rows),
    };
    for framing in [Framing::Newline, Framing::OctetCounting, Framing::LengthPrefix] {
        let plain = plainly(framing, settings.bytes_max, text);
        assert_eq!(cut(framing, &settings, text), plain, "{framing:?}");

        let mut wrapped = Vec::new();
        // What is taken for a part of a line's end does not come back.
        let is_whole = |record: &&Vec<u8>| match framing {
            Framing::Newline => !record.ends_with(b"\r"),
            Framing::OctetCounting => !record.ends_with(b"\n"),
            Framing::LengthPrefix => true,
        };
        let whole: Vec<_> = plain.records.iter().filter(is_whole).cloned().collect();
        for record in &whole {
            // One end of a line is taken off.
            let mut record = record.clone();
            record.push(b'\n');
            framing.wrap(&record, &mut wrapped);
        }
        let again = Found { records: whole, refused: 0 };
        assert_eq!(cut(framing, &settings, &wrapped), again, "{framing:?} again");
    }
});

/// Cuts a text as a source does: what is no whole record waits for its rest.
fn cut(framing: Framing, settings: &Settings, text: &[u8]) -> Found {
    let mut framer = Framer::new(framing, settings.bytes_max);
    let (mut found, mut lines, mut held) = (Found::default(), Vec::new(), Vec::new());
    let (mut rest, mut offset) = (text, 0);
    loop {
        let (piece, later) = rest.split_at(settings.piece_bytes.min(rest.len()));
        held.extend_from_slice(piece);
        rest = later;
        let ended = rest.is_empty();
        loop {
            let rows_max = settings.rows_max;
            let piece = Piece { bytes: &held, from: 0, offset, ended, rows_max, prefilter: None };
            lines.clear();
            let cut = framer.cut(piece, &mut lines);
            let records = lines.iter().map(|line| &held[line.start as usize..line.end as usize]);
            found.records.extend(records.map(<[u8]>::to_vec));
            found.refused += cut.refused;
            held.drain(..cut.used);
            offset += cut.used as u64;
            if lines.len() < rows_max {
                break;
            }
        }
        assert!(held.len() < framer.chunk_bytes_min(), "{framing:?} holds {} bytes", held.len());
        if ended {
            assert_eq!(held.len(), 0, "{framing:?}: bytes are left at the end");
            return found;
        }
    }
}

/// As slowly and plainly as can be, with all bytes in hand.
fn plainly(framing: Framing, bytes_max: usize, mut text: &[u8]) -> Found {
    let mut found = Found::default();
    while !text.is_empty() {
        let (head, length) = match framing {
            Framing::Newline => (0, None),
            Framing::LengthPrefix => match text.first_chunk() {
                Some(length) => (4, Some(u64::from(u32::from_be_bytes(*length)))),
                None => {
                    found.refused += 1;
                    break;
                }
            },
            Framing::OctetCounting => {
                let digits = text.iter().position(|byte| !byte.is_ascii_digit());
                match digits {
                    None if text.len() <= 10 => {
                        found.refused += 1;
                        break;
                    }
                    Some(digits @ 1..=10) if text[digits] == b' ' => {
                        let length = str::from_utf8(&text[..digits]).unwrap();
                        (digits + 1, Some(length.parse().unwrap()))
                    }
                    _ => (0, None),
                }
            }
        };
        let body = &text[head..];
        let (record, used) = match length {
            None => {
                let end = body.iter().position(|byte| *byte == b'\n');
                let line = &body[..end.unwrap_or(body.len())];
                let bare = line.strip_suffix(b"\r").filter(|_| end.is_some());
                (Some(bare.unwrap_or(line)), end.map_or(body.len(), |end| end + 1))
            }
            Some(length) => {
                let used = usize::try_from(length).unwrap().min(body.len());
                let record = body.get(..used).filter(|record| record.len() as u64 == length);
                (record, used)
            }
        };
        match record.filter(|record| record.len() <= bytes_max) {
            Some(record) if framing == Framing::OctetCounting && length.is_some() => {
                let bare = record.strip_suffix(b"\n");
                let bare = bare.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
                found.records.push(bare.unwrap_or(record).to_vec());
            }
            Some(record) => found.records.push(record.to_vec()),
            None => found.refused += 1,
        }
        text = &body[used..];
    }
    found
}
