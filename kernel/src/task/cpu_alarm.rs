//! What happens when a process or a thread has used a certain amount of CPU time: timers of `timer_create` on such clocks, `ITIMER_VIRTUAL`,
//! `ITIMER_PROF` and `RLIMIT_CPU`.
//!
//! Time is not measured as it passes but [charged](super::cputime), so expirations are looked for where a slice ends, every 4 ms that
//! a thread runs, as Linux does in its tick. If there may be one, the thread is given [`work`] to do
//! before it returns to its program, and there it has interrupts enabled. A process without any of these has no [`Alarms`], and pays
//! for a look at a pointer in each slice.
//!
//! Lock order: the limits of a process ([`Rank::Process`]), the state of a timer ([`Rank::Object`]), the state here ([`Rank::Timers`]).

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use intrusive_collections::{RBTree, UnsafeRef};
use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_abi::layout::{Rlimit, rlimit};
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::cputime::Spent;
use super::entity::{Entity, work};
use super::pending::Info;
use super::point::resched_point;
use super::posix_timer::{ByCpuTime, Timer};
use super::process::{Process, TABLE};
use super::thread::{self, current};
use super::wait::Sleep;
use super::{sched, signal};
use crate::vm::{Cpu, SpinLock};

const NS: u64 = 1_000_000_000;

const PARTS: [Part; 2] = [Part::Total, Part::User];

/// Which part of CPU time a clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Time in the program.
    User,
    /// And in the kernel for it.
    Total,
}

impl Part {
    /// This part.
    pub fn of(self, spent: Spent) -> u64 {
        match self {
            Part::User => spent.user,
            Part::Total => spent.total(),
        }
    }

    /// The timer of `setitimer` and its signal.
    fn signal(self) -> u32 {
        match self {
            Part::User => sig::VTALRM,
            Part::Total => sig::PROF,
        }
    }
}

/// A timer of `setitimer`, in nanoseconds of CPU time.
#[derive(Clone, Copy, Default)]
struct Interval {
    /// 0 if it does not run.
    at: u64,
    /// 0 for once.
    interval: u64,
}

impl Interval {
    /// Whether it has expired; then it goes on.
    fn expire(&mut self, now: u64) -> bool {
        let is_due = self.at != 0 && self.at <= now;
        if is_due {
            self.at = if self.interval == 0 { 0 } else { self.at.saturating_add(self.interval) };
        }
        is_due
    }
}

struct State {
    /// Timers by total time, and by time in the program.
    total: RBTree<ByCpuTime>,
    user: RBTree<ByCpuTime>,
    profile: Interval,
    virt: Interval,
    /// The total time at which a limit is to be looked at.
    limit: u64,
    /// The owner ends: there will be no more timers.
    is_closed: bool,
}

// SAFETY: links are touched under the lock that this lives in, and a timer leaves before it goes.
unsafe impl Send for State {}

impl State {
    fn tree(&mut self, part: Part) -> &mut RBTree<ByCpuTime> {
        match part {
            Part::User => &mut self.user,
            Part::Total => &mut self.total,
        }
    }

    /// A timer that is due, out of its tree.
    fn pop_due(&mut self, part: Part, now: u64) -> Option<KArc<Timer>> {
        let mut first = self.tree(part).front_mut();
        first.get().filter(|timer| timer.cpu_time() <= now)?;
        let timer = first.remove()?;
        // SAFETY: whoever owns the timer takes it out under this lock before the last count goes.
        unsafe { KArc::upgrade(UnsafeRef::into_raw(timer)) }
    }

    /// The total time up to which nothing happens. Time in the program passes no faster, but what of the total it is, is not known
    /// beforehand: it is looked at in every slice.
    fn due(&self) -> u64 {
        if self.virt.at != 0 || !self.user.is_empty() {
            return 0;
        }
        let first = self.total.front().get().map_or(u64::MAX, Timer::cpu_time);
        let profile = if self.profile.at == 0 { u64::MAX } else { self.profile.at };
        first.min(profile).min(self.limit)
    }
}

/// What waits for a process's or a thread's CPU time.
pub struct Alarms {
    /// [`State::due`], for a look without the lock.
    due: AtomicU64,
    state: SpinLock<State>,
}

/// The alarms of a process or a thread, made when there are to be some.
pub struct Slot(AtomicPtr<Alarms>);

impl Slot {
    /// None.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    /// For a new process, with limits that it inherits.
    pub fn with_limit(limit: Rlimit) -> Result<Self, Errno> {
        let slot = Self::new();
        let due = due_of(limit);
        if due != u64::MAX {
            slot.get_or_make()?.change(|state| state.limit = due);
        }
        Ok(slot)
    }

