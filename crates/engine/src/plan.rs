//! Which columns flow where: schemas downstream, needs upstream, so that what nobody reads is never
//! built.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tidegate_model::{Commit, Mistake, OFFSET};

use crate::graph::{Builder, GraphMistake, Port, Role, Wiring, wire};
use crate::rejects::{REASON, rejects_schema};

/// Texts of which a row must have at least one.
pub(crate) type Literals = Arc<[Box<str>]>;

/// Of more texts than this, looking for them is no faster than making rows.
const LITERALS_MAX: usize = 64;

/// What a graph needs to run, beside its components.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) wiring: Wiring,
    /// Whether rows carry their offsets: some sink keeps how far it has come.
    pub(crate) offsets: bool,
    /// What each source must give.
    pub(crate) sources: Vec<SchemaRef>,
    /// What each source's rows must have, of which every consumer says so.
    pub(crate) required: Vec<Option<Literals>>,
    /// How severe each source's rows must be, of which every consumer says so.
    pub(crate) severity_min: Vec<Option<u8>>,
    /// What each transform gets.
    pub(crate) transforms: Vec<SchemaRef>,
    /// What each sink gets.
    pub(crate) sinks: Vec<SchemaRef>,
}

/// A source whose columns are known only when it has connected, and who could not be checked for
/// that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchecked {
    /// The source's name.
    pub source: Arc<str>,
    /// All that its rows come to: transforms first, in the order they were added, then sinks.
    pub components: Vec<(Role, Arc<str>)>,
}

/// How far planning came.
#[derive(Debug)]
pub(crate) enum Planned {
    /// To the end.
    Ready(Plan),
    /// As far as it goes without the columns of these.
    Waits(Vec<Unchecked>),
}

/// Wires the components up and finds out which columns are needed where. What depends on columns
/// that are not known yet is left out of the checks.
pub(crate) fn plan(builder: &Builder) -> Result<Planned, Vec<GraphMistake>> {
    let wiring = wire(builder)?;
    let mut planner = Planner { builder, wiring: &wiring, mistakes: shared_targets(builder) };
    planner.mistakes.extend(too_little_memory(builder));
    let mut schemas = planner.schemas();
    let sinks = planner.sinks(&mut schemas);
    let needs = planner.needs(&schemas, sinks);
    if !planner.mistakes.is_empty() {
        return Err(planner.mistakes);
    }
    let unchecked = unchecked(builder, &wiring);
    if !unchecked.is_empty() {
        return Ok(Planned::Waits(unchecked));
    }
    Ok(Planned::Ready(fit(builder, wiring, &schemas, &needs)))
}

/// Gives each component the columns it needs.
fn fit(
    builder: &Builder,
    wiring: Wiring,
    schemas: &HashMap<Port, SchemaRef>,
    needs: &Needs,
) -> Plan {
    let offsets = builder.sinks.iter().any(|node| node.sink.commit_when() == Commit::Grouped);
    let read = |port: Port| needs.ports.get(&port).cloned().unwrap_or_default();
    let given = |port: Option<&Port>, names: &BTreeSet<String>, offsets: bool| {
        let all = port.and_then(|port| schemas.get(port));
        all.map_or_else(|| Arc::new(Schema::empty()), |all| projected(all, names, offsets))
    };
    let sources = (0..builder.sources.len())
        .map(Port::Source)
        .map(|port| given(Some(&port), &read(port), offsets))
        .collect();
    let transforms = needs.transforms.iter().zip(&wiring.transforms);
    let transforms: Vec<SchemaRef> =
        transforms.map(|(names, ports)| given(ports.first(), names, offsets)).collect();
    let sinks = needs.sinks.iter().zip(&wiring.sinks);
    let sinks = sinks.map(|(names, ports)| given(ports.first(), names, false)).collect();
    let all = 0..builder.sources.len();
    let (required, severity_min) = all
        .map(|source| {
            let Some(readers) = only_transforms(&wiring, source) else { return (None, None) };
            let required = required(builder, &transforms, source, &readers);
            (required, severity_min(builder, &transforms, source, &readers))
        })
        .unzip();
    Plan { offsets, sources, required, severity_min, transforms, sinks, wiring }
}

/// The sources whose columns are not known, each with all that it feeds.
fn unchecked(builder: &Builder, wiring: &Wiring) -> Vec<Unchecked> {
    let sources = builder.sources.iter().enumerate();
    let unknown = sources.filter(|(_, node)| node.source.schema().is_none());
    unknown
        .map(|(source, node)| {
            let mut fed = HashSet::from([Port::Source(source)]);
            let feeds = |fed: &HashSet<Port>, ports: &[Port]| ports.iter().any(|p| fed.contains(p));
            for &index in &wiring.order {
                if feeds(&fed, &wiring.transforms[index]) {
                    fed.extend([Port::Transform(index), Port::Rejects(index)]);
                }
            }
            for &index in &wiring.sink_order {
                if feeds(&fed, &wiring.sinks[index]) {
                    fed.insert(Port::SinkRejects(index));
                }
            }
            let transforms = builder.transforms.iter().zip(&wiring.transforms);
            let transforms = transforms.filter(|(_, ports)| feeds(&fed, ports));
            let transforms = transforms.map(|(node, _)| (Role::Transform, Arc::clone(&node.name)));
            let sinks = builder.sinks.iter().zip(&wiring.sinks);
            let sinks = sinks.filter(|(_, ports)| feeds(&fed, ports));
            let sinks = sinks.map(|(node, _)| (Role::Sink, Arc::clone(&node.name)));
            let components = transforms.chain(sinks).collect();
            Unchecked { source: Arc::clone(&node.name), components }
        })
        .collect()
}

