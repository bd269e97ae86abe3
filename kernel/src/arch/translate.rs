//! Translation of a kernel address by the MMU itself: AT and PAR_EL1.

use core::arch::asm;

use super::cpu;

/// PAR_EL1 after a stage 1 translation at EL1.
///
/// ```text
/// |63  56|      |47        12|     |8 7|6  1| 0 |
/// | ATTR |      |  address   |     |SH |    |F=0|
/// |                                    |FST |F=1|
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation(u64);

impl Translation {
    /// Translates a load at `va`, or a store.
    pub fn of(va: usize, write: bool) -> Translation {
        let par: u64;
        // An AT in an interrupt handler would overwrite PAR_EL1.
        let irq = cpu::irq_save();
        // SAFETY: AT accesses nothing but the tables and changes PAR_EL1, which nothing else uses. The ISB completes it
        // before the register is read.
        unsafe {
            if write {
                asm!("at s1e1w, {}", in(reg) va, options(nostack, preserves_flags));
            } else {
                asm!("at s1e1r, {}", in(reg) va, options(nostack, preserves_flags));
            }
            asm!("isb", "mrs {}, par_el1", out(reg) par, options(nostack, preserves_flags));
        }
        cpu::irq_restore(irq);
        Translation(par)
    }

    /// Whether there is no entry for it.
    pub fn is_translation_fault(self) -> bool {
        matches!(self.fault_status(), Some(0x04..=0x07))
    }

    /// The fault status code, as ESR_EL1 has it.
    fn fault_status(self) -> Option<u64> {
        (self.0 & 1 == 1).then_some(self.0 >> 1 & 0x3f)
    }
}

/// Queries that only the self-test makes.
#[cfg(feature = "selftest")]
impl Translation {
    /// The physical address of the page; `None` where there is a fault.
    pub fn page(self) -> Option<quire_mm::PhysAddr> {
        let address = self.0 & quire_mm::pte::bits::ADDR;
        self.fault_status().is_none().then(|| quire_mm::PhysAddr::new(address as usize))
    }

    /// Whether the entry does not allow it.
    pub fn is_permission_fault(self) -> bool {
        matches!(self.fault_status(), Some(0x0c..=0x0f))
    }

    /// The memory's attributes, as in a byte of MAIR_EL1. The CPU may report other attributes than the entry's:
    /// Cortex-A CPUs treat write-through memory as non-cacheable.
    pub fn attributes(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The shareability: 3 is inner, 2 outer, which is what device and non-cacheable memory always has.
    pub fn shareability(self) -> u8 {
        (self.0 >> 7 & 3) as u8
    }
}
