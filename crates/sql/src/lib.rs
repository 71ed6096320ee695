//! SQL for Tidegate's transforms: planned once, evaluated batch by batch.
