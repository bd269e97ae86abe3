//! Signals: sending, blocking, and delivery when a thread returns to user mode.
//!
//! A sender holds the lock of the process table; sent signals wait in the queues of [`pending`](super::pending). A
//! signal that will end the process without a core dump begins the end when it is sent, as KILL does: so it also ends
//! sleeps and long work that only a kill ends (Linux: `complete_signal`). The
//! lock order is the table, a process's actions and queue ([`Rank::Process`]), then a table of actions and a thread's
//! signals ([`Rank::Descriptors`]).

use core::ops::ControlFlow;
use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::{si, sig};
use quire_abi::layout::{rlimit, sa};
use quire_mm::UserAddr;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

pub use super::action::{Actions, Disposition, HandlerAction, IGNORE};
use super::clock::Until;
use super::entity::{Entity, state, work};
use super::expired::{Expired, Place};
pub use super::pending::Info;
use super::pending::{Payer, Queue, Records};
use super::point::{ENTRIES, resched_point};
use super::process::{EXITING, Process};
pub use super::signo::{STOPS, UNBLOCKABLE, bit};
use super::table::{AT_ONCE, TABLE, Table};
use super::thread::{self, Thread, current};
use super::wait::Sleep;
use super::walk::{self, Among};
use super::{itimer, posix_timer, sched, signal_thread, stop};
use crate::vm::{Cpu, SpinLock};

/// Processes that are sent a signal under one hold of the table's lock.
const SENT_AT_ONCE: usize = 4;

/// The alternate stack for handlers, set by `sigaltstack`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AltStack {
    /// Its lowest address.
    pub base: u64,
    /// Its length; 0 for none.
    pub size: u64,
    /// It is disabled while a handler runs on it: `SS_AUTODISARM`.
    pub disarms: bool,
}

impl AltStack {
    /// Whether a stack pointer is on it. Stacks grow down, so the end belongs to it and the base does not.
    pub fn holds(&self, sp: u64) -> bool {
        !self.disarms && sp > self.base && sp - self.base <= self.size
    }
}

/// How `restart_syscall` resumes a sleep that a signal without a handler has interrupted: until the same deadline.
#[derive(Clone, Copy, Debug)]
pub enum Resume {
    /// Not at all: the call has waited for a part of its time, which would begin anew.
    Never,
    /// `nanosleep`, `clock_nanosleep` for a span.
    Sleep {
        /// Nanoseconds since power-on.
        deadline: u64,
        /// Where to store the remaining time.
        rest: Option<UserAddr>,
    },
    /// `FUTEX_WAIT` and `FUTEX_WAIT_BITSET` with a time-out.
    Futex {
        /// The word.
        word: UserAddr,
        /// What it should hold.
        expected: u32,
        /// The bit set of wake-ups to accept.
        bits: u32,
        /// Until when.
        until: Until,
        /// For this process alone.
        private: bool,
    },
}

/// A thread's signals.
pub struct ThreadSignals {
    /// Blocked.
    pub blocked: u64,
    /// The mask to restore after the handler that ended `rt_sigsuspend` or `ppoll`.
    pub restore: Option<u64>,
    /// Blocked signals that `rt_sigtimedwait` waits for: they wake this thread, and it accepts them whatever their action.
    pub awaited: u64,
    /// The alternate stack.
    pub alt_stack: AltStack,
    /// Where the last fault was.
    pub fault_address: u64,
    /// For this thread alone.
    pub pending: Queue,
    /// The interrupted sleep, to resume.
    pub resume: Option<Resume>,
    /// Stop signals and continuations of the process that what is pending has outlived.
    seen: (u32, u32),
}

impl ThreadSignals {
    /// Drops what signals to the process have undone: a continuation its pending stops, a stop its pending continuation.
    /// Whoever looks at what is pending calls this first, so that sender need not go through all threads.
    #[inline]
    pub fn drop_undone(&mut self, process: &Process) {
        if self.pending.set() & (STOPS | bit(sig::CONT)) != 0 {
            self.catch_up(process);
        }
    }

