//! The point that long work passes: here another thread gets its turn, and a kill or a signal gets in.
//!
//! The kernel is not preempted, so whatever takes as long as a program says (bytes to copy, threads to wake,
//! descriptors to close, pages to populate) calls [`resched_point`] at least every 100,000 instructions,
//! and does no more than that with interrupts masked or a spin lock held: it lets go, passes the point, and takes the
//! lock again. `vmstat` shows the longest stretch that did not ([`latency`](super::latency)).

use core::sync::atomic::Ordering;

use quire_abi::Errno;

use super::thread::{current, work};
use super::wait::Sleep;
use super::{sched, signal};
use crate::arch::cpu;

/// Bytes that may be copied to or from user memory between two points: with a page fault for each page of them, some
/// 20,000 instructions.
pub const COPY: usize = 16 << 10;

/// Entries of a list or a table (threads to wake, numbers to look at) between two points, and under one lock.
pub const ENTRIES: usize = 64;

/// The thread has something better to do than to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl From<Interrupted> for Errno {
    fn from(_: Interrupted) -> Self {
        Errno::EINTR
    }
}

/// Lets others run if they should, then says whether the thread is to go on.
///
/// - Others run: after the call this CPU has no reschedule outstanding that was asked for before it. The thread may
///   have slept in between, for as long as others ran, and may be on another CPU.
/// - `Err` with [`Sleep::Killable`]: the thread was killed, or ends because its process execs or exits. Nobody will
///   see what the call answers; the caller undoes or completes what others can see and returns.
/// - `Err` with [`Sleep::Interruptible`]: that, or a signal is deliverable. The caller returns what it has done so
///   far, or EINTR if that is nothing.
/// - A thread on its way out (exit) is killed by that rule and goes on nevertheless: it ignores the answer.
///
/// The caller is in process context, with interrupts enabled, no spin lock held and no sleep announced
/// ([`sched::prepare`]). A sleeping lock may be held, for others wait for it asleep. Without anything to do it is one
/// load.
#[inline]
pub fn resched_point(cut: Sleep) -> Result<(), Interrupted> {
    // (The thread that boots makes the first process before it lets interrupts in.)
    debug_assert!(!cpu::irqs_masked() || current().process.is_none(), "a reschedule with interrupts masked");
    debug_assert!(current().is_awake(), "a reschedule of a thread that has announced a sleep");
    if current().work.load(Ordering::Relaxed) == 0 { Ok(()) } else { pause(cut) }
}

#[cold]
fn pause(cut: Sleep) -> Result<(), Interrupted> {
    let thread = current();
    if thread.work.load(Ordering::Relaxed) & work::RESCHEDULE != 0 {
        sched::schedule();
    }
    if signal::interrupts(thread, cut) { Err(Interrupted) } else { Ok(()) }
}
