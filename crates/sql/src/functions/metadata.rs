//! Reading and writing maps from text to text: `metadata['key']`, `metadata_set(metadata, 'k', v)`.
//!
//! DataFusion's own access looks at every key of the whole array, also where a slice of one row is
//! asked about, and takes only keys that are written in the query.

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, MapArray, StringArray, StructArray, UInt32Array};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, FieldRef, Fields};
use arrow_select::take::take;
use datafusion_common::cast::{as_map_array, as_string_array};
use datafusion_common::{DFSchema, Result, exec_err, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion_expr::{
    ColumnarValue, Expr, ExprSchemable, GetFieldAccess, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit,
};
use tidegate_model::log_schema;

/// Plans `map[key]` for maps with text as keys; everything else is left to DataFusion.
#[derive(Debug)]
pub(crate) struct MapAccess;

impl ExprPlanner for MapAccess {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let of_text = entry(&access.expr.get_type(schema)?)
            .is_some_and(|entry| entry[0].data_type() == &DataType::Utf8);
        let key = match &access.field_access {
            GetFieldAccess::NamedStructField { name } => lit(name.clone()),
            GetFieldAccess::ListIndex { key } => (**key).clone(),
            GetFieldAccess::ListRange { .. } => return Ok(PlannerResult::Original(access)),
        };
        if !of_text {
            return Ok(PlannerResult::Original(access));
        }
        let get = Arc::new(ScalarUDF::new_from_impl(MapGet::new()));
        let call = ScalarFunction::new_udf(get, vec![access.expr, key]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// The fields of a map's keys and values.
fn entry(map: &DataType) -> Option<&Fields> {
    match map {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) if entry.len() == 2 => Some(entry),
            _ => None,
        },
        _ => None,
    }
}

/// The value of a key, null where there is none; of several of the same key, the first.
#[derive(Debug, PartialEq, Eq, Hash)]
struct MapGet {
    signature: Signature,
}

impl MapGet {
    fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for MapGet {
    fn name(&self) -> &str {
        "map_get"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.iter().take(1).cloned().chain([DataType::Utf8]).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first().and_then(entry) {
            Some(entry) => Ok(entry[1].data_type().clone()),
            None => plan_err!("`[…]` wants a map"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [map, key] = &*args.args else { return exec_err!("`[…]` wants a map and a key") };
        let map = map.to_array(rows)?;
        let map = as_map_array(&map)?;
        let keys = as_string_array(map.keys())?;
        let found = match key {
            ColumnarValue::Scalar(key) => {
                let key = key.try_as_str().flatten();
                find(map, keys, std::iter::repeat_n(key, rows))
            }
            ColumnarValue::Array(key) => find(map, keys, as_string_array(key)?.iter()),
        };
        Ok(ColumnarValue::Array(take(map.values(), &found, None)?))
    }
}

/// Where each row's entry of its key is among all entries.
fn find<'k>(
    map: &MapArray,
    keys: &StringArray,
    wanted: impl Iterator<Item = Option<&'k str>>,
) -> UInt32Array {
    let extents = map.value_offsets().windows(2).map(|ends| (ends[0], ends[1]));
    let rows = extents.zip(wanted).enumerate();
    rows.map(|(row, ((start, end), key))| {
        let key = key.filter(|_| map.is_valid(row))?;
        let place = (start..end).find(|place| keys.value(*place as usize) == key)?;
        u32::try_from(place).ok()
    })
    .collect()
}

/// A map with an entry added, or replaced where its key was there; of a null map, one of one entry.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct MetadataSet {
    signature: Signature,
}

impl MetadataSet {
    pub(crate) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for MetadataSet {
    fn name(&self) -> &str {
        "metadata_set"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [map, _, _] = types else {
            return plan_err!("metadata_set wants a map, a key and a value");
        };
        let map = match map {
            DataType::Null => log_schema().field_with_name("metadata")?.data_type().clone(),
            map => map.clone(),
        };
        let text = |field: &FieldRef| field.data_type() == &DataType::Utf8;
        if !entry(&map).is_some_and(|entry| entry.iter().all(text)) {
            return plan_err!("metadata_set wants a map from text to text first, not {map}");
        }
        Ok(vec![map, DataType::Utf8, DataType::Utf8])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [map, ..] => Ok(map.clone()),
            [] => plan_err!("metadata_set wants a map, a key and a value"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [map, key, value] = &*args.args else {
            return exec_err!("metadata_set wants a map, a key and a value");
        };
        let (map, key, value) = (map.to_array(rows)?, key.to_array(rows)?, value.to_array(rows)?);
        let set = set(as_map_array(&map)?, as_string_array(&key)?, as_string_array(&value)?)?;
        Ok(ColumnarValue::Array(Arc::new(set)))
    }
}

fn set(map: &MapArray, new_keys: &StringArray, new_values: &StringArray) -> Result<MapArray> {
    let (keys, values) = (as_string_array(map.keys())?, map.values().as_string::<i32>());
    let (mut into_keys, mut into_values) = (StringBuilder::new(), StringBuilder::new());
    let mut lengths = Vec::with_capacity(map.len());
    for (row, ends) in map.value_offsets().windows(2).enumerate() {
        if new_keys.is_null(row) {
            return exec_err!("metadata_set: the key is null");
        }
        let key = new_keys.value(row);
        let value = new_values.is_valid(row).then(|| new_values.value(row));
        let before = into_keys.len();
        let mut is_set = false;
        let entries = if map.is_valid(row) { ends[0]..ends[1] } else { 0..0 };
        for place in entries.map(|place| place as usize) {
            if keys.value(place) != key {
                into_keys.append_value(keys.value(place));
                into_values.append_option(values.is_valid(place).then(|| values.value(place)));
            } else if !is_set {
                is_set = true;
                into_keys.append_value(key);
                into_values.append_option(value);
            }
        }
        if !is_set {
            into_keys.append_value(key);
            into_values.append_option(value);
        }
        lengths.push(into_keys.len() - before);
    }
    let DataType::Map(field, ordered) = map.data_type() else {
        return exec_err!("metadata_set wants a map");
    };
    let Some(fields) = entry(map.data_type()) else { return exec_err!("this map has no entries") };
    let columns: Vec<ArrayRef> = vec![Arc::new(into_keys.finish()), Arc::new(into_values.finish())];
    let entries = StructArray::try_new(fields.clone(), columns, None)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(MapArray::try_new(Arc::clone(field), offsets, entries, None, *ordered)?)
}