    #[cold]
    fn catch_up(&mut self, process: &Process) {
        let (stops, continuations) = process.stop.sent();
        // (These are pending once at most, so their records may be dropped here.)
        if self.seen.0 != stops {
            drop(self.pending.remove(bit(sig::CONT)));
        }
        if self.seen.1 != continuations {
            drop(self.pending.remove(STOPS));
        }
        self.seen = (stops, continuations);
    }

    /// None blocked, none pending.
    pub fn lock() -> SpinLock<Self> {
        let none = Self {
            blocked: 0,
            restore: None,
            awaited: 0,
            alt_stack: AltStack::default(),
            fault_address: 0,
            pending: Queue::new(),
            resume: None,
            seen: (0, 0),
        };
        SpinLock::new(Cpu, Rank::Descriptors, none)
    }
}

/// The present effect of `signal` on `process`.
pub fn disposition(process: &Process, signal: u32) -> Disposition {
    Disposition::of(signal, process.actions.lock().get(signal))
}

/// Whether the process is init and is protected from a signal.
fn is_shielded(process: &Process, signal: u32) -> bool {
    process.pid == 1 && !matches!(disposition(process, signal), Disposition::Handle(_))
}

/// Sends a signal to a process. The caller holds the table's lock. False if the signal's record must be kept and cannot
/// be.
pub fn send_to_process(table: &Table, process: &Process, info: &Info) -> bool {
    let signal = info.signal;
    if table.family(process).is_zombie || !accepts(table, process, signal) {
        return true;
    }
    if is_ignored(process, signal) && is_unwanted_by_all(table, process, signal) {
        return true;
    }
    if !process.pending.add(info, payer(process)) {
        return false;
    }
    process.signal_source.notify();
    // One thread is enough that does not block it. All are marked, so that the first to return to user mode takes it.
    signal_thread::mark_threads(table, process);
    true
}

/// Sends a signal to one thread. The caller holds the table's lock. Returns as [`send_to_process`] does.
pub fn send_to_thread(table: &Table, thread: &Thread, info: &Info) -> bool {
    let process = thread.process();
    let signal = info.signal;
    if !accepts(table, process, signal) || (is_ignored(process, signal) && !holds_back(thread, signal)) {
        return true;
    }
    let payer = payer(process);
    let (added, blocked) = {
        let mut signals = thread.signals.lock();
        if bit(signal) & (STOPS | bit(sig::CONT)) != 0 {
            signals.catch_up(process);
        }
        (signals.pending.add(info, payer), signals.blocked & bit(signal) != 0)
    };
    process.signal_source.notify();
    if added && !blocked {
        notify(table, thread, process, bit(signal));
    }
    added
}

/// What has become of the signal of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is pending from now on.
    Sent,
    /// It was pending already.
    Pending,
    /// It has no effect.
    Ignored,
    /// Whom it was for ends, or has ended, or is init and is protected from it.
    Gone,
}

/// Sends the signal of an expired timer to a process, or to one of its threads. The caller holds the table's lock.
///
/// # Safety
/// `place` neither moves nor goes before it is taken out of `expired`.
pub unsafe fn post(
    table: &Table,
    process: &Process,
    thread: Option<u32>,
    expired: &KArc<Expired>,
    place: &Place,
) -> Posted {
    let signal = place.signal;
    let thread = match thread {
        None => None,
        Some(tid) => match table.thread(tid) {
            Some(thread) => Some(thread),
            None => return Posted::Gone,
        },
    };
    if table.family(process).is_zombie || !accepts(table, process, signal) {
        return Posted::Gone;
    }
    let is_unwanted = || match thread {
        Some(thread) => !holds_back(thread, signal),
        None => is_unwanted_by_all(table, process, signal),
    };
    if is_ignored(process, signal) && is_unwanted() {
        return Posted::Ignored;
    }
    let mut is_deliverable = true;
    // SAFETY: the caller's promise.
    let add = |queue: &mut Queue| unsafe { queue.add_expired(expired, place) };
    let added = match thread {
        None => process.pending.change(add),
        Some(thread) => {
            let mut signals = thread.signals.lock();
            if bit(signal) & (STOPS | bit(sig::CONT)) != 0 {
                signals.catch_up(process);
            }
            is_deliverable = signals.blocked & bit(signal) == 0;
            add(&mut signals.pending)
        }
    };
    match added {
        // Another thread has the number now.
        None => return Posted::Gone,
        Some(false) => return Posted::Pending,
        Some(true) => {}
    }
    process.signal_source.notify();
    match thread {
        None => signal_thread::mark_threads(table, process),
        Some(thread) if is_deliverable => notify(table, thread, process, bit(signal)),
        Some(_) => {}
    }
    Posted::Sent
}

