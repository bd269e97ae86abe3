//! Allocation failures on request: of the allocations in the calling thread's calls and faults from now on, the nth
//! fails although there is memory (`QUIRE_FAIL_NTH`; on Linux `/proc/self/fail-nth`).
//!
//! Every request for pages or heap objects counts, except NOFAIL ones. The facility is in every kernel: the worst
//! effects are ENOMEM and a kill, and only for the program itself. While a thread is armed, all allocations take the
//! slow path, for which the fast paths check anyway (`PageAllocator`'s trap, `heap::DETOUR`); otherwise this costs
//! nothing.

use core::sync::atomic::Ordering::Relaxed;

use quire_mm::page_alloc::{FailsOnDemand, Gfp};

use super::entity::current;
use crate::vm::{Cpu, PAGES, heap};

/// Makes the calling thread's `n`th allocation from now on fail; 0 cancels that. Returns how many allocations were left
/// until the failure requested before: 0 if it has happened or was not requested.
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

/// The value of [`Entity::fail_nth`](super::entity::Entity) after a non-waiting allocation has failed: the
/// waiting one with which the caller tries again must fail too.
const LASTS: u32 = u32::MAX;

/// Whether the calling thread's present allocation must fail. (No interrupt handler allocates.)
#[cold]
fn fails(gfp: Gfp) -> bool {
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

impl FailsOnDemand for Cpu {
    fn fails_allocation(self, gfp: Gfp) -> bool {
        fails(gfp)
    }
}
