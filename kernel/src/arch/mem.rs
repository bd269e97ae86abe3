//! memset and memcpy, in place of the compiler's own, which move at most eight bytes at a time.
//!
//! Both use unaligned accesses of up to 16 bytes: the kernel's memory is Normal and SCTLR_EL1.A is 0, so that these are
//! allowed (Arm ARM B2.8.2); while the MMU is off, before the first Rust code, nothing calls them. Registers of devices
//! are not memory in this sense and are only reached by volatile accesses.

use core::arch::naked_asm;

/// Sets `n` bytes.
///
/// # Safety
/// `to` is valid for writes of `n` bytes.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, n: usize) -> *mut u8 {
    naked_asm!(
        "and w1, w1, #0xff",
        "orr w1, w1, w1, lsl #8",
        "orr w1, w1, w1, lsl #16",
        "orr x1, x1, x1, lsl #32",
        "mov x3, x0",
        "subs x2, x2, #64",
        "b.lo 2f",
        "1:",
        "stp x1, x1, [x3]",
        "stp x1, x1, [x3, #16]",
        "stp x1, x1, [x3, #32]",
        "stp x1, x1, [x3, #48]",
        "add x3, x3, #64",
        "subs x2, x2, #64",
        "b.hs 1b",
        // The low six bits of what is left are those of n.
        "2:",
        "tbz w2, #5, 3f",
        "stp x1, x1, [x3]",
        "stp x1, x1, [x3, #16]",
        "add x3, x3, #32",
        "3:",
        "tbz w2, #4, 4f",
        "stp x1, x1, [x3], #16",
        "4:",
        "tbz w2, #3, 5f",
        "str x1, [x3], #8",
        "5:",
        "tbz w2, #2, 6f",
        "str w1, [x3], #4",
        "6:",
        "tbz w2, #1, 7f",
        "strh w1, [x3], #2",
        "7:",
        "tbz w2, #0, 8f",
        "strb w1, [x3]",
        "8:",
        "ret",
    )
}

/// Copies between pages that programs may access meanwhile, or that are one: each byte that arrives was there at some time during
/// the copy, if nobody else writes to it.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `n` bytes.
#[unsafe(naked)]
pub unsafe extern "C" fn copy_shared(to: *mut u8, from: *const u8, n: usize) {
    naked_asm!(
        "subs x2, x2, #128",
        "b.lo 2f",
        "1:",
        "ldp x4, x5, [x1]",
        "ldp x6, x7, [x1, #16]",
        "ldp x8, x9, [x1, #32]",
        "ldp x10, x11, [x1, #48]",
        "ldp x12, x13, [x1, #64]",
        "ldp x14, x15, [x1, #80]",
        "ldp x16, x17, [x1, #96]",
        "stp x4, x5, [x0]",
        "stp x6, x7, [x0, #16]",
        "ldp x4, x5, [x1, #112]",
        "add x1, x1, #128",
        "stp x8, x9, [x0, #32]",
        "stp x10, x11, [x0, #48]",
        "stp x12, x13, [x0, #64]",
        "stp x14, x15, [x0, #80]",
        "stp x16, x17, [x0, #96]",
        "stp x4, x5, [x0, #112]",
        "add x0, x0, #128",
        "subs x2, x2, #128",
        "b.hs 1b",
        "2:",
        "adds x2, x2, #128",
        "b.eq 5f",
        "3:",
        "subs x2, x2, #8",
        "b.lo 4f",
        "ldr x4, [x1], #8",
        "str x4, [x0], #8",
        "b 3b",
        "4:",
        "adds x2, x2, #8",
        "b.eq 5f",
        "6:",
        "ldrb w4, [x1], #1",
        "strb w4, [x0], #1",
        "subs x2, x2, #1",
        "b.ne 6b",
        "5:",
        "ret",
    )
}

/// Copies `n` bytes.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `n` bytes, and the two do not overlap.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    naked_asm!(
        "mov x3, x0",
        "subs x2, x2, #64",
        "b.lo 2f",
        "1:",
        "ldp x4, x5, [x1]",
        "ldp x6, x7, [x1, #16]",
        "ldp x8, x9, [x1, #32]",
        "ldp x10, x11, [x1, #48]",
        "add x1, x1, #64",
        "stp x4, x5, [x3]",
        "stp x6, x7, [x3, #16]",
        "stp x8, x9, [x3, #32]",
        "stp x10, x11, [x3, #48]",
        "add x3, x3, #64",
        "subs x2, x2, #64",
        "b.hs 1b",
        "2:",
        "tbz w2, #5, 3f",
        "ldp x4, x5, [x1]",
        "ldp x6, x7, [x1, #16]",
        "add x1, x1, #32",
        "stp x4, x5, [x3]",
        "stp x6, x7, [x3, #16]",
        "add x3, x3, #32",
        "3:",
        "tbz w2, #4, 4f",
        "ldp x4, x5, [x1], #16",
        "stp x4, x5, [x3], #16",
        "4:",
        "tbz w2, #3, 5f",
        "ldr x4, [x1], #8",
        "str x4, [x3], #8",
        "5:",
        "tbz w2, #2, 6f",
        "ldr w4, [x1], #4",
        "str w4, [x3], #4",
        "6:",
        "tbz w2, #1, 7f",
        "ldrh w4, [x1], #2",
        "strh w4, [x3], #2",
        "7:",
        "tbz w2, #0, 8f",
        "ldrb w4, [x1]",
        "strb w4, [x3]",
        "8:",
        "ret",
    )
}
