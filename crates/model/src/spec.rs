//! What a component is called, and how it is made of its settings: one table row each.

use crate::{Mistake, Settings, Sink, Source, Transform};

/// A kind of source, as its file describes it.
#[derive(Debug)]
pub struct SourceSpec {
    /// One line: what it reads.
    pub summary: &'static str,
    /// Settings as one would write them, in TOML, without the table's head.
    pub example: &'static str,
    /// Makes one of its settings. Does no I/O.
    pub build: fn(&Settings<'_>) -> Result<Box<dyn Source>, Mistake>,
}

/// A kind of transform, as its file describes it.
#[derive(Debug)]
pub struct TransformSpec {
    /// One line: what it does.
    pub summary: &'static str,
    /// Settings as one would write them, in TOML, without the table's head and `inputs`.
    pub example: &'static str,
    /// Makes one of its settings. Does no I/O.
    pub build: fn(&Settings<'_>) -> Result<Box<dyn Transform>, Mistake>,
}

/// A kind of sink, as its file describes it.
#[derive(Debug)]
pub struct SinkSpec {
    /// One line: what it writes to.
    pub summary: &'static str,
    /// Settings as one would write them, in TOML, without the table's head and `inputs`.
    pub example: &'static str,
    /// Makes one of its settings. Does no I/O.
    pub build: fn(&Settings<'_>) -> Result<Box<dyn Sink>, Mistake>,
}

/// All there is to make pipelines of.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// Sources by their `type`.
    pub sources: Vec<(&'static str, &'static SourceSpec)>,
    /// Transforms by their `type`.
    pub transforms: Vec<(&'static str, &'static TransformSpec)>,
    /// Sinks by their `type`.
    pub sinks: Vec<(&'static str, &'static SinkSpec)>,
}
