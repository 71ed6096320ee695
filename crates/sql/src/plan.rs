//! A query fitted to the columns of its input: what it needs, what it keeps, what it makes.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, Result as DataResult};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Literal;
use datafusion_physical_expr::utils::collect_columns;
use datafusion_sql::sqlparser::ast::{
    self, ExceptSelectItem, ExcludeSelectItem, Expr, Ident, RenameSelectItem, SelectItem,
    SelectItemQualifiedWildcardKind, Spanned, WildcardAdditionalOptions,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use tidegate_model::OFFSET;

use crate::functions;
use crate::names::Names;
use crate::physical::moved;
use crate::planner::{Planned, Planner, READ_AT, read_at_type, refused};
use crate::query::{Query, name_of, normal};
use crate::refusal::Refusal;

/// A query, planned.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The columns of what it gives.
    pub(crate) schema: SchemaRef,
    /// What WHERE and SELECT read.
    pub(crate) scan: Scan,
    /// The conditions of WHERE, in the order in which they are asked.
    pub(crate) conditions: Vec<Planned>,
    /// Which of the scan's columns SELECT reads; what it makes is worked out on those.
    pub(crate) kept: Vec<usize>,
    /// The schema of the kept columns.
    pub(crate) kept_schema: SchemaRef,
    /// What SELECT gives.
    pub(crate) makes: Vec<Make>,
    /// The bytes of the constants, each of which may be copied for every row.
    pub(crate) constant_bytes: usize,
}

/// What is read of each batch.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// The input's columns by index; `None` is the read time, the same for all rows.
    pub(crate) columns: Vec<Option<usize>>,
    pub(crate) schema: SchemaRef,
}

/// A column of what a query gives.
#[derive(Clone, Debug)]
pub(crate) enum Make {
    /// A kept column as it is.
    Pass(usize),
    /// Something worked out.
    Value {
        /// Its name, for reasons.
        name: String,
        expr: Arc<dyn PhysicalExpr>,
        /// Whether it has values of any length.
        grows: bool,
    },
}

/// An item of SELECT, with `*` taken apart.
struct Item {
    name: String,
    at: Span,
    what: What,
}

enum What {
    /// A column, by its index among those that are shown.
    Column(usize),
    /// Something worked out, and the column of `*` in whose place it comes.
    Value { expr: Box<Expr>, place: Option<usize> },
}

/// Which columns of the input the query reads, in ascending order.
pub(crate) fn columns(query: &Query, input: &Schema) -> Result<Vec<usize>, Refusal> {
    let names = names(query, input);
    let mut used = BTreeSet::new();
    for item in items(query, &names, true)? {
        match item.what {
            What::Column(index) => drop(used.insert(index)),
            What::Value { expr, place } => {
                // Without it, `*` would have no such place.
                used.extend(place);
                names.look_up(&expr, &mut used)?;
            }
        }
    }
    let names = Names { given: given(query), ..names };
    for condition in &query.conditions {
        names.look_up(condition, &mut used)?;
    }
    let shown = shown(input);
    Ok(used.iter().filter_map(|index| shown.get(*index).copied()).collect())
}

/// Fits a query to rows of this schema.
pub(crate) fn plan(query: &Query, input: &Schema) -> Result<Plan, Refusal> {
    // Names first: what they mean is said better here than by DataFusion.
    let names = names(query, input);
    let items = items(query, &names, false)?;
    let where_names = Names { given: given(query), ..self::names(query, input) };
    let mut used = BTreeSet::new();
    for condition in &query.conditions {
        where_names.look_up(condition, &mut used)?;
    }
    for item in &items {
        if let What::Value { expr, .. } = &item.what {
            names.look_up(expr, &mut used)?;
        }
    }
    let planner = input.project(&shown(input)).map_err(DataFusionError::from);
    let planner = planner.and_then(|visible| Planner::new(&query.table, &visible));
    let planner = planner.map_err(|error| refused(Span::empty(), &error))?;
    let mut draft =
        Draft { planner, conditions: Vec::new(), fields: Vec::new(), makes: Vec::new() };
    for condition in &query.conditions {
        draft.condition(condition)?;
    }
    for item in items {
        draft.item(item)?;
    }
    let offset = input.fields().iter().position(|field| field.name() == OFFSET);
    draft.finish(input, offset).map_err(|error| refused(Span::empty(), &error))
}

impl Plan {
    /// The same for another thread.
    pub(crate) fn unshared(&self) -> DataResult<Plan> {
        let mut plan = self.clone();
        for condition in &mut plan.conditions {
            condition.expr = functions::unshared(&condition.expr, &plan.scan.schema)?;
        }
        for make in &mut plan.makes {
            if let Make::Value { expr, .. } = make {
                *expr = functions::unshared(expr, &plan.kept_schema)?;
            }
        }
        Ok(plan)
    }
}

