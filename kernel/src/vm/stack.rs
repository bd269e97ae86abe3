//! Kernel stacks: [`STACK_SIZE`] bytes in slots of [`STACK_ALIGN`], so that an unmapped guard of the same size lies
//! below each.
//!
//! They are not vmalloc areas: a slot is found in O(1), its alignment reduces the overflow check to a bit test, and its
//! single block takes one allocation and one run of entries, where vmalloc allocates page by page. With an area,
//! creating a thread would also cost a node, a search, and up to four runs.
//!
//! A freed slot keeps its pages while there are fewer than [`SPARE`] such slots: a new thread then needs no mapping.

use alloc::vec::Vec;
use quire_abi::Errno;
use quire_mm::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use quire_mm::cgroup::Kernel;
use quire_mm::fallible::TryVec;
use quire_mm::kernel_table::KernelAttrs;
use quire_mm::page_alloc::{Gfp, PageBlock, Shrinker};
use quire_mm::sync::Rank;

use super::kernel_map;
use super::machine::{Cpu, GROUPS, PAGES, SpinLock};
use crate::layout::{STACK_ALIGN, STACK_SIZE, STACKS_END, STACKS_START};

/// Order of the block behind a stack.
const ORDER: u32 = (STACK_SIZE / PAGE_SIZE).trailing_zeros();

/// Mapped stacks that are kept for reuse.
const SPARE: usize = 16;

struct Slots {
    /// Slots at and above this were never used.
    fresh: usize,
    /// Slots without pages. Has capacity for all below `fresh`, so that freeing one cannot fail.
    unmapped: Vec<usize>,
    /// Slots with pages that no thread has.
    spare: [(usize, PhysAddr); SPARE],
    spare_count: usize,
    in_use: usize,
}

static SLOTS: SpinLock<Slots> = SpinLock::new(
    Cpu,
    Rank::Stacks,
    Slots { fresh: 0, unmapped: Vec::new(), spare: [(0, PhysAddr::new(0)); SPARE], spare_count: 0, in_use: 0 },
);

/// A thread's kernel stack.
pub struct Stack {
    slot: usize,
    block: PhysAddr,
    /// The control group that it is charged to.
    group: u16,
}

fn base_of(slot: usize) -> VirtAddr {
    VirtAddr::new(STACKS_START + slot * STACK_ALIGN)
}

impl Stack {
    /// A stack, charged to the calling thread's group, its contents undefined. Waits by all means.
    pub fn new() -> Result<Self, Errno> {
        let group = GROUPS.charge_kernel(Kernel::Stacks, 1 << ORDER)?;
        Self::of(group).inspect_err(|_| GROUPS.uncharge_kernel(group, Kernel::Stacks, 1 << ORDER))
    }

    fn of(group: u16) -> Result<Self, Errno> {
        {
            let mut slots = SLOTS.lock();
            if let Some(last) = slots.spare_count.checked_sub(1) {
                slots.spare_count = last;
                slots.in_use += 1;
                let (slot, block) = slots.spare[last];
                return Ok(Self { slot, block, group });
            }
        }
        let block = PAGES.alloc_pages(ORDER, Gfp::KERNEL)?;
        let slot = take_slot()?;
        let mapped = kernel_map::map(base_of(slot), block.addr(), 1 << ORDER, KernelAttrs::DATA);
        if mapped.is_err() {
            kernel_map::unmap(base_of(slot), 1 << ORDER);
            give_slot(slot);
            return Err(Errno::ENOMEM);
        }
        SLOTS.lock().in_use += 1;
        Ok(Self { slot, block: block.into_raw().addr(), group })
    }

    /// One past its highest byte.
    pub fn top(&self) -> usize {
        base_of(self.slot).get() + STACK_SIZE
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        GROUPS.uncharge_kernel(self.group, Kernel::Stacks, 1 << ORDER);
        {
            let mut slots = SLOTS.lock();
            slots.in_use -= 1;
            let n = slots.spare_count;
            if n < SPARE {
                slots.spare[n] = (self.slot, self.block);
                slots.spare_count += 1;
                return;
            }
        }
        unmake(self.slot, self.block);
    }
}

/// Frees the slot and the block of an unused stack.
fn unmake(slot: usize, block: PhysAddr) {
    kernel_map::unmap(base_of(slot), 1 << ORDER);
    give_slot(slot);
    // SAFETY: the block is the one that `Stack::new` took apart, unmapped and flushed on all CPUs.
    drop(unsafe { PageBlock::from_raw(Cpu, block.pfn(), ORDER) });
}

fn take_slot() -> Result<usize, Errno> {
    loop {
        let wanted = {
            let mut slots = SLOTS.lock();
            if let Some(slot) = slots.unmapped.pop() {
                return Ok(slot);
            }
            if slots.fresh < slots.unmapped.capacity() {
                if base_of(slots.fresh + 1).get() > STACKS_END {
                    return Err(Errno::EAGAIN);
                }
                slots.fresh += 1;
                return Ok(slots.fresh - 1);
            }
            (slots.fresh + 1).next_power_of_two().max(64)
        };
        let mut larger: Vec<usize> = TryVec::try_with_capacity(wanted).map_err(Errno::from)?;
        let mut slots = SLOTS.lock();
        if slots.unmapped.capacity() < wanted {
            let old = core::mem::take(&mut slots.unmapped);
            for slot in &old {
                larger.try_push(*slot).map_err(Errno::from)?;
            }
            slots.unmapped = larger;
            drop(slots);
            drop(old);
        }
    }
}

fn give_slot(slot: usize) {
    let mut slots = SLOTS.lock();
    // There is room for every slot that was ever used.
    let _ = slots.unmapped.try_push(slot);
}

/// Stacks that no thread has.
pub struct Spares;

/// The shrinker of the spare stacks.
pub static SPARES: Spares = Spares;

impl Shrinker for Spares {
    fn count(&self) -> usize {
        SLOTS.lock().spare_count << ORDER
    }

    fn scan(&self, target: usize, _gfp: Gfp) -> usize {
        let mut freed = 0;
        while freed < target {
            let spare = {
                let mut slots = SLOTS.lock();
                slots.spare_count.checked_sub(1).map(|last| {
                    slots.spare_count = last;
                    slots.spare[last]
                })
            };
            let Some((slot, block)) = spare else { break };
            unmake(slot, block);
            freed += 1 << ORDER;
        }
        freed
    }
}

/// Pages in stacks of threads, and in spare stacks.
pub fn pages() -> (usize, usize) {
    let slots = SLOTS.lock();
    (slots.in_use << ORDER, slots.spare_count << ORDER)
}
