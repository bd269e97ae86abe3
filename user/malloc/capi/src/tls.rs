//! The thread's block, in thread-local storage of the program's initial set.
//!
//! `#[thread_local]` is not stable, so the variable is a symbol in `.tbss` and its address a short sequence: local-exec
//! on AArch64, where the library is linked into a static program; initial-exec on x86_64, where it is loaded with the
//! program. Both never call anything, unlike the general model that a shared library gets by default.

use core::arch::{asm, global_asm};
use core::ptr::NonNull;

use quire_malloc::ThreadBlock;

global_asm!(
    ".section .tbss.quire_malloc_thread,\"awT\",%nobits",
    ".balign 16",
    ".hidden quire_malloc_thread",
    ".globl quire_malloc_thread",
    ".type quire_malloc_thread, %object",
    ".size quire_malloc_thread, {size}",
    "quire_malloc_thread:",
    ".zero {size}",
    ".text",
    size = const size_of::<ThreadBlock>(),
);

/// The calling thread's block.
#[inline(always)]
pub fn thread_block() -> NonNull<ThreadBlock> {
    let at: *mut ThreadBlock;
    // SAFETY: reads the thread pointer and adds the variable's offset; `pure`, since neither changes while a
    // function runs on a thread.
    unsafe {
        #[cfg(target_arch = "aarch64")]
        asm!(
            "mrs {0}, tpidr_el0",
            "add {0}, {0}, #:tprel_hi12:quire_malloc_thread, lsl #12",
            "add {0}, {0}, #:tprel_lo12_nc:quire_malloc_thread",
            out(reg) at, options(pure, nomem, nostack, preserves_flags)
        );
        #[cfg(target_arch = "x86_64")]
        asm!(
            "mov {0}, qword ptr [rip + quire_malloc_thread@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]",
            out(reg) at, options(pure, readonly, nostack)
        );
        NonNull::new_unchecked(at)
    }
}
