//! `severity('warn')`: the number of a word, as OpenTelemetry counts.

use std::sync::Arc;

use arrow_array::UInt8Array;
use arrow_schema::DataType;
use datafusion_common::cast::as_string_view_array;
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use tidegate_model::severity_of;

use crate::names::alike;

/// One word for each number, to tell people what there is.
const WORDS: [&str; 7] = ["trace", "debug", "info", "notice", "warn", "error", "fatal"];

/// A word that nobody uses is a mistake where it is written in the query, and null where it comes
/// from a row.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Severity {
    signature: Signature,
}

impl Severity {
    pub(crate) fn new() -> Self {
        let signature = Signature::uniform(1, vec![DataType::Utf8View], Volatility::Immutable);
        Self { signature }
    }
}

impl ScalarUDFImpl for Severity {
    fn name(&self) -> &str {
        "severity"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            // Only where the planner works out constants.
            Some(ColumnarValue::Scalar(word)) => {
                let number = word.try_as_str().flatten().map(constant).transpose()?;
                Ok(ColumnarValue::Scalar(ScalarValue::UInt8(number)))
            }
            Some(ColumnarValue::Array(words)) => {
                let words = as_string_view_array(words)?;
                let numbers = words.iter().map(|word| word.and_then(severity_of));
                Ok(ColumnarValue::Array(Arc::new(numbers.collect::<UInt8Array>())))
            }
            None => exec_err!("severity needs a word"),
        }
    }
}

fn constant(word: &str) -> Result<u8> {
    if let Some(number) = severity_of(word) {
        return Ok(number);
    }
    let meant = alike(&word.to_lowercase(), WORDS.into_iter());
    let meant = meant.map(|meant| format!("did you mean '{meant}'? ")).unwrap_or_default();
    let words = WORDS.join(", ");
    exec_err!("'{word}' is no severity; {meant}there are {words} and their usual variants")
}
