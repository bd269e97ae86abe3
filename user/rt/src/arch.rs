//! The only assembly of user space: the first instruction, the supervisor call, the first steps of a thread, the
//! return from a signal handler, and the registers that EL0 may read.

use core::arch::{asm, global_asm, naked_asm};

use quire_abi::ipc::Attachments;
use quire_abi::nr;

// The kernel enters with sp at argc (16-byte aligned) and everything else undefined but x0, which is zero.
// A zero frame pointer and link register end every backtrace here.
global_asm!(
    ".globl _start",
    ".type _start, %function",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "b {start}",
    start = sym crate::start::start,
);

/// A system call: the number in x8, arguments in x0 to x5, the result in x0; all other registers are unchanged.
///
/// # Safety
/// The call affects memory, descriptors and this process as its number and arguments determine; the caller is
/// responsible for both.
#[inline(always)]
pub unsafe fn syscall(number: usize, args: [usize; 6]) -> isize {
    let ret;
    // SAFETY: the kernel changes no register except x0; the caller is responsible for effects on memory, and the block
    // is not marked as free of them.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") args[0] as isize => ret,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            in("x5") args[5],
            options(nostack),
        );
    }
    ret
}

macro_rules! exchange {
    ($number:expr, $registers:expr $(, $($more:tt)*)?) => {
        let [x0, x1, x2, x3, x4, x5, x6, x7, x9, x10] = $registers;
        // SAFETY: these calls read the descriptor at most, and write to no memory except windows, which the caller
        // provides for that. The kernel may change x8 too.
        unsafe {
            asm!(
                "svc #0",
                inlateout("x8") $number => _,
                inlateout("x0") *x0,
                inlateout("x1") *x1,
                inlateout("x2") *x2,
                inlateout("x3") *x3,
                inlateout("x4") *x4,
                inlateout("x5") *x5,
                inlateout("x6") *x6,
                inlateout("x7") *x7,
                inlateout("x9") *x9,
                inlateout("x10") *x10,
                $($($more)*)?
                options(nostack),
            );
        }
    };
}

/// A call of the message convention: the number in x8, a message in x0 to x7, a deadline in x9, options in x10; the
/// result is in the same registers.
#[inline(always)]
pub fn message(number: usize, registers: &mut [u64; 10]) -> isize {
    exchange!(number, registers);
    registers[0] as isize
}

/// As [`message`], with a descriptor of the message's attachments.
#[inline(always)]
pub fn message_with(number: usize, registers: &mut [u64; 10], attachments: *const Attachments) -> isize {
    exchange!(number, registers, in("x11") attachments,);
    registers[0] as isize
}

/// `clone` for a thread: the child starts on `stack` and calls `entry(arg)`, which must not return.
///
/// # Safety
/// `stack` is the 16-byte aligned top of memory that only the child uses; `entry` never returns; the other
/// arguments are right for `flags`.
#[unsafe(naked)]
pub unsafe extern "C" fn clone_thread(
    flags: usize,
    stack: usize,
    parent_tid: *mut u32,
    tls: usize,
    child_tid: *mut u32,
    entry: extern "C" fn(usize) -> !,
    arg: usize,
) -> isize {
    naked_asm!(
        "mov x8, {clone}",
        "svc #0",
        "cbz x0, 2f",
        "ret",
        "2:",
        "mov x29, xzr",
        "mov x30, xzr",
        "mov x0, x6",
        "br x5",
        clone = const nr::CLONE,
    )
}

/// Where a signal handler returns to (`SA_RESTORER`).
#[unsafe(naked)]
pub extern "C" fn signal_return() -> ! {
    naked_asm!("mov x8, {sigreturn}", "svc #0", "brk #1", sigreturn = const nr::RT_SIGRETURN)
}

/// The thread pointer.
#[inline]
pub fn thread_pointer() -> usize {
    let value;
    // SAFETY: reads a register that belongs to EL0.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets the thread pointer.
///
/// # Safety
/// `value` points at this thread's control block, or nothing in this program reads the thread pointer.
#[inline]
pub unsafe fn set_thread_pointer(value: usize) {
    // SAFETY: writes a register that belongs to EL0; its meaning is the caller's.
    unsafe { asm!("msr tpidr_el0, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

macro_rules! readable {
    ($($(#[$doc:meta])* $name:ident = $register:literal;)*) => {
        $($(#[$doc])*
        #[inline]
        pub fn $name() -> u64 {
            let value;
            // SAFETY: a read of a register that the kernel lets EL0 read; the barrier keeps counter reads in
            // program order.
            unsafe { asm!("isb", concat!("mrs {}, ", $register), out(reg) value, options(nostack, preserves_flags)) };
            value
        })*
    };
}

readable! {
    /// The virtual counter.
    counter = "cntvct_el0";
    /// The counter's frequency in Hz.
    counter_frequency = "cntfrq_el0";
    /// Cache type: line sizes for cache maintenance.
    cache_type = "ctr_el0";
    /// Block size of `DC ZVA`, and whether it is forbidden.
    zero_block = "dczid_el0";
}