    /// The alarms, if there are any.
    #[inline]
    pub fn get(&self) -> Option<&Alarms> {
        // SAFETY: once they are there they stay until this is dropped.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Whether they are these.
    pub fn is(&self, alarms: &KArc<Alarms>) -> bool {
        core::ptr::eq(self.0.load(Ordering::Acquire), KArc::as_ptr(alarms))
    }

    /// An owner of the alarms, which are made if there are none.
    pub fn get_or_make(&self) -> Result<KArc<Alarms>, Errno> {
        if self.get().is_none() {
            return self.get_or_put(Alarms::new()?);
        }
        self.own()
    }

    /// An owner of the alarms, which are `new` if there were none. For callers that hold a lock.
    pub fn get_or_put(&self, new: KArc<Alarms>) -> Result<KArc<Alarms>, Errno> {
        let (none, new) = (core::ptr::null_mut(), KArc::into_raw(new).cast_mut());
        if self.0.compare_exchange(none, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: `into_raw` returned it, and it was not stored.
            drop(unsafe { KArc::from_raw(new) });
        }
        self.own()
    }

    fn own(&self) -> Result<KArc<Alarms>, Errno> {
        // SAFETY: it is there, and this owns a count of it.
        unsafe { KArc::upgrade(self.0.load(Ordering::Acquire)) }.ok_or(Errno::ENOMEM)
    }

    /// Whether something may be due at this total time.
    #[inline]
    fn is_due(&self, spent: impl FnOnce() -> Spent) -> bool {
        self.get().is_some_and(|alarms| alarms.due.load(Ordering::Relaxed) <= spent().total())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let alarms = *self.0.get_mut();
        if !alarms.is_null() {
            // SAFETY: `get_or_make` stored it with a count, dropped here.
            drop(unsafe { KArc::from_raw(alarms) });
        }
    }
}

impl Alarms {
    /// Nothing waits.
    pub fn new() -> Result<KArc<Self>, Errno> {
        let state = State {
            total: RBTree::new(ByCpuTime::NEW),
            user: RBTree::new(ByCpuTime::NEW),
            profile: Interval::default(),
            virt: Interval::default(),
            limit: u64::MAX,
            is_closed: false,
        };
        let state = SpinLock::new(Cpu, Rank::Timers, state);
        Ok(KArc::try_new(Self { due: AtomicU64::new(u64::MAX), state })?)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state);
        self.due.store(state.due(), Ordering::Relaxed);
        result
    }

    /// Enters a timer, which is in no tree.
    ///
    /// # Safety
    /// It is taken out ([`Alarms::leave`]) before its last owner goes.
    pub unsafe fn enter(&self, timer: &Timer, part: Part) {
        self.change(|state| {
            if !state.is_closed {
                // SAFETY: the caller's promise.
                state.tree(part).insert(unsafe { UnsafeRef::from_raw(timer) });
            }
        });
    }

    /// Takes a timer out, if it is in.
    pub fn leave(&self, timer: &Timer, part: Part) {
        self.change(|state| {
            if timer.cpu_link.is_linked() {
                // SAFETY: a linked timer is in its part's tree.
                unsafe { state.tree(part).cursor_mut_from_ptr(timer).remove() };
            }
        });
    }

    /// The owner ends. The caller holds no lock.
    fn close(&self) {
        const AT_ONCE: usize = 32;
        loop {
            let is_empty = self.change(|state| {
                state.is_closed = true;
                (state.virt, state.profile, state.limit) = (Interval::default(), Interval::default(), u64::MAX);
                for part in PARTS {
                    for _ in 0..AT_ONCE {
                        state.tree(part).front_mut().remove();
                    }
                }
                state.total.is_empty() && state.user.is_empty()
            });
            if is_empty {
                return;
            }
            let _ = resched_point(Sleep::Killable);
        }
    }

    /// Rings timers that are due, a few at once. The caller holds no lock.
    fn ring(&self, part: Part, spent: impl Fn() -> Spent) {
        const AT_ONCE: usize = 8;
        loop {
            let now = part.of(spent());
            let due: [Option<KArc<Timer>>; AT_ONCE] =
                self.change(|state| core::array::from_fn(|_| state.pop_due(part, now)));
            let is_last = due[AT_ONCE - 1].is_none();
            due.into_iter().flatten().for_each(|timer| timer.ring_by_cpu_time(now));
            if is_last || resched_point(Sleep::Killable).is_err() {
                return;
            }
        }
    }
}

