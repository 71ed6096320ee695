//! Random graphs: what they are made of, and the pipeline of real engine parts they stand for.

use std::time::Duration;

use tidegate_engine::{Pipeline, SinkOptions, WhenFull};

use super::components::{SimSink, SimSource, SimTransform, World};

/// At most so many components …
const NODES_MAX: usize = 12;
/// … and with those that take rejects so many sinks.
const SINKS_MAX: usize = 12;

/// An output that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Source(usize),
    Transform(usize),
    Rejects(usize),
    SinkRejects(usize),
}

/// What a transform does, decided by each row's number alone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Keeps rows whose number this does not divide.
    Filter(u64),
    /// Rejects rows whose number this divides.
    Reject(u64),
    /// Takes so many rows at a time.
    Slice(usize),
    /// All rows go through one, so many at a time, each time with a wait.
    Limit(usize, Duration),
}

#[derive(Debug)]
pub(crate) struct SourcePlan {
    /// How many rows each partition has.
    pub(crate) partitions: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct TransformPlan {
    pub(crate) inputs: Vec<Port>,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) struct SinkPlan {
    pub(crate) inputs: Vec<Port>,
    pub(crate) when_full: WhenFull,
    pub(crate) queue_bytes_max: Option<usize>,
    /// Keeps how far it has come, with what it has.
    pub(crate) exact: bool,
    /// Rejects rows whose number this divides.
    pub(crate) rejects: Option<u64>,
    /// Says that it would reject the same rows again.
    pub(crate) same_rejects: bool,
    /// Asks for some rows again.
    pub(crate) picky: bool,
    /// The longest that a write takes.
    pub(crate) write_ms_max: u64,
}

/// A graph, and how much room it has.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sources: Vec<SourcePlan>,
    pub(crate) transforms: Vec<TransformPlan>,
    pub(crate) sinks: Vec<SinkPlan>,
    pub(crate) chunk_bytes: usize,
    pub(crate) memory: usize,
}

impl Plan {
    pub(crate) fn random(random: &mut fastrand::Rng) -> Self {
        let sources = random.usize(1..=4);
        let transforms = random.usize(0..=4);
        let sinks = random.usize(1..=NODES_MAX - sources - transforms).min(4);
        let chunk_bytes = random.usize(200..2_000);
        let memory = chunk_bytes * sources + random.usize(0..chunk_bytes * 2);
        let mut plan = Self {
            sources: (0..sources).map(|_| source(random)).collect(),
            transforms: Vec::new(),
            sinks: Vec::new(),
            chunk_bytes,
            memory,
        };
        for _ in 0..transforms {
            let inputs = plan.some_ports(random);
            plan.transforms.push(TransformPlan { inputs, kind: kind(random) });
        }
        for _ in 0..sinks {
            let inputs = plan.some_ports(random);
            plan.sinks.push(sink(inputs, chunk_bytes, random));
        }
        plan.read_all(random);
        plan
    }

    /// Rows of sources and transforms, one or more, each once.
    fn some_ports(&self, random: &mut fastrand::Rng) -> Vec<Port> {
        let sources = (0..self.sources.len()).map(Port::Source);
        let mut ports: Vec<Port> =
            sources.chain((0..self.transforms.len()).map(Port::Transform)).collect();
        random.shuffle(&mut ports);
        ports.truncate(random.usize(1..=3));
        ports
    }

    /// Gives a reader to each output that has none, and to the rejects of some.
    fn read_all(&mut self, random: &mut fastrand::Rng) {
        let read = |plan: &Self, port: Port| {
            let transforms = plan.transforms.iter().map(|transform| &transform.inputs);
            transforms.chain(plan.sinks.iter().map(|sink| &sink.inputs)).any(|i| i.contains(&port))
        };
        let ports = (0..self.sources.len()).map(Port::Source);
        for port in ports.chain((0..self.transforms.len()).map(Port::Transform)) {
            if !read(self, port) {
                let sink = random.usize(0..self.sinks.len());
                self.sinks[sink].inputs.push(port);
            }
        }
        for index in 0..self.transforms.len() {
            if matches!(self.transforms[index].kind, Kind::Reject(_)) && random.bool() {
                let inputs = vec![Port::Rejects(index)];
                self.sinks.push(sink(inputs, self.chunk_bytes, random));
            }
        }
        let mut index = 0;
        while index < self.sinks.len() {
            if self.sinks[index].rejects.is_some() && random.u32(0..3) > 0 {
                self.take_rejects(index, random);
            }
            index += 1;
        }
    }

