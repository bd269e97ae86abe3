//! Signals: sending, blocking, and what they do to a thread on its way to user mode.
//!
//! A pending set is one atomic word; what came with a signal is not kept, but for the fault that a thread caused
//! itself. The lock order is [`Rank::Process`] for actions; pending sets need no lock.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::layout::{Sigaction, sa};
use quire_abi::{Errno, flags::sig};
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::process::{EXITING, Process, Table};
use super::thread::{Thread, state, work};
use super::wait::Sleep;
use super::{sched, walk};
use crate::arch::speculation;
use crate::vm::{Cpu, SpinLock};

/// The bit of a signal in a set.
pub const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// Signals that nothing blocks, catches or ignores.
pub const UNBLOCKABLE: u64 = bit(sig::KILL) | bit(sig::STOP);

const STOPS: u64 = bit(sig::STOP) | bit(sig::TSTP) | bit(sig::TTIN) | bit(sig::TTOU);
const IGNORED_BY_DEFAULT: u64 = bit(sig::CHLD) | bit(sig::CONT) | bit(sig::URG) | bit(sig::WINCH);

/// A set of signals that have come and were not yet taken.
pub struct Pending(AtomicU64);

impl Pending {
    /// None.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The set.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn add(&self, signal: u32) {
        self.0.fetch_or(bit(signal), Ordering::AcqRel);
    }

    /// Removes signals; answers whether any were there.
    pub fn remove(&self, set: u64) -> bool {
        self.0.fetch_and(!set, Ordering::AcqRel) & set != 0
    }
}

/// What a thread's own fault says beside the signal.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultInfo {
    /// The signal it is of; 0 for none.
    pub signal: u32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub addr: u64,
}

/// A thread's signals.
pub struct ThreadSignals {
    /// Blocked.
    pub blocked: u64,
    /// What to block again once a handler has run that ended `rt_sigsuspend` or `ppoll`.
    pub restore: Option<u64>,
    /// The alternate stack: base, length.
    pub alt_stack: (u64, u64),
    /// The last fault.
    pub fault: FaultInfo,
    /// For this thread alone.
    pub pending: u64,
}

impl ThreadSignals {
    /// None blocked, none pending.
    pub fn lock() -> SpinLock<Self> {
        let none = Self { blocked: 0, restore: None, alt_stack: (0, 0), fault: FaultInfo::default(), pending: 0 };
        SpinLock::new(Cpu, Rank::Descriptors, none)
    }
}

/// A table of actions.
pub struct Actions(pub SpinLock<[Sigaction; sig::COUNT as usize]>);

impl Actions {
    /// All as by default.
    pub fn new() -> Self {
        Self(SpinLock::new(Cpu, Rank::Descriptors, [Sigaction::default(); sig::COUNT as usize]))
    }

    /// A copy.
    pub fn copy(&self) -> Result<KArc<Self>, Errno> {
        let actions = *self.0.lock();
        Ok(KArc::try_new(Self(SpinLock::new(Cpu, Rank::Descriptors, actions)))?)
    }

    /// exec: caught signals get their default action, ignored ones stay ignored.
    pub fn copy_for_exec(&self) -> Result<KArc<Self>, Errno> {
        let copy = self.copy()?;
        for action in copy.0.lock().iter_mut() {
            if action.handler != IGNORE {
                *action = Sigaction::default();
            }
        }
        Ok(copy)
    }
}

/// `SIG_DFL`.
pub const DEFAULT: u64 = 0;
/// `SIG_IGN`.
pub const IGNORE: u64 = 1;

/// What a signal will do to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing.
    Ignore,
    /// Ends it.
    Terminate,
    /// Stops it.
    Stop,
    /// Its handler runs.
    Handle(HandlerAction),
}

/// A handler, with what its action says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandlerAction {
    /// Where it is.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where it returns to.
    pub restorer: u64,
    /// What it blocks.
    pub mask: u64,
}

/// What `signal` would do to `process` now. init's default is to ignore: what it does not handle cannot end it.
pub fn disposition(process: &Process, signal: u32) -> Disposition {
    let actions = process.actions.lock().clone();
    // kill(2) asks with a number that the program has chosen.
    let action = speculation::get(&*actions.0.lock(), signal as usize).copied().unwrap_or_default();
    match action.handler {
        IGNORE => Disposition::Ignore,
        DEFAULT if bit(signal) & IGNORED_BY_DEFAULT != 0 => Disposition::Ignore,
        DEFAULT if bit(signal) & STOPS != 0 => Disposition::Stop,
        DEFAULT => Disposition::Terminate,
        handler => Disposition::Handle(HandlerAction {
            handler,
            flags: action.flags,
            restorer: action.restorer,
            mask: action.mask,
        }),
    }
}

/// Whether init is protected from a signal that somebody sent.
fn is_shielded(process: &Process, signal: u32) -> bool {
    process.pid == 1 && !matches!(disposition(process, signal), Disposition::Handle(_))
}

/// Sends a signal to a process. The caller holds the table.
pub fn send_to_process(table: &Table, process: &Process, signal: u32) {
    if table.family(process).is_zombie || is_shielded(process, signal) {
        return;
    }
    if signal == sig::KILL {
        begin_exit(table, process, sig::KILL);
        return;
    }
    on_arrival(process, signal);
    if matches!(disposition(process, signal), Disposition::Ignore) && !is_blocked_somewhere(table, process, signal) {
        return;
    }
    process.pending.add(signal);
    // One thread is enough: the first that does not block it. Marking all lets whoever returns first take it.
    for thread in table.family(process).threads.iter() {
        nudge(thread, signal);
    }
}

