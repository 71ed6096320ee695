//! Rows in, rows out: one file and one line here for each.

use tidegate_model::TransformSpec;

register! {
    /// By the name that a configuration's `type` gives them.
    TRANSFORMS: TransformSpec => rate_limit,
}
