//! The transform `sql`: its settings, and a query checked as soon as it can be.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arrow_schema::SchemaRef;
use serde::Deserialize;
use tidegate_model::{Mistake, Settings, Spanned, Stage, Transform, TransformSpec};

use crate::plan::{self, Plan};
use crate::query::Query;
use crate::refusal::{QueryText, Refusal};
use crate::stage::SqlStage;
use crate::{required, severe};

/// The transform `sql`.
pub const SPEC: TransformSpec = TransformSpec {
    summary: "filters rows and works out columns, with a SQL query",
    example: "\
query = \"SELECT timestamp, level, message FROM input WHERE severity >= severity('error')\"
",
    build: |settings| Ok(Box::new(SqlTransform::from_settings(settings)?)),
};

const WORKERS_MAX: usize = 64;

/// The settings of an `sql` transform.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `SELECT … FROM input WHERE …`.
    query: Spanned<String>,
    /// On how many workers it runs, 1 to 64; as many as there are if not given.
    workers: Option<Spanned<i64>>,
}

/// A query of the right shape. What its names and types mean depends on the rows it is given.
#[derive(Clone, Debug)]
pub struct SqlTransform {
    text: QueryText,
    query: Query,
    workers: Option<NonZeroUsize>,
    /// The last plan, and for which columns: planning asks for the same one several times.
    last: Arc<Mutex<Option<Fitted>>>,
}

/// A plan, and the columns that it is for.
type Fitted = (SchemaRef, Arc<Plan>);

impl SqlTransform {
    /// Of a component's settings.
    ///
    /// # Errors
    ///
    /// Where a setting is wrong, or the query is more than a projection and a filter.
    pub fn from_settings(settings: &Settings<'_>) -> Result<Self, Mistake> {
        let Config { query, workers } = settings.parse()?;
        let workers = workers.map(workers_of).transpose()?;
        Ok(Self { workers, ..Self::parsed(query)? })
    }

    /// Of a query that stands alone, on as many workers as there are. What is wrong with it is told
    /// in bytes of this text, here and when it is planned.
    ///
    /// # Errors
    ///
    /// Where the query is more than a projection and a filter.
    pub fn from_query(query: &str) -> Result<Self, Mistake> {
        Self::parsed(Spanned::new(0..query.len(), query.to_owned()))
    }

    fn parsed(query: Spanned<String>) -> Result<Self, Mistake> {
        let text = QueryText::new(query);
        let query = with_stack(|| Query::parse(text.text()));
        let query = query.map_err(|refusal| text.mistake(refusal))?;
        Ok(Self { text, query, workers: None, last: Arc::default() })
    }

    /// The plan for rows of this schema.
    fn planned(&self, input: &SchemaRef) -> Result<Arc<Plan>, Refusal> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((schema, plan)) = &*last()
            && schema == input
        {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(with_stack(|| plan::plan(&self.query, input))?);
        *last() = Some((Arc::clone(input), Arc::clone(&plan)));
        Ok(plan)
    }
}

fn workers_of(workers: Spanned<i64>) -> Result<NonZeroUsize, Mistake> {
    let count = usize::try_from(*workers.get_ref()).ok().and_then(NonZeroUsize::new);
    count.filter(|count| count.get() <= WORKERS_MAX).ok_or_else(|| {
        let said = format!("workers: {} is not from 1 to {WORKERS_MAX}", workers.get_ref());
        Mistake::at(workers.span(), said).help("leave it out for as many as there are")
    })
}

/// Parsing and planning recurse into an expression, in frames that are large where they are not
/// optimised: they get a stack of their own, of which only what is used is ever there.
fn with_stack<T: Send>(work: impl FnOnce() -> Result<T, Refusal> + Send) -> Result<T, Refusal> {
    const STACK_BYTES: usize = 64 << 20;
    let failed =
        || Refusal::everywhere("it can't be planned").help("split it into simpler queries");
    thread::scope(|scope| {
        let planner = thread::Builder::new().name("sql planner".to_owned());
        let planner = planner.stack_size(STACK_BYTES).spawn_scoped(scope, work);
        planner.map_err(|_| failed())?.join().unwrap_or_else(|_| Err(failed()))
    })
}

impl Transform for SqlTransform {
    fn columns(&self, input: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        with_stack(|| plan::columns(&self.query, input))
            .map_err(|refusal| self.text.mistake(refusal))
    }

    fn plan(&self, input: &SchemaRef) -> Result<Box<dyn Stage>, Mistake> {
        let plan = self.planned(input).map_err(|refusal| self.text.mistake(refusal))?;
        Ok(Box::new(SqlStage::new(plan)))
    }

    fn required(&self, input: &SchemaRef, column: &str) -> Option<BTreeSet<String>> {
        // What can't be planned is said when it is planned.
        required::required(&*self.planned(input).ok()?, input, column)
    }

    fn severity_min(&self, input: &SchemaRef) -> Option<u8> {
        severe::severity_min(&*self.planned(input).ok()?, input)
    }

    fn workers(&self) -> Option<NonZeroUsize> {
        self.workers
    }
}
