//! What only the other side of a source knows: asked for once, before the pipeline is planned to its
//! end.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use futures::future::try_join_all;
use tidegate_model::{Error, Result};

use crate::graph::{Builder, GraphMistake, Pipeline, Role, SourceNode, place};
use crate::plan::{Plan, Planned, plan};
use crate::stop::panicked;

impl Pipeline {
    /// Lets all sources learn at the same time what they don't know, and plans what waited for it.
    ///
    /// # Errors
    ///
    /// The first that a source meets, by its name; `Invalid` with all mistakes that come to light.
    pub(crate) async fn prepare(self) -> Result<(Builder, Plan)> {
        let Self { mut builder, planned } = self;
        try_join_all(builder.sources.iter_mut().map(learn)).await?;
        if let Planned::Ready(plan) = planned {
            return Ok((builder, plan));
        }
        match plan(&builder) {
            Ok(Planned::Ready(plan)) => Ok((builder, plan)),
            Ok(Planned::Waits(unchecked)) => {
                let names =
                    unchecked.iter().map(|unchecked| place(Role::Source, &unchecked.source));
                let names = Vec::from_iter(names).join(", ");
                Err(Error::fatal("it has connected and does not know its columns").within(names))
            }
            Err(mistakes) => {
                let lines = Vec::from_iter(mistakes.into_iter().map(line));
                Err(Error::invalid(lines.join("\n")))
            }
        }
    }
}

async fn learn(node: &mut SourceNode) -> Result<()> {
    let prepared = AssertUnwindSafe(node.source.prepare()).catch_unwind().await;
    let prepared = prepared.unwrap_or_else(|panic| Err(panicked(&*panic)));
    prepared.map_err(|error| error.within(place(Role::Source, &node.name)))
}

/// A mistake as a line: whose, what, and what to write instead. Its place in a text is not known
/// any more.
fn line(mistake: GraphMistake) -> String {
    let GraphMistake { component, mistake, .. } = mistake;
    let whose = component.map(|(role, name)| place(role, &name) + ": ").unwrap_or_default();
    let help = mistake.help.map(|help| format!("; {help}")).unwrap_or_default();
    let line = format!("{whose}{}{help}", mistake.message);
    line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
