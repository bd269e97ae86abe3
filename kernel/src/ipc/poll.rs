//! `ppoll`: waiting for any of several objects.
//!
//! All pollers share one queue, and every object that becomes ready wakes all of it: simple and correct, at O(pollers)
//! per wake-up. While nobody polls, this costs an object one load. A poller checks its objects, which may be many,
//! while it is awake, and sleeps only if no event has happened since it began.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use quire_abi::Errno;
use quire_abi::layout::poll;

use super::descriptor::{Object, OpenFile};
use crate::arch::timer;
use crate::console::tty;
use crate::task::point::resched_point;
use crate::task::wait::{Sleep, WaitQueue};

static POLLERS: WaitQueue = WaitQueue::new();
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Events that happened while somebody polled.
static EVENTS: AtomicU64 = AtomicU64::new(0);

/// Reports that an object became ready.
pub fn notify() {
    if COUNT.load(Ordering::SeqCst) > 0 {
        EVENTS.fetch_add(1, Ordering::SeqCst);
        POLLERS.wake_all();
    }
}

/// The operations that would not sleep on an open object.
pub fn ready(file: &OpenFile) -> u16 {
    match &file.object {
        Object::Console => tty::ready(),
        Object::Pipe(pipe, side) => pipe.ready(*side),
        Object::Archive(_) | Object::Null | Object::Zero => poll::IN | poll::OUT,
    }
}

/// Sleeps until `check` returns a count above 0, or until the deadline: then 0.
pub fn wait(deadline: Option<u64>, check: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    COUNT.fetch_add(1, Ordering::SeqCst);
    let result = wait_counted(deadline, check);
    COUNT.fetch_sub(1, Ordering::SeqCst);
    result
}

fn wait_counted(deadline: Option<u64>, mut check: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        let seen = EVENTS.load(Ordering::SeqCst);
        let ready = check()?;
        let is_over = deadline.is_some_and(|at| timer::now_ns() >= at);
        if ready > 0 || is_over {
            return Ok(ready);
        }
        // Other objects' events may come faster than the check runs.
        resched_point(Sleep::Interruptible)?;
        let is_news = || (EVENTS.load(Ordering::SeqCst) != seen).then_some(());
        match POLLERS.wait_until(Sleep::Interruptible, deadline, is_news) {
            Ok(()) | Err(Errno::ETIMEDOUT) => {}
            Err(e) => return Err(e),
        }
    }
}
