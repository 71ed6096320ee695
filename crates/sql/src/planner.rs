//! From a parsed expression to one that can be worked out: names to columns, types made to fit,
//! constants worked out once, and simplified where nothing can fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use arrow_array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{
    Column, DFSchema, DFSchemaRef, DataFusionError, Result, ScalarValue, TableReference, exec_err,
    plan_err,
};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::utils::split_conjunction_owned;
use datafusion_expr::{
    AggregateUDF, Cast, ColumnarValue, Expr, ExprSchemable, HigherOrderUDF, ScalarUDF, TableSource,
    Volatility, WindowUDF,
};
use datafusion_functions::core::planner::CoreFunctionPlanner;
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion_functions_nested::planner::{FieldAccessPlanner, NestedFunctionPlanner};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast;
use datafusion_sql::sqlparser::tokenizer::Span;

use crate::functions::{self, CLOCK, MapAccess};
use crate::physical::{can_fail, strict};
use crate::refusal::{Refusal, reason};

/// The hidden column that `now()` reads. Nobody can write this name in a query.
pub(crate) const READ_AT: &str = "\0read_at";

/// A constant of more bytes is refused: it may be copied once for every row.
const CONSTANT_BYTES_MAX: usize = 64 << 10;

/// What a function is given has at most this many terms, once functions in it are replaced.
const NODES_MAX: usize = 4096;

/// The type of `now()`, which is that of `timestamp` in logs.
pub(crate) fn read_at_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// Plans the expressions of one query.
pub(crate) struct Planner {
    schema: DFSchemaRef,
    context: SimplifyContext,
    props: ExecutionProps,
}

/// An expression that can be worked out. Its columns are indices into the planner's columns.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) expr: Arc<dyn PhysicalExpr>,
    /// Whether it can fail for some rows.
    pub(crate) can_fail: bool,
}

