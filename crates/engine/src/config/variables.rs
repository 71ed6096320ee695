//! `${VAR}` and `${VAR:-default}`, filled inside parsed strings: a value can never become syntax.

use std::borrow::Cow;
use std::ops::Range;

use tidegate_model::{Mistake, Spanned};
use toml::de::{DeString, DeTable, DeValue};

/// What a variable's name stands for; `None` where it is not set.
pub(crate) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Fills the variables of all strings of a table. Gives the first mistake, by place.
pub(crate) fn fill(table: &mut DeTable<'_>, text: &str, env: Env<'_>) -> Result<(), Mistake> {
    let mut first: Option<Mistake> = None;
    for (_, value) in table.iter_mut() {
        if let Err(mistake) = fill_value(value, text, env) {
            let start = |mistake: &Mistake| mistake.span.as_ref().map(|span| span.start);
            if first.as_ref().is_none_or(|first| start(&mistake) < start(first)) {
                first = Some(mistake);
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// Fills the variables of a value; it is at most as deep as the parser allows, 80 levels.
pub(crate) fn fill_value(
    value: &mut Spanned<DeValue<'_>>,
    text: &str,
    env: Env<'_>,
) -> Result<(), Mistake> {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(string) if string.contains('$') => fill_string(string, span, text, env),
        DeValue::Array(array) => {
            array.iter_mut().try_for_each(|value| fill_value(value, text, env))
        }
        DeValue::Table(table) => fill(table, text, env),
        _ => Ok(()),
    }
}

fn fill_string(
    string: &mut DeString<'_>,
    span: Range<usize>,
    text: &str,
    env: Env<'_>,
) -> Result<(), Mistake> {
    match expand(string, env) {
        Ok(filled) => {
            *string = Cow::Owned(filled);
            Ok(())
        }
        Err(wrong) => {
            // The raw text is the string but for escapes, so the same thing is wrong in it, first.
            let raw = text.get(span.clone()).unwrap_or_default();
            let place = match expand(raw, env) {
                Err(again) if again.why == wrong.why => {
                    span.start + again.place.start..span.start + again.place.end
                }
                _ => span,
            };
            Err(wrong.why.mistake(place))
        }
    }
}

/// What is wrong with a variable, and where in the string.
struct Wrong {
    place: Range<usize>,
    why: Why,
}

#[derive(PartialEq)]
enum Why {
    Missing(String),
    Unclosed,
    BadName(String),
    Nested,
}

impl Why {
    fn mistake(self, place: Range<usize>) -> Mistake {
        match self {
            Why::Missing(name) => Mistake::at(place, format!("the variable `{name}` is not set"))
                .help(format!("set it, or give a default: ${{{name}:-default}}")),
            Why::Unclosed => Mistake::at(place, "`${` is not closed")
                .help("write ${NAME}, or $${ for a dollar and a brace"),
            Why::BadName(name) => Mistake::at(place, format!("`{name}` is no variable's name"))
                .help("a name has letters, digits and `_`; write $${ for a dollar and a brace"),
            Why::Nested => Mistake::at(place, "a default can't contain variables")
                .help("write a text without ${"),
        }
    }
}

/// The string with its variables filled in. `$$` is a dollar, and so is one before anything but `{`.
fn expand(string: &str, env: Env<'_>) -> Result<String, Wrong> {
    let mut filled = String::with_capacity(string.len());
    let mut at = 0;
    while let Some(found) = string[at..].find('$') {
        let dollar = at + found;
        filled.push_str(&string[at..dollar]);
        let after = &string[dollar + 1..];
        if let Some(inner) = after.strip_prefix('{') {
            let Some(length) = inner.find('}') else {
                return Err(Wrong { place: dollar..dollar + 2, why: Why::Unclosed });
            };
            let end = dollar + 2 + length + 1;
            let value = look_up(&inner[..length], env);
            filled.push_str(&value.map_err(|why| Wrong { place: dollar..end, why })?);
            at = end;
        } else {
            filled.push('$');
            at = dollar + 1 + usize::from(after.starts_with('$'));
        }
    }
    filled.push_str(&string[at..]);
    Ok(filled)
}

/// The value of `NAME` or `NAME:-default`. As in a shell, a default also stands for an empty value.
fn look_up(inner: &str, env: Env<'_>) -> Result<String, Why> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if default.is_some_and(|default| default.contains("${")) {
        return Err(Why::Nested);
    }
    let letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let is_name = name.chars().all(letter) && !name.starts_with(|c: char| c.is_ascii_digit());
    if name.is_empty() || !is_name {
        return Err(Why::BadName(name.to_owned()));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Why::Missing(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/ann".to_owned()),
            "EMPTY" => Some(String::new()),
            "QUOTE" => Some("\"\nsinks = 1 ${HOME}".to_owned()),
            _ => None,
        }
    }

    /// The value of `a` after filling, or the marked text and what is said of it.
    fn filled(text: &str) -> Result<String, (String, String)> {
        let mut table = DeTable::parse(text).unwrap();
        match fill(table.get_mut(), text, &env) {
            Ok(()) => Ok(table.get_ref()["a"].get_ref().as_str().unwrap().to_owned()),
            Err(mistake) => Err((text[mistake.span.unwrap()].to_owned(), mistake.message)),
        }
    }

    #[test]
    fn variables_are_filled() {
        for (text, value) in [
            ("a = '${HOME}/a'", "/home/ann/a"),
            ("a = '${HOME}${HOME}'", "/home/ann/home/ann"),
            ("a = '${NONE:-x:-y} ${EMPTY:-z} ${EMPTY}|'", "x:-y z |"),
            ("a = '${NONE:-}|'", "|"),
            ("a = '$${HOME} $$$$ $5 ^a$'", "${HOME} $$ $5 ^a$"),
            ("a = '$'", "$"),
            ("a = 'é${HOME}é'", "é/home/anné"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(value), "{text}");
        }
    }

    #[test]
    fn a_value_is_never_read_as_syntax_or_again() {
        assert_eq!(filled("a = '${QUOTE}'").unwrap(), "\"\nsinks = 1 ${HOME}");
    }

    #[test]
    fn mistakes_point_at_the_variable() {
        for (text, marked, said) in [
            ("a = 'x ${NONE} ${NEITHER}'", "${NONE}", "the variable `NONE` is not set"),
            ("a = '$${NONE} ${NONE}'", "${NONE}", "the variable `NONE` is not set"),
            ("a = \"\\t${NONE}\"", "${NONE}", "the variable `NONE` is not set"),
            ("a = 'x ${HOME'", "${", "`${` is not closed"),
            ("a = '${a b}'", "${a b}", "`a b` is no variable's name"),
            ("a = '${}'", "${}", "`` is no variable's name"),
            ("a = '${1}'", "${1}", "`1` is no variable's name"),
            ("a = '${A:-${HOME}}'", "${A:-${HOME}", "a default can't contain variables"),
            ("a = [{ b = ['${NONE}'] }]", "${NONE}", "the variable `NONE` is not set"),
            ("z = '${Z}'\na = '${A}'", "${Z}", "the variable `Z` is not set"),
            ("a = \"\\u0024{NONE}\"", "\"\\u0024{NONE}\"", "the variable `NONE` is not set"),
        ] {
            let wrong = filled(text).unwrap_err();
            assert_eq!(wrong, (marked.to_owned(), said.to_owned()), "{text}");
        }
        let at = filled("a = '$${NONE} ${NONE}'").unwrap_err();
        assert_eq!(at.0, "${NONE}");
    }
}