/// Sends a signal to one thread. The caller holds the table.
pub fn send_to_thread(table: &Table, thread: &Thread, signal: u32) {
    let process = thread.process();
    if is_shielded(process, signal) {
        return;
    }
    if signal == sig::KILL {
        begin_exit(table, process, sig::KILL);
        return;
    }
    on_arrival(process, signal);
    thread.signals.lock().pending |= bit(signal);
    nudge(thread, signal);
}

/// Sends to all members of a group; answers how many there were. The caller holds no lock.
pub fn send_to_group(pgid: u32, signal: u32) -> usize {
    send_to_many(signal, |table, process| table.family(process).pgid == pgid)
}

/// Sends to all that `is_meant` picks of the processes that live; answers how many they were. The caller holds no lock.
pub fn send_to_many(signal: u32, mut is_meant: impl FnMut(&Table, &Process) -> bool) -> usize {
    let mut count = 0;
    walk::each_process::<()>(|table, process| {
        if !table.family(process).is_zombie && is_meant(table, process) {
            if signal != 0 {
                send_to_process(table, process, signal);
            }
            count += 1;
        }
        ControlFlow::Continue(())
    });
    count
}

/// A stop undoes a pending continuation and the other way round; a continuation starts a stopped process at once.
fn on_arrival(process: &Process, signal: u32) {
    if signal == sig::CONT {
        process.pending.remove(STOPS);
        if process.stopped.swap(false, Ordering::AcqRel) {
            process.stop_wait.wake_all();
        }
    } else if bit(signal) & STOPS != 0 {
        process.pending.remove(bit(sig::CONT));
    }
}

fn is_blocked_somewhere(table: &Table, process: &Process, signal: u32) -> bool {
    table.family(process).threads.iter().any(|t| t.signals.lock().blocked & bit(signal) != 0)
}

/// Makes a thread look at its signals.
fn nudge(thread: &Thread, signal: u32) {
    if thread.signals.lock().blocked & bit(signal) == 0 {
        thread.set_work(work::SIGNAL);
        if !sched::wake_from(thread, state::SLEEPING) {
            sched::kick(thread);
        }
    }
}

/// Ends a process: all its threads leave at their next return to user mode, and sleepers are woken, the first few at
/// once and the others by those that leave. The first status stays. The caller holds the table.
pub fn begin_exit(table: &Table, process: &Process, status: u32) {
    let first =
        process.exiting.compare_exchange(0, EXITING | u64::from(status), Ordering::AcqRel, Ordering::Acquire).is_ok();
    if first {
        process.stopped.store(false, Ordering::Release);
        process.stop_wait.wake_all();
        table.rouse_all(process);
    }
}

/// Gets a thread on its way to user mode, whatever it does now.
pub fn rouse(thread: &Thread) {
    thread.set_work(work::SIGNAL);
    if !sched::wake(thread) {
        sched::kick(thread);
    }
}

/// exec: all other threads of the current one's process end. The caller holds the table.
pub fn doom_others(table: &Table, process: &Process, survivor: &Thread) {
    for thread in table.family(process).threads.iter().filter(|t| !core::ptr::eq(*t, survivor)) {
        thread.doomed.store(true, Ordering::Release);
        rouse(thread);
    }
}

/// Whether a thread's sleep should end.
pub fn interrupts(thread: &Thread, sleep: Sleep) -> bool {
    let Some(process) = thread.process.as_ref().filter(|_| sleep != Sleep::Deaf) else { return false };
    if process.exiting.load(Ordering::Acquire) != 0 || thread.doomed.load(Ordering::Acquire) {
        return true;
    }
    sleep == Sleep::Interruptible && deliverable(thread, process) != 0
}

/// Pending signals that a thread does not block.
pub fn deliverable(thread: &Thread, process: &Process) -> u64 {
    let signals = thread.signals.lock();
    (signals.pending | process.pending.get()) & !signals.blocked
}

/// Takes the lowest deliverable signal, synchronous ones first.
pub fn take(thread: &Thread, process: &Process) -> Option<u32> {
    const FAULTS: u64 = bit(sig::SEGV) | bit(sig::BUS) | bit(sig::ILL) | bit(sig::TRAP) | bit(sig::FPE);
    let set = deliverable(thread, process);
    let choice = if set & FAULTS != 0 { set & FAULTS } else { set };
    if choice == 0 {
        return None;
    }
    let signal = choice.trailing_zeros() + 1;
    let mut signals = thread.signals.lock();
    if signals.pending & bit(signal) != 0 {
        signals.pending &= !bit(signal);
        return Some(signal);
    }
    drop(signals);
    process.pending.remove(bit(signal)).then_some(signal)
}

/// A fault that the thread itself caused: the signal is not blocked or ignored, or the process ends.
pub fn force(thread: &Thread, info: FaultInfo) {
    let process = thread.process();
    let signal = info.signal;
    let blocked = thread.signals.lock().blocked & bit(signal) != 0;
    if blocked || !matches!(disposition(process, signal), Disposition::Handle(_)) {
        let actions = process.actions.lock().clone();
        actions.0.lock()[signal as usize] = Sigaction::default();
        thread.signals.lock().blocked &= !bit(signal);
    }
    let mut signals = thread.signals.lock();
    signals.fault = info;
    signals.pending |= bit(signal);
    drop(signals);
    thread.set_work(work::SIGNAL);
}

/// Whether a handler wants a call that it interrupted to be started again.
pub fn restarts(action: &HandlerAction) -> bool {
    action.flags & sa::RESTART != 0
}

/// Whether a signal has no effect on a process, as its actions stand.
pub fn is_ignored(process: &Process, signal: u32) -> bool {
    disposition(process, signal) == Disposition::Ignore
}
