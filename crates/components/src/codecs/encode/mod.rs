//! Rows to bytes: one file and one line here for each format.

use std::fmt;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use tidegate_model::{Mistake, Result, Spanned};

register! {
    /// By the name that a configuration's `codec` gives them.
    ENCODERS: Encoder => csv, ndjson, text,
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
        Self::named_beside(name, &[])
    }

    /// As [`named`](Self::named), where there are others too that are no encoders.
    fn named_beside(
        name: Option<&Spanned<String>>,
        others: &[&str],
    ) -> Result<&'static Self, Mistake> {
        let Some(name) = name else { return Ok(&text::SPEC) };
        let found = ENCODERS.iter().find(|(known, _)| known == name.get_ref());
        found.map(|(_, encoder)| *encoder).ok_or_else(|| {
            let names = ENCODERS.iter().map(|(known, _)| known).chain(others);
            let mut names: Vec<_> = names.map(|known| format!("{known:?}")).collect();
            names.sort_unstable();
            Mistake::at(
                name.span(),
                format!("there is no codec {:?} to write with", name.get_ref()),
            )
            .help(format!("one of {}", names.join(", ")))
        })
    }
}

/// How rows are written, settings and all.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    /// Lines without a setting.
    Lines(&'static Encoder),
    /// CSV.
    Csv { dialect: csv::Dialect, header: bool },
}

impl Format {
    /// Of settings; `text` where nothing is said. Others that there are beside are only told of.
    pub(crate) fn new(
        codec: Option<&Spanned<String>>,
        options: Option<&Spanned<csv::Options>>,
        others: &[&str],
    ) -> Result<Self, Mistake> {
        let encoder = Encoder::named_beside(codec, others)?;
        let is_csv = codec.is_some_and(|codec| codec.get_ref() == "csv");
        match options {
            None if !is_csv => Ok(Self::Lines(encoder)),
            Some(options) if !is_csv => Err(csv::not_csv(options)),
            options => {
                let none = csv::Options::default();
                let options = options.map_or(&none, Spanned::get_ref);
                let header = options.header.as_ref().is_none_or(|header| *header.get_ref());
                Ok(Self::Csv { dialect: csv::Dialect::new(options)?, header })
            }
        }
    }

    /// See [`Encoder::columns`].
    pub(crate) fn columns(&self, input: &Schema) -> Result<Vec<usize>, Mistake> {
        match self {
            Self::Lines(encoder) => (encoder.columns)(input),
            Self::Csv { .. } => (csv::SPEC.columns)(input),
        }
    }

    /// See [`Encoder::encode`].
    pub(crate) fn encode(
        &self,
        rows: &RecordBatch,
        from: usize,
        out: &mut Vec<u8>,
        enough: usize,
    ) -> Result<usize> {
        match self {
            Self::Lines(encoder) => (encoder.encode)(rows, from, out, enough),
            Self::Csv { dialect, .. } => dialect.encode(rows, from, out, enough),
        }
    }

    /// What a file begins with.
    pub(crate) fn head(&self, columns: &Schema) -> Vec<u8> {
        let mut head = Vec::new();
        if let Self::Csv { dialect, header: true } = self {
            dialect.head(columns, &mut head);
        }
        head
    }
}
