//! `csv`: comma-separated values ([RFC 4180]), byte for byte as `psql`'s `\copy … csv` writes them.
//!
//! Values are as Postgres writes them: `t` and `f`, `2024-02-29 12:00:00.25+00`, `\x0102`, numbers with
//! all their digits; lists, structs and maps are JSON. A null is nothing at all, and an empty text is
//! `""`. A value is quoted where it has the delimiter, a quote or a line end in it, or is what stands
//! for null.
//!
//! [RFC 4180]: https://www.rfc-editor.org/rfc/rfc4180

use std::ops::Range;

use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use memchr::{memchr_iter, memrchr};
use serde::Deserialize;
use tidegate_model::{Error, Mistake, Result, Spanned};

use super::Encoder;
use crate::codecs::values::{Column, Style, writable};

/// See the module.
pub const SPEC: Encoder = Encoder {
    summary: "comma-separated values, as Postgres writes them",
    columns,
    encode: |rows, from, out, enough| Dialect::default().encode(rows, from, out, enough),
};

/// What numbers, times and bytes are written with: where nothing else means something, they need no look.
const OF_NUMBERS: &[u8] = b"0123456789abcdef+-.:E tNIinyBC\\x";

/// The settings that only CSV has.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    /// Whether a file begins with the names of the columns; it does where nothing is said.
    pub(crate) header: Option<Spanned<bool>>,
    /// Between values: `,`.
    pub(crate) delimiter: Option<Spanned<String>>,
    /// Around values that need it: `"`.
    pub(crate) quote: Option<Spanned<String>>,
    /// What stands for null: nothing.
    pub(crate) null: Option<Spanned<String>>,
}

/// The mistake of such settings where the codec is another.
pub(crate) fn not_csv(options: &Spanned<Options>) -> Mistake {
    let said = "these settings are for CSV, and the codec is another";
    Mistake::at(options.span(), said).help("write codec = \"csv\", or remove them")
}

/// How CSV is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dialect {
    delimiter: u8,
    quote: u8,
    null: String,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { delimiter: b',', quote: b'"', null: String::new() }
    }
}

impl Dialect {
    /// Of settings, as Postgres takes them.
    pub(crate) fn new(options: &Options) -> Result<Self, Mistake> {
        let mut dialect = Self::default();
        if let Some(delimiter) = &options.delimiter {
            dialect.delimiter = one_byte(delimiter, "a delimiter")?;
        }
        if let Some(quote) = &options.quote {
            dialect.quote = one_byte(quote, "a quote")?;
        }
        if dialect.delimiter == dialect.quote {
            let at = options.quote.as_ref().or(options.delimiter.as_ref()).map(Spanned::span);
            let said = "delimiter and quote are the same";
            let mistake = at.map_or_else(|| Mistake::new(said), |at| Mistake::at(at, said));
            return Err(mistake.help("choose two that differ"));
        }
        if let Some(null) = &options.null {
            let text = null.get_ref();
            let special = [dialect.delimiter, dialect.quote, b'\r', b'\n'];
            if text.bytes().any(|byte| special.contains(&byte)) {
                let said = "what stands for null has a delimiter, a quote or a line end in it";
                return Err(Mistake::at(null.span(), said).help("such as \"\\\\N\", or \"NULL\""));
            }
            dialect.null.clone_from(text);
        }
        Ok(dialect)
    }

