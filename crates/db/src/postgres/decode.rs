//! Rows in Postgres' binary form as Arrow columns.
//!
//! A row is the same in `COPY … (FORMAT binary)` and in a `DataRow`: the number of values in 16 bits,
//! then for each its length in 32 bits, -1 for null, and its bytes.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type,
    Int16Type, Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType, UInt32Type,
};
use arrow_array::{ArrayRef, BinaryArray, BooleanArray, PrimitiveArray, StringArray};
use arrow_buffer::{
    BooleanBufferBuilder, Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer, i256,
};
use tidegate_flow::{BudgetHolder, Permit};

use super::types::{EPOCH_DAYS, EPOCH_MICROS, Form};
use super::written::{self, Numeric, Sign};
use crate::memory::held;
use crate::{Key, KeyValue};

/// Why a row can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is no row of these columns.
    Malformed,
    /// A value of this column has no place in its Arrow type, and why.
    Value(usize, &'static str),
    /// The text in this column is no UTF-8.
    Text(usize),
}

/// Columns in the making.
pub(super) struct Decoder {
    slots: Vec<Slot>,
}

struct Slot {
    form: Form,
    values: Values,
    nulls: NullBufferBuilder,
}

/// The values so far, each of the type that its form has in Arrow.
enum Values {
    Bool(BooleanBufferBuilder),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U32(Vec<u32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I128(Vec<i128>),
    I256(Vec<i256>),
    Bytes(Vec<u8>, Vec<i32>),
}

impl Decoder {
    /// For so many rows, of about so many bytes together.
    pub(super) fn new(forms: &[Form], rows: usize, bytes: usize) -> Self {
        let texts = forms.iter().filter(|form| form.is_bytes()).count().max(1);
        let slots = forms.iter().map(|form| Slot::new(*form, rows, bytes / texts));
        Self { slots: slots.collect() }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: &[u8]) -> Result<(), Unfit> {
        let (count, mut rest) = row.split_first_chunk::<2>().ok_or(Unfit::Malformed)?;
        if usize::from(u16::from_be_bytes(*count)) != self.slots.len() {
            return Err(Unfit::Malformed);
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let (length, after) = rest.split_first_chunk::<4>().ok_or(Unfit::Malformed)?;
            rest = match usize::try_from(i32::from_be_bytes(*length)) {
                Err(_) => {
                    slot.push_null();
                    after
                }
                Ok(length) => {
                    let (value, after) = after.split_at_checked(length).ok_or(Unfit::Malformed)?;
                    slot.push(value, index)?;
                    after
                }
            };
        }
        if rest.is_empty() { Ok(()) } else { Err(Unfit::Malformed) }
    }

    /// The columns, whose memory belongs to the holder's budget: what they take beyond the permit is
    /// charged.
    pub(super) fn finish(
        self,
        permit: Option<Permit>,
        holder: &BudgetHolder,
    ) -> Result<Vec<ArrayRef>, Unfit> {
        let needed: usize = self.slots.iter().map(|slot| slot.values.bytes()).sum();
        let permit = match permit {
            Some(mut permit) if permit.bytes() >= needed => {
                permit.split(needed).unwrap_or_else(|| holder.charge(needed))
            }
            short => {
                drop(short);
                holder.charge(needed)
            }
        };
        let permit = Arc::new(permit);
        let slots = self.slots.into_iter().enumerate();
        slots.map(|(index, slot)| slot.finish(&permit).ok_or(Unfit::Text(index))).collect()
    }
}

impl Form {
    fn is_bytes(self) -> bool {
        matches!(
            self,
            Self::Text | Self::Jsonb | Self::Uuid | Self::Numeric | Self::Cast | Self::Bytes
        )
    }
}

impl Slot {
    fn new(form: Form, rows: usize, bytes: usize) -> Self {
        let values = match form {
            Form::Bool => Values::Bool(BooleanBufferBuilder::new(rows)),
            Form::Int2 => Values::I16(Vec::with_capacity(rows)),
            Form::Int4 | Form::Date => Values::I32(Vec::with_capacity(rows)),
            Form::Int8 | Form::Time | Form::Timestamp | Form::TimestampTz => {
                Values::I64(Vec::with_capacity(rows))
            }
            Form::Oid => Values::U32(Vec::with_capacity(rows)),
            Form::Float4 => Values::F32(Vec::with_capacity(rows)),
            Form::Float8 => Values::F64(Vec::with_capacity(rows)),
            Form::Decimal128(..) => Values::I128(Vec::with_capacity(rows)),
            Form::Decimal256(..) => Values::I256(Vec::with_capacity(rows)),
            Form::Numeric | Form::Text | Form::Jsonb | Form::Bytes | Form::Uuid | Form::Cast => {
                let mut offsets = Vec::with_capacity(rows + 1);
                offsets.push(0);
                Values::Bytes(Vec::with_capacity(bytes), offsets)
            }
        };
        Self { form, values, nulls: NullBufferBuilder::new(rows) }
    }

