//! SQL that a person wrote, looked at word by word: whether it may stand in parentheses inside of
//! ours, and what of it would make pages wrong.

use std::iter;

use crate::{Error, Result, identifier};

/// A name between a message's other words: in quotes if it could be mistaken for them.
pub(super) fn told(name: &str) -> String {
    let is_plain = name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    if is_plain && !name.is_empty() { name.to_owned() } else { identifier(name) }
}

/// One token, without what SQLite passes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A keyword, or a name without quotes.
    Word(&'a str),
    /// A name, with its quotes.
    Name(&'a str),
    /// `?`, `:name`, `@name`, `$name`.
    Parameter,
    /// Any other character, or a literal's first one.
    Other(u8),
}

/// A token and where it ends.
type Placed<'a> = (Token<'a>, usize);

/// The tokens of a text.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token.
    ///
    /// # Errors
    ///
    /// The quote or comment that is not closed.
    fn next(&mut self) -> Result<Option<Placed<'a>>, &'static str> {
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let token = match rest {
                [] => return Ok(None),
                [b' ' | b'\t' | b'\n' | b'\r' | b'\x0c', ..] => {
                    self.at += 1;
                    continue;
                }
                [b'-', b'-', ..] => {
                    self.at += memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                    continue;
                }
                [b'/', b'*', ..] => {
                    let closed = memchr::memmem::find(&rest[2..], b"*/").ok_or("/*")?;
                    self.at += closed + 4;
                    continue;
                }
                [b'\'', ..] => self.literal(b'\'')?,
                [b'"', ..] => Token::Name(self.quoted(b'"').ok_or("\"")?),
                [b'`', ..] => Token::Name(self.quoted(b'`').ok_or("`")?),
                [b'[', ..] => Token::Name(self.quoted(b']').ok_or("[")?),
                [b'?' | b':' | b'@' | b'$' | b'#', ..] => {
                    self.at += 1;
                    self.word();
                    Token::Parameter
                }
                [byte, ..] if is_word(*byte) => match self.word() {
                    number if number.starts_with(|first: char| first.is_ascii_digit()) => {
                        Token::Other(b'0')
                    }
                    word => Token::Word(word),
                },
                [byte, ..] => {
                    self.at += 1;
                    Token::Other(*byte)
                }
            };
            return Ok(Some((token, self.at)));
        }
    }

    fn literal(&mut self, quote: u8) -> Result<Token<'a>, &'static str> {
        self.quoted(quote).map(|_| Token::Other(quote)).ok_or("'")
    }

    /// Up to the closing quote; a doubled one stands for itself.
    fn quoted(&mut self, close: u8) -> Option<&'a str> {
        let from = self.at;
        let mut at = from + 1;
        loop {
            at += memchr::memchr(close, self.text.as_bytes().get(at..)?)? + 1;
            if close == b']' || self.text.as_bytes().get(at) != Some(&close) {
                self.at = at;
                return self.text.get(from..at);
            }
            at += 1;
        }
    }

    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte == b'$' || byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

fn is_keyword(token: Token<'_>, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
}

/// The name that a token is.
fn name_of(token: Token<'_>) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.to_owned()),
        Token::Name(quoted) => {
            let inner = quoted.get(1..quoted.len().checked_sub(1)?)?;
            Some(match quoted.as_bytes().first() {
                Some(b'"') => inner.replace("\"\"", "\""),
                Some(b'`') => inner.replace("``", "`"),
                _ => inner.to_owned(),
            })
        }
        _ => None,
    }
}

/// Tokens that are in no parentheses are told apart from those that are.
struct Outline<'a> {
    /// Those in none, and what opens them.
    outer: Vec<Token<'a>>,
    /// Where the last token ends that is no semicolon at the end.
    end: usize,
}

