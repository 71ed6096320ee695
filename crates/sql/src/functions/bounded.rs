//! Functions whose result can be far larger than what they are given, held to a bound.
//!
//! `repeat(message, 1000000000)` would take the process down before any budget is asked. What a
//! call would make is therefore worked out first, and refused where it is more than
//! [`RESULT_BYTES_MAX`]. The stage then halves the batch, so that in the end only a row which alone
//! passes the bound is rejected.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, FieldRef};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion_functions::{string, unicode};
use datafusion_functions_nested::string::array_to_string_udf;

/// What one call of such a function makes, for all rows it is given, has at most this many bytes.
pub(crate) const RESULT_BYTES_MAX: u64 = 8 << 20;

/// The functions, in place of DataFusion's of the same names.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let bounded = |inner: Arc<ScalarUDF>, growth| {
        Arc::new(ScalarUDF::new_from_impl(Bounded { inner, growth }))
    };
    vec![
        bounded(string::repeat(), Growth::Times),
        bounded(unicode::lpad(), Growth::Upto),
        bounded(unicode::rpad(), Growth::Upto),
        bounded(string::replace(), Growth::Matches),
        bounded(array_to_string_udf(), Growth::Elements),
    ]
}

/// How long a result can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// The text as many times as the second argument says.
    Times,
    /// As many characters as the second argument says.
    Upto,
    /// The third argument for every match of the second.
    Matches,
    /// The second argument between all elements of a list.
    Elements,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, context)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.growth == Growth::Upto
            && let Some(count) = args.args.get_mut(1)
        {
            // DataFusion takes a negative length for a huge one.
            *count = not_negative(count);
        }
        let made = self.growth.bytes(&args.args, args.number_rows)?;
        if made > RESULT_BYTES_MAX {
            let name = self.name();
            return exec_err!("{name} may make {made} bytes, at most {RESULT_BYTES_MAX} fit");
        }
        self.inner.invoke_with_args(args)
    }
}

impl Growth {
    /// The most that a call can make.
    fn bytes(self, args: &[ColumnarValue], rows: usize) -> Result<u64> {
        let of = |at: usize| args.get(at).map_or(Ok(vec![0; rows]), |arg| lengths(arg, rows));
        Ok(match self {
            Growth::Times => sum(of(0)?, counts(args, rows)?, u64::saturating_mul),
            // A character has at most four bytes.
            Growth::Upto => sum(of(0)?, counts(args, rows)?, |text, count| {
                text.saturating_add(count.saturating_mul(4))
            }),
            Growth::Matches => {
                let text = of(0)?;
                let longest = of(2)?.into_iter().max().unwrap_or(0);
                let shortest = of(1)?.into_iter().min().unwrap_or(0).max(1);
                let whole: u64 = text.iter().sum();
                // A match in every place, an empty one also at the end; counted only where that
                // would be too much.
                let most = (whole / shortest + rows as u64).saturating_mul(longest);
                match most.saturating_add(whole) {
                    most if most <= RESULT_BYTES_MAX => most,
                    _ => whole.saturating_add(matches(args, rows)?.saturating_mul(longest)),
                }
            }
            Growth::Elements => {
                let longest = of(1)?.into_iter().chain(of(2)?).max().unwrap_or(0);
                let list = match args.first() {
                    Some(list) => list.to_array(rows)?,
                    None => return Ok(0),
                };
                let data = list.to_data();
                let elements: usize = data.child_data().iter().map(|child| child.len()).sum();
                let held = data.get_slice_memory_size()?;
                (elements as u64).saturating_mul(longest).saturating_add(held as u64)
            }
        })
    }
}

fn sum(left: Vec<u64>, right: Vec<u64>, each: impl Fn(u64, u64) -> u64) -> u64 {
    left.into_iter().zip(right).map(|(l, r)| each(l, r)).fold(0, u64::saturating_add)
}

/// How long the texts are; 0 for null, and for what is no text.
fn lengths(value: &ColumnarValue, rows: usize) -> Result<Vec<u64>> {
    if let ColumnarValue::Scalar(scalar) = value {
        let length = scalar.try_as_str().flatten().map_or(0, str::len);
        return Ok(vec![length as u64; rows]);
    }
    let array = value.to_array(rows)?;
    Ok(match array.data_type() {
        DataType::Utf8View => {
            array.as_string_view().iter().map(|t| t.map_or(0, str::len) as u64).collect()
        }
        DataType::Utf8 => ends(array.as_string::<i32>().value_offsets().iter().map(|o| *o as u64)),
        DataType::LargeUtf8 => {
            ends(array.as_string::<i64>().value_offsets().iter().map(|o| *o as u64))
        }
        _ => vec![0; rows],
    })
}

fn ends(offsets: impl Iterator<Item = u64> + Clone) -> Vec<u64> {
    offsets.clone().skip(1).zip(offsets).map(|(end, start)| end - start).collect()
}

/// The second argument as a count; 0 where it is negative or null.
fn counts(args: &[ColumnarValue], rows: usize) -> Result<Vec<u64>> {
    let Some(count) = args.get(1) else { return Ok(vec![0; rows]) };
    let array: ArrayRef = count.to_array(rows)?;
    let counts = array.as_primitive_opt::<Int64Type>().map(|counts| {
        counts.iter().map(|count| count.map_or(0, |count| count.max(0).unsigned_abs())).collect()
    });
    Ok(counts.unwrap_or_else(|| vec![0; rows]))
}

/// Negative counts as 0; what is no number as it is.
fn not_negative(count: &ColumnarValue) -> ColumnarValue {
    match count {
        ColumnarValue::Scalar(ScalarValue::Int64(count)) => {
            ColumnarValue::Scalar(ScalarValue::Int64(count.map(|count| count.max(0))))
        }
        ColumnarValue::Array(array) => match array.as_primitive_opt::<Int64Type>() {
            Some(counts) => {
                let counts = counts.unary::<_, Int64Type>(|count| count.max(0));
                ColumnarValue::Array(Arc::new(counts))
            }
            None => count.clone(),
        },
        _ => count.clone(),
    }
}

/// How often the second argument is found in the first.
fn matches(args: &[ColumnarValue], rows: usize) -> Result<u64> {
    let [text, wanted, ..] = args else { return Ok(0) };
    let (text, wanted) = (as_views(text, rows)?, as_views(wanted, rows)?);
    let pairs = text.as_string_view().iter().zip(wanted.as_string_view());
    let found = pairs.map(|(text, wanted)| match (text, wanted) {
        (Some(text), Some(wanted)) => text.matches(wanted).count() as u64,
        _ => 0,
    });
    Ok(found.sum())
}

fn as_views(text: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    text.cast_to(&DataType::Utf8View, None)?.to_array(rows)
}
