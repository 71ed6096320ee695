//! Where reading goes on after a restart.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// What keeps its order: a file's identity, a broker's partition, a query. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(Arc<str>);

impl Partition {
    /// The partition's name, unique within its source and the same after a restart.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Partition {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Partition {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place between two rows of a partition: everything before it is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Of what.
    pub partition: Partition,
    /// The place: greater than the offset of every row before it, at most that of the next one. It
    /// grows along the partition and means the same after a restart (a file: the byte at which
    /// the next line begins).
    pub sequence: u64,
    /// What else the source must know to go on from here; only the source reads it.
    pub state: Bytes,
}
