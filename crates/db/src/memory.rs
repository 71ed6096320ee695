//! Memory that belongs to a budget for as long as anybody looks at it.

use std::sync::Arc;

use arrow_buffer::Buffer;
use bytes::Bytes;
use tidegate_flow::Permit;

/// A buffer whose permit is given back, with those of all buffers that share it, when the last view
/// into the last of them is gone.
pub(crate) fn held(buffer: Buffer, permit: &Arc<Permit>) -> Buffer {
    struct Held(Buffer, #[expect(dead_code, reason = "held, not read")] Arc<Permit>);

    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    if buffer.is_empty() {
        return buffer;
    }
    Buffer::from(Bytes::from_owner(Held(buffer, Arc::clone(permit))))
}
