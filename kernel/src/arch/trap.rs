//! The exception vectors: from the hardware's state to a [`TrapFrame`] and back.
//!
//! An exception from EL0 is taken on the thread's kernel stack, which is empty then, so its frame is at the top. An
//! exception from EL1 pushes its frame on the current stack. Before a nested frame is stored, one bit of SP tells
//! whether the stack still has room (see [`crate::layout::STACK_ALIGN`]); if not, the kernel panics on a separate
//! stack and can say why.
//!
//! Higher floors handle the exceptions. They define these functions, with the C calling convention and these names:
//!
//! | function | arguments | called with |
//! | --- | --- | --- |
//! | `trap_syscall` | the frame | interrupts enabled |
//! | `trap_call`, `trap_reply_receive` | the frame of that call; answer null, or the frame of the thread that runs in place of this one | interrupts masked |
//! | `trap_switched` | | interrupts masked, on the stack of the thread that runs now |
//! | `trap_resume` | the frame of a thread that was left in one of those | interrupts enabled |
//! | `trap_from_user` | the frame, ESR_EL1, FAR_EL1 | interrupts enabled |
//! | `trap_from_kernel` | the frame, ESR_EL1, FAR_EL1 | interrupts as before the exception |
//! | `trap_interrupt` | | interrupts masked |
//! | `trap_before_user` | the frame | interrupts masked, also at its return |
//! | `trap_dead` | the frame, the kind of exception, ESR_EL1, FAR_EL1 | interrupts masked; never returns |

use core::arch::global_asm;
use core::mem::offset_of;

use quire_abi::layout::Pod;
use quire_abi::nr;

use super::cpu::Head;
use crate::layout::STACK_SIZE;

/// The registers of the interrupted code.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TrapFrame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// SP_EL0, or the kernel's SP for a nested frame.
    pub sp: u64,
    /// Where it resumes.
    pub pc: u64,
    /// SPSR_EL1.
    pub pstate: u64,
    /// x0 at the start of a system call, to restart it.
    pub orig_x0: u64,
    /// The number of the system call that this frame is in; [`NO_SYSCALL`] else.
    pub syscall: u64,
}

/// The registers of a [`TrapFrame`] as signal frames have them: x0 to x30, SP, PC, PSTATE.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Registers([u64; 34]);

// SAFETY: integers only.
unsafe impl Pod for Registers {}

