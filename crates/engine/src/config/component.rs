//! One component's table: the engine's own keys read, the rest given to the component's kind.

use std::ops::Range;
use std::sync::Arc;

use tidegate_model::{
    Mistake, Registry, Settings, Sink, SinkSpec, Source, SourceSpec, Spanned, Transform,
    TransformSpec,
};
use toml::de::{DeString, DeTable, DeValue};

use super::values::{self, Value, describe, not_one_of};
use super::variables::{self, Env};
use super::words;
use crate::graph::{Builder, Role, SinkOptions};

/// A component as configured.
pub(crate) struct Component<'i> {
    pub(crate) role: Role,
    pub(crate) name: Arc<str>,
    /// Where it begins: `[sources.app]`.
    pub(crate) head: Range<usize>,
    /// Its inputs, and where they stand.
    pub(crate) inputs: Vec<Spanned<String>>,
    options: SinkOptions,
    table: Spanned<DeTable<'i>>,
    kind: Result<Kind, Mistake>,
}

/// What makes it.
#[derive(Clone, Copy)]
enum Kind {
    Source(&'static SourceSpec),
    Transform(&'static TransformSpec),
    Sink(&'static SinkSpec),
}

/// A component that was made.
pub(crate) enum Made {
    Source(Box<dyn Source>),
    Transform(Box<dyn Transform>),
    Sink(Box<dyn Sink>),
}

pub(crate) fn into_table(value: DeValue<'_>) -> Option<DeTable<'_>> {
    match value {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

impl<'i> Component<'i> {
    /// Reads what the engine has to know. A mistake is kept, for [`make`](Self::make) to give.
    pub(crate) fn read(
        role: Role,
        name: Spanned<DeString<'i>>,
        value: Value<'i>,
        text: &str,
        registry: &Registry,
        env: Env<'_>,
    ) -> Self {
        let is_head = text.get(value.span()).is_some_and(|head| head.starts_with('['));
        let head = if is_head && value.get_ref().is_table() { value.span() } else { name.span() };
        let what = describe(&value, text);
        let table = into_table(value.into_inner());
        let mut component = Self {
            role,
            name: name.get_ref().as_ref().into(),
            inputs: Vec::new(),
            options: SinkOptions::default(),
            kind: Err(Mistake::at(
                head.clone(),
                format!("`{}.{}` should be a table, not {what}", role.table(), name.get_ref()),
            )
            .help(format!("write [{}.{}]", role.table(), name.get_ref()))),
            table: Spanned::new(head.clone(), DeTable::new()),
            head,
        };
        if let Some(table) = table {
            component.table = Spanned::new(component.head.clone(), table);
            component.kind = component.read_table(text, registry, env);
        }
        component
    }

    fn read_table(
        &mut self,
        text: &str,
        registry: &Registry,
        env: Env<'_>,
    ) -> Result<Kind, Mistake> {
        let filled = variables::fill(self.table.get_mut(), text, env);
        // Inputs first: that they are known keeps others from being blamed.
        let inputs = self.read_inputs(text);
        filled?;
        let kind = self.read_kind(text, registry)?;
        inputs?;
        if self.role == Role::Sink {
            self.read_options(text)?;
        }
        Ok(kind)
    }

    fn read_inputs(&mut self, text: &str) -> Result<(), Mistake> {
        let Some((key, value)) = self.table.get_mut().remove_entry("inputs") else {
            return Ok(());
        };
        if self.role == Role::Source {
            let said = Mistake::at(key.span(), "a source has no inputs");
            return Err(said.help("remove this line; sinks and transforms name their inputs"));
        }
        self.inputs = values::inputs(&value, text)?;
        Ok(())
    }

    fn read_kind(&mut self, text: &str, registry: &Registry) -> Result<Kind, Mistake> {
        let names: Vec<&str> = match self.role {
            Role::Source => registry.sources.iter().map(|(name, _)| *name).collect(),
            Role::Transform => registry.transforms.iter().map(|(name, _)| *name).collect(),
            Role::Sink => registry.sinks.iter().map(|(name, _)| *name).collect(),
        };
        let Some((_, value)) = self.table.get_mut().remove_entry("type") else {
            let said = Mistake::at(self.head.clone(), "the key `type` is missing");
            return Err(said.help(format!("add type = \"…\", one of `{}`", names.join("`, `"))));
        };
        let like = format!("\"{}\"", names.first().unwrap_or(&"…"));
        let word = values::text("type", &value, text, &like)?;
        let sources = registry.sources.iter().filter(|_| self.role == Role::Source);
        let transforms = registry.transforms.iter().filter(|_| self.role == Role::Transform);
        let sinks = registry.sinks.iter().filter(|_| self.role == Role::Sink);
        let mut kinds = (sources.map(|(name, spec)| (*name, Kind::Source(spec))))
            .chain(transforms.map(|(name, spec)| (*name, Kind::Transform(spec))))
            .chain(sinks.map(|(name, spec)| (*name, Kind::Sink(spec))));
        match kinds.find(|(name, _)| *name == word) {
            Some((_, kind)) => Ok(kind),
            None => Err(self.unknown_kind(value.span(), word, &names, registry)),
        }
    }

    fn unknown_kind(
        &self,
        span: Range<usize>,
        word: &str,
        names: &[&str],
        registry: &Registry,
    ) -> Mistake {
        let tables = self.role.table();
        let said = format!("there is no `{word}` for [{tables}]");
        let elsewhere = [
            ("sources", registry.sources.iter().any(|(name, _)| *name == word)),
            ("transforms", registry.transforms.iter().any(|(name, _)| *name == word)),
            ("sinks", registry.sinks.iter().any(|(name, _)| *name == word)),
        ];
        match elsewhere.iter().find(|(_, known)| *known) {
            Some((other, _)) => {
                let help = format!("it belongs in [{other}]; here are `{}`", names.join("`, `"));
                Mistake::at(span, said).help(help)
            }
            None => not_one_of(span, said, word, names),
        }
    }

    fn read_options(&mut self, text: &str) -> Result<(), Mistake> {
        if let Some((_, value)) = self.table.get_mut().remove_entry("when_full") {
            self.options.when_full = values::when_full(&value, text)?;
        }
        if let Some((_, value)) = self.table.get_mut().remove_entry("queue_bytes_max") {
            self.options.queue_bytes_max = Some(values::size("queue_bytes_max", &value, text)?);
        }
        Ok(())
    }

    /// Makes the component of its settings. Does no I/O, and can be done again.
    pub(crate) fn make(&self, text: &str) -> Result<Made, Mistake> {
        let settings = Settings::new(self.table.clone());
        let made = match self.kind.as_ref().map_err(Clone::clone)? {
            Kind::Source(spec) => (spec.build)(&settings).map(Made::Source),
            Kind::Transform(spec) => (spec.build)(&settings).map(Made::Transform),
            Kind::Sink(spec) => (spec.build)(&settings).map(Made::Sink),
        };
        made.map_err(|mistake| {
            let mistake = words::reword(mistake, self, text);
            Mistake { span: mistake.span.or(Some(self.head.clone())), ..mistake }
        })
    }

    pub(crate) fn add_to(&self, builder: Builder, made: Made) -> Builder {
        let inputs: Vec<&str> = self.inputs.iter().map(|name| name.get_ref().as_str()).collect();
        match made {
            Made::Source(source) => builder.source(&self.name, source),
            Made::Transform(transform) => builder.transform(&self.name, &inputs, transform),
            Made::Sink(sink) => builder.sink(&self.name, &inputs, self.options, sink),
        }
    }

    /// Its settings, without the engine's keys.
    pub(crate) fn table(&self) -> &DeTable<'i> {
        self.table.get_ref()
    }

    /// Settings as one would write them.
    pub(crate) fn example(&self) -> Option<&'static str> {
        match self.kind.as_ref().ok()? {
            Kind::Source(spec) => Some(spec.example),
            Kind::Transform(spec) => Some(spec.example),
            Kind::Sink(spec) => Some(spec.example),
        }
    }
}
