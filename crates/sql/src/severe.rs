//! How severe a row must be for a query to make anything of it: what a source can look for before
//! it makes rows of what it reads.
//!
//! It is read off the planned conditions, as [`required`](crate::required) literals are, and under
//! the same terms.

use std::cmp;
use std::sync::Arc;

use arrow_schema::Schema;
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, Column, InListExpr, Literal};

use crate::plan::Plan;

/// Of this much no condition is true that none is.
const NEVER: u8 = u8::MAX;

/// The least number in the input's column `severity` with which the conditions may be true, if they
/// never are without a number.
pub(crate) fn severity_min(plan: &Plan, input: &Schema) -> Option<u8> {
    let column = input.index_of("severity").ok()?;
    let scanned = plan.scan.columns.iter().position(|scanned| *scanned == Some(column));
    let safe = plan.conditions.iter().take_while(|condition| !condition.can_fail);
    safe.filter_map(|condition| least(&condition.expr, scanned)).max()
}

/// The least number with which a condition may be true, by the column's index in the scan.
fn least(expr: &Arc<dyn PhysicalExpr>, column: Option<usize>) -> Option<u8> {
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        let never = matches!(literal.value(), ScalarValue::Boolean(None | Some(false)));
        never.then_some(NEVER)
    } else if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let (left, op, right) = (binary.left(), *binary.op(), binary.right());
        match op {
            // Either is enough, so that the greater one is.
            Operator::And => cmp::max(least(left, column), least(right, column)),
            Operator::Or => Some(cmp::min(least(left, column)?, least(right, column)?)),
            _ if is(left, column) => compared(op, number(right)?),
            _ if is(right, column) => compared(op.swap()?, number(left)?),
            _ => None,
        }
    } else {
        let list = expr.downcast_ref::<InListExpr>()?;
        if list.negated() || !is(list.expr(), column) {
            return None;
        }
        let numbers = list.list().iter().map(number).collect::<Option<Vec<_>>>()?;
        numbers.into_iter().map(|number| number.unwrap_or(NEVER)).min()
    }
}

/// Of a comparison of the column with a number, or with null, which nothing is equal to.
fn compared(op: Operator, number: Option<u8>) -> Option<u8> {
    match (op, number) {
        (Operator::Eq | Operator::GtEq, Some(number)) => Some(number),
        (Operator::Gt, Some(number)) => Some(number.saturating_add(1)),
        (Operator::Eq | Operator::GtEq | Operator::Gt, None) => Some(NEVER),
        _ => None,
    }
}

/// Whether it is the column as it is.
fn is(expr: &Arc<dyn PhysicalExpr>, column: Option<usize>) -> bool {
    expr.downcast_ref::<Column>().is_some_and(|found| Some(found.index()) == column)
}

/// A constant, perhaps null.
fn number(expr: &Arc<dyn PhysicalExpr>) -> Option<Option<u8>> {
    match expr.downcast_ref::<Literal>()?.value() {
        ScalarValue::UInt8(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::{Settings, Transform, log_schema};

    use crate::SqlTransform;

    fn severity_min(conditions: &str) -> Option<u8> {
        let query = format!("SELECT message FROM input WHERE {conditions}");
        let transform = SqlTransform::from_query(&query).unwrap_or_else(|_| panic!("{query}"));
        transform.severity_min(&log_schema())
    }

    #[test]
    fn conditions_say_how_severe_a_row_must_be() {
        for (conditions, min) in [
            ("severity >= 17", Some(17)),
            ("17 <= severity", Some(17)),
            ("severity >= severity('error')", Some(17)),
            ("severity > 16", Some(17)),
            ("16 < severity", Some(17)),
            ("severity = 21", Some(21)),
            ("21 = severity", Some(21)),
            ("severity > 255", Some(255)),
            ("severity BETWEEN 13 AND 16", Some(13)),
            ("severity IN (17, 13, 21)", Some(13)),
            ("severity IN (1, 2, 3, 4, 5, 6, NULL)", Some(1)),
            ("severity IN (21, NULL)", Some(21)),
            ("severity = NULL", Some(255)),
            ("NOT (severity < 17)", Some(17)),
            ("NOT (severity <= 16 OR message = 'x')", Some(17)),
            ("(severity >= 17) = true", Some(17)),
            ("severity >= 13 AND message LIKE '%x%'", Some(13)),
            ("message = 'x' AND severity >= 13 AND severity <> 17", Some(13)),
            ("severity >= 13 AND severity >= 17", Some(17)),
            ("severity >= 17 OR severity = 13", Some(13)),
            ("severity >= 17 OR (severity > 5 AND message = 'x')", Some(6)),
            ("severity >= 17 OR false", Some(17)),
            ("false", Some(255)),
            ("message = 'x'", None),
            ("level = 'ERROR'", None),
            ("severity >= 17 OR message = 'x'", None),
            ("severity >= 17 OR severity IS NULL", None),
            ("severity < 17", None),
            ("severity <> 17", None),
            ("severity NOT IN (1, 2, 3)", None),
            ("severity IS NULL", None),
            ("NOT (severity >= 17)", None),
            ("CASE WHEN severity >= 17 THEN true ELSE false END", None),
            ("coalesce(severity, 17) >= 17", None),
            ("severity + 1 >= 17", None),
            ("severity IS DISTINCT FROM 17", None),
            ("severity IS NOT DISTINCT FROM NULL", None),
            // Nothing that comes after what can fail.
            ("severity >= 17 AND 10 / severity > 1", Some(17)),
            ("10 / severity > 1 AND severity >= 17", None),
            ("severity >= 13 AND 10 / severity > 1 AND severity >= 17", Some(13)),
        ] {
            assert_eq!(severity_min(conditions), min, "{conditions}");
        }
    }

    #[test]
    fn a_query_that_does_not_fit_says_nothing() {
        let settings = "query = \"SELECT level FROM input WHERE severity >= 17 AND none = 1\"";
        let settings = Settings::from_toml(settings).unwrap();
        let transform = SqlTransform::from_settings(&settings).unwrap();
        assert_eq!(transform.severity_min(&log_schema()), None);
        let severity = log_schema().index_of("severity").unwrap();
        let without: Vec<_> = (0..log_schema().fields().len()).filter(|i| *i != severity).collect();
        let input = std::sync::Arc::new(log_schema().project(&without).unwrap());
        let transform = SqlTransform::from_query("SELECT level FROM input WHERE false").unwrap();
        assert_eq!(transform.severity_min(&input), None);
    }
}
