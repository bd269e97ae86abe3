//! Errata of the Cortex-A72, the Pi's CPU: those in Arm's notice (EPM 012079) that EL1 software has to work around.
//!
//! The errata that need software are taken from the lists that Arm itself maintains: Trusted Firmware-A's CPU library
//! for settings at reset, Linux's `silicon-errata` for workarounds in a kernel. A Pi 4 has revision r0p3.
//!
//! | erratum | revisions | here |
//! | --- | --- | --- |
//! | 859971 | up to r0p3 | [`apply`]: instruction prefetching is switched off (CPUACTLR_EL1, bit 32) |
//! | 853709, 1319367 | all | not needed: they are about a hypervisor that runs translations of another regime; Quire has one regime |
//! | 1655431 | all | not needed: it is about AES instructions in AArch32, and no program runs in AArch32 |
//!
//! Speculation is covered by Arm's white papers, not by the notice: variant 1 is masked at each index
//! ([`super::speculation`]); variant 3 (CVE-2017-5754) does not concern this CPU. Variants 2 and 4, and branch history
//! (CVE-2022-23960), need help from firmware on this CPU (SMCCC_ARCH_WORKAROUND_1 to 3). The Pi's firmware provides no
//! calls, so they are not mitigated.
//!
//! # Who may write CPUACTLR_EL1
//! EL3, and a level below that EL3 and EL2 let (ACTLR_EL3, ACTLR_EL2, bit 0): elsewhere the write traps to firmware that does
//! not expect it. The Pi's own stub lets EL2, and sets nothing itself; `head` lets EL1 in turn. A firmware with PSCI is
//! taken to have done its duty at reset, as Trusted Firmware-A does.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use quire_platform::tree::{Board, EnableMethod};

use super::barrier::{dsb_sy, isb};
use super::regs;

/// Whether this kernel writes CPUACTLR_EL1.
static MAY_WRITE: AtomicBool = AtomicBool::new(false);

/// Implementer, variant 0, architecture and part of a Cortex-A72; the lowest four bits of MIDR_EL1 are the revision.
const CORTEX_A72_R0: u64 = 0x0410_fd08;
const LAST_WITH_859971: u64 = 3;

/// Decides whether the kernel has to write the register itself: it was entered at EL2, by firmware that provides no
/// calls.
pub fn init(entered_in_el2: bool, board: &Board) {
    let stub = board.psci.is_none() && board.cpus.iter().any(|cpu| matches!(cpu.enable, EnableMethod::SpinTable(_)));
    MAY_WRITE.store(entered_in_el2 && stub, Ordering::Relaxed);
}

/// Applies this CPU's workarounds. With interrupts masked, before it runs programs.
// Inlined, so that the code that each CPU starts with has its own: by that a test sees in QEMU's list that both do it.
#[inline(always)]
pub fn apply() {
    const NO_INSTRUCTION_PREFETCH: u64 = 1 << 32;
    let midr = regs::midr();
    let affected = midr >> 4 == CORTEX_A72_R0 && midr & 15 <= LAST_WITH_859971;
    if !affected || !MAY_WRITE.load(Ordering::Relaxed) {
        return;
    }
    dsb_sy();
    // SAFETY: CPUACTLR_EL1 of a Cortex-A72, which this level may write (see the module); less is guessed, nothing changes.
    unsafe {
        asm!(
            "mrs {v}, S3_1_C15_C2_0",
            "orr {v}, {v}, {bit}",
            "msr S3_1_C15_C2_0, {v}",
            v = out(reg) _,
            bit = in(reg) NO_INSTRUCTION_PREFETCH,
            options(nostack, preserves_flags),
        );
    }
    isb();
}
