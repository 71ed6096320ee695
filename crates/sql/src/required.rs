//! What a row's text must have for a query to make anything of it: literals that a source can look
//! for before it makes rows of what it reads.
//!
//! They are read off the planned conditions, so that whatever was simplified on the way is known.
//! A condition counts only where it can't be true without one of its literals, and only if none
//! before it can fail: a row that fails is rejected, which is something made of it.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::{iter, slice};

use arrow_schema::{DataType, Schema};
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, InListExpr, LikeExpr, Literal,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use crate::functions;
use crate::plan::Plan;

/// A set of more literals tells rows apart no better than looking at them does.
const LITERALS_MAX: usize = 64;

/// Where a part of a pattern can be more texts, or texts of more bytes in all, they are not listed.
const TEXTS_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Nor where a class has more characters, or a part stands there more often.
const CHARS_MAX: usize = 8;
const TIMES_MAX: u32 = 8;

/// Literals of so many bytes are rare enough: from there on, fewer are better than longer ones.
const LONG_ENOUGH: usize = 3;

/// Literals of which a text must have at least one; with none in it, no text will do.
type Literals = BTreeSet<String>;

/// The best set of literals that the conditions give for this column of the input.
pub(crate) fn required(plan: &Plan, input: &Schema, column: &str) -> Option<Literals> {
    let column = input.index_of(column).ok()?;
    let scanned = plan.scan.columns.iter().position(|scanned| *scanned == Some(column));
    let text = Text { scanned, schema: &plan.scan.schema };
    let safe = plan.conditions.iter().take_while(|condition| !condition.can_fail);
    safe.map(|condition| text.required(&condition.expr)).fold(None, better)
}

/// The literals themselves; of one that has another in it, the other is enough. `None` where one
/// is empty, or there are too many.
fn literals<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Option<Literals> {
    let mut literals = Literals::new();
    for text in texts {
        let literal = certain(text.as_ref())?;
        if literals.iter().any(|other| literal.contains(&**other)) {
            continue;
        }
        literals.retain(|other| !other.contains(literal));
        literals.insert(literal.to_owned());
        if literals.len() > LITERALS_MAX {
            return None;
        }
    }
    Some(literals)
}

/// The longest part of a text without U+FFFD, which a text may have where its source has bytes that
/// are no text.
fn certain(text: &str) -> Option<&str> {
    let parts = text.split(char::REPLACEMENT_CHARACTER).filter(|part| !part.is_empty());
    parts.max_by_key(|part| part.len())
}

