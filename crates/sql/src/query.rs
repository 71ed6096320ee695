//! The shape of a query: one `SELECT … FROM input WHERE …`. Every other clause is refused by name,
//! with what to do instead.

use datafusion_sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, SelectFlavor, SelectItem, SetExpr, Statement, TableFactor,
};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use crate::refusal::{Refusal, tidy};

/// The one table there is.
pub(crate) const INPUT: &str = "input";

/// Longer queries are refused: planning and working out both recurse.
const WORDS_MAX: usize = 4096;

/// A query of the right shape; its names and types are not looked at yet.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// What columns are qualified with: `input`, or its alias.
    pub(crate) table: String,
    /// What is selected.
    pub(crate) items: Vec<SelectItem>,
    /// The conditions between the `AND`s of WHERE, in the order in which they were written.
    pub(crate) conditions: Vec<Expr>,
}

impl Query {
    /// Parses a query and looks at its clauses.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let tokens = tokens(text)?;
        let words = Words(&tokens);
        words.are_few()?;
        let statement = words.statement()?;
        let Statement::Query(query) = statement else {
            let first = words.first();
            let said = format!("only SELECT is possible, not {}", first.token);
            return Err(Refusal::at(first.span, said).help("write `SELECT … FROM input WHERE …`"));
        };
        words.refuse_around(&query)?;
        let select = match *query.body {
            SetExpr::Select(select) => *select,
            SetExpr::SetOperation { op, .. } => {
                let said = format!("`{op}` is not possible: rows come from `input` alone");
                let help = "name several in `inputs` instead, and their rows come as one stream";
                return Err(Refusal::at(words.operator(op), said).help(help));
            }
            _ => {
                let said = "a query is one SELECT, without brackets around it";
                return Err(Refusal::at(words.first().span, said)
                    .help("write `SELECT … FROM input WHERE …`"));
            }
        };
        words.refuse_within(&select)?;
        let table = words.table(&select.from)?;
        let mut conditions = Vec::new();
        if let Some(condition) = select.selection {
            split(condition, &mut conditions);
        }
        Ok(Self { table, items: select.projection, conditions })
    }
}

fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, Refusal> {
    let all = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location();
    let all = all.map_err(|error| {
        let at = Span::new(error.location, error.location);
        Refusal::at(at, tidy(&error.message)).help("text stands between single quotes: 'text'")
    })?;
    let blank = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    Ok(all.into_iter().filter(|token| !blank(token)).collect())
}

/// Conditions joined by AND, brackets around them taken off. AND chains are as deep as they are
/// long, so this does not recurse into the left.
fn split(condition: Expr, conditions: &mut Vec<Expr>) {
    let mut open = vec![condition];
    while let Some(condition) = open.pop() {
        match condition {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                open.push(*right);
                open.push(*left);
            }
            Expr::Nested(inner) if is_and(&inner) => open.push(*inner),
            other => conditions.push(other),
        }
    }
}

fn is_and(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::And, .. })
}

/// The words of a query, to point at them.
struct Words<'t>(&'t [TokenWithSpan]);

type Clause = (bool, Keyword, &'static str, &'static str);

const ROW_BY_ROW: &str = ": rows are worked on one by one, as they come";
const ONE_TABLE: &str = ": rows come from `input` alone";
const NO_ORDER: &str = "leave it out: rows keep the order in which they came";
const NO_AGGREGATES: &str = "leave it out, and aggregate where the rows arrive";
const NO_END: &str = "leave it out; to slow a stream down, put a `rate_limit` after it";
const PLAIN: &str = "a query is `SELECT … FROM input WHERE …`";