/// Reads a text that will stand in parentheses; `field` is the setting it came from.
fn outline<'a>(field: &str, text: &'a str) -> Result<Outline<'a>> {
    let mut outline = Outline { outer: Vec::new(), end: 0 };
    let mut depth = 0_usize;
    let mut is_over = false;
    let mut tokens = Tokens::new(text);
    let unclosed =
        |open| Error::refused(format!("{field}: {open} is opened and not closed; close it"));
    while let Some((token, end)) = tokens.next().map_err(unclosed)? {
        if token == Token::Other(b';') {
            is_over = true;
            continue;
        }
        if is_over {
            return Err(Error::refused(format!(
                "{field}: has a second statement behind a `;`: give one"
            )));
        }
        if depth == 0 && token != Token::Other(b')') {
            outline.outer.push(token);
        }
        match token {
            Token::Parameter => {
                return Err(Error::refused(format!(
                    "{field}: has a parameter, to which nothing is bound: write the value"
                )));
            }
            Token::Other(b'(') => depth += 1,
            Token::Other(b')') => {
                depth = depth.checked_sub(1).ok_or_else(|| {
                    Error::refused(format!("{field}: has a `)` that closes nothing"))
                })?;
            }
            _ => {}
        }
        outline.end = end;
    }
    if depth > 0 {
        return Err(unclosed("a `(`"));
    }
    Ok(outline)
}

/// A condition that may stand in parentheses.
pub(super) fn condition<'a>(field: &str, text: &'a str) -> Result<&'a str> {
    match outline(field, text)?.end {
        0 => Err(Error::refused(format!("{field}: is empty: leave it out, or give a condition"))),
        end => Ok(&text[..end]),
    }
}

/// One `SELECT`, which may stand in parentheses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    /// Its text without a semicolon.
    pub(super) text: &'a str,
    /// The columns it orders its rows by: `Err` where those are expressions or descend.
    pub(super) order: Option<Result<Vec<String>, ()>>,
    /// Whether it gives all rows of what it reads, as far as its outermost words say.
    pub(super) is_whole: bool,
}

impl<'a> Query<'a> {
    /// Looks at a text.
    pub(super) fn new(text: &'a str) -> Result<Self> {
        let Outline { outer, end } = outline("query", text)?;
        let begins = |keyword| outer.first().is_some_and(|first| is_keyword(*first, keyword));
        if !["SELECT", "WITH", "VALUES"].into_iter().any(begins) {
            return Err(Error::refused("query: is no SELECT; only what reads rows can be read"));
        }
        let has = |keyword| outer.iter().any(|token| is_keyword(*token, keyword));
        if has("LIMIT") {
            return Err(Error::refused(
                "query: has a LIMIT, which each page would count anew: leave it out, or give \
                 a condition on the key",
            ));
        }
        let narrows = ["WHERE", "GROUP", "HAVING", "DISTINCT"];
        Ok(Self {
            text: &text[..end],
            order: order(&outer),
            is_whole: !narrows.into_iter().any(has),
        })
    }
}

