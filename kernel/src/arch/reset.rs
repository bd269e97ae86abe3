//! Registers whose values are unknown after reset, or that firmware may leave in any state.
//!
//! [`set_registers`] is the first thing that every CPU does in Rust. The registers of EL1 and EL0 whose reset value the
//! architecture leaves undefined (each register's page in the Arm ARM, "on a Warm reset"), and the code that sets them:
//!
//! | registers | set by |
//! | --- | --- |
//! | SCTLR, TCR, MAIR, TTBR0, TTBR1, VBAR (EL1) | `head`, as a whole, before the MMU is on |
//! | AMAIR_EL1 | here: 0, no attributes of an implementation's own |
//! | TPIDR_EL1 | [`super::cpu::set_record`], `head` for secondary CPUs |
//! | TPIDR_EL0 | here, and at each switch to a program |
//! | TPIDRRO_EL0 | here: programs read it; the kernel uses it as a scratch register when a stack has overflowed, and then stops |
//! | CONTEXTIDR_EL1 | here: trace hardware and debuggers read it; it is not used |
//! | CPACR_EL1 | here: programs trap on FP, SIMD, SVE and SME at first |
//! | CNTKCTL_EL1 | here: programs read the virtual counter (EL0VCTEN), and nothing else of the timer |
//! | CNTV_CTL_EL0, CNTP_CTL_EL0 | here: off |
//! | PMUSERENR_EL0, PMCR_EL0, PMCNTENCLR_EL0, PMINTENCLR_EL1, PMOVSCLR_EL0 | here: no counter runs, interrupts or is a program's |
//! | AMUSERENR_EL0 | here: activity monitors are not for programs |
//! | MDSCR_EL1 | here: no breakpoint, watchpoint or single step in programs; so DBGB*R, DBGW*R may hold anything |
//! | LORC_EL1 | here: no limited ordering regions |
//! | ELR, SPSR, ESR, FAR (EL1) | here: a panic shows what the last exception left, if there was one |
//! | SP_EL0 | each return to a program; FPSR, FPCR, V: each first use by a thread |
//! | ICC_* | the interrupt controller's driver |
//!
//! Left alone, since they are written before they are read, or have no effect with SCTLR_EL1 as `head` sets it:
//! PAR_EL1, CSSELR_EL1, AFSR0_EL1, AFSR1_EL1; APxKey (EnIA, EnIB, EnDA, EnDB are 0); GCR, RGSR, TFSR (ATA is 0);
//! SCXTNUM_EL0 (TSCXT traps it). ACTLR_EL1 and implementation-defined registers belong to firmware; see
//! [`super::errata`].

use core::arch::asm;

use aarch64_cpu::registers::{
    CNTKCTL_EL1, CNTP_CTL_EL0, CNTV_CTL_EL0, CONTEXTIDR_EL1, CPACR_EL1, ELR_EL1, ESR_EL1, FAR_EL1, MDSCR_EL1, Readable,
    SPSR_EL1, TPIDR_EL0, TPIDRRO_EL0, Writeable,
};
use aarch64_cpu::registers::{ID_AA64DFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64PFR0_EL1};

use super::barrier::isb;

/// CNTKCTL_EL1.EL0VCTEN: programs read the virtual counter and its frequency.
const EL0_READS_COUNTER: u64 = 1 << 1;

/// All counters: at most 31 event counters and the cycle counter.
const ALL_COUNTERS: u64 = 0xffff_ffff;

/// The optional features that this CPU has.
struct Parts {
    counters: bool,
    activity_monitors: bool,
    ordering_regions: bool,
}

impl Parts {
    fn here() -> Self {
        let field = |register: u64, shift: u32| register >> shift & 15;
        Self {
            // 15: counters that are not the architecture's.
            counters: !matches!(field(ID_AA64DFR0_EL1.get(), 8), 0 | 15),
            activity_monitors: field(ID_AA64PFR0_EL1.get(), 44) != 0,
            ordering_regions: field(ID_AA64MMFR1_EL1.get(), 16) != 0,
        }
    }
}