/// Where both sets hold.
fn better(a: Option<Literals>, b: Option<Literals>) -> Option<Literals> {
    let cost = |literals: &Literals| {
        let shortest = literals.iter().map(String::len).min().unwrap_or(usize::MAX);
        (Reverse(shortest.min(LONG_ENOUGH)), literals.len(), Reverse(shortest))
    };
    match (a, b) {
        (Some(a), Some(b)) => Some(if cost(&b) < cost(&a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// Where one of two sets holds.
fn either(a: Option<Literals>, b: Option<Literals>) -> Option<Literals> {
    literals(a?.into_iter().chain(b?))
}

/// The column of which literals are looked for.
struct Text<'a> {
    /// Its index in the scan, if it is read at all.
    scanned: Option<usize>,
    schema: &'a Schema,
}

impl Text<'_> {
    /// What a text must have for a condition on it to be true.
    fn required(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Literals> {
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            let never = matches!(literal.value(), ScalarValue::Boolean(None | Some(false)));
            never.then(Literals::new)
        } else if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            self.of_binary(binary)
        } else if let Some(like) = expr.downcast_ref::<LikeExpr>() {
            let plain = !like.negated() && !like.case_insensitive() && self.is(like.expr());
            if plain { literals([run(constant(like.pattern())?)?]) } else { None }
        } else if let Some(list) = expr.downcast_ref::<InListExpr>() {
            if list.negated() { None } else { self.equal(list.expr(), list.list()) }
        } else if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
            let [text, rest @ ..] = call.args() else { return None };
            match (call.fun().name(), rest) {
                _ if !self.is(text) => None,
                ("contains" | "starts_with" | "ends_with", [part]) => literals([constant(part)?]),
                ("regexp_found", []) => of_pattern(functions::pattern(call)?),
                _ => None,
            }
        } else {
            None
        }
    }

    fn of_binary(&self, binary: &BinaryExpr) -> Option<Literals> {
        let (left, op, right) = (binary.left(), *binary.op(), binary.right());
        match op {
            Operator::And => better(self.required(left), self.required(right)),
            Operator::Or => either(self.required(left), self.required(right)),
            Operator::Eq if self.is(left) => self.equal(left, slice::from_ref(right)),
            Operator::Eq if self.is(right) => self.equal(right, slice::from_ref(left)),
            _ => {
                let place = self.place(left, op, right);
                literals([place.or_else(|| self.place(right, op.swap()?, left))?])
            }
        }
    }

    fn equal(
        &self,
        text: &Arc<dyn PhysicalExpr>,
        values: &[Arc<dyn PhysicalExpr>],
    ) -> Option<Literals> {
        if !self.is(text) {
            return None;
        }
        // Nothing equals null.
        let values = values.iter().filter(|value| !is_null(value));
        literals(values.map(constant).collect::<Option<Vec<_>>>()?)
    }

    /// The literal whose place in the text is compared with a number that 0, which stands for no
    /// place, does not pass.
    fn place<'e>(
        &self,
        place: &'e Arc<dyn PhysicalExpr>,
        op: Operator,
        number: &Arc<dyn PhysicalExpr>,
    ) -> Option<&'e str> {
        let call = place.downcast_ref::<ScalarFunctionExpr>()?;
        let [text, part] = call.args() else { return None };
        if call.fun().name() != "strpos" || !self.is(text) {
            return None;
        }
        let number = match number.downcast_ref::<Literal>()?.value() {
            ScalarValue::Int32(number) => i64::from((*number)?),
            ScalarValue::Int64(number) => (*number)?,
            _ => return None,
        };
        let found = match op {
            Operator::Eq => number != 0,
            Operator::NotEq => number == 0,
            Operator::Gt => number >= 0,
            Operator::GtEq => number > 0,
            Operator::Lt => number <= 0,
            Operator::LtEq => number < 0,
            _ => false,
        };
        found.then(|| constant(part)).flatten()
    }

    /// Whether it is the column, perhaps as another type of text.
    fn is(&self, expr: &Arc<dyn PhysicalExpr>) -> bool {
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            let from = cast.expr().data_type(self.schema);
            return from.is_ok_and(|from| is_text(&from))
                && is_text(cast.cast_type())
                && self.is(cast.expr());
        }
        let column = expr.downcast_ref::<Column>();
        column.is_some_and(|column| Some(column.index()) == self.scanned)
    }
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => is_text(values),
        kind => kind.is_string(),
    }
}

fn constant(expr: &Arc<dyn PhysicalExpr>) -> Option<&str> {
    expr.downcast_ref::<Literal>()?.value().try_as_str().flatten()
}

fn is_null(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Literal>().is_some_and(|literal| literal.value().is_null())
}

/// The longest text between the wildcards of a LIKE.
fn run(pattern: &str) -> Option<String> {
    let mut runs = vec![String::new()];
    let mut chars = pattern.chars();
    while let Some(next) = chars.next() {
        let next = match next {
            '%' | '_' => {
                runs.push(String::new());
                continue;
            }
            // The last one stands for itself.
            '\\' => chars.next().unwrap_or('\\'),
            other => other,
        };
        runs.last_mut()?.push(next);
    }
    let certain = runs.iter().filter_map(|run| certain(run));
    certain.max_by_key(|run| run.len()).map(str::to_owned)
}

/// What a text must have for a regular expression to be found in it.
fn of_pattern(pattern: &str) -> Option<Literals> {
    Finds::new(&regex_syntax::parse(pattern).ok()?).required
}

/// What a part of a regular expression finds.
#[derive(Clone)]
struct Finds {
    /// Texts, few, of which each find starts with one and ends with one.
    edges: Option<Vec<String>>,
    /// Whether each find is one of them.
    whole: bool,
    /// Literals of which each find has at least one.
    required: Option<Literals>,
}

