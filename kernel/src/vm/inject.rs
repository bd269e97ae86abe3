//! Failed allocations on demand, for the thread that asks: of those made in its calls and faults from now on, the nth fails
//! although there is memory (`QUIRE_FAIL_NTH`; Linux has it as `/proc/self/fail-nth`).
//!
//! Pages and objects of the heap are counted alike, each time that one is asked for; what must not fail (NOFAIL) is not.
//! It is there in every kernel: a program can bring no worse upon itself than ENOMEM, or to be killed. While a thread is
//! armed, all allocations take the way for those who have a reason not to hurry, which the fast paths look for anyway
//! (`PageAllocator`'s trap, `heap::DETOUR`): while none is, this costs nothing.

use core::sync::atomic::Ordering::Relaxed;

use quire_mm::page_alloc::Gfp;

use super::heap;
use super::machine::PAGES;
use crate::task::thread::current;

/// The calling thread's `n`th allocation from now on fails, and no other; none does if `n` is 0. Answers how many were
/// left until then: 0 if the failure that was last asked for has been, or none was.
pub fn arm(n: u32) -> u32 {
    let left = current().fail_nth.swap(n.min(LASTS - 1), Relaxed);
    match (left, n) {
        (0, 1..) => {
            PAGES.ask_about_failures();
            heap::ask_about_failures();
        }
        (1.., 0) => stop(),
        _ => {}
    }
    if left == LASTS { 0 } else { left }
}

fn stop() {
    PAGES.ask_no_more();
    heap::ask_no_more();
}

/// What [`Thread::fail_nth`](crate::task::thread::Thread) is once the failure has been, of an allocation that could not wait:
/// the one by which the caller then waits is to fail too.
const LASTS: u32 = u32::MAX;

/// Whether the allocation that the calling thread is making fails. (No interrupt handler allocates.)
#[cold]
pub fn fails(gfp: Gfp) -> bool {
    let nth = &current().fail_nth;
    let left = nth.load(Relaxed);
    if left == LASTS && !gfp.may_wait() || left == 0 {
        return false;
    }
    let is_it = left == 1 || left == LASTS;
    let lasts = left == 1 && !gfp.may_wait() && !gfp.contains(Gfp::NORETRY);
    nth.store(
        if lasts {
            LASTS
        } else if is_it {
            0
        } else {
            left - 1
        },
        Relaxed,
    );
    if is_it && !lasts {
        stop();
    }
    is_it
}
