//! What DataFusion's expressions are made to do here: to fail where a value does not fit, instead
//! of wrapping around, and to look at the right side of AND and OR only where the left leaves it
//! open.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_schema::{DataType, Schema, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr,
    Literal, NegativeExpr, NotExpr, TryCastExpr,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

/// Functions that make something of any row, if their arguments do. What is not here may fail.
const NEVER_FAIL: [&str; 43] = [
    "array_has",
    "array_length",
    "ascii",
    "bit_length",
    "btrim",
    "cardinality",
    "character_length",
    "coalesce",
    "concat",
    "concat_ws",
    "contains",
    "ends_with",
    "find_in_set",
    "greatest",
    "initcap",
    "isnan",
    "iszero",
    "least",
    "left",
    "lower",
    "ltrim",
    "map_get",
    "map_keys",
    "map_values",
    "md5",
    "nanvl",
    "nullif",
    "nvl",
    "nvl2",
    "octet_length",
    "regexp_found",
    "reverse",
    "right",
    "rtrim",
    "severity",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "starts_with",
    "strpos",
    "translate",
    "upper",
];

/// Makes arithmetic fail on overflow, and AND and OR keep their right side from rows that the left
/// has decided.
pub(crate) fn strict(
    expr: Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Result<Arc<dyn PhysicalExpr>> {
    Ok(expr.transform_up(|node| strict_node(node, schema))?.data)
}

fn strict_node(
    node: Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
    if let Some(negative) = node.downcast_ref::<NegativeExpr>() {
        let zero = match negative.data_type(schema)? {
            kind if kind.is_signed_integer() => ScalarValue::new_zero(&kind)?,
            _ => return Ok(Transformed::no(node)),
        };
        let (zero, arg) = (Arc::new(Literal::new(zero)), Arc::clone(negative.arg()));
        let minus = BinaryExpr::new(zero, Operator::Minus, arg).with_fail_on_overflow(true);
        return Ok(Transformed::yes(Arc::new(minus)));
    }
    let Some(binary) = node.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(node)) };
    let (left, right) = (Arc::clone(binary.left()), Arc::clone(binary.right()));
    Ok(match binary.op() {
        Operator::Plus | Operator::Minus | Operator::Multiply => {
            let checked = BinaryExpr::new(left, *binary.op(), right).with_fail_on_overflow(true);
            Transformed::yes(Arc::new(checked))
        }
        Operator::And if can_fail(&right, schema)? => {
            Transformed::yes(Arc::new(Guarded { left, right, decided: false }))
        }
        Operator::Or if can_fail(&right, schema)? => {
            Transformed::yes(Arc::new(Guarded { left, right, decided: true }))
        }
        _ => Transformed::no(node),
    })
}

/// Whether an expression can fail for some rows. Where it is not known, it can.
pub(crate) fn can_fail(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<bool> {
    let alone = if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        binary_can_fail(binary, schema)?
    } else if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        cast_can_fail(&cast.expr().data_type(schema)?, cast.cast_type())
    } else if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        !NEVER_FAIL.contains(&call.fun().name())
    } else if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        // Of many wildcards a regular expression is made, which may become too large.
        !like.pattern().is::<Literal>()
    } else if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
        !negative.data_type(schema)?.is_floating()
    } else {
        let never = expr.is::<Column>()
            || expr.is::<Literal>()
            || expr.is::<NotExpr>()
            || expr.is::<IsNullExpr>()
            || expr.is::<IsNotNullExpr>()
            || expr.is::<InListExpr>()
            || expr.is::<CaseExpr>()
            || expr.is::<TryCastExpr>()
            || expr.is::<Guarded>();
        !never
    };
    if alone {
        return Ok(true);
    }
    for child in expr.children() {
        if can_fail(child, schema)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn binary_can_fail(binary: &BinaryExpr, schema: &Schema) -> Result<bool> {
    use Operator::{
        And, BitwiseAnd, BitwiseOr, BitwiseXor, Divide, Eq, Gt, GtEq, IsDistinctFrom,
        IsNotDistinctFrom, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or, Plus, StringConcat,
    };
    let op = binary.op();
    Ok(match op {
        And | Or | StringConcat => false,
        Plus | Minus | Multiply | Divide | Modulo => {
            let float = |side: &Arc<dyn PhysicalExpr>| Ok(side.data_type(schema)?.is_floating());
            let (left, right): (Result<bool>, Result<bool>) =
                (float(binary.left()), float(binary.right()));
            !(left? && right?)
        }
        // A pattern from the query is compiled before it is worked out; one from a row may be none.
        Operator::RegexMatch
        | Operator::RegexIMatch
        | Operator::RegexNotMatch
        | Operator::RegexNotIMatch => !binary.right().is::<Literal>(),
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom => false,
        BitwiseAnd | BitwiseOr | BitwiseXor => false,
        _ => true,
    })
}

fn cast_can_fail(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Boolean, Date32, Dictionary, Float32, Float64, LargeUtf8, Null, Timestamp, Utf8, Utf8View,
    };
    let text = |kind: &DataType| matches!(kind, Utf8 | LargeUtf8 | Utf8View);
    match (from, to) {
        (from, to) if from == to => false,
        (Null, _) => false,
        (Dictionary(_, values), to) => cast_can_fail(values, to),
        (from, Dictionary(_, values)) if text(from) => !text(values),
        (from, to) if text(to) => {
            let plain = text(from) || from.is_integer() || from.is_floating();
            !(plain || matches!(from, Boolean | Date32))
        }
        (from, Float64) if from.is_numeric() => false,
        (from, Float32) if from.is_integer() => false,
        (from, to) if from.is_integer() && to.is_integer() => !holds(to, from),
        (Timestamp(TimeUnit::Nanosecond, _), Date32) => false,
        (Timestamp(a, _), Timestamp(b, Some(zone))) if a == b => &**zone != "UTC",
        _ => true,
    }
}

