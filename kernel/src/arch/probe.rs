//! Accesses to kernel addresses that report a fault as their result. With them the self-test shows that a mapping
//! forbids an access.

use core::arch::global_asm;

use super::trap::TrapFrame;
use crate::arch::syndrome::Class;

global_asm!(
    r#"
    .text
    // x0: address, x1: word. Returns 0, or 1 if the store faulted.
    .global __probe_store
__probe_store:
    .global __probe_store_insn
__probe_store_insn:
    str     x1, [x0]
    mov     x0, #0
    ret

    // x0: address. Calls the code there. Returns 1 if it could not be fetched.
    .global __probe_call
__probe_call:
    stp     x29, x30, [sp, #-16]!
    mov     x29, sp
    blr     x0
    .global __probe_called
__probe_called:
    mov     x0, #0
    b       2f
    .global __probe_call_fix
__probe_call_fix:
    mov     x0, #1
2:  ldp     x29, x30, [sp], #16
    ret

    .global __probe_store_fix
__probe_store_fix:
    mov     x0, #1
    ret
    "#
);

unsafe extern "C" {
    fn __probe_store(address: usize, word: u64) -> usize;
    fn __probe_call(address: usize) -> usize;
    static __probe_store_insn: u8;
    static __probe_store_fix: u8;
    static __probe_called: u8;
    static __probe_call_fix: u8;
}

/// Stores a word; false if that faults.
///
/// # Safety
/// If the store does not fault, the word must be the caller's to write.
pub unsafe fn store(address: usize, word: u64) -> bool {
    // SAFETY: the caller's promise; a fault has a fix-up.
    unsafe { __probe_store(address, word) == 0 }
}

/// Calls a function; false if its first instruction cannot be fetched.
///
/// # Safety
/// If the fetch does not fault, the address must be that of a function that the caller may call.
pub unsafe fn call(address: usize) -> bool {
    // SAFETY: the caller's promise; a fault has a fix-up.
    unsafe { __probe_call(address) == 0 }
}

/// Resumes a probe that has faulted; false if the fault was not a probe's.
pub fn fix_up(frame: &mut TrapFrame, class: Class) -> bool {
    let fix = match class {
        Class::DataAbortSame if frame.pc == address(&raw const __probe_store_insn) => &raw const __probe_store_fix,
        Class::InstructionAbortSame if frame.x[30] == address(&raw const __probe_called) => &raw const __probe_call_fix,
        _ => return false,
    };
    frame.pc = address(fix);
    true
}

fn address(symbol: *const u8) -> u64 {
    symbol.addr() as u64
}