/// Sends the calling thread a signal that its own call has caused, as if it were the sender.
pub fn send_own(signal: u32) {
    let thread = current();
    let process = thread.process();
    let info = Info::of_user(signal, si::USER, process.pid, process.uid());
    send_to_thread(&TABLE.lock(), thread, &info);
}

/// Who pays for the records of signals to a process.
fn payer(process: &Process) -> Payer {
    Payer { user: process.uid(), limit: process.limit(rlimit::SIGPENDING) }
}

/// Sends to all members of a group; returns how many there were. The caller holds no lock.
pub fn send_to_group(pgid: u32, info: &Info) -> usize {
    send_to_many(Among::Group(pgid), info, |_, _| true)
}

/// Sends to all live processes of `among` that `is_meant` selects; returns how many. The caller holds no lock.
pub fn send_to_many(among: Among, info: &Info, mut is_meant: impl FnMut(&Table, &Process) -> bool) -> usize {
    let mut count = 0;
    walk::each_process::<()>(among, SENT_AT_ONCE, |table, process| {
        if !table.family(process).is_zombie && is_meant(table, process) {
            send_or_ask(table, process, info);
            count += 1;
        }
        ControlFlow::Continue(())
    });
    count
}

/// Sends a signal; signal 0 does nothing.
pub fn send_or_ask(table: &Table, process: &Process, info: &Info) -> bool {
    info.signal == 0 || send_to_process(table, process, info)
}

/// Whether a signal is to be queued: KILL acts at once, init is protected from signals that it does not handle, and a
/// process that is ending gets none any more. A stop signal removes pending continuations, and a continuation removes
/// pending stops and resumes a stopped process at once.
fn accepts(table: &Table, process: &Process, signal: u32) -> bool {
    if process.exit_status().is_some() || is_shielded(process, signal) {
        return false;
    }
    match signal {
        sig::KILL => begin_exit(table, process, sig::KILL),
        sig::CONT => {
            drop(process.pending.remove(STOPS));
            stop::end(table, process);
        }
        _ if bit(signal) & STOPS != 0 => {
            drop(process.pending.remove(bit(sig::CONT)));
            process.stop.note_sent();
        }
        _ => {}
    }
    signal != sig::KILL
}

/// Drops signals of a process and of all its threads. The caller holds no lock.
pub fn remove_everywhere(process: &Process, set: u64) {
    release(process.pending.remove(set));
    let mut from = 0;
    loop {
        let mut records = Records::none();
        let next = {
            let table = TABLE.lock();
            let mut threads = table.family(process).threads_from(from);
            for thread in threads.by_ref().take(ENTRIES) {
                records.append(thread.signals.lock().pending.remove(set));
            }
            threads.next().map(Thread::tid)
        };
        release(records);
        let Some(next) = next else { return };
        from = next;
        let _ = resched_point(Sleep::Killable);
    }
}

/// Drops records, of which there may be many. The caller holds no spin lock.
pub fn release(mut records: Records) {
    while records.drop_some(ENTRIES) {
        let _ = resched_point(Sleep::Killable);
    }
}

/// Whether a thread blocks a signal or waits for it: then it is kept even if it would be ignored.
fn holds_back(thread: &Thread, signal: u32) -> bool {
    let signals = thread.signals.lock();
    (signals.blocked | signals.awaited) & bit(signal) != 0
}

/// Whether no thread of a process holds a signal back. Linux asks the first thread alone.
fn is_unwanted_by_all(table: &Table, process: &Process, signal: u32) -> bool {
    !table.family(process).threads_from(0).take(AT_ONCE).any(|thread| holds_back(thread, signal))
}

/// Makes a thread check its signals and its process's stop, if there is one for it. The caller holds the table's lock.
pub fn mark(table: &Table, thread: &Thread, process: &Process) {
    let ready = deliverable(thread, process);
    if ready != 0 || is_to_halt(process) {
        notify(table, thread, process, ready);
    }
}

