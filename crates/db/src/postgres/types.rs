//! Postgres' types as Arrow's.
//!
//! | Postgres | Arrow | note |
//! |---|---|---|
//! | `bool` | Boolean | |
//! | `int2`, `int4`, `int8` | Int16, Int32, Int64 | |
//! | `oid` | UInt32 | |
//! | `float4`, `float8` | Float32, Float64 | NaN and infinities as they are |
//! | `numeric(p, s)` | Decimal128 up to 38 digits, Decimal256 up to 76 | NaN has no place there: an error that names the column |
//! | other `numeric` | Utf8 | all digits; `NaN`, `Infinity` |
//! | `text`, `varchar`, `bpchar`, `name`, `json`, `jsonb` | Utf8 | |
//! | `bytea` | Binary | |
//! | `date` | Date32 | ±infinity are the greatest and the least number of days |
//! | `time` | Time64(µs) | |
//! | `timestamp` | Timestamp(µs) | ±infinity are the greatest and the least number |
//! | `timestamptz` | Timestamp(µs, UTC) | likewise |
//! | `uuid` | Utf8 | in lower case, with dashes |
//! | all others: `interval`, `timetz`, arrays, ranges, enums, `inet`, `bit`, geometry, composites, … | Utf8 | as Postgres writes them: `{1,2}`, `[1,10)` |

use arrow_schema::{DataType, TimeUnit};

/// Object ids of built-in types (`pg_type.dat`), the same in all versions.
pub mod id {
    #![allow(missing_docs, reason = "each is the id of the type that it is called after")]

    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const JSON: u32 = 114;
    pub const XML: u32 = 142;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const INET: u32 = 869;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// From Postgres' first day, 2000-01-01, to the epoch's, 1970-01-01.
pub const EPOCH_DAYS: i32 = 10_957;

/// The same in microseconds.
pub const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// How a column's values are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Decimal128(u8, i8),
    Decimal256(u8, i8),
    Numeric,
    Text,
    Jsonb,
    Bytes,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    /// The server writes it as text, and is told to.
    Cast,
}

impl Form {
    /// Of a type and its modifier.
    pub(super) fn of(type_id: u32, modifier: i32) -> Self {
        match type_id {
            id::BOOL => Self::Bool,
            id::INT2 => Self::Int2,
            id::INT4 => Self::Int4,
            id::INT8 => Self::Int8,
            id::OID => Self::Oid,
            id::FLOAT4 => Self::Float4,
            id::FLOAT8 => Self::Float8,
            id::NUMERIC => numeric(modifier),
            id::TEXT | id::VARCHAR | id::BPCHAR | id::NAME | id::JSON => Self::Text,
            id::JSONB => Self::Jsonb,
            id::BYTEA => Self::Bytes,
            id::DATE => Self::Date,
            id::TIME => Self::Time,
            id::TIMESTAMP => Self::Timestamp,
            id::TIMESTAMPTZ => Self::TimestampTz,
            id::UUID => Self::Uuid,
            _ => Self::Cast,
        }
    }

    /// As what it is given.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Oid => DataType::UInt32,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Decimal128(precision, scale) => DataType::Decimal128(precision, scale),
            Self::Decimal256(precision, scale) => DataType::Decimal256(precision, scale),
            Self::Numeric | Self::Text | Self::Jsonb | Self::Uuid | Self::Cast => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// Whether it is a whole number, so that a key's place can be told by a number.
    pub(super) fn is_integer(self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8 | Self::Oid)
    }
}

/// `numeric(p, s)`: the modifier is `(p << 16 | s) + 4`, `s` with a sign in 11 bits.
fn numeric(modifier: i32) -> Form {
    let Ok(packed) = u32::try_from(modifier - 4) else { return Form::Numeric };
    let precision = packed >> 16;
    let scale = packed & 0x7ff;
    // Scales that are negative, or longer than the number, have other rules here and there.
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) if scale.unsigned_abs() <= precision => {
            Form::Decimal128(precision, scale)
        }
        (Ok(precision @ 39..=76), Ok(scale)) if scale.unsigned_abs() <= precision => {
            Form::Decimal256(precision, scale)
        }
        _ => Form::Numeric,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_digits_declared_are_decimals() {
        let modifier = |precision: i32, scale: i32| (precision << 16 | (scale & 0x7ff)) + 4;
        for (given, form) in [
            (modifier(12, 2), Form::Decimal128(12, 2)),
            (modifier(38, 38), Form::Decimal128(38, 38)),
            (modifier(39, 0), Form::Decimal256(39, 0)),
            (modifier(76, 10), Form::Decimal256(76, 10)),
            (modifier(77, 10), Form::Numeric),
            (modifier(5, -2), Form::Numeric),
            (modifier(2, 5), Form::Numeric),
            (-1, Form::Numeric),
        ] {
            assert_eq!(Form::of(id::NUMERIC, given), form, "{given}");
        }
    }
}
