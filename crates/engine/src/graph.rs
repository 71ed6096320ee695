//! From components and their inputs to a graph: names resolved, columns known, mistakes found,
//! nothing opened.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::{Mistake, Sink, Source, Transform};

use crate::plan::{Planned, Unchecked, plan};

/// The budget where none is given.
pub const MEMORY_DEFAULT: usize = 256 * 1024 * 1024;
/// How long a stop may take where nothing is said.
pub const SHUTDOWN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// What happens to a batch for a sink whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It waits, and with it what feeds the sink.
    #[default]
    Block,
    /// It is dropped and counted.
    DropNewest,
    /// The oldest in the queue is dropped and counted.
    DropOldest,
}

/// How a sink is fed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkOptions {
    /// What happens when its queue is full.
    pub when_full: WhenFull,
    /// How much row data may wait in the queue of each of its inputs; where `None`, the edges of the
    /// pipeline share half of the budget.
    pub queue_bytes_max: Option<usize>,
}

/// Whether a component is a source, a transform or a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Where data comes from.
    Source,
    /// Rows in, rows out.
    Transform,
    /// Where data goes.
    Sink,
}

impl Role {
    /// The name of the role's table in a configuration.
    pub fn table(self) -> &'static str {
        match self {
            Role::Source => "sources",
            Role::Transform => "transforms",
            Role::Sink => "sinks",
        }
    }
}

/// A component's place in a configuration, for messages.
pub(crate) fn place(role: Role, name: &str) -> String {
    format!("{}.{name}", role.table())
}

/// A mistake in a graph, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphMistake {
    /// The component's role and name; `None` where the pipeline as a whole is wrong.
    pub component: Option<(Role, Arc<str>)>,
    /// Which of its `inputs` is wrong, where one is.
    pub input: Option<usize>,
    /// What is wrong. Its span is the component's own, from planning.
    pub mistake: Mistake,
}

/// Collects the components of a pipeline.
///
/// Names are unique in the whole pipeline, without a dot. An input is the name of a source or a
/// transform, or `NAME.rejects` for the rows that a transform could not work on; of a sink, it may
/// also be `NAME.rejects` for those that another sink did not take.
pub struct Builder {
    pub(crate) memory: usize,
    pub(crate) data_dir: PathBuf,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) sources: Vec<SourceNode>,
    pub(crate) transforms: Vec<TransformNode>,
    pub(crate) sinks: Vec<SinkNode>,
}

pub(crate) struct SourceNode {
    pub(crate) name: Arc<str>,
    pub(crate) source: Box<dyn Source>,
}

pub(crate) struct TransformNode {
    pub(crate) name: Arc<str>,
    pub(crate) inputs: Vec<String>,
    pub(crate) transform: Box<dyn Transform>,
}

pub(crate) struct SinkNode {
    pub(crate) name: Arc<str>,
    pub(crate) inputs: Vec<String>,
    pub(crate) options: SinkOptions,
    pub(crate) sink: Box<dyn Sink>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            memory: MEMORY_DEFAULT,
            data_dir: PathBuf::from("./state"),
            shutdown_timeout: SHUTDOWN_TIMEOUT_DEFAULT,
            sources: Vec::new(),
            transforms: Vec::new(),
            sinks: Vec::new(),
        }
    }
}

impl Builder {
    /// The budget for row data in flight, in bytes.
    #[must_use]
    pub fn memory(self, bytes: usize) -> Self {
        Self { memory: bytes, ..self }
    }

    /// Where positions are kept; made where it does not exist.
    #[must_use]
    pub fn data_dir(self, folder: impl Into<PathBuf>) -> Self {
        Self { data_dir: folder.into(), ..self }
    }

    /// How long what is in flight may take to get to its sinks after a stop.
    #[must_use]
    pub fn shutdown_timeout(self, time: Duration) -> Self {
        Self { shutdown_timeout: time, ..self }
    }

    /// Adds a source.
    #[must_use]
    pub fn source(mut self, name: &str, source: impl Into<Box<dyn Source>>) -> Self {
        self.sources.push(SourceNode { name: name.into(), source: source.into() });
        self
    }