impl Finds {
    fn new(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::nothing(),
            HirKind::Literal(literal) => match str::from_utf8(&literal.0) {
                Ok(text) => Self::one_of(vec![text.to_owned()]),
                Err(_) => Self::anything(),
            },
            HirKind::Class(class) => few(class).map_or_else(Self::anything, Self::one_of),
            HirKind::Capture(capture) => Self::new(&capture.sub),
            HirKind::Repetition(Repetition { min, max, sub, .. }) => match (*min, *max) {
                (0, Some(1)) => Self::new(sub).or(Self::nothing()),
                (0, _) => Self::anything(),
                (count, Some(most)) if count == most && count <= TIMES_MAX => {
                    Self::sequence(iter::repeat_n(Self::new(sub), count as usize))
                }
                _ => Self { whole: false, ..Self::new(sub) },
            },
            HirKind::Concat(parts) => Self::sequence(parts.iter().map(Self::new)),
            HirKind::Alternation(arms) => {
                let arms = arms.iter().map(Self::new);
                arms.reduce(Self::or).unwrap_or_else(Self::anything)
            }
        }
    }

    fn anything() -> Self {
        Self { edges: None, whole: false, required: None }
    }

    /// The empty text.
    fn nothing() -> Self {
        Self { edges: Some(vec![String::new()]), whole: true, required: None }
    }

    fn one_of(texts: Vec<String>) -> Self {
        let required = literals(&texts);
        let edges = listed(texts);
        Self { whole: edges.is_some(), edges, required }
    }

    fn or(self, other: Self) -> Self {
        let edges = self.edges.zip(other.edges).and_then(|(a, b)| listed([a, b].concat()));
        let whole = edges.is_some() && self.whole && other.whole;
        Self { edges, whole, required: either(self.required, other.required) }
    }

    fn sequence(parts: impl Iterator<Item = Self>) -> Self {
        let (mut required, mut whole) = (None, true);
        // What stands before the next part, as far back as it is known.
        let mut run = vec![String::new()];
        for part in parts {
            required = better(required, part.required);
            let longer = part.edges.as_deref().and_then(|edges| joined(&run, edges));
            match longer {
                Some(longer) if part.whole => run = longer,
                longer => {
                    required = better(required, literals(longer.unwrap_or(run)));
                    run = part.edges.unwrap_or_else(|| vec![String::new()]);
                    whole = false;
                }
            }
        }
        let required = better(required, literals(&run));
        Self { edges: whole.then_some(run), whole, required }
    }
}

/// The texts, if they are few.
fn listed(texts: Vec<String>) -> Option<Vec<String>> {
    let bytes: usize = texts.iter().map(String::len).sum();
    (texts.len() <= TEXTS_MAX && bytes <= TEXT_BYTES_MAX).then_some(texts)
}

/// Each text followed by each other.
fn joined(texts: &[String], others: &[String]) -> Option<Vec<String>> {
    let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    let total = bytes(texts) * others.len() + bytes(others) * texts.len();
    let few = texts.len() * others.len() <= TEXTS_MAX && total <= TEXT_BYTES_MAX;
    let all =
        texts.iter().flat_map(|text| others.iter().map(move |other| format!("{text}{other}")));
    few.then(|| all.collect())
}