/// Makes a thread check signals that it does not block, or a stop. If one of the signals will end the process, the end
/// begins here.
fn notify(table: &Table, thread: &Thread, process: &Process, ready: u64) {
    match fatal_among(thread, process, ready) {
        Some(signal) => begin_exit(table, process, signal),
        None => nudge(thread),
    }
}

/// A signal of the set, which the thread does not block, that will end the process without a core dump. A stopped
/// process takes no signals, a thread that leaves takes none either, and init ends by none that it does not handle.
fn fatal_among(thread: &Thread, process: &Process, ready: u64) -> Option<u32> {
    let fatal = ready & process.actions.lock().fatal();
    if fatal == 0 || process.stop.is_active() || process.pid == 1 || thread.is_leaving.load(Ordering::Relaxed) {
        return None;
    }
    choose(fatal & !thread.signals.lock().awaited)
}

/// Makes a thread check its signals.
pub fn nudge(thread: &Thread) {
    thread.set_work(work::SIGNAL);
    if !sched::wake_from(thread, state::SLEEPING) {
        sched::kick(thread);
    }
}

/// Ends a process: all its threads leave at their next return to user mode, and sleepers are woken, the first few at
/// once and the others by threads that leave. The first status is kept. The caller holds the table's lock.
pub fn begin_exit(table: &Table, process: &Process, status: u32) {
    let first =
        process.exiting.compare_exchange(0, EXITING | u64::from(status), Ordering::AcqRel, Ordering::Acquire).is_ok();
    if first {
        stop::cancel(process);
        table.rouse_all(process);
    }
}

/// The calling thread ends its process; if exec in another thread is already ending this one, it ends alone.
pub fn end_process(status: u32) {
    let thread = current();
    let process = thread.process();
    let table = TABLE.lock();
    if !is_doomed(thread, process) {
        begin_exit(&table, process, status);
    }
}

/// Makes a thread return to user mode, whatever it does now.
pub fn rouse(thread: &Thread) {
    thread.set_work(work::SIGNAL);
    if !sched::wake(thread) {
        sched::kick(thread);
    }
}

/// exec: all other threads of the survivor's process end. If two threads call this, the second finds that the first has
/// doomed it, and changes nothing: EINTR. The caller holds the table's lock.
pub fn doom_others(table: &Table, process: &Process, survivor: &Thread) -> Result<(), Errno> {
    if is_doomed(survivor, process) {
        return Err(Errno::EINTR);
    }
    if process.survivor.swap(survivor.tid(), Ordering::AcqRel) == 0 {
        table.rouse_all(process);
    }
    Ok(())
}

/// Whether exec in another thread of its process ends this one.
#[inline]
pub fn is_doomed(thread: &Thread, process: &Process) -> bool {
    let survivor = process.survivor.load(Ordering::Acquire);
    survivor != 0 && survivor != thread.tid()
}

/// Whether a thread's sleep, which it has announced, should end.
pub fn interrupts(thread: &Thread, sleep: Sleep) -> bool {
    let Some(process) = thread.process.as_ref().filter(|_| sleep != Sleep::Deaf) else { return false };
    if process.exiting.load(Ordering::Acquire) != 0 || is_doomed(thread, process) {
        // Those that end it reach this thread later, perhaps: it does not return to its program meanwhile.
        thread.set_work(work::SIGNAL);
        return true;
    }
    // A signal or a stop that the thread has not looked at has left it work to do.
    sleep == Sleep::Interruptible
        && thread.has_work(work::SIGNAL)
        && (is_to_halt(process) || deliverable(thread, process) != 0)
}

/// Whether a process is stopped, or to be frozen: its threads halt before they return to their program.
fn is_to_halt(process: &Process) -> bool {
    process.stop.is_active() || process.freezer.is_active()
}

#[unsafe(no_mangle)]
fn thread_is_interrupted(entity: &Entity, sleep: Sleep) -> bool {
    interrupts(thread::of(entity), sleep)
}