    /// Adds a transform of these inputs.
    #[must_use]
    pub fn transform(
        mut self,
        name: &str,
        inputs: &[&str],
        transform: impl Into<Box<dyn Transform>>,
    ) -> Self {
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.transforms.push(TransformNode {
            name: name.into(),
            inputs,
            transform: transform.into(),
        });
        self
    }

    /// Adds a sink of these inputs.
    #[must_use]
    pub fn sink(
        mut self,
        name: &str,
        inputs: &[&str],
        options: SinkOptions,
        sink: impl Into<Box<dyn Sink>>,
    ) -> Self {
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.sinks.push(SinkNode { name: name.into(), inputs, options, sink: sink.into() });
        self
    }

    /// Checks everything and plans the pipeline; does no I/O. What depends on columns that a source
    /// knows only when it has connected is left for the [start](Pipeline::start): see
    /// [`Pipeline::unchecked`].
    ///
    /// # Errors
    ///
    /// All mistakes, at most one for each component.
    pub fn build(self) -> Result<Pipeline, Vec<GraphMistake>> {
        let planned = plan(&self)?;
        Ok(Pipeline { builder: self, planned })
    }
}

/// A pipeline that can be run: checked, and planned as far as that goes before its sources connect.
pub struct Pipeline {
    pub(crate) builder: Builder,
    pub(crate) planned: Planned,
}

impl Pipeline {
    /// A pipeline without components, yet.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The folder that keeps its positions.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.builder.data_dir
    }

    /// Its budget in bytes.
    pub fn memory(&self) -> usize {
        self.builder.memory
    }

    /// Its components' roles and names: sources, transforms, sinks, in the order they were added.
    pub fn components(&self) -> impl Iterator<Item = (Role, &str)> {
        names(&self.builder).map(|(role, name)| (role, &**name))
    }

    /// The names of sources that can't be read again: a crash loses what is in flight of them.
    pub fn not_replayable(&self) -> impl Iterator<Item = &str> {
        let sources = self.builder.sources.iter().filter(|node| !node.source.replayable());
        sources.map(|node| &*node.name)
    }

    /// What could not be checked, for each source whose columns are known only when it has connected.
    pub fn unchecked(&self) -> &[Unchecked] {
        match &self.planned {
            Planned::Ready(_) => &[],
            Planned::Waits(unchecked) => unchecked,
        }
    }

    /// What its sinks write to, as far as they say: see [`Sink::target`].
    pub fn targets(&self) -> impl Iterator<Item = String> {
        self.builder.sinks.iter().filter_map(|node| node.sink.target())
    }
}

/// An output that can be an input: the rows of a source or transform, or the rejects of a transform
/// or sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Port {
    Source(usize),
    Transform(usize),
    Rejects(usize),
    SinkRejects(usize),
}

impl Port {
    /// Whose it is among the components of a role.
    fn of(self, role: Role) -> Option<usize> {
        match (role, self) {
            (Role::Source, Port::Source(index))
            | (Role::Transform, Port::Transform(index) | Port::Rejects(index))
            | (Role::Sink, Port::SinkRejects(index)) => Some(index),
            _ => None,
        }
    }
}

/// The inputs of all components as ports.
#[derive(Debug, Default)]
pub(crate) struct Wiring {
    pub(crate) transforms: Vec<Vec<Port>>,
    pub(crate) sinks: Vec<Vec<Port>>,
    // Transforms such that each comes after those that feed it.
    pub(crate) order: Vec<usize>,
    // Sinks such that each comes after those whose rejects it takes.
    pub(crate) sink_order: Vec<usize>,
}

/// Resolves names, and finds what is unknown, double, unread or circular.
pub(crate) fn wire(builder: &Builder) -> Result<Wiring, Vec<GraphMistake>> {
    let mut wirer = Wirer { builder, ports: ports(builder), mistakes: name_mistakes(builder) };
    let mut wiring = Wiring::default();
    for node in &builder.transforms {
        wiring.transforms.push(wirer.resolve(Role::Transform, &node.name, &node.inputs));
    }
    for node in &builder.sinks {
        wiring.sinks.push(wirer.resolve(Role::Sink, &node.name, &node.inputs));
    }
    if wirer.mistakes.is_empty() {
        wirer.find_unread(&wiring);
        wiring.order = wirer.order(Role::Transform, &wiring.transforms);
        wiring.sink_order = wirer.order(Role::Sink, &wiring.sinks);
    }
    if wirer.mistakes.is_empty() { Ok(wiring) } else { Err(wirer.mistakes) }
}

