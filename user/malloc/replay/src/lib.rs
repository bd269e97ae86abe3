//! Runs a byte string as a sequence of allocator calls. Each block's contents are checked before it is freed, and the
//! heap is validated at the end. Any string is a valid sequence, so a fuzzer need not know the format.

#[path = "../../tests/support/mod.rs"]
#[allow(missing_docs)]
mod support;

use std::sync::atomic::Ordering::Relaxed;

use quire_malloc::{Malloc, Parameter};
use support::Fake;

/// Blocks alive at a time.
const SLOTS: usize = 64;

struct Block {
    at: *mut u8,
    size: usize,
    mark: u8,
}

impl Block {
    fn check(&self) {
        // SAFETY: the block is alive and holds that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, self.size) };
        assert!(bytes.iter().all(|b| *b == self.mark), "a block's contents changed");
    }
}

/// Runs the sequence. Panics where the allocator breaks a promise.
///
/// Four bytes are a call: what to do, with which slot, and two for the size. The first byte's upper bits also choose
/// between sizes in bytes, in units of 16, and in pages.
pub fn replay(bytes: &[u8]) {
    let m = Malloc::new(Fake::new());
    let mut slots: [Option<Block>; SLOTS] = [const { None }; SLOTS];
    for call in bytes.chunks_exact(4) {
        let slot = &mut slots[call[1] as usize % SLOTS];
        let unit = [1, 1, 16, 256][call[0] as usize >> 6];
        let size = (u16::from_le_bytes([call[2], call[3]]) as usize % 4096) * unit;
        step(&m, slot, call[0] & 15, size, call[3]);
    }
    m.system().budget.store(usize::MAX, Relaxed);
    m.validate().expect("the heap is whole");
    for block in slots.into_iter().flatten() {
        block.check();
        // SAFETY: the block is alive.
        unsafe { m.free(block.at) };
    }
    m.trim(0);
    m.thread_exit();
    m.trim(0);
    let totals = m.validate().expect("the heap is whole");
    assert_eq!((totals.used, totals.cached), ((0, 0), (0, 0)), "something was lost");
    assert_eq!(m.system().mapped(), 0, "a mapping was lost");
}

fn step(m: &Malloc<Fake>, slot: &mut Option<Block>, what: u8, size: usize, mark: u8) {
    match what {
        12 => m.system().foreign.store(size % 4096, Relaxed),
        13 => m.system().budget.store(if size.is_multiple_of(4) { size % 64 } else { usize::MAX }, Relaxed),
        14 => {
            m.trim(size);
        }
        15 if size.is_multiple_of(2) => m.thread_exit(),
        15 => {
            m.set_option(Parameter::MmapThreshold, size as i32);
        }
        8..=11 => resize(m, slot, size),
        _ => {
            if let Some(old) = slot.take() {
                old.check();
                // SAFETY: the block is alive.
                unsafe { m.free(old.at) };
            }
            let at = match what {
                0..=2 => return,
                3 => m.calloc(1, size),
                4 => m.memalign(16 << (size % 10), size),
                _ => m.malloc(size),
            };
            if at.is_null() {
                return;
            }
            // SAFETY: the block is new and holds `size` bytes.
            unsafe {
                assert!(what != 3 || std::slice::from_raw_parts(at, size).iter().all(|b| *b == 0));
                at.write_bytes(mark, size);
            }
            *slot = Some(Block { at, size, mark });
        }
    }
}

fn resize(m: &Malloc<Fake>, slot: &mut Option<Block>, size: usize) {
    let Some(block) = slot else { return };
    let size = size.max(1);
    // SAFETY: the block is alive.
    let at = unsafe { m.realloc(block.at, size) };
    if at.is_null() {
        return block.check();
    }
    block.at = at;
    block.size = block.size.min(size);
    block.check();
    block.size = size;
    // SAFETY: the block now holds `size` bytes.
    unsafe { at.write_bytes(block.mark, size) };
}

#[cfg(test)]
mod tests {
    use super::replay;

    #[test]
    fn random_strings_break_nothing() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for len in (0..60).map(|i| i * 48) {
            let mut bytes = Vec::new();
            while bytes.len() < len {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                bytes.extend(random.to_le_bytes());
            }
            replay(&bytes);
        }
    }
}
