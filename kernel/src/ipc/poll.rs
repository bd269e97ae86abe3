//! `ppoll`: waiting for any of several objects.
//!
//! All pollers share one queue, which every object that becomes ready wakes when anybody polls: simple and right,
//! at O(pollers) a wake-up. Objects pay one load while nobody does.

use core::sync::atomic::{AtomicUsize, Ordering};

use quire_abi::Errno;
use quire_abi::layout::poll;

use super::handle::{Object, OpenFile};
use crate::console::tty;
use crate::task::wait::{Sleep, WaitQueue};

static POLLERS: WaitQueue = WaitQueue::new();
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Something became ready.
pub fn notify() {
    if COUNT.load(Ordering::SeqCst) > 0 {
        POLLERS.wake_all();
    }
}

/// What there is to do on an open object without sleeping.
pub fn ready(file: &OpenFile) -> u16 {
    match &file.object {
        Object::Console => tty::ready(),
        Object::Pipe(pipe, side) => pipe.ready(*side),
        Object::Archive(_) | Object::Null | Object::Zero => poll::IN | poll::OUT,
    }
}

/// Sleeps until `check` answers a count above 0, or the deadline: then 0.
pub fn wait(deadline: Option<u64>, mut check: impl FnMut() -> usize) -> Result<usize, Errno> {
    COUNT.fetch_add(1, Ordering::SeqCst);
    let result = POLLERS.wait_until(Sleep::Interruptible, deadline, || match check() {
        0 => None,
        n => Some(n),
    });
    COUNT.fetch_sub(1, Ordering::SeqCst);
    match result {
        Err(Errno::ETIMEDOUT) => Ok(0),
        other => other,
    }
}