impl TrapFrame {
    /// The registers, in one piece.
    pub fn registers(&self) -> &Registers {
        // SAFETY: the record is `repr(C)` and begins with the words of `Registers`, as is asserted below.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// Sets the registers. Of PSTATE a program chooses the condition flags only.
    pub fn set_registers(&mut self, registers: &Registers) {
        let [x @ .., sp, pc, pstate] = &registers.0;
        self.x = *x;
        self.sp = *sp;
        self.pc = *pc;
        self.pstate = pstate & PSTATE_USER_MASK;
    }
}

/// [`TrapFrame::syscall`] of a frame that is not in a system call.
pub const NO_SYSCALL: u64 = u64::MAX;

/// PSTATE of a program: EL0, AArch64, nothing masked.
pub const PSTATE_USER: u64 = 0;

/// Bits of PSTATE that a program may choose: the condition flags.
pub const PSTATE_USER_MASK: u64 = 0xf000_0000;

const FRAME: usize = size_of::<TrapFrame>();

global_asm!(
    r#"
    .macro  save_frame
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    .endm

    .macro  load_frame
    ldp     x19, x20, [sp, #152]
    ldp     x21, x22, [sp, #168]
    ldp     x23, x24, [sp, #184]
    ldp     x25, x26, [sp, #200]
    ldp     x27, x28, [sp, #216]
    load_caller_saved
    .endm

    // What a function call need not preserve. The others are as they were if nothing but functions ran.
    .macro  load_caller_saved
    ldp     x0, x1, [sp]
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldr     x18, [sp, #144]
    ldp     x29, x30, [sp, #232]
    add     sp, sp, #{FRAME}
    .endm

    // Leaves x19 to x28 as they are.
    .macro  enter_user
    sub     sp, sp, #{FRAME}
    save_frame
    mrs     x9, sp_el0
    mrs     x10, elr_el1
    mrs     x11, spsr_el1
    stp     x30, x9, [sp, #240]
    stp     x10, x11, [sp, #256]
    .endm

    .macro  load_state
    ldp     x9, x10, [sp, #248]
    ldr     x11, [sp, #264]
    msr     sp_el0, x9
    msr     elr_el1, x10
    msr     spsr_el1, x11
    .endm

    .macro  vector to
    .balign 128
    b       \to
    .endm

    .macro  kernel_vector to
    .balign 128
    sub     sp, sp, #{FRAME}
    add     sp, sp, x0                  // room? without a register to spare: sp and x0 swap roles and back
    sub     x0, sp, x0
    tbnz    x0, #{STACK_BIT}, 1f
    sub     x0, sp, x0
    sub     sp, sp, x0
    b       \to
1:  sub     x0, sp, x0
    sub     sp, sp, x0
    b       overflowed
    .endm

    .section .vectors.text, "ax"
    .balign 2048
    .global vectors
vectors:
    vector  bad_el1t
    vector  bad_el1t
    vector  bad_el1t
    vector  bad_el1t
    kernel_vector el1_sync
    kernel_vector el1_irq
    kernel_vector el1_fiq
    kernel_vector el1_serror
    vector  el0_sync
    vector  el0_irq
    vector  el0_fiq
    vector  el0_serror
    vector  el0_32
    vector  el0_32
    vector  el0_32
    vector  el0_32

    .text
el0_sync:
    enter_user
    mrs     x1, esr_el1
    lsr     x2, x1, #26
    cmp     x2, #0x15                   // SVC from AArch64
    b.ne    2f
    ldr     x3, [sp]                    // orig_x0
    stp     x3, x8, [sp, #272]
    tbnz    w8, #{OWN_CALLS}, 3f
1:  msr     daifclr, #2
    mov     x29, xzr
    mov     x0, sp
    bl      trap_syscall

    // Back to the program. The registers that a function call preserves still have the program's values; code that
    // changes them in the frame sets a work bit.
leave_user:
    msr     daifset, #2
    mrs     x1, tpidr_el1
    ldr     x1, [x1, #{CURRENT}]
    ldr     w1, [x1]
    cbnz    w1, work_to_do
    load_state
    load_caller_saved
    eret

2:  mov     x2, #-1
    str     x2, [sp, #280]
    mrs     x2, far_el1
    msr     daifclr, #2
    mov     x29, xzr
    mov     x0, sp
    bl      trap_from_user
    b       leave_user

    // One of Quire's own calls: of two, the answer is the frame of another thread, which runs in place of this one, or null. From
    // here on this thread's stack is another CPU's to use, once `trap_switched` has said so.
3:  mov     x9, #{CALL}
    cmp     x8, x9
    b.eq    4f
    mov     x9, #{REPLY_RECEIVE}
    cmp     x8, x9
    b.ne    1b
    mov     x29, xzr
    mov     x0, sp
    bl      trap_reply_receive
    b       5f
4:  mov     x29, xzr
    mov     x0, sp
    bl      trap_call
5:  cbz     x0, 1b
    isb                                 // as in context::switch
    mov     sp, x0
    bl      trap_switched
    mrs     x1, tpidr_el1
    ldr     x1, [x1, #{CURRENT}]
    ldr     w1, [x1]
    cbnz    w1, work_to_do
    load_state
    load_frame
    eret

    // Where a thread that was left so resumes if it is not another thread's call or answer that runs it: at its frame.
    .global resume_message
resume_message:
    mov     x29, xzr
    bl      trap_switched
    msr     daifclr, #2
    mov     x0, sp
    bl      trap_resume
    b       return_to_user

el0_irq:
    enter_user
    mov     x2, #-1
    str     x2, [sp, #280]
    mov     x29, xzr
    bl      trap_interrupt
    b       leave_user

work_to_do:
    mov     x0, sp
    bl      trap_before_user            // returns with interrupts masked and no work pending
    load_state
    load_frame
    eret

    // A thread's first entry to its program: all registers are loaded from the frame.
    .global return_to_user
return_to_user:
    msr     daifset, #2
    b       work_to_do

el0_fiq:
    enter_user
    mov     x1, #1
    b       dead
el0_serror:
    enter_user
    mov     x1, #2
    b       dead
el0_32:
    enter_user
    mov     x1, #3
    b       dead

    .macro  enter_kernel
    save_frame
    add     x21, sp, #{FRAME}
    mrs     x22, elr_el1
    mrs     x23, spsr_el1
    stp     x30, x21, [sp, #240]
    stp     x22, x23, [sp, #256]
    mov     x2, #-1
    str     x2, [sp, #280]
    stp     x29, x22, [sp, #-16]!       // a frame record, so that a backtrace goes on through here
    mov     x29, sp
    .endm

    .macro  leave_kernel
    add     sp, sp, #16
    ldp     x22, x23, [sp, #256]
    msr     elr_el1, x22
    msr     spsr_el1, x23
    load_frame
    eret
    .endm

el1_sync:
    enter_kernel
    add     x0, sp, #16
    mrs     x1, esr_el1
    mrs     x2, far_el1
    tbnz    x23, #7, 5f                 // interrupts were masked: they stay so
    msr     daifclr, #2
5:  bl      trap_from_kernel
    msr     daifset, #2
    leave_kernel

el1_irq:
    enter_kernel
    bl      trap_interrupt
    leave_kernel

el1_fiq:
    enter_kernel
    add     x0, sp, #16
    mov     x1, #1
    b       dead_at
el1_serror:
    enter_kernel
    add     x0, sp, #16
    mov     x1, #2
    b       dead_at
bad_el1t:
    mov     x1, #4
    b       dead
dead:
    mov     x0, sp
dead_at:
    mrs     x2, esr_el1
    mrs     x3, far_el1
    mov     x29, xzr
    bl      trap_dead

overflowed:
    // SP points {FRAME} bytes below a full stack: its value is kept for the report, but nothing is stored there.
    msr     tpidrro_el0, x0
    adrp    x0, overflow_stack_top
    add     x0, x0, :lo12:overflow_stack_top
    sub     x0, x0, #{FRAME}
    stp     x1, x2, [x0, #8]
    mov     x1, sp
    add     x1, x1, #{FRAME}
    mov     sp, x0
    mrs     x2, tpidrro_el0
    str     x2, [sp]
    stp     x30, x1, [sp, #240]
    mrs     x1, elr_el1
    mrs     x2, spsr_el1
    stp     x1, x2, [sp, #256]
    mov     x1, #5
    b       dead

    // The default return code of signal handlers, which calls rt_sigreturn: a page of its own, mapped into every
    // process.
    .section .rodata.sigreturn, "a"
    .balign 4096
    .global sigreturn_page
sigreturn_page:
    mov     x8, #139
    svc     #0
    .balign 4096

    .bss
    .balign 16
    .space  8192
overflow_stack_top:
    "#,
    FRAME = const FRAME,
    STACK_BIT = const STACK_SIZE.trailing_zeros(),
    CURRENT = const offset_of!(Head, current),
    OWN_CALLS = const nr::QUIRE_BASE.trailing_zeros(),
    CALL = const nr::QUIRE_CALL,
    REPLY_RECEIVE = const nr::QUIRE_REPLY_RECEIVE,
);

const _: () = {
    assert!(FRAME == 288 && offset_of!(TrapFrame, sp) == 248 && offset_of!(TrapFrame, pc) == 256);
    assert!(offset_of!(TrapFrame, x) == 0 && offset_of!(TrapFrame, pstate) == 264 && size_of::<Registers>() == 272);
    assert!(offset_of!(TrapFrame, orig_x0) == 272 && offset_of!(TrapFrame, syscall) == 280);
};

unsafe extern "C" {
    /// Leaves the kernel with the frame at SP. A new thread starts here.
    pub safe fn return_to_user(_: usize) -> !;
    /// See the table of the module. Only [`Context::resume_with`](super::context::Context::resume_with) leads there.
    pub safe fn resume_message() -> !;
    static sigreturn_page: u8;
}

/// The address of the page that signal handlers return through.
pub fn sigreturn_page_address() -> usize {
    (&raw const sigreturn_page).addr()
}
