//! Where data goes: one file and one line here for each.

use tidegate_model::SinkSpec;

register! {
    /// By the name that a configuration's `type` gives them.
    SINKS: SinkSpec => blackhole, file, http, postgres, socket, sse, stdout, websocket,
}