/// The input's columns but the hidden one, by index.
fn shown(input: &Schema) -> Vec<usize> {
    let fields = input.fields().iter().enumerate();
    fields.filter(|(_, field)| field.name() != OFFSET).map(|(index, _)| index).collect()
}

fn names<'a>(query: &'a Query, input: &'a Schema) -> Names<'a> {
    let columns = shown(input).into_iter().map(|index| input.field(index).name().as_str());
    let columns = columns.collect();
    Names { table: &query.table, columns, given: Vec::new() }
}

/// The names that SELECT gives to what it makes.
fn given(query: &Query) -> Vec<String> {
    let aliases = query.items.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(normal(alias)),
        _ => None,
    });
    aliases.collect()
}

/// The items of SELECT, each with a name of its own. When the input is whole, all names that `*`
/// leaves out must be there; later, what nobody reads may be missing.
fn items(query: &Query, names: &Names<'_>, whole: bool) -> Result<Vec<Item>, Refusal> {
    let mut items = Vec::new();
    for item in &query.items {
        match item {
            SelectItem::UnnamedExpr(expr) => items.push(value(expr, name_of(expr), expr.span())),
            SelectItem::ExprWithAlias { expr, alias } => {
                items.push(value(expr, normal(alias), alias.span));
            }
            SelectItem::ExprWithAliases { expr, .. } => {
                return Err(Refusal::at(expr.span(), "a column has one name")
                    .help("write one name after `AS`"));
            }
            SelectItem::Wildcard(options) => items.extend(star(options, names, whole)?),
            SelectItem::QualifiedWildcard(kind, options) => {
                let SelectItemQualifiedWildcardKind::ObjectName(table) = kind else {
                    return Err(
                        Refusal::at(item.span(), "`.*` wants a table before it").help("write `*`")
                    );
                };
                if table.to_string().to_lowercase() != names.table {
                    let said = format!("there is no table `{table}`");
                    let help = format!("write `{}.*`, or `*`", names.table);
                    return Err(Refusal::at(table.span(), said).help(help));
                }
                items.extend(star(options, names, whole)?);
            }
        }
    }
    let items: Vec<Item> =
        items.into_iter().map(|item| column(item, names)).collect::<Result<_, _>>()?;
    distinct(&items)?;
    Ok(items)
}

fn value(expr: &Expr, name: String, at: Span) -> Item {
    Item { name, at, what: What::Value { expr: Box::new(expr.clone()), place: None } }
}

/// A plain column is passed on, not worked out.
fn column(item: Item, names: &Names<'_>) -> Result<Item, Refusal> {
    let What::Value { expr, place: None } = &item.what else { return Ok(item) };
    let ident = match &**expr {
        Expr::Identifier(ident) => ident,
        Expr::CompoundIdentifier(parts) => match &**parts {
            [table, ident] if normal(table) == names.table => ident,
            _ => return Ok(item),
        },
        _ => return Ok(item),
    };
    let index = names.column(ident)?;
    Ok(Item { what: What::Column(index), ..item })
}

fn distinct(items: &[Item]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for item in items {
        let name = &item.name;
        if name == OFFSET {
            let said =
                format!("the name `{OFFSET}` is taken: it says where in its source a row is");
            return Err(Refusal::at(item.at, said).help("give another name, with `AS`"));
        }
        if !seen.insert(name) {
            return Err(Refusal::at(item.at, format!("there are two columns `{name}`")).help(
                "give one another name, with `AS`; to change a column among all others, write \
                 `* REPLACE (… AS name)`",
            ));
        }
    }
    match items {
        [] => Err(Refusal::everywhere("no column is selected")
            .help("name the columns to give, or write `*` for all")),
        _ => Ok(()),
    }
}

