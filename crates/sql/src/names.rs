//! The names in a query: which columns it reads, and what it may mean where there is none of that
//! name.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments,
    Ident, Spanned, Value, Visit, Visitor,
};

use crate::functions;
use crate::query::normal;
use crate::refusal::Refusal;

/// Expressions may be nested this deep: evaluating recurses, on a stack of 2 MiB.
const DEPTH_MAX: usize = 96;

/// How alike a name must be to be suggested; 1 is the same.
const ALIKE_MIN: f64 = 0.55;

/// What the names of a query can mean.
pub(crate) struct Names<'a> {
    /// What columns are qualified with.
    pub(crate) table: &'a str,
    /// The columns that can be seen.
    pub(crate) columns: Vec<&'a str>,
    /// The names that the SELECT gives, which WHERE can't see.
    pub(crate) given: Vec<String>,
}

impl Names<'_> {
    /// Looks at all names of an expression and adds the columns among them.
    pub(crate) fn look_up(&self, expr: &Expr, used: &mut BTreeSet<usize>) -> Result<(), Refusal> {
        let mut visit = Walk { names: self, used, depth: 0 };
        match expr.visit(&mut visit) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(refusal) => Err(refusal),
        }
    }

    /// The index of a column.
    pub(crate) fn column(&self, ident: &Ident) -> Result<usize, Refusal> {
        let name = normal(ident);
        let found = self.columns.iter().position(|column| *column == name);
        found.ok_or_else(|| self.no_column(ident, &name))
    }

    fn no_column(&self, ident: &Ident, name: &str) -> Refusal {
        let refusal = Refusal::at(ident.span, format!("there is no column `{name}`"));
        if self.given.iter().any(|given| given == name) {
            return refusal.help(
                "WHERE sees the input's columns, not what this SELECT makes: \
                                 write the expression again, or filter in a second transform",
            );
        }
        if ident.quote_style == Some('"') && alike(name, self.columns.iter().copied()).is_none() {
            return refusal.help(format!(
                "text stands between single quotes: '{name}'; double quotes are for names"
            ));
        }
        let mut folded = self.columns.iter().filter(|c| c.eq_ignore_ascii_case(name));
        if let Some(column) = folded.next() {
            return refusal.help(format!(
                "write \"{column}\": without double quotes, a name is in lower case"
            ));
        }
        match alike(name, self.columns.iter().copied()) {
            Some(column) => refusal.help(format!("did you mean `{column}`?")),
            None => refusal.help(format!("the input's columns are {}", listed(&self.columns))),
        }
    }
}

/// At most a dozen names, for people.
fn listed(names: &[&str]) -> String {
    const NAMES_MAX: usize = 12;
    let shown: Vec<String> = names.iter().take(NAMES_MAX).map(|n| format!("`{n}`")).collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    let and = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &and
}

/// The name that is most alike, where one is.
pub(crate) fn alike<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let rated = names.map(|other| (strsim::normalized_damerau_levenshtein(name, other), other));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= ALIKE_MIN).map(|(_, other)| other)
}

struct Walk<'v> {
    names: &'v Names<'v>,
    used: &'v mut BTreeSet<usize>,
    depth: usize,
}

impl Visitor for Walk<'_> {
    type Break = Refusal;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Refusal> {
        self.depth += 1;
        let fine = self.enter(expr);
        fine.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<Refusal> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

impl Walk<'_> {
    fn enter(&mut self, expr: &Expr) -> Result<(), Refusal> {
        if self.depth > DEPTH_MAX {
            let said = format!("the expression is more than {DEPTH_MAX} levels deep");
            return Err(Refusal::everywhere(said)
                .help("write `IN (…)` or a regular expression for many ORs, or split the query"));
        }
        match expr {
            Expr::Identifier(ident) => {
                self.used.insert(self.names.column(ident)?);
                Ok(())
            }
            Expr::CompoundIdentifier(parts) => self.compound(parts),
            Expr::Function(function) => call(function),
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                Err(Refusal::at(expr.span(), "a sub-query is not possible here")
                    .help("make the inner query a transform, and name that in `inputs`"))
            }
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                Err(Refusal::at(value.span, format!("there is no parameter `{}`", value.value))
                    .help("write the value itself, or `${NAME}` for an environment variable"))
            }
            Expr::SimilarTo { .. } | Expr::RLike { .. } => {
                Err(Refusal::at(expr.span(), "SIMILAR TO and RLIKE are not possible")
                    .help("write `~` and a regular expression"))
            }
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                Err(Refusal::at(expr.span(), "`*` is not a value")
                    .help("name the columns that are meant"))
            }
            _ => Ok(()),
        }
    }

    /// `input.column`, or a field of a column.
    fn compound(&mut self, parts: &[Ident]) -> Result<(), Refusal> {
        let [first, second, ..] = parts else { return Ok(()) };
        let name = normal(first);
        if name == self.names.table {
            self.used.insert(self.names.column(second)?);
        } else if let Some(column) = self.names.columns.iter().position(|c| *c == name) {
            self.used.insert(column);
        } else {
            let table = self.names.table;
            return Err(Refusal::at(first.span, format!("there is no table `{name}`"))
                .help(format!("write `{table}.{second}`, or `{second}` alone")));
        }
        Ok(())
    }
}

fn is_star(arg: &FunctionArg) -> bool {
    let (FunctionArg::Unnamed(arg)
    | FunctionArg::Named { arg, .. }
    | FunctionArg::ExprNamed { arg, .. }) = arg;
    !matches!(arg, FunctionArgExpr::Expr(_))
}

fn call(function: &Function) -> Result<(), Refusal> {
    let at = function.span();
    let [ast::ObjectNamePart::Identifier(ident)] = &*function.name.0 else {
        let said = format!("there is no function `{}`", function.name);
        return Err(Refusal::at(function.name.span(), said)
            .help("functions have plain names, without a schema"));
    };
    let name = normal(ident);
    if function.over.is_some() {
        return Err(Refusal::at(
            at,
            "a window (`OVER`) is not possible: rows are worked on one \
                                    by one, as they come",
        )
        .help("leave it out, and work it out where the rows arrive"));
    }
    functions::find(&name).map_err(|refusal| refusal.placed(ident.span))?;
    let starred = match &function.args {
        FunctionArguments::List(list) => list.args.iter().any(is_star),
        _ => false,
    };
    if starred {
        return Err(Refusal::at(at, "`*` is not a value").help("name the columns that are meant"));
    }
    let extra = match &function.args {
        FunctionArguments::None => false,
        FunctionArguments::Subquery(_) => true,
        FunctionArguments::List(list) => {
            let aggregate = |clause: &FunctionArgumentClause| {
                !matches!(clause, FunctionArgumentClause::IgnoreOrRespectNulls(_))
            };
            list.duplicate_treatment.is_some() || list.clauses.iter().any(aggregate)
        }
    };
    let aggregates = function.filter.is_some() || !function.within_group.is_empty();
    if extra || aggregates || function.null_treatment.is_some() {
        return Err(Refusal::at(at, format!("`{name}` takes plain arguments only"))
            .help("leave out DISTINCT, FILTER, ORDER BY and the like"));
    }
    Ok(())
}