/// A thread that has just been charged, on its CPU, calls [`expire`] before it returns to its program, if something is due.
#[unsafe(no_mangle)]
fn thread_was_charged(entity: &Entity) {
    let thread = thread::of(entity);
    let Some(process) = &thread.process else { return };
    if process.cpu_alarms.is_due(|| process.whole.time.spent()) || thread.cpu_alarms.is_due(|| thread.time.spent()) {
        thread.set_work(work::CPU_TIME);
    }
}

/// Looks at what waits for the CPU time of the calling thread and its process. On the way to its program.
#[cold]
pub fn expire() {
    let thread = current();
    let process = thread.process();
    if let Some(alarms) = thread.cpu_alarms.get() {
        PARTS.iter().for_each(|part| alarms.ring(*part, || thread.time.spent()));
    }
    let Some(alarms) = process.cpu_alarms.get() else { return };
    PARTS.iter().for_each(|part| alarms.ring(*part, || process.whole.time.spent()));
    let now = process.whole.time.spent();
    let (has_profile, has_virt, has_limit) = alarms
        .change(|state| (state.profile.expire(now.total()), state.virt.expire(now.user), state.limit <= now.total()));
    for (is_due, part) in [(has_profile, Part::Total), (has_virt, Part::User)] {
        if is_due {
            signal::send_to_process(&TABLE.lock(), process, &Info::of_kernel(part.signal()));
        }
    }
    if has_limit {
        exceed(process, alarms, now.total());
    }
}

/// A process has used the CPU time of a limit: SIGXCPU for the soft one, which goes up by a second, SIGKILL for the hard one.
fn exceed(process: &Process, alarms: &Alarms, now: u64) {
    let signal = {
        let mut limits = process.limits.lock();
        let limit = &mut limits[rlimit::CPU];
        let has_reached = |seconds: u64| seconds != rlimit::INFINITY && now >= seconds.saturating_mul(NS);
        let signal = if has_reached(limit.max) {
            Some(sig::KILL)
        } else if has_reached(limit.cur) {
            limit.cur += 1;
            Some(sig::XCPU)
        } else {
            None
        };
        let due = due_of(*limit);
        alarms.change(|state| state.limit = due);
        signal
    };
    if let Some(signal) = signal {
        signal::send_to_process(&TABLE.lock(), process, &Info::of_kernel(signal));
    }
}

/// The total time at which a limit is to be looked at.
fn due_of(limit: Rlimit) -> u64 {
    limit.cur.min(limit.max).saturating_mul(NS)
}

/// A process's limit of CPU time is about to change: makes what it needs. ENOMEM.
pub fn prepare_limit(process: &Process, limit: Rlimit) -> Result<(), Errno> {
    if due_of(limit) == u64::MAX { Ok(()) } else { process.cpu_alarms.get_or_make().map(|_| ()) }
}

/// It has changed. The caller holds the limits.
pub fn apply_limit(process: &Process, limit: Rlimit) {
    if let Some(alarms) = process.cpu_alarms.get() {
        alarms.change(|state| state.limit = if state.is_closed { u64::MAX } else { due_of(limit) });
    }
}

/// The thread or the process that the alarms are of ends. The caller holds no lock.
pub fn ends(slot: &Slot) {
    if let Some(alarms) = slot.get() {
        alarms.close();
    }
}

/// CPU time of the calling process.
fn own_time() -> Spent {
    sched::charge_current();
    current().process().whole.time.spent()
}

fn left(state: Interval, now: u64) -> (u64, u64) {
    const LEAST: u64 = 1000;
    (if state.at == 0 { 0 } else { state.at.saturating_sub(now).max(LEAST) }, state.interval)
}

/// `getitimer` of a timer by CPU time: what is left, and the interval.
pub fn interval(part: Part) -> (u64, u64) {
    let now = part.of(own_time());
    let Some(alarms) = current().process().cpu_alarms.get() else { return (0, 0) };
    let state = alarms.state.lock();
    left(if part == Part::User { state.virt } else { state.profile }, now)
}

/// `setitimer`: a signal after `value` nanoseconds, then every `interval`; a `value` of 0 stops it. Returns the old values. ENOMEM.
pub fn set_interval(part: Part, value: u64, interval: u64) -> Result<(u64, u64), Errno> {
    let process = current().process();
    if value == 0 && process.cpu_alarms.get().is_none() {
        return Ok((0, 0));
    }
    let alarms = process.cpu_alarms.get_or_make()?;
    let now = part.of(own_time());
    let new = if value == 0 { Interval::default() } else { Interval { at: now.saturating_add(value), interval } };
    let old = alarms.change(|state| {
        let place = if part == Part::User { &mut state.virt } else { &mut state.profile };
        core::mem::replace(place, new)
    });
    Ok(left(old, now))
}
