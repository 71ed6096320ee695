//! What serde says about a component's settings, in words that name the key and the remedy.

use tidegate_model::Mistake;
use toml::de::{DeTable, DeValue};

use super::component::Component;
use super::values::{Value, describe};
use crate::graph::{Role, closest};

/// Keys that the engine reads itself, whoever's component it is.
pub(crate) fn engine_keys(role: Role) -> &'static [&'static str] {
    match role {
        Role::Source => &["type"],
        Role::Transform => &["type", "inputs"],
        Role::Sink => &["type", "inputs", "when_full", "queue_bytes_max"],
    }
}

/// The mistake with serde's phrases put into words; what a component says itself stays as it is.
pub(crate) fn reword(mistake: Mistake, component: &Component<'_>, text: &str) -> Mistake {
    let Mistake { span, message, help } = mistake;
    let place = span.clone().and_then(|span| find(component.table(), &span, ""));
    let reworded = unknown_key(&message, component)
        .or_else(|| missing_key(&message, component))
        .or_else(|| unknown_word(&message, &place))
        .or_else(|| wrong_value(&message, &place, component, text));
    let (message, remedy) = reworded.unwrap_or((message, None));
    Mistake { span, message, help: help.or(remedy) }
}

type Words = (String, Option<String>);

/// "unknown field `paht`, expected one of `path`, `codec`"
fn unknown_key(message: &str, component: &Component<'_>) -> Option<Words> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, expected) = rest.split_once('`')?;
    let expected = match expected {
        ", there are no fields" => ": it has no keys of its own",
        expected => expected,
    };
    let own = expected.split('`').skip(1).step_by(2);
    let known = own.chain(engine_keys(component.role).iter().copied());
    let help = if let Some(name) = closest(key, known) {
        Some(format!("did you mean `{name}`?"))
    } else if super::KEYS.contains(&key) {
        Some(format!("`{key}` belongs at the top of the file, before the first [table]"))
    } else if engine_keys(Role::Sink).contains(&key) {
        Some(format!("only sinks have `{key}`"))
    } else {
        None
    };
    Some((format!("unknown key `{key}`{expected}"), help))
}

/// "missing field `path`"
fn missing_key(message: &str, component: &Component<'_>) -> Option<Words> {
    let key = message.strip_prefix("missing field `")?.strip_suffix('`')?;
    let help = match like(component, key) {
        Some(value) => format!("add it, such as {key} = {value}"),
        None => format!("add {key} = …"),
    };
    Some((format!("the key `{key}` is missing"), Some(help)))
}

/// "unknown variant `jsn`, expected `text` or `ndjson`"
fn unknown_word(message: &str, place: &Option<(String, &Value<'_>)>) -> Option<Words> {
    let rest = message.strip_prefix("unknown variant `")?;
    let (word, expected) = rest.split_once('`')?;
    let words: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let help = closest(word, words.iter().copied()).map(|name| format!("did you mean `{name}`?"));
    let what = match place {
        Some((key, _)) => format!("`{key}` can't be `{word}`"),
        None => format!("`{word}` is not known"),
    };
    Some((format!("{what}{expected}"), help))
}

/// "invalid type: string "many", expected u32", and the like.
fn wrong_value(
    message: &str,
    place: &Option<(String, &Value<'_>)>,
    component: &Component<'_>,
    text: &str,
) -> Option<Words> {
    let expected = if message == "wanted string or table" {
        "a string"
    } else {
        let forms = ["invalid type: ", "invalid value: ", "invalid length "];
        let rest = forms.iter().find_map(|form| message.strip_prefix(form))?;
        rest.rsplit_once(", expected ").map(|(_, expected)| expected)?
    };
    let (key, value) = place.as_ref()?;
    let should = in_words(expected);
    let number = value.get_ref().as_str().filter(|string| string.parse::<f64>().is_ok());
    let help = match (number, value.get_ref()) {
        (Some(number), _) if should.contains("number") => {
            Some(format!("write it without quotes: {number}"))
        }
        (_, DeValue::String(_)) if should == "a list" => {
            text.get(value.span()).map(|raw| format!("write [{raw}]"))
        }
        (_, DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_)) if should == "text" => {
            text.get(value.span()).map(|raw| format!("write it in quotes: \"{raw}\""))
        }
        _ if should == "a table" => Some(format!("write {key} = {{ KEY = VALUE }}")),
        _ => like(component, key).map(|value| format!("write it like {key} = {value}")),
    };
    Some((format!("`{key}` should be {should}, not {}", describe(value, text)), help))
}

/// What serde expects, in words.
fn in_words(expected: &str) -> String {
    let words = match expected {
        "a string" | "a borrowed string" | "str" | "string" => "text",
        "path string" | "a path string" => "a path",
        "a character" => "a single character",
        "a boolean" => "`true` or `false`",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "a nonzero u8" => "a whole number from 1 to 255",
        "a nonzero u16" => "a whole number from 1 to 65535",
        "a nonzero u32" => "a whole number from 1 to 4294967295",
        "a nonzero u64" | "a nonzero usize" => "a whole number, 1 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    };
    words.to_owned()
}

/// A value as the component's example writes it.
fn like(component: &Component<'_>, key: &str) -> Option<String> {
    let example = component.example()?;
    let table = DeTable::parse(example).ok()?;
    let value = table.get_ref().get(key)?;
    let raw = example.get(value.span())?;
    (!raw.contains('\n')).then(|| raw.to_owned())
}

/// The innermost value of a table that covers these bytes, and its path: `limits.rows`.
fn find<'v, 'i>(
    table: &'v DeTable<'i>,
    span: &std::ops::Range<usize>,
    path: &str,
) -> Option<(String, &'v Value<'i>)> {
    let covers =
        |value: &Value<'_>| value.span().start <= span.start && span.end <= value.span().end;
    for (key, value) in table {
        let path = if path.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{path}.{}", key.get_ref())
        };
        let inner = match value.get_ref() {
            // The span of a table is its head, so what is in it may be elsewhere.
            DeValue::Table(table) => find(table, span, &path),
            DeValue::Array(array) => array.iter().enumerate().find_map(|(index, value)| {
                covers(value).then(|| (format!("{path}[{index}]"), value))
            }),
            _ => None,
        };
        if let Some(found) = inner.or_else(|| covers(value).then_some((path, value))) {
            return Some(found);
        }
    }
    None
}
