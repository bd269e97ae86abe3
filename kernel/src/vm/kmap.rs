//! Short-lived mappings of a page (`kmap_local`).
//!
//! The direct map covers all DRAM except `no-map` memory. So for nearly every page this costs nothing and returns the
//! direct map's address, as on Linux/arm64. Only for the rest, and for memory added after boot, a page is mapped: each
//! CPU has [`SLOTS`] addresses of its own, used as a stack. So neither a lock nor a search is needed, and an interrupt
//! handler can map a page on top of those of the interrupted code.
//!
//! A mapping is short-lived and only for the CPU that made it: its holder does not sleep, and releases mappings in
//! reverse order. Other CPUs never use these addresses but may walk to them speculatively. So a removed entry is
//! invalidated on all CPUs before its slot is reused.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use quire_mm::Machine;
use quire_mm::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use quire_mm::kernel_table::{KernelAttrs, MapError};

use super::kernel_map;
use super::machine::{Cpu, MEMORY};
use super::percpu::per_cpu;
use crate::layout::KMAP_START;

/// Pages that a CPU may have mapped at once.
pub const SLOTS: usize = 16;

per_cpu! {
    /// Slots in use on this CPU.
    static DEPTH: AtomicUsize = AtomicUsize::new(0)
}

/// A mapped page that this CPU can access until this is dropped.
pub struct Mapped {
    address: NonNull<u8>,
    /// The slot's number, if it took one.
    slot: Option<usize>,
    /// It must stay on its CPU.
    not_send: PhantomData<*mut u8>,
}

/// Maps the page that contains `at`.
pub fn kmap_local(at: PhysAddr) -> Result<Mapped, MapError> {
    let reached = MEMORY.get().memory().any(|bank| !bank.no_map && bank.range.contains(&at));
    if reached {
        return Ok(Mapped { address: non_null(Cpu.direct_map(at).addr())?, slot: None, not_send: PhantomData });
    }
    let slot = DEPTH.load(Ordering::Relaxed);
    if slot == SLOTS {
        return Err(MapError::NoMemory);
    }
    // Before the mapping: an interrupt handler that maps a page takes the next slot, and has released it when it
    // returns.
    DEPTH.store(slot + 1, Ordering::Relaxed);
    let va = address_of(slot);
    let mapped = kernel_map::map(va, at.page_floor(), 1, KernelAttrs::DATA);
    let address = mapped.and_then(|()| non_null((va + at.page_offset()).get()));
    if address.is_err() {
        DEPTH.store(slot, Ordering::Relaxed);
    }
    Ok(Mapped { address: address?, slot: Some(slot), not_send: PhantomData })
}

fn non_null(address: usize) -> Result<NonNull<u8>, MapError> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(address)).ok_or(MapError::Misaligned)
}

fn address_of(slot: usize) -> VirtAddr {
    VirtAddr::new(KMAP_START) + (Cpu.cpu() * SLOTS + slot) * PAGE_SIZE
}

impl Mapped {
    /// Where the byte is.
    pub fn as_ptr(&self) -> *mut u8 {
        self.address.as_ptr()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        debug_assert!(DEPTH.load(Ordering::Relaxed) == slot + 1, "the page that was mapped last is given back first");
        kernel_map::unmap(address_of(slot), 1);
        DEPTH.store(slot, Ordering::Relaxed);
    }
}
