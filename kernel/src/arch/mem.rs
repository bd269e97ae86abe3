//! memset and memcpy, in place of the compiler's own, which move at most eight bytes at a time.
//!
//! The bytes that are no whole round are those up to the end: the last accesses overlap earlier ones, instead of one
//! access for each bit of the length. So most copies, of 16 to 64 bytes, cost 13 or 17 instructions.
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
        "mov x3, #0x0101010101010101",
        "mul x1, x1, x3",
        // One past the last byte.
        "add x4, x0, x2",
        "cmp x2, #64",
        "b.hi 5f",
        "cmp x2, #16",
        "b.lo 1f",
        // 16 to 64.
        "stp x1, x1, [x0]",
        "stp x1, x1, [x4, #-16]",
        "cmp x2, #32",
        "b.ls 4f",
        "stp x1, x1, [x0, #16]",
        "stp x1, x1, [x4, #-32]",
        "ret",
        "1:",
        "tbz w2, #3, 2f",
        "str x1, [x0]",
        "str x1, [x4, #-8]",
        "ret",
        "2:",
        "tbz w2, #2, 3f",
        "str w1, [x0]",
        "str w1, [x4, #-4]",
        "ret",
        "3:",
        "cbz x2, 4f",
        "strb w1, [x0]",
        "strb w1, [x4, #-1]",
        "tbz w2, #1, 4f",
        "strb w1, [x0, #1]",
        "4:",
        "ret",
        // More than 64: the loop leaves 1 to 64 bytes for the last four stores.
        "5:",
        "mov x3, x0",
        "sub x2, x2, #64",
        "6:",
        "stp x1, x1, [x3, #16]",
        "stp x1, x1, [x3, #32]",
        "stp x1, x1, [x3, #48]",
        "stp x1, x1, [x3], #64",
        "subs x2, x2, #64",
        "b.hi 6b",
        "stp x1, x1, [x4, #-64]",
        "stp x1, x1, [x4, #-48]",
        "stp x1, x1, [x4, #-32]",
        "stp x1, x1, [x4, #-16]",
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
        // One past the last byte of each.
        "add x3, x0, x2",
        "add x4, x1, x2",
        "cmp x2, #64",
        "b.hi 6f",
        "cmp x2, #16",
        "b.lo 2f",
        // 16 to 64.
        "ldp x5, x6, [x1]",
        "ldp x7, x8, [x4, #-16]",
        "cmp x2, #32",
        "b.ls 1f",
        "ldp x9, x10, [x1, #16]",
        "ldp x11, x12, [x4, #-32]",
        "stp x9, x10, [x0, #16]",
        "stp x11, x12, [x3, #-32]",
        "1:",
        "stp x5, x6, [x0]",
        "stp x7, x8, [x3, #-16]",
        "ret",
        "2:",
        "tbz w2, #3, 3f",
        "ldr x5, [x1]",
        "ldr x6, [x4, #-8]",
        "str x5, [x0]",
        "str x6, [x3, #-8]",
        "ret",
        "3:",
        "tbz w2, #2, 4f",
        "ldr w5, [x1]",
        "ldr w6, [x4, #-4]",
        "str w5, [x0]",
        "str w6, [x3, #-4]",
        "ret",
        "4:",
        "tbz w2, #1, 5f",
        "ldrh w5, [x1]",
        "ldrb w6, [x4, #-1]",
        "strh w5, [x0]",
        "strb w6, [x3, #-1]",
        "ret",
        "5:",
        "cbz x2, 8f",
        "ldrb w5, [x1]",
        "strb w5, [x0]",
        "ret",
        // More than 64: the loop leaves 1 to 64 bytes, which the last 64 contain.
        "6:",
        "mov x5, x0",
        "sub x2, x2, #64",
        "7:",
        "ldp x8, x9, [x1, #16]",
        "ldp x10, x11, [x1, #32]",
        "ldp x12, x13, [x1, #48]",
        "ldp x6, x7, [x1], #64",
        "stp x8, x9, [x5, #16]",
        "stp x10, x11, [x5, #32]",
        "stp x12, x13, [x5, #48]",
        "stp x6, x7, [x5], #64",
        "subs x2, x2, #64",
        "b.hi 7b",
        "ldp x6, x7, [x4, #-64]",
        "ldp x8, x9, [x4, #-48]",
        "ldp x10, x11, [x4, #-32]",
        "ldp x12, x13, [x4, #-16]",
        "stp x6, x7, [x3, #-64]",
        "stp x8, x9, [x3, #-48]",
        "stp x10, x11, [x3, #-32]",
        "stp x12, x13, [x3, #-16]",
        "8:",
        "ret",
    )
}
