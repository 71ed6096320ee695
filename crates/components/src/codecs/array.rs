//! The elements of a JSON array as lines, so that a decoder reads a body that is one array as it
//! reads lines: each element lies where it was written, with the line ends that are in it.

use std::fmt;

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::lines::Line;

/// Why a text is no JSON array, or not one that can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArrayError {
    /// It is malformed, or ends too early.
    Malformed {
        /// In which element, or before which, from 0; after the last one, how many there are.
        element: usize,
        /// By which byte of the text.
        offset: usize,
        /// What is wrong there, in a few words that have nothing of the text.
        reason: String,
    },
    /// There are more elements than this.
    TooMany(usize),
    /// It is longer than places in a chunk can be told, 4 GiB.
    TooLong,
}

impl fmt::Display for ArrayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { element, offset, reason } => {
                write!(f, "element {element} of the array, byte {offset}: {reason}")
            }
            Self::TooMany(max) => write!(f, "the array has more than {max} elements"),
            Self::TooLong => f.write_str("the array has more than 4 GiB"),
        }
    }
}

impl std::error::Error for ArrayError {}

/// Finds the elements of an array, which is all there is in the text but for blanks, and adds them:
/// at most so many, as a line takes more room than the shortest element.
///
/// Each is a JSON value; that it is an object is for a decoder to ask for. They are stepped over
/// without recursion, so their depth has no bound but their size.
///
/// # Errors
///
/// Where it is no such array. What was found before stays added.
///
/// ```
/// use tidegate_components::codecs::array;
///
/// let mut lines = Vec::new();
/// array::cut(br#"[{"a":1}, {"b":2}]"#, 10, &mut lines)?;
/// assert_eq!((lines[1].start, lines[1].end), (10, 17));
/// let error = array::cut(br#"[{"a":1}, {"b":]"#, 10, &mut lines).unwrap_err();
/// assert_eq!(error.to_string(), "element 1 of the array, byte 15: expected value");
/// # Ok::<(), array::ArrayError>(())
/// ```
pub fn cut(text: &[u8], elements_max: usize, lines: &mut Vec<Line>) -> Result<(), ArrayError> {
    if u32::try_from(text.len()).is_err() {
        return Err(ArrayError::TooLong);
    }
    let (mut element, mut too_many) = (0, false);
    let elements =
        Elements { text, elements_max, lines, element: &mut element, too_many: &mut too_many };
    let mut deserializer = Deserializer::from_slice(text);
    let cut = deserializer.deserialize_seq(elements).and_then(|()| deserializer.end());
    match cut {
        Ok(()) => Ok(()),
        Err(_) if too_many => Err(ArrayError::TooMany(elements_max)),
        Err(error) => {
            let (offset, reason) = told(text, &error);
            Err(ArrayError::Malformed { element, offset, reason })
        }
    }
}

/// Where an error is, and what it is.
fn told(text: &[u8], error: &serde_json::Error) -> (usize, String) {
    // What has an array's beginning is wrong by its grammar, and such errors have none of its text.
    if text.trim_ascii_start().first() != Some(&b'[') {
        let blank = text.len() - text.trim_ascii_start().len();
        return (blank, "it is no JSON array".to_owned());
    }
    let before = text.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let line: usize = before.map(<[u8]>::len).sum();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let reason = error.to_string();
    let reason = reason.strip_suffix(&*place).unwrap_or(&reason).to_owned();
    // Columns are counted from 1; 0 is the line end before it.
    ((line + error.column()).saturating_sub(1), reason)
}

struct Elements<'t, 'm> {
    text: &'t [u8],
    elements_max: usize,
    lines: &'m mut Vec<Line>,
    element: &'m mut usize,
    too_many: &'m mut bool,
}

