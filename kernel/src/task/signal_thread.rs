//! The signal thread: a thread of the kernel's own that tells threads of a process that there is a signal, or a stop, for them.
//!
//! Whoever sends holds the table of processes and may be an interrupt, and how many threads a process has is up to
//! programs. So the sender tells a few, and this thread the others, a few under each hold of the lock.

use quire_abi::Errno;

use super::point::resched_point;
use super::process::Process;
use super::table::{TABLE, Table};
use super::thread;
use super::wait::{Sleep, WaitQueue};
use crate::arch::cpu;

static WORK: WaitQueue = WaitQueue::new();

/// Makes threads of a process look at its signals and at whether it is stopped. O(1).
pub fn mark_threads(table: &Table, process: &Process) {
    if table.mark_all(process) {
        WORK.wake_one();
    }
}

/// Starts the thread.
pub fn start() -> Result<(), Errno> {
    thread::start_kernel(serve)
}

extern "C" fn serve(_: usize) -> ! {
    cpu::irq_enable();
    loop {
        let some = || TABLE.lock().mark_some().then_some(());
        // A thread of no process is neither killed nor sent signals.
        let _ = WORK.wait_until(Sleep::Killable, None, some);
        let _ = resched_point(Sleep::Killable);
    }
}