/// The transforms that read a source; `None` where a sink reads it as well, or someone the rejects
/// of one of them, and takes all rows.
fn only_transforms(wiring: &Wiring, source: usize) -> Option<Vec<usize>> {
    let is_read = |port: Port, by: &[Vec<Port>]| by.iter().any(|ports| ports.contains(&port));
    let source = Port::Source(source);
    if is_read(source, &wiring.sinks) {
        return None;
    }
    let all = wiring.transforms.iter().enumerate();
    let readers: Vec<_> =
        all.filter(|(_, ports)| ports.contains(&source)).map(|(index, _)| index).collect();
    let rejects = |index: &usize| {
        let port = Port::Rejects(*index);
        is_read(port, &wiring.transforms) || is_read(port, &wiring.sinks)
    };
    (!readers.iter().any(rejects)).then_some(readers)
}

/// What rows of a source must have for one of these transforms.
fn required(
    builder: &Builder,
    inputs: &[SchemaRef],
    source: usize,
    readers: &[usize],
) -> Option<Literals> {
    let column = builder.sources[source].source.searched()?;
    let mut literals = BTreeSet::new();
    for index in readers {
        let transform = &builder.transforms[*index].transform;
        literals.extend(transform.required(&inputs[*index], column)?);
    }
    let whole = literals.iter().all(|literal| !literal.is_empty());
    (whole && literals.len() <= LITERALS_MAX)
        .then(|| literals.into_iter().map(String::into_boxed_str).collect())
}

/// How severe rows of a source must be for one of these transforms. Without any, no row is of use.
fn severity_min(
    builder: &Builder,
    inputs: &[SchemaRef],
    source: usize,
    readers: &[usize],
) -> Option<u8> {
    builder.sources[source].source.severity_searched().then_some(())?;
    readers.iter().try_fold(u8::MAX, |least, index| {
        let min = builder.transforms[*index].transform.severity_min(&inputs[*index])?;
        Some(least.min(min))
    })
}

/// The named columns of a schema, in its order, and the hidden one where rows carry offsets.
fn projected(schema: &SchemaRef, names: &BTreeSet<String>, offsets: bool) -> SchemaRef {
    let kept = schema.fields().iter().filter(|field| names.contains(field.name())).cloned();
    let hidden = offsets.then(|| Arc::new(Field::new(OFFSET, DataType::UInt64, false)));
    Arc::new(Schema::new(kept.chain(hidden).collect::<Vec<_>>()))
}

/// Sinks that would write to the same place.
fn shared_targets(builder: &Builder) -> Vec<GraphMistake> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    let mut mistakes = Vec::new();
    for node in &builder.sinks {
        if let Some(target) = node.sink.target()
            && let Some(other) = seen.insert(target.clone(), &node.name)
        {
            let said = Mistake::new(format!("it writes to {target}, as the sink `{other}` does"));
            let help = "give each sink a target of its own, or one sink both inputs";
            let component = Some((Role::Sink, Arc::clone(&node.name)));
            mistakes.push(GraphMistake { component, input: None, mistake: said.help(help) });
        }
    }
    mistakes
}

/// A budget in which not every source has room for its batch.
fn too_little_memory(builder: &Builder) -> Option<GraphMistake> {
    let needed: usize = builder.sources.iter().map(|node| node.source.bytes_min()).sum();
    if needed <= builder.memory {
        return None;
    }
    let said = format!(
        "a memory of {} bytes is too little for {} sources, which need {needed} bytes to read a \
         batch each",
        builder.memory,
        builder.sources.len()
    );
    let help = format!("memory = \"{}MiB\" or more", needed.div_ceil(1024 * 1024));
    Some(GraphMistake { component: None, input: None, mistake: Mistake::new(said).help(help) })
}

struct Planner<'a> {
    builder: &'a Builder,
    wiring: &'a Wiring,
    mistakes: Vec<GraphMistake>,
}

/// The names of the columns that are read: of each output, and by each consumer.
#[derive(Debug, Default)]
struct Needs {
    ports: HashMap<Port, BTreeSet<String>>,
    transforms: Vec<BTreeSet<String>>,
    sinks: Vec<BTreeSet<String>>,
}

