//! Assembly for the tests: registers by name, cache maintenance, instructions that must fault.

use core::arch::{asm, naked_asm};

use quire_rt::Errno;
use quire_rt::abi::flags::Clone;
use quire_rt::abi::nr;
use quire_rt::handles;

/// Fills v0 to v31 from `before`, counts down from `turns`, and stores v0 to v31 to `after`: they must be equal,
/// however often the kernel preempted the thread meanwhile.
///
/// # Safety
/// Both point at 512 bytes.
#[unsafe(naked)]
pub unsafe extern "C" fn hold_vectors(before: *const u128, after: *mut u128, turns: u64) {
    naked_asm!(
        // The calling convention lets a function change all vector registers but the low halves of v8 to v15.
        "stp d8, d9, [sp, #-64]!",
        "stp d10, d11, [sp, #16]",
        "stp d12, d13, [sp, #32]",
        "stp d14, d15, [sp, #48]",
        "ld1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [x0], #64",
        "ld1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [x0], #64",
        "ld1 {{v8.2d, v9.2d, v10.2d, v11.2d}}, [x0], #64",
        "ld1 {{v12.2d, v13.2d, v14.2d, v15.2d}}, [x0], #64",
        "ld1 {{v16.2d, v17.2d, v18.2d, v19.2d}}, [x0], #64",
        "ld1 {{v20.2d, v21.2d, v22.2d, v23.2d}}, [x0], #64",
        "ld1 {{v24.2d, v25.2d, v26.2d, v27.2d}}, [x0], #64",
        "ld1 {{v28.2d, v29.2d, v30.2d, v31.2d}}, [x0]",
        "2: subs x2, x2, #1",
        "b.ne 2b",
        "st1 {{v0.2d, v1.2d, v2.2d, v3.2d}}, [x1], #64",
        "st1 {{v4.2d, v5.2d, v6.2d, v7.2d}}, [x1], #64",
        "st1 {{v8.2d, v9.2d, v10.2d, v11.2d}}, [x1], #64",
        "st1 {{v12.2d, v13.2d, v14.2d, v15.2d}}, [x1], #64",
        "st1 {{v16.2d, v17.2d, v18.2d, v19.2d}}, [x1], #64",
        "st1 {{v20.2d, v21.2d, v22.2d, v23.2d}}, [x1], #64",
        "st1 {{v24.2d, v25.2d, v26.2d, v27.2d}}, [x1], #64",
        "st1 {{v28.2d, v29.2d, v30.2d, v31.2d}}, [x1]",
        "ldp d10, d11, [sp, #16]",
        "ldp d12, d13, [sp, #32]",
        "ldp d14, d15, [sp, #48]",
        "ldp d8, d9, [sp], #64",
        "ret",
    )
}

/// Fills x1 and x5 to x15 with numbers, makes the call, and counts those that changed.
pub fn call_keeps_registers(number: usize) -> u64 {
    let changed: u64;
    // SAFETY: a call without pointers; every register used is declared.
    unsafe {
        asm!(
            "mov x9, #109", "mov x10, #110", "mov x11, #111", "mov x12, #112", "mov x13, #113",
            "mov x14, #114", "mov x15, #115", "mov x1, #101", "mov x5, #105", "mov x7, #107",
            "svc #0",
            "mov x0, xzr",
            "cmp x9, #109", "cinc x0, x0, ne", "cmp x10, #110", "cinc x0, x0, ne",
            "cmp x11, #111", "cinc x0, x0, ne", "cmp x12, #112", "cinc x0, x0, ne",
            "cmp x13, #113", "cinc x0, x0, ne", "cmp x14, #114", "cinc x0, x0, ne",
            "cmp x15, #115", "cinc x0, x0, ne", "cmp x1, #101", "cinc x0, x0, ne",
            "cmp x5, #105", "cinc x0, x0, ne", "cmp x7, #107", "cinc x0, x0, ne",
            "cmp x8, x6", "cinc x0, x0, ne",
            in("x6") number,
            in("x8") number,
            out("x0") changed,
            out("x1") _, out("x5") _, out("x7") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _,
            out("x13") _, out("x14") _, out("x15") _,
            options(nostack),
        );
    }
    changed
}

