//! Freezing a process because its control group is to be frozen ([`membership`](super::membership)).
//!
//! As for a [stop](super::stop), each thread halts when it returns to user mode, and threads in interruptible sleeps are woken for that; what they slept
//! in is restarted as after a stop. A process is *frozen*, and counted so in its group, when all its threads are held: halted here, or in a stop, or
//! waiting for a vfork child. A kill ends that at once, as that of any signal which is not handled and not blocked; other signals wait.
//!
//! Whether a process is to be frozen, and whether it is counted, changes under the table's lock. A thread says by itself that it is held: it counts itself,
//! then looks whether the process is to be frozen, while whoever freezes does the opposite, so that one of the two counts the process.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::process::{Process, TABLE, Table};
use super::signal_thread;
use super::wait::Sleep;
use crate::vm::GROUPS;

/// What a process has of it.
#[derive(Default)]
pub struct Freezer {
    /// It is to be frozen.
    is_active: AtomicBool,
    /// Threads that are held.
    held: AtomicU32,
    /// It is counted as frozen in its group.
    is_counted: AtomicBool,
}

impl Freezer {
    /// Whether the process is to be frozen.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::SeqCst)
    }
}

/// A thread of a process that does not go on before others let it.
pub struct Held<'a>(&'a Process);

impl<'a> Held<'a> {
    /// The calling thread. No lock is held.
    pub fn new(process: &'a Process) -> Self {
        process.freezer.held.fetch_add(1, Ordering::SeqCst);
        count_if_active(process);
        Self(process)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.freezer.held.fetch_sub(1, Ordering::SeqCst);
        count_if_active(self.0);
    }
}

fn count_if_active(process: &Process) {
    if process.freezer.is_active() {
        count(&TABLE.lock(), process);
    }
}

/// Compares what is counted with what is: threads are held, or not any more, or were made, or have left.
pub fn count(table: &Table, process: &Process) {
    let freezer = &process.freezer;
    let all = table.family(process).thread_count;
    let is_frozen = freezer.is_active() && all != 0 && freezer.held.load(Ordering::SeqCst) >= all;
    if freezer.is_counted.swap(is_frozen, Ordering::Relaxed) != is_frozen {
        GROUPS.count_frozen(group(process), if is_frozen { 1 } else { -1 });
    }
}

fn group(process: &Process) -> u16 {
    process.whole.control_group.load(Ordering::Relaxed)
}

/// A process is to be frozen from now on if its group is, and else not.
pub fn follow(table: &Table, process: &Process) {
    let is_active = GROUPS.is_freezing(group(process));
    if process.freezer.is_active.swap(is_active, Ordering::SeqCst) != is_active {
        count(table, process);
        if is_active {
            signal_thread::mark_threads(table, process);
        } else {
            process.stop_wait.wake_all();
        }
    }
}

/// A process leaves its group.
pub fn end(table: &Table, process: &Process) {
    if process.freezer.is_active.swap(false, Ordering::SeqCst) {
        count(table, process);
        process.stop_wait.wake_all();
    }
}

/// Sleeps while the process is to be frozen. Returns early if the thread has to end.
pub fn halt(process: &Process) {
    let _held = Held::new(process);
    let is_over = || (!process.freezer.is_active()).then_some(());
    let _ = process.stop_wait.wait_until(Sleep::Killable, None, is_over);
}
