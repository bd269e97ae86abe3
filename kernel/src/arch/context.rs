//! Switching between kernel stacks.

use core::arch::naked_asm;

use super::trap::{TrapFrame, resume_message};

/// The saved state of a thread that is not running: the registers that a function call preserves.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Context {
    /// x19 to x28.
    pub saved: [u64; 10],
    /// x29.
    pub fp: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Where it resumes.
    pub pc: u64,
}

/// Saves this thread into `prev` and resumes `next`. Returns when another switch resumes `prev`.
///
/// Another CPU may have mapped `next`'s stack a moment ago. The ISB, after the branches of the run queue's lock,
/// ensures that no table walk for it has begun before that mapping was visible (see [`crate::trap::spurious`]).
///
/// # Safety
/// Interrupts are masked; `next` was saved by this function or made by [`Context::entering`], on a stack that no CPU
/// runs on.
#[unsafe(naked)]
pub unsafe extern "C" fn switch(prev: *mut Context, next: *const Context) {
    naked_asm!(
        "stp x19, x20, [x0]",
        "stp x21, x22, [x0, #16]",
        "stp x23, x24, [x0, #32]",
        "stp x25, x26, [x0, #48]",
        "stp x27, x28, [x0, #64]",
        "mov x9, sp",
        "stp x29, x9, [x0, #80]",
        "str x30, [x0, #96]",
        "ldp x19, x20, [x1]",
        "ldp x21, x22, [x1, #16]",
        "ldp x23, x24, [x1, #32]",
        "ldp x25, x26, [x1, #48]",
        "ldp x27, x28, [x1, #64]",
        "ldp x29, x9, [x1, #80]",
        "ldr x30, [x1, #96]",
        "isb",
        "mov sp, x9",
        "ret",
    )
}

/// Resumes `next` as [`switch`] does, and saves nothing.
///
/// # Safety
/// As [`switch`]; and nothing on this stack is needed any more.
#[unsafe(naked)]
pub unsafe extern "C" fn resume(next: *const Context) -> ! {
    naked_asm!(
        "ldp x19, x20, [x0]",
        "ldp x21, x22, [x0, #16]",
        "ldp x23, x24, [x0, #32]",
        "ldp x25, x26, [x0, #48]",
        "ldp x27, x28, [x0, #64]",
        "ldp x29, x9, [x0, #80]",
        "ldr x30, [x0, #96]",
        "isb",
        "mov sp, x9",
        "ret",
    )
}

impl Context {
    /// Makes this the context of a thread that resumes with its frame: the registers need not be saved.
    #[inline]
    pub fn resume_with(&mut self, frame: *mut TrapFrame) {
        self.sp = frame.addr() as u64;
        self.pc = resume_message as *const () as u64;
    }

    /// The frame of a thread whose context is from [`Context::resume_with`].
    #[inline]
    pub fn frame(&self) -> *mut TrapFrame {
        core::ptr::with_exposed_provenance_mut(self.sp as usize)
    }

    /// A context that begins by calling `finish`, which finishes the switch that led to it, and then `entry(arg)`, which
    /// never returns, on the stack that ends at `sp`.
    pub fn entering(sp: usize, finish: extern "C" fn(), entry: extern "C" fn(usize) -> !, arg: usize) -> Context {
        let mut c = Context { sp: sp as u64, pc: first_steps as *const () as u64, ..Context::default() };
        c.saved[0] = entry as *const () as u64;
        c.saved[1] = arg as u64;
        c.saved[2] = finish as *const () as u64;
        c
    }
}

/// Where a new thread starts: x21 is what finishes the switch, x19 the thread's function, x20 its argument.
#[unsafe(naked)]
unsafe extern "C" fn first_steps() {
    naked_asm!("blr x21", "mov x0, x20", "mov x29, xzr", "mov x30, xzr", "br x19")
}