impl Words<'_> {
    fn first(&self) -> TokenWithSpan {
        self.0.first().cloned().unwrap_or_else(|| TokenWithSpan::wrap(Token::EOF))
    }

    fn are_few(&self) -> Result<(), Refusal> {
        let written = |token: &&TokenWithSpan| !matches!(token.token, Token::SemiColon);
        if self.0.iter().find(written).is_none() {
            return Err(Refusal::everywhere("there is no query")
                .help("write `SELECT … FROM input WHERE …`"));
        }
        match self.0.get(WORDS_MAX) {
            None => Ok(()),
            Some(word) => {
                let count = self.0.len();
                let said = format!("the query has {count} words, at most {WORDS_MAX} are possible");
                Err(Refusal::at(word.span, said).help("split it into several transforms"))
            }
        }
    }

    fn statement(&self) -> Result<Statement, Refusal> {
        let parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(self.0.to_vec());
        let mut statements = { parser }.parse_statements().map_err(|error| self.syntax(error))?;
        let (Some(statement), false) = (statements.pop(), !statements.is_empty()) else {
            let end = self.0.iter().position(|token| token.token == Token::SemiColon);
            let second = end.and_then(|end| self.0.get(end + 1));
            let at = second.map_or(Span::empty(), |word| word.span);
            return Err(Refusal::at(at, "there are several statements, one is possible")
                .help("make a transform of each"));
        };
        Ok(statement)
    }

    fn syntax(&self, error: ParserError) -> Refusal {
        let (ParserError::TokenizerError(said) | ParserError::ParserError(said)) = error else {
            return Refusal::everywhere("the query is nested too deeply")
                .help("take brackets off, or split it into several transforms");
        };
        let (message, at) = match said.rsplit_once(" at Line: ") {
            Some((message, place)) => (message, place.split_once(", Column: ")),
            None => (&*said, None),
        };
        let place = at.and_then(|(line, column)| {
            Some(Location::new(line.parse().ok()?, column.parse().ok()?))
        });
        // As wide as the word that is there.
        let word = place.and_then(|at| self.0.iter().find(|word| word.span.start == at));
        let span = match (word, place) {
            (Some(word), _) => word.span,
            (None, Some(at)) => Span::new(at, at),
            (None, None) => self.0.last().map_or(Span::empty(), |word| word.span),
        };
        Refusal::at(span, tidy(&message.replace("EOF", "the end"))).help(PLAIN)
    }

    /// The last place outside of brackets where a keyword stands.
    fn keyword(&self, keyword: Keyword) -> Span {
        let mut depth = 0_i32;
        let mut found = Span::empty();
        for TokenWithSpan { token, span } in self.0 {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                Token::Word(word) if word.keyword == keyword && depth == 0 => found = *span,
                _ => {}
            }
        }
        found
    }

    fn operator(&self, op: ast::SetOperator) -> Span {
        self.keyword(match op {
            ast::SetOperator::Union => Keyword::UNION,
            ast::SetOperator::Except => Keyword::EXCEPT,
            ast::SetOperator::Intersect => Keyword::INTERSECT,
            ast::SetOperator::Minus => Keyword::MINUS,
        })
    }

    fn refuse(&self, why: &str, clauses: &[Clause]) -> Result<(), Refusal> {
        let Some((_, keyword, name, help)) = clauses.iter().find(|clause| clause.0) else {
            return Ok(());
        };
        let said = format!("`{name}` is not possible{why}");
        Err(Refusal::at(self.keyword(*keyword), said).help(*help))
    }

    fn refuse_around(&self, query: &ast::Query) -> Result<(), Refusal> {
        const NO_WITH: &str = "make the inner query a transform, and name that in `inputs`";
        let limited = query.limit_clause.is_some();
        let offset = self.keyword(Keyword::LIMIT) == Span::empty();
        self.refuse(ONE_TABLE, &[(query.with.is_some(), Keyword::WITH, "WITH", NO_WITH)])?;
        self.refuse(
            ROW_BY_ROW,
            &[
                (query.order_by.is_some(), Keyword::ORDER, "ORDER BY", NO_ORDER),
                (limited && offset, Keyword::OFFSET, "OFFSET", NO_END),
                (limited, Keyword::LIMIT, "LIMIT", NO_END),
                (query.fetch.is_some(), Keyword::FETCH, "FETCH", NO_END),
            ],
        )?;
        self.refuse(
            "",
            &[
                (!query.locks.is_empty(), Keyword::FOR, "FOR UPDATE", PLAIN),
                (query.for_clause.is_some(), Keyword::FOR, "FOR", PLAIN),
                (query.settings.is_some(), Keyword::SETTINGS, "SETTINGS", PLAIN),
                (query.format_clause.is_some(), Keyword::FORMAT, "FORMAT", PLAIN),
                (!query.pipe_operators.is_empty(), Keyword::NoKeyword, "|>", PLAIN),
            ],
        )
    }

    fn refuse_within(&self, select: &ast::Select) -> Result<(), Refusal> {
        const NO_JOIN: &str = "leave it out, and join where the rows arrive";
        const NO_DISTINCT: &str = "leave it out, and remove doubles where the rows arrive";
        let grouped = match &select.group_by {
            ast::GroupByExpr::All(_) => true,
            ast::GroupByExpr::Expressions(by, with) => !by.is_empty() || !with.is_empty(),
        };
        let joined = select.from.iter().any(|from| !from.joins.is_empty());
        let from_first = select.flavor != SelectFlavor::Standard;
        self.refuse(ONE_TABLE, &[(joined, Keyword::JOIN, "JOIN", NO_JOIN)])?;
        self.refuse(
            ROW_BY_ROW,
            &[
                (select.distinct.is_some(), Keyword::DISTINCT, "DISTINCT", NO_DISTINCT),
                (grouped, Keyword::GROUP, "GROUP BY", NO_AGGREGATES),
                (select.having.is_some(), Keyword::HAVING, "HAVING", NO_AGGREGATES),
                (!select.named_window.is_empty(), Keyword::WINDOW, "WINDOW", NO_AGGREGATES),
                (select.qualify.is_some(), Keyword::QUALIFY, "QUALIFY", NO_AGGREGATES),
                (select.top.is_some(), Keyword::TOP, "TOP", NO_END),
                (!select.sort_by.is_empty(), Keyword::SORT, "SORT BY", NO_ORDER),
                (!select.cluster_by.is_empty(), Keyword::CLUSTER, "CLUSTER BY", NO_ORDER),
                (!select.distribute_by.is_empty(), Keyword::DISTRIBUTE, "DISTRIBUTE BY", NO_ORDER),
            ],
        )?;
        self.refuse(
            "",
            &[
                (from_first, Keyword::FROM, "FROM before SELECT", PLAIN),
                (select.into.is_some(), Keyword::INTO, "INTO", "name it in a sink's `inputs`"),
                (select.exclude.is_some(), Keyword::EXCLUDE, "EXCLUDE", "write it right after `*`"),
                (select.prewhere.is_some(), Keyword::PREWHERE, "PREWHERE", "write it after WHERE"),
                (!select.connect_by.is_empty(), Keyword::CONNECT, "CONNECT BY", PLAIN),
                (!select.lateral_views.is_empty(), Keyword::LATERAL, "LATERAL VIEW", PLAIN),
                (select.value_table_mode.is_some(), Keyword::AS, "SELECT AS", PLAIN),
                (select.select_modifiers.is_some(), Keyword::SELECT, "such a SELECT", PLAIN),
            ],
        )
    }

    /// The name that columns are qualified with.
    fn table(&self, from: &[ast::TableWithJoins]) -> Result<String, Refusal> {
        let end = self.0.last().map_or(Span::empty(), |word| word.span);
        let [table] = from else {
            let (at, said) = match from {
                [] => (end, "FROM is missing"),
                _ => (self.keyword(Keyword::FROM), "there are several tables, one is possible"),
            };
            return Err(Refusal::at(at, said).help("write `FROM input`"));
        };
        let at = self.keyword(Keyword::FROM);
        match &table.relation {
            TableFactor::Table { name, alias, args: None, sample: None, version: None, .. } => {
                let ident = match &*name.0 {
                    [ast::ObjectNamePart::Identifier(ident)] => Some(ident),
                    _ => None,
                };
                if ident.is_none_or(|ident| normal(ident) != INPUT) {
                    let span = ident.map_or(at, |ident| ident.span);
                    return Err(Refusal::at(span, format!("there is no table `{name}`"))
                        .help("write `FROM input`: the rows of all that `inputs` names"));
                }
                if let Some(alias) = alias.as_ref().filter(|alias| !alias.columns.is_empty()) {
                    return Err(Refusal::at(alias.name.span, "columns can't be renamed here")
                        .help("rename them in SELECT, with `AS`"));
                }
                let named = alias.as_ref().map(|alias| normal(&alias.name));
                Ok(named.unwrap_or_else(|| INPUT.to_owned()))
            }
            TableFactor::Derived { .. } => Err(Refusal::at(at, "a sub-query is not possible here")
                .help("make the inner query a transform, and name that in `inputs`")),
            _ => Err(Refusal::at(at, "rows come from `input` alone").help("write `FROM input`")),
        }
    }
}

/// The name of a column that was given none: the column's, the key's, else the text of it.
pub(crate) fn name_of(expr: &Expr) -> String {
    let key = |expr: &Expr| match expr {
        Expr::Value(value) => value.clone().into_string(),
        _ => None,
    };
    match expr {
        Expr::Identifier(ident) => normal(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map_or_else(String::new, normal),
        Expr::Nested(inner) => name_of(inner),
        Expr::Cast { expr: inner, .. } => name_of(inner),
        Expr::CompoundFieldAccess { access_chain, .. } => match access_chain.last() {
            Some(ast::AccessExpr::Dot(Expr::Identifier(ident))) => normal(ident),
            Some(ast::AccessExpr::Subscript(ast::Subscript::Index { index })) => {
                key(index).unwrap_or_else(|| expr.to_string())
            }
            _ => expr.to_string(),
        },
        _ => expr.to_string(),
    }
}

/// A name as it is looked up: in lower case, where it stands without double quotes.
pub(crate) fn normal(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}
