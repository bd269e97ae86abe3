//! System registers that the crate `aarch64-cpu` does not name, and a few shorthands.

use core::arch::{asm, naked_asm};

use aarch64_cpu::registers::{ELR_EL1, ESR_EL1, FAR_EL1, MIDR_EL1, MPIDR_EL1, Readable, SPSR_EL1};

use super::trap::{NO_SYSCALL, TrapFrame};

/// Affinity fields of MPIDR_EL1, as the device tree's `reg` of a CPU has them.
pub fn mpidr() -> u64 {
    MPIDR_EL1.get() & 0xff_00ff_ffff
}

/// MIDR_EL1: implementer and part number of the CPU.
pub fn midr() -> u64 {
    MIDR_EL1.get()
}

/// Sets the translation table and ASID of the lower half. With a fresh ASID, or one that always belonged to this table,
/// nothing needs to be flushed; the ISB puts the change into effect before the next user access.
#[inline(always)]
pub fn set_ttbr0(table: u64, asid: u16) {
    let v = table | u64::from(asid) << 48;
    // SAFETY: the kernel itself does not use the lower half, apart from the copy routines, which expect the
    // current process there.
    unsafe { asm!("msr ttbr0_el1, {}", "isb", in(reg) v, options(nostack, preserves_flags)) }
}

/// The thread pointer of the running program.
#[inline(always)]
pub fn tls() -> u64 {
    let v: u64;
    // SAFETY: TPIDR_EL0 belongs to the program.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) v, options(nomem, nostack, preserves_flags)) }
    v
}

/// Sets the thread pointer of the running program.
#[inline(always)]
pub fn set_tls(v: u64) {
    // SAFETY: as above.
    unsafe { asm!("msr tpidr_el0, {}", in(reg) v, options(nomem, nostack, preserves_flags)) }
}

/// Whether the CPU has 16-bit ASIDs.
pub fn has_16_bit_asids() -> bool {
    use aarch64_cpu::registers::ID_AA64MMFR0_EL1;
    ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::ASIDBits) == 2
}

/// The parts of table entries that a CPU can update by itself (FEAT_HAFDBS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableUpdates {
    /// Nothing: Cortex-A72.
    Nothing,
    /// It sets the access flag.
    AccessFlag,
    /// It sets the access flag and marks writable entries dirty.
    DirtyState,
}

/// The updates that this CPU supports.
pub fn table_updates() -> TableUpdates {
    use aarch64_cpu::registers::ID_AA64MMFR1_EL1;
    match ID_AA64MMFR1_EL1.read(ID_AA64MMFR1_EL1::HAFDBS) {
        0 => TableUpdates::Nothing,
        1 => TableUpdates::AccessFlag,
        _ => TableUpdates::DirtyState,
    }
}

/// Enables the updates that this CPU supports (TCR_EL1.HA and HD). TLBs may cache these bits: they are in force for
/// certain once this CPU's has been invalidated. Entries of the kernel are never old, and none has DBM: they stay as
/// they are.
pub fn enable_table_updates() {
    use aarch64_cpu::registers::{TCR_EL1, Writeable};
    let can = table_updates();
    let mut tcr = TCR_EL1.get();
    tcr |= u64::from(can >= TableUpdates::AccessFlag) << 39;
    tcr |= u64::from(can >= TableUpdates::DirtyState) << 40;
    TCR_EL1.set(tcr);
    super::barrier::isb();
}

/// Whether the CPU stops the kernel from accessing user memory, except in its copy routines (FEAT_PAN).
pub fn has_pan() -> bool {
    use aarch64_cpu::registers::ID_AA64MMFR1_EL1;
    ID_AA64MMFR1_EL1.get() >> 20 & 15 != 0
}

/// The CPU features that programs may use, as Linux's HWCAP bits (`arch/arm64/include/uapi/asm/hwcap.h`).
pub fn hwcap() -> u64 {
    use aarch64_cpu::registers::{ID_AA64ISAR0_EL1, ID_AA64PFR0_EL1};
    let field = |register: u64, shift: u32| register >> shift & 15;
    let (isar, pfr) = (ID_AA64ISAR0_EL1.get(), ID_AA64PFR0_EL1.get());
    let mut caps = 0;
    let mut set = |bit: u32, has: bool| caps |= u64::from(has) << bit;
    set(0, field(pfr, 16) != 15);
    set(1, field(pfr, 20) != 15);
    set(3, field(isar, 4) >= 1);
    set(4, field(isar, 4) >= 2);
    set(5, field(isar, 8) >= 1);
    set(6, field(isar, 12) >= 1);
    set(7, field(isar, 16) >= 1);
    set(8, field(isar, 20) >= 2);
    caps
}

/// The general registers as they are on entry, for a kernel that dies without an exception: x1 to x30 and SP of the
/// caller; the caller's own call has used x0.
pub fn snapshot() -> TrapFrame {
    let mut frame = TrapFrame { syscall: NO_SYSCALL, ..TrapFrame::default() };
    // SAFETY: the frame has room for 31 registers and SP, in that order.
    unsafe { store_registers(&raw mut frame) };
    frame.pc = frame.x[30];
    frame
}

#[unsafe(naked)]
unsafe extern "C" fn store_registers(frame: *mut TrapFrame) {
    naked_asm!(
        "stp x0, x1, [x0]",
        "stp x2, x3, [x0, #16]",
        "stp x4, x5, [x0, #32]",
        "stp x6, x7, [x0, #48]",
        "stp x8, x9, [x0, #64]",
        "stp x10, x11, [x0, #80]",
        "stp x12, x13, [x0, #96]",
        "stp x14, x15, [x0, #112]",
        "stp x16, x17, [x0, #128]",
        "stp x18, x19, [x0, #144]",
        "stp x20, x21, [x0, #160]",
        "stp x22, x23, [x0, #176]",
        "stp x24, x25, [x0, #192]",
        "stp x26, x27, [x0, #208]",
        "stp x28, x29, [x0, #224]",
        "mov x1, sp",
        "stp x30, x1, [x0, #240]",
        "ret",
    )
}

/// The registers that describe the last exception that this CPU took to EL1.
#[derive(Clone, Copy, Debug)]
pub struct ExceptionRegisters {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
}

/// Whether the exception being handled was taken from the kernel; read before a nested one can occur.
pub fn interrupted_kernel() -> bool {
    SPSR_EL1.read(SPSR_EL1::M) != u64::from(SPSR_EL1::M::EL0t)
}

/// Reads [`ExceptionRegisters`].
pub fn last_exception() -> ExceptionRegisters {
    ExceptionRegisters { esr: ESR_EL1.get(), far: FAR_EL1.get(), elr: ELR_EL1.get(), spsr: SPSR_EL1.get() }
}
