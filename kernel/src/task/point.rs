//! Preemption points for long work: here another thread may run, and a kill or a signal takes effect.
//!
//! The kernel is not preemptible. So work whose length a program sets (bytes to copy, threads to wake, descriptors to
//! close, pages to populate) calls [`resched_point`] at least every 100,000 instructions, and does no more than that
//! with interrupts masked or a spin lock held: it releases the lock, passes the point, and takes the lock again.
//! `vmstat` shows the longest stretch that did not ([`latency`](super::latency)).

use core::sync::atomic::Ordering;

use quire_abi::Errno;

use super::entity::{current, work};
use super::sched;
use super::wait::{Sleep, interrupts};
use crate::arch::cpu;

/// Bytes that may be copied to or from user memory between two points: with a page fault for each page of them, some
/// 20,000 instructions.
pub const COPY: usize = 16 << 10;

/// Entries of a list or a table (threads to wake, numbers to look at) between two points, and under one lock.
pub const ENTRIES: usize = 64;

/// The thread should stop its work: it was killed, or a signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl From<Interrupted> for Errno {
    fn from(_: Interrupted) -> Self {
        Errno::EINTR
    }
}

/// Lets other threads run if a reschedule is pending, then says whether the thread should continue.
///
/// - Other threads run: after the call, no reschedule requested before it is pending on this CPU. The thread may have
///   waited as long as others ran, and may be on another CPU.
/// - `Err` with [`Sleep::Killable`]: the thread was killed, or ends because its process execs or exits. The result of
///   the system call does not matter any more; the caller undoes or completes changes that others can see, and returns.
/// - `Err` with [`Sleep::Interruptible`]: the same, or a signal is deliverable. The caller returns the amount done so
///   far, or EINTR if that is nothing.
/// - An exiting thread counts as killed; it ignores the result and continues.
///
/// The caller is in process context, with interrupts enabled, no spin lock held and no sleep announced
/// ([`sched::prepare`]). A sleeping lock may be held, since other threads sleep while they wait for it. If nothing is
/// pending, the cost is one load.
#[inline]
pub fn resched_point(cut: Sleep) -> Result<(), Interrupted> {
    // (The boot thread makes the first process before it unmasks interrupts.)
    debug_assert!(!cpu::irqs_masked() || !current().is_user(), "a reschedule with interrupts masked");
    debug_assert!(current().is_awake(), "a reschedule of a thread that has announced a sleep");
    if current().work.load(Ordering::Relaxed) == 0 { Ok(()) } else { pause(cut) }
}

#[cold]
fn pause(cut: Sleep) -> Result<(), Interrupted> {
    let thread = current();
    if thread.work.load(Ordering::Relaxed) & work::RESCHEDULE != 0 {
        sched::schedule();
    }
    if interrupts(thread, cut) { Err(Interrupted) } else { Ok(()) }
}
