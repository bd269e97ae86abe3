//! A process's hold on its address space.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::Errno;
use quire_mm::fallible::KArc;

use super::machine::Mm;
use crate::arch::{cpu, regs, smp};

/// An address space as processes own it: usually one, two while a vfork child runs. With the last owner the memory
/// goes, even where a CPU that idles still has the tables in TTBR0.
pub struct Space {
    /// The space.
    pub mm: KArc<Mm>,
}

static SPACES_IN_USE: AtomicU64 = AtomicU64::new(0);

impl Space {
    /// The first owner's.
    pub fn new(mm: KArc<Mm>) -> Result<KArc<Self>, Errno> {
        SPACES_IN_USE.fetch_add(1, Ordering::Relaxed);
        Ok(KArc::try_new(Self { mm })?)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        leave(&self.mm);
        if KArc::count(&self.mm) > 1 {
            // Some CPU has it loaded and will let go at its next switch, where there is no time for this.
            self.mm.teardown();
        }
        SPACES_IN_USE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a space out of this CPU's TTBR0.
fn leave(mm: &KArc<Mm>) {
    let irq = cpu::irq_save();
    let here = cpu::this();
    // SAFETY: `active_mm` is this CPU's, and interrupts are masked.
    let active = unsafe { &mut *here.active_mm.get() };
    let mut old = None;
    if active.as_ref().is_some_and(|a| KArc::ptr_eq(a, mm)) {
        regs::set_ttbr0(smp::empty_table().get() as u64, 0);
        old = active.take();
    }
    cpu::irq_restore(irq);
    drop(old);
}

/// Spaces that processes own.
pub fn in_use() -> u64 {
    SPACES_IN_USE.load(Ordering::Relaxed)
}
