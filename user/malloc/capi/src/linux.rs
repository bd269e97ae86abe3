//! Linux as the allocator's system, inside a process whose libc has pthreads.

use core::ffi::{c_int, c_uint, c_void};
use core::ptr::{NonNull, without_provenance_mut};
use core::sync::atomic::{AtomicU32, Ordering};

use quire_malloc::{Advice, System, ThreadBlock};

use crate::sys::{self, call, nr};
use crate::{MALLOC, env, tls};

unsafe extern "C" {
    fn abort() -> !;
    fn pthread_key_create(key: *mut c_uint, destructor: extern "C" fn(*mut c_void)) -> c_int;
    fn pthread_setspecific(key: c_uint, value: *const c_void) -> c_int;
    fn pthread_atfork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> c_int;
}

const PROT_READ_WRITE: usize = 3;
const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
const MREMAP_MAYMOVE: usize = 1;
const MADV_DONTNEED: usize = 4;
const MADV_NOHUGEPAGE: usize = 15;
/// Where messages go.
pub const STDERR: usize = 2;

/// The variable that turns the mode with guard pages and quarantine on.
const GUARD_VARIABLE: &[u8] = b"QUIRE_MALLOC_GUARD";

/// No pthread key: not created yet, or its creation failed.
const NO_KEY: u32 = u32::MAX;

/// The system beneath the two C libraries.
pub struct Linux {
    /// The pthread key whose destructor empties a thread's cache.
    key: AtomicU32,
}

impl Linux {
    /// The system, before the process's first call.
    pub const fn new() -> Linux {
        Linux { key: AtomicU32::new(NO_KEY) }
    }
}

impl Default for Linux {
    fn default() -> Self {
        Self::new()
    }
}

extern "C" fn thread_ends(_: *mut c_void) {
    MALLOC.thread_exit();
}

extern "C" fn before_fork() {
    MALLOC.before_fork();
}

extern "C" fn in_parent() {
    MALLOC.after_fork_parent();
}

extern "C" fn in_child() {
    sys::reset_break();
    MALLOC.after_fork_child();
}

fn pointer(address: usize) -> Option<NonNull<u8>> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(address))
}

// SAFETY: the kernel hands fresh ranges out and keeps them the process's; the thread block is thread-local storage.
unsafe impl System for Linux {
    fn grow_break(&self, bytes: usize) -> Option<NonNull<u8>> {
        pointer(sys::move_break(isize::try_from(bytes).ok()?)?)
    }

    fn shrink_break(&self, end: NonNull<u8>, bytes: usize) -> bool {
        sys::lower_break(end.as_ptr().addr(), bytes)
    }

    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: a new private mapping where nothing is mapped.
        let at = unsafe { call(nr::MMAP, [0, bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, usize::MAX, 0]) };
        pointer(at.ok()?)
    }

    unsafe fn unmap(&self, at: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { call(nr::MUNMAP, [at.as_ptr().addr(), bytes, 0, 0, 0, 0]) }.is_ok()
    }

    unsafe fn remap(&self, at: NonNull<u8>, old: usize, new: usize, may_move: bool) -> Option<NonNull<u8>> {
        let flags = if may_move { MREMAP_MAYMOVE } else { 0 };
        // SAFETY: the caller's promise.
        pointer(unsafe { call(nr::MREMAP, [at.as_ptr().addr(), old, new, flags, 0, 0]) }.ok()?)
    }

    unsafe fn advise(&self, at: NonNull<u8>, bytes: usize, advice: Advice) -> bool {
        let advice = match advice {
            Advice::DontNeed => MADV_DONTNEED,
            Advice::NoHugePage => MADV_NOHUGEPAGE,
        };
        // SAFETY: the caller's promise.
        unsafe { call(nr::MADVISE, [at.as_ptr().addr(), bytes, advice, 0, 0, 0]) }.is_ok()
    }

    unsafe fn forbid(&self, at: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { call(nr::MPROTECT, [at.as_ptr().addr(), bytes, 0, 0, 0, 0]) }.is_ok()
    }

    #[inline(always)]
    fn thread_block(&self) -> NonNull<ThreadBlock> {
        tls::thread_block()
    }

    fn adopt_thread(&self) -> bool {
        let key = self.key.load(Ordering::Acquire);
        // Any value but null makes the destructor run.
        // SAFETY: the key was made by `adopt_process`.
        key != NO_KEY && unsafe { pthread_setspecific(key, without_provenance_mut(1)) } == 0
    }

    fn adopt_process(&self) {
        let mut key = NO_KEY;
        // SAFETY: the functions live as long as the process; the library is never unloaded.
        unsafe {
            if pthread_key_create(&raw mut key, thread_ends) == 0 {
                self.key.store(key, Ordering::Release);
            }
            // Without the hooks, only the program itself can make a fork safe; there is no better fallback here.
            let _ = pthread_atfork(before_fork, in_parent, in_child);
        }
    }

    fn wants_guard(&self) -> bool {
        env::is_on(GUARD_VARIABLE)
    }

    fn wait(&self, word: &AtomicU32, expected: u32) {
        sys::wait(word, expected);
    }

    fn wake(&self, word: &AtomicU32) {
        sys::wake(word);
    }

    fn random(&self) -> u64 {
        let mut number = 0u64;
        // SAFETY: the call writes the 8 bytes of `number`.
        let got = unsafe { call(nr::GETRANDOM, [(&raw mut number).addr(), 8, 1, 0, 0, 0]) };
        match got {
            Ok(8) => number,
            // Too early after boot for random numbers: use the addresses that the loader has randomised.
            _ => {
                ((&raw const number).addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    ^ self.thread_block().as_ptr().addr() as u64
            }
        }
    }

    fn abort(&self, message: &str) -> ! {
        for part in [message, "\n"] {
            // SAFETY: reads the string. Whether the message arrives no longer matters.
            let _ = unsafe { call(nr::WRITE, [STDERR, part.as_ptr().addr(), part.len(), 0, 0, 0]) };
        }
        // SAFETY: C's abort may be called at any time.
        unsafe { abort() }
    }
}

/// Ends a process in which this library itself failed.
pub fn panicked() -> ! {
    MALLOC.system().abort("malloc(): internal error")
}