impl<'t> Visitor<'t> for Elements<'t, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(raw) = array.next_element::<&RawValue>()? {
            if *self.element == self.elements_max {
                *self.too_many = true;
                return Err(serde::de::Error::custom("too many elements"));
            }
            *self.element += 1;
            // It is borrowed from the text, which is no longer than places can be told.
            let start = raw.get().as_ptr().addr() - self.text.as_ptr().addr();
            let end = start + raw.get().len();
            self.lines.push(Line { start: start as u32, end: end as u32 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The elements as they are written.
    fn elements(text: &[u8]) -> Result<Vec<&str>, ArrayError> {
        let mut lines = Vec::new();
        cut(text, usize::MAX, &mut lines)?;
        let element = |line: Line| &text[line.start as usize..line.end as usize];
        Ok(lines.into_iter().map(|line| str::from_utf8(element(line)).unwrap()).collect())
    }

    #[test]
    fn elements_lie_where_they_were_written() {
        for (text, expected) in [
            ("[]", &[][..]),
            (" \r\n[\t] \n", &[]),
            ("[{}]", &["{}"]),
            (
                "\n[ {\"a\": [1, 2]},\n\n{\n  \"b\": \"]},{\\\"[\"\n} ]\n",
                &["{\"a\": [1, 2]}", "{\n  \"b\": \"]},{\\\"[\"\n}"],
            ),
            ("[1,\"ä\",null,[[]]]", &["1", "\"ä\"", "null", "[[]]"]),
        ] {
            assert_eq!(elements(text.as_bytes()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_element_and_the_byte() {
        for (text, element, offset, reason) in [
            (&b""[..], 0, 0, "it is no JSON array"),
            (b"\n {}", 0, 2, "it is no JSON array"),
            (b"[", 0, 0, "EOF while parsing a list"),
            (b"[{\"a\":1}", 1, 7, "EOF while parsing a list"),
            (b"[{\"a\":1},", 1, 8, "EOF while parsing a value"),
            (b"[{\"a\":1},]", 1, 9, "trailing comma"),
            (b"[{\"a\":1} {}]", 1, 9, "expected `,` or `]`"),
            (b"[{\"a\":1}, {\"b\"\n:\n oh}]", 1, 18, "expected value"),
            (b"[{}, {\"a\":\"cut", 1, 13, "EOF while parsing a string"),
            (b"[{}] x", 1, 5, "trailing characters"),
            (b"[{}][]", 1, 4, "trailing characters"),
            (b"[{},\n{\"a\":\"\xff\"}]", 1, 11, "invalid unicode code point"),
        ] {
            let error = elements(text).unwrap_err();
            let expected = ArrayError::Malformed { element, offset, reason: reason.to_owned() };
            assert_eq!(error, expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn there_are_at_most_so_many() {
        let mut lines = Vec::new();
        assert_eq!(cut(b"[1,2]", 2, &mut lines), Ok(()));
        lines.clear();
        assert_eq!(cut(b"[1,2,3]", 2, &mut lines), Err(ArrayError::TooMany(2)));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn no_depth_is_too_deep() {
        let deep = [b"[".repeat(1 << 20), b"]".repeat(1 << 20)].concat();
        let whole = str::from_utf8(&deep).unwrap();
        assert_eq!(elements(&deep).unwrap(), [&whole[1..whole.len() - 1]]);
        assert!(elements(&deep[..deep.len() - 1]).is_err());
    }

    /// A JSON value, written with blanks anywhere.
    fn json() -> impl Strategy<Value = String> {
        let text = "[a-z\"\\\\\\[\\]{},:ä\n]{0,6}".prop_map(|text| format!("{text:?}"));
        let leaf = prop_oneof![
            proptest::sample::select(vec!["1", "-1.5e3", "true", "null", "{}", "[ ]"])
                .prop_map(str::to_owned),
            text.prop_map(|text| text.replace("\\'", "'")),
        ];
        let blank = proptest::sample::select(vec!["", " ", "\n", "\r\n\t"]);
        leaf.prop_recursive(3, 20, 4, move |inner| {
            let list = proptest::collection::vec((inner, blank.clone()), 0..4);
            (list, any::<bool>()).prop_map(|(list, object)| {
                let values = list.iter().zip('a'..).map(|((value, blank), key)| match object {
                    true => format!("{blank}\"{key}\"{blank}:{blank}{value}{blank}"),
                    false => format!("{blank}{value}{blank}"),
                });
                let values = values.collect::<Vec<_>>().join(",");
                if object { format!("{{{values}}}") } else { format!("[{values}]") }
            })
        })
    }

    proptest! {
        #[test]
        fn elements_are_those_that_serde_finds(
            values in proptest::collection::vec(json(), 0..6), cut in any::<proptest::sample::Index>(),
        ) {
            let text = format!(" [{}]\n", values.join(" ,\n"));
            prop_assert_eq!(&elements(text.as_bytes()).unwrap(), &values);
            let parsed: Vec<Value> = serde_json::from_str(&text).unwrap();
            let again = values.iter().map(|value| serde_json::from_str::<Value>(value).unwrap());
            prop_assert_eq!(parsed, again.collect::<Vec<_>>());
            let cut = &text.as_bytes()[..cut.index(text.len() - 2)];
            let error = elements(cut).unwrap_err();
            let ArrayError::Malformed { element, offset, .. } = error else { panic!("{error}") };
            prop_assert!(element <= values.len() && offset <= cut.len());
        }

        #[test]
        fn what_is_taken_is_what_serde_takes(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "[", "]", "{", "}", ",", ":", "\"", "\\", "a", "1", " ", "\n", "null", "\"k\":", "é",
            ]), 0..12),
            broken in proptest::option::weighted(0.1, any::<u8>()),
        ) {
            let text = [pieces.concat().as_bytes(), broken.as_slice()].concat();
            let taken = serde_json::from_slice::<Vec<Box<RawValue>>>(&text);
            match (elements(&text), taken) {
                (Ok(found), Ok(taken)) => {
                    prop_assert_eq!(found, taken.iter().map(|raw| raw.get()).collect::<Vec<_>>());
                }
                (Err(error), Err(_)) => {
                    let ArrayError::Malformed { offset, .. } = error else { panic!("{error}") };
                    prop_assert!(offset <= text.len());
                }
                (found, _) => prop_assert!(false, "{:?}: {:?}", text, found),
            }
        }
    }
}
