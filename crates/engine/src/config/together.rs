//! The graph's mistakes together with those of the text: what one component has wrong must not hide
//! what others have wrong, nor be blamed on them.

use std::collections::HashMap;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures_core::future::BoxFuture;
use tidegate_model::{
    Commit, Delivered, Error, Mistake, Moment, Output, Result as ModelResult, Sink, SinkContext,
    Source, SourceContext, SourceStream, Stage, Transform, Written, log_schema,
};

use super::Document;
use super::component::{Component, Made};
use crate::graph::{Builder, GraphMistake, Pipeline, Role, SinkOptions};

/// Builds the pipeline, or finds all mistakes there are.
///
/// The first pass has every component, with stand-ins for those that could not be made, so that all
/// names are known. Mistakes in the wiring hide those in the planning, so further passes leave out
/// what is wrong and what is downstream of that, until nothing more is found.
pub(crate) fn check(document: Document<'_>) -> Result<Pipeline, Vec<Mistake>> {
    let Document { text, builder, memory_at, components, complete, mistakes } = document;
    let is_input = |component: &Component<'_>| component.role != Role::Sink;
    let names = components.iter().enumerate().map(|(index, component)| {
        let name: &str = &component.name;
        (name, index)
    });
    let mut checker = Checker {
        text,
        components: &components,
        names: names.collect(),
        names_known: complete && components.iter().any(is_input),
        wrong: vec![false; components.len()],
        mistakes,
    };
    let (memory, data_dir, timeout) =
        (builder.memory, builder.data_dir.clone(), builder.shutdown_timeout);
    let empty = || Builder::default().memory(memory).data_dir(&data_dir).shutdown_timeout(timeout);
    match checker.all(builder).build() {
        Ok(pipeline) if checker.mistakes.is_empty() => return Ok(pipeline),
        Ok(_) => return Err(checker.mistakes),
        Err(found) => checker.take(found, memory_at),
    }
    // Each pass finds somebody wrong who was not before, or is the last.
    loop {
        let before = checker.wrong.iter().filter(|wrong| **wrong).count();
        let Some(rest) = checker.healthy(empty()) else { break };
        match rest.build() {
            Ok(_) => break,
            Err(found) => checker.take(found, None),
        }
        if checker.wrong.iter().filter(|wrong| **wrong).count() == before {
            break;
        }
    }
    Err(checker.mistakes)
}

struct Checker<'d, 'i> {
    text: &'d str,
    components: &'d [Component<'i>],
    names: HashMap<&'d str, usize>,
    // Whether a name that is not among them can be called unknown.
    names_known: bool,
    wrong: Vec<bool>,
    mistakes: Vec<Mistake>,
}

impl Checker<'_, '_> {
    /// All components, with stand-ins for those that can't be made.
    fn all(&mut self, mut builder: Builder) -> Builder {
        for (index, component) in self.components.iter().enumerate() {
            let made = component.make(self.text).unwrap_or_else(|mistake| {
                self.wrong[index] = true;
                self.mistakes.push(mistake);
                stand_in(component.role)
            });
            builder = component.add_to(builder, made);
        }
        let sinks = self.components.iter().any(|component| component.role == Role::Sink);
        if sinks && self.wrong.contains(&true) {
            // Who would have read what may not be known, so nobody is to be called unread.
            let all = vec![true; self.components.len()];
            builder = self.read_all(builder, &all);
        }
        builder
    }

    /// The components that have nothing wrong upstream of them, where there are some.
    fn healthy(&self, mut builder: Builder) -> Option<Builder> {
        let healthy: Vec<bool> = self.downstream().iter().map(|wrong| !wrong).collect();
        let mut sources = 0;
        for (component, _) in self.components.iter().zip(&healthy).filter(|(_, healthy)| **healthy)
        {
            let made = component.make(self.text).ok()?;
            builder = component.add_to(builder, made);
            sources += usize::from(component.role == Role::Source);
        }
        (sources > 0).then(|| self.read_all(builder, &healthy))
    }

    /// Adds a sink that reads all of these.
    fn read_all(&self, builder: Builder, which: &[bool]) -> Builder {
        let mut name = "_".to_owned();
        while self.names.contains_key(name.as_str()) {
            name.push('_');
        }
        let read = self.components.iter().zip(which);
        let read = read.filter(|(component, which)| **which && component.role != Role::Sink);
        let inputs: Vec<&str> = read.map(|(component, _)| &*component.name).collect();
        builder.sink(&name, &inputs, SinkOptions::default(), Box::new(StandIn) as Box<dyn Sink>)
    }