    fn push_null(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.append(false),
            Values::I16(values) => values.push(0),
            Values::I32(values) => values.push(0),
            Values::I64(values) => values.push(0),
            Values::U32(values) => values.push(0),
            Values::F32(values) => values.push(0.0),
            Values::F64(values) => values.push(0.0),
            Values::I128(values) => values.push(0),
            Values::I256(values) => values.push(i256::ZERO),
            Values::Bytes(_, offsets) => offsets.push(offsets.last().copied().unwrap_or(0)),
        }
        self.nulls.append_null();
    }

    fn push(&mut self, value: &[u8], index: usize) -> Result<(), Unfit> {
        let unfit = |why| Unfit::Value(index, why);
        match &mut self.values {
            Values::Bool(values) => values.append(value == [1]),
            Values::I16(values) => values.push(i16::from_be_bytes(fixed(value)?)),
            Values::I32(values) => {
                let value = i32::from_be_bytes(fixed(value)?);
                values.push(match self.form {
                    Form::Date => date(value).ok_or(unfit("is a day too far away"))?,
                    _ => value,
                });
            }
            Values::I64(values) => {
                let value = i64::from_be_bytes(fixed(value)?);
                values.push(match self.form {
                    Form::Timestamp | Form::TimestampTz => {
                        timestamp(value).ok_or(unfit("is a time too far away"))?
                    }
                    _ => value,
                });
            }
            Values::U32(values) => values.push(u32::from_be_bytes(fixed(value)?)),
            Values::F32(values) => values.push(f32::from_be_bytes(fixed(value)?)),
            Values::F64(values) => values.push(f64::from_be_bytes(fixed(value)?)),
            Values::I128(values) => values.push(decimal(value, self.form).map_err(unfit)?),
            Values::I256(values) => values.push(decimal(value, self.form).map_err(unfit)?),
            Values::Bytes(bytes, offsets) => {
                self.form.append(value, bytes)?;
                let end = i32::try_from(bytes.len());
                offsets.push(end.map_err(|_| unfit("is too long"))?);
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// None where text is no UTF-8.
    fn finish(mut self, permit: &Arc<Permit>) -> Option<ArrayRef> {
        let nulls = self.nulls.finish();
        let time = || Some(Arc::from("UTC"));
        Some(match (self.values, self.form) {
            (Values::Bool(mut values), _) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            (Values::I16(values), _) => primitive::<Int16Type>(values, nulls, permit),
            (Values::I32(values), Form::Date) => primitive::<Date32Type>(values, nulls, permit),
            (Values::I32(values), _) => primitive::<Int32Type>(values, nulls, permit),
            (Values::I64(values), Form::Time) => {
                primitive::<Time64MicrosecondType>(values, nulls, permit)
            }
            (Values::I64(values), Form::Timestamp) => {
                primitive::<TimestampMicrosecondType>(values, nulls, permit)
            }
            (Values::I64(values), Form::TimestampTz) => Arc::new(
                array::<TimestampMicrosecondType>(values, nulls, permit).with_timezone_opt(time()),
            ),
            (Values::I64(values), _) => primitive::<Int64Type>(values, nulls, permit),
            (Values::U32(values), _) => primitive::<UInt32Type>(values, nulls, permit),
            (Values::F32(values), _) => primitive::<Float32Type>(values, nulls, permit),
            (Values::F64(values), _) => primitive::<Float64Type>(values, nulls, permit),
            (Values::I128(values), form) => Arc::new(
                array::<Decimal128Type>(values, nulls, permit).with_data_type(form.data_type()),
            ),
            (Values::I256(values), form) => Arc::new(
                array::<Decimal256Type>(values, nulls, permit).with_data_type(form.data_type()),
            ),
            (Values::Bytes(bytes, offsets), form) => {
                let offsets = ScalarBuffer::from(held(Buffer::from_vec(offsets), permit));
                let offsets = OffsetBuffer::new(offsets);
                let bytes = held(Buffer::from_vec(bytes), permit);
                match form {
                    Form::Bytes => Arc::new(BinaryArray::try_new(offsets, bytes, nulls).ok()?),
                    _ => Arc::new(StringArray::try_new(offsets, bytes, nulls).ok()?),
                }
            }
        })
    }
}

impl Values {
    fn bytes(&self) -> usize {
        match self {
            Self::Bool(values) => values.capacity() / 8,
            Self::I16(values) => values.capacity() * 2,
            Self::I32(values) => values.capacity() * 4,
            Self::I64(values) => values.capacity() * 8,
            Self::U32(values) => values.capacity() * 4,
            Self::F32(values) => values.capacity() * 4,
            Self::F64(values) => values.capacity() * 8,
            Self::I128(values) => values.capacity() * 16,
            Self::I256(values) => values.capacity() * 32,
            Self::Bytes(bytes, offsets) => bytes.capacity() + offsets.capacity() * 4,
        }
    }
}

impl Form {
    /// A value as text, or as the bytes it is.
    fn append(self, value: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
        match self {
            Self::Jsonb => {
                // A version, which is 1, and the text.
                let text = value.strip_prefix(&[1]).ok_or(Unfit::Malformed)?;
                out.extend_from_slice(text);
            }
            Self::Uuid => written::uuid(&fixed(value)?, out),
            Self::Numeric => Numeric::read(value).ok_or(Unfit::Malformed)?.write(out),
            _ => out.extend_from_slice(value),
        }
        Ok(())
    }

    /// A value as part of a key, as Postgres reads it again.
    fn key(self, value: &[u8]) -> Result<KeyValue, Unfit> {
        let text = |text: Vec<u8>| String::from_utf8(text).map_err(|_| Unfit::Malformed);
        Ok(match self {
            Self::Bool => KeyValue::Text((if value == [1] { "t" } else { "f" }).into()),
            Self::Int2 => KeyValue::Int(i16::from_be_bytes(fixed(value)?).into()),
            Self::Int4 => KeyValue::Int(i32::from_be_bytes(fixed(value)?).into()),
            Self::Int8 => KeyValue::Int(i64::from_be_bytes(fixed(value)?)),
            Self::Oid => KeyValue::Int(u32::from_be_bytes(fixed(value)?).into()),
            Self::Float4 => KeyValue::Text(f32::from_be_bytes(fixed(value)?).to_string()),
            Self::Float8 => KeyValue::Text(f64::from_be_bytes(fixed(value)?).to_string()),
            Self::Decimal128(..) | Self::Decimal256(..) | Self::Numeric => {
                let mut out = Vec::new();
                Numeric::read(value).ok_or(Unfit::Malformed)?.write(&mut out);
                KeyValue::Text(text(out)?)
            }
            Self::Bytes => {
                let hex = value.iter().map(|byte| format!("{byte:02x}"));
                KeyValue::Text(format!("\\x{}", hex.collect::<String>()))
            }
            Self::Date => KeyValue::Text(written::date(i32::from_be_bytes(fixed(value)?))),
            Self::Time => KeyValue::Text(written::time(i64::from_be_bytes(fixed(value)?))),
            Self::Timestamp => {
                KeyValue::Text(written::timestamp(i64::from_be_bytes(fixed(value)?), ""))
            }
            Self::TimestampTz => {
                KeyValue::Text(written::timestamp(i64::from_be_bytes(fixed(value)?), "+00"))
            }
            Self::Text | Self::Jsonb | Self::Uuid | Self::Cast => {
                let mut out = Vec::new();
                self.append(value, &mut out)?;
                KeyValue::Text(text(out)?)
            }
        })
    }
}

/// The values of a row at some places; none for nulls. None where it is no row.
fn values<'r>(row: &'r [u8], places: &[usize]) -> Option<Vec<Option<&'r [u8]>>> {
    let (count, mut rest) = row.split_first_chunk::<2>()?;
    let mut all = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (value, after) = match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => (None, after),
            Ok(length) => {
                let (value, after) = after.split_at_checked(length)?;
                (Some(value), after)
            }
        };
        all.push(value);
        rest = after;
    }
    places.iter().map(|place| all.get(*place).copied()).collect()
}

