//! The timers of `timer_create`.
//!
//! A timer is an [alarm](super::alarm) that sends a signal. One with an interval is armed again when its signal is delivered, not
//! when it is sent, as on Linux: a process that does not take its signals costs no interrupts, and what has expired meanwhile is
//! its overrun. The same holds while the process ignores the signal; it is armed again when the process does so no more.
//!
//! The memory of a timer is charged to its process's user as that of a record of a pending signal is, since it is the place of one.
//!
//! Lock order: the table of processes; a process's timers, the list of the clock's watchers ([`Rank::Process`]); a timer's state
//! ([`Rank::Object`]); a tree of alarms. No signal is sent under a timer's state.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_abi::layout::rlimit;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::alarm::{Alarm, Ring};
use super::clock::{Base, Watch, Watcher};
use super::cpu_alarm::Alarms;
use super::cpu_clock::{CpuClock, own_thread};
use super::expired::{Expired, Place};
use super::pending::Info;
use super::point::resched_point;
use super::process::{Process, TABLE};
use super::signal::{self, Posted};
use super::thread::{Thread, current};
use super::users::{Gone, Uncharged, charge};
use super::wait::Sleep;
use crate::vm::{Cpu, SpinLock};

/// Who hears of an expiration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Nobody.
    Nobody,
    /// The process, by a signal.
    Process,
    /// One of its threads, by a signal.
    Thread(u32),
}

/// The clock of a timer.
pub enum Clock {
    /// One that shows the time.
    Time(Base),
    /// One that shows CPU time.
    Cpu(CpuClock),
}

/// What a new timer is to do. The number of a signal is valid, unless nobody hears of it.
pub struct Plan {
    /// Its clock.
    pub clock: Clock,
    /// Who hears.
    pub notify: Notify,
    /// The signal.
    pub signal: u32,
    /// The value that goes with the signal; `None` for the timer's number.
    pub value: Option<u64>,
}

/// What a timer is set to, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// When it expires first; 0 for never.
    pub first: u64,
    /// Whether that is a point of time, and not a span from now on.
    pub is_absolute: bool,
    /// Time between expirations; 0 for one.
    pub interval: u64,
}

/// What a timer's setting counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Time(Base),
    /// The CPU time of its clock, which is read before the state is locked.
    Cpu,
}

struct State {
    line: Line,
    /// When it expires next, or has last; 0 if it was not set.
    at: u64,
    interval: u64,
    /// It will ring.
    is_armed: bool,
    /// It has an interval, has expired, and is armed again when its signal is delivered.
    is_waiting: bool,
    /// Expirations since the last delivery, as far as they were counted.
    overrun: i64,
    /// Expirations while the signal of a former setting was pending.
    merged: u32,
    /// The overrun at the last delivery.
    delivered: i64,
    is_deleted: bool,
}

/// A timer.
pub struct Timer {
    plan: Plan,
    process: KArc<Process>,
    state: SpinLock<State>,
    alarm: Alarm,
    watcher: Watcher,
    /// For a clock of CPU time: the alarms that it is among, its link there, and when it expires.
    alarms: Option<KArc<Alarms>>,
    /// See above.
    pub cpu_link: RBTreeLink,
    cpu_at: AtomicU64,
    place: Place,
    /// Where its signals wait.
    expired: Option<KArc<Expired>>,
    _charge: Charge,
    link: RBTreeLink,
}

// SAFETY: the link belongs to the lock of the tree; the rest is locked, atomic or does not change.
unsafe impl Sync for Timer {}
// SAFETY: as above.
unsafe impl Send for Timer {}

