//! Tidegate's front door for Rust programs: everything under one name.
//!
//! Today that is [`flow`], flow control for any stream. The pipeline engine will live beside it.
//!
//! ```
//! use futures::{StreamExt, stream};
//! use tidegate::flow::{BatchLimits, FlowExt, nz};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let batches = stream::iter(0..5).batch(BatchLimits::rows(nz!(2)));
//! assert_eq!(batches.count().await, 3);
//! # }
//! ```

/// Flow control for any stream: the crate `tidegate-flow`.
pub use tidegate_flow as flow;
