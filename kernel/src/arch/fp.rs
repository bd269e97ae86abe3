//! FP and SIMD registers of programs. The kernel is built without them, so they are saved and restored only when a
//! thread that uses them is switched out or in; a thread's first use traps (CPACR_EL1.FPEN).

use core::arch::{asm, naked_asm};

/// v0 to v31, FPSR, FPCR.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct FpState {
    /// Vector registers.
    pub v: [u128; 32],
    /// Status.
    pub fpsr: u32,
    /// Control.
    pub fpcr: u32,
}

impl FpState {
    /// The initial state of a program.
    pub const NEW: FpState = FpState { v: [0; 32], fpsr: 0, fpcr: 0 };
}

/// Whether EL0 may use the registers.
pub fn set_enabled(on: bool) {
    let v: u64 = if on { 3 << 20 } else { 0 };
    // SAFETY: this only controls traps. The ISB puts it into effect before the registers are accessed here.
    unsafe { asm!("msr cpacr_el1, {}", "isb", in(reg) v, options(nostack, preserves_flags)) }
}

/// Saves the registers. They must be enabled.
#[unsafe(naked)]
pub unsafe extern "C" fn save(to: *mut FpState) {
    naked_asm!(
        ".arch_extension fp",
        ".arch_extension simd",
        "stp q0, q1, [x0]",
        "stp q2, q3, [x0, #32]",
        "stp q4, q5, [x0, #64]",
        "stp q6, q7, [x0, #96]",
        "stp q8, q9, [x0, #128]",
        "stp q10, q11, [x0, #160]",
        "stp q12, q13, [x0, #192]",
        "stp q14, q15, [x0, #224]",
        "stp q16, q17, [x0, #256]",
        "stp q18, q19, [x0, #288]",
        "stp q20, q21, [x0, #320]",
        "stp q22, q23, [x0, #352]",
        "stp q24, q25, [x0, #384]",
        "stp q26, q27, [x0, #416]",
        "stp q28, q29, [x0, #448]",
        "stp q30, q31, [x0, #480]",
        "mrs x1, fpsr",
        "mrs x2, fpcr",
        "str w1, [x0, #512]",
        "str w2, [x0, #516]",
        "ret",
    )
}

/// Loads the registers. They must be enabled.
#[unsafe(naked)]
pub unsafe extern "C" fn load(from: *const FpState) {
    naked_asm!(
        ".arch_extension fp",
        ".arch_extension simd",
        "ldp q0, q1, [x0]",
        "ldp q2, q3, [x0, #32]",
        "ldp q4, q5, [x0, #64]",
        "ldp q6, q7, [x0, #96]",
        "ldp q8, q9, [x0, #128]",
        "ldp q10, q11, [x0, #160]",
        "ldp q12, q13, [x0, #192]",
        "ldp q14, q15, [x0, #224]",
        "ldp q16, q17, [x0, #256]",
        "ldp q18, q19, [x0, #288]",
        "ldp q20, q21, [x0, #320]",
        "ldp q22, q23, [x0, #352]",
        "ldp q24, q25, [x0, #384]",
        "ldp q26, q27, [x0, #416]",
        "ldp q28, q29, [x0, #448]",
        "ldp q30, q31, [x0, #480]",
        "ldr w1, [x0, #512]",
        "ldr w2, [x0, #516]",
        "msr fpsr, x1",
        "msr fpcr, x2",
        "ret",
    )
}
