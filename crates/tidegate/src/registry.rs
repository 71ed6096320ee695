//! All components there are: the tables of `components`, and the one of `sql`.

use tidegate_components::{sinks::SINKS, sources::SOURCES, transforms::TRANSFORMS};
use tidegate_model::Registry;

/// Every source, transform and sink by its `type`.
pub fn registry() -> Registry {
    let mut transforms = vec![("sql", &tidegate_sql::SPEC)];
    transforms.extend_from_slice(TRANSFORMS);
    Registry { sources: SOURCES.to_vec(), transforms, sinks: SINKS.to_vec() }
}