impl Planner<'_> {
    fn complain(&mut self, role: Role, name: &Arc<str>, mistake: Mistake) {
        let component = Some((role, Arc::clone(name)));
        self.mistakes.push(GraphMistake { component, input: None, mistake });
    }

    /// The full columns of every output but the rejects of sinks, hidden ones left out. What can't be known, for a mistake
    /// upstream or a source that has not connected, is left out, and not complained about.
    fn schemas(&mut self) -> HashMap<Port, SchemaRef> {
        let mut schemas = HashMap::new();
        for (index, node) in self.builder.sources.iter().enumerate() {
            schemas.extend(node.source.schema().map(|schema| (Port::Source(index), schema)));
        }
        for &index in &self.wiring.order {
            let node = &self.builder.transforms[index];
            let inputs = &self.wiring.transforms[index];
            let Some(input) = self.input(Role::Transform, &node.name, inputs, &schemas) else {
                continue;
            };
            schemas.insert(Port::Rejects(index), rejects_schema(&input));
            if node.transform.passes_through() {
                schemas.insert(Port::Transform(index), input);
                continue;
            }
            match node.transform.plan(&input) {
                Ok(stage) => drop(schemas.insert(Port::Transform(index), stage.schema())),
                Err(mistake) => self.complain(Role::Transform, &node.name, mistake),
            }
        }
        schemas
    }

    /// The columns that all of a component's inputs have, where they are known. Those that are known
    /// must go together all the same.
    fn input(
        &mut self,
        role: Role,
        name: &Arc<str>,
        ports: &[Port],
        schemas: &HashMap<Port, SchemaRef>,
    ) -> Option<SchemaRef> {
        let known = ports.iter().enumerate();
        let mut known = known.filter_map(|(index, port)| Some((index, schemas.get(port)?)));
        let (_, first) = known.next()?;
        for (index, schema) in known {
            if schema.fields() != first.fields() {
                let columns = |schema: &SchemaRef| {
                    let columns = schema.fields().iter();
                    let columns = columns.map(|f| format!("{} {}", f.name(), f.data_type()));
                    Vec::from_iter(columns).join(", ")
                };
                let said = Mistake::new(format!(
                    "its inputs have different columns: ({}) and ({})",
                    columns(first),
                    columns(schema)
                ));
                let help = match ports.iter().any(|port| matches!(port, Port::SinkRejects(_))) {
                    true => "give each a sink of its own",
                    false => "bring them to the same columns with an sql transform each",
                };
                let component = Some((role, Arc::clone(name)));
                let mistake = said.help(help);
                self.mistakes.push(GraphMistake { component, input: Some(index), mistake });
                return None;
            }
        }
        ports.iter().all(|port| schemas.contains_key(port)).then(|| Arc::clone(first))
    }

    /// What each sink reads, which are the columns of its rejects too.
    fn sinks(&mut self, schemas: &mut HashMap<Port, SchemaRef>) -> Vec<BTreeSet<String>> {
        let mut all = vec![BTreeSet::new(); self.builder.sinks.len()];
        for &index in &self.wiring.sink_order {
            let node = &self.builder.sinks[index];
            let ports = &self.wiring.sinks[index];
            let Some(input) = self.input(Role::Sink, &node.name, ports, schemas) else { continue };
            match node.sink.columns(&input) {
                Ok(columns) => {
                    let names = named(&input, &columns);
                    let rejects = rejects_schema(&projected(&input, &names, false));
                    schemas.insert(Port::SinkRejects(index), rejects);
                    all[index] = names;
                }
                Err(mistake) => self.complain(Role::Sink, &node.name, mistake),
            }
        }
        all
    }

    /// From the sinks upstream: what is read of each output.
    fn needs(&self, schemas: &HashMap<Port, SchemaRef>, sinks: Vec<BTreeSet<String>>) -> Needs {
        let mut needs = Needs::default();
        for (names, ports) in sinks.iter().zip(&self.wiring.sinks) {
            needs.read(ports, names);
        }
        needs.sinks = sinks;
        needs.transforms = vec![BTreeSet::new(); self.builder.transforms.len()];
        for &index in self.wiring.order.iter().rev() {
            let node = &self.builder.transforms[index];
            let ports = &self.wiring.transforms[index];
            let Some(input) = ports.first().and_then(|port| schemas.get(port)) else { continue };
            let mut names = match node.transform.columns(input) {
                Ok(columns) => named(input, &columns),
                // Planning found the same, and said it.
                Err(_) => continue,
            };
            if node.transform.passes_through() {
                names.extend(needs.of(Port::Transform(index)));
            }
            names.extend(needs.of(Port::Rejects(index)).filter(|name| name != REASON));
            needs.read(ports, &names);
            needs.transforms[index] = names;
        }
        needs
    }
}

impl Needs {
    fn read(&mut self, ports: &[Port], names: &BTreeSet<String>) {
        for port in ports {
            self.ports.entry(*port).or_default().extend(names.iter().cloned());
        }
    }

    fn of(&self, port: Port) -> impl Iterator<Item = String> {
        self.ports.get(&port).cloned().unwrap_or_default().into_iter()
    }
}

fn named(schema: &SchemaRef, columns: &[usize]) -> BTreeSet<String> {
    let fields = columns.iter().filter_map(|index| schema.fields().get(*index));
    fields.map(|field| field.name().clone()).collect()
}
