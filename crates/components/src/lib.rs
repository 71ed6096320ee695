//! Tidegate's codecs, sources, transforms and sinks.
