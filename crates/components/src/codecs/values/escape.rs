//! Text inside JSON's quotes.

/// So many bytes are looked at in one go; the compiler makes a few vector instructions of it.
const BLOCK: usize = 32;

/// What stands for each byte that JSON wants escaped: the letter after the backslash, `u` for those
/// that have only a number, 0 for all others.
const LETTERS: [u8; 256] = letters();

const fn letters() -> [u8; 256] {
    let mut letters = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        letters[byte] = b'u';
        byte += 1;
    }
    letters[0x08] = b'b';
    letters[0x09] = b't';
    letters[0x0a] = b'n';
    letters[0x0c] = b'f';
    letters[0x0d] = b'r';
    letters[b'"' as usize] = b'"';
    letters[b'\\' as usize] = b'\\';
    letters
}

/// A string with its quotes. What needs no escape, and that is nearly everything, is found in blocks
/// and copied in one go.
pub(super) fn quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escaped(text.as_bytes(), out);
    out.push(b'"');
}

fn escaped(mut bytes: &[u8], out: &mut Vec<u8>) {
    loop {
        let clean = clean_bytes(bytes);
        let (copied, rest) = bytes.split_at(clean);
        out.extend_from_slice(copied);
        let Some((byte, rest)) = rest.split_first() else { return };
        match LETTERS[usize::from(*byte)] {
            b'u' => {
                let hex = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            }
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
        bytes = rest;
    }
}

/// How many bytes at the front need no escape.
fn clean_bytes(bytes: &[u8]) -> usize {
    let clean = clean_blocks::<BLOCK>(bytes);
    let clean = clean + clean_blocks::<{ BLOCK / 4 }>(&bytes[clean..]);
    let rest = bytes[clean..].iter().position(|byte| LETTERS[usize::from(*byte)] != 0);
    rest.map_or(bytes.len(), |at| clean + at)
}

fn clean_blocks<const SIZE: usize>(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<SIZE>();
    blocks.iter().take_while(|block| !needs_escape(block)).count() * SIZE
}

fn needs_escape<const SIZE: usize>(block: &[u8; SIZE]) -> bool {
    block.iter().fold(false, |any, &byte| any | (byte < 0x20) | (byte == b'"') | (byte == b'\\'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_that_must_be_is_escaped() {
        let mut out = Vec::new();
        quoted("a\"b\\c\u{8}\t\n\u{c}\r\u{0}\u{1f}\u{7f}é\u{2028}", &mut out);
        let expected = "\"a\\\"b\\\\c\\b\\t\\n\\f\\r\\u0000\\u001f\u{7f}é\u{2028}\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        /// Long enough for blocks, with what needs an escape at every place in them.
        #[test]
        fn it_agrees_with_serde_json(
            clean in "[a-zé ]{0,70}",
            dirty in "[a-z\"\\\\\\x00-\\x1f]{0,5}",
            more in "[a-z\n]{0,70}",
        ) {
            let text = format!("{clean}{dirty}{more}");
            let mut out = Vec::new();
            quoted(&text, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }
}
