//! Where in a table reading is: the values of its key's columns.

use serde::{Deserialize, Serialize};

/// One value of a key, never null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyValue {
    /// A whole number.
    Int(i64),
    /// A number with a fraction (SQLite's REAL); never NaN. As JSON it is `{"real":"0.1"}`: of JSON's
    /// numbers not every reader makes the same again, to the last bit.
    Real(#[serde(with = "exact")] f64),
    /// Text, or any other type as its database writes it.
    Text(String),
    /// Bytes (SQLite's BLOB).
    Blob(Vec<u8>),
}

/// Numbers as texts that are read back the same.
mod exact {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Written {
        real: String,
    }

    pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        Written { real: format!("{value:?}") }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Written::deserialize(from)?.real.parse().map_err(D::Error::custom)
    }
}

/// The values of the key's columns of one row, in the key's order. It is written to JSON as an array,
/// and read back the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub Vec<KeyValue>);

impl Key {
    /// A number that grows with the key, where the key is one integer column: then a row's number
    /// follows from its key alone, whatever happens to other rows.
    pub fn number(&self) -> Option<u64> {
        match self.0.as_slice() {
            [KeyValue::Int(value)] => Some(ordered(*value)),
            _ => None,
        }
    }
}

/// A number that grows with an integer: the least two are 0, so that there is a number behind that of
/// the greatest.
pub fn ordered(value: i64) -> u64 {
    (value.cast_unsigned() ^ (1 << 63)).saturating_sub(1)
}

/// The rows behind one key, up to and with another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Rows up to this key are left out; from the first row where there is none.
    pub after: Option<Key>,
    /// The last row that may be in it; to the end where there is none.
    pub until: Option<Key>,
}

/// Whole numbers at even distances between two, that cut what is between them in so many parts.
pub(crate) fn even_cuts(least: i64, greatest: i64, parts: usize) -> impl Iterator<Item = i64> {
    let (least, span) = (i128::from(least), i128::from(greatest) - i128::from(least));
    let cuts = (1..parts as i128).map(move |part| least + span * part / parts as i128);
    cuts.filter_map(|cut| i64::try_from(cut).ok())
}

impl Range {
    /// All there is, cut behind these keys, which ascend.
    pub fn between(cuts: &[Key]) -> Vec<Self> {
        let ends = cuts.iter().map(Some).chain([None]);
        let starts = [None].into_iter().chain(cuts.iter().map(Some));
        let range = |(after, until): (Option<&Key>, Option<&Key>)| Self {
            after: after.cloned(),
            until: until.cloned(),
        };
        starts.zip(ends).map(range).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_when_they_are_read_back() {
        for key in [
            Key(vec![KeyValue::Int(i64::MIN), KeyValue::Text("12".into())]),
            Key(vec![KeyValue::Real(0.1), KeyValue::Real(2.0), KeyValue::Blob(vec![0, 255])]),
            Key(vec![KeyValue::Real(f64::NEG_INFINITY), KeyValue::Real(121.487_919_511_619_45)]),
        ] {
            let text = serde_json::to_string(&key).unwrap();
            assert_eq!(serde_json::from_str::<Key>(&text).unwrap(), key, "{text}");
        }
    }

    #[test]
    fn numbers_grow_with_integer_keys() {
        let number = |value| Key(vec![KeyValue::Int(value)]).number();
        let numbers = [i64::MIN, -1, 0, 1, i64::MAX].map(number);
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!((numbers[0], numbers[4]), (Some(0), Some(u64::MAX - 1)));
        assert_eq!(Key(vec![KeyValue::Text("1".into())]).number(), None);
    }
}