/// Whether there may be something for a new thread of a process to do before its program: a signal, a stop or an end
/// that came before it could be marked. The caller holds the table's lock, and has added the thread.
pub fn awaits(process: &Process) -> bool {
    let ends = process.exiting.load(Ordering::Acquire) != 0 || process.survivor.load(Ordering::Acquire) != 0;
    ends || is_to_halt(process) || process.pending.get() != 0
}

/// Pending signals that a thread does not block.
pub fn deliverable(thread: &Thread, process: &Process) -> u64 {
    let mut signals = thread.signals.lock();
    signals.drop_undone(process);
    (signals.pending.set() | process.pending.get()) & !signals.blocked
}

/// A thread's pending signals and its process's, blocked or not.
pub fn pending(thread: &Thread, process: &Process) -> u64 {
    let mut signals = thread.signals.lock();
    signals.drop_undone(process);
    signals.pending.set() | process.pending.get()
}

/// Takes a deliverable signal: the thread's own before the process's, then those of faults, then the lowest.
pub fn take(thread: &Thread, process: &Process) -> Option<Info> {
    of_living_timer(process, || take_any(thread, process))
}

/// Takes signals until one is of no timer, or of one that has not gone meanwhile: the timer hears of it.
fn of_living_timer(process: &Process, mut take: impl FnMut() -> Option<Info>) -> Option<Info> {
    loop {
        let mut info = take()?;
        if !info.is_timer || posix_timer::deliver(process, &mut info) {
            return Some(info);
        }
    }
}

fn take_any(thread: &Thread, process: &Process) -> Option<Info> {
    let mask = {
        let mut signals = thread.signals.lock();
        signals.drop_undone(process);
        let mask = !signals.blocked;
        if let Some(signal) = choose(signals.pending.set() & mask) {
            return Some(signals.pending.take(signal));
        }
        mask
    };
    take_of_process(process, mask)
}

/// Takes a signal of a set, blocked or not.
pub fn take_of(thread: &Thread, process: &Process, set: u64) -> Option<Info> {
    of_living_timer(process, || take_of_both(thread, process, set))
}

fn take_of_both(thread: &Thread, process: &Process, set: u64) -> Option<Info> {
    {
        let mut signals = thread.signals.lock();
        signals.drop_undone(process);
        if let Some(signal) = choose(signals.pending.set() & set) {
            return Some(signals.pending.take(signal));
        }
    }
    take_of_process(process, set)
}

fn take_of_process(process: &Process, set: u64) -> Option<Info> {
    while let Some(signal) = choose(process.pending.get() & set) {
        // Another thread may take it first.
        if let Some(info) = process.pending.take(signal) {
            if signal == sig::ALRM {
                itimer::restart(process);
            }
            return Some(info);
        }
    }
    None
}

fn choose(set: u64) -> Option<u32> {
    const FAULTS: u64 = bit(sig::SEGV) | bit(sig::BUS) | bit(sig::ILL) | bit(sig::TRAP) | bit(sig::FPE);
    let choice = if set & FAULTS != 0 { set & FAULTS } else { set };
    (choice != 0).then(|| choice.trailing_zeros() + 1)
}

/// Delivers the signal of a fault that the thread itself caused. If the signal is blocked or ignored, the process ends.
pub fn force(thread: &Thread, info: Info) {
    let process = thread.process();
    let blocked = thread.signals.lock().blocked & bit(info.signal) != 0;
    if blocked || !matches!(disposition(process, info.signal), Disposition::Handle(_)) {
        reset_action(process, info.signal);
        thread.signals.lock().blocked &= !bit(info.signal);
    }
    let payer = payer(process);
    let mut signals = thread.signals.lock();
    signals.fault_address = info.fields[0];
    // Even without room for the record, the signal is pending.
    signals.pending.add(&info, payer);
    drop(signals);
    thread.set_work(work::SIGNAL);
}

/// Resets a signal to its default action; the flags stay, as on Linux.
pub fn reset_action(process: &Process, signal: u32) {
    process.actions.lock().reset(signal);
}

/// Whether an interrupted call is to be restarted after the handler (SA_RESTART).
pub fn restarts(action: &HandlerAction) -> bool {
    action.flags & sa::RESTART != 0
}

/// Whether a signal has no effect on a process with its present actions.
pub fn is_ignored(process: &Process, signal: u32) -> bool {
    process.actions.lock().ignores(signal)
}
