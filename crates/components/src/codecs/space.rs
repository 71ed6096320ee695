//! Memory to read into: taken with a permit of the budget, given out as an Arrow buffer that gives
//! the permit back with its last view, and used again.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_buffer::Buffer;
use bytes::Bytes;
use tidegate_model::{BudgetHolder, Permit};

/// Blocks below this size are left to the allocator, which is quick with them.
const REUSED_BYTES_MIN: usize = 4 << 10;

/// Bigger ones have steps of this size between them.
const STEP_BYTES_MAX: usize = 64 << 10;

/// How many bytes are kept free: what a source reads at once, and as much that is on its way.
const FREE_BYTES_MAX: usize = 2 << 20;

/// A size that is at least this one, and one of few, so that memory of the same size is asked for
/// again: four for each power of two, and multiples of 64 KiB.
pub(crate) fn rounded(bytes: usize) -> usize {
    let step = bytes.checked_next_power_of_two().unwrap_or(bytes) / 8;
    let step = step.clamp(REUSED_BYTES_MIN / 4, STEP_BYTES_MAX);
    bytes.max(REUSED_BYTES_MIN).checked_next_multiple_of(step).unwrap_or(bytes)
}

/// Memory that was read into before and is free again: at most 2 MiB or one bigger block, and none
/// once [cleared](Pool::clear).
#[derive(Clone, Debug, Default)]
pub struct Pool {
    free: Arc<Mutex<Free>>,
}

/// Blocks, the one that came back last at the end.
#[derive(Debug, Default)]
struct Free {
    blocks: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// As many bytes as the permit holds.
    pub fn space(&self, permit: Permit) -> Space {
        let size = permit.bytes();
        let block = self.lock().take(size).unwrap_or_else(|| vec![0; size]);
        Space { block, filled: 0, pool: self.clone(), _permit: permit }
    }

    /// Frees what is kept: for a source that has nothing to read.
    pub fn clear(&self) {
        drop(mem::take(&mut *self.lock()));
    }

    fn put(&self, block: Vec<u8>) {
        if block.len() < REUSED_BYTES_MIN {
            return;
        }
        let over = self.lock().put(block);
        drop(over);
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    /// The one of this size that is most likely still in a processor's cache.
    fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        let index = self.blocks.iter().rposition(|block| block.len() == size)?;
        let block = self.blocks.remove(index)?;
        self.bytes -= block.len();
        Some(block)
    }

    /// Gives back what is too much: the oldest, whose sizes may be some that nobody asks for any more.
    fn put(&mut self, block: Vec<u8>) -> Vec<Vec<u8>> {
        self.bytes += block.len();
        self.blocks.push_back(block);
        let mut over = Vec::new();
        while self.bytes > FREE_BYTES_MAX
            && self.blocks.len() > 1
            && let Some(oldest) = self.blocks.pop_front()
        {
            self.bytes -= oldest.len();
            over.push(oldest);
        }
        over
    }
}

/// Memory to read into, and the permit for it.
#[derive(Debug)]
pub struct Space {
    // As long as the permit says, always initialised.
    block: Vec<u8>,
    filled: usize,
    pool: Pool,
    _permit: Permit,
}

impl Space {
    /// What can be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.block
    }

    /// Its first bytes as a buffer; `filled` is at most what there is. Memory and permit go back
    /// when the last view into the buffer is gone.
    pub fn into_buffer(mut self, filled: usize) -> Buffer {
        self.filled = filled.min(self.block.len());
        Buffer::from(Bytes::from_owner(self))
    }
}

impl AsRef<[u8]> for Space {
    fn as_ref(&self) -> &[u8] {
        self.block.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.pool.put(mem::take(&mut self.block));
    }
}

/// A buffer that was computed, charged to the budget until its last view is gone.
pub(crate) fn charged(holder: &BudgetHolder, buffer: Buffer) -> Buffer {
    struct Charged(Buffer, #[expect(dead_code, reason = "held, not read")] Permit);

    impl AsRef<[u8]> for Charged {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    if buffer.capacity() == 0 {
        return buffer;
    }
    let permit = holder.charge(buffer.capacity());
    Buffer::from(Bytes::from_owner(Charged(buffer, permit)))
}

#[cfg(test)]
mod tests {
    use arrow_buffer::ScalarBuffer;
    use tidegate_flow::ByteBudget;

    use super::*;

    #[test]
    fn memory_and_permit_come_back_with_the_last_view() {
        let budget = ByteBudget::new(1 << 20);
        let holder = budget.holder(0).unwrap();
        let pool = Pool::default();
        let mut space = pool.space(holder.try_acquire(REUSED_BYTES_MIN).unwrap());
        space.bytes_mut()[..5].copy_from_slice(b"hello");
        let address = space.bytes_mut().as_ptr();
        let buffer = space.into_buffer(5);
        let view = buffer.slice(1);
        drop(buffer);
        assert_eq!((view.as_slice(), holder.held()), (&b"ello"[..], REUSED_BYTES_MIN));
        drop(view);
        assert_eq!(holder.held(), 0);

        let mut other = pool.space(holder.try_acquire(REUSED_BYTES_MIN + 1).unwrap());
        assert_ne!(other.bytes_mut().as_ptr(), address, "it is of another size");
        let mut again = pool.space(holder.try_acquire(REUSED_BYTES_MIN).unwrap());
        assert_eq!(again.bytes_mut().as_ptr(), address, "it is used again");
    }

    #[test]
    fn few_bytes_are_kept_and_none_when_cleared() {
        let budget = ByteBudget::new(1 << 30);
        let holder = budget.holder(0).unwrap();
        let pool = Pool::default();
        let space = |bytes| pool.space(holder.try_acquire(bytes).unwrap());
        let kept = || {
            let free = pool.lock();
            let bytes = free.blocks.iter().map(Vec::len).sum::<usize>();
            assert_eq!(bytes, free.bytes);
            (free.blocks.len(), bytes)
        };
        drop([(); 100].map(|()| space(64 << 10)));
        assert_eq!(kept(), (32, 2 << 20));
        drop(space(100 << 10));
        assert_eq!(kept(), (31, (30 * 64 + 100) << 10), "the oldest went");
        drop(space(10));
        assert_eq!(kept().0, 31, "too small to be kept");
        drop(space(3 << 20));
        assert_eq!(kept(), (1, 3 << 20));
        pool.clear();
        assert_eq!(kept(), (0, 0));
    }

    #[test]
    fn sizes_are_few_and_little_more_than_what_is_asked_for() {
        let mut sizes = std::collections::BTreeSet::new();
        for bytes in 1..=1 << 20 {
            let size = rounded(bytes);
            assert!(size >= bytes && size <= (bytes * 5 / 4).max(REUSED_BYTES_MIN), "{bytes}");
            sizes.insert(size);
        }
        assert!(sizes.len() < 40, "{sizes:?}");
        assert_eq!(rounded(usize::MAX), usize::MAX);
    }

    #[test]
    fn what_is_computed_is_charged_as_long_as_it_lives_and_stays_aligned() {
        let budget = ByteBudget::new(100);
        let holder = budget.holder(0).unwrap();
        let buffer = charged(&holder, Buffer::from_vec(vec![1u128; 16]));
        assert_eq!(budget.usage().used, 256, "beyond the budget, too");
        let numbers = ScalarBuffer::<u128>::from(buffer);
        assert_eq!(numbers.len(), 16);
        drop(numbers);
        assert_eq!(budget.usage().used, 0);
    }
}
