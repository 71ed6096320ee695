//! Values of the keys that the engine reads itself: sizes, times, texts and lists.

use std::time::Duration;

use serde::de::{DeserializeOwned, IntoDeserializer};
use tidegate_model::{ByteSize, Mistake, Spanned, TimeSpan};
use toml::de::DeValue;

use crate::graph::WhenFull;

pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// What a value is, for a sentence such as "`path` should be text, not …". Texts are shown as they
/// are written, never with variables filled in: those can be secrets.
pub(crate) fn describe(value: &Value<'_>, text: &str) -> String {
    let raw = text.get(value.span()).unwrap_or_default();
    let shown: String = raw.chars().take(40).collect();
    let shown = if shown.len() < raw.len() { format!("{shown}…") } else { shown };
    match value.get_ref() {
        DeValue::String(_) => format!("the text {shown}"),
        DeValue::Integer(_) | DeValue::Float(_) => format!("the number {shown}"),
        DeValue::Boolean(_) => format!("`{shown}`"),
        DeValue::Datetime(_) => format!("the date {shown}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn wrong(key: &str, should: &str, value: &Value<'_>, text: &str, like: &str) -> Mistake {
    let message = format!("`{key}` should be {should}, not {}", describe(value, text));
    Mistake::at(value.span(), message).help(format!("write {key} = {like}"))
}

/// A text that is not empty.
pub(crate) fn text<'v>(
    key: &str,
    value: &'v Value<'_>,
    text: &str,
    like: &str,
) -> Result<&'v str, Mistake> {
    match value.get_ref() {
        DeValue::String(string) if string.is_empty() => {
            let empty = Mistake::at(value.span(), format!("`{key}` is empty"));
            Err(empty.help(format!("write {key} = {like}")))
        }
        DeValue::String(string) => Ok(string),
        _ => Err(wrong(key, "text", value, text, like)),
    }
}

/// A number of bytes: an integer, or a text with a unit.
pub(crate) fn size(key: &str, value: &Value<'_>, text: &str) -> Result<usize, Mistake> {
    let size: ByteSize = read(key, "a size", value, text, "\"256MiB\"")?;
    usize::try_from(size.0).map_err(|_| wrong(key, "a size", value, text, "\"256MiB\""))
}

/// A length of time: a text with a unit.
pub(crate) fn time(key: &str, value: &Value<'_>, text: &str) -> Result<Duration, Mistake> {
    read::<TimeSpan>(key, "a length of time", value, text, "\"30s\"").map(|time| time.0)
}

/// A value that is read in one way wherever it stands, components' settings included.
fn read<T: DeserializeOwned>(
    key: &str,
    should: &str,
    value: &Value<'_>,
    text: &str,
    like: &str,
) -> Result<T, Mistake> {
    T::deserialize(value.clone().into_deserializer()).map_err(|error| {
        if error.message().starts_with("invalid type") {
            return wrong(key, should, value, text, like);
        }
        Mistake::at(value.span(), error.message())
    })
}

/// A policy for full queues.
pub(crate) fn when_full(value: &Value<'_>, text: &str) -> Result<WhenFull, Mistake> {
    const POLICIES: [(&str, WhenFull); 3] = [
        ("block", WhenFull::Block),
        ("drop_newest", WhenFull::DropNewest),
        ("drop_oldest", WhenFull::DropOldest),
    ];
    let word = self::text("when_full", value, text, "\"block\"")?;
    if let Some((_, policy)) = POLICIES.iter().find(|(name, _)| *name == word) {
        return Ok(*policy);
    }
    let names = POLICIES.map(|(name, _)| name);
    Err(not_one_of(value.span(), format!("there is no policy `{word}`"), word, &names))
}

/// A mistake about a word that is none of these, with the closest one as help.
pub(crate) fn not_one_of(
    span: std::ops::Range<usize>,
    message: String,
    word: &str,
    names: &[&str],
) -> Mistake {
    let help = match crate::graph::closest(word, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.is_empty() => "there is none".to_owned(),
        None => format!("it is one of `{}`", names.join("`, `")),
    };
    Mistake::at(span, message).help(help)
}

/// Names of inputs and where they stand.
pub(crate) fn inputs(value: &Value<'_>, text: &str) -> Result<Vec<Spanned<String>>, Mistake> {
    let Some(array) = value.get_ref().as_array() else {
        let like = match value.get_ref().as_str() {
            Some(name) => format!("[\"{name}\"]"),
            None => "[\"NAME\"]".to_owned(),
        };
        return Err(wrong("inputs", "a list of names", value, text, &like));
    };
    let name = |value: &Value<'_>| match value.get_ref().as_str() {
        Some(name) => Ok(Spanned::new(value.span(), name.to_owned())),
        None => {
            let said = format!("`inputs` should be names, not {}", describe(value, text));
            Err(Mistake::at(value.span(), said).help("write inputs = [\"NAME\"]"))
        }
    };
    array.iter().map(name).collect()
}
