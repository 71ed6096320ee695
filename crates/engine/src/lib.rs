//! Tidegate's pipeline engine: configuration to graph to run, with acks, checkpoints and one budget.
