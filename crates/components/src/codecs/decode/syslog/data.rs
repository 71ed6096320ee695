//! Structured data of RFC 5424: `[id name="value" other="a \"quoted\" one"][flag]`.

use std::borrow::Cow;

/// A name has at most this many bytes, of which the RFC allows half: with an element's before each
/// of its parameters' a short line must not become a huge row.
const NAME_BYTES_MAX: usize = 64;

/// Goes through the elements that a text begins with, and gives where they end; `None` where there
/// are none, or one is malformed. Told are each element's id with each of its parameters, a name and
/// a value with its escapes, or once without any.
pub(super) fn walk<'t>(
    text: &'t str,
    mut each: impl FnMut(&'t str, Option<(&'t str, &'t str)>),
) -> Option<usize> {
    let mut rest = text;
    while let Some(element) = rest.strip_prefix('[') {
        let (id, mut after) = name(element, b" ]")?;
        if after.starts_with(']') {
            each(id, None);
        }
        loop {
            after = after.trim_start_matches(' ');
            if let Some(next) = after.strip_prefix(']') {
                rest = next;
                break;
            }
            let (parameter, quoted) = name(after, b"=")?;
            let value = quoted.strip_prefix("=\"")?;
            let end = value_end(value)?;
            each(id, Some((parameter, value.get(..end)?)));
            after = value.get(end + 1..)?;
            after.starts_with([' ', ']']).then_some(())?;
        }
    }
    Some(text.len() - rest.len()).filter(|end| *end > 0)
}

/// A name, and what follows, which begins with one of these.
fn name<'t>(text: &'t str, ends: &[u8]) -> Option<(&'t str, &'t str)> {
    let is_name = |byte: &&u8| byte.is_ascii_graphic() && !b"=]\"".contains(*byte);
    let length = text.bytes().take(NAME_BYTES_MAX + 1).take_while(|byte| is_name(&byte)).count();
    let (name, after) = text.split_at_checked(length)?;
    let ended = after.bytes().next().is_some_and(|end| ends.contains(&end));
    (ended && (1..=NAME_BYTES_MAX).contains(&length)).then_some((name, after))
}

/// Where the quote is that ends a value.
fn value_end(value: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = value.as_bytes().get(at..)?;
        let found = memchr::memchr2(b'"', b'\\', rest)?;
        match rest.get(found..)? {
            [b'"', ..] => return Some(at + found),
            [_, b'"' | b'\\' | b']', ..] => at += found + 2,
            _ => at += found + 1,
        }
    }
}

/// A value without its escapes: a backslash before a quote, a bracket or another one. Any other
/// stands for itself.
pub(super) fn unescaped(value: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', value.as_bytes()).is_none() {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        match after.chars().next() {
            Some(escaped @ ('"' | '\\' | ']')) => {
                text.push(escaped);
                rest = after.get(1..).unwrap_or_default();
            }
            _ => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a text's elements say, and what follows them.
    fn all(text: &str) -> Option<(Vec<String>, &str)> {
        let mut said = Vec::new();
        let end = walk(text, |id, parameter| {
            said.push(match parameter {
                Some((name, value)) => format!("{id}.{name}={}", unescaped(value)),
                None => id.to_owned(),
            });
        })?;
        Some((said, &text[end..]))
    }

    #[test]
    fn elements_have_parameters_and_values_have_escapes() {
        for (text, said, rest) in [
            ("[a@1 b=\"c\"] text", &["a@1.b=c"][..], " text"),
            ("[a b=\"\" c=\"1\"][d e=\"ä\"]", &["a.b=", "a.c=1", "d.e=ä"], ""),
            ("[flag][a b=\"1\" b=\"2\"]x", &["flag", "a.b=1", "a.b=2"], "x"),
            (r#"[a b="\"q\" \\ \] \n ] \ä\\"] [x"#, &[r#"a.b="q" \ ] \n ] \ä\"#], " [x"),
            ("[a  b=\"1\" ]", &["a.b=1"], ""),
        ] {
            let said = said.iter().map(|said| (*said).to_owned()).collect::<Vec<_>>();
            assert_eq!(all(text), Some((said, rest)), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_none() {
        let long = format!("[{}]", "x".repeat(65));
        for text in [
            "",
            "-",
            "[",
            "[]",
            "[a",
            "[a ",
            "[a b",
            "[a b]",
            "[a b=",
            "[a b=\"",
            "[a b=\"c",
            "[a b=\"c\"",
            "[a b=c]",
            "[a b=\"c\\\"]",
            "[a =\"c\"]",
            "[ä]",
            "[a b=\"1\"c=\"2\"]",
            "[a][b",
            "[ a]",
            "[a=b]",
            "[a \"b\"=\"c\"]",
            &long,
        ] {
            assert_eq!(all(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_escaped_is_read_again(
            elements in proptest::collection::vec(
                ("[!-<>?@A-Z]{1,8}", proptest::collection::vec(("[a-z]{1,8}", ".{0,12}"), 0..3)), 1..4,
            ),
            rest in "[^\\[].{0,8}",
        ) {
            let elements: Vec<_> =
                elements.into_iter().map(|(id, all)| (id.replace('"', "'"), all)).collect();
            let (mut text, mut expected) = (String::new(), Vec::new());
            for (id, parameters) in &elements {
                text += &format!("[{id}");
                for (name, value) in parameters {
                    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
                    text += &format!(" {name}=\"{}\"", escaped.replace(']', "\\]"));
                    expected.push(format!("{id}.{name}={value}"));
                }
                if parameters.is_empty() {
                    expected.push(id.clone());
                }
                text += "]";
            }
            let whole = format!("{text}{rest}");
            prop_assert_eq!(all(&whole), Some((expected, &*rest)));
            let cut = text.floor_char_boundary(text.len() - 1);
            let last = text.rfind("][").map_or(0, |at| at + 1);
            prop_assert!(last > 0 || all(&text[..cut]).is_none());
        }

        #[test]
        fn any_text_is_walked(pieces in proptest::collection::vec(proptest::sample::select(vec![
            "[", "]", "=", "\"", "\\", " ", "a", "ä", "=\"", "\"]", "[a b=\"",
        ]), 0..20)) {
            let text = pieces.concat();
            if let Some((_, rest)) = all(&text) {
                prop_assert!(text.ends_with(rest));
            }
        }
    }
}
