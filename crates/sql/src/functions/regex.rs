//! Regular expressions: `~` and its kin, `regexp_like`, `regexp_match`, `regexp_replace`. A pattern
//! that is written in the query is compiled when it is planned, and a mistake in it found there.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringViewBuilder};
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, StringViewArray};
use arrow_schema::{DataType, Field, Schema};
use datafusion_common::cast::as_string_view_array;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    BinaryExpr, Cast, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, TypeSignature, Volatility,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use regex::{Match, Regex};
use regex_syntax::hir::{Hir, HirKind};

use super::RESULT_BYTES_MAX;

/// The functions, in place of DataFusion's of the same names.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(Work::Match.function(None)),
        Arc::new(Work::Replace { all: false }.function(None)),
    ]
}

/// Puts a compiled pattern in the place of one that is written in the query, in this node.
///
/// # Errors
///
/// Where the pattern is none.
pub(crate) fn compile(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let flags = match op {
                Operator::RegexMatch | Operator::RegexNotMatch => "",
                Operator::RegexIMatch | Operator::RegexNotIMatch => "i",
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            };
            let Some(pattern) = text(&right) else {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            };
            let like = Work::Like.call(Pattern::new(pattern, flags)?, vec![*left]);
            let not = matches!(op, Operator::RegexNotMatch | Operator::RegexNotIMatch);
            Ok(Transformed::yes(if not { Expr::Not(Box::new(like)) } else { like }))
        }
        Expr::ScalarFunction(call) => compile_call(call),
        other => Ok(Transformed::no(other)),
    }
}

/// As [`compile`], where the pattern has a backslash that stands for itself: DataFusion would make a
/// LIKE of it, in which the backslash stands for nothing.
///
/// # Errors
///
/// Where the pattern is none.
pub(crate) fn compile_backslashes(expr: Expr) -> Result<Transformed<Expr>> {
    let pattern = match &expr {
        Expr::BinaryExpr(binary) => text(&binary.right).filter(|pattern| pattern.contains('\\')),
        _ => None,
    };
    match pattern.and_then(|pattern| regex_syntax::parse(pattern).ok()) {
        Some(hir) if has_backslash(&hir) => compile(expr),
        _ => Ok(Transformed::no(expr)),
    }
}

fn has_backslash(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.contains(&b'\\'),
        HirKind::Capture(capture) => has_backslash(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(has_backslash),
        // Of others no LIKE is made.
        _ => false,
    }
}

fn compile_call(call: ScalarFunction) -> Result<Transformed<Expr>> {
    let (work, flags_at) = match call.func.name() {
        "regexp_like" => (Work::Like, 2),
        "regexp_match" => (Work::Match, 2),
        // With a place to start from, DataFusion compiles the pattern once a batch.
        "regexp_count" if call.args.len() == 2 => (Work::Count, 2),
        "regexp_replace" => (Work::Replace { all: false }, 3),
        _ => return Ok(Transformed::no(Expr::ScalarFunction(call))),
    };
    let flags = call.args.get(flags_at).map_or(Some(""), text);
    let (Some(pattern), Some(flags)) = (call.args.get(1).and_then(text), flags) else {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    };
    let all = flags.contains('g');
    if all && work != (Work::Replace { all: false }) {
        return exec_err!("the flag g is for regexp_replace only");
    }
    let work = if all { Work::Replace { all } } else { work };
    let pattern = Pattern::new(pattern, &flags.replace('g', ""))?;
    let mut args = call.args;
    args.truncate(flags_at);
    args.remove(1);
    Ok(Transformed::yes(work.call(pattern, args)))
}

