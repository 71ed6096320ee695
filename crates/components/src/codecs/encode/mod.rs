//! Rows to bytes: one file and one line here for each format.

use std::fmt;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use tidegate_model::{Mistake, Result, Spanned};

register! {
    /// By the name that a configuration's `codec` gives them.
    ENCODERS: Encoder => ndjson, text,
}

/// How rows become bytes; the formats keep nothing from row to row.
pub struct Encoder {
    /// One line: what it writes.
    pub summary: &'static str,
    /// Which columns it reads of rows with this schema, as indices in ascending order; a mistake,
    /// with what to write instead, where it can't write them.
    pub columns: fn(&Schema) -> Result<Vec<usize>, Mistake>,
    /// Appends rows, from one of them on, and stops once there are so many bytes or more, or no
    /// more rows; gives the row to go on with. At most one row more is written than there is room
    /// for, so that a buffer is bounded by that and the longest row.
    pub encode:
        fn(rows: &RecordBatch, from: usize, out: &mut Vec<u8>, enough: usize) -> Result<usize>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("summary", &self.summary).finish_non_exhaustive()
    }
}

impl Encoder {
    /// The one that a configuration names; `text` where it names none.
    ///
    /// # Errors
    ///
    /// A mistake that lists them, where there is none of that name.
    pub fn named(name: Option<&Spanned<String>>) -> Result<&'static Self, Mistake> {
        let Some(name) = name else { return Ok(&text::SPEC) };
        let found = ENCODERS.iter().find(|(known, _)| known == name.get_ref());
        found.map(|(_, encoder)| *encoder).ok_or_else(|| {
            let names: Vec<_> = ENCODERS.iter().map(|(known, _)| format!("{known:?}")).collect();
            Mistake::at(
                name.span(),
                format!("there is no codec {:?} to write with", name.get_ref()),
            )
            .help(format!("one of {}", names.join(", ")))
        })
    }
}