/// The key of a row, whose columns stand at these places.
pub(super) fn key(row: &[u8], forms: &[Form], places: &[usize]) -> Result<Key, Unfit> {
    let values = values(row, places).ok_or(Unfit::Malformed)?;
    let values = values.into_iter().zip(places).map(|(value, place)| {
        let form = forms.get(*place).ok_or(Unfit::Malformed)?;
        form.key(value.ok_or(Unfit::Value(*place, "is null, and part of the key"))?)
    });
    Ok(Key(values.collect::<Result<_, _>>()?))
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], Unfit> {
    value.try_into().map_err(|_| Unfit::Malformed)
}

/// Days from the epoch.
fn date(days: i32) -> Option<i32> {
    match days {
        i32::MAX | i32::MIN => Some(days),
        days => days.checked_add(EPOCH_DAYS).filter(|days| *days < i32::MAX),
    }
}

/// Microseconds from the epoch.
fn timestamp(micros: i64) -> Option<i64> {
    match micros {
        i64::MAX | i64::MIN => Some(micros),
        micros => micros.checked_add(EPOCH_MICROS).filter(|micros| *micros < i64::MAX),
    }
}

fn decimal<N: written::Wide>(value: &[u8], form: Form) -> Result<N, &'static str> {
    let (Form::Decimal128(_, scale) | Form::Decimal256(_, scale)) = form else {
        return Err("is no decimal");
    };
    let numeric = Numeric::read(value).ok_or("makes no sense")?;
    numeric.scaled(scale).ok_or(match numeric.sign() {
        Sign::Plus | Sign::Minus => "has more digits than its type",
        Sign::NaN | Sign::Infinity | Sign::MinusInfinity => "is NaN, which no decimal can be",
    })
}