    /// The names of the columns, as a line.
    pub(crate) fn head(&self, schema: &Schema, out: &mut Vec<u8>) {
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                out.push(self.delimiter);
            }
            let start = out.len();
            out.extend_from_slice(field.name().as_bytes());
            self.quote_from(start, schema.fields().len() == 1, out);
        }
        out.push(b'\n');
    }

    /// See [`Encoder::encode`].
    pub(crate) fn encode(
        &self,
        rows: &RecordBatch,
        from: usize,
        out: &mut Vec<u8>,
        enough: usize,
    ) -> Result<usize> {
        let columns: Option<Vec<_>> = rows
            .columns()
            .iter()
            .map(|array| Some((Column::new(array, Style::Sql)?, self.needs_no_look(array))))
            .collect();
        let columns = columns.ok_or_else(|| {
            Error::fatal(format!("csv can't write rows of the schema {}", rows.schema_ref()))
        })?;
        let is_single = columns.len() == 1;
        let mut row = from;
        while row < rows.num_rows() && out.len() < enough {
            for (index, (column, is_plain)) in columns.iter().enumerate() {
                if index > 0 {
                    out.push(self.delimiter);
                }
                if column.is_null(row) {
                    out.extend_from_slice(self.null.as_bytes());
                    continue;
                }
                let start = out.len();
                column.write(row, out);
                if !is_plain {
                    self.quote_from(start, is_single, out);
                }
            }
            out.push(b'\n');
            row += 1;
        }
        Ok(row)
    }

    /// Whether no value of a column ever needs quotes.
    fn needs_no_look(&self, array: &dyn Array) -> bool {
        let plain = array.data_type().is_numeric()
            || matches!(
                array.data_type(),
                DataType::Boolean
                    | DataType::Date32
                    | DataType::Date64
                    | DataType::Time32(_)
                    | DataType::Time64(_)
                    | DataType::Timestamp(_, _)
                    | DataType::Binary
                    | DataType::LargeBinary
                    | DataType::BinaryView
                    | DataType::FixedSizeBinary(_)
            );
        plain
            && self.null.is_empty()
            && !OF_NUMBERS.contains(&self.delimiter)
            && !OF_NUMBERS.contains(&self.quote)
    }

    /// Quotes what was written last, a value or a name, where it needs that: as
    /// `CopyAttributeOutCSV` of Postgres.
    fn quote_from(&self, start: usize, is_single: bool, out: &mut Vec<u8>) {
        let written = out.get(start..).unwrap_or_default();
        let is_null = written == self.null.as_bytes();
        // What ends the data of a COPY, were it alone on a line.
        let is_end = is_single && written == b"\\.";
        if is_null || is_end || self.has_special(written) {
            self.quote(start, out);
        }
    }

    /// Whether there is a delimiter, a quote or a line end. Blocks of a fixed size become a few
    /// vector instructions each; the last may overlap what was looked at.
    fn has_special(&self, value: &[u8]) -> bool {
        fn blocks<const SIZE: usize>(csv: &Dialect, value: &[u8]) -> Option<bool> {
            let last = value.last_chunk::<SIZE>()?;
            let (blocks, _) = value.as_chunks::<SIZE>();
            Some(blocks.iter().chain([last]).any(|block| csv.any_special(block)))
        }
        blocks::<32>(self, value)
            .or_else(|| blocks::<8>(self, value))
            .unwrap_or_else(|| self.any_special(value))
    }

    fn any_special(&self, bytes: &[u8]) -> bool {
        let (delimiter, quote) = (self.delimiter, self.quote);
        bytes.iter().fold(false, |any, &byte| {
            any | (byte == delimiter) | (byte == quote) | (byte == b'\n') | (byte == b'\r')
        })
    }

    /// Puts quotes around what is written from `start` on, and doubles those in it: where it is, and
    /// from the back, so that nothing is copied over that is still to be moved.
    fn quote(&self, start: usize, out: &mut Vec<u8>) {
        let mut end = out.len();
        let doubled = memchr_iter(self.quote, &out[start..]).count();
        out.resize(end + doubled + 2, self.quote);
        let mut moved_to = out.len() - 1;
        let mut move_back = |out: &mut Vec<u8>, range: Range<usize>| {
            moved_to -= range.len();
            out.copy_within(range, moved_to);
        };
        while let Some(at) = memrchr(self.quote, &out[start..end]) {
            // The quote goes twice, once with what is behind it.
            let at = start + at;
            move_back(out, at..end);
            move_back(out, at..at + 1);
            end = at;
        }
        move_back(out, start..end);
        out[start] = self.quote;
    }
}