fn mistake(role: Role, name: &Arc<str>, mistake: Mistake) -> GraphMistake {
    GraphMistake { component: Some((role, Arc::clone(name))), input: None, mistake }
}

fn ports(builder: &Builder) -> HashMap<String, Port> {
    let mut ports = HashMap::new();
    for (index, node) in builder.sources.iter().enumerate() {
        ports.insert(node.name.to_string(), Port::Source(index));
    }
    for (index, node) in builder.transforms.iter().enumerate() {
        ports.insert(node.name.to_string(), Port::Transform(index));
        ports.insert(format!("{}.rejects", node.name), Port::Rejects(index));
    }
    for (index, node) in builder.sinks.iter().enumerate() {
        ports.insert(format!("{}.rejects", node.name), Port::SinkRejects(index));
    }
    ports
}

/// All components' roles and names, in order.
fn names(builder: &Builder) -> impl Iterator<Item = (Role, &Arc<str>)> {
    let sources = builder.sources.iter().map(|node| (Role::Source, &node.name));
    let transforms = builder.transforms.iter().map(|node| (Role::Transform, &node.name));
    let sinks = builder.sinks.iter().map(|node| (Role::Sink, &node.name));
    sources.chain(transforms).chain(sinks)
}

fn name_mistakes(builder: &Builder) -> Vec<GraphMistake> {
    let mut mistakes = Vec::new();
    let mut seen: HashMap<&str, Role> = HashMap::new();
    for (role, name) in names(builder) {
        let allowed = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '-';
        if name.is_empty() || !name.chars().all(allowed) {
            let said = Mistake::new(format!("`{name}` is no name for a component"));
            mistakes.push(mistake(role, name, said.help("use letters, digits, `_` and `-`")));
        } else if let Some(other) = seen.insert(name, role) {
            let said =
                Mistake::new(format!("there is a component `{name}` in [{}] too", other.table()));
            mistakes.push(mistake(role, name, said.help("give each component a name of its own")));
        }
    }
    if builder.sources.is_empty() || builder.sinks.is_empty() {
        let missing = if builder.sources.is_empty() { Role::Source } else { Role::Sink };
        let said = Mistake::new(format!("there is nothing in [{}]", missing.table()));
        let help = "a pipeline needs at least one source and one sink";
        mistakes.push(GraphMistake { component: None, input: None, mistake: said.help(help) });
    }
    mistakes
}

struct Wirer<'a> {
    builder: &'a Builder,
    ports: HashMap<String, Port>,
    mistakes: Vec<GraphMistake>,
}