/// Floating-point control register.
pub fn fpcr() -> u64 {
    let value;
    // SAFETY: reads a register of EL0.
    unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack)) };
    value
}

/// Sets the floating-point control register.
pub fn set_fpcr(value: u64) {
    // SAFETY: the tests that call this do no floating-point arithmetic before they restore it.
    unsafe { asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack)) };
}

/// Calls code at an address; it must be a function that returns a number, or fault.
pub fn call(addr: usize) -> u64 {
    let value;
    // SAFETY: by the rule of this crate the address holds a function of the test's own, or must fault.
    unsafe { asm!("blr {}", in(reg) addr, lateout("x0") value, clobber_abi("C")) };
    value
}

/// Zeroes one block at an address of the test's own with `DC ZVA`.
pub fn zero_block(addr: usize) {
    // SAFETY: by the rule of this crate.
    unsafe { asm!("dc zva, {}", in(reg) addr, options(nostack)) };
}

/// Makes what was written from `start` to `end` visible to instruction fetch on all processors: clean the data
/// cache to the point of unification, wait, invalidate the instruction cache, wait (Arm ARM, B2.7.4.2).
pub fn sync_code(start: usize, end: usize) {
    let ctr = quire_rt::arch::cache_type();
    let (data, code) = (4 << (ctr >> 16 & 15), 4 << (ctr & 15));
    for addr in (start & !(data - 1)..end).step_by(data) {
        // SAFETY: cleaning changes no memory.
        unsafe { asm!("dc cvau, {}", in(reg) addr, options(nostack)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack)) };
    for addr in (start & !(code - 1)..end).step_by(code) {
        // SAFETY: invalidating makes instructions be fetched again.
        unsafe { asm!("ic ivau, {}", in(reg) addr, options(nostack)) };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack)) };
}

/// An instruction that a program may not execute, or one that traps.
#[derive(Clone, Copy, Debug)]
pub enum Trap {
    /// Never defined.
    Undefined,
    /// A breakpoint.
    Breakpoint,
    /// Reads a register of EL1.
    Register,
    /// Masks interrupts.
    MaskInterrupts,
    /// Writes the kernel's table base register.
    TableBase,
    /// Calls a hypervisor.
    Hypervisor,
    /// Invalidates the translation buffer.
    InvalidateTlb,
}

/// Executes it.
pub fn trap(trap: Trap) {
    // SAFETY: each must end the process; the tests run them in a child.
    unsafe {
        match trap {
            Trap::Undefined => asm!("udf #0"),
            Trap::Breakpoint => asm!("brk #0"),
            Trap::Register => asm!("mrs {}, sctlr_el1", out(reg) _),
            Trap::MaskInterrupts => asm!("msr daifset, #2"),
            Trap::TableBase => asm!("msr ttbr1_el1, xzr"),
            Trap::Hypervisor => asm!("hvc #0"),
            Trap::InvalidateTlb => asm!("tlbi vmalle1"),
        }
    }
}

/// Makes a call whose `n`th allocation fails; returns x0 and the number of allocations that were left until the
/// failure. No memory is accessed in between, so that no page fault consumes the failure. The child of a fork returns
/// here too.
pub fn call_armed(n: u32, number: usize, args: [usize; 6]) -> (isize, u32) {
    let (ret, left): (isize, usize);
    let control = handles::control() as usize;
    // SAFETY: by the rule of this crate nothing that Rust relies on is at the addresses given; all registers that the
    // calls use are declared.
    unsafe {
        asm!(
            "mov x8, {fail}", "svc #0",
            "mov x0, x9", "mov x1, x11", "mov x8, x10", "svc #0",
            "mov x9, x0",
            "mov x0, x12", "mov x1, xzr", "mov x8, {fail}", "svc #0",
            fail = const nr::QUIRE_FAIL_NTH,
            inout("x0") control => left,
            inout("x1") n as usize => _, in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5],
            inout("x9") args[0] => ret,
            in("x10") number, in("x11") args[1], in("x12") control,
            out("x8") _,
            options(nostack),
        );
    }
    (ret, left as u32)
}

