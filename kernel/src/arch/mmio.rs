//! Accesses to registers of devices that report a fault as their result.
//!
//! A driver names the register, and where there is none an interconnect may answer with an external abort. If that is
//! synchronous the access is an error; one that comes later, as an SError, cannot be told from a fault of the machine. QEMU shows the
//! first kind only.

use core::arch::global_asm;

use super::trap::TrapFrame;
use crate::arch::syndrome::Class;

global_asm!(
    r#"
    .text
    .global __mmio_start
__mmio_start:
    // x0: address. Returns what is there, or all ones.
    .global __mmio_read_8
__mmio_read_8:
    ldrb    w0, [x0]
    ret
    .global __mmio_read_16
__mmio_read_16:
    ldrh    w0, [x0]
    ret
    .global __mmio_read_32
__mmio_read_32:
    ldr     w0, [x0]
    ret

    // x0: address, w1: value. Returns 0, or all ones.
    .global __mmio_write_8
__mmio_write_8:
    strb    w1, [x0]
    mov     x0, #0
    ret
    .global __mmio_write_16
__mmio_write_16:
    strh    w1, [x0]
    mov     x0, #0
    ret
    .global __mmio_write_32
__mmio_write_32:
    str     w1, [x0]
    mov     x0, #0
    ret
    .global __mmio_end
__mmio_end:
    .global __mmio_fix
__mmio_fix:
    mov     x0, #-1
    ret
    "#
);

unsafe extern "C" {
    fn __mmio_read_8(address: usize) -> u64;
    fn __mmio_read_16(address: usize) -> u64;
    fn __mmio_read_32(address: usize) -> u64;
    fn __mmio_write_8(address: usize, value: u32) -> u64;
    fn __mmio_write_16(address: usize, value: u32) -> u64;
    fn __mmio_write_32(address: usize, value: u32) -> u64;
    static __mmio_start: u8;
    static __mmio_end: u8;
    static __mmio_fix: u8;
}

/// The width of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
}

impl Width {
    /// In bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }
}

/// Reads a register; `None` if that faults.
///
/// # Safety
/// Registers of a device that the caller drives are mapped at the address, which is a multiple of the width.
pub unsafe fn read(address: usize, width: Width) -> Option<u32> {
    // SAFETY: the caller's promise; a fault has a fix-up.
    let got = unsafe {
        match width {
            Width::Byte => __mmio_read_8(address),
            Width::Half => __mmio_read_16(address),
            Width::Word => __mmio_read_32(address),
        }
    };
    u32::try_from(got).ok()
}

/// Writes a register; `None` if that faults.
///
/// # Safety
/// As for [`read`].
pub unsafe fn write(address: usize, width: Width, value: u32) -> Option<()> {
    // SAFETY: the caller's promise; a fault has a fix-up.
    let done = unsafe {
        match width {
            Width::Byte => __mmio_write_8(address, value),
            Width::Half => __mmio_write_16(address, value),
            Width::Word => __mmio_write_32(address, value),
        }
    };
    (done == 0).then_some(())
}

/// Resumes an access that has faulted; false if the fault was not in one.
pub fn fix_up(frame: &mut TrapFrame, class: Class) -> bool {
    let address = |symbol: *const u8| symbol.addr() as u64;
    let accesses = address(&raw const __mmio_start)..address(&raw const __mmio_end);
    let is_access = class == Class::DataAbortSame && accesses.contains(&frame.pc);
    if is_access {
        frame.pc = address(&raw const __mmio_fix);
    }
    is_access
}