/// Whether every value of an integer type is one of another.
fn holds(wide: &DataType, narrow: &DataType) -> bool {
    let (more, less) = (wide.primitive_width(), narrow.primitive_width());
    match (wide.is_signed_integer(), narrow.is_signed_integer()) {
        (true, true) | (false, false) => more >= less,
        (true, false) => more > less,
        (false, true) => false,
    }
}

/// AND or OR whose right side can fail: it is worked out only for rows that the left side leaves
/// open, be they one or thousands.
#[derive(Debug, Eq)]
struct Guarded {
    left: Arc<dyn PhysicalExpr>,
    right: Arc<dyn PhysicalExpr>,
    /// The value of the left side that decides: true for OR.
    decided: bool,
}

// Derived, it would move out of the `Arc`s, and so would DataFusion's: they write it out too.
impl PartialEq for Guarded {
    fn eq(&self, other: &Self) -> bool {
        self.left.eq(&other.left) && self.right.eq(&other.right) && self.decided == other.decided
    }
}

impl Hash for Guarded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.left.hash(state);
        self.right.hash(state);
        self.decided.hash(state);
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = if self.decided { "OR" } else { "AND" };
        write!(f, "({} {op} {})", self.left, self.right)
    }
}

impl PhysicalExpr for Guarded {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        let left = self.left.evaluate(batch)?.into_array(rows)?;
        let left = left.as_boolean();
        // Null leaves it open.
        let same = if self.decided { left.values().clone() } else { !left.values() };
        let decided = match left.nulls() {
            Some(valid) => &same & valid.inner(),
            None => same,
        };
        let open = BooleanArray::new(!&decided, None);
        let right = self.right.evaluate_selection(batch, &open)?.into_array(rows)?;
        let right = right.as_boolean();
        let both = match self.decided {
            true => arrow_arith::boolean::or_kleene(left, right)?,
            false => arrow_arith::boolean::and_kleene(left, right)?,
        };
        Ok(ColumnarValue::Array(Arc::new(both)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.left, &self.right]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let [left, right] = &*children else {
            return datafusion_common::internal_err!("AND and OR have two sides");
        };
        let (left, right) = (Arc::clone(left), Arc::clone(right));
        Ok(Arc::new(Self { left, right, decided: self.decided }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The expression with each column at the index it is given.
pub(crate) fn moved(
    expr: &Arc<dyn PhysicalExpr>,
    index: impl Fn(usize) -> usize,
) -> Result<Arc<dyn PhysicalExpr>> {
    let moved = Arc::clone(expr).transform_up(|node| {
        Ok(match node.downcast_ref::<Column>() {
            Some(column) => {
                let moved = Column::new(column.name(), index(column.index()));
                Transformed::yes(Arc::new(moved) as Arc<dyn PhysicalExpr>)
            }
            None => Transformed::no(node),
        })
    })?;
    Ok(moved.data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions;

    #[test]
    fn what_never_fails_exists() {
        let own = ["map_get", "regexp_found"];
        for name in NEVER_FAIL.iter().filter(|name| !own.contains(name)) {
            let function = functions::get(name).unwrap_or_else(|| panic!("no function `{name}`"));
            assert_eq!(function.name(), *name, "an alias is never asked about");
        }
    }

    #[test]
    fn casts_that_lose_nothing_never_fail() {
        use DataType::{Float64, Int8, Int16, Int64, UInt8, UInt64, Utf8, Utf8View};
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(Utf8));
        for (from, to, fails) in [
            (UInt8, Int64, false),
            (UInt8, Int8, true),
            (Int8, UInt64, true),
            (UInt64, Int64, true),
            (Int64, Float64, false),
            (Float64, Int64, true),
            (Utf8, Utf8View, false),
            (Utf8, Int16, true),
            (Int16, Utf8, false),
            (dictionary.clone(), Utf8, false),
            (dictionary, Int16, true),
        ] {
            assert_eq!(cast_can_fail(&from, &to), fails, "{from} to {to}");
        }
    }
}