/// The characters of a class, each a text, where they are few. None where it leaves the case of a
/// letter open: of a word so many texts can be made that none of its parts is worth looking for.
fn few(class: &Class) -> Option<Vec<String>> {
    let class = match class {
        Class::Unicode(class) => class.clone(),
        Class::Bytes(class) => class.to_unicode_class()?,
    };
    let chars = class.iter().flat_map(|range| range.start()..=range.end());
    let chars: Vec<char> = chars.take(CHARS_MAX + 1).collect();
    let letters: BTreeSet<String> = chars.iter().map(|c| c.to_lowercase().collect()).collect();
    let few = chars.len() <= CHARS_MAX && letters.len() == chars.len();
    few.then(|| chars.into_iter().map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use tidegate_model::{Settings, Transform, log_schema};

    use super::*;
    use crate::plan;
    use crate::query::Query;

    /// The literals, and the conditions as they are planned.
    fn of(condition: &str, column: &str) -> (Option<Vec<String>>, String) {
        let query = format!("SELECT level FROM input WHERE {condition}");
        let query = Query::parse(&query).unwrap_or_else(|_| panic!("{condition}"));
        let input = log_schema();
        let columns = plan::columns(&query, &input).unwrap_or_else(|_| panic!("{condition}"));
        let input = input.project(&columns).unwrap();
        let plan = plan::plan(&query, &input).unwrap_or_else(|e| panic!("{condition} {e:?}"));
        let shown = plan.conditions.iter().map(|condition| condition.expr.to_string());
        let required = required(&plan, &input, column);
        (required.map(|set| set.into_iter().collect()), shown.collect::<Vec<_>>().join("; "))
    }

    /// What is expected of the message, in a line: a set without order, or nothing.
    const EXPECTED: &[(&str, Option<&[&str]>)] = &[
        // LIKE: the longest text between wildcards, with backslash as the escape.
        ("message LIKE '%ERROR%'", Some(&["ERROR"])),
        ("message LIKE '%abc%x_y%'", Some(&["abc"])),
        ("message LIKE 'ab%'", Some(&["ab"])),
        ("message LIKE '%a_bc'", Some(&["bc"])),
        ("message LIKE 'abc'", Some(&["abc"])),
        ("message LIKE '%größer%'", Some(&["größer"])),
        (r"message LIKE '%100\%\_a\\b%c'", Some(&[r"100%_a\b"])),
        (r"message LIKE '%ab\cd'", Some(&["abcd"])),
        (r"message LIKE 'ab\'", Some(&[r"ab\"])),
        (r"message LIKE 'ab\\%'", Some(&[r"ab\"])),
        (r"message LIKE '%a%bcd\%%' ESCAPE '\'", Some(&["bcd%"])),
        ("message LIKE '%'", None),
        ("message LIKE '%_%'", None),
        ("message LIKE ''", None),
        ("message LIKE NULL", Some(&[])),
        ("message LIKE level", None),
        ("'ab' LIKE message", None),
        ("message ILIKE '%x%'", None),
        ("message NOT LIKE '%x%'", None),
        ("NOT (message LIKE '%x%')", None),
        ("NOT (message NOT LIKE '%x%')", Some(&["x"])),
        // What may stand for bytes that are no text is not looked for.
        ("message LIKE '%a\u{fffd}bcd%e\u{fffd}f%'", Some(&["bcd"])),
        ("message LIKE '%\u{fffd}%'", None),
        ("message = 'ab\u{fffd}c'", Some(&["ab"])),
        ("message IN ('\u{fffd}', 'b', 'c', 'd')", None),
        ("message ~ 'a\u{fffd}bc.d'", Some(&["bc"])),
        ("message ~ '[a\u{fffd}]b?.'", None),
        // Equality.
        ("message = 'x'", Some(&["x"])),
        ("'x' = message", Some(&["x"])),
        ("message = ''", None),
        ("message = NULL", Some(&[])),
        ("message <> 'x'", None),
        ("message > 'x'", None),
        ("message BETWEEN 'x' AND 'x'", Some(&["x"])),
        ("message IS NOT DISTINCT FROM NULL", None),
        ("message IN ('a', 'b')", Some(&["a", "b"])),
        ("message IN ('a', 'b', 'c', 'd')", Some(&["a", "b", "c", "d"])),
        ("message IN ('a', NULL)", Some(&["a"])),
        ("message IN ('a', NULL, 'b', 'c', 'd')", Some(&["a", "b", "c", "d"])),
        ("message IN ('a', '', 'c', 'd')", None),
        ("message IN ('a', 'b', level, 'd')", None),
        ("message IN ('aa', 'ba', 'a', 'cd')", Some(&["a", "cd"])),
        ("message NOT IN ('a', 'b', 'c', 'd')", None),
        ("CAST(message AS TEXT) = 'abc'", Some(&["abc"])),
        ("arrow_cast(message, 'LargeUtf8') LIKE '%abc%'", Some(&["abc"])),
        // Functions of the text.
        ("contains(message, 'x%y')", Some(&["x%y"])),
        ("contains(message, '')", None),
        ("contains(message, level)", None),
        ("contains('x', message)", None),
        (r"starts_with(message, 'a_%\b')", Some(&[r"a_%\b"])),
        ("ends_with(message, 'x')", Some(&["x"])),
        ("NOT ends_with(message, 'x')", None),
        ("strpos(message, 'x') > 0", Some(&["x"])),
        ("0 < strpos(message, 'x')", Some(&["x"])),
        ("strpos(message, 'x') >= 1", Some(&["x"])),
        ("strpos(message, 'x') <> 0", Some(&["x"])),
        ("position('x' IN message) = 3", Some(&["x"])),
        ("strpos(message, 'x') < 0", Some(&["x"])),
        ("strpos(message, 'x') = 0", None),
        ("strpos(message, 'x') >= 0", None),
        ("strpos(message, 'x') > -1", None),
        ("strpos(message, 'x') < 3", None),
        ("strpos(message, 'x') <> 3", None),
        ("strpos(message, '') > 0", None),
        ("strpos('x', message) > 0", None),
        ("lower(message) LIKE '%x%'", None),
        ("trim(message) = 'abc'", None),
        ("message || 'x' = 'yx'", None),
        ("left(message, 3) = 'abc'", None),
        ("octet_length(message) > 120", None),
        ("message IS NOT NULL", None),
        ("message IS NULL", Some(&[])),
        // Regular expressions.
        ("message ~ 'ERROR'", Some(&["ERROR"])),
        (r"message ~ 'user \d+ .*timeout'", Some(&["timeout"])),
        (r"message ~ '^(\w+) error'", Some(&[" error"])),
        ("message ~ 'ERR+OR'", Some(&["ERR"])),
        ("message ~ '(ab)+c'", Some(&["abc"])),
        ("message ~ '(ab)*c'", Some(&["c"])),
        ("message ~ '(ab){2,}'", Some(&["ab"])),
        ("message ~ '(ab){2}.?'", Some(&["abab"])),
        ("message ~ '(ab){900}.?'", Some(&["ab"])),
        ("message ~ 'x?yz{3}'", Some(&["yzzz"])),
        ("message ~ '[Ee]rror'", Some(&["rror"])),
        ("message ~ '[ab]c'", Some(&["ac", "bc"])),
        ("message ~ '[a-z]'", None),
        ("message ~ '[^a]'", None),
        ("message ~ '[0-7]'", Some(&["0", "1", "2", "3", "4", "5", "6", "7"])),
        ("message ~ '[abc][0-7][0-7]'", Some(&["a", "b", "c"])),
        ("message ~ '^(a|b)$'", Some(&["a", "b"])),
        ("message ~ 'warn|error|fatal: .* [0-9]'", Some(&["error", "fatal: ", "warn"])),
        ("message ~ 'warn|.*'", None),
        ("message ~ '(warn|error)? [^x]'", Some(&[" "])),
        (r"message ~ '\berr\b.\bx'", Some(&["err"])),
        (r"message ~ '[^\s\S]'", Some(&[])),
        ("message ~ '[a&&b]?'", None),
        (r"message ~ '(?-u)ab\w[cd]'", Some(&["ab"])),
        ("message ~ '(?x) ab . # c'", Some(&["ab"])),
        ("message ~ '(?s).*x'", Some(&["x"])),
        ("message ~ '(?i)error'", None),
        ("message ~ '(?i)x[0] 5'", Some(&["0 5"])),
        ("message ~* 'error'", None),
        ("message ~* 'e.ror'", None),
        ("message ~ ''", None),
        ("message ~ '.*'", None),
        ("message ~ level", None),
        ("message !~ 'warn.*x'", None),
        ("NOT (message !~ 'warn.*x')", Some(&["warn"])),
        ("regexp_like(message, 'x.yz')", Some(&["yz"])),
        ("regexp_like(message, 'X.YZ', 'i')", None),
        ("regexp_like(level, 'x.yz')", None),
        // Several.
        ("message LIKE '%a%' AND message LIKE '%bcd%'", Some(&["bcd"])),
        ("message LIKE '%bcd%' AND message IN ('cde', 'def', 'efg', 'fgh')", Some(&["bcd"])),
        (
            "message IN ('cde', 'def', 'efg', 'fgh') AND message LIKE '%b%'",
            Some(&["cde", "def", "efg", "fgh"]),
        ),
        ("message LIKE '%a%' OR level = 'x'", None),
        ("message LIKE '%a%' OR message NOT LIKE '%b%'", None),
        ("message LIKE '%a%' OR message = NULL", Some(&["a"])),
        ("message = 'abc' OR message LIKE '%b%' OR message = 'ab'", Some(&["b"])),
        (
            "(message LIKE '%abc%' AND severity = 1) OR (message ~ 'def.' AND severity = 2)",
            Some(&["abc", "def"]),
        ),
        ("(message LIKE '%abc%' AND severity = 1) OR severity = 2", None),
        ("NOT (message LIKE '%a%' OR message LIKE '%b%')", None),
        ("NOT (message NOT LIKE '%a%' AND message <> 'b')", Some(&["a", "b"])),
        ("(message LIKE '%x%') = true", Some(&["x"])),
        ("(message LIKE '%x%') = false", None),
        ("(message LIKE '%x%') IS NOT TRUE", None),
        ("(message LIKE '%x%') IS NULL", Some(&[])),
        ("CASE WHEN message LIKE '%x%' THEN true ELSE false END", Some(&["x"])),
        ("CASE WHEN message LIKE '%x%' THEN false ELSE true END", None),
        ("CASE WHEN severity > 3 THEN message LIKE '%x%' ELSE severity > 1 END", None),
        ("coalesce(message LIKE '%x%', true)", Some(&["x"])),
        ("message IS NOT NULL AND false", Some(&[])),
        // Nothing that comes after what can fail.
        ("message LIKE '%x%' AND 10 / severity > 1", Some(&["x"])),
        ("10 / severity > 1 AND message LIKE '%x%'", None),
        ("10 / severity > 1 AND message = NULL", None),
        ("message LIKE '%a%' AND 10 / severity > 1 AND message LIKE '%abc%'", Some(&["a"])),
        ("message LIKE '%x%' AND (severity = 0 OR 10 / severity > 1)", Some(&["x"])),
        ("CAST(message AS INT) > 1 OR message = 'x'", None),
        ("message = 'x' OR CAST(message AS INT) > 1", None),
        ("CAST(message AS INT) = 12", None),
    ];

    #[test]
    fn conditions_say_what_a_text_must_have() {
        for (condition, expected) in EXPECTED {
            let (required, planned) = of(condition, "message");
            let expected: Option<Vec<&str>> = expected.map(<[&str]>::to_vec);
            let required = required.as_ref().map(|set| set.iter().map(|l| &**l).collect());
            assert_eq!(required, expected, "{condition}, planned as {planned}");
        }
    }

    #[test]
    fn only_the_column_counts() {
        for (condition, expected) in [
            ("level = 'abc' AND message LIKE '%message%'", "abc"),
            ("message LIKE '%level%' AND 'abc' = level", "abc"),
            ("level LIKE '%abc%' AND source LIKE '%source%'", "abc"),
            ("regexp_like(level, 'a.*bc')", "bc"),
            ("metadata['level'] = 'x' AND level = 'abc'", "abc"),
        ] {
            let (required, planned) = of(condition, "level");
            assert_eq!(required, Some(vec![expected.to_owned()]), "{condition}: {planned}");
        }
        for condition in ["metadata['level'] = 'x'", "message = level", "message = 'x'"] {
            assert_eq!(of(condition, "level").0, None, "{condition}");
            assert_eq!(of(condition, "none").0, None, "{condition}");
        }
    }

    #[test]
    fn sets_are_small() {
        let of_many = |count: u8| {
            let texts = (0..count).map(|n| format!("'{n:02}'")).collect::<Vec<_>>().join(", ");
            of(&format!("message IN ({texts})"), "message").0.map(|set| set.len())
        };
        assert_eq!((of_many(64), of_many(65)), (Some(64), None));
        let long = "x".repeat(TEXT_BYTES_MAX);
        let required = of(&format!("message ~ '{long}[ab]y'"), "message").0;
        assert_eq!(required, Some(vec![long]), "it is not listed with what may follow");
        let nested = "((((((((a{8}){8}){8}){8})b?){2}){0,3}c{8}){1}){1}";
        assert_eq!(of(&format!("message ~ '{nested}'"), "message").0, Some(vec!["c".repeat(8)]));
    }

    #[test]
    fn a_query_that_does_not_fit_requires_nothing() {
        let settings = "query = \"SELECT level FROM input WHERE message = 'x' AND none = 1\"";
        let settings = Settings::from_toml(settings).unwrap();
        let transform = crate::SqlTransform::from_settings(&settings).unwrap();
        assert_eq!(transform.required(&log_schema(), "message"), None);
    }
}