    /// Gives a sink's rejects to another one behind it, perhaps to one that takes others' too.
    fn take_rejects(&mut self, from: usize, random: &mut fastrand::Rng) {
        let port = Port::SinkRejects(from);
        let takes = |sink: &SinkPlan| {
            sink.inputs.iter().all(|port| matches!(port, Port::Rejects(_) | Port::SinkRejects(_)))
        };
        let other = (from + 1..self.sinks.len()).find(|index| takes(&self.sinks[*index]));
        match other {
            Some(other) if random.bool() => self.sinks[other].inputs.push(port),
            _ if self.sinks.len() < SINKS_MAX => {
                self.sinks.push(sink(vec![port], self.chunk_bytes, random));
            }
            _ => {}
        }
    }

    /// The pipeline, with new components of this world.
    pub(crate) fn pipeline(&self, world: &World) -> Pipeline {
        let mut builder =
            Pipeline::builder().memory(self.memory).shutdown_timeout(Duration::from_secs(5));
        for index in 0..self.sources.len() {
            let source = SimSource::new(self, world, index);
            builder = builder.source(&name(Port::Source(index)), Box::new(source) as Box<_>);
        }
        for (index, plan) in self.transforms.iter().enumerate() {
            let transform = Box::new(SimTransform { kind: plan.kind }) as Box<_>;
            let inputs: Vec<String> = plan.inputs.iter().map(|port| name(*port)).collect();
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            builder = builder.transform(&name(Port::Transform(index)), &inputs, transform);
        }
        for (index, plan) in self.sinks.iter().enumerate() {
            let inputs: Vec<String> = plan.inputs.iter().map(|port| name(*port)).collect();
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            let options =
                SinkOptions { when_full: plan.when_full, queue_bytes_max: plan.queue_bytes_max };
            let sink = Box::new(SimSink::new(self, world, index)) as Box<_>;
            builder = builder.sink(&format!("sink{index}"), &inputs, options, sink);
        }
        builder.build().unwrap_or_else(|mistakes| panic!("{mistakes:#?}\n{self:#?}"))
    }
}

fn name(port: Port) -> String {
    match port {
        Port::Source(index) => format!("source{index}"),
        Port::Transform(index) => format!("transform{index}"),
        Port::Rejects(index) => format!("transform{index}.rejects"),
        Port::SinkRejects(index) => format!("sink{index}.rejects"),
    }
}

fn source(random: &mut fastrand::Rng) -> SourcePlan {
    SourcePlan { partitions: (0..random.usize(1..=3)).map(|_| random.u64(0..60)).collect() }
}

fn kind(random: &mut fastrand::Rng) -> Kind {
    match random.u32(0..4) {
        0 => Kind::Filter(random.u64(1..4)),
        1 => Kind::Reject(random.u64(1..4)),
        2 => Kind::Slice(random.usize(1..5)),
        _ => Kind::Limit(random.usize(1..5), Duration::from_millis(random.u64(0..300))),
    }
}

fn sink(inputs: Vec<Port>, chunk_bytes: usize, random: &mut fastrand::Rng) -> SinkPlan {
    let when_full = match random.u32(0..6) {
        0 => WhenFull::DropNewest,
        1 => WhenFull::DropOldest,
        _ => WhenFull::Block,
    };
    SinkPlan {
        inputs,
        when_full,
        queue_bytes_max: random.bool().then(|| random.usize(1..chunk_bytes * 3)),
        exact: random.u32(0..3) > 0,
        rejects: (random.u32(0..4) == 0).then(|| random.u64(2..5)),
        same_rejects: random.u32(0..4) > 0,
        picky: random.u32(0..4) == 0,
        write_ms_max: [0, 5, 300][random.usize(0..3)],
    }
}
