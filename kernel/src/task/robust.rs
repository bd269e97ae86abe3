//! Robust futexes: the words that a thread held when it ended are marked, and a waiter on each is woken.
//!
//! The list is in the program's memory and may be corrupt: the walk takes at most [`MOST`] steps, every access may
//! fault, and the first fault that cannot be resolved ends the walk (the rules are those of Linux's
//! `exit_robust_list`). It runs before the thread releases its memory, at its exit or at exec.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::futex::{OWNER_DIED, TID_MASK, WAITERS};
use quire_abi::layout::RobustListHead;
use quire_mm::UserAddr;

use super::point::resched_point;
use super::thread::Thread;
use super::wait::Sleep;
use crate::arch::uaccess;
use crate::ipc::futex;

/// The most entries examined: Linux's ROBUST_LIST_LIMIT.
const MOST: usize = 2048;

/// Bit of a pointer to an entry: a priority-inheritance futex. These do not exist here, so nothing sleeps on one.
const INHERITS: usize = 1;

/// Marks the words that the current thread holds, and forgets its list.
pub fn release(thread: &Thread) {
    let head = thread.robust_list.swap(0, Ordering::Relaxed);
    if head != 0 && thread.mm().is_some() {
        // Errors in the list only affect the program itself.
        let _ = walk(thread, head);
    }
}

fn walk(thread: &Thread, at: usize) -> Result<(), Errno> {
    let head: RobustListHead = uaccess::get(UserAddr::new(at))?;
    let word = |entry: usize| UserAddr::new((entry & !INHERITS).wrapping_add_signed(head.futex_offset as isize));
    let pending = head.list_op_pending as usize;
    let same = |a: usize, b: usize| a & !INHERITS == b & !INHERITS;
    let mut entry = head.list as usize;
    for _ in 0..MOST {
        if same(entry, at) {
            break;
        }
        // The next pointer is read first: the thread that takes the word over may change the entry.
        let next = uaccess::get::<u64>(UserAddr::new(entry & !INHERITS));
        if !same(entry, pending) {
            mark(thread, word(entry), entry & INHERITS != 0, false)?;
        }
        entry = next? as usize;
        // An exiting thread continues, whatever the result.
        let _ = resched_point(Sleep::Killable);
    }
    if pending & !INHERITS != 0 {
        mark(thread, word(pending), pending & INHERITS != 0, true)?;
    }
    Ok(())
}

/// Marks a word whose owner is this thread with OWNER_DIED, and wakes one sleeper.
fn mark(thread: &Thread, word: UserAddr, inherits: bool, is_pending: bool) -> Result<(), Errno> {
    if !word.is_aligned(4) {
        return Err(Errno::EINVAL);
    }
    let mut value: u32 = uaccess::get(word)?;
    loop {
        if is_pending && !inherits && value & TID_MASK == 0 {
            // The thread has released the word but not yet woken the next waiter.
            break;
        }
        if value & TID_MASK != thread.tid() {
            return Ok(());
        }
        let was = uaccess::cmpxchg(word, value, value & WAITERS | OWNER_DIED)?;
        if was == value {
            if inherits || value & WAITERS == 0 {
                return Ok(());
            }
            break;
        }
        value = was;
    }
    // An error cannot be reported to anybody.
    let _ = futex::wake(word, 1, u32::MAX, false);
    Ok(())
}