/// The expression with compiled patterns of its own. A pattern keeps memory to search with, which
/// threads that share it would queue for.
pub(crate) fn unshared(
    expr: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Result<Arc<dyn PhysicalExpr>> {
    let unshared = Arc::clone(expr).transform_up(|node| {
        let Some(call) = node.downcast_ref::<ScalarFunctionExpr>() else {
            return Ok(Transformed::no(node));
        };
        let function = call.fun().inner().downcast_ref::<RegexFunction>();
        let Some((work, pattern)) = function.and_then(|f| Some((f.work, f.pattern.clone()?)))
        else {
            return Ok(Transformed::no(node));
        };
        let function = Arc::new(work.function(Some(pattern)));
        let (field, options) = (call.return_field(schema)?, call.config_options().clone());
        let args = call.args().to_vec();
        let call = ScalarFunctionExpr::new(call.name(), function, args, field, Arc::new(options));
        Ok(Transformed::yes(Arc::new(call) as Arc<dyn PhysicalExpr>))
    })?;
    Ok(unshared.data)
}

/// The pattern that a call of `regexp_found` looks for.
pub(crate) fn pattern(call: &ScalarFunctionExpr) -> Option<&str> {
    let function = call.fun().inner().downcast_ref::<RegexFunction>()?;
    let pattern = function.pattern.as_ref().filter(|_| function.work == Work::Like)?;
    Some(pattern.0.as_str())
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

/// A compiled pattern; the same as another where its text is.
#[derive(Clone, Debug)]
struct Pattern(Regex);

impl Pattern {
    fn new(pattern: &str, flags: &str) -> Result<Self> {
        let unknown = flags.chars().find(|flag| !"imsUux".contains(*flag));
        if let Some(flag) = unknown {
            return exec_err!("there is no flag {flag} of regular expressions");
        }
        let whole = match flags {
            "" => pattern.to_owned(),
            flags => format!("(?{flags}){pattern}"),
        };
        match Regex::new(&whole) {
            Ok(regex) => Ok(Self(regex)),
            Err(error) => {
                // The last line says what is wrong; those before draw the pattern.
                let lines = error.to_string();
                let said = lines.lines().last().unwrap_or_default().trim();
                let said = said.strip_prefix("error: ").unwrap_or(said);
                exec_err!("'{pattern}' is no regular expression: {said}")
            }
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

/// What is done with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Work {
    /// Whether it is found.
    Like,
    /// Its groups where it is found first, or all of it where it has none.
    Match,
    /// How often it is found.
    Count,
    /// Another text in its place: the first, or all.
    Replace { all: bool },
}

impl Work {
    fn function(self, pattern: Option<Pattern>) -> ScalarUDF {
        // With the pattern and flags, where those are not compiled.
        let own = if matches!(self, Work::Replace { .. }) { 2 } else { 1 };
        let counts = if pattern.is_some() { own..=own } else { own + 1..=own + 2 };
        let uniform = |count| TypeSignature::Uniform(count, vec![DataType::Utf8View]);
        let signature = Signature::one_of(counts.map(uniform).collect(), Volatility::Immutable);
        ScalarUDF::new_from_impl(RegexFunction { work: self, pattern, signature })
    }

    fn call(self, pattern: Pattern, args: Vec<Expr>) -> Expr {
        let function = Arc::new(self.function(Some(pattern)));
        let view = |arg| Expr::Cast(Cast::new(Box::new(arg), DataType::Utf8View));
        let args = args.into_iter().map(view).collect();
        Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RegexFunction {
    work: Work,
    pattern: Option<Pattern>,
    signature: Signature,
}

impl ScalarUDFImpl for RegexFunction {
    fn name(&self) -> &str {
        match self.work {
            // Under a name of its own: with a compiled pattern it can't fail.
            Work::Like => "regexp_found",
            Work::Match => "regexp_match",
            Work::Count => "regexp_count",
            Work::Replace { .. } => "regexp_replace",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.work {
            Work::Like => DataType::Boolean,
            Work::Count => DataType::Int64,
            Work::Match => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)))
            }
            Work::Replace { .. } => DataType::Utf8View,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = args.args.iter().map(|arg| arg.to_array(args.number_rows));
        let arrays = arrays.collect::<Result<Vec<ArrayRef>>>()?;
        let views = arrays.iter().map(|array| as_string_view_array(array));
        let views = views.collect::<Result<Vec<&StringViewArray>>>()?;
        let Some((texts, rest)) = views.split_first() else { return exec_err!("no text is given") };
        let made = match &self.pattern {
            Some(pattern) => self.run(&mut Fixed(pattern), texts, rest)?,
            None => self.run_varying(texts, rest)?,
        };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }
}

/// Where each row's pattern comes from; `None` where it is null.
trait Patterns {
    fn of(&mut self, row: usize) -> Result<Option<&Pattern>>;
}

struct Fixed<'p>(&'p Pattern);

impl Patterns for Fixed<'_> {
    fn of(&mut self, _: usize) -> Result<Option<&Pattern>> {
        Ok(Some(self.0))
    }
}

/// Patterns from rows; the last one is kept, for rows that have the same.
struct Varying<'p> {
    patterns: &'p StringViewArray,
    flags: Option<&'p StringViewArray>,
    last: Option<(&'p str, String, Pattern)>,
}

impl Patterns for Varying<'_> {
    fn of(&mut self, row: usize) -> Result<Option<&Pattern>> {
        let flags = match self.flags {
            Some(flags) if flags.is_null(row) => return Ok(None),
            Some(flags) => flags.value(row).replace('g', ""),
            None => String::new(),
        };
        if self.patterns.is_null(row) {
            return Ok(None);
        }
        let text = self.patterns.value(row);
        let kept = self.last.take().filter(|last| last.0 == text && last.1 == flags);
        let last = match kept {
            Some(last) => last,
            None => {
                let pattern = Pattern::new(text, &flags)?;
                (text, flags, pattern)
            }
        };
        Ok(Some(&self.last.insert(last).2))
    }
}

impl RegexFunction {
    fn run_varying(&self, texts: &StringViewArray, rest: &[&StringViewArray]) -> Result<ArrayRef> {
        let Some((patterns, rest)) = rest.split_first() else { return exec_err!("no pattern") };
        let own = usize::from(matches!(self.work, Work::Replace { .. }));
        let (args, flags) = rest.split_at(own.min(rest.len()));
        let flags = flags.first().copied();
        let patterns = &mut Varying { patterns, flags, last: None };
        match (self.work, flags) {
            // Rows can say themselves whether all is replaced.
            (Work::Replace { .. }, Some(flags)) => {
                let all = |row: usize| flags.is_valid(row) && flags.value(row).contains('g');
                replace(patterns, texts, args, all)
            }
            _ => self.run(patterns, texts, args),
        }
    }

    fn run(
        &self,
        patterns: &mut impl Patterns,
        texts: &StringViewArray,
        args: &[&StringViewArray],
    ) -> Result<ArrayRef> {
        match self.work {
            Work::Like => found(patterns, texts),
            Work::Match => groups(patterns, texts),
            Work::Count => count(patterns, texts),
            Work::Replace { all } => replace(patterns, texts, args, |_| all),
        }
    }
}

fn found(patterns: &mut impl Patterns, texts: &StringViewArray) -> Result<ArrayRef> {
    let rows = texts.iter().enumerate().map(|(row, text)| {
        let pattern = patterns.of(row)?;
        Ok(pattern.zip(text).map(|(pattern, text)| pattern.0.is_match(text)))
    });
    Ok(Arc::new(rows.collect::<Result<BooleanArray>>()?))
}

fn count(patterns: &mut impl Patterns, texts: &StringViewArray) -> Result<ArrayRef> {
    let rows = texts.iter().enumerate().map(|(row, text)| {
        let found = patterns.of(row)?.zip(text);
        let count = found.map(|(pattern, text)| pattern.0.find_iter(text).count());
        Ok(count.and_then(|count| i64::try_from(count).ok()))
    });
    Ok(Arc::new(rows.collect::<Result<Int64Array>>()?))
}

fn groups(patterns: &mut impl Patterns, texts: &StringViewArray) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    for (row, text) in texts.iter().enumerate() {
        let found = patterns.of(row)?.zip(text);
        let Some(captures) = found.and_then(|(pattern, text)| pattern.0.captures(text)) else {
            lists.append_null();
            continue;
        };
        // A group that took no part is null, so that the others keep their places.
        let first = usize::from(captures.len() > 1);
        for group in captures.iter().skip(first) {
            lists.values().append_option(group.map(|group| group.as_str()));
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

fn replace(
    patterns: &mut impl Patterns,
    texts: &StringViewArray,
    args: &[&StringViewArray],
    all: impl Fn(usize) -> bool,
) -> Result<ArrayRef> {
    let [replacements] = args else { return exec_err!("regexp_replace wants a replacement") };
    let mut made = StringViewBuilder::with_capacity(texts.len());
    let mut bytes = 0;
    let mut replacement = Replacement::default();
    for (row, text) in texts.iter().enumerate() {
        let found = patterns.of(row)?.zip(text);
        let (Some((pattern, text)), true) = (found, replacements.is_valid(row)) else {
            made.append_null();
            continue;
        };
        let with = replacement.of(replacements.value(row));
        let count = if all(row) { usize::MAX } else { 1 };
        let text = replaced(&pattern.0, text, with, count, RESULT_BYTES_MAX - bytes)?;
        bytes += text.len() as u64;
        made.try_append_value(text)?;
    }
    Ok(Arc::new(made.finish()))
}

/// The replacement as the regex crate writes it: `\1` is `${1}`. The last one is kept.
#[derive(Default)]
struct Replacement {
    text: String,
    expanded: String,
}

impl Replacement {
    fn of(&mut self, text: &str) -> &str {
        if self.text == text {
            return &self.expanded;
        }
        self.text = text.to_owned();
        self.expanded.clear();
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            let (before, after) = rest.split_at(at);
            self.expanded.push_str(before);
            // One backslash, or two where the query's text was escaped on its way.
            let number = after.trim_start_matches('\\');
            let slashes = after.len() - number.len();
            let digits =
                number.len() - number.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits > 0 && slashes <= 2 {
                self.expanded.extend(["${", &number[..digits], "}"]);
                rest = &number[digits..];
            } else {
                self.expanded.push_str(&after[..slashes]);
                rest = number;
            }
        }
        self.expanded.push_str(rest);
        &self.expanded
    }
}

/// The text with up to `count` matches replaced; an error where that may have more than `room`
/// bytes.
fn replaced(regex: &Regex, text: &str, with: &str, count: usize, room: u64) -> Result<String> {
    let groups = with.matches('$').count();
    let mut made = String::new();
    let mut end = 0;
    let fits = |made: &String, more: usize| made.len().saturating_add(more) as u64 <= room;
    let mut put = |whole: Match<'_>, expand: &dyn Fn(&mut String)| {
        let kept = &text[end..whole.start()];
        // Asked before, as each group may be as long as the match.
        let more = kept.len() + with.len() + whole.len().saturating_mul(groups);
        if !fits(&made, more) {
            return exec_err!("regexp_replace would make more than {RESULT_BYTES_MAX} bytes");
        }
        made.push_str(kept);
        expand(&mut made);
        end = whole.end();
        Ok(())
    };
    if groups == 0 {
        // To find where groups are takes several times as long.
        for whole in regex.find_iter(text).take(count) {
            put(whole, &|made| made.push_str(with))?;
        }
    } else {
        for found in regex.captures_iter(text).take(count) {
            let Some(whole) = found.get(0) else { continue };
            put(whole, &|made| found.expand(with, made))?;
        }
    }
    let kept = &text[end..];
    if !fits(&made, kept.len()) {
        return exec_err!("regexp_replace would make more than {RESULT_BYTES_MAX} bytes");
    }
    made.push_str(kept);
    Ok(made)
}
