//! A process's hold on its address space.

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::Errno;
use quire_mm::fallible::KArc;

use super::machine::Mm;
use crate::arch::{cpu, regs, smp};
use crate::task::percpu;
use crate::trap::irq;

/// An address space as processes own it: usually one, two while a vfork child runs. With the last owner the memory
/// goes, even where a CPU that idles still has the tables in TTBR0.
pub struct Space {
    /// The space.
    pub mm: ManuallyDrop<KArc<Mm>>,
}

static SPACES_IN_USE: AtomicU64 = AtomicU64::new(0);

impl Space {
    /// The first owner's.
    pub fn new(mm: KArc<Mm>) -> Result<KArc<Self>, Errno> {
        SPACES_IN_USE.fetch_add(1, Ordering::Relaxed);
        Ok(KArc::try_new(Self { mm: ManuallyDrop::new(mm) })?)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        leave(|active| KArc::ptr_eq(active, &self.mm));
        let is_loaded = KArc::count(&self.mm) > 1;
        if is_loaded {
            // Some CPU idles with it loaded. It lets go soon, where there is no time for this.
            self.mm.teardown();
        }
        // SAFETY: this is the end of the only owner of the field.
        unsafe { ManuallyDrop::drop(&mut self.mm) };
        if is_loaded {
            percpu::online().filter(|c| c.idling.load(Ordering::SeqCst)).for_each(|c| irq::send_reschedule(c.id()));
        }
        SPACES_IN_USE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An idle CPU takes a space whose process has ended out of its TTBR0.
pub fn leave_dead() {
    leave(|active| KArc::count(active) == 1);
}

/// Takes a space out of this CPU's TTBR0, if it is one like that.
fn leave(which: impl FnOnce(&KArc<Mm>) -> bool) {
    let irq = cpu::irq_save();
    let here = cpu::this();
    // SAFETY: `active_mm` is this CPU's, and interrupts are masked.
    let active = unsafe { &mut *here.active_mm.get() };
    let mut old = None;
    if active.as_ref().is_some_and(which) {
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
