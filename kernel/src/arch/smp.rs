//! Secondary CPUs: starting them, and replacing the translation tables of a running CPU.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use quire_mm::PhysAddr;
use quire_mm::machine::MAX_CPUS;
use quire_platform::tree::{Board, Cpu as Described};

use super::barrier::isb;
use super::cpu::Head;
use super::{cache, regs};
use crate::board::BootCell;
use crate::layout::KIMAGE;

/// The values that a starting CPU reads with its MMU off: TTBR1, stack top, per-CPU base.
#[repr(C, align(64))]
pub struct Secondary {
    ttbr1: AtomicU64,
    stack: AtomicU64,
    percpu: AtomicU64,
}

/// One CPU starts at a time.
pub static SECONDARY: Secondary =
    Secondary { ttbr1: AtomicU64::new(0), stack: AtomicU64::new(0), percpu: AtomicU64::new(0) };

/// Physical address of KIMAGE.
pub static IMAGE: BootCell<PhysAddr> = BootCell::new(PhysAddr::new(0));

unsafe extern "C" {
    fn secondary_entry();
    fn replace_ttbr1();
    static early_empty: u8;
}

/// The physical address of something in the image.
pub fn image_to_phys(va: usize) -> PhysAddr {
    *IMAGE.get() + (va - KIMAGE)
}

/// A root table without entries, for TTBR0 where there is no process.
pub fn empty_table() -> PhysAddr {
    image_to_phys((&raw const early_empty).addr())
}

/// Makes `root` the upper half's tables, which must map the image at its present address. Interrupts are masked.
pub fn replace_tables(root: PhysAddr) {
    let trampoline = image_to_phys(replace_ttbr1 as *const () as usize).get();
    // SAFETY: TTBR0 still holds the identity map of the trampoline's page; the new tables map the image at the same
    // address, so the return address stays valid.
    unsafe {
        asm!("blr {f}", f = in(reg) trampoline, in("x0") root.get(), out("x1") _, out("x30") _, options(nostack));
    }
}

/// The CPUs of the tree in the order of their numbers: the one that boots first, at most [`MAX_CPUS`].
pub fn in_order(board: &Board) -> impl Iterator<Item = &Described> {
    let me = regs::mpidr();
    let boot = board.cpus.iter().filter(move |c| c.mpidr == me);
    boot.chain(board.cpus.iter().filter(move |c| c.mpidr != me)).take(MAX_CPUS)
}

/// Lays out what the next CPU that starts reads: its stack and its record. Returns the physical address where it begins,
/// which leads to `secondary_main`.
pub fn prepare_secondary(ttbr1: PhysAddr, stack_top: usize, record: *const Head) -> u64 {
    SECONDARY.ttbr1.store(ttbr1.get() as u64, Ordering::Relaxed);
    SECONDARY.stack.store(stack_top as u64, Ordering::Relaxed);
    SECONDARY.percpu.store(record.addr() as u64, Ordering::Relaxed);
    cache::clean_to_memory((&raw const SECONDARY).cast(), size_of::<Secondary>());
    image_to_phys(secondary_entry as *const () as usize).get() as u64
}

/// Takes the identity map out of TTBR0: from now on the lower half belongs to processes.
pub fn leave_identity_map() {
    regs::set_ttbr0(empty_table().get() as u64, 0);
    super::tlb::flush_local();
    isb();
}