/// The items that `*` stands for.
fn star(
    options: &WildcardAdditionalOptions,
    names: &Names<'_>,
    whole: bool,
) -> Result<Vec<Item>, Refusal> {
    let at = options.wildcard_token.0.span;
    if options.opt_ilike.is_some() || options.opt_alias.is_some() {
        return Err(Refusal::at(at, "`*` takes EXCLUDE, REPLACE and RENAME only")
            .help("name the columns that are meant"));
    }
    let there = |ident: &Ident| match names.column(ident) {
        Ok(index) => Ok(Some(index)),
        Err(refusal) if whole => Err(refusal),
        Err(_) => Ok(None),
    };
    let mut out = BTreeSet::new();
    for ident in excluded(options)? {
        out.extend(there(&ident)?);
    }
    let columns = names.columns.iter().enumerate().filter(|(index, _)| !out.contains(index));
    let item = |(index, name): (usize, &&str)| {
        let item = Item { name: (*name).to_owned(), at, what: What::Column(index) };
        (index, item)
    };
    let mut items: Vec<(usize, Item)> = columns.map(item).collect();
    let place = |ident: &Ident, items: &[(usize, Item)]| {
        let index = there(ident)?;
        let at = items.iter().position(|(place, _)| Some(*place) == index);
        at.ok_or_else(|| {
            Refusal::at(ident.span, format!("`{ident}` is left out of `*`"))
                .help("take it out of EXCLUDE")
        })
    };
    for replace in options.opt_replace.iter().flat_map(|replace| &replace.items) {
        let at = place(&replace.column_name, &items)?;
        let (index, item) = &mut items[at];
        item.what = What::Value { expr: Box::new(replace.expr.clone()), place: Some(*index) };
    }
    let renames = match &options.opt_rename {
        None => &[][..],
        Some(RenameSelectItem::Single(rename)) => std::slice::from_ref(rename),
        Some(RenameSelectItem::Multiple(renames)) => renames,
    };
    for rename in renames {
        let at = place(&rename.ident, &items)?;
        let (_, item) = &mut items[at];
        (item.name, item.at) = (normal(&rename.alias), rename.alias.span);
    }
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

fn excluded(options: &WildcardAdditionalOptions) -> Result<Vec<Ident>, Refusal> {
    let names: Vec<&ast::ObjectName> = match &options.opt_exclude {
        None => Vec::new(),
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names.iter().collect(),
    };
    let mut idents = Vec::new();
    for name in names {
        let [ast::ObjectNamePart::Identifier(ident)] = &*name.0 else {
            return Err(Refusal::at(name.span(), "EXCLUDE wants plain names of columns"));
        };
        idents.push(ident.clone());
    }
    if let Some(ExceptSelectItem { first_element, additional_elements }) = &options.opt_except {
        idents.push(first_element.clone());
        idents.extend(additional_elements.iter().cloned());
    }
    Ok(idents)
}

/// A plan in the making: indices are still those of the planner.
struct Draft {
    planner: Planner,
    conditions: Vec<Planned>,
    fields: Vec<FieldRef>,
    makes: Vec<Make>,
}

impl Draft {
    fn condition(&mut self, expr: &Expr) -> Result<(), Refusal> {
        let planned = self.planner.conditions(expr.clone());
        self.conditions.extend(planned.map_err(|error| refused(expr.span(), &error))?);
        Ok(())
    }

    fn item(&mut self, Item { name, at, what }: Item) -> Result<(), Refusal> {
        let (field, make) = match what {
            What::Column(index) => {
                let field = self.planner.columns().field(index).clone().with_name(name);
                (field, Make::Pass(index))
            }
            What::Value { expr, .. } => {
                let at = if expr.span() == Span::empty() { at } else { expr.span() };
                let planned = self.planner.value(*expr).map_err(|error| refused(at, &error))?;
                let kind = planned.expr.data_type(self.planner.columns());
                let kind = kind.map_err(|error| refused(at, &error))?;
                let grows = kind.primitive_width().is_none() && kind != DataType::Boolean;
                // Whatever DataFusion says about nulls: a wrong promise would stop the stage.
                let field = Field::new(&name, kind, true);
                (field, Make::Value { name, expr: planned.expr, grows })
            }
        };
        self.fields.push(Arc::new(field));
        self.makes.push(make);
        Ok(())
    }

    /// With the indices that columns have in the scan, and in what is kept of it.
    fn finish(mut self, input: &Schema, offset: Option<usize>) -> DataResult<Plan> {
        let mut selected = BTreeSet::new();
        for make in &self.makes {
            match make {
                Make::Pass(index) => drop(selected.insert(*index)),
                Make::Value { expr, .. } => selected.extend(read(expr)),
            }
        }
        let asked = self.conditions.iter().flat_map(|condition| read(&condition.expr));
        let mut scanned: Vec<usize> = selected.iter().copied().chain(asked).collect();
        scanned.sort_unstable();
        scanned.dedup();
        let in_scan = |index: usize| scanned.binary_search(&index).unwrap_or(0);
        let mut kept: Vec<usize> = selected.iter().map(|index| in_scan(*index)).collect();
        let kept_at = |index: usize| kept.binary_search(&in_scan(index)).unwrap_or(0);
        for condition in &mut self.conditions {
            condition.expr = moved(&condition.expr, in_scan)?;
        }
        for make in &mut self.makes {
            match make {
                Make::Pass(index) => *index = kept_at(*index),
                Make::Value { expr, .. } => *expr = moved(expr, kept_at)?,
            }
        }
        // The offset comes last: it is nobody's to read.
        let shown = shown(input);
        let mut columns: Vec<Option<usize>> =
            scanned.iter().map(|index| shown.get(*index).copied()).collect();
        if let Some(offset) = offset {
            self.makes.push(Make::Pass(kept.len()));
            self.fields.push(Arc::clone(&input.fields()[offset]));
            kept.push(columns.len());
            columns.push(Some(offset));
        }
        let scan = Scan::new(input, columns);
        let kept_schema = Arc::new(scan.schema.project(&kept)?);
        let schema = Arc::new(Schema::new(self.fields));
        let (conditions, makes) = (self.conditions, self.makes);
        let constant_bytes = constants(&conditions, &makes)?;
        Ok(Plan { schema, scan, conditions, kept, kept_schema, makes, constant_bytes })
    }
}

impl Scan {
    fn new(input: &Schema, columns: Vec<Option<usize>>) -> Self {
        let read_at = Arc::new(Field::new(READ_AT, read_at_type(), false));
        let fields = columns.iter().map(|column| match column {
            Some(index) => Arc::clone(&input.fields()[*index]),
            None => Arc::clone(&read_at),
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { columns, schema }
    }
}

fn read(expr: &Arc<dyn PhysicalExpr>) -> Vec<usize> {
    collect_columns(expr).iter().map(|column| column.index()).collect()
}

fn constants(conditions: &[Planned], makes: &[Make]) -> DataResult<usize> {
    let made = makes.iter().filter_map(|make| match make {
        Make::Value { expr, .. } => Some(expr),
        Make::Pass(_) => None,
    });
    let mut bytes = 0;
    for expr in conditions.iter().map(|condition| &condition.expr).chain(made) {
        expr.apply(|node| {
            if let Some(literal) = node.downcast_ref::<Literal>() {
                bytes += literal.value().try_as_str().flatten().map_or(0, str::len);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use tidegate_model::log_schema;

    use super::*;

    fn planned(query: &str) -> Plan {
        let query = Query::parse(query).unwrap();
        let input = log_schema();
        let columns = columns(&query, &input).unwrap();
        plan(&query, &input.project(&columns).unwrap()).unwrap()
    }

    fn conditions(condition: &str) -> Vec<String> {
        let plan = planned(&format!("SELECT level FROM input WHERE {condition}"));
        plan.conditions.iter().map(|condition| condition.expr.to_string()).collect()
    }

    #[test]
    fn plain_conditions_are_asked_of_columns_as_they_are() {
        for (condition, planned) in [
            // A cast of the message would copy it.
            ("message LIKE '%ERROR%'", "message@1 LIKE %ERROR%"),
            ("message ILIKE '%error%'", "message@1 ILIKE %error%"),
            ("message = 'x'", "message@1 = x"),
            ("message IN ('a', 'b', 'c', 'd')", "message@1 IN (SET) ([a, b, c, d])"),
            ("message ~ 'ERROR'", "message@1 LIKE %ERROR%"),
            ("regexp_like(message, 'ERROR', 'i')", "message@1 ILIKE %ERROR%"),
            ("message ~ 'ER+OR'", "regexp_found(message@1)"),
            ("message !~* 'x.y'", "NOT regexp_found(message@1)"),
            ("source = 'app.log'", "source@1 = app.log"),
            ("source LIKE '%app%'", "source@1 LIKE %app%"),
            ("severity >= 17", "severity@0 >= 17"),
            ("severity >= severity('error')", "severity@0 >= 17"),
            ("timestamp > '2024-01-01'", "timestamp@0 > 1704067200000000000"),
        ] {
            assert_eq!(conditions(condition), [planned], "{condition}");
        }
        let parts = conditions("level = 'x' AND (message = 'y' AND severity BETWEEN 1 + 0 AND 4)");
        assert_eq!(parts, ["level@1 = x", "message@2 = y", "severity@0 >= 1", "severity@0 <= 4"]);
    }

    #[test]
    fn what_can_fail_is_not_rearranged() {
        for condition in [
            // DataFusion would compare the text, and `08` is not `8`.
            "CAST(level AS INT) = 8",
            // It would take the division out, and away from what guards it.
            "(severity <> 0 AND 10 / severity > 1) OR (level = 'x' AND 10 / severity > 1)",
        ] {
            let plan = planned(&format!("SELECT level FROM input WHERE {condition}"));
            assert!(plan.conditions.iter().all(|condition| condition.can_fail), "{condition}");
            let shown = conditions(condition).concat();
            assert!(shown.contains("CAST(level") || shown.contains(" OR (level"), "{shown}");
        }
    }

    #[test]
    fn only_what_select_reads_is_kept() {
        let plan = planned("SELECT message, upper(level) AS l FROM input WHERE severity > 3");
        let names = |schema: &Schema| {
            schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&plan.scan.schema), ["severity", "level", "message"]);
        assert_eq!(names(&plan.kept_schema), ["level", "message"]);
        assert_eq!(names(&plan.schema), ["message", "l"]);
    }
}