/// What is ordered by in the outermost `ORDER BY`.
fn order(outer: &[Token<'_>]) -> Option<Result<Vec<String>, ()>> {
    let at = outer.iter().rposition(|token| is_keyword(*token, "ORDER"))?;
    let terms = outer.get(at + 2..).unwrap_or_default();
    let column = |term: &[Token<'_>]| {
        let term = match term {
            [term @ .., last] if is_keyword(*last, "ASC") => term,
            term => term,
        };
        match term {
            [name] | [_, Token::Other(b'.'), name] => name_of(*name),
            _ => None,
        }
    };
    let terms = terms.split(|token| *token == Token::Other(b','));
    Some(terms.map(column).collect::<Option<Vec<_>>>().ok_or(()))
}

/// A table's name and its schema's, if one is said: `events`, `main.events`, `"odd.name"`.
pub(super) fn table_name(text: &str) -> Result<(Option<String>, String)> {
    let mut tokens = Tokens::new(text);
    let parts = iter::from_fn(|| tokens.next().transpose()).map(|token| token.map(|(it, _)| it));
    let parts: Vec<_> = parts.collect::<Result<_, _>>().unwrap_or_default();
    let named = match parts.as_slice() {
        [name] => name_of(*name).map(|name| (None, name)),
        [schema, Token::Other(b'.'), name] => {
            name_of(*schema).zip(name_of(*name)).map(|(schema, name)| (Some(schema), name))
        }
        _ => None,
    };
    named.ok_or_else(|| {
        Error::refused(format!(
            "table: `{text}` is no name: write `events`, `main.events`, or `\"odd name\"` in quotes"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T>(result: Result<T>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_could_leave_its_parentheses_is_refused() {
        for (text, reason) in [
            ("SELECT 1) UNION SELECT (2", "closes nothing"),
            ("SELECT 1; DROP TABLE t", "a second statement"),
            ("SELECT (1", "a `(` is opened"),
            ("SELECT 'a", "' is opened"),
            ("SELECT \"a", "\" is opened"),
            ("SELECT [a", "[ is opened"),
            ("SELECT 1 /* a", "/* is opened"),
            ("SELECT ?", "a parameter"),
            ("SELECT :id", "a parameter"),
            ("DELETE FROM t", "no SELECT"),
            ("EXPLAIN SELECT 1", "no SELECT"),
            ("", "no SELECT"),
            ("SELECT * FROM t LIMIT 10", "a LIMIT"),
            ("SELECT * FROM t ORDER BY id limit 10 OFFSET 2", "a LIMIT"),
        ] {
            let told = refused(Query::new(text));
            assert!(told.contains(reason), "{text}: {told}");
        }
        assert!(refused(condition("where", "a) OR (b")).contains("where: has a `)`"));
        assert!(refused(condition("where", " -- nothing")).contains("is empty"));
        assert_eq!(condition("where", "a = ';)' -- b").unwrap(), "a = ';)'");
    }

    #[test]
    fn quotes_and_comments_hide_what_is_in_them() {
        let text = "SELECT ')', \"limit\", [;], `?`, 'it''s' FROM t -- limit\n/* ; */ ;; -- end";
        let query = Query::new(text).unwrap();
        assert_eq!(query.text, "SELECT ')', \"limit\", [;], `?`, 'it''s' FROM t");
        assert!(query.is_whole && query.order.is_none());
        let inner = "SELECT * FROM (SELECT * FROM t ORDER BY a LIMIT 3) WHERE a > 1";
        let inner = Query::new(inner).unwrap();
        assert!(inner.order.is_none() && !inner.is_whole);
    }

    #[test]
    fn an_order_is_read_where_it_is_of_columns() {
        let order = |by: &str| Query::new(&format!("SELECT * FROM t ORDER BY {by}")).unwrap().order;
        let columns = |names: &[&str]| Some(Ok(names.iter().map(|&name| name.into()).collect()));
        assert_eq!(order("id"), columns(&["id"]));
        assert_eq!(order("t.\"a\"\"b\" ASC, b;"), columns(&["a\"b", "b"]));
        for other in ["id DESC", "1", "lower(a)", "a COLLATE NOCASE", "a NULLS LAST"] {
            assert_eq!(order(other), Some(Err(())), "{other}");
        }
    }

    #[test]
    fn tables_are_named_with_a_schema_or_without() {
        let named = |text| table_name(text).unwrap();
        assert_eq!(named("events"), (None, "events".into()));
        assert_eq!(named(" main . \"a.b\""), (Some("main".into()), "a.b".into()));
        assert_eq!(named("[odd name]"), (None, "odd name".into()));
        for odd in ["", "a b", "a.b.c", "a; b", "'a'", "\"a", "a."] {
            assert!(refused(table_name(odd)).contains("is no name"), "{odd}");
        }
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!((told("a_1"), told("a b")), ("a_1".into(), "\"a b\"".into()));
    }
}