fn array<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<arrow_buffer::NullBuffer>,
    permit: &Arc<Permit>,
) -> PrimitiveArray<T> {
    PrimitiveArray::new(ScalarBuffer::from(held(Buffer::from_vec(values), permit)), nulls)
}

fn primitive<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<arrow_buffer::NullBuffer>,
    permit: &Arc<Permit>,
) -> ArrayRef {
    Arc::new(array::<T>(values, nulls, permit))
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::{Array, RecordBatch};
    use arrow_schema::{Field, Schema};
    use tidegate_flow::ByteBudget;

    use super::*;

    fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut row = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            match value {
                None => row.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(value) => {
                    row.extend_from_slice(&(value.len() as i32).to_be_bytes());
                    row.extend_from_slice(value);
                }
            }
        }
        row
    }

    #[test]
    fn rows_become_columns_that_the_budget_knows_of() {
        let forms = [Form::Int4, Form::Text, Form::TimestampTz, Form::Bool, Form::Decimal128(5, 2)];
        let budget = ByteBudget::new(1 << 20);
        let holder = budget.holder(1 << 10).unwrap();
        let mut decoder = Decoder::new(&forms, 2, 100);
        let number = [0, 2, 0, 0, 0, 0, 0, 2, 0, 1, 0x08, 0xfc]; // 1.23
        let first = row(&[
            Some(&7_i32.to_be_bytes()),
            Some("grüß".as_bytes()),
            Some(&0_i64.to_be_bytes()),
            Some(&[1]),
            Some(&number),
        ]);
        decoder.push(&first).unwrap();
        decoder.push(&row(&[None; 5])).unwrap();
        assert_eq!(key(&first, &forms, &[1, 0]).unwrap().0.len(), 2);
        let columns = decoder.finish(None, &holder).unwrap();
        let fields = forms.iter().zip(["a", "b", "c", "d", "e"]);
        let fields = fields.map(|(form, name)| Field::new(name, form.data_type(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let rows = RecordBatch::try_new(schema, columns).unwrap();
        assert_eq!(rows.column(0).as_primitive::<Int32Type>().value(0), 7);
        assert_eq!(rows.column(1).as_string::<i32>().value(0), "grüß");
        let time = rows.column(2).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(time.value(0), EPOCH_MICROS);
        assert_eq!(rows.column(4).as_primitive::<Decimal128Type>().value(0), 123);
        assert!(rows.columns().iter().all(|column| column.is_null(1) && column.is_valid(0)));
        assert!(holder.held() > 100);
        drop((rows.project(&[1]).unwrap(), time));
        drop(rows);
        assert_eq!(holder.held(), 0);
    }

    #[test]
    fn what_is_no_row_is_refused_wherever_it_is_cut() {
        let whole = row(&[Some(&7_i32.to_be_bytes()), Some(b"text")]);
        let forms = [Form::Int4, Form::Text];
        for end in 0..whole.len() {
            let mut decoder = Decoder::new(&forms, 1, 0);
            assert_eq!(decoder.push(&whole[..end]), Err(Unfit::Malformed), "{end}");
            assert!(key(&whole[..end], &forms, &[1]).is_err());
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(Decoder::new(&forms, 1, 0).push(&longer), Err(Unfit::Malformed));
        let mut decoder = Decoder::new(&[Form::Int8], 1, 0);
        assert_eq!(decoder.push(&row(&[Some(&[0; 4])])), Err(Unfit::Malformed));
    }

    #[test]
    fn values_without_a_place_name_their_column() {
        let budget = ByteBudget::new(1 << 20);
        let holder = budget.holder(0).unwrap();
        let nan = [0, 0, 0, 0, 0xc0, 0, 0, 0];
        let mut decoder = Decoder::new(&[Form::Int2, Form::Decimal128(5, 2)], 1, 0);
        let nan = decoder.push(&row(&[None, Some(&nan)])).unwrap_err();
        assert_eq!(nan, Unfit::Value(1, "is NaN, which no decimal can be"));
        let mut decoder = Decoder::new(&[Form::TimestampTz], 1, 0);
        assert!(decoder.push(&row(&[Some(&(i64::MAX - 1).to_be_bytes())])).is_err());
        decoder.push(&row(&[Some(&i64::MAX.to_be_bytes())])).unwrap();
        let mut decoder = Decoder::new(&[Form::Text], 1, 0);
        decoder.push(&row(&[Some(&[0xff])])).unwrap();
        assert_eq!(decoder.finish(None, &holder).unwrap_err(), Unfit::Text(0));
    }
}
