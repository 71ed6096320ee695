//! The columns of a database's rows, declared so that a pipeline can be checked without it.

use std::collections::BTreeMap;

use super::*;

/// `schema = { id = "int64", … }`: in the order in which they stand.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Declared(BTreeMap<Spanned<String>, Spanned<String>>);

/// Types without parameters, by the names that a configuration has for them.
fn types() -> [(&'static str, DataType); 14] {
    let micros = TimeUnit::Microsecond;
    [
        ("bool", DataType::Boolean),
        ("int16", DataType::Int16),
        ("int32", DataType::Int32),
        ("int64", DataType::Int64),
        ("uint32", DataType::UInt32),
        ("float32", DataType::Float32),
        ("float64", DataType::Float64),
        ("text", DataType::Utf8),
        ("bytes", DataType::Binary),
        ("date", DataType::Date32),
        ("time", DataType::Time64(micros)),
        ("timestamp", DataType::Timestamp(micros, None)),
        ("timestamptz", DataType::Timestamp(micros, Some("UTC".into()))),
        ("decimal(38, 9)", DataType::Decimal128(38, 9)),
    ]
}

impl Declared {
    /// # Errors
    ///
    /// A mistake where there is a type that is not known.
    pub(crate) fn into_schema(self) -> Result<SchemaRef, Mistake> {
        let mut fields = Vec::from_iter(self.0);
        fields.sort_by_key(|(name, _)| name.span().start);
        let fields = fields.into_iter().map(|(name, word)| {
            let known = parsed(word.get_ref()).ok_or_else(|| {
                let names = types().map(|(name, _)| name).join("`, `");
                Mistake::at(word.span(), format!("there is no type {:?}", word.get_ref()))
                    .help(format!("one of `{names}`"))
            })?;
            Ok(Field::new(name.into_inner(), known, true))
        });
        Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>, Mistake>>()?)))
    }
}

fn parsed(word: &str) -> Option<DataType> {
    if let Some(digits) = word.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
        let (precision, scale) = digits.split_once(',').unwrap_or((digits, "0"));
        let (precision, scale): (u8, i8) =
            (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
        if scale < 0 || scale.unsigned_abs() > precision {
            return None;
        }
        return match precision {
            1..=38 => Some(DataType::Decimal128(precision, scale)),
            39..=76 => Some(DataType::Decimal256(precision, scale)),
            _ => None,
        };
    }
    types().into_iter().find_map(|(name, data_type)| (name == word).then_some(data_type))
}

/// A type as a configuration names it.
pub(super) fn shown(data_type: &DataType) -> String {
    if let DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) =
        data_type
    {
        return format!("decimal({precision}, {scale})");
    }
    let known = types().into_iter().find(|(_, known)| known == data_type);
    known.map_or_else(|| data_type.to_string(), |(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_by_their_names_and_shown_by_them() {
        for (name, data_type) in types() {
            assert_eq!(parsed(name), Some(data_type.clone()), "{name}");
            assert_eq!(shown(&data_type), name);
        }
        assert_eq!(parsed("decimal(50,2)"), Some(DataType::Decimal256(50, 2)));
        for wrong in
            ["int", "decimal(0, 0)", "decimal(5, 6)", "decimal(77, 0)", "decimal(a, 1)", ""]
        {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