/// vfork, with a child that only exits with a status; returns the call's x0.
#[unsafe(naked)]
pub extern "C" fn vfork_exit(status: u64) -> isize {
    naked_asm!(
        "mov x9, x0",
        // CLONE_VM | CLONE_VFORK | SIGCHLD; the child stays on this stack, and writes nothing to it.
        "mov x0, #0x4111",
        "mov x1, xzr",
        "mov x2, xzr",
        "mov x3, xzr",
        "mov x4, xzr",
        "mov x8, {clone}",
        "svc #0",
        "cbnz x0, 2f",
        "mov x0, x9",
        "mov x8, {exit}",
        "svc #0",
        "2: ret",
        clone = const nr::CLONE,
        exit = const nr::EXIT_GROUP,
    )
}

/// vfork, with a child that only sleeps until a signal ends it; returns the call's x0.
#[unsafe(naked)]
pub extern "C" fn vfork_sleep() -> isize {
    naked_asm!(
        // CLONE_VM | CLONE_VFORK | SIGCHLD; the child stays on this stack, and writes nothing to it.
        "mov x0, #0x4111",
        "mov x1, xzr",
        "mov x2, xzr",
        "mov x3, xzr",
        "mov x4, xzr",
        "mov x8, {clone}",
        "svc #0",
        "cbnz x0, 2f",
        "1: mov x0, xzr",
        "mov x1, xzr",
        "mov x2, xzr",
        "mov x3, xzr",
        "mov x8, {ppoll}",
        "svc #0",
        "b 1b",
        "2: ret",
        clone = const nr::CLONE,
        ppoll = const nr::PPOLL,
    )
}

/// An exclusive load at an address; faults if it is misaligned.
pub fn load_exclusive(addr: usize) -> u64 {
    let value;
    // SAFETY: by the rule of this crate the address is readable, or the load must fault.
    unsafe { asm!("ldxr {}, [{}]", "clrex", out(reg) value, in(reg) addr, options(nostack)) };
    value
}

/// A plain load of eight bytes at any alignment.
pub fn load(addr: usize) -> u64 {
    let value;
    // SAFETY: by the rule of this crate the address is readable.
    unsafe { asm!("ldr {}, [{}]", out(reg) value, in(reg) addr, options(nostack, readonly)) };
    value
}

/// Starts a thread that makes one call and ends. It uses registers only and never accesses its stack, which is the
/// caller's.
pub fn thread_that_calls(number: usize, args: [usize; 6]) -> Result<usize, Errno> {
    let flags = Clone::VM | Clone::FS | Clone::FILES | Clone::SIGHAND | Clone::THREAD | Clone::SYSVSEM;
    let answer: isize;
    // SAFETY: the thread touches no memory itself; by this crate's rule its call's pointers are the test's business.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x0, x21", "mov x1, x22", "mov x2, x23", "mov x3, x24", "mov x4, x25", "mov x5, x26",
            "mov x8, x20",
            "svc #0",
            "3: mov x0, xzr",
            "mov x8, {exit}",
            "svc #0",
            "b 3b",
            "2:",
            exit = const nr::EXIT,
            inlateout("x0") flags.bits() as usize => answer,
            in("x1") 0, in("x2") 0, in("x3") 0, in("x4") 0, in("x8") nr::CLONE,
            in("x20") number, in("x21") args[0], in("x22") args[1], in("x23") args[2], in("x24") args[3],
            in("x25") args[4], in("x26") args[5],
            options(nostack),
        );
    }
    Errno::from_ret(answer)
}
