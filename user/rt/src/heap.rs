//! The program's heap: quire-malloc on this system's calls. This is the one place that chooses the allocator.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;

use quire_abi::flags::{Mremap, Prot, madv, sig};
use quire_malloc::{Advice, Malloc, System, ThreadBlock};
pub use quire_malloc::{Mallinfo, Totals};

use crate::{arch, io, mem, process, start, sync, thread};

/// The system beneath the allocator.
struct Quire;

#[global_allocator]
static HEAP: Malloc<Quire> = Malloc::new(Quire);

/// Returns free memory to the system where possible; the result says whether any was.
pub fn trim() -> bool {
    HEAP.trim(0)
}

/// Counts the heap as C's `mallinfo2` does.
pub fn info() -> Mallinfo {
    HEAP.info()
}

/// Walks the heap and checks every chunk against the allocator's records: returns the sums, or a description of the
/// error.
pub fn validate() -> Result<Totals, &'static str> {
    HEAP.validate()
}

/// How many bytes of a block its owner may use.
///
/// # Safety
/// `at` is a living block of the global allocator.
pub unsafe fn usable_size(at: *mut u8) -> usize {
    // SAFETY: the caller's promise.
    unsafe { HEAP.usable_size(at) }
}

/// Called as the last thing that a thread does before it exits.
pub(crate) fn thread_exit() {
    HEAP.thread_exit();
}

/// Runs `fork` with the heap at rest, so that the child finds it usable whatever other threads were doing.
pub(crate) fn around_fork<E>(fork: impl FnOnce() -> Result<i32, E>) -> Result<i32, E> {
    HEAP.before_fork();
    let forked = fork();
    match forked {
        Ok(0) => HEAP.after_fork_child(),
        _ => HEAP.after_fork_parent(),
    }
    forked
}

fn pointer(addr: usize) -> Option<NonNull<u8>> {
    NonNull::new(addr as *mut u8)
}

// SAFETY: the kernel returns fresh zero-filled memory that nobody else has; each thread has its own control block,
// which starts as zeros and lives as long as its stack.
unsafe impl System for Quire {
    fn grow_break(&self, bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: the segment only grows.
        unsafe {
            let start = mem::brk(0);
            let end = start.checked_add(bytes)?;
            if mem::brk(end) == end { pointer(start) } else { None }
        }
    }

    fn shrink_break(&self, end: NonNull<u8>, bytes: usize) -> bool {
        let end = end.as_ptr() as usize;
        // SAFETY: the allocator gives back the segment's end, which it alone used.
        unsafe { mem::brk(0) == end && mem::brk(end - bytes) == end - bytes }
    }

    fn map(&self, bytes: usize) -> Option<NonNull<u8>> {
        mem::mmap_anonymous(bytes, Prot::READ | Prot::WRITE).ok().and_then(pointer)
    }

    unsafe fn unmap(&self, at: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { mem::munmap(at.as_ptr() as usize, bytes) }.is_ok()
    }

    unsafe fn remap(&self, at: NonNull<u8>, old: usize, new: usize, may_move: bool) -> Option<NonNull<u8>> {
        let flags = if may_move { Mremap::MAYMOVE } else { Mremap::empty() };
        // SAFETY: the caller's promise.
        unsafe { mem::mremap(at.as_ptr() as usize, old, new, flags, 0) }.ok().and_then(pointer)
    }

    unsafe fn advise(&self, at: NonNull<u8>, bytes: usize, advice: Advice) -> bool {
        let advice = match advice {
            Advice::DontNeed => madv::DONTNEED,
            Advice::NoHugePage => madv::NOHUGEPAGE,
        };
        // SAFETY: the caller's promise.
        unsafe { mem::madvise(at.as_ptr() as usize, bytes, advice) }.is_ok()
    }

    unsafe fn forbid(&self, at: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { mem::mprotect(at.as_ptr() as usize, bytes, Prot::empty()) }.is_ok()
    }

    fn thread_block(&self) -> NonNull<ThreadBlock> {
        // SAFETY: every thread has a control block before it runs Rust code that allocates.
        unsafe { NonNull::new_unchecked(&raw mut (*thread::control()).heap) }
    }

    fn wait(&self, word: &AtomicU32, expected: u32) {
        // Waking early is allowed, so an error needs no handling.
        let _ = sync::futex_wait(word, expected, None);
    }

    fn wake(&self, word: &AtomicU32) {
        // Fails for a bad address only, and the lock's is good.
        let _ = sync::futex_wake(word, 1);
    }

    fn random(&self) -> u64 {
        match start::auxv(quire_abi::layout::at::RANDOM) {
            // SAFETY: the kernel put 16 random bytes there.
            Some(bytes) if bytes != 0 => unsafe { (bytes as *const u64).read_unaligned() },
            _ => arch::counter(),
        }
    }

    fn abort(&self, message: &str) -> ! {
        let _ = io::write_all(2, message.as_bytes());
        let _ = io::write_all(2, b"\n");
        let _ = process::kill(process::getpid(), sig::ABRT);
        process::exit_now(134)
    }
}
