//! What is asked on the command line, as one SQL query, and mistakes in it shown where they were
//! written.

use arrow_schema::DataType;
use tidegate::engine::Report;
use tidegate::model::{Mistake, Transform, log_schema};
use tidegate::sql::SqlTransform;

use super::Args;
use crate::failed::Failed;

/// The column that says which file a row is from, where several are read at once.
pub(super) const FILE: &str = "_scanned_file";

/// Columns that the codec `text` does not find.
const FOUND: [&str; 3] = ["severity", "level", "metadata"];

/// What helps with a configuration only.
const OF_CONFIGURATION: [&str; 5] = ["SELECT …", "transform", "codec =", "${", "inputs"];

/// A query in the making.
#[derive(Debug)]
pub(super) struct Query {
    /// Nothing where all rows are taken as they are.
    text: Option<String>,
    /// The options it is made of, and where in the text each stands.
    parts: Vec<Part>,
    by: Option<String>,
}

#[derive(Debug)]
struct Part {
    option: &'static str,
    start: usize,
    text: String,
}

/// What a query reads and gives.
#[derive(Debug)]
pub(super) struct Columns {
    /// How many columns are printed.
    pub(super) given: usize,
    /// What it reads that has to be found in a line, but for its time.
    pub(super) found: Option<&'static str>,
    /// Whether it reads the time, which is that of reading where it is not looked for.
    pub(super) timed: bool,
}

impl Query {
    /// Of the options; `files` is whether rows must say which file they are from.
    pub(super) fn new(args: &Args, files: bool) -> Result<Self, Failed> {
        if args.select.as_ref().is_some_and(|select| select.contains(FILE)) {
            return Err(Failed::usage(format!("error: --select: the name `{FILE}` is taken")));
        }
        let mut query = Self { text: None, parts: Vec::new(), by: args.by.clone() };
        let mut text = "SELECT ".to_owned();
        match (&args.by, &args.select) {
            (Some(by), _) => {
                text += "CAST((";
                query.part(&mut text, "--by", by);
                text += ") AS VARCHAR) AS key";
            }
            _ if args.count => text += "1 AS one",
            (None, Some(select)) => query.part(&mut text, "--select", select),
            (None, None) => text += "message",
        }
        if files {
            text += ", source AS ";
            text += FILE;
        }
        text += " FROM input";
        if let Some(condition) = &args.condition {
            text += " WHERE ";
            query.part(&mut text, "--where", condition);
        }
        let plain = query.parts.is_empty() && !files;
        Ok(Self { text: (!plain).then_some(text), ..query })
    }

    /// Adds an option; on lines of its own, so that a comment in it ends there.
    fn part(&mut self, text: &mut String, option: &'static str, part: &str) {
        self.parts.push(Part { option, start: text.len(), text: part.to_owned() });
        text.push_str(part);
        text.push('\n');
    }

    /// The query as a transform.
    pub(super) fn transform(&self) -> Result<Option<SqlTransform>, Failed> {
        let text = self.text.as_ref();
        let transform = text.map(|text| SqlTransform::from_query(text)).transpose();
        transform.map_err(|mistake| self.failed(mistake))
    }

    /// Which columns that transform reads and gives.
    pub(super) fn columns(&self, transform: Option<&SqlTransform>) -> Result<Columns, Failed> {
        let Some(transform) = transform else {
            return Ok(Columns { given: 1, found: None, timed: false });
        };
        let input = log_schema();
        let failed = |mistake| self.failed(mistake);
        let read = transform.columns(&input).map_err(failed)?;
        let schema = transform.plan(&input).map_err(failed)?.schema();
        let given = schema.fields().iter().filter(|field| field.name() != FILE).count();
        let reads = |name: &str| read.iter().any(|index| input.field(*index).name() == name);
        let found = FOUND.into_iter().find(|name| reads(name));
        Ok(Columns { given, found, timed: reads("timestamp") })
    }

    /// What rows are grouped by, as it was written.
    pub(super) fn by(&self) -> &str {
        self.by.as_deref().unwrap_or_default()
    }

    /// Whether what rows are grouped by is a number.
    pub(super) fn by_is_number(&self) -> bool {
        let query = format!("SELECT ({}\n) AS key FROM input", self.by());
        let planned = SqlTransform::from_query(&query).and_then(|sql| sql.plan(&log_schema()));
        planned.is_ok_and(|stage| {
            let kind = stage.schema().field(0).data_type().clone();
            kind.is_integer() || kind == DataType::Boolean
        })
    }

    /// A mistake, shown in the option that it is in.
    pub(super) fn failed(&self, mistake: Mistake) -> Failed {
        let message = mistake.message.strip_prefix("query: ").unwrap_or(&mistake.message);
        let here = |help: &String| !OF_CONFIGURATION.iter().any(|word| help.contains(word));
        let help = mistake.help.clone().filter(here);
        let mut mistake = Mistake { message: message.to_owned(), help, ..mistake.clone() };
        let within = mistake.span.as_ref().and_then(|span| {
            let ends = |part: &&Part| span.start <= part.start + part.text.len();
            self.parts.iter().filter(|part| part.start <= span.start).find(ends)
        });
        let (file, text) = match (within, &self.parts[..]) {
            (Some(part), _) => {
                mistake.span = mistake
                    .span
                    .map(|span| span.start - part.start..span.end.saturating_sub(part.start));
                (part.option, &*part.text)
            }
            // Of the query as a whole: where it has one option only, that is it.
            (None, [part]) => {
                mistake.span = Some(0..part.text.len());
                (part.option, &*part.text)
            }
            (None, _) => {
                mistake.span = None;
                ("the options", "")
            }
        };
        Failed::usage(Report::new(file, text, vec![mistake]))
    }
}
