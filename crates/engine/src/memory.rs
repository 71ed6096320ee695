//! What rows pin in memory, what a transform made of it, and how to keep only what is used.

use std::collections::HashSet;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, make_array};
use arrow_data::ArrayData;
use arrow_data::transform::MutableArrayData;
use arrow_schema::DataType;

/// Whole buffers: what stays in memory as long as the rows do, each buffer once.
pub(crate) fn pinned_bytes(rows: &RecordBatch) -> usize {
    let mut seen = HashSet::new();
    rows.columns().iter().map(|column| pin(&column.to_data(), &mut seen)).sum()
}

/// The bytes of those buffers of `made` that `from` does not share.
pub(crate) fn made_bytes(from: &RecordBatch, made: &RecordBatch) -> usize {
    let mut seen = HashSet::new();
    for column in from.columns() {
        pin(&column.to_data(), &mut seen);
    }
    made.columns().iter().map(|column| pin(&column.to_data(), &mut seen)).sum()
}

fn pin(data: &ArrayData, seen: &mut HashSet<usize>) -> usize {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    let buffers = data.buffers().iter().chain(nulls);
    let own: usize = buffers
        .filter(|buffer| seen.insert(buffer.data_ptr().as_ptr() as usize))
        .map(|buffer| buffer.capacity())
        .sum();
    own + data.child_data().iter().map(|child| pin(child, seen)).sum::<usize>()
}

/// Rows that pin no more than twice what they use: copied, where they pin more than that.
pub(crate) fn compacted(rows: &RecordBatch, used_bytes: usize) -> Option<RecordBatch> {
    if pinned_bytes(rows) / 2 <= used_bytes {
        return None;
    }
    let columns = rows.columns().iter().map(copied).collect();
    // The same columns with the same rows: it can't fail, and if it did, nothing would be lost.
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(rows.schema(), columns, &options).ok()
}

/// A copy in buffers of its own, with nothing in them that is not used.
fn copied(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => std::sync::Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => std::sync::Arc::new(column.as_binary_view().gc()),
        // A dictionary's values are few, and shared by all batches of its source.
        DataType::Dictionary(..) => std::sync::Arc::clone(column),
        _ => {
            let data = column.to_data();
            let mut copy = MutableArrayData::new(vec![&data], false, data.len());
            // What fits once fits again.
            match copy.try_extend(0, 0, data.len()) {
                Ok(()) => make_array(copy.freeze()),
                Err(_) => std::sync::Arc::clone(column),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{StringViewArray, UInt64Array};
    use arrow_buffer::{BooleanBuffer, Buffer, ScalarBuffer};

    use super::*;

    /// Lines of 100 bytes that point into one chunk, and their numbers.
    fn chunk(lines: u32) -> RecordBatch {
        let text = Buffer::from(vec![b'x'; lines as usize * 100]);
        let views = (0..lines)
            .map(|line| arrow_data::ByteView::new(100, b"xxxx").with_offset(line * 100).into());
        let views = ScalarBuffer::from(views.collect::<Vec<u128>>());
        let messages: ArrayRef = Arc::new(StringViewArray::new(views, vec![text], None));
        let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..lines.into()));
        RecordBatch::try_from_iter([("message", messages), ("number", numbers)]).unwrap()
    }

    fn used(rows: &RecordBatch) -> usize {
        rows.num_rows() * (100 + 16 + 8)
    }

    #[test]
    fn a_few_lines_of_a_chunk_are_copied_out_of_it() {
        let all = chunk(1_000);
        assert!(compacted(&all, used(&all)).is_none(), "all of it is used");
        let half = all.slice(0, 600);
        assert!(compacted(&half, used(&half)).is_none(), "more than half of it is used");
        let few = all.slice(500, 10);
        let copy = compacted(&few, used(&few)).unwrap();
        assert_eq!(copy, few);
        assert!(pinned_bytes(&copy) < 4_000, "{}", pinned_bytes(&copy));
    }

    #[test]
    fn only_what_was_made_is_charged() {
        let all = chunk(1_000);
        assert_eq!(made_bytes(&all, &all.slice(3, 9)), 0);
        let keep = BooleanBuffer::collect_bool(1_000, |row| row % 2 == 0).into();
        let filtered = arrow_select::filter::filter_record_batch(&all, &keep).unwrap();
        let made = made_bytes(&all, &filtered);
        assert!((12_000..16_000).contains(&made), "500 views and 500 numbers, no text: {made}");
    }
}