macro_rules! write {
    ($register:literal, $value:expr) => {
        // SAFETY: the callers explain the values; none of these registers affects memory.
        unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) $value, options(nomem, nostack, preserves_flags)) }
    };
}

/// Gives this CPU's registers the values that the kernel relies on.
pub fn set_registers() {
    MDSCR_EL1.set(0);
    TPIDR_EL0.set(0);
    TPIDRRO_EL0.set(0);
    CONTEXTIDR_EL1.set(0);
    CPACR_EL1.set(0);
    CNTKCTL_EL1.set(EL0_READS_COUNTER);
    CNTV_CTL_EL0.set(0);
    CNTP_CTL_EL0.set(0);
    ELR_EL1.set(0);
    SPSR_EL1.set(0);
    ESR_EL1.set(0);
    FAR_EL1.set(0);
    write!("amair_el1", 0u64);
    let parts = Parts::here();
    if parts.counters {
        write!("pmuserenr_el0", 0u64);
        write!("pmcr_el0", 0u64);
        write!("pmcntenclr_el0", ALL_COUNTERS);
        write!("pmintenclr_el1", ALL_COUNTERS);
        write!("pmovsclr_el0", ALL_COUNTERS);
    }
    if parts.activity_monitors {
        // AMUSERENR_EL0.
        write!("S3_3_C13_C2_3", 0u64);
    }
    if parts.ordering_regions {
        // LORC_EL1.
        write!("S3_0_C10_C4_3", 0u64);
    }
    isb();
}

/// Leaves the registers as firmware might that uses all of them, so that the self-test can check [`set_registers`].
#[cfg(feature = "selftest")]
pub fn spoil() {
    // Without KDE and SS, so that the kernel itself is not debugged.
    MDSCR_EL1.set(1 << 15 | 1 << 12);
    TPIDR_EL0.set(u64::MAX);
    TPIDRRO_EL0.set(u64::MAX);
    CONTEXTIDR_EL1.set(0xffff_ffff);
    CPACR_EL1.set(3 << 20);
    CNTKCTL_EL1.set(0x3ff);
    // Masked: there is no handler yet.
    CNTP_CTL_EL0.set(3);
    CNTV_CTL_EL0.set(3);
    ELR_EL1.set(0xbad0);
    ESR_EL1.set(0xbad0);
    FAR_EL1.set(0xbad0);
    if Parts::here().counters {
        write!("pmuserenr_el0", 15u64);
        write!("pmcr_el0", 1u64);
        write!("pmcntenset_el0", 1u64 << 31);
        write!("pmintenset_el1", 1u64 << 31);
        write!("pmovsset_el0", 1u64 << 31);
    }
}

/// A register of this CPU that differs from its value after [`set_registers`]. Registers that threads or the scheduler set are
/// not checked.
#[cfg(feature = "selftest")]
pub fn wrong_register() -> Option<&'static str> {
    macro_rules! read {
        ($register:literal) => {{
            let value: u64;
            // SAFETY: reading it has no effect.
            unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) }
            value
        }};
    }
    let mut wrong = None;
    let mut check = |name: &'static str, holds: bool| wrong = if holds { wrong } else { wrong.or(Some(name)) };
    check("MDSCR_EL1", MDSCR_EL1.get() == 0);
    check("TPIDRRO_EL0", TPIDRRO_EL0.get() == 0);
    check("CONTEXTIDR_EL1", CONTEXTIDR_EL1.get() == 0);
    check("CPACR_EL1", CPACR_EL1.get() == 0);
    check("CNTKCTL_EL1", CNTKCTL_EL1.get() == EL0_READS_COUNTER);
    check("CNTP_CTL_EL0", CNTP_CTL_EL0.get() & 1 == 0);
    check("AMAIR_EL1", read!("amair_el1") == 0);
    if Parts::here().counters {
        check("PMUSERENR_EL0", read!("pmuserenr_el0") == 0);
        check("PMCR_EL0", read!("pmcr_el0") & 1 == 0);
        check("PMCNTENSET_EL0", read!("pmcntenset_el0") == 0);
        check("PMINTENSET_EL1", read!("pmintenset_el1") == 0);
        check("PMOVSSET_EL0", read!("pmovsset_el0") == 0);
    }
    wrong
}
