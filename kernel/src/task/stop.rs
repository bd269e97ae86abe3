//! Stopping and continuing a process.
//!
//! A stop applies to the whole process: the thread that takes the signal [begins](begin) it, and each thread
//! [halts](halt) when it returns to user mode; threads in interruptible sleeps are woken for that. The parent is
//! notified when the last thread has halted. A continuation [ends](end) the stop at once.
//!
//! Everything here changes under the table's lock; [`Stop::is_active`] may be called without it.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use quire_abi::flags::{cld, sig};
use quire_abi::layout::sa;

use super::children::News;
use super::freezer::Held;
use super::process::{Process, TABLE, Table};
use super::signal::{self, Info};
use super::wait::Sleep;
use super::walk::{self, Among};
use super::{exit, signal_thread};

/// Wait status of a child that was continued.
pub const CONTINUED: u32 = 0xffff;

/// The stop state of a process.
#[derive(Default)]
pub struct Stop {
    active: AtomicBool,
    /// The signal that caused it.
    signal: AtomicU32,
    /// Counts stops, so that a thread that halted for one can recognise the next.
    begun: AtomicU32,
    /// Counts continuations, also while the process was not stopped: one that comes between the taking of the signal
    /// and the stop cancels the stop.
    ended: AtomicU32,
    /// Counts stop signals that were sent.
    signals: AtomicU32,
    /// Threads that have halted in this stop.
    halted: AtomicU32,
    /// All have, and the parent was notified.
    complete: AtomicBool,
    /// Status for `wait4` of a change that was not yet reported; 0 for none.
    change: AtomicU32,
}

impl Stop {
    /// Whether the process is stopped, or about to be.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// The number of continuations. Read before a signal is taken, for [`begin`].
    pub fn continuations(&self) -> u32 {
        self.ended.load(Ordering::Acquire)
    }

    /// How many stop signals, and continuations, the process was sent.
    pub fn sent(&self) -> (u32, u32) {
        (self.signals.load(Ordering::Acquire), self.ended.load(Ordering::Acquire))
    }

    /// A stop signal is sent. The caller holds the table's lock.
    pub fn note_sent(&self) {
        self.signals.fetch_add(1, Ordering::AcqRel);
    }

    /// The wait status of an unreported change; 0 for none. The caller holds the table's lock.
    pub fn change(&self) -> u32 {
        self.change.load(Ordering::Relaxed)
    }
}

/// The change of a process has been reported.
pub fn clear_change(table: &Table, process: &Process) {
    process.stop.change.store(0, Ordering::Relaxed);
    table.tell(process, News::None);
}

/// Begins a stop by `signal`, which was taken after [`Stop::continuations`] returned `ended`.
pub fn begin(process: &Process, signal: u32, ended: u32) {
    if signal != sig::STOP && is_orphaned(process) {
        return;
    }
    let table = TABLE.lock();
    let stop = &process.stop;
    if stop.is_active() || stop.continuations() != ended || process.exit_status().is_some() {
        return;
    }
    stop.signal.store(signal, Ordering::Relaxed);
    stop.begun.fetch_add(1, Ordering::AcqRel);
    stop.halted.store(0, Ordering::Relaxed);
    stop.complete.store(false, Ordering::Relaxed);
    stop.active.store(true, Ordering::SeqCst);
    signal_thread::mark_threads(&table, process);
}

/// Whether a process's group is orphaned: no member has a parent in the same session but in another group, so nobody
/// could continue it. Then stop signals from the terminal are ignored (POSIX). The caller holds no lock.
fn is_orphaned(process: &Process) -> bool {
    let pgid = process.pgid();
    let leads_on = |table: &Table, member: &Process| {
        let sid = table.family(member).sid;
        let is_job = |parent: &Process| parent.pgid() != pgid && table.family(parent).sid == sid;
        !table.family(member).is_zombie && table.parent(member).is_some_and(is_job)
    };
    !walk::any_process(Among::Group(pgid), leads_on)
}

/// Sleeps while the process is stopped. Returns early if the thread has to end.
pub fn halt(process: &Process) {
    let _held = Held::new(process);
    let stop = &process.stop;
    let begun = {
        let table = TABLE.lock();
        if !stop.is_active() {
            return;
        }
        stop.halted.fetch_add(1, Ordering::Relaxed);
        check_complete(&table, process);
        stop.begun.load(Ordering::Relaxed)
    };
    let is_over = || !stop.is_active() || stop.begun.load(Ordering::Acquire) != begun;
    let killed = process.stop_wait.wait_until(Sleep::Killable, None, || is_over().then_some(())).is_err();
    if killed {
        let _table = TABLE.lock();
        if !is_over() {
            stop.halted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Notifies the parent once no thread runs any more.
fn check_complete(table: &Table, process: &Process) {
    let stop = &process.stop;
    let all = stop.halted.load(Ordering::Relaxed) >= table.family(process).thread_count;
    if stop.is_active() && all && !stop.complete.swap(true, Ordering::Relaxed) {
        let signal = stop.signal.load(Ordering::Relaxed);
        notify_parent(table, process, cld::STOPPED, signal, signal << 8 | 0x7f);
    }
}

/// A thread has left a process with other threads, which may now all have halted. The caller holds the table.
pub fn thread_left(table: &Table, process: &Process) {
    check_complete(table, process);
}

/// A continuation has come. The caller holds the table.
pub fn end(table: &Table, process: &Process) {
    let stop = &process.stop;
    stop.ended.fetch_add(1, Ordering::AcqRel);
    if stop.active.swap(false, Ordering::AcqRel) {
        process.stop_wait.wake_all();
        if stop.complete.load(Ordering::Relaxed) {
            notify_parent(table, process, cld::CONTINUED, sig::CONT, CONTINUED);
        }
    }
}

/// The process ends: threads no longer halt. The caller holds the table.
pub fn cancel(process: &Process) {
    process.stop.active.store(false, Ordering::Release);
    process.stop_wait.wake_all();
}

/// Notifies the parent that a child was stopped or continued.
fn notify_parent(table: &Table, process: &Process, code: i32, signal: u32, status: u32) {
    process.stop.change.store(status, Ordering::Relaxed);
    table.tell(process, if code == cld::STOPPED { News::Stopped } else { News::Continued });
    let Some(parent) = table.parent(process) else { return };
    let flags = parent.actions.lock().get(sig::CHLD).flags;
    if flags & sa::NOCLDSTOP == 0 {
        let times = exit::ticks(process.whole.time.spent());
        let info = Info::of_child(sig::CHLD, code, process.pid, process.uid(), signal, times);
        signal::send_to_process(table, parent, &info);
    }
    parent.child_wait.wake_all();
}