impl Wirer<'_> {
    fn resolve(&mut self, role: Role, name: &Arc<str>, inputs: &[String]) -> Vec<Port> {
        let mut resolved: Vec<Port> = Vec::new();
        let mut wrong = None;
        for (index, input) in inputs.iter().enumerate() {
            match self.ports.get(input) {
                Some(port) if resolved.contains(port) => {
                    let said = Mistake::new(format!("the input `{input}` is named twice"));
                    wrong.get_or_insert((Some(index), said.help("name it once")));
                }
                Some(Port::SinkRejects(_)) if role != Role::Sink => {
                    let said = format!("`{input}` are rows that a sink did not take");
                    let said = Mistake::new(said).help("only sinks can take them");
                    wrong.get_or_insert((Some(index), said));
                }
                Some(port) => resolved.push(*port),
                None => {
                    wrong.get_or_insert((Some(index), self.unknown(role, input)));
                }
            }
        }
        if inputs.is_empty() {
            let said = Mistake::new("it has no inputs");
            let help = "name sources or transforms: inputs = [\"NAME\"]";
            wrong = Some((None, said.help(help)));
        }
        if let Some((input, said)) = wrong {
            self.mistakes.push(GraphMistake { input, ..mistake(role, name, said) });
        }
        resolved
    }

    fn unknown(&self, role: Role, input: &str) -> Mistake {
        let base = input.strip_suffix(".rejects").unwrap_or(input);
        let sink = self.builder.sinks.iter().any(|node| &*node.name == base);
        let source = self.builder.sources.iter().any(|node| &*node.name == base);
        if sink {
            let said = Mistake::new(format!("`{input}` is a sink"));
            return said.help(match role {
                Role::Sink => format!(
                    "inputs are sources, transforms, and `{base}.rejects` for rows it does not take"
                ),
                _ => "inputs are sources and transforms".to_owned(),
            });
        }
        if source {
            return Mistake::new(format!("`{input}` does not exist: `{base}` is a source"))
                .help("only transforms and sinks have rejects");
        }
        let said = Mistake::new(format!("there is no source or transform `{input}`"));
        let fit = self
            .ports
            .iter()
            .filter(|(_, port)| role == Role::Sink || port.of(Role::Sink).is_none());
        match closest(input, fit.map(|(name, _)| name.as_str())) {
            Some(name) => said.help(format!("did you mean `{name}`?")),
            None => {
                let names = self.ports.keys().filter(|name| !name.contains('.'));
                let names: BTreeSet<&str> = names.map(String::as_str).collect();
                let names = Vec::from_iter(names).join("`, `");
                said.help(format!("there are `{names}`"))
            }
        }
    }

    fn find_unread(&mut self, wiring: &Wiring) {
        let read: BTreeSet<Port> =
            wiring.transforms.iter().chain(&wiring.sinks).flatten().copied().collect();
        let help = "name it in the inputs of a sink or transform, or remove it";
        for (index, node) in self.builder.sources.iter().enumerate() {
            if !read.contains(&Port::Source(index)) {
                let said = Mistake::new("nobody reads this source").help(help);
                self.mistakes.push(mistake(Role::Source, &node.name, said));
            }
        }
        for (index, node) in self.builder.transforms.iter().enumerate() {
            if !read.contains(&Port::Transform(index)) && !read.contains(&Port::Rejects(index)) {
                let said = Mistake::new("nobody reads this transform").help(help);
                self.mistakes.push(mistake(Role::Transform, &node.name, said));
            }
        }
    }

    /// An order in which each component of a role comes after those of them that feed it; a mistake
    /// where there is none.
    fn order(&mut self, role: Role, inputs: &[Vec<Port>]) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::new();
        while order.len() < inputs.len() {
            let ready = |port: &Port| port.of(role).is_none_or(|from| order.contains(&from));
            let next = (0..inputs.len())
                .find(|index| !order.contains(index) && inputs[*index].iter().all(ready));
            let Some(next) = next else {
                self.report_cycle(role, inputs, &order);
                break;
            };
            order.push(next);
        }
        order
    }

    fn report_cycle(&mut self, role: Role, inputs: &[Vec<Port>], done: &[usize]) {
        // Whoever is left is on a cycle or behind one; going upstream among them must repeat.
        let upstream = |index: usize| {
            let feeding = inputs[index].iter().filter_map(|port| port.of(role));
            feeding.into_iter().find(|from| !done.contains(from))
        };
        let Some(mut at) = (0..inputs.len()).find(|index| !done.contains(index)) else {
            return;
        };
        let mut path = Vec::new();
        while !path.contains(&at) {
            path.push(at);
            match upstream(at) {
                Some(next) => at = next,
                None => return,
            }
        }
        let start = path.iter().position(|index| *index == at).unwrap_or(0);
        let circle = &path[start..];
        let input =
            inputs[at].iter().position(|port| port.of(role).is_some_and(|i| circle.contains(&i)));
        let names: Vec<_> = names(self.builder).filter(|(of, _)| *of == role).collect();
        let name = |index: &usize| names.get(*index).map_or("", |(_, name)| name);
        let around: Vec<&str> = circle.iter().rev().chain(circle.last()).map(name).collect();
        let said = Mistake::new(format!("it feeds itself: {}", around.join(" -> ")));
        let said = said.help("take one of these out of the other's inputs");
        if let Some((role, first)) = names.get(at) {
            self.mistakes.push(GraphMistake { input, ..mistake(*role, first, said) });
        }
    }
}

/// The candidate that a misspelt name most likely stands for.
pub(crate) fn closest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let letters = name.chars().count();
    let scored = candidates.filter_map(|candidate| {
        let distance = strsim::damerau_levenshtein(name, candidate);
        let far = (letters.max(candidate.chars().count()) / 3).max(1);
        (distance <= far).then_some((distance, candidate))
    });
    scored.min().map(|(_, candidate)| candidate)
}