impl Planner {
    /// For these columns, under this name of a table; [`READ_AT`] is added as the last one.
    pub(crate) fn new(table: &str, columns: &Schema) -> Result<Self> {
        let qualifier = TableReference::bare(table);
        let read_at = Field::new(READ_AT, read_at_type(), false);
        let fields =
            columns.fields().iter().map(|field| (Some(qualifier.clone()), Arc::clone(field)));
        let fields = fields.chain([(None, Arc::new(read_at))]).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let options = Arc::clone(&SETTINGS.options);
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(&schema))
            .with_config_options(Arc::clone(&options))
            .build();
        let mut props = ExecutionProps::new();
        props.config_options = Some(options);
        Ok(Self { schema, context, props })
    }

    /// The planner's columns.
    pub(crate) fn columns(&self) -> &Schema {
        self.schema.as_arrow()
    }

    /// Plans the value of a column.
    pub(crate) fn value(&self, expr: ast::Expr) -> Result<Planned> {
        let typed = self.typed(expr)?;
        // As in Postgres, a NULL of no type is text.
        let typed = match typed.get_type(&self.schema)? {
            DataType::Null => Expr::Cast(Cast::new(Box::new(typed), DataType::Utf8)),
            _ => typed,
        };
        self.finish(self.simplified(typed)?)
    }

    /// Plans a condition, as one or more of which all must be true.
    pub(crate) fn conditions(&self, expr: ast::Expr) -> Result<Vec<Planned>> {
        let typed = self.typed(expr)?;
        let typed = match typed.get_type(&self.schema)? {
            DataType::Boolean => typed,
            DataType::Null => Expr::Cast(Cast::new(Box::new(typed), DataType::Boolean)),
            other => return plan_err!("WHERE wants a condition, not a value of type {other}"),
        };
        let all = split_conjunction_owned(self.simplified(typed)?);
        all.into_iter().map(|expr| self.finish(expr)).collect()
    }

    /// With columns and functions found, and casts put where types differ.
    fn typed(&self, expr: ast::Expr) -> Result<Expr> {
        let options = ParserOptions::new();
        let to_rel = SqlToRel::new_with_options(&*SETTINGS, options);
        let expr = to_rel.sql_to_expr(expr, &self.schema, &mut PlannerContext::new())?;
        let expr = expr.transform_up(clock)?.data;
        ExprSimplifier::new(self.context.clone()).coerce(expr, &self.schema)
    }

    fn simplified(&self, expr: Expr) -> Result<Expr> {
        // Some functions exist only to be replaced (`coalesce` by CASE), and what they are replaced
        // by may be replaced again; three rounds are what DataFusion takes.
        let mut expr = self.folded(expr)?;
        for _ in 0..3 {
            let replaced = expr.transform_up(|node| self.replaced(node))?;
            expr = self.folded(replaced.data)?;
            if !replaced.transformed {
                break;
            }
        }
        // For what it says about patterns: simplifying says it worse.
        expr.clone().transform_up(functions::compile)?;
        // Algebra may drop and reorder what can fail, or put something in its place that can't:
        // `CAST(a AS INT) = 5` becomes `a = '5'`. A row's fate must not depend on that.
        if can_fail(&self.physical(&expr)?, self.columns())? {
            return Ok(expr);
        }
        let expr = expr.transform_up(functions::compile_backslashes)?.data;
        ExprSimplifier::new(self.context.clone()).simplify(expr)
    }

    fn replaced(&self, node: Expr) -> Result<Transformed<Expr>> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = node else {
            return Ok(Transformed::no(node));
        };
        // `coalesce` becomes a CASE that has its arguments twice: nested, twice as much each time.
        let mut nodes = 0;
        for arg in &args {
            arg.apply(|_| {
                nodes += 1;
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        if nodes > NODES_MAX {
            return plan_err!("{} is given too much: more than {NODES_MAX} terms", func.name());
        }
        Ok(match func.simplify(args, &self.context)? {
            ExprSimplifyResult::Simplified(expr) => Transformed::yes(expr),
            ExprSimplifyResult::Original(args) => {
                Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))
            }
        })
    }

    /// With everything worked out that depends on no row. What fails there fails for all rows, and
    /// is a mistake of the query.
    fn folded(&self, expr: Expr) -> Result<Expr> {
        Ok(expr.transform_up(|node| self.fold(node))?.data)
    }

    fn fold(&self, node: Expr) -> Result<Transformed<Expr>> {
        let foldable = match &node {
            Expr::Literal(..) | Expr::Column(_) | Expr::Alias(_) => false,
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Volatile,
            _ => true,
        };
        let mut constant = foldable;
        node.apply_children(|child| {
            constant &= matches!(child, Expr::Literal(..));
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !constant {
            return Ok(Transformed::no(node));
        }
        // Some stand in for something else until they are replaced.
        if let Expr::ScalarFunction(call) = &node
            && ["coalesce", "nvl", "nvl2"].contains(&call.func.name())
        {
            return Ok(Transformed::no(node));
        }
        let value = match self.physical(&node)?.evaluate(&ONE_ROW)? {
            ColumnarValue::Scalar(value) => value,
            ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
        };
        let bytes = value.try_as_str().flatten().map_or(0, str::len);
        if bytes > CONSTANT_BYTES_MAX {
            return exec_err!(
                "a constant of {bytes} bytes is too long, at most {CONSTANT_BYTES_MAX} fit"
            );
        }
        Ok(Transformed::yes(Expr::Literal(value, None)))
    }

    fn finish(&self, expr: Expr) -> Result<Planned> {
        let expr = expr.transform_up(functions::compile)?.data;
        let expr = self.physical(&expr)?;
        let can_fail = can_fail(&expr, self.columns())?;
        self.probe(&expr)?;
        Ok(Planned { expr, can_fail })
    }

    /// Works an expression out on no rows: what fails there fails always, such as a unit of time
    /// that does not exist. A panic says so only where it comes on a row of nulls, too.
    fn probe(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<()> {
        let fields = self.columns().fields().iter();
        let fields: Vec<Field> =
            fields.map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let attempt = |rows| {
            let nulls = schema.fields().iter().map(|field| new_null_array(field.data_type(), rows));
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let batch =
                RecordBatch::try_new_with_options(Arc::clone(&schema), nulls.collect(), &options)?;
            catch_unwind(AssertUnwindSafe(|| expr.evaluate(&batch).map(drop)))
                .map_or_else(|_| Ok(false), |value| value.map(|()| true))
        };
        match attempt(0)? || attempt(1).unwrap_or(true) {
            true => Ok(()),
            false => exec_err!("it can't be worked out"),
        }
    }

    fn physical(&self, expr: &Expr) -> Result<Arc<dyn PhysicalExpr>> {
        let planning = PhysicalPlanningContext::default();
        let expr = create_physical_expr(expr, &self.schema, &self.props, &planning)?;
        strict(expr, self.columns())
    }
}

/// Puts the read time in the place of functions that look at the clock.
fn clock(node: Expr) -> Result<Transformed<Expr>> {
    let Expr::ScalarFunction(call) = &node else { return Ok(Transformed::no(node)) };
    let name = call.func.name();
    if !CLOCK.contains(&name) {
        return Ok(Transformed::no(node));
    }
    if !call.args.is_empty() {
        return plan_err!("{name} takes no arguments");
    }
    let read_at = Expr::Column(Column::new_unqualified(READ_AT));
    let cast = |to| Expr::Cast(Cast::new(Box::new(read_at.clone()), to));
    Ok(Transformed::yes(match name {
        "current_date" | "today" => cast(DataType::Date32),
        "current_time" => cast(DataType::Time64(TimeUnit::Nanosecond)),
        _ => read_at,
    }))
}

/// Where constants are worked out.
static ONE_ROW: LazyLock<RecordBatch> = LazyLock::new(|| {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let one = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options);
    // Can't fail: no column, a given number of rows.
    one.unwrap_or_else(|_| RecordBatch::new_empty(Arc::new(Schema::empty())))
});

static SETTINGS: LazyLock<Provider> = LazyLock::new(|| {
    let mut options = ConfigOptions::default();
    options.execution.time_zone = Some("UTC".to_owned());
    Provider {
        options: Arc::new(options),
        planners: vec![
            Arc::new(MapAccess),
            Arc::new(CoreFunctionPlanner::default()),
            Arc::new(NestedFunctionPlanner),
            Arc::new(FieldAccessPlanner),
            Arc::new(UnicodeFunctionPlanner),
            Arc::new(DatetimeFunctionPlanner),
        ],
    }
});

/// What DataFusion asks us while it plans.
struct Provider {
    options: Arc<ConfigOptions>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl ContextProvider for Provider {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("there is no table `{name}`")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        functions::get(name)
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        functions::names().map(str::to_owned).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// DataFusion's error as a refusal of the expression at this place.
pub(crate) fn refused(at: Span, error: &DataFusionError) -> Refusal {
    const REMEDIES: [(&str, &str); 8] = [
        ("cannot coerce", "make one side fit the other, with `CAST(… AS …)`"),
        ("cannot infer common", "make one side fit the other, with `CAST(… AS …)`"),
        ("WHERE wants", "compare it with something"),
        ("cannot cast", "write a value of that type"),
        ("error parsing timestamp", "write it as '2024-05-06 07:08:09'"),
        ("no regular expression", "put a backslash before what stands for itself"),
        ("is too long", "work it out from columns, or leave it out"),
        ("takes no arguments", "leave them out"),
    ];
    let message = reason(error);
    let remedy = REMEDIES.iter().find(|(said, _)| message.contains(said));
    let refusal = Refusal::at(at, message);
    match remedy {
        Some((_, remedy)) => refusal.help(*remedy),
        None => refusal,
    }
}
