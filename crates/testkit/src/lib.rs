//! What Tidegate's tests and benchmarks share.