fn one_byte(text: &Spanned<String>, what: &str) -> Result<u8, Mistake> {
    match text.get_ref().as_bytes() {
        [byte] if !matches!(byte, b'\r' | b'\n' | 0) => Ok(*byte),
        _ => {
            let said = format!("{what} is one character of ASCII, and no line end");
            Err(Mistake::at(text.span(), said).help("such as \";\" or \"\\t\""))
        }
    }
}

fn columns(schema: &Schema) -> Result<Vec<usize>, Mistake> {
    let fields = schema.fields();
    if let Some(field) = fields.iter().find(|field| !writable(field.data_type(), Style::Sql)) {
        let (name, data_type) = (field.name(), field.data_type());
        return Err(Mistake::new(format!("csv can't write the column `{name}`: {data_type}"))
            .help(format!("leave it out, or make it text in SQL: CAST({name} AS VARCHAR)")));
    }
    Ok((0..fields.len()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;
    use tidegate_model::Settings;

    use super::*;

    fn rows() -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]));
        let texts = [Some("a,b"), Some(""), None, Some("say \"hi\"\r\n")];
        let texts: ArrayRef = Arc::new(StringArray::from_iter(texts));
        RecordBatch::try_from_iter([("id", ids), ("odd, name", texts)]).unwrap()
    }

    fn written(dialect: &Dialect, rows: &RecordBatch) -> String {
        let mut out = Vec::new();
        dialect.head(&rows.schema(), &mut out);
        let mut row = 0;
        while row < rows.num_rows() {
            let enough = out.len() + 1;
            row = dialect.encode(rows, row, &mut out, enough).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    fn dialect(text: &str) -> Result<Dialect, Mistake> {
        Dialect::new(&Settings::from_toml(text).unwrap().parse().unwrap())
    }

    #[test]
    fn what_needs_quotes_has_them_and_nothing_else() {
        let expected = "id,\"odd, name\"\n1,\"a,b\"\n,\"\"\n3,\n4,\"say \"\"hi\"\"\r\n\"\n";
        assert_eq!(written(&Dialect::default(), &rows()), expected);
        let other = dialect("delimiter = \"\\t\"\nquote = \"'\"\nnull = \"4\"").unwrap();
        let expected = "id\todd, name\n1\ta,b\n4\t\n3\t4\n'4'\t'say \"hi\"\r\n'\n";
        assert_eq!(written(&other, &rows()), expected);
        let odd = dialect("delimiter = \"1\"").unwrap();
        assert!(written(&odd, &rows()).contains("\n\"1\"1a,b\n"), "a number may need them too");
        let end: ArrayRef = Arc::new(StringArray::from(vec!["\\.", "x"]));
        let end = RecordBatch::try_from_iter([("a", end)]).unwrap();
        assert_eq!(written(&Dialect::default(), &end), "a\n\"\\.\"\nx\n");
    }

    proptest! {
        /// With what is special at every place of blocks of every size.
        #[test]
        fn quotes_are_where_the_plain_way_puts_them(
            clean in "[a-zé ]{0,70}",
            special in "[,\"\r\n]{0,3}",
            more in "[a-z\"]{0,40}",
        ) {
            let text = format!("{clean}{special}{more}");
            let special = text.is_empty() || text.contains([',', '"', '\r', '\n']);
            let plain = match special {
                true => format!("\"{}\"", text.replace('"', "\"\"")),
                false => text.clone(),
            };
            let mut out = format!("before,{text}").into_bytes();
            Dialect::default().quote_from("before,".len(), false, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("before,{plain}"));
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_told() {
        for (text, said) in [
            ("delimiter = \"\"", "one character"),
            ("delimiter = \"ab\"", "one character"),
            ("delimiter = \"\\n\"", "one character"),
            ("quote = \"é\"", "one character"),
            ("delimiter = '\"'", "the same"),
            ("null = \"a,b\"", "stands for null"),
        ] {
            let mistake = dialect(text).unwrap_err();
            assert!(mistake.message.contains(said), "{text}: {mistake:?}");
        }
    }
}