intrusive_adapter!(ById = UnsafeRef<Timer>: Timer { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for ById {
    type Key = u32;
    fn get_key(&self, timer: &'a Timer) -> u32 {
        timer.place.id
    }
}

intrusive_adapter!(pub ByCpuTime = UnsafeRef<Timer>: Timer { cpu_link => RBTreeLink });

impl<'a> KeyAdapter<'a> for ByCpuTime {
    type Key = (u64, usize);
    fn get_key(&self, timer: &'a Timer) -> (u64, usize) {
        (timer.cpu_time(), core::ptr::from_ref(timer).addr())
    }
}

struct Tree {
    timers: RBTree<ById>,
    next_id: u32,
}

// SAFETY: links are touched under the lock that this lives in, and the tree owns a count of each timer.
unsafe impl Send for Tree {}

impl Tree {
    /// A number that is not in use, each later than the last. EAGAIN if the next ones are all in use.
    fn free_id(&mut self) -> Result<u32, Errno> {
        const TRIES: usize = 64;
        for _ in 0..TRIES {
            let id = self.next_id;
            self.next_id = (id + 1) & i32::MAX as u32;
            if self.timers.find(&id).is_null() {
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }
}

/// A process's timers.
pub struct Timers {
    tree: SpinLock<Tree>,
    count: AtomicU32,
}

impl Timers {
    /// None.
    pub fn new() -> Self {
        let tree = Tree { timers: RBTree::new(ById::NEW), next_id: 0 };
        Self { tree: SpinLock::new(Cpu, Rank::Process, tree), count: AtomicU32::new(0) }
    }

    fn get(&self, id: u32) -> Option<KArc<Timer>> {
        let tree = self.tree.lock();
        let timer = tree.timers.find(&id).get()?;
        // SAFETY: the tree owns a count, and is locked.
        unsafe { KArc::upgrade(timer) }
    }

    /// Those with this number or a higher one.
    fn some_from<const N: usize>(&self, id: u32) -> [Option<KArc<Timer>>; N] {
        let tree = self.tree.lock();
        let mut at = tree.timers.lower_bound(Bound::Included(&id));
        let mut is_end = false;
        core::array::from_fn(|_| {
            // (A cursor goes from the end to the first again.)
            is_end |= at.is_null();
            let timer = at.get().filter(|_| !is_end)?;
            at.move_next();
            // SAFETY: the tree owns a count, and is locked.
            unsafe { KArc::upgrade(timer) }
        })
    }

    /// Takes out a timer: that with a number, or any.
    fn remove(&self, id: Option<u32>) -> Option<KArc<Timer>> {
        let mut tree = self.tree.lock();
        let mut at = match id {
            Some(id) => tree.timers.find_mut(&id),
            None => tree.timers.front_mut(),
        };
        let timer = at.remove()?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: `create` put it in with a count, which comes back.
        Some(unsafe { KArc::from_raw(UnsafeRef::into_raw(timer)) })
    }
}

impl Clock {
    fn line(&self) -> Line {
        match self {
            Clock::Time(base) => Line::Time(*base),
            Clock::Cpu(_) => Line::Cpu,
        }
    }
}

impl State {
    /// Moves an interval on behind `now`; returns how often it has expired up to then.
    fn forward(&mut self, now: u64) -> i64 {
        if self.interval == 0 || now < self.at {
            return 0;
        }
        let count = (now - self.at) / self.interval + 1;
        self.at = self.at.saturating_add(count.saturating_mul(self.interval));
        count as i64
    }

    /// Now, as the setting counts; `cpu` is the CPU time of the timer's clock.
    fn now(&self, cpu: u64) -> u64 {
        match self.line {
            Line::Time(base) => base.now(),
            Line::Cpu => cpu,
        }
    }

    /// What is left, and the interval. Nothing of a timer whose clock has ended.
    fn left(&mut self, cpu: Option<u64>, is_silent: bool) -> (u64, u64) {
        const LEAST: u64 = 1;
        let Some(cpu) = cpu else { return (0, 0) };
        if self.at == 0 || self.interval == 0 && !self.is_armed && !is_silent {
            return (0, 0);
        }
        let now = self.now(cpu);
        if self.is_waiting || is_silent {
            self.overrun += self.forward(now);
        }
        let left = self.at.saturating_sub(now);
        // What rings has not expired before it does.
        (if is_silent { left } else { left.max(LEAST) }, self.interval)
    }
}

/// A charge to a user, for as long as this is there.
struct Charge(u32);

impl Charge {
    fn new(process: &Process) -> Result<Self, Errno> {
        let user = process.uid();
        match charge(user, process.limit(rlimit::SIGPENDING)) {
            Ok(()) => Ok(Self(user)),
            Err(Uncharged::TooMany) => Err(Errno::EAGAIN),
            Err(Uncharged::NoMemory) => Err(Errno::ENOMEM),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        Gone::default().add(Some(self.0));
    }
}

/// Makes a timer of the calling process; returns its number. EINVAL for a thread of another process, EAGAIN if its user has too many, ENOMEM.
pub fn create(plan: Plan) -> Result<u32, Errno> {
    let process = current().process();
    let charge = Charge::new(process)?;
    let expired = queue_of(process, plan.notify)?;
    let alarms = match &plan.clock {
        Clock::Time(_) => None,
        Clock::Cpu(clock) => Some(clock.alarms()?),
    };
    let id = process.timers.tree.lock().free_id()?;
    let state = State {
        line: plan.clock.line(),
        at: 0,
        interval: 0,
        is_armed: false,
        is_waiting: false,
        overrun: 0,
        merged: 0,
        delivered: 0,
        is_deleted: false,
    };
    let timer = KArc::try_new(Timer {
        process: process.clone(),
        state: SpinLock::new(Cpu, Rank::Object, state),
        alarm: Alarm::new(),
        watcher: Watcher::new(),
        alarms,
        cpu_link: RBTreeLink::new(),
        cpu_at: AtomicU64::new(0),
        place: Place::new(plan.signal, id, plan.value.unwrap_or(u64::from(id))),
        plan,
        expired,
        _charge: charge,
        link: RBTreeLink::new(),
    })?;
    let mut tree = process.timers.tree.lock();
    if !tree.timers.find(&id).is_null() {
        // All numbers have come round meanwhile.
        drop(tree);
        return Err(Errno::EAGAIN);
    }
    process.timers.count.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the tree owns this count, which `remove` gives back.
    tree.timers.insert(unsafe { UnsafeRef::from_raw(KArc::into_raw(timer)) });
    Ok(id)
}

/// Where signals to somebody wait.
fn queue_of(process: &Process, notify: Notify) -> Result<Option<KArc<Expired>>, Errno> {
    if notify == Notify::Nobody {
        return Ok(None);
    }
    let new = Expired::new()?;
    let Notify::Thread(tid) = notify else {
        return Ok(Some(process.pending.change(|queue| queue.expired(&new))));
    };
    let table = TABLE.lock();
    let thread = own_thread(&table, process, tid);
    let queue = thread.ok_or(Errno::EINVAL)?.signals.lock().pending.expired(&new);
    Ok(Some(queue))
}

fn find(id: u32) -> Result<KArc<Timer>, Errno> {
    current().process().timers.get(id).ok_or(Errno::EINVAL)
}

/// Sets a timer of the calling process; returns what was left, and the interval.
pub fn set(id: u32, new: Setting) -> Result<(u64, u64), Errno> {
    let timer = find(id)?;
    let line = timer.plan.clock.line();
    let watches = line == Line::Time(Base::Real) && new.is_absolute && new.first != 0;
    if watches {
        // SAFETY: `retire` leaves, and `Watch` looks whether it has been.
        unsafe { timer.watcher.enter(&*timer) };
    }
    let cpu = timer.cpu_now();
    let mut state = timer.state.lock();
    if state.is_deleted {
        drop(state);
        timer.watcher.leave();
        return Err(Errno::EINVAL);
    }
    let old = state.left(cpu, timer.is_silent());
    timer.disarm();
    // A span is not affected by a change of the clock.
    state.line = match line {
        Line::Time(_) if !new.is_absolute => Line::Time(Base::Monotonic),
        line => line,
    };
    let begin = if new.is_absolute { 0 } else { state.now(cpu.unwrap_or(0)) };
    let (at, interval) = if new.first == 0 { (0, 0) } else { (begin.saturating_add(new.first), new.interval) };
    *state = State { at, interval, is_armed: false, is_waiting: false, overrun: 0, delivered: 0, ..*state };
    if at != 0 {
        timer.arm(&mut state);
    }
    Ok(old)
}

/// What is left of a timer of the calling process, and its interval.
pub fn get(id: u32) -> Result<(u64, u64), Errno> {
    let timer = find(id)?;
    let cpu = timer.cpu_now();
    let left = timer.state.lock().left(cpu, timer.is_silent());
    Ok(left)
}

/// The overrun of a timer of the calling process when its signal was delivered last.
pub fn overrun(id: u32) -> Result<i32, Errno> {
    let delivered = find(id)?.state.lock().delivered;
    Ok(clamp(delivered))
}

fn clamp(count: i64) -> i32 {
    count.clamp(0, i64::from(i32::MAX)) as i32
}

/// Deletes a timer of the calling process, with its signal if that is pending.
pub fn delete(id: u32) -> Result<(), Errno> {
    let timer = current().process().timers.remove(Some(id)).ok_or(Errno::EINVAL)?;
    timer.retire();
    Ok(())
}

/// exec and exit: the process, whose only thread calls this, has no timers any more. The caller holds no lock.
pub fn delete_all(process: &Process) {
    while process.timers.count.load(Ordering::Relaxed) > 0
        && let Some(timer) = process.timers.remove(None)
    {
        timer.retire();
        drop(timer);
        let _ = resched_point(Sleep::Killable);
    }
}

/// A timer's signal, which was taken from its queue, is about to be delivered: its record gets the overrun, and an interval goes on.
/// False if the timer is gone. The caller holds no lock.
pub fn deliver(process: &Process, info: &mut Info) -> bool {
    let id = info.fields[0] as u32;
    let Some(timer) = process.timers.get(id) else { return false };
    let cpu = timer.cpu_now().unwrap_or(0);
    let mut state = timer.state.lock();
    if state.is_deleted {
        return false;
    }
    let merged = i64::from(core::mem::take(&mut state.merged));
    let overrun = if state.is_waiting { timer.proceed(&mut state, cpu) } else { 0 };
    info.fields[0] = u64::from(id) | (clamp(merged + overrun) as u64) << 32;
    true
}

/// A signal that the calling process has ignored has an effect now: timers that wait for that go on.
pub fn heed(process: &Process, signal: u32) {
    const AT_ONCE: usize = 16;
    if process.timers.count.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut from = 0;
    loop {
        let some: [Option<KArc<Timer>>; AT_ONCE] = process.timers.some_from(from);
        for timer in some.iter().flatten().filter(|timer| timer.place.signal == signal) {
            timer.go_on(timer.cpu_now().unwrap_or(0));
        }
        let Some(last) = &some[AT_ONCE - 1] else { return };
        from = last.place.id + 1;
        let _ = resched_point(Sleep::Killable);
    }
}

impl Timer {
    fn is_silent(&self) -> bool {
        self.plan.notify == Notify::Nobody
    }

    /// When it expires by the CPU time of its clock.
    pub fn cpu_time(&self) -> u64 {
        self.cpu_at.load(Ordering::Relaxed)
    }

    /// The CPU time of its clock, 0 for a clock of time; `None` if that clock has ended. The caller holds no lock.
    fn cpu_now(&self) -> Option<u64> {
        match (&self.plan.clock, &self.alarms) {
            (Clock::Cpu(clock), Some(alarms)) => clock.now_of(|thread| thread.cpu_alarms.is(alarms)),
            _ => Some(0),
        }
    }

    /// The caller holds the state. It is not armed.
    fn arm(&self, state: &mut State) {
        if self.is_silent() || state.is_deleted {
            return;
        }
        state.is_armed = true;
        match (state.line, &self.plan.clock, &self.alarms) {
            // SAFETY: `retire` cancels it, and nothing arms it afterwards; the state's lock is held.
            (Line::Time(base), _, _) => unsafe { self.alarm.arm(self, base.power_on_ns(state.at)) },
            (Line::Cpu, Clock::Cpu(clock), Some(alarms)) => {
                self.cpu_at.store(state.at, Ordering::Relaxed);
                // SAFETY: `retire` takes it out, and nothing enters it afterwards.
                unsafe { alarms.enter(self, clock.part) };
            }
            _ => {}
        }
    }

    /// The caller holds the state.
    fn disarm(&self) {
        self.alarm.disarm();
        if let (Clock::Cpu(clock), Some(alarms)) = (&self.plan.clock, &self.alarms) {
            alarms.leave(self, clock.part);
        }
    }

    /// Arms an interval that waits for its signal to be delivered; returns the overrun. The caller holds the state.
    fn proceed(&self, state: &mut State, cpu: u64) -> i64 {
        let now = state.now(cpu);
        state.overrun += state.forward(now);
        state.is_waiting = false;
        // The expiration that the signal is of is no overrun.
        state.delivered = core::mem::take(&mut state.overrun) - 1;
        self.arm(state);
        state.delivered
    }

    /// Arms an interval whose signal will not be delivered, if it has waited for that. What has expired so far is overrun.
    fn go_on(&self, cpu: u64) {
        if self.expired.as_ref().is_some_and(|expired| expired.holds(&self.place)) {
            return;
        }
        let mut state = self.state.lock();
        if state.is_waiting {
            let now = state.now(cpu);
            state.overrun += state.forward(now);
            state.is_waiting = false;
            self.arm(&mut state);
        }
    }

    /// It is out of the tree: nothing is to find it from its alarm, the clock or a queue any more. The caller holds no lock.
    fn retire(&self) {
        {
            let mut state = self.state.lock();
            *state = State { is_deleted: true, is_armed: false, is_waiting: false, ..*state };
            self.disarm();
        }
        self.watcher.leave();
        self.alarm.cancel();
        let Some(expired) = &self.expired else { return };
        // Whoever has found it due has sent its signal, or sends none any more.
        let table = TABLE.lock();
        match self.plan.notify {
            Notify::Thread(tid) => {
                let forget = |thread: &Thread| thread.signals.lock().pending.forget(expired, &self.place);
                if !table.thread(tid).is_some_and(forget) {
                    // That thread has ended.
                    expired.remove(&self.place);
                }
            }
            _ => _ = self.process.pending.change(|queue| queue.forget(expired, &self.place)),
        }
    }
}

impl Timer {
    /// The CPU time of its clock has been reached, unless that changed meanwhile. The caller holds no lock.
    pub fn ring_by_cpu_time(&self, now: u64) {
        self.expire(now, |state| state.line == Line::Cpu && state.at <= now);
    }

    /// `cpu` is the CPU time of its clock.
    fn expire(&self, cpu: u64, is_due: impl FnOnce(&State) -> bool) {
        let Some(expired) = &self.expired else { return };
        let table = TABLE.lock();
        let is_repeated = {
            let mut state = self.state.lock();
            if !state.is_armed || !is_due(&state) {
                return;
            }
            state.is_armed = false;
            state.is_waiting = state.interval != 0;
            state.is_waiting
        };
        let thread = if let Notify::Thread(tid) = self.plan.notify { Some(tid) } else { None };
        // SAFETY: `retire` takes it out, after it has waited for this ring.
        match unsafe { signal::post(&table, &self.process, thread, expired, &self.place) } {
            Posted::Pending => {
                let mut state = self.state.lock();
                state.merged = state.merged.saturating_add(1);
            }
            // Ignored no more, meanwhile: whoever has changed that may have come too early to see that this waits.
            Posted::Ignored if is_repeated && !signal::is_ignored(&self.process, self.plan.signal) => self.go_on(cpu),
            Posted::Sent | Posted::Ignored | Posted::Gone => {}
        }
    }
}

impl Ring for Timer {
    fn ring(&self, now: u64) {
        self.expire(0, |state| matches!(state.line, Line::Time(base) if base.power_on_ns(state.at) <= now));
    }
}

impl Watch for Timer {
    fn clock_was_set(&self) {
        let mut state = self.state.lock();
        if state.is_armed && state.line == Line::Time(Base::Real) {
            self.alarm.disarm();
            self.arm(&mut state);
        }
    }
}
