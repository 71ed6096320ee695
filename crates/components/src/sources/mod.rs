//! Where data comes from: one file and one line here for each.

use tidegate_model::SourceSpec;

register! {
    /// By the name that a configuration's `type` gives them.
    SOURCES: SourceSpec => file, generate, http, postgres, socket, sqlite, sse, stdin, websocket,
}
