//! Linux's system calls, and `sbrk` over them.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

/// The numbers of the calls used here.
#[cfg(target_arch = "aarch64")]
pub mod nr {
    pub const WRITE: usize = 64;
    pub const FUTEX: usize = 98;
    pub const BRK: usize = 214;
    pub const MUNMAP: usize = 215;
    pub const MREMAP: usize = 216;
    pub const MMAP: usize = 222;
    pub const MPROTECT: usize = 226;
    pub const MADVISE: usize = 233;
    pub const GETRANDOM: usize = 278;
}

/// The numbers of the calls used here.
#[cfg(target_arch = "x86_64")]
pub mod nr {
    pub const WRITE: usize = 1;
    pub const MMAP: usize = 9;
    pub const MPROTECT: usize = 10;
    pub const MUNMAP: usize = 11;
    pub const BRK: usize = 12;
    pub const MREMAP: usize = 25;
    pub const MADVISE: usize = 28;
    pub const FUTEX: usize = 202;
    pub const GETRANDOM: usize = 318;
}

/// A system call: its answer, or the errno.
///
/// # Safety
///
/// As the call's manual page says.
pub unsafe fn call(nr: usize, args: [usize; 6]) -> Result<usize, i32> {
    let answer: isize;
    // SAFETY: the caller's promise; the kernel changes no register but those named.
    unsafe {
        #[cfg(target_arch = "aarch64")]
        asm!("svc 0", in("x8") nr, inlateout("x0") args[0] => answer, in("x1") args[1], in("x2") args[2],
            in("x3") args[3], in("x4") args[4], in("x5") args[5], options(nostack));
        #[cfg(target_arch = "x86_64")]
        asm!("syscall", inlateout("rax") nr => answer, in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5], out("rcx") _, out("r11") _, options(nostack));
    }
    if (-4095..0).contains(&answer) { Err(-answer as i32) } else { Ok(answer as usize) }
}

const FUTEX_WAIT_PRIVATE: usize = 128;
const FUTEX_WAKE_PRIVATE: usize = 129;

pub fn wait(word: &AtomicU32, expected: u32) {
    // An error (a signal came, the word had changed) is an early return, which the caller allows for. SAFETY: the word
    // is mapped; the call only reads it.
    let _ = unsafe { call(nr::FUTEX, [word.as_ptr().addr(), FUTEX_WAIT_PRIVATE, expected as usize, 0, 0, 0]) };
}

pub fn wake(word: &AtomicU32) {
    // SAFETY: the call touches no memory.
    let _ = unsafe { call(nr::FUTEX, [word.as_ptr().addr(), FUTEX_WAKE_PRIVATE, 1, 0, 0, 0]) };
}

/// Makes reading and setting the break one step.
static BREAK: AtomicU32 = AtomicU32::new(0);

fn with_break<R>(f: impl FnOnce(usize) -> R) -> R {
    // 0: free; 1: held; 2: held, with waiters.
    if BREAK.swap(1, Ordering::Acquire) != 0 {
        while BREAK.swap(2, Ordering::Acquire) != 0 {
            wait(&BREAK, 2);
        }
    }
    let answer = f(set_break(0));
    if BREAK.swap(0, Ordering::Release) == 2 {
        wake(&BREAK);
    }
    answer
}

/// In the child of a fork: a thread that held the lock does not exist here.
pub fn reset_break() {
    BREAK.store(0, Ordering::Release);
}

/// Asks the kernel to set the break to `to`; returns where it is.
fn set_break(to: usize) -> usize {
    // SAFETY: only called for addresses at or above where the heap's users have left the break.
    unsafe { call(nr::BRK, [to, 0, 0, 0, 0, 0]) }.unwrap_or(0)
}

/// Moves the break by `by` bytes and returns where it was.
pub fn move_break(by: isize) -> Option<usize> {
    with_break(|now| {
        let to = now.checked_add_signed(by)?;
        (by == 0 || set_break(to) == to).then_some(now)
    })
}

/// Lowers the break by `bytes` if it stands at `end`.
pub fn lower_break(end: usize, bytes: usize) -> bool {
    with_break(|now| now == end && set_break(end - bytes) == end - bytes)
}
