//! Memory to read into: taken with a permit of the budget, given out as an Arrow buffer that gives
//! the permit back with its last view, and used again.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_buffer::Buffer;
use bytes::Bytes;
use tidegate_model::{BudgetHolder, Permit};

/// Blocks below this size are left to the allocator, which is quick with them.
const REUSED_BYTES_MIN: usize = 64 << 10;

/// How many free blocks are kept. They come back one at a time, as they are taken.
const FREE_MAX: usize = 2;

/// Memory that was read into before and is free again: at most two blocks, and none once
/// [cleared](Pool::clear).
#[derive(Clone, Debug, Default)]
pub struct Pool {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Pool {
    /// As many bytes as the permit holds.
    pub fn space(&self, permit: Permit) -> Space {
        let size = permit.bytes();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let same = free.iter().position(|block| block.len() == size);
        let block = same.map(|index| free.swap_remove(index));
        drop(free);
        let block = block.unwrap_or_else(|| vec![0; size]);
        Space { block, filled: 0, pool: self.clone(), _permit: permit }
    }

    /// Frees what is kept: for a source that has nothing to read.
    pub fn clear(&self) {
        drop(mem::take(&mut *self.free.lock().unwrap_or_else(PoisonError::into_inner)));
    }

    fn put(&self, block: Vec<u8>) {
        if block.len() < REUSED_BYTES_MIN {
            return;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest goes: its size may be one that nobody asks for any more.
        let oldest = (free.len() >= FREE_MAX).then(|| free.remove(0));
        free.push(block);
        drop(free);
        drop(oldest);
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
    fn few_blocks_are_kept_and_none_when_cleared() {
        let budget = ByteBudget::new(1 << 20);
        let holder = budget.holder(0).unwrap();
        let pool = Pool::default();
        let spaces = [(); 4].map(|()| pool.space(holder.try_acquire(REUSED_BYTES_MIN).unwrap()));
        drop(spaces);
        assert_eq!(pool.free.lock().unwrap().len(), FREE_MAX);
        pool.clear();
        assert!(pool.free.lock().unwrap().is_empty());
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
