//! The one trait through which the allocator sees the system beneath it.
//!
//! Quire, Linux on AArch64, the x86_64 host and the tests' failing system each implement it; nothing else in this
//! crate knows a system call. Every method may be called with allocator locks held, so none may allocate.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;

use crate::ThreadBlock;

/// The page size the allocator counts in. A system with larger pages rounds up inside its own implementation.
pub const PAGE: usize = 4096;

/// What [`System::advise`] says about a range of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The contents are not needed; the next read sees zeroes (`MADV_DONTNEED`).
    DontNeed,
    /// Do not back this range with huge pages (`MADV_NOHUGEPAGE`).
    NoHugePage,
}

/// The system beneath the allocator.
///
/// # Safety
///
/// Memory that [`grow_break`](Self::grow_break), [`map`](Self::map) and [`remap`](Self::remap) answer must be
/// readable, writable, zero-filled where new, and used by nobody else until it is given back.
/// [`thread_block`](Self::thread_block) must answer a block that no other living thread gets, zero-filled at the
/// thread's start, valid until the thread ends.
pub unsafe trait System: Sync {
    /// Raises the break by `bytes` (a multiple of [`PAGE`]) and returns the start of the new range, which need not
    /// follow the last one: others may have moved the break in between.
    fn grow_break(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// Lowers the break by `bytes` if it stands at `end`; returns whether it did.
    fn shrink_break(&self, end: NonNull<u8>, bytes: usize) -> bool;

    /// Maps `bytes` (a multiple of [`PAGE`]) of private zeroed memory. It need not be backed before it is touched.
    fn map(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// Unmaps whole pages that [`map`](Self::map) or [`remap`](Self::remap) answered; returns whether it did.
    ///
    /// # Safety
    ///
    /// Nobody uses the range any more.
    unsafe fn unmap(&self, at: NonNull<u8>, bytes: usize) -> bool;

    /// Changes the size of a mapping, moving it if `may_move`; contents up to the smaller size stay.
    ///
    /// # Safety
    ///
    /// `at` and `old` name mapped pages of the caller's, and nobody uses them during the call.
    unsafe fn remap(&self, at: NonNull<u8>, old: usize, new: usize, may_move: bool) -> Option<NonNull<u8>>;

    /// Says something about a range of pages; returns whether the system took it.
    ///
    /// # Safety
    ///
    /// For [`Advice::DontNeed`]: nobody needs the contents.
    unsafe fn advise(&self, at: NonNull<u8>, bytes: usize, advice: Advice) -> bool;

    /// Makes whole mapped pages inaccessible, so that a touch faults; returns whether it did.
    ///
    /// # Safety
    ///
    /// Nobody uses the range until it is unmapped.
    unsafe fn forbid(&self, at: NonNull<u8>, bytes: usize) -> bool;

    /// The calling thread's block.
    fn thread_block(&self) -> NonNull<ThreadBlock>;

    /// Called once for each thread before its block is first filled: arrange that
    /// [`Malloc::thread_exit`](crate::Malloc::thread_exit) runs on the thread when it ends. Returns whether it will; a
    /// thread for which it will not gets no cache.
    fn adopt_thread(&self) -> bool {
        true
    }

    /// Called once before the first block is handed out: arrange that `before_fork`, `after_fork_parent` and
    /// `after_fork_child` of [`Malloc`](crate::Malloc) run around a fork.
    fn adopt_process(&self) {}

    /// Asked before the first block is handed out: whether this process wants the mode with guard pages and quarantine
    /// (`guard`).
    fn wants_guard(&self) -> bool {
        false
    }

    /// Sleeps while `word` holds `expected`; may wake early.
    fn wait(&self, word: &AtomicU32, expected: u32);

    /// Wakes one thread that sleeps on `word`.
    fn wake(&self, word: &AtomicU32);

    /// A number an attacker cannot guess, or as near to it as the system comes.
    fn random(&self) -> u64;

    /// The heap is damaged or was misused: says so and ends the process.
    fn abort(&self, message: &str) -> !;
}