    /// Whose output an input is.
    fn named(&self, input: &str) -> Option<usize> {
        self.names.get(input.strip_suffix(".rejects").unwrap_or(input)).copied()
    }

    /// Who is wrong, or has something wrong upstream.
    fn downstream(&self) -> Vec<bool> {
        let mut wrong = self.wrong.clone();
        loop {
            let mut grown = false;
            for (index, component) in self.components.iter().enumerate() {
                let mut inputs = component.inputs.iter();
                let fed =
                    inputs.any(|name| self.named(name.get_ref()).is_some_and(|from| wrong[from]));
                if fed && !wrong[index] {
                    wrong[index] = true;
                    grown = true;
                }
            }
            if !grown {
                return wrong;
            }
        }
    }

    /// Keeps what is new and nobody else's fault.
    fn take(&mut self, found: Vec<GraphMistake>, memory_at: Option<std::ops::Range<usize>>) {
        let downstream = self.downstream();
        let complete = self.mistakes.is_empty();
        for GraphMistake { component, input, mistake } in found {
            let Some((role, name)) = component else {
                // Of a part of the pipeline, its sums say nothing.
                if complete {
                    let about_memory = mistake.message.contains("memory");
                    let span = mistake.span.clone().or(memory_at.clone().filter(|_| about_memory));
                    self.mistakes.push(Mistake { span, ..mistake });
                }
                continue;
            };
            let of = |component: &Component<'_>| component.role == role && component.name == name;
            let Some(index) = self.components.iter().position(of) else { continue };
            let component = &self.components[index];
            let named = input.and_then(|input| component.inputs.get(input));
            // Of what comes from a stand-in, or through it, only the name can be judged.
            let unknown = named.is_some_and(|name| self.named(name.get_ref()).is_none());
            let blameless = if unknown { !self.names_known } else { downstream[index] };
            if self.wrong[index] || blameless {
                continue;
            }
            let named = named.map(|name| name.span());
            let span = mistake.span.clone().or(named).or(Some(component.head.clone()));
            self.wrong[index] = true;
            self.mistakes.push(Mistake { span, ..mistake });
        }
    }
}

/// Stands in for a component that can't be made. It is planned, at most, and never run.
struct StandIn;

fn stand_in(role: Role) -> Made {
    match role {
        Role::Source => Made::Source(Box::new(StandIn)),
        Role::Transform => Made::Transform(Box::new(StandIn)),
        Role::Sink => Made::Sink(Box::new(StandIn)),
    }
}

fn never_run<T>() -> ModelResult<T> {
    Err(Error::fatal("a stand-in for a component with a mistake can't be run"))
}

impl Source for StandIn {
    fn schema(&self) -> Option<SchemaRef> {
        Some(log_schema())
    }

    fn replayable(&self) -> bool {
        true
    }

    fn bytes_min(&self) -> usize {
        1
    }

    fn open(&mut self, _: SourceContext) -> BoxFuture<'_, ModelResult<SourceStream>> {
        Box::pin(std::future::ready(never_run()))
    }
}

impl Transform for StandIn {
    fn columns(&self, _: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        Ok(Vec::new())
    }

    fn plan(&self, input: &SchemaRef) -> Result<Box<dyn Stage>, Mistake> {
        Ok(Box::new(Unplanned(SchemaRef::clone(input))))
    }
}

struct Unplanned(SchemaRef);

impl Stage for Unplanned {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.0)
    }

    fn fork(&self) -> Option<Box<dyn Stage>> {
        None
    }

    fn apply(&mut self, _: RecordBatch, _: Moment) -> ModelResult<Output> {
        never_run()
    }
}

impl Sink for StandIn {
    fn columns(&self, _: &SchemaRef) -> Result<Vec<usize>, Mistake> {
        Ok(Vec::new())
    }

    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }

    fn open(&mut self, _: SinkContext) -> BoxFuture<'_, ModelResult<Vec<Delivered>>> {
        Box::pin(std::future::ready(never_run()))
    }

    fn write<'a>(&'a mut self, _: &'a RecordBatch) -> BoxFuture<'a, ModelResult<Written>> {
        Box::pin(std::future::ready(never_run()))
    }

    fn commit<'a>(&'a mut self, _: &'a [Delivered]) -> BoxFuture<'a, ModelResult<()>> {
        Box::pin(std::future::ready(never_run()))
    }
}
